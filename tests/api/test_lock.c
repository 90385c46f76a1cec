/* SPDX-License-Identifier: MIT */
#include "sync_support.h"

struct share {
    atomic_int ready, go, result;
    mproc_lock *lock;
    long counter;
    mproc_deadline until;
    mproc_deadline told; /* when the waiter of measure() had it */
};

static struct share *s;

static int set_up(void **state)
{
    (void)state;
    s = shared(sizeof *s);
    s->until = MPROC_FOREVER;
    assert_ok(mproc_lock_new(&s->lock));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mproc_lock_free(s->lock);
    return munmap(s, sizeof *s);
}

/* ---- children --------------------------------------------------------- */

static int acquire_and_stay(void *unused)
{
    (void)unused;
    assert_ok(mproc_lock_acquire(s->lock, TEST_BOUND));
    atomic_fetch_add(&s->ready, 1);
    pause_for_ever();
    return 0;
}

static int acquire_and_exit(void *unused)
{
    (void)unused;
    assert_ok(mproc_lock_acquire(s->lock, TEST_BOUND));
    return 0;
}

/* Tells what the acquire said; keeps the lock until it may go. */
static int wait_for_it(void *unused)
{
    (void)unused;
    atomic_fetch_add(&s->ready, 1);
    int err = mproc_lock_acquire(s->lock, s->until);
    if (err >= 0) {
        assert_ok(mproc_lock_release(s->lock));
    }
    return err == MPROC_RECOVERED ? 1 : err == 0 ? 0 : 2 + (err == -EINVAL);
}

static int release_it(void *unused)
{
    (void)unused;
    assert_ok(mproc_lock_release(s->lock));
    return 0;
}

static int count(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        assert_ok(mproc_lock_acquire(s->lock, TEST_BOUND));
        s->counter++;
        assert_ok(mproc_lock_release(s->lock));
    }
    return 0;
}

/* ---- one process ------------------------------------------------------ */

static void a_lock_is_held_from_acquire_to_release(void **state)
{
    (void)state;
    assert_false(mproc_lock_locked(s->lock));
    assert_ok(mproc_lock_acquire(s->lock, MPROC_FOREVER));
    assert_true(mproc_lock_locked(s->lock));
    assert_ok(mproc_lock_release(s->lock));
    assert_false(mproc_lock_locked(s->lock));
    assert_ok(mproc_lock_acquire(s->lock, MPROC_NOWAIT));
    assert_ok(mproc_lock_release(s->lock));
}

static void a_held_lock_is_not_had_before_the_deadline(void **state)
{
    (void)state;
    assert_ok(mproc_lock_acquire(s->lock, MPROC_FOREVER));
    const mproc_deadline past[] = {MPROC_NOWAIT, mproc_in_ms(-1), mproc_in_s(0),
                                   mproc_in_ms(NAN), mproc_in_s(-INFINITY)};
    for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
        assert_err(mproc_lock_acquire(s->lock, past[i]), MPROC_ETIMEDOUT);
    }
    mproc_deadline until = mproc_in_ms(120);
    assert_err(mproc_lock_acquire(s->lock, until), MPROC_ETIMEDOUT);
    assert_true(mproc_in_ms(0).at_ns >= until.at_ns);
    assert_ok(mproc_lock_release(s->lock));
}

static void an_expired_deadline_still_takes_a_free_lock(void **state)
{
    (void)state;
    assert_ok(mproc_lock_acquire(s->lock, mproc_in_ms(-5)));
    assert_ok(mproc_lock_release(s->lock));
}

static void releasing_a_free_lock_is_an_error(void **state)
{
    (void)state;
    assert_err(mproc_lock_release(s->lock), MPROC_EINVAL);
    assert_ok(mproc_lock_acquire(s->lock, MPROC_FOREVER));
    assert_ok(mproc_lock_release(s->lock));
    assert_err(mproc_lock_release(s->lock), MPROC_EINVAL);
    assert_false(mproc_lock_locked(s->lock));
}

static void what_is_no_lock_is_refused(void **state)
{
    (void)state;
    mproc_rlock *other;
    assert_ok(mproc_rlock_new(&other));
    mproc_lock *freed;
    assert_ok(mproc_lock_new(&freed));
    mproc_lock_free(freed);
    mproc_lock *const bad[] = {NULL,
                               freed,
                               no_object(),
                               (mproc_lock *)other,
                               (mproc_lock *)((char *)s->lock + 1),
                               (mproc_lock *)((char *)s->lock + 64)};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_err(mproc_lock_acquire(bad[i], MPROC_NOWAIT), MPROC_EINVAL);
        assert_err(mproc_lock_release(bad[i]), MPROC_EINVAL);
        assert_false(mproc_lock_locked(bad[i]));
        mproc_lock_free(bad[i]);
    }
    assert_err(mproc_lock_new(NULL), MPROC_EINVAL);
    mproc_rlock_free(other);
}

static void a_new_lock_in_a_freed_ones_place_is_free(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        mproc_lock *l;
        assert_ok(mproc_lock_new(&l));
        assert_false(mproc_lock_locked(l));
        assert_ok(mproc_lock_acquire(l, MPROC_NOWAIT));
        mproc_lock_free(l);
    }
}

static void with_holds_the_lock_for_its_block(void **state)
{
    (void)state;
    int turns = 0;
    MPROC_WITH(s->lock) {
        assert_true(mproc_lock_locked(s->lock));
        turns++;
    }
    MPROC_WITH(s->lock) {
        turns++;
        break;
    }
    assert_int_equal(turns, 2);
    assert_false(mproc_lock_locked(s->lock));
    MPROC_WITH((mproc_lock *)NULL) {
        turns++;
    }
    assert_int_equal(turns, 2);
}

/* ---- several ---------------------------------------------------------- */

static void only_one_process_at_a_time_holds_it(void **state)
{
    (void)state;
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = test_fork(count, NULL);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 0);
    }
    assert_int_equal(s->counter, 4 * 20000);
}

static void another_process_may_release_it(void **state)
{
    (void)state;
    assert_ok(mproc_lock_acquire(s->lock, MPROC_FOREVER));
    assert_int_equal(test_wait_exit(test_fork(release_it, NULL)), 0);
    assert_false(mproc_lock_locked(s->lock));
    assert_err(mproc_lock_release(s->lock), MPROC_EINVAL);
}

static void a_release_wakes_each_of_those_asleep(void **state)
{
    (void)state;
    enum { N = 5 };
    pid_t pids[N];
    assert_ok(mproc_lock_acquire(s->lock, MPROC_FOREVER));
    for (int i = 0; i < N; i++) {
        pids[i] = test_fork(wait_for_it, NULL);
    }
    await_count(&s->ready, N);
    for (int i = 0; i < N; i++) {
        await_asleep(pids[i]);
    }
    assert_ok(mproc_lock_release(s->lock));
    for (int i = 0; i < N; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 0);
    }
}

static void a_killed_holder_is_told_once(void **state)
{
    (void)state;
    pid_t holder = test_fork(acquire_and_stay, NULL);
    await_count(&s->ready, 1);
    assert_true(mproc_lock_locked(s->lock));
    kill_and_reap(holder);
    assert_false(mproc_lock_locked(s->lock));
    assert_err(mproc_lock_acquire(s->lock, MPROC_NOWAIT), MPROC_RECOVERED);
    assert_ok(mproc_lock_release(s->lock));
    assert_ok(mproc_lock_acquire(s->lock, MPROC_NOWAIT));
    assert_ok(mproc_lock_release(s->lock));
}

static void a_holder_that_exits_is_told_as_well(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(acquire_and_exit, NULL)), 0);
    assert_err(mproc_lock_acquire(s->lock, TEST_BOUND), MPROC_RECOVERED);
    assert_ok(mproc_lock_release(s->lock));
}

static void a_dead_holders_lock_may_be_released(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(acquire_and_exit, NULL)), 0);
    assert_ok(mproc_lock_release(s->lock));
    assert_ok(mproc_lock_acquire(s->lock, MPROC_NOWAIT));
    assert_ok(mproc_lock_release(s->lock));
}

/* One of those who sleep without a deadline is told, the others get it too. */
static void a_killed_holder_is_told_to_one_of_those_asleep(void **state)
{
    (void)state;
    enum { N = 3 };
    pid_t pids[N];
    pid_t holder = test_fork(acquire_and_stay, NULL);
    await_count(&s->ready, 1);
    for (int i = 0; i < N; i++) {
        pids[i] = test_fork(wait_for_it, NULL);
    }
    await_count(&s->ready, 1 + N);
    for (int i = 0; i < N; i++) {
        await_asleep(pids[i]);
    }
    kill_and_reap(holder);
    int told = 0;
    for (int i = 0; i < N; i++) {
        int result = test_wait_exit(pids[i]);
        assert_in_range(result, 0, 1);
        told += result;
    }
    assert_int_equal(told, 1);
}

static void killed_waiters_take_no_release_with_them(void **state)
{
    (void)state;
    enum { DEAD = 3, N = 5 };
    pid_t pids[N];
    assert_ok(mproc_lock_acquire(s->lock, MPROC_FOREVER));
    for (int i = 0; i < N; i++) {
        pids[i] = test_fork(wait_for_it, NULL);
        await_count(&s->ready, i + 1);
        await_asleep(pids[i]);
    }
    /* the stopped ones are woken by the release, and never run */
    for (int i = 0; i < DEAD; i++) {
        stop(pids[i]);
    }
    assert_ok(mproc_lock_release(s->lock));
    for (int i = 0; i < DEAD; i++) {
        kill_and_reap(pids[i]);
    }
    for (int i = DEAD; i < N; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 0);
    }
}

static void who_still_waits_for_a_freed_lock_is_told(void **state)
{
    (void)state;
    enum { N = 3 };
    pid_t pids[N];
    assert_ok(mproc_lock_acquire(s->lock, MPROC_FOREVER));
    for (int i = 0; i < N; i++) {
        pids[i] = test_fork(wait_for_it, NULL);
    }
    await_count(&s->ready, N);
    for (int i = 0; i < N; i++) {
        await_asleep(pids[i]);
    }
    mproc_lock_free(s->lock);
    for (int i = 0; i < N; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 3);
    }
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
    assert_ok(mproc_lock_acquire(s->lock, MPROC_FOREVER));
    pid_t pid = test_fork(wait_among_signals, NULL);
    await_count(&s->ready, 1);
    for (int i = 0; i < 50; i++) {
        await_asleep(pid);
        assert_int_equal(kill(pid, SIGUSR1), 0);
    }
    await_asleep(pid);
    assert_ok(mproc_lock_release(s->lock));
    assert_int_equal(test_wait_exit(pid), 0);
}

static void a_waiter_gives_up_at_its_deadline(void **state)
{
    (void)state;
    pid_t holder = test_fork(acquire_and_stay, NULL);
    await_count(&s->ready, 1);
    s->until = mproc_in_ms(150);
    pid_t waiter = test_fork(wait_for_it, NULL);
    assert_int_equal(test_wait_exit(waiter), 2);
    assert_true(mproc_in_ms(0).at_ns >= s->until.at_ns);
    kill_and_reap(holder);
}

static int acquire_when_told(void *unused)
{
    (void)unused;
    assert_ok(mproc_lock_acquire(s->lock, TEST_BOUND));
    atomic_fetch_add(&s->ready, 1);
    await_count(&s->go, 1);
    assert_ok(mproc_lock_release(s->lock));
    return 0;
}

static void a_stopped_holder_only_delays(void **state)
{
    (void)state;
    pid_t holder = test_fork(acquire_when_told, NULL);
    await_count(&s->ready, 1);
    stop(holder);
    atomic_store(&s->go, 1);
    pid_t patient = test_fork(wait_for_it, NULL);
    await_count(&s->ready, 2);
    await_asleep(patient);
    mproc_deadline until = mproc_in_ms(200); /* beyond all stages of a sleep */
    assert_err(mproc_lock_acquire(s->lock, until), MPROC_ETIMEDOUT);
    assert_true(mproc_in_ms(0).at_ns >= until.at_ns);
    assert_true(mproc_lock_locked(s->lock));
    assert_int_equal(kill(holder, SIGCONT), 0);
    assert_int_equal(test_wait_exit(patient), 0); /* and no death was told */
    assert_int_equal(test_wait_exit(holder), 0);
}

static int wait_and_tell_when(void *unused)
{
    (void)unused;
    atomic_fetch_add(&s->ready, 1);
    int err = mproc_lock_acquire(s->lock, MPROC_FOREVER);
    s->told = mproc_in_ms(0);
    assert_err(err, MPROC_RECOVERED);
    return mproc_lock_release(s->lock);
}

/* From the kill of a holder until somebody who has slept a while is told. */
static double ms_until_told(int slept_ms)
{
    int before = atomic_load(&s->ready);
    pid_t holder = test_fork(acquire_and_stay, NULL);
    await_count(&s->ready, before + 1);
    pid_t waiter = test_fork(wait_and_tell_when, NULL);
    await_count(&s->ready, before + 2);
    await_asleep(waiter);
    mproc_deadline until = mproc_in_ms(slept_ms);
    while (mproc_in_ms(0).at_ns < until.at_ns) {
        look_again_soon();
    }
    int64_t killed = mproc_in_ms(0).at_ns;
    kill_and_reap(holder);
    assert_int_equal(test_wait_exit(waiter), 0);
    return (double)(s->told.at_ns - killed) / 1e6;
}

/* On a machine that is busy it may last longer, but not each time. */
static void a_killed_holder_is_told_within_100_ms(void **state)
{
    (void)state;
    static const int slept_ms[] = {0, 40, 150};
    for (size_t i = 0; i < sizeof slept_ms / sizeof *slept_ms; i++) {
        double best = 1e9;
        for (int round = 0; round < 20 && best > 100; round++) {
            double ms = ms_until_told(slept_ms[i]);
            best = ms < best ? ms : best;
        }
        assert_true(best <= 100);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_lock_is_held_from_acquire_to_release),
        TEST(a_held_lock_is_not_had_before_the_deadline),
        TEST(an_expired_deadline_still_takes_a_free_lock),
        TEST(releasing_a_free_lock_is_an_error),
        TEST(what_is_no_lock_is_refused),
        TEST(a_new_lock_in_a_freed_ones_place_is_free),
        TEST(with_holds_the_lock_for_its_block),
        TEST(only_one_process_at_a_time_holds_it),
        TEST(another_process_may_release_it),
        TEST(a_release_wakes_each_of_those_asleep),
        TEST(a_killed_holder_is_told_once),
        TEST(a_holder_that_exits_is_told_as_well),
        TEST(a_dead_holders_lock_may_be_released),
        TEST(a_killed_holder_is_told_to_one_of_those_asleep),
        TEST(killed_waiters_take_no_release_with_them),
        TEST(who_still_waits_for_a_freed_lock_is_told),
        TEST(signals_do_not_end_a_wait),
        TEST(a_waiter_gives_up_at_its_deadline),
        TEST(a_stopped_holder_only_delays),
        TEST(a_killed_holder_is_told_within_100_ms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
