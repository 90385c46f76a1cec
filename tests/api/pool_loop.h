/* SPDX-License-Identifier: MIT */
/* What the tests of dispatching share: pools, event loops, callbacks. */
#ifndef MPROC_POOL_LOOP_H
#define MPROC_POOL_LOOP_H

#include "pool_support.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

static inline mproc_pool *manual_pool(size_t workers)
{
    return pool_with(
        (mproc_pool_opts){.workers = workers, .manual_dispatch = 1});
}

static inline bool readable(mproc_pool *p, int ms)
{
    struct pollfd fd = {.fd = mproc_pool_fd(p), .events = POLLIN};
    assert_true(fd.fd >= 0);
    return poll(&fd, 1, ms) == 1;
}

/* There is nothing to do, once what came too late has been looked at. */
static inline void expect_quiet(mproc_pool *p)
{
    for (int i = 0; i < 100 && readable(p, 0); i++) {
        assert_err(mproc_pool_dispatch(p, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    }
    assert_false(readable(p, 0));
}

/* Until the pool says that nothing is left. Returns how many callbacks ran. */
static inline int dispatch_to_the_end(mproc_pool *p)
{
    int total = 0;
    for (;;) {
        assert_true(readable(p, 30000));
        int n = mproc_pool_dispatch(p, MPROC_NOWAIT);
        if (n == MPROC_EOF) {
            return total;
        }
        assert_true(n > 0 || n == MPROC_ETIMEDOUT);
        total += n > 0 ? n : 0;
    }
}

/* What callbacks saw. */
struct seen {
    pthread_t thread;
    int good, bad, elsewhere;
    long sum;
    _Atomic int inside;
    int overlapping;
};

static inline void see(const mproc_outcome *o, void *user)
{
    struct seen *seen = user;
    seen->overlapping += atomic_fetch_add(&seen->inside, 1) != 0;
    seen->elsewhere += !pthread_equal(pthread_self(), seen->thread);
    seen->good += o->status == MPROC_OK;
    seen->bad += o->status != MPROC_OK;
    seen->sum += o->size == sizeof(int) ? *(const int *)o->data : 0;
    atomic_fetch_sub(&seen->inside, 1);
}

static inline mproc_call seen_call(int *n, struct seen *seen)
{
    return (mproc_call){.fn = squares,
                        .arg = n,
                        .arg_size = sizeof *n,
                        .callback = see,
                        .error_callback = see,
                        .user = seen};
}

static inline struct seen nothing_seen(void)
{
    return (struct seen){.thread = pthread_self()};
}

#endif
