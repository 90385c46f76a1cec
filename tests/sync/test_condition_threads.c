/* SPDX-License-Identifier: MIT */
/* Conditions among threads that have a slot each. */
#include "threads.h"

#include "sync/condition.h"

/* With the lock of its own. */
static int wait_on_condition(void *c, mproc_deadline until)
{
    assert_ok(mproc_condition_acquire(c, MPROC_FOREVER));
    int err = mproc_condition_wait(c, until);
    assert_true(err == MPROC_EINVAL || mproc_condition_release(c) == 0);
    return err;
}

struct stock {
    mproc_condition *cond;
    int amount, taken;
};

static void *take_from_stock(void *arg)
{
    struct stock *stock = arg;
    for (int i = 0; i < ROUNDS; i++) {
        assert_ok(mproc_condition_acquire(stock->cond, MPROC_FOREVER));
        while (stock->amount == 0) {
            assert_ok(mproc_condition_wait(stock->cond, MPROC_FOREVER));
        }
        stock->amount--;
        stock->taken++;
        assert_ok(mproc_condition_release(stock->cond));
    }
    return NULL;
}

/* One notify for each: with one too few, somebody waits for ever. */
static void no_notify_is_lost(void **state)
{
    (void)state;
    struct stock stock = {0};
    pthread_t threads[THREADS];
    mproc_lock *lock;
    assert_ok(mproc_lock_new(&lock));
    assert_ok(mproc_condition_new(&stock.cond, lock));
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start(take_from_stock, &stock);
    }
    for (int i = 0; i < THREADS * ROUNDS; i++) {
        assert_ok(mproc_condition_acquire(stock.cond, MPROC_FOREVER));
        stock.amount++;
        assert_ok(mproc_condition_notify(stock.cond, 1));
        assert_ok(mproc_condition_release(stock.cond));
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(stock.taken, THREADS * ROUNDS);
    mproc_condition_free(stock.cond);
    mproc_lock_free(lock);
}

static void *wait_once(void *arg)
{
    mproc_condition *c = arg;
    assert_ok(mproc_condition_acquire(c, MPROC_FOREVER));
    atomic_fetch_add(&ready, 1);
    int err = mproc_condition_wait(c, MPROC_FOREVER);
    assert_true(err == 0 || err == MPROC_RECOVERED);
    atomic_fetch_add(&told, 1);
    assert_ok(mproc_condition_release(c));
    return NULL;
}

static pthread_t start_waiter(mproc_condition *c)
{
    int before = atomic_load(&ready);
    pthread_t thread = start(wait_once, c);
    await(atomic_load(&ready) == before + 1);
    return thread;
}

static void exactly_as_many_return_as_are_notified(void **state)
{
    (void)state;
    enum { N = 2 * THREADS };
    mproc_condition *c;
    pthread_t threads[N];
    assert_ok(mproc_condition_new(&c, NULL));
    for (int i = 0; i < N; i++) {
        threads[i] = start_waiter(c);
    }
    for (int i = 0; i < N; i += 2) {
        assert_ok(mproc_condition_acquire(c, MPROC_FOREVER));
        assert_int_equal(atomic_load(&told), i);
        assert_ok(mproc_condition_notify(c, 2));
        assert_ok(mproc_condition_release(c));
        pthread_join(threads[i], NULL);
        pthread_join(threads[i + 1], NULL);
        reap_dead();
    }
    mproc_condition_free(c);
}

/*
 * What a thread looks like that was killed in a wait: its record waits, and its
 * slot is dead.
 */
struct corpse {
    mproc_condition *c;
    struct mpr_thread *record;
    atomic_int may_die;
};

static void *die_waiting(void *arg)
{
    struct corpse *corpse = arg;
    struct mpr_thread *self;
    assert_ok(mproc_condition_acquire(corpse->c, MPROC_FOREVER));
    assert_ok(mpr_self(&self));
    corpse->record = self;
    (void)mpr_waiters_join(self, &corpse->c->waiters);
    assert_ok(mproc_condition_release(corpse->c));
    atomic_fetch_add(&ready, 1);
    await(atomic_load(&corpse->may_die));
    return NULL;
}

static bool was_told(const struct corpse *corpse)
{
    return mpr_wait_heard(corpse->record) == MPR_WAIT_TOLD;
}

static pthread_t start_corpse(struct corpse *corpse, mproc_condition *c)
{
    int before = atomic_load(&ready);
    *corpse = (struct corpse){.c = c};
    pthread_t thread = start(die_waiting, corpse);
    await(atomic_load(&ready) == before + 1);
    return thread;
}

static void bury(struct corpse *corpse, pthread_t thread)
{
    atomic_store(&corpse->may_die, 1);
    pthread_join(thread, NULL);
    reap_dead();
}

static void notify(mproc_condition *c, unsigned n)
{
    assert_ok(mproc_condition_acquire(c, MPROC_FOREVER));
    assert_ok(mproc_condition_notify(c, n));
    assert_ok(mproc_condition_release(c));
}

static void what_the_dead_were_notified_of_is_passed_on(void **state)
{
    (void)state;
    mproc_condition *c;
    struct corpse corpse;
    assert_ok(mproc_condition_new(&c, NULL));
    pthread_t dead = start_corpse(&corpse, c);
    pthread_t first = start_waiter(c);
    pthread_t second = start_waiter(c);
    notify(c, 1);
    assert_true(was_told(&corpse));
    bury(&corpse, dead);
    pthread_join(first, NULL);
    reap_dead();
    assert_int_equal(atomic_load(&told), 1);
    notify(c, 1);
    pthread_join(second, NULL);
    mproc_condition_free(c);
}

static void it_is_not_passed_on_to_who_came_later(void **state)
{
    (void)state;
    mproc_condition *c;
    struct corpse corpse, late;
    assert_ok(mproc_condition_new(&c, NULL));
    pthread_t dead = start_corpse(&corpse, c);
    notify(c, 1);
    pthread_t later = start_corpse(&late, c);
    bury(&corpse, dead);
    assert_false(was_told(&late));
    bury(&late, later);
    mproc_condition_free(c);
}

static void the_dead_who_were_not_notified_take_none(void **state)
{
    (void)state;
    mproc_condition *c;
    struct corpse corpse;
    assert_ok(mproc_condition_new(&c, NULL));
    pthread_t dead = start_corpse(&corpse, c);
    pthread_t first = start_waiter(c);
    pthread_t second = start_waiter(c);
    atomic_store(&corpse.may_die, 1);
    pthread_join(dead, NULL); /* dead, and perhaps not reaped */
    notify(c, 1);
    pthread_join(first, NULL);
    reap_dead();
    assert_int_equal(atomic_load(&told), 1);
    notify(c, 1);
    pthread_join(second, NULL);
    mproc_condition_free(c);
}

static void free_condition(void *c)
{
    mproc_condition_free(c);
}

static void those_who_wait_on_a_freed_condition_leave(void **state)
{
    (void)state;
    mproc_condition *c;
    assert_ok(mproc_condition_new(&c, NULL));
    expect_all_back(wait_on_condition, c, free_condition, MPROC_EINVAL);
}

/* While it waits for the lock, which others hold, it is nobody to notify. */
static void who_timed_out_takes_no_notify(void **state)
{
    (void)state;
    struct caller hasty;
    struct corpse other;
    mproc_condition *c;
    assert_ok(mproc_condition_new(&c, NULL));
    pthread_t first = start_call(&hasty, wait_on_condition, c, mproc_in_s(1));
    pthread_t second = start_corpse(&other, c);
    assert_ok(mproc_condition_acquire(c, MPROC_FOREVER));
    await(mproc_in_ms(0).at_ns > hasty.until.at_ns);
    await(atomic_load(&c->own.hold.word) & MPR_HOLD_WAITERS);
    assert_ok(mproc_condition_notify(c, 1));
    assert_true(was_told(&other));
    assert_ok(mproc_condition_release(c));
    pthread_join(first, NULL);
    assert_err(hasty.err, MPROC_ETIMEDOUT);
    bury(&other, second);
    mproc_condition_free(c);
}

static void nothing_is_passed_on_within_a_freed_condition(void **state)
{
    (void)state;
    mproc_condition *c, *next;
    struct corpse corpse, first, second;
    assert_ok(mproc_condition_new(&c, NULL));
    pthread_t dead = start_corpse(&corpse, c);
    notify(c, 1);
    mproc_condition_free(c);
    assert_ok(mproc_condition_new(&next, NULL));
    assert_ptr_equal(next, c); /* in its place */
    pthread_t one = start_corpse(&first, next);
    pthread_t two = start_corpse(&second, next);
    notify(next, 1);
    bury(&corpse, dead);
    assert_true(was_told(&first));
    assert_false(was_told(&second));
    bury(&second, two);
    bury(&first, one);
    mproc_condition_free(next);
}

int main(void)
{
    threads_have_slots();
    const struct CMUnitTest tests[] = {
        THREADS_TEST(no_notify_is_lost),
        THREADS_TEST(exactly_as_many_return_as_are_notified),
        THREADS_TEST(what_the_dead_were_notified_of_is_passed_on),
        THREADS_TEST(it_is_not_passed_on_to_who_came_later),
        THREADS_TEST(the_dead_who_were_not_notified_take_none),
        THREADS_TEST(those_who_wait_on_a_freed_condition_leave),
        THREADS_TEST(who_timed_out_takes_no_notify),
        THREADS_TEST(nothing_is_passed_on_within_a_freed_condition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
