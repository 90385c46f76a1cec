/* SPDX-License-Identifier: MIT */
/* What the tests of barriers share. */
#ifndef MPROC_TEST_BARRIER_SUPPORT_H
#define MPROC_TEST_BARRIER_SUPPORT_H

#include "sync_support.h"

#include <stdatomic.h>

enum { PARTIES = 4 };

struct share {
    mproc_barrier *b;
    atomic_int ready, back, acted, may_act;
    atomic_int index[PARTIES]; /* how often each was given */
    int action_result;
    mproc_deadline until;
};

static struct share *s;

static inline int set_up(void **state)
{
    (void)state;
    s = shared(sizeof *s);
    s->until = MPROC_FOREVER;
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    mproc_barrier_free(s->b);
    return munmap(s, sizeof *s);
}

#define BARRIER_TEST(name) \
    cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static inline void make(unsigned parties)
{
    assert_ok(mproc_barrier_new(&s->b, parties, NULL));
}

static inline void make_acting(unsigned parties, int (*action)(void *user))
{
    const mproc_barrier_opts opts = {.action = action, .user = s};
    assert_ok(mproc_barrier_new(&s->b, parties, &opts));
}

/* What a child's wait said, as its exit status. */
enum { PASSED, TIMED_OUT, SAW_BROKEN, SAW_FREED, ODD };

static inline int status_of(int err)
{
    return err == 0                 ? PASSED
           : err == MPROC_ETIMEDOUT ? TIMED_OUT
           : err == MPROC_EBROKEN   ? SAW_BROKEN
           : err == MPROC_EINVAL    ? SAW_FREED
                                    : ODD;
}

static inline int wait_for_it(void *unused)
{
    (void)unused;
    unsigned index = 77;
    mproc_deadline until = s->until;
    atomic_fetch_add(&s->ready, 1);
    int err = mproc_barrier_wait(s->b, &index, until);
    assert_true(err == 0 || index == 77);
    if (err == 0) {
        atomic_fetch_add(&s->index[index], 1);
    }
    atomic_fetch_add(&s->back, 1);
    return status_of(err);
}

/* Until they sleep in it. */
static inline void start_waiters(pid_t *pids, int n)
{
    start_asleep(pids, n, wait_for_it, &s->ready);
}

static inline void expect_good_for_one_more_round(int parties)
{
    pid_t pids[PARTIES];
    assert_false(mproc_barrier_broken(s->b));
    assert_int_equal(mproc_barrier_n_waiting(s->b), 0);
    start_waiters(pids, parties - 1);
    assert_int_equal(mproc_barrier_n_waiting(s->b), parties - 1);
    assert_ok(mproc_barrier_wait(s->b, NULL, TEST_BOUND));
    await_results(pids, parties - 1, PASSED);
    assert_int_equal(mproc_barrier_n_waiting(s->b), 0);
}

/* An action that goes on until it is told to end. */
static inline int act_until_told(void *user)
{
    (void)user;
    atomic_fetch_add(&s->acted, 1);
    await_count(&s->may_act, 1);
    return 0;
}

/* Of a barrier of 3: two wait, the last one is in the action. */
static inline void start_action(pid_t *pids)
{
    make_acting(3, act_until_told);
    start_waiters(pids, 2);
    pids[2] = test_fork(wait_for_it, NULL);
    await_count(&s->acted, 1);
    assert_int_equal(mproc_barrier_n_waiting(s->b), 3);
    assert_false(mproc_barrier_broken(s->b));
}

#endif
