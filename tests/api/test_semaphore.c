/* SPDX-License-Identifier: MIT */
#include "sync_support.h"

#include <sys/time.h>

struct share {
    atomic_int ready, inside, most;
    mproc_semaphore *sem;
    mproc_deadline until;
};

static struct share *s;

static const mproc_semaphore_opts bounded = {.bounded = 1};
static const mproc_semaphore_opts recoverable = {.recover = 1};

static int set_up(void **state)
{
    (void)state;
    s = shared(sizeof *s);
    s->until = MPROC_FOREVER;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mproc_semaphore_free(s->sem);
    return munmap(s, sizeof *s);
}

static void make(unsigned value, const mproc_semaphore_opts *opts)
{
    assert_ok(mproc_semaphore_new(&s->sem, value, opts));
}

static void acquire(int n)
{
    for (int i = 0; i < n; i++) {
        assert_ok(mproc_semaphore_acquire(s->sem, MPROC_NOWAIT));
    }
}

static void release(int n)
{
    for (int i = 0; i < n; i++) {
        assert_ok(mproc_semaphore_release(s->sem));
    }
}

#define assert_value(n) assert_int_equal(mproc_semaphore_value(s->sem), n)
#define assert_empty() \
    assert_err(mproc_semaphore_acquire(s->sem, MPROC_NOWAIT), MPROC_ETIMEDOUT)

/* ---- children --------------------------------------------------------- */

static int acquire_and_stay(void *n)
{
    for (int i = 0; i < *(int *)n; i++) {
        assert_ok(mproc_semaphore_acquire(s->sem, TEST_BOUND));
    }
    atomic_fetch_add(&s->ready, 1);
    pause_for_ever();
    return 0;
}

static pid_t start_holder(int n)
{
    int before = atomic_load(&s->ready);
    pid_t pid = test_fork(acquire_and_stay, &n);
    await_count(&s->ready, before + 1);
    return pid;
}

/* 0: acquired, and kept; 1: timed out, 2: freed. */
static int wait_for_it(void *unused)
{
    (void)unused;
    atomic_fetch_add(&s->ready, 1);
    int err = mproc_semaphore_acquire(s->sem, s->until);
    return err == 0 ? 0 : err == MPROC_ETIMEDOUT ? 1 : err == -EINVAL ? 2 : 3;
}

static void start_waiters(pid_t *pids, int n)
{
    int before = atomic_load(&s->ready);
    for (int i = 0; i < n; i++) {
        pids[i] = test_fork(wait_for_it, NULL);
        await_count(&s->ready, before + i + 1);
        await_asleep(pids[i]);
    }
}

static int release_once(void *unused)
{
    (void)unused;
    release(1);
    return 0;
}

static void release_elsewhere(void)
{
    assert_int_equal(test_wait_exit(test_fork(release_once, NULL)), 0);
}

/* ---- plain ------------------------------------------------------------ */

static void units_are_taken_and_given(void **state)
{
    (void)state;
    make(2, NULL);
    assert_value(2);
    acquire(2);
    assert_value(0);
    assert_empty();
    release(1);
    assert_value(1);
    acquire(1);
    release(2);
    assert_value(2);
}

static void a_plain_one_may_rise_above_its_start(void **state)
{
    (void)state;
    make(0, NULL);
    release(3);
    assert_value(3);
    acquire(3);
    assert_empty();
}

static void there_is_no_unit_before_the_deadline(void **state)
{
    (void)state;
    const mproc_semaphore_opts *const kinds[] = {NULL, &bounded, &recoverable};
    for (int i = 0; i < 3; i++) {
        make(0, kinds[i]);
        const mproc_deadline past[] = {MPROC_NOWAIT, mproc_in_ms(-1),
                                       mproc_in_s(0), mproc_in_ms(NAN)};
        for (size_t j = 0; j < sizeof past / sizeof *past; j++) {
            assert_err(mproc_semaphore_acquire(s->sem, past[j]),
                       MPROC_ETIMEDOUT);
        }
        mproc_deadline until = mproc_in_ms(70);
        assert_err(mproc_semaphore_acquire(s->sem, until), MPROC_ETIMEDOUT);
        assert_true(mproc_in_ms(0).at_ns >= until.at_ns);
        mproc_semaphore_free(s->sem);
    }
}

static void values_beyond_the_limit_are_refused(void **state)
{
    (void)state;
    mproc_semaphore *out = NULL;
    assert_err(mproc_semaphore_new(&out, 2147483648u, NULL), MPROC_EINVAL);
    assert_err(mproc_semaphore_new(&out, 65537, &bounded), MPROC_EINVAL);
    assert_err(mproc_semaphore_new(&out, 65537, &recoverable), MPROC_EINVAL);
    assert_err(mproc_semaphore_new(NULL, 1, NULL), MPROC_EINVAL);
    assert_null(out);
    make(2147483647, NULL);
    assert_err(mproc_semaphore_release(s->sem), MPROC_EOVERFLOW);
    assert_value(2147483647);
}

static void unknown_options_are_refused(void **state)
{
    (void)state;
    mproc_semaphore *out = NULL;
    int newer[3] = {0, 0, 1};
    assert_err(mproc_semaphore_new_sized(&out, 1, (void *)newer, sizeof newer),
               MPROC_ENOTSUP);
    assert_null(out);
}

static void what_is_no_semaphore_is_refused(void **state)
{
    (void)state;
    mproc_semaphore *freed;
    assert_ok(mproc_semaphore_new(&freed, 3, &bounded));
    mproc_semaphore_free(freed);
    mproc_semaphore *const bad[] = {NULL, freed, no_object()};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_err(mproc_semaphore_acquire(bad[i], MPROC_NOWAIT), MPROC_EINVAL);
        assert_err(mproc_semaphore_release(bad[i]), MPROC_EINVAL);
        assert_int_equal(mproc_semaphore_value(bad[i]), 0);
        mproc_semaphore_free(bad[i]);
    }
}

static void each_release_wakes_one(void **state)
{
    (void)state;
    pid_t pids[4];
    make(0, NULL);
    start_waiters(pids, 4);
    release(4);
    await_results(pids, 4, 0);
    assert_value(0);
}

static void a_dead_process_keeps_what_it_took_of_a_plain_one(void **state)
{
    (void)state;
    make(2, NULL);
    kill_and_reap(start_holder(1));
    assert_value(1);
    acquire(1);
    assert_empty();
}

static void with_holds_a_unit_for_its_block(void **state)
{
    (void)state;
    int turns = 0;
    make(1, &bounded);
    MPROC_WITH(s->sem) {
        assert_value(0);
        turns++;
    }
    assert_value(1);
    assert_int_equal(turns, 1);
}

/* ---- bounded ---------------------------------------------------------- */

static void a_bounded_one_stays_at_its_start(void **state)
{
    (void)state;
    make(2, &bounded);
    assert_err(mproc_semaphore_release(s->sem), MPROC_EINVAL);
    assert_value(2);
    acquire(2);
    assert_value(0);
    release(2);
    assert_err(mproc_semaphore_release(s->sem), MPROC_EINVAL);
    assert_value(2);
}

static void a_bounded_one_of_none_has_none(void **state)
{
    (void)state;
    make(0, &bounded);
    assert_empty();
    assert_err(mproc_semaphore_release(s->sem), MPROC_EINVAL);
    assert_value(0);
}

static void the_units_of_the_dead_are_given_back(void **state)
{
    (void)state;
    make(3, &bounded);
    pid_t holder = start_holder(2);
    assert_value(1);
    acquire(1);
    assert_empty();
    kill_and_reap(holder);
    assert_value(2);
    acquire(2);
    assert_empty();
    release(3);
    assert_err(mproc_semaphore_release(s->sem), MPROC_EINVAL);
}

static void the_dead_hold_nothing_to_release(void **state)
{
    (void)state;
    make(1, &bounded);
    kill_and_reap(start_holder(1));
    assert_err(mproc_semaphore_release(s->sem), MPROC_EINVAL);
    assert_value(1);
}

static void who_sleeps_is_given_the_units_of_the_dead(void **state)
{
    (void)state;
    pid_t pids[3];
    make(3, &bounded);
    pid_t holder = start_holder(3);
    start_waiters(pids, 3);
    kill_and_reap(holder);
    await_results(pids, 3, 0);
}

static void killed_waiters_take_no_unit_with_them(void **state)
{
    (void)state;
    enum { DEAD = 3, N = 5 };
    pid_t pids[N];
    make(2, &bounded);
    acquire(2);
    start_waiters(pids, N);
    for (int i = 0; i < DEAD; i++) {
        stop(pids[i]);
    }
    release(2); /* for two of the stopped ones, who never take them */
    for (int i = 0; i < DEAD; i++) {
        kill_and_reap(pids[i]);
    }
    await_results(pids + DEAD, N - DEAD, 0);
    assert_value(2);
}

static void another_process_releases_the_unit_held_longest(void **state)
{
    (void)state;
    make(2, &bounded);
    pid_t first = start_holder(1);
    pid_t second = start_holder(1);
    release_elsewhere();
    assert_value(1);
    kill_and_reap(first); /* which holds none any more */
    assert_value(1);
    kill_and_reap(second);
    assert_value(2);
}

static void ones_own_unit_is_released_first(void **state)
{
    (void)state;
    make(2, &bounded);
    pid_t first = start_holder(1);
    acquire(1);
    release(1);
    assert_value(1);
    kill_and_reap(first);
    assert_value(2);
}

/* ---- recover ---------------------------------------------------------- */

static void a_recoverable_one_may_rise_above_its_start(void **state)
{
    (void)state;
    make(1, &recoverable);
    release(3);
    assert_value(4);
    acquire(4);
    assert_empty();
    release(4);
    assert_value(4);
}

static void a_recoverable_one_has_its_limit(void **state)
{
    (void)state;
    make(2, &recoverable);
    release(1024);
    assert_err(mproc_semaphore_release(s->sem), MPROC_EOVERFLOW);
    assert_value(1026);
    acquire(1026);
    assert_empty();
}

static void a_recoverable_one_takes_from_the_dead_too(void **state)
{
    (void)state;
    make(1, &recoverable);
    pid_t pid;
    pid_t holder = start_holder(1);
    start_waiters(&pid, 1);
    kill_and_reap(holder);
    await_results(&pid, 1, 0);
    assert_value(1); /* that one is dead as well */
    release(1);
    assert_value(2);
}

/* ---- any -------------------------------------------------------------- */

static int go_in_and_out(void *unused)
{
    (void)unused;
    for (int i = 0; i < 5000; i++) {
        assert_ok(mproc_semaphore_acquire(s->sem, TEST_BOUND));
        int inside = atomic_fetch_add(&s->inside, 1) + 1;
        if (inside > atomic_load(&s->most)) {
            atomic_store(&s->most, inside);
        }
        atomic_fetch_sub(&s->inside, 1);
        assert_ok(mproc_semaphore_release(s->sem));
    }
    return 0;
}

static void there_are_never_more_inside_than_units(void **state)
{
    (void)state;
    const mproc_semaphore_opts *const kinds[] = {NULL, &bounded, &recoverable};
    for (int i = 0; i < 3; i++) {
        pid_t pids[4];
        make(2, kinds[i]);
        atomic_store(&s->most, 0);
        for (int j = 0; j < 4; j++) {
            pids[j] = test_fork(go_in_and_out, NULL);
        }
        await_results(pids, 4, 0);
        assert_in_range(atomic_load(&s->most), 1, 2);
        assert_value(2);
        mproc_semaphore_free(s->sem);
    }
}

static int have_ones_own(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        assert_ok(mproc_semaphore_acquire(s->sem, MPROC_NOWAIT));
        assert_ok(mproc_semaphore_release(s->sem));
    }
    return 0;
}

static void where_there_is_one_for_each_nobody_misses_his(void **state)
{
    (void)state;
    const mproc_semaphore_opts *const kinds[] = {NULL, &bounded};
    for (int i = 0; i < 2; i++) {
        pid_t pids[4];
        make(4, kinds[i]);
        for (int j = 0; j < 4; j++) {
            pids[j] = test_fork(have_ones_own, NULL);
        }
        await_results(pids, 4, 0);
        mproc_semaphore_free(s->sem);
    }
}

static void who_still_waits_for_a_freed_one_is_told(void **state)
{
    (void)state;
    const mproc_semaphore_opts *const kinds[] = {NULL, &bounded, &recoverable};
    for (int i = 0; i < 3; i++) {
        pid_t pids[3];
        make(1, kinds[i]);
        acquire(1);
        start_waiters(pids, 3);
        mproc_semaphore_free(s->sem);
        await_results(pids, 3, 2);
    }
}

static void a_waiter_gives_up_at_its_deadline(void **state)
{
    (void)state;
    make(0, NULL);
    s->until = mproc_in_ms(150);
    assert_int_equal(test_wait_exit(test_fork(wait_for_it, NULL)), 1);
    assert_true(mproc_in_ms(0).at_ns >= s->until.at_ns);
}

/* Nobody takes its unit for a dead one's. */
static void a_stopped_holder_keeps_its_unit(void **state)
{
    (void)state;
    pid_t waiter;
    make(1, &bounded);
    pid_t holder = start_holder(1);
    start_waiters(&waiter, 1);
    stop(holder);
    mproc_deadline until = mproc_in_ms(200); /* beyond all stages of a sleep */
    assert_err(mproc_semaphore_acquire(s->sem, until), MPROC_ETIMEDOUT);
    assert_true(mproc_in_ms(0).at_ns >= until.at_ns);
    assert_value(0);
    assert_int_equal(kill(holder, SIGCONT), 0);
    release(1); /* the holder's */
    await_results(&waiter, 1, 0);
    kill_and_reap(holder);
}

/* ---- signals ---------------------------------------------------------- */

static void release_from_handler(int sig)
{
    (void)sig;
    int before = errno; /* a handler gives errno back as it was */
    errno = 77;
    (void)mproc_semaphore_release(s->sem);
    if (errno != 77) {
        abort();
    }
    errno = before;
}

static int wait_and_be_signalled(void *unused)
{
    signal(SIGUSR1, release_from_handler);
    return wait_for_it(unused);
}

static void a_handler_may_release_what_its_own_thread_waits_for(void **state)
{
    (void)state;
    const mproc_semaphore_opts *const kinds[] = {NULL, &recoverable};
    for (int i = 0; i < 2; i++) {
        make(0, kinds[i]);
        pid_t pid = test_fork(wait_and_be_signalled, NULL);
        await_count(&s->ready, i + 1);
        await_asleep(pid);
        assert_int_equal(kill(pid, SIGUSR1), 0);
        assert_int_equal(test_wait_exit(pid), 0);
        mproc_semaphore_free(s->sem);
    }
}

static int take_what_handlers_give(void *unused)
{
    (void)unused;
    struct itimerval often = {{0, 300}, {0, 300}};
    signal(SIGALRM, release_from_handler);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 1000; i++) {
        assert_ok(mproc_semaphore_acquire(s->sem, TEST_BOUND));
    }
    return 0;
}

static void handlers_may_release_at_any_instruction(void **state)
{
    (void)state;
    make(0, NULL);
    assert_int_equal(test_wait_exit(test_fork(take_what_handlers_give, NULL)),
                     0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(units_are_taken_and_given),
        TEST(a_plain_one_may_rise_above_its_start),
        TEST(there_is_no_unit_before_the_deadline),
        TEST(values_beyond_the_limit_are_refused),
        TEST(unknown_options_are_refused),
        TEST(what_is_no_semaphore_is_refused),
        TEST(each_release_wakes_one),
        TEST(a_dead_process_keeps_what_it_took_of_a_plain_one),
        TEST(with_holds_a_unit_for_its_block),
        TEST(a_bounded_one_stays_at_its_start),
        TEST(a_bounded_one_of_none_has_none),
        TEST(the_units_of_the_dead_are_given_back),
        TEST(the_dead_hold_nothing_to_release),
        TEST(who_sleeps_is_given_the_units_of_the_dead),
        TEST(killed_waiters_take_no_unit_with_them),
        TEST(another_process_releases_the_unit_held_longest),
        TEST(ones_own_unit_is_released_first),
        TEST(a_recoverable_one_may_rise_above_its_start),
        TEST(a_recoverable_one_has_its_limit),
        TEST(a_recoverable_one_takes_from_the_dead_too),
        TEST(there_are_never_more_inside_than_units),
        TEST(where_there_is_one_for_each_nobody_misses_his),
        TEST(who_still_waits_for_a_freed_one_is_told),
        TEST(a_waiter_gives_up_at_its_deadline),
        TEST(a_stopped_holder_keeps_its_unit),
        TEST(a_handler_may_release_what_its_own_thread_waits_for),
        TEST(handlers_may_release_at_any_instruction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
