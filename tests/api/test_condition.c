/* SPDX-License-Identifier: MIT */
#include "sync_support.h"

enum { MOST = 8 };

struct share {
    atomic_int ready, back, phase;
    mproc_lock *lock;
    mproc_condition *cond;
    mproc_deadline until;
    int turn, produced, consumed, stock;
};

static struct share *s;

/* Each test runs over a lock of the condition's own and over a user's. */
static int set_up_own(void **state)
{
    (void)state;
    s = shared(sizeof *s);
    s->until = MPROC_FOREVER;
    assert_ok(mproc_condition_new(&s->cond, NULL));
    return 0;
}

static int set_up_over(void **state)
{
    (void)state;
    s = shared(sizeof *s);
    s->until = MPROC_FOREVER;
    assert_ok(mproc_lock_new(&s->lock));
    assert_ok(mproc_condition_new(&s->cond, s->lock));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mproc_condition_free(s->cond);
    mproc_lock_free(s->lock);
    return munmap(s, sizeof *s);
}

static void acquire(void)
{
    assert_ok(mproc_condition_acquire(s->cond, TEST_BOUND));
}

static void release(void)
{
    assert_ok(mproc_condition_release(s->cond));
}

static void notify(unsigned n)
{
    acquire();
    assert_ok(mproc_condition_notify(s->cond, n));
    release();
}

/* ---- children --------------------------------------------------------- */

/*
 * 0: notified, 1: timed out, 2: freed, 3: recovered. Notified before phase
 * `first`: 9.
 */
static int wait_for_it(void *first)
{
    acquire();
    atomic_fetch_add(&s->ready, 1);
    int err = mproc_condition_wait(s->cond, s->until);
    int phase = atomic_load(&s->phase);
    if (err != MPROC_EINVAL) {
        release();
    } else if (s->lock != NULL) {
        assert_ok(mproc_lock_release(s->lock));
    }
    atomic_fetch_add(&s->back, 1);
    if (first != NULL && err == 0 && phase < *(int *)first) {
        return 9;
    }
    return err == 0                 ? 0
           : err == MPROC_ETIMEDOUT ? 1
           : err == MPROC_EINVAL    ? 2
           : err == MPROC_RECOVERED ? 3
                                    : 8;
}

static pid_t start_waiter(int first_phase)
{
    int before = atomic_load(&s->ready);
    pid_t pid = test_fork(wait_for_it, &first_phase);
    await_count(&s->ready, before + 1);
    acquire(); /* so it has given the lock up: it waits */
    release();
    return pid;
}

static void start_waiters(pid_t *pids, int n)
{
    for (int i = 0; i < n; i++) {
        pids[i] = start_waiter(0);
    }
    for (int i = 0; i < n; i++) {
        await_asleep(pids[i]);
    }
}

static int acquire_and_stay(void *unused)
{
    (void)unused;
    acquire();
    atomic_fetch_add(&s->ready, 1);
    pause_for_ever();
    return 0;
}

/* 0: all refuse, as the caller does not hold the lock. */
static int try_without_lock(void *unused)
{
    (void)unused;
    assert_err(mproc_condition_wait(s->cond, MPROC_NOWAIT), MPROC_EPERM);
    assert_err(mproc_condition_notify(s->cond, 1), MPROC_EPERM);
    assert_err(mproc_condition_notify_all(s->cond), MPROC_EPERM);
    assert_err(mproc_condition_release(s->cond), MPROC_EPERM);
    return 0;
}

static bool never(void *asked)
{
    ++*(int *)asked;
    return false;
}

static bool at_third(void *asked)
{
    return ++*(int *)asked == 3;
}

/* ---- its lock --------------------------------------------------------- */

static void what_needs_the_lock_is_refused_without(void **state)
{
    (void)state;
    int asked = 0;
    try_without_lock(NULL);
    assert_err(mproc_condition_wait_for(s->cond, never, &asked, MPROC_NOWAIT),
               MPROC_EPERM);
    assert_int_equal(asked, 0);
    acquire();
    assert_int_equal(test_wait_exit(test_fork(try_without_lock, NULL)), 0);
    release();
    assert_err(mproc_condition_release(s->cond), MPROC_EPERM);
}

static void its_lock_is_the_users(void **state)
{
    (void)state;
    assert_ok(mproc_lock_acquire(s->lock, MPROC_NOWAIT));
    assert_err(mproc_condition_acquire(s->cond, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_ok(mproc_condition_notify(s->cond, 1));
    release();
    acquire();
    assert_true(mproc_lock_locked(s->lock));
    assert_ok(mproc_lock_release(s->lock));
}

static void the_users_lock_outlives_it(void **state)
{
    (void)state;
    mproc_condition *second;
    assert_ok(mproc_condition_new(&second, s->lock));
    mproc_condition_free(second);
    assert_ok(mproc_lock_acquire(s->lock, MPROC_NOWAIT));
    assert_ok(mproc_lock_release(s->lock));
    acquire();
    release();
}

static void its_own_lock_is_re_entrant(void **state)
{
    (void)state;
    acquire();
    acquire();
    release();
    assert_ok(mproc_condition_notify_all(s->cond));
    release();
    assert_err(mproc_condition_release(s->cond), MPROC_EPERM);
}

static int notify_it(void *unused)
{
    (void)unused;
    notify(1);
    return 0;
}

static void a_wait_gives_up_all_levels_and_takes_them_again(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        acquire();
    }
    pid_t pid = test_fork(notify_it, NULL);
    assert_ok(mproc_condition_wait(s->cond, TEST_BOUND));
    assert_int_equal(test_wait_exit(pid), 0);
    for (int i = 0; i < 3; i++) {
        release();
    }
    assert_err(mproc_condition_release(s->cond), MPROC_EPERM);
}

static void with_holds_the_lock_for_its_block(void **state)
{
    (void)state;
    int turns = 0;
    MPROC_WITH(s->cond) {
        assert_ok(mproc_condition_notify(s->cond, 1));
        turns++;
    }
    assert_int_equal(turns, 1);
    assert_err(mproc_condition_notify(s->cond, 1), MPROC_EPERM);
}

/* ---- waiting and notifying -------------------------------------------- */

static void a_wait_ends_at_its_deadline_with_the_lock_held(void **state)
{
    (void)state;
    acquire();
    const mproc_deadline past[] = {MPROC_NOWAIT, mproc_in_ms(-1), mproc_in_s(0),
                                   mproc_in_ms(NAN)};
    for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
        assert_err(mproc_condition_wait(s->cond, past[i]), MPROC_ETIMEDOUT);
    }
    mproc_deadline until = mproc_in_ms(120);
    assert_err(mproc_condition_wait(s->cond, until), MPROC_ETIMEDOUT);
    assert_true(mproc_in_ms(0).at_ns >= until.at_ns);
    release();
}

static void a_notify_is_not_saved(void **state)
{
    (void)state;
    acquire();
    assert_ok(mproc_condition_notify(s->cond, 3));
    assert_ok(mproc_condition_notify_all(s->cond));
    assert_err(mproc_condition_wait(s->cond, mproc_in_ms(5)), MPROC_ETIMEDOUT);
    release();
}

/* Each waiter may only be back from the notify that is meant for it on. */
static void a_notify_wakes_those_who_waited_longest(void **state)
{
    (void)state;
    const int first_phase[MOST] = {1, 2, 2, 3, 3, 3, 4, 4};
    const unsigned n[] = {1, 2, 3};
    pid_t pids[MOST];
    int woken = 0;
    for (int i = 0; i < MOST; i++) {
        pids[i] = start_waiter(first_phase[i]);
    }
    notify(0);
    for (int phase = 1; phase <= 3; phase++) {
        atomic_store(&s->phase, phase);
        notify(n[phase - 1]);
        for (unsigned i = 0; i < n[phase - 1]; i++, woken++) {
            assert_int_equal(test_wait_exit(pids[woken]), 0);
        }
        assert_int_equal(atomic_load(&s->back), woken);
    }
    atomic_store(&s->phase, 4);
    acquire();
    assert_ok(mproc_condition_notify_all(s->cond));
    release();
    await_results(pids + woken, MOST - woken, 0);
}

static void waiters_that_timed_out_take_no_notify(void **state)
{
    (void)state;
    pid_t pids[2], late[2];
    s->until = mproc_in_ms(60);
    start_waiters(late, 2);
    s->until = MPROC_FOREVER;
    start_waiters(pids, 2);
    await_results(late, 2, 1);
    notify(2);
    await_results(pids, 2, 0);
}

static void a_predicate_is_waited_for(void **state)
{
    (void)state;
    int asked = 0;
    acquire();
    assert_err(mproc_condition_wait_for(s->cond, never, &asked, MPROC_NOWAIT),
               MPROC_ETIMEDOUT);
    assert_int_equal(asked, 2);
    asked = 2;
    assert_ok(
        mproc_condition_wait_for(s->cond, at_third, &asked, MPROC_FOREVER));
    assert_int_equal(asked, 3);
    asked = 1; /* at first false, true at the deadline */
    assert_ok(
        mproc_condition_wait_for(s->cond, at_third, &asked, mproc_in_ms(5)));
    assert_err(mproc_condition_wait_for(s->cond, NULL, NULL, MPROC_FOREVER),
               MPROC_EINVAL);
    release();
}

static bool is_turn_two(void *unused)
{
    (void)unused;
    return s->turn == 2;
}

static int take_turns(void *unused)
{
    (void)unused;
    for (int i = 1; i <= 2; i++) {
        acquire();
        s->turn = i;
        assert_ok(mproc_condition_notify_all(s->cond));
        release();
    }
    return 0;
}

static void a_predicate_is_asked_after_each_notify(void **state)
{
    (void)state;
    acquire();
    pid_t pid = test_fork(take_turns, NULL);
    assert_ok(
        mproc_condition_wait_for(s->cond, is_turn_two, NULL, MPROC_FOREVER));
    assert_int_equal(s->turn, 2);
    release();
    assert_int_equal(test_wait_exit(pid), 0);
}

enum { GOODS = 3000, ROOM = 2 };

static int produce(void *unused)
{
    (void)unused;
    for (;;) {
        acquire();
        while (s->stock == ROOM) {
            assert_ok(mproc_condition_wait(s->cond, TEST_BOUND));
        }
        if (s->produced == GOODS) {
            release();
            return 0;
        }
        s->produced++;
        s->stock++;
        assert_ok(mproc_condition_notify_all(s->cond));
        release();
    }
}

static int consume(void *unused)
{
    (void)unused;
    for (;;) {
        acquire();
        while (s->stock == 0 && s->consumed < GOODS) {
            assert_ok(mproc_condition_wait(s->cond, TEST_BOUND));
        }
        if (s->consumed == GOODS) {
            release();
            return 0;
        }
        s->consumed++;
        s->stock--;
        assert_ok(mproc_condition_notify_all(s->cond));
        release();
    }
}

static void producers_and_consumers_all_come_through(void **state)
{
    (void)state;
    pid_t pids[4] = {test_fork(produce, NULL), test_fork(consume, NULL),
                     test_fork(produce, NULL), test_fork(consume, NULL)};
    await_results(pids, 4, 0);
    assert_int_equal(s->consumed, GOODS);
    assert_int_equal(s->stock, 0);
}

/* ---- deaths ----------------------------------------------------------- */

static void killed_waiters_disturb_no_notifier(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        int dead = 1 + round % 4, live = 1 + round / 4 % 4;
        pid_t pids[MOST];
        start_waiters(pids, dead + live);
        for (int i = 0; i < dead; i++) {
            kill_and_reap(pids[i]);
        }
        notify((unsigned)live);
        await_results(pids + dead, live, 0);
    }
}

static void a_notified_waiter_that_dies_passes_it_on(void **state)
{
    (void)state;
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = start_waiter(i < 3 ? 0 : 1);
        await_asleep(pids[i]);
    }
    stop(pids[0]);
    stop(pids[1]);
    notify(2); /* both never run again: one is left without, the last */
    kill_and_reap(pids[0]);
    await_results(pids + 2, 1, 0);
    assert_int_equal(atomic_load(&s->back), 1);
    atomic_store(&s->phase, 1);
    kill_and_reap(pids[1]);
    await_results(pids + 3, 1, 0);
}

/* The deadline must come after the holder has the lock: more time, else. */
static void a_killed_holder_is_told_rather_than_the_deadline(void **state)
{
    (void)state;
    int result = 1;
    for (int ms = 50; ms < 10000 && result != 3; ms *= 2) {
        s->until = mproc_in_ms(ms);
        pid_t waiter = start_waiter(0);
        int before = atomic_load(&s->ready);
        pid_t holder = test_fork(acquire_and_stay, NULL);
        await_count(&s->ready, before + 1);
        bool in_time = mproc_in_ms(0).at_ns < s->until.at_ns;
        kill_and_reap(holder);
        result = test_wait_exit(waiter);
        assert_true(result == 3 || (result == 1 && !in_time));
        if (result == 1) {
            assert_err(mproc_condition_acquire(s->cond, TEST_BOUND),
                       MPROC_RECOVERED);
            release();
        }
    }
    assert_int_equal(result, 3);
    acquire();
    release();
}

static void a_killed_holder_is_told_to_the_next(void **state)
{
    (void)state;
    pid_t pid = test_fork(acquire_and_stay, NULL);
    await_count(&s->ready, 1);
    assert_err(mproc_condition_acquire(s->cond, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    kill_and_reap(pid);
    assert_err(mproc_condition_acquire(s->cond, MPROC_NOWAIT), MPROC_RECOVERED);
    release();
    acquire();
    release();
}

/* ---- ends, signals, bad input ----------------------------------------- */

static void who_still_waits_for_a_freed_one_is_told(void **state)
{
    (void)state;
    pid_t pids[3];
    start_waiters(pids, 3);
    mproc_condition_free(s->cond);
    await_results(pids, 3, 2); /* each with the user's lock held */
}

/* The freed one's memory is the next one's when the waiter looks. */
static void a_waiter_for_a_freed_one_takes_not_the_next(void **state)
{
    (void)state;
    mproc_condition *freed = s->cond;
    pid_t pid = start_waiter(0);
    await_asleep(pid);
    stop(pid);
    mproc_condition_free(freed);
    assert_ok(mproc_condition_new(&s->cond, NULL));
    assert_ptr_equal(s->cond, freed);
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_int_equal(test_wait_exit(pid), 2);
    acquire(); /* not told of a dead holder */
    release();
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
    acquire();
    release();
    for (int i = 0; i < 50; i++) {
        await_asleep(pid);
        assert_int_equal(kill(pid, SIGUSR1), 0);
    }
    await_asleep(pid);
    assert_int_equal(atomic_load(&s->back), 0);
    notify(1);
    assert_int_equal(test_wait_exit(pid), 0);
}

static void what_is_no_condition_is_refused(void **state)
{
    (void)state;
    mproc_condition *freed;
    mproc_event *event;
    assert_ok(mproc_event_new(&event));
    assert_ok(mproc_condition_new(&freed, NULL));
    mproc_condition_free(freed);
    mproc_condition *const bad[] = {NULL, freed, no_object(),
                                    (mproc_condition *)event};
    int asked = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mproc_condition *c = bad[i];
        assert_err(mproc_condition_acquire(c, MPROC_NOWAIT), MPROC_EINVAL);
        assert_err(mproc_condition_release(c), MPROC_EINVAL);
        assert_err(mproc_condition_wait(c, MPROC_NOWAIT), MPROC_EINVAL);
        assert_err(mproc_condition_wait_for(c, never, &asked, MPROC_NOWAIT),
                   MPROC_EINVAL);
        assert_err(mproc_condition_notify(c, 1), MPROC_EINVAL);
        assert_err(mproc_condition_notify_all(c), MPROC_EINVAL);
        mproc_condition_free(c);
    }
    assert_int_equal(asked, 0);
    mproc_event_free(event);
}

static void one_over_no_lock_is_refused(void **state)
{
    (void)state;
    mproc_condition *out = NULL;
    mproc_lock *lock;
    mproc_rlock *rlock;
    assert_ok(mproc_rlock_new(&rlock));
    assert_ok(mproc_lock_new(&lock));
    mproc_lock_free(lock);
    assert_err(mproc_condition_new(&out, lock), MPROC_EINVAL);
    assert_err(mproc_condition_new(&out, (mproc_lock *)rlock), MPROC_EINVAL);
    assert_err(mproc_condition_new(&out, no_object()), MPROC_EINVAL);
    assert_err(mproc_condition_new(NULL, NULL), MPROC_EINVAL);
    assert_null(out);
    mproc_rlock_free(rlock);
}

static void one_whose_lock_is_freed_is_refused(void **state)
{
    (void)state;
    mproc_lock_free(s->lock);
    assert_err(mproc_condition_acquire(s->cond, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_condition_wait(s->cond, MPROC_NOWAIT), MPROC_EINVAL);
    s->lock = NULL;
}

int main(void)
{
#define OWN(name) cmocka_unit_test_setup_teardown(name, set_up_own, tear_down)
#define OVER(name) cmocka_unit_test_setup_teardown(name, set_up_over, tear_down)
#define BOTH(name) OWN(name), OVER(name)
    const struct CMUnitTest tests[] = {
        BOTH(what_needs_the_lock_is_refused_without),
        OVER(its_lock_is_the_users),
        OVER(the_users_lock_outlives_it),
        OWN(its_own_lock_is_re_entrant),
        OWN(a_wait_gives_up_all_levels_and_takes_them_again),
        BOTH(with_holds_the_lock_for_its_block),
        BOTH(a_wait_ends_at_its_deadline_with_the_lock_held),
        BOTH(a_notify_is_not_saved),
        BOTH(a_notify_wakes_those_who_waited_longest),
        BOTH(waiters_that_timed_out_take_no_notify),
        BOTH(a_predicate_is_waited_for),
        BOTH(a_predicate_is_asked_after_each_notify),
        BOTH(producers_and_consumers_all_come_through),
        BOTH(killed_waiters_disturb_no_notifier),
        BOTH(a_notified_waiter_that_dies_passes_it_on),
        BOTH(a_killed_holder_is_told_rather_than_the_deadline),
        BOTH(a_killed_holder_is_told_to_the_next),
        BOTH(who_still_waits_for_a_freed_one_is_told),
        OWN(a_waiter_for_a_freed_one_takes_not_the_next),
        BOTH(signals_do_not_end_a_wait),
        BOTH(what_is_no_condition_is_refused),
        BOTH(one_over_no_lock_is_refused),
        OVER(one_whose_lock_is_freed_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
