/* SPDX-License-Identifier: MIT */
#include "sync_support.h"

#include <sys/time.h>

struct share {
    atomic_int ready;
    mproc_event *event, *answer;
    mproc_deadline until;
};

static struct share *s;

static int set_up(void **state)
{
    (void)state;
    s = shared(sizeof *s);
    s->until = MPROC_FOREVER;
    assert_ok(mproc_event_new(&s->event));
    assert_ok(mproc_event_new(&s->answer));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mproc_event_free(s->event);
    mproc_event_free(s->answer);
    return munmap(s, sizeof *s);
}

/* 0: set, 1: timed out, 2: freed. */
static int wait_for_it(void *unused)
{
    (void)unused;
    atomic_fetch_add(&s->ready, 1);
    int err = mproc_event_wait(s->event, s->until);
    return err == 0 ? 0 : err == MPROC_ETIMEDOUT ? 1 : err == -EINVAL ? 2 : 3;
}

static void start_waiters(pid_t *pids, int n)
{
    start_asleep(pids, n, wait_for_it, &s->ready);
}

/* ---- one process ------------------------------------------------------ */

static void an_event_is_set_until_it_is_cleared(void **state)
{
    (void)state;
    assert_false(mproc_event_is_set(s->event));
    assert_ok(mproc_event_set(s->event));
    assert_true(mproc_event_is_set(s->event));
    assert_ok(mproc_event_wait(s->event, MPROC_NOWAIT));
    assert_ok(mproc_event_wait(s->event, MPROC_FOREVER));
    assert_true(mproc_event_is_set(s->event));
    assert_ok(mproc_event_clear(s->event));
    assert_false(mproc_event_is_set(s->event));
    assert_err(mproc_event_wait(s->event, MPROC_NOWAIT), MPROC_ETIMEDOUT);
}

static void setting_and_clearing_twice_changes_nothing(void **state)
{
    (void)state;
    assert_ok(mproc_event_clear(s->event));
    assert_ok(mproc_event_set(s->event));
    assert_ok(mproc_event_set(s->event));
    assert_ok(mproc_event_clear(s->event));
    assert_false(mproc_event_is_set(s->event));
    assert_ok(mproc_event_clear(s->event));
    assert_ok(mproc_event_set(s->event));
    assert_true(mproc_event_is_set(s->event));
}

static void a_clear_event_is_waited_for_until_the_deadline(void **state)
{
    (void)state;
    const mproc_deadline past[] = {MPROC_NOWAIT, mproc_in_ms(-1), mproc_in_s(0),
                                   mproc_in_ms(NAN)};
    for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
        assert_err(mproc_event_wait(s->event, past[i]), MPROC_ETIMEDOUT);
    }
    mproc_deadline until = mproc_in_ms(120);
    assert_err(mproc_event_wait(s->event, until), MPROC_ETIMEDOUT);
    assert_true(mproc_in_ms(0).at_ns >= until.at_ns);
}

static void an_earlier_set_is_not_seen_after_the_clear(void **state)
{
    (void)state;
    assert_ok(mproc_event_set(s->event));
    assert_ok(mproc_event_clear(s->event));
    assert_err(mproc_event_wait(s->event, mproc_in_ms(5)), MPROC_ETIMEDOUT);
}

static void what_is_no_event_is_refused(void **state)
{
    (void)state;
    mproc_event *freed;
    mproc_lock *lock;
    assert_ok(mproc_lock_new(&lock));
    assert_ok(mproc_event_new(&freed));
    mproc_event_free(freed);
    mproc_event *const bad[] = {NULL, freed, no_object(), (mproc_event *)lock};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_err(mproc_event_wait(bad[i], MPROC_NOWAIT), MPROC_EINVAL);
        assert_err(mproc_event_set(bad[i]), MPROC_EINVAL);
        assert_err(mproc_event_clear(bad[i]), MPROC_EINVAL);
        assert_false(mproc_event_is_set(bad[i]));
        mproc_event_free(bad[i]);
    }
    assert_err(mproc_event_new(NULL), MPROC_EINVAL);
    assert_ok(mproc_lock_acquire(lock, MPROC_NOWAIT));
    mproc_lock_free(lock);
}

/* ---- several ---------------------------------------------------------- */

static void a_set_wakes_all_who_wait(void **state)
{
    (void)state;
    pid_t pids[8];
    start_waiters(pids, 8);
    assert_ok(mproc_event_set(s->event));
    await_results(pids, 8, 0);
}

static void a_set_that_is_cleared_at_once_is_seen_by_all(void **state)
{
    (void)state;
    enum { N = 100 };
    pid_t pids[N];
    start_waiters(pids, N);
    assert_ok(mproc_event_set(s->event));
    assert_ok(mproc_event_clear(s->event));
    assert_false(mproc_event_is_set(s->event));
    await_results(pids, N, 0);
}

/* None of them can look before it is cleared. */
static void a_set_is_seen_by_those_who_cannot_run_meanwhile(void **state)
{
    (void)state;
    enum { N = 5 };
    pid_t pids[N];
    start_waiters(pids, N);
    for (int i = 0; i < N; i++) {
        stop(pids[i]);
    }
    assert_ok(mproc_event_set(s->event));
    assert_ok(mproc_event_clear(s->event));
    for (int i = 0; i < N; i++) {
        assert_int_equal(kill(pids[i], SIGCONT), 0);
    }
    await_results(pids, N, 0);
}

static int set_it(void *unused)
{
    (void)unused;
    assert_ok(mproc_event_set(s->event));
    return 0;
}

static void any_process_may_set_it(void **state)
{
    (void)state;
    pid_t pid = test_fork(set_it, NULL);
    assert_ok(mproc_event_wait(s->event, TEST_BOUND));
    assert_int_equal(test_wait_exit(pid), 0);
}

/* From one of each to four of each. */
static void killed_waiters_disturb_nobody(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        int dead = 1 + round % 4, live = 1 + round / 4 % 4;
        pid_t pids[8];
        atomic_store(&s->ready, 0);
        start_waiters(pids, dead + live);
        for (int i = 0; i < dead; i++) {
            kill_and_reap(pids[i]);
        }
        assert_ok(mproc_event_set(s->event));
        await_results(pids + dead, live, 0);
        assert_ok(mproc_event_clear(s->event));
    }
}

static void who_still_waits_for_a_freed_event_is_told(void **state)
{
    (void)state;
    pid_t pids[3];
    start_waiters(pids, 3);
    mproc_event_free(s->event);
    await_results(pids, 3, 2);
}

static void a_waiter_gives_up_at_its_deadline(void **state)
{
    (void)state;
    s->until = mproc_in_ms(150);
    assert_int_equal(test_wait_exit(test_fork(wait_for_it, NULL)), 1);
    assert_true(mproc_in_ms(0).at_ns >= s->until.at_ns);
}

/* ---- signals ---------------------------------------------------------- */

static void set_from_handler(int sig)
{
    (void)sig;
    int before = errno; /* a handler gives errno back as it was */
    errno = 77;
    (void)mproc_event_set(s->event);
    if (errno != 77) {
        abort();
    }
    errno = before;
}

static int wait_and_be_signalled(void *unused)
{
    signal(SIGUSR1, set_from_handler);
    return wait_for_it(unused);
}

static void a_signal_handler_may_set_what_its_own_thread_waits_for(void **state)
{
    (void)state;
    pid_t pid = test_fork(wait_and_be_signalled, NULL);
    await_count(&s->ready, 1);
    await_asleep(pid);
    assert_int_equal(kill(pid, SIGUSR1), 0);
    assert_int_equal(test_wait_exit(pid), 0);
}

/* Sets and clears among handlers that set, and misses no answer. */
static int play_among_signals(void *unused)
{
    (void)unused;
    struct itimerval often = {{0, 300}, {0, 300}};
    signal(SIGALRM, set_from_handler);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 1000; i++) {
        assert_ok(mproc_event_wait(s->event, TEST_BOUND));
        assert_ok(mproc_event_clear(s->event));
        assert_ok(mproc_event_set(s->answer));
        assert_ok(mproc_event_clear(s->answer));
    }
    return 0;
}

static void handlers_may_set_at_any_instruction(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(play_among_signals, NULL)), 0);
}

static void nothing(int sig)
{
    (void)sig;
}

static int wait_among_signals(void *unused)
{
    signal(SIGUSR1, nothing);
    return wait_for_it(unused);
}

static void signals_do_not_end_a_wait(void **state)
{
    (void)state;
    pid_t pid = test_fork(wait_among_signals, NULL);
    await_count(&s->ready, 1);
    for (int i = 0; i < 50; i++) {
        await_asleep(pid);
        assert_int_equal(kill(pid, SIGUSR1), 0);
    }
    await_asleep(pid);
    assert_ok(mproc_event_set(s->event));
    assert_int_equal(test_wait_exit(pid), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_event_is_set_until_it_is_cleared),
        TEST(setting_and_clearing_twice_changes_nothing),
        TEST(a_clear_event_is_waited_for_until_the_deadline),
        TEST(an_earlier_set_is_not_seen_after_the_clear),
        TEST(what_is_no_event_is_refused),
        TEST(a_set_wakes_all_who_wait),
        TEST(a_set_that_is_cleared_at_once_is_seen_by_all),
        TEST(a_set_is_seen_by_those_who_cannot_run_meanwhile),
        TEST(any_process_may_set_it),
        TEST(killed_waiters_disturb_nobody),
        TEST(who_still_waits_for_a_freed_event_is_told),
        TEST(a_waiter_gives_up_at_its_deadline),
        TEST(a_signal_handler_may_set_what_its_own_thread_waits_for),
        TEST(handlers_may_set_at_any_instruction),
        TEST(signals_do_not_end_a_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
