/* SPDX-License-Identifier: MIT */
/* What the tests of locks and friends share. */
#ifndef MPROC_TEST_SYNC_SUPPORT_H
#define MPROC_TEST_SYNC_SUPPORT_H

#include "test.h"

#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Zeroed memory that the test and its children share. */
static inline void *shared(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

static inline void look_again_soon(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

/* Until another process has brought the count to `n`. */
static inline void await_count(atomic_int *count, int n)
{
    mproc_deadline until = TEST_BOUND;
    while (atomic_load(count) < n) {
        assert_true(mproc_in_ms(0).at_ns < until.at_ns);
        look_again_soon();
    }
}

/*
 * Until a child that has counted itself in `ready`, last thing before the call
 * in question, sleeps in that call.
 */
static inline void await_asleep(pid_t pid)
{
    test_await_state(pid, 'S');
}

/*
 * Children that run `fn`, which counts itself in `ready` last thing before it
 * sleeps: until all do.
 */
static inline void start_asleep(pid_t *pids, int n, int (*fn)(void *),
                                atomic_int *ready)
{
    int before = atomic_load(ready);
    for (int i = 0; i < n; i++) {
        pids[i] = test_fork(fn, NULL);
    }
    await_count(ready, before + n);
    for (int i = 0; i < n; i++) {
        await_asleep(pids[i]);
    }
}

static inline void await_results(const pid_t *pids, int n, int result)
{
    for (int i = 0; i < n; i++) {
        assert_int_equal(test_wait_exit(pids[i]), result);
    }
}

static inline void stop(pid_t pid)
{
    assert_int_equal(kill(pid, SIGSTOP), 0);
    test_await_state(pid, 'T');
}

static inline void kill_and_reap(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(test_wait_exit(pid), -SIGKILL);
}

static inline void pause_for_ever(void)
{
    for (;;) {
        pause();
    }
}

/* Memory of this process that is no object of the library. */
static inline void *no_object(void)
{
    static _Alignas(64) char bytes[256];
    return bytes;
}

#endif
