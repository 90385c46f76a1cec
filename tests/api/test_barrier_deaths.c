/* SPDX-License-Identifier: MIT */
/* Barriers whose users die, or are stopped. */
#include "barrier_support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

static void a_dead_waiter_breaks_it_for_those_who_sleep(void **state)
{
    (void)state;
    pid_t pids[PARTIES - 1];
    make(PARTIES);
    start_waiters(pids, PARTIES - 1);
    kill_and_reap(pids[1]);
    await_results(&pids[0], 1, SAW_BROKEN);
    await_results(&pids[2], 1, SAW_BROKEN);
    assert_true(mproc_barrier_broken(s->b));
    assert_err(mproc_barrier_wait(s->b, NULL, MPROC_FOREVER), MPROC_EBROKEN);
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(PARTIES);
}

/* With nobody who could have noticed the deaths before. */
static void the_last_one_does_not_go_on_with_the_dead(void **state)
{
    (void)state;
    pid_t pids[PARTIES - 1];
    make(PARTIES);
    start_waiters(pids, PARTIES - 1);
    for (int i = 0; i < PARTIES - 1; i++) {
        stop(pids[i]);
    }
    for (int i = 0; i < PARTIES - 1; i++) {
        kill_and_reap(pids[i]);
    }
    assert_err(mproc_barrier_wait(s->b, NULL, TEST_BOUND), MPROC_EBROKEN);
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(PARTIES);
}

static void a_dead_waiter_is_seen_by_who_only_asks(void **state)
{
    (void)state;
    pid_t pid;
    make(2);
    for (int i = 0; i < 2; i++) {
        start_waiters(&pid, 1);
        kill_and_reap(pid);
        assert_int_equal(i == 0 ? 0 : mproc_barrier_n_waiting(s->b), 0);
        assert_true(mproc_barrier_broken(s->b));
        assert_err(mproc_barrier_wait(s->b, NULL, TEST_BOUND), MPROC_EBROKEN);
        assert_ok(mproc_barrier_reset(s->b));
    }
}

static void a_dead_actor_breaks_it(void **state)
{
    (void)state;
    pid_t pids[4];
    start_action(pids);
    start_waiters(&pids[3], 1); /* one who would be of the next round */
    kill_and_reap(pids[2]);
    await_results(pids, 2, SAW_BROKEN);
    await_results(&pids[3], 1, SAW_BROKEN);
    assert_true(mproc_barrier_broken(s->b));
}

static void a_lone_dead_actor_breaks_it(void **state)
{
    (void)state;
    make_acting(1, act_until_told);
    pid_t pid = test_fork(wait_for_it, NULL);
    await_count(&s->acted, 1);
    kill_and_reap(pid);
    assert_true(mproc_barrier_broken(s->b));
    assert_err(mproc_barrier_wait(s->b, NULL, TEST_BOUND), MPROC_EBROKEN);
}

static void a_waiter_that_dies_during_an_action_breaks_it(void **state)
{
    (void)state;
    pid_t pids[3];
    start_action(pids);
    kill_and_reap(pids[0]);
    await_results(&pids[1], 1, SAW_BROKEN);
    atomic_store(&s->may_act, 1);
    await_results(&pids[2], 1, SAW_BROKEN);
}

static void *wait_in_thread(void *unused)
{
    (void)wait_for_it(unused);
    return NULL;
}

static int end_with_one_waiting(void *unused)
{
    pthread_t thread;
    (void)unused;
    int before = atomic_load(&s->ready);
    pthread_create(&thread, NULL, wait_in_thread, NULL);
    await_count(&s->ready, before + 1);
    mproc_deadline until = TEST_BOUND;
    while (mproc_barrier_n_waiting(s->b) == 0) {
        assert_true(mproc_in_ms(0).at_ns < until.at_ns);
        look_again_soon();
    }
    return 9;
}

static void the_end_of_a_process_with_a_waiter_breaks_it(void **state)
{
    (void)state;
    make(2);
    pid_t pid = test_fork(end_with_one_waiting, NULL);
    assert_int_equal(test_wait_exit(pid), 9);
    assert_err(mproc_barrier_wait(s->b, NULL, TEST_BOUND), MPROC_EBROKEN);
}

/* Released, but not yet back: its generation is over. */
static void who_dies_after_the_release_breaks_nothing(void **state)
{
    (void)state;
    pid_t pids[3];
    make(3);
    start_waiters(pids, 2);
    stop(pids[0]);
    assert_ok(mproc_barrier_wait(s->b, NULL, TEST_BOUND));
    await_results(&pids[1], 1, PASSED);
    kill_and_reap(pids[0]);
    expect_good_for_one_more_round(3);
}

static void a_stopped_waiter_only_delays(void **state)
{
    (void)state;
    pid_t pids[3], others[2];
    make(3);
    start_waiters(pids, 2);
    stop(pids[0]);
    pids[2] = test_fork(wait_for_it, NULL);
    await_results(&pids[1], 2, PASSED);
    start_waiters(others, 2); /* the next round, and its end */
    assert_ok(mproc_barrier_abort(s->b));
    await_results(others, 2, SAW_BROKEN);
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(3);
    assert_int_equal(kill(pids[0], SIGCONT), 0);
    await_results(pids, 1, PASSED); /* as its own round ended */
}

static void a_stopped_waiter_hears_how_its_own_round_ended(void **state)
{
    (void)state;
    pid_t pids[2];
    make(2);
    start_waiters(&pids[0], 1);
    stop(pids[0]);
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(2);
    expect_good_for_one_more_round(2);
    assert_int_equal(kill(pids[0], SIGCONT), 0);
    await_results(pids, 1, SAW_BROKEN);
}

static int wait_and_tell_when(void *unused)
{
    (void)unused;
    atomic_fetch_add(&s->ready, 1);
    int err = mproc_barrier_wait(s->b, NULL, MPROC_FOREVER);
    s->until = mproc_in_ms(0);
    return status_of(err);
}

/* On a machine that is busy it may last longer, but not each time. */
static void a_death_is_told_within_100_ms(void **state)
{
    (void)state;
    double best = 1e9;
    make(3);
    for (int round = 0; round < 20 && best > 100; round++) {
        pid_t pids[2];
        s->until = MPROC_FOREVER;
        start_waiters(pids, 1);
        pids[1] = test_fork(wait_and_tell_when, NULL);
        await_count(&s->ready, 2 * round + 2);
        await_asleep(pids[1]);
        int64_t killed = mproc_in_ms(0).at_ns;
        kill_and_reap(pids[0]);
        await_results(&pids[1], 1, SAW_BROKEN);
        double ms = (double)(s->until.at_ns - killed) / 1e6;
        best = ms < best ? ms : best;
        assert_ok(mproc_barrier_reset(s->b));
    }
    assert_true(best <= 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BARRIER_TEST(a_dead_waiter_breaks_it_for_those_who_sleep),
        BARRIER_TEST(the_last_one_does_not_go_on_with_the_dead),
        BARRIER_TEST(a_dead_waiter_is_seen_by_who_only_asks),
        BARRIER_TEST(a_dead_actor_breaks_it),
        BARRIER_TEST(a_lone_dead_actor_breaks_it),
        BARRIER_TEST(a_waiter_that_dies_during_an_action_breaks_it),
        BARRIER_TEST(the_end_of_a_process_with_a_waiter_breaks_it),
        BARRIER_TEST(who_dies_after_the_release_breaks_nothing),
        BARRIER_TEST(a_stopped_waiter_only_delays),
        BARRIER_TEST(a_death_is_told_within_100_ms),
        BARRIER_TEST(a_stopped_waiter_hears_how_its_own_round_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
