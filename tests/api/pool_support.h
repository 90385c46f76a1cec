/* SPDX-License-Identifier: MIT */
/* What the tests of pools share: each leaves nothing behind. */
#ifndef MPROC_POOL_SUPPORT_H
#define MPROC_POOL_SUPPORT_H

#include "live_objects.h"
#include "test.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/sleep.h"

/* A maker that exits without freeing its pool joins no thread of it. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "report_thread_leaks=0";
}

/* ---- what every test begins and ends with ----------------------------- */

struct before {
    mproc_heap_info heap;
    int fds;
    int objects;
};

static inline int note_what_is(void **state)
{
    static struct before before;
    mpr_test_deep_sleep = true; /* a timed look would hide a lost wake-up */
    assert_ok(mproc_heap_stats(&before.heap));
    before.fds = test_open_fds();
    before.objects = live_objects();
    *state = &before;
    return 0;
}

static inline mproc_queue *queue(void)
{
    mproc_queue *q;
    assert_ok(mproc_queue_new(&q, NULL));
    return q;
}

/*
 * What a killed process had in hand is given back by who sleeps long enough to
 * look after others.
 */
static inline void let_the_dead_be_reaped(size_t blocks)
{
    mproc_queue *q = queue();
    mproc_heap_info now = {.blocks = SIZE_MAX};
    for (int i = 0; i < 100 && now.blocks != blocks; i++) {
        mproc_queue_get(q, NULL, 0, NULL, mproc_in_ms(60));
        assert_ok(mproc_heap_stats(&now));
    }
    mproc_queue_free(q);
}

static inline int nothing_is_left(void **state)
{
    const struct before *before = *state;
    mproc_heap_info now;
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(test_open_fds(), before->fds);
    assert_ok(mproc_heap_stats(&now));
    if (now.blocks != before->heap.blocks) {
        let_the_dead_be_reaped(before->heap.blocks);
        assert_ok(mproc_heap_stats(&now));
    }
    assert_int_equal(now.blocks, before->heap.blocks);
    assert_int_equal(now.in_use, before->heap.in_use);
    assert_int_equal(live_objects(), before->objects);
    return 0;
}

#define CLEAN(test) \
    cmocka_unit_test_setup_teardown(test, note_what_is, nothing_is_left)

/* ---- pools and tasks -------------------------------------------------- */

static inline int squares(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg * *(const int *)arg;
    (void)size;
    return mproc_reply_set(reply, &n, sizeof n);
}

static inline mproc_pool *pool_with(mproc_pool_opts opts)
{
    mproc_pool *p;
    assert_ok(mproc_pool_new(&p, &opts));
    return p;
}

static inline mproc_pool *pool_of(size_t workers)
{
    return pool_with((mproc_pool_opts){.workers = workers});
}

static inline void end_of(mproc_pool *p)
{
    assert_ok(mproc_pool_close(p));
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    mproc_pool_free(p);
}

static inline void expect_workers(mproc_pool *p, size_t count)
{
    for (int i = 0; i < 3000 && mproc_pool_worker_pids(p, NULL, 0) != count;
         i++) {
        usleep(10000);
    }
    assert_int_equal(mproc_pool_worker_pids(p, NULL, 0), count);
}

static inline mproc_result *sent(mproc_pool *p, mproc_call call)
{
    mproc_result *r;
    assert_ok(mproc_pool_apply_async(p, &call, &r, MPROC_FOREVER));
    return r;
}

#endif
