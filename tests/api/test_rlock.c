/* SPDX-License-Identifier: MIT */
#include "sync_support.h"

#include <pthread.h>

struct share {
    atomic_int ready;
    mproc_rlock *lock;
    long counter;
};

static struct share *s;

static int set_up(void **state)
{
    (void)state;
    s = shared(sizeof *s);
    assert_ok(mproc_rlock_new(&s->lock));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mproc_rlock_free(s->lock);
    return munmap(s, sizeof *s);
}

static void acquire(int n)
{
    for (int i = 0; i < n; i++) {
        assert_ok(mproc_rlock_acquire(s->lock, MPROC_NOWAIT));
    }
}

static void release(int n)
{
    for (int i = 0; i < n; i++) {
        assert_ok(mproc_rlock_release(s->lock));
    }
}

/* ---- children --------------------------------------------------------- */

static int acquire_thrice_and_stay(void *unused)
{
    (void)unused;
    acquire(3);
    atomic_fetch_add(&s->ready, 1);
    pause_for_ever();
    return 0;
}

/* 0: it is free, 1: it is held. */
static int try_it(void *unused)
{
    (void)unused;
    assert_err(mproc_rlock_release(s->lock), MPROC_EPERM);
    int err = mproc_rlock_acquire(s->lock, MPROC_NOWAIT);
    if (err == MPROC_ETIMEDOUT) {
        return 1;
    }
    assert_ok(err);
    release(1);
    return 0;
}

static bool held_for_others(void)
{
    return test_wait_exit(test_fork(try_it, NULL)) == 1;
}

static void *try_it_in_a_thread(void *unused)
{
    return try_it(unused) == 1 ? s : NULL;
}

/* 0: acquired, 1: recovered, 2: freed. */
static int wait_for_it(void *unused)
{
    (void)unused;
    atomic_fetch_add(&s->ready, 1);
    int err = mproc_rlock_acquire(s->lock, MPROC_FOREVER);
    if (err >= 0) {
        release(1);
        assert_err(mproc_rlock_release(s->lock), MPROC_EPERM);
    }
    return err == 0 ? 0 : err == MPROC_RECOVERED ? 1 : err == -EINVAL ? 2 : 3;
}

static void start_waiters(pid_t *pids, int n)
{
    start_asleep(pids, n, wait_for_it, &s->ready);
}

static int count(void *unused)
{
    (void)unused;
    for (int i = 0; i < 10000; i++) {
        assert_ok(mproc_rlock_acquire(s->lock, TEST_BOUND));
        assert_ok(mproc_rlock_acquire(s->lock, TEST_BOUND));
        s->counter++;
        release(2);
    }
    return 0;
}

/* ---- tests ------------------------------------------------------------ */

static void it_is_released_as_often_as_acquired(void **state)
{
    (void)state;
    assert_false(mproc_rlock_locked(s->lock));
    acquire(3);
    release(2);
    assert_true(mproc_rlock_locked(s->lock));
    assert_true(held_for_others());
    release(1);
    assert_false(mproc_rlock_locked(s->lock));
    assert_false(held_for_others());
}

static void who_does_not_hold_it_may_not_release_it(void **state)
{
    (void)state;
    assert_err(mproc_rlock_release(s->lock), MPROC_EPERM);
    acquire(1);
    assert_true(held_for_others()); /* which try to release it too */
    release(1);
    assert_err(mproc_rlock_release(s->lock), MPROC_EPERM);
}

static void another_thread_of_the_process_does_not_hold_it(void **state)
{
    (void)state;
    pthread_t thread;
    void *held;
    acquire(2);
    assert_int_equal(pthread_create(&thread, NULL, try_it_in_a_thread, NULL),
                     0);
    assert_int_equal(pthread_join(thread, &held), 0);
    assert_non_null(held);
    release(2);
    assert_int_equal(pthread_create(&thread, NULL, try_it_in_a_thread, NULL),
                     0);
    assert_int_equal(pthread_join(thread, &held), 0);
    assert_null(held);
}

static void a_forked_child_does_not_hold_it(void **state)
{
    (void)state;
    acquire(1);
    assert_true(held_for_others());
    release(1);
}

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
    assert_int_equal(s->counter, 4 * 10000);
}

static void a_killed_holder_is_told_once_at_the_first_level(void **state)
{
    (void)state;
    pid_t holder = test_fork(acquire_thrice_and_stay, NULL);
    await_count(&s->ready, 1);
    assert_err(mproc_rlock_acquire(s->lock, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    kill_and_reap(holder);
    assert_false(mproc_rlock_locked(s->lock));
    assert_err(mproc_rlock_acquire(s->lock, MPROC_NOWAIT), MPROC_RECOVERED);
    acquire(1);
    release(2);
    assert_false(mproc_rlock_locked(s->lock));
    acquire(1);
    release(1);
}

static void a_killed_holder_is_told_to_one_of_those_asleep(void **state)
{
    (void)state;
    pid_t pids[3];
    pid_t holder = test_fork(acquire_thrice_and_stay, NULL);
    await_count(&s->ready, 1);
    start_waiters(pids, 3);
    kill_and_reap(holder);
    int told = 0;
    for (int i = 0; i < 3; i++) {
        int result = test_wait_exit(pids[i]);
        assert_in_range(result, 0, 1);
        told += result;
    }
    assert_int_equal(told, 1);
}

static void who_still_waits_for_a_freed_one_is_told(void **state)
{
    (void)state;
    pid_t pids[3];
    acquire(1);
    start_waiters(pids, 3);
    mproc_rlock_free(s->lock);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 2);
    }
}

static void a_new_one_in_a_freed_ones_place_is_free(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        mproc_rlock *l;
        assert_ok(mproc_rlock_new(&l));
        assert_false(mproc_rlock_locked(l));
        assert_err(mproc_rlock_release(l), MPROC_EPERM);
        assert_ok(mproc_rlock_acquire(l, MPROC_NOWAIT));
        mproc_rlock_free(l);
    }
}

static void deadlines_are_kept(void **state)
{
    (void)state;
    pid_t holder = test_fork(acquire_thrice_and_stay, NULL);
    await_count(&s->ready, 1);
    const mproc_deadline past[] = {MPROC_NOWAIT, mproc_in_ms(-1), mproc_in_s(0),
                                   mproc_in_ms(NAN)};
    for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
        assert_err(mproc_rlock_acquire(s->lock, past[i]), MPROC_ETIMEDOUT);
    }
    mproc_deadline until = mproc_in_ms(120);
    assert_err(mproc_rlock_acquire(s->lock, until), MPROC_ETIMEDOUT);
    assert_true(mproc_in_ms(0).at_ns >= until.at_ns);
    kill_and_reap(holder);
}

static void what_is_no_rlock_is_refused(void **state)
{
    (void)state;
    mproc_rlock *freed;
    mproc_lock *lock;
    assert_ok(mproc_lock_new(&lock));
    assert_ok(mproc_rlock_new(&freed));
    mproc_rlock_free(freed);
    mproc_rlock *const bad[] = {NULL, freed, no_object(), (mproc_rlock *)lock};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_err(mproc_rlock_acquire(bad[i], MPROC_NOWAIT), MPROC_EINVAL);
        assert_err(mproc_rlock_release(bad[i]), MPROC_EINVAL);
        assert_false(mproc_rlock_locked(bad[i]));
        mproc_rlock_free(bad[i]);
    }
    assert_err(mproc_rlock_new(NULL), MPROC_EINVAL);
    mproc_lock_free(lock);
}

static void with_holds_one_level_for_its_block(void **state)
{
    (void)state;
    int turns = 0;
    MPROC_WITH(s->lock) {
        MPROC_WITH(s->lock) {
            turns++;
        }
        assert_true(mproc_rlock_locked(s->lock));
    }
    assert_false(mproc_rlock_locked(s->lock));
    assert_int_equal(turns, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(it_is_released_as_often_as_acquired),
        TEST(who_does_not_hold_it_may_not_release_it),
        TEST(another_thread_of_the_process_does_not_hold_it),
        TEST(a_forked_child_does_not_hold_it),
        TEST(only_one_process_at_a_time_holds_it),
        TEST(a_killed_holder_is_told_once_at_the_first_level),
        TEST(a_killed_holder_is_told_to_one_of_those_asleep),
        TEST(who_still_waits_for_a_freed_one_is_told),
        TEST(a_new_one_in_a_freed_ones_place_is_free),
        TEST(deadlines_are_kept),
        TEST(what_is_no_rlock_is_refused),
        TEST(with_holds_one_level_for_its_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
