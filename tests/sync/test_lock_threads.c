/* SPDX-License-Identifier: MIT */
/* Locks, plain and recursive, among threads that have a slot each. */
#include "threads.h"

#include "sync/lock.h"

static bool flagged(mproc_lock *l)
{
    return atomic_load(&l->hold.word) & MPR_HOLD_WAITERS;
}

static int acquire_lock(void *l, mproc_deadline until)
{
    return mproc_lock_acquire(l, until);
}

/* ---- lock ------------------------------------------------------------- */

static void *count_with_lock(void *arg)
{
    mproc_lock *l = arg;
    for (int i = 0; i < ROUNDS; i++) {
        assert_ok(mproc_lock_acquire(l, MPROC_FOREVER));
        counter++;
        linger(i);
        assert_ok(mproc_lock_release(l));
    }
    return NULL;
}

static void a_lock_excludes_and_loses_no_wakeup(void **state)
{
    (void)state;
    mproc_lock *l;
    assert_ok(mproc_lock_new(&l));
    run(count_with_lock, l, THREADS);
    assert_int_equal(counter, THREADS * ROUNDS);
    mproc_lock_free(l);
}

static void *acquire_and_count_told(void *arg)
{
    mproc_lock *l = arg;
    atomic_fetch_add(&ready, 1);
    int err = mproc_lock_acquire(l, MPROC_FOREVER);
    assert_true(err == 0 || err == MPROC_RECOVERED);
    atomic_fetch_add(&told, err);
    counter++;
    assert_ok(mproc_lock_release(l));
    return NULL;
}

static int acquire_and_release(void *l, mproc_deadline until)
{
    int err = mproc_lock_acquire(l, until);
    assert_ok(mproc_lock_release(l));
    return err;
}

static void release_lock(void *l)
{
    await(flagged(l));
    assert_ok(mproc_lock_release(l));
}

/* All asleep at once, so that each must be woken by the one before. */
static void each_release_wakes_the_next_of_those_asleep(void **state)
{
    (void)state;
    mproc_lock *l;
    assert_ok(mproc_lock_new(&l));
    assert_ok(mproc_lock_acquire(l, MPROC_NOWAIT));
    expect_all_back(acquire_and_release, l, release_lock, 0);
    mproc_lock_free(l);
}

static void *hold_until_flagged_and_die(void *arg)
{
    mproc_lock *l = arg;
    assert_ok(mproc_lock_acquire(l, MPROC_FOREVER));
    atomic_fetch_add(&ready, 1);
    await(atomic_load(&ready) == 1 + THREADS && flagged(l));
    return NULL;
}

static void the_death_of_a_holder_wakes_those_asleep(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    mproc_lock *l;
    assert_ok(mproc_lock_new(&l));
    pthread_t holder = start(hold_until_flagged_and_die, l);
    await(atomic_load(&ready) == 1);
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start(acquire_and_count_told, l);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_join(holder, NULL);
    assert_int_equal(atomic_load(&told), 1);
    assert_int_equal(counter, THREADS);
    mproc_lock_free(l);
}

static void *acquire_and_die_when_told(void *l)
{
    assert_ok(mproc_lock_acquire(l, MPROC_NOWAIT));
    atomic_fetch_add(&ready, 1);
    await(atomic_load(&told) == 1);
    return NULL;
}

/* The kernel wakes one sleeper by a death, and here that is another. */
static void the_death_of_a_holder_is_told_by_who_notices_it(void **state)
{
    (void)state;
    struct caller bystander, waiter;
    mproc_lock *l;
    mproc_event *e;
    assert_ok(mproc_lock_new(&l));
    assert_ok(mproc_event_new(&e));
    pthread_t holder = start(acquire_and_die_when_told, l);
    await(atomic_load(&ready) == 1);
    pthread_t first = start_call(&bystander, wait_for_event, e, MPROC_FOREVER);
    pthread_t second = start_call(&waiter, acquire_lock, l, MPROC_FOREVER);
    atomic_store(&told, 1);
    pthread_join(holder, NULL);
    pthread_join(second, NULL);
    assert_err(waiter.err, MPROC_RECOVERED);
    assert_ok(mproc_event_set(e));
    pthread_join(first, NULL);
    mproc_event_free(e);
    mproc_lock_free(l);
}

static void free_lock(void *l)
{
    mproc_lock_free(l);
}

static void those_who_wait_for_a_freed_lock_leave(void **state)
{
    (void)state;
    mproc_lock *l;
    assert_ok(mproc_lock_new(&l));
    assert_ok(mproc_lock_acquire(l, MPROC_NOWAIT));
    expect_all_back(acquire_lock, l, free_lock, MPROC_EINVAL);
}

/* Some give up now and then; those who do not must get it all the same. */
static void *try_for_a_moment(void *arg)
{
    mproc_lock *l = arg;
    for (int i = 0; i < ROUNDS; i++) {
        int err = mproc_lock_acquire(l, mproc_in_ms(i % 3 * 0.02));
        if (err == 0) {
            counter++;
            assert_ok(mproc_lock_release(l));
        } else {
            assert_err(err, MPROC_ETIMEDOUT);
        }
    }
    return NULL;
}

static void who_gives_up_takes_no_wakeup_along(void **state)
{
    (void)state;
    mproc_lock *l;
    pthread_t hasty[2];
    assert_ok(mproc_lock_new(&l));
    for (int i = 0; i < 2; i++) {
        hasty[i] = start(try_for_a_moment, l);
    }
    run(count_with_lock, l, 2);
    for (int i = 0; i < 2; i++) {
        pthread_join(hasty[i], NULL);
    }
    assert_true(counter >= 2 * ROUNDS);
    mproc_lock_free(l);
}

/* ---- rlock ------------------------------------------------------------ */

static void *count_with_rlock(void *arg)
{
    mproc_rlock *l = arg;
    for (int i = 0; i < ROUNDS; i++) {
        assert_err(mproc_rlock_release(l), MPROC_EPERM);
        assert_ok(mproc_rlock_acquire(l, MPROC_FOREVER));
        assert_ok(mproc_rlock_acquire(l, MPROC_FOREVER));
        counter++;
        linger(i);
        assert_ok(mproc_rlock_release(l));
        assert_ok(mproc_rlock_release(l));
    }
    return NULL;
}

static void an_rlock_excludes_and_loses_no_wakeup(void **state)
{
    (void)state;
    mproc_rlock *l;
    assert_ok(mproc_rlock_new(&l));
    run(count_with_rlock, l, THREADS);
    assert_int_equal(counter, THREADS * ROUNDS);
    mproc_rlock_free(l);
}

int main(void)
{
    threads_have_slots();
    const struct CMUnitTest tests[] = {
        THREADS_TEST(a_lock_excludes_and_loses_no_wakeup),
        THREADS_TEST(each_release_wakes_the_next_of_those_asleep),
        THREADS_TEST(the_death_of_a_holder_wakes_those_asleep),
        THREADS_TEST(the_death_of_a_holder_is_told_by_who_notices_it),
        THREADS_TEST(those_who_wait_for_a_freed_lock_leave),
        THREADS_TEST(who_gives_up_takes_no_wakeup_along),
        THREADS_TEST(an_rlock_excludes_and_loses_no_wakeup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
