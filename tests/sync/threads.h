/* SPDX-License-Identifier: MIT */
/*
 * What the tests of sync/ share that run among threads which have a slot each:
 * the end of a thread is then the death of a participant, and the thread
 * sanitizer sees what it cannot see between processes. All sleeps begin in
 * their second stage, which has no timed look, so a wake-up that is lost is a
 * test that hangs.
 */
#ifndef TESTS_SYNC_THREADS_H
#define TESTS_SYNC_THREADS_H

#include "test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "shm/sleep.h"

enum { THREADS = 4, ROUNDS = 10000 };

typedef void *thread_fn(void *arg);

static atomic_int ready, told;
static long counter; /* under the lock of the test */

static inline int before_each(void **state)
{
    (void)state;
    counter = 0;
    atomic_store(&ready, 0);
    atomic_store(&told, 0);
    return 0;
}

#define THREADS_TEST(name) cmocka_unit_test_setup(name, before_each)

static inline pthread_t start(thread_fn *fn, void *arg)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fn, arg), 0);
    return thread;
}

struct job {
    thread_fn *fn;
    void *arg;
    atomic_int *missing;
};

static inline void *run_job(void *arg)
{
    struct job *job = arg;
    atomic_fetch_sub(job->missing, 1);
    while (atomic_load(job->missing) > 0) {
        sched_yield();
    }
    return job->fn(job->arg);
}

/* Among n threads that begin together. */
static inline void run(thread_fn *fn, void *arg, int n)
{
    pthread_t threads[2 * THREADS];
    atomic_int missing = n;
    struct job job = {fn, arg, &missing};
    for (int i = 0; i < n; i++) {
        threads[i] = start(run_job, &job);
    }
    for (int i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* Now and then, so that others meet what the caller is in the midst of. */
static inline void linger(int i)
{
    if (i % 64 == 0) {
        sched_yield();
    }
}

/* Until a condition that another thread brings about, or the test's limit. */
#define await(condition)                                            \
    do {                                                            \
        mproc_deadline until_ = TEST_BOUND;                         \
        while (!(condition)) {                                      \
            assert_true(mproc_in_ms(0).at_ns < until_.at_ns);       \
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL); \
        }                                                           \
    } while (0)

static inline void reap_dead(void)
{
    struct mpr_thread *self;
    assert_ok(mpr_self(&self));
    mpr_slots_reap(self);
}

/* A thread that calls something that sleeps, and tells what that said. */
struct caller {
    int (*call)(void *object, mproc_deadline until);
    void *object;
    mproc_deadline until;
    atomic_int tid, back;
    int err;
};

/* While set, callers that are back live on: their deaths would wake others. */
static atomic_bool stay;

static inline void *call_it(void *arg)
{
    struct caller *caller = arg;
    atomic_store(&caller->tid, mpr_os_tid());
    caller->err = caller->call(caller->object, caller->until);
    atomic_store(&caller->back, 1);
    await(!atomic_load(&stay));
    return NULL;
}

/* Until it sleeps in the call. */
static inline pthread_t start_call(struct caller *caller,
                                   int (*call)(void *, mproc_deadline),
                                   void *object, mproc_deadline until)
{
    caller->call = call;
    caller->object = object;
    caller->until = until;
    atomic_store(&caller->tid, 0);
    atomic_store(&caller->back, 0);
    pthread_t thread = start(call_it, caller);
    await(atomic_load(&caller->tid) != 0 &&
          test_stat_of(atomic_load(&caller->tid)).state == 'S');
    return thread;
}

static inline int wait_for_event(void *e, mproc_deadline until)
{
    return mproc_event_wait(e, until);
}

/* Starts THREADS callers, lets them go, and compares what they are told. */
static inline void expect_all_back(int (*call)(void *, mproc_deadline),
                                   void *object, void (*let_go)(void *),
                                   int err)
{
    struct caller callers[THREADS];
    pthread_t threads[THREADS];
    atomic_store(&stay, true);
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start_call(&callers[i], call, object, MPROC_FOREVER);
    }
    let_go(object);
    for (int i = 0; i < THREADS; i++) {
        await(atomic_load(&callers[i].back));
    }
    atomic_store(&stay, false);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_err(callers[i].err, err);
    }
}

/* In main, before anything else. */
static inline void threads_have_slots(void)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1); /* no jump out of other threads */
    mpr_test_slot_per_thread(true);
    mpr_test_deep_sleep = true;
}

#endif
