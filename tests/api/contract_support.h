/* SPDX-License-Identifier: MIT */
/* What the tests of what holds for every call share. */
#ifndef MPROC_TEST_CONTRACT_SUPPORT_H
#define MPROC_TEST_CONTRACT_SUPPORT_H

#include "test.h"

#include <string.h>

/* The sanitizers must let memory be refused, and a fork beside threads be. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1:die_after_fork=0";
}

enum kind {
    LOCK,
    RLOCK,
    SEMAPHORE,
    EVENT,
    CONDITION,
    BARRIER,
    QUEUE,
    CONNECTION,
    PROCESS,
    POOL,
    RESULT,
    ITER,
    KINDS
};

struct all {
    void *handle[KINDS];
    mproc_connection *peer;
};

static inline int say_nothing(void *arg)
{
    (void)arg;
    return 0;
}

static inline int reply_seven(const void *arg, size_t size, mproc_reply *reply)
{
    int seven = 7;
    (void)arg;
    (void)size;
    return mproc_reply_set(reply, &seven, sizeof seven);
}

static inline void make_all(struct all *all)
{
    mproc_lock *lock;
    mproc_rlock *rlock;
    mproc_semaphore *semaphore;
    mproc_event *event;
    mproc_condition *condition;
    mproc_barrier *barrier;
    mproc_queue *queue;
    mproc_connection *connection;
    mproc_process *process;
    mproc_pool *pool;
    mproc_result *result;
    mproc_iter *iter;
    const mproc_batch none = {.fn = reply_seven};
    const mproc_pool_opts one = {.workers = 1};
    const mproc_call call = {.fn = reply_seven};
    assert_ok(mproc_lock_new(&lock));
    assert_ok(mproc_rlock_new(&rlock));
    assert_ok(mproc_semaphore_new(&semaphore, 1, NULL));
    assert_ok(mproc_event_new(&event));
    assert_ok(mproc_condition_new(&condition, NULL));
    assert_ok(mproc_barrier_new(&barrier, 2, NULL));
    assert_ok(mproc_queue_new(&queue, &(mproc_queue_opts){.joinable = 1}));
    assert_ok(mproc_pipe_new(&connection, &all->peer, NULL));
    assert_ok(mproc_process_new(&process, say_nothing, NULL, NULL));
    assert_ok(mproc_pool_new(&pool, &one));
    assert_ok(mproc_pool_apply_async(pool, &call, &result, TEST_BOUND));
    assert_ok(mproc_pool_imap(pool, &none, &iter));
    void *handles[KINDS] = {lock,      rlock,   semaphore, event,
                            condition, barrier, queue,     connection,
                            process,   pool,    result,    iter};
    memcpy(all->handle, handles, sizeof handles);
}

/* Each is what it was: nothing harmed it. */
static inline void expect_all_live(const struct all *all)
{
    int seven = 0;
    void *const *h = all->handle;
    assert_ok(mproc_lock_acquire(h[LOCK], TEST_BOUND));
    assert_ok(mproc_lock_release(h[LOCK]));
    assert_ok(mproc_rlock_acquire(h[RLOCK], TEST_BOUND));
    assert_ok(mproc_rlock_release(h[RLOCK]));
    assert_int_equal(mproc_semaphore_value(h[SEMAPHORE]), 1);
    assert_ok(mproc_event_set(h[EVENT]));
    assert_ok(mproc_event_wait(h[EVENT], MPROC_NOWAIT));
    assert_ok(mproc_event_clear(h[EVENT]));
    assert_ok(mproc_condition_acquire(h[CONDITION], TEST_BOUND));
    assert_ok(mproc_condition_notify_all(h[CONDITION]));
    assert_ok(mproc_condition_release(h[CONDITION]));
    assert_int_equal(mproc_barrier_parties(h[BARRIER]), 2);
    assert_int_equal(mproc_barrier_n_waiting(h[BARRIER]), 0);
    assert_false(mproc_barrier_broken(h[BARRIER]));
    assert_int_equal(mproc_queue_qsize(h[QUEUE]), 0);
    assert_ok(mproc_queue_join(h[QUEUE], MPROC_NOWAIT));
    assert_err(mproc_connection_poll(h[CONNECTION], MPROC_NOWAIT),
               MPROC_ETIMEDOUT);
    assert_string_not_equal(mproc_process_name(h[PROCESS]), "");
    assert_false(mproc_process_is_alive(h[PROCESS]));
    assert_int_equal(mproc_pool_worker_pids(h[POOL], NULL, 0), 1);
    assert_ok(
        mproc_result_get(h[RESULT], &seven, sizeof seven, NULL, TEST_BOUND));
    assert_int_equal(seven, 7);
    assert_true(mproc_result_successful(h[RESULT]));
    assert_err(mproc_iter_next(h[ITER], NULL, TEST_BOUND), MPROC_EOF);
}

typedef void free_fn(void *handle);

static inline void free_lock(void *handle)
{
    mproc_lock_free(handle);
}

static inline void free_rlock(void *handle)
{
    mproc_rlock_free(handle);
}

static inline void free_semaphore(void *handle)
{
    mproc_semaphore_free(handle);
}

static inline void free_event(void *handle)
{
    mproc_event_free(handle);
}

static inline void free_condition(void *handle)
{
    mproc_condition_free(handle);
}

static inline void free_barrier(void *handle)
{
    mproc_barrier_free(handle);
}

static inline void free_queue(void *handle)
{
    mproc_queue_free(handle);
}

static inline void close_connection(void *handle)
{
    (void)mproc_connection_close(handle);
}

static inline void free_process(void *handle)
{
    mproc_process_free(handle);
}

static inline void free_pool(void *handle)
{
    mproc_pool_free(handle);
}

static inline void free_result(void *handle)
{
    mproc_result_free(handle);
}

static inline void free_iter(void *handle)
{
    mproc_iter_free(handle);
}

static free_fn *const frees[KINDS] = {
    free_lock,      free_rlock,   free_semaphore, free_event,
    free_condition, free_barrier, free_queue,     close_connection,
    free_process,   free_pool,    free_result,    free_iter,
};

static inline void free_all(struct all *all)
{
    for (int kind = 0; kind < KINDS; kind++) {
        frees[kind](all->handle[kind]);
    }
    assert_ok(mproc_connection_close(all->peer));
}

static inline bool never_asked(void *user)
{
    (void)user;
    fail();
    return true;
}

static inline int get_four(const void *arg, size_t size, mproc_reply *reply)
{
    return mproc_reply_set(reply, arg, size);
}

#endif
