/* SPDX-License-Identifier: MIT */
/* Tasks and callbacks that several tests of pools send. */
#ifndef MPROC_POOL_TASKS_H
#define MPROC_POOL_TASKS_H

#include "pool_support.h"

#include <signal.h>

static inline int does_nothing(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    return 0;
}

static inline int tells_pid(const void *arg, size_t size, mproc_reply *reply)
{
    pid_t pid = getpid();
    (void)arg;
    (void)size;
    return mproc_reply_set(reply, &pid, sizeof pid);
}

/* A worker that is free. */
static inline pid_t worker_of(mproc_pool *p)
{
    pid_t pid;
    mproc_call call = {.fn = tells_pid};
    assert_ok(mproc_pool_apply(p, &call, &pid, sizeof pid, TEST_BOUND));
    return pid;
}

static inline int says_why(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    mproc_reply_fail(reply, 1, "not this");
    return mproc_reply_fail(reply, -12, "%s of %d", "bun", *(const int *)arg);
}

/* Says its pid and waits for ever. */
static inline int stays(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_queue *here = *(mproc_queue *const *)arg;
    pid_t pid = getpid();
    (void)size;
    (void)reply;
    mproc_queue_put(here, &pid, sizeof pid, MPROC_FOREVER);
    while (pause() != 0) {
    }
    return 0;
}

/* The pid of one that stays, once it does. */
static inline pid_t heard(mproc_queue *here)
{
    pid_t pid;
    assert_ok(mproc_queue_get(here, &pid, sizeof pid, NULL, TEST_BOUND));
    return pid;
}

static inline int kills_itself(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    raise(SIGKILL);
    return 0;
}

/* Runs until something is in the queue of its argument. */
static inline int waits_for(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_queue *gate = *(mproc_queue *const *)arg;
    (void)size;
    (void)reply;
    return mproc_queue_get(gate, NULL, 0, NULL, MPROC_FOREVER);
}

static inline void open_gate(mproc_queue *gate, int times)
{
    for (int i = 0; i < times; i++) {
        assert_ok(mproc_queue_put(gate, NULL, 0, MPROC_FOREVER));
    }
}

struct turn {
    mproc_queue *order;
    int number;
};

static inline int takes_its_turn(const void *arg, size_t size,
                                 mproc_reply *reply)
{
    const struct turn *turn = arg;
    (void)size;
    (void)reply;
    return mproc_queue_put(turn->order, &turn->number, sizeof(int),
                           MPROC_FOREVER);
}

/* Not well, but as `status` says, and without data. */
static inline void expect_ends(mproc_result *r, int status)
{
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    const mproc_outcome *o = mproc_result_outcome(r);
    assert_err(o->status, status);
    assert_int_equal(o->size, 0);
    assert_int_equal(o->code, 0);
    assert_false(mproc_result_successful(r));
    assert_err(mproc_result_get(r, NULL, 0, NULL, MPROC_NOWAIT), status);
}

static inline void free_it(const mproc_outcome *o, void *user)
{
    (void)o;
    mproc_pool_free(user);
}

#endif
