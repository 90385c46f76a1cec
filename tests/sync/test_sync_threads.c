/* SPDX-License-Identifier: MIT */
/* The algorithms of sync/ but Barrier among threads that have a slot each. */
#include "threads.h"

#include "sync/condition.h"
#include "sync/lock.h"
#include "sync/units.h"

static long counter; /* under the lock of the test */

static int before_each(void **state)
{
    (void)state;
    counter = 0;
    atomic_store(&ready, 0);
    atomic_store(&told, 0);
    return 0;
}

static bool flagged(mproc_lock *l)
{
    return atomic_load(&l->hold.word) & MPR_HOLD_WAITERS;
}

static int acquire_lock(void *l, mproc_deadline until)
{
    return mproc_lock_acquire(l, until);
}

static int acquire_semaphore(void *s, mproc_deadline until)
{
    return mproc_semaphore_acquire(s, until);
}

static int wait_for_event(void *e, mproc_deadline until)
{
    return mproc_event_wait(e, until);
}

/* With the lock of its own. */
static int wait_on_condition(void *c, mproc_deadline until)
{
    assert_ok(mproc_condition_acquire(c, MPROC_FOREVER));
    int err = mproc_condition_wait(c, until);
    assert_true(err == MPROC_EINVAL || mproc_condition_release(c) == 0);
    return err;
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

/* ---- semaphore -------------------------------------------------------- */

static void *go_through(void *arg)
{
    mproc_semaphore *s = arg;
    for (int i = 0; i < ROUNDS; i++) {
        assert_ok(mproc_semaphore_acquire(s, MPROC_FOREVER));
        assert_in_range(atomic_fetch_add(&ready, 1), 0, 1);
        linger(i);
        atomic_fetch_sub(&ready, 1);
        assert_ok(mproc_semaphore_release(s));
    }
    return NULL;
}

static void *acquire_and_die(void *arg)
{
    assert_ok(mproc_semaphore_acquire(arg, MPROC_FOREVER));
    return NULL;
}

static void a_semaphore_admits_as_many_as_it_has_units(void **state)
{
    (void)state;
    const mproc_semaphore_opts kinds[] = {{0}, {.bounded = 1}, {.recover = 1}};
    for (int i = 0; i < 3; i++) {
        mproc_semaphore *s;
        assert_ok(mproc_semaphore_new(&s, 2, &kinds[i]));
        run(go_through, s, THREADS);
        assert_int_equal(mproc_semaphore_value(s), 2);
        mproc_semaphore_free(s);
    }
}

static void units_of_the_dead_wake_those_asleep(void **state)
{
    (void)state;
    const mproc_semaphore_opts kinds[] = {{.bounded = 1}, {.recover = 1}};
    for (int i = 0; i < 2; i++) {
        mproc_semaphore *s;
        assert_ok(mproc_semaphore_new(&s, 2, &kinds[i]));
        run(acquire_and_die, s, 2 * THREADS); /* each by the death of another */
        assert_int_equal(mproc_semaphore_value(s), 2);
        mproc_semaphore_free(s);
    }
}

enum { UNITS = 2, SALT = 0x5a5a0000 };

static struct mpr_units units;

/* What gives, or takes, one unit is a single step of it. */
static bool move_unit(uint32_t i, mpr_id from, mpr_id to)
{
    _Atomic uint64_t *word = &units.array[i].word;
    uint64_t seen = atomic_load(word);
    uint64_t changes = ((seen ^ SALT) + 0x20000) & 0xfffe0000;
    return ((seen ^ SALT) & ~(uint64_t)0xfffe0000) == from &&
           atomic_compare_exchange_strong(word, &seen, (to | changes) ^ SALT);
}

/* Holds one unit, now this, now that, and at times none. */
static void *move_about(void *arg)
{
    mpr_id id;
    struct mpr_thread *self;
    (void)arg;
    assert_ok(mpr_self(&self));
    id = mpr_self_id();
    for (uint32_t i = 0; !atomic_load(&told); i = (i + 1) % UNITS) {
        if (move_unit(i, MPR_UNIT_FREE, id)) {
            atomic_store(&ready, 1);
            while (!move_unit(i, id, MPR_UNIT_FREE)) {
            }
        }
    }
    return NULL;
}

/* While it looks for one, the other thread holds one of the two at most. */
static void who_wants_no_more_than_is_free_gets_it(void **state)
{
    (void)state;
    struct mpr_thread *self;
    bool own;
    assert_ok(mpr_self(&self));
    assert_ok(mpr_units_make(self, &units, SALT, UNITS, UNITS));
    struct mpr_units_view view = mpr_units_view(&units, SALT);
    pthread_t mover = start(move_about, NULL);
    await(atomic_load(&ready) == 1);
    for (int i = 0; i < 20 * ROUNDS; i++) {
        assert_true(mpr_units_take(self, &view));
        assert_ok(mpr_units_give(&view, mpr_self_id(), false, &own));
        assert_true(own);
        mpr_held_add(self, -1);
    }
    atomic_store(&told, 1);
    pthread_join(mover, NULL);
    mpr_units_end(self, self, &units);
}

struct pair {
    mproc_semaphore *ping, *pong;
};

static void *answer(void *arg)
{
    struct pair *pair = arg;
    for (int i = 0; i < ROUNDS; i++) {
        assert_ok(mproc_semaphore_acquire(pair->ping, MPROC_FOREVER));
        assert_ok(mproc_semaphore_release(pair->pong));
    }
    return NULL;
}

static void signals_by_semaphore_are_not_lost(void **state)
{
    (void)state;
    struct pair pair;
    assert_ok(mproc_semaphore_new(&pair.ping, 0, NULL));
    assert_ok(mproc_semaphore_new(&pair.pong, 0, NULL));
    pthread_t thread = start(answer, &pair);
    for (int i = 0; i < ROUNDS; i++) {
        assert_ok(mproc_semaphore_release(pair.ping));
        assert_ok(mproc_semaphore_acquire(pair.pong, MPROC_FOREVER));
    }
    pthread_join(thread, NULL);
    mproc_semaphore_free(pair.ping);
    mproc_semaphore_free(pair.pong);
}

static void *hold_unit_and_die_when_told(void *s)
{
    assert_ok(mproc_semaphore_acquire(s, MPROC_NOWAIT));
    atomic_fetch_add(&ready, 1);
    await(atomic_load(&told) == 1);
    return NULL;
}

static void a_dead_holder_of_a_unit_is_told_by_who_notices_it(void **state)
{
    (void)state;
    struct caller bystander, waiter;
    mproc_semaphore *s;
    mproc_event *e;
    assert_ok(
        mproc_semaphore_new(&s, 1, &(mproc_semaphore_opts){.bounded = 1}));
    assert_ok(mproc_event_new(&e));
    pthread_t holder = start(hold_unit_and_die_when_told, s);
    await(atomic_load(&ready) == 1);
    pthread_t first = start_call(&bystander, wait_for_event, e, MPROC_FOREVER);
    pthread_t second = start_call(&waiter, acquire_semaphore, s, MPROC_FOREVER);
    atomic_store(&told, 1);
    pthread_join(holder, NULL);
    pthread_join(second, NULL);
    assert_ok(waiter.err);
    assert_ok(mproc_event_set(e));
    pthread_join(first, NULL);
    mproc_event_free(e);
    mproc_semaphore_free(s);
}

static void free_semaphore(void *s)
{
    mproc_semaphore_free(s);
}

static void those_who_wait_on_a_freed_semaphore_leave(void **state)
{
    (void)state;
    const mproc_semaphore_opts kinds[] = {{0}, {.bounded = 1}};
    for (int i = 0; i < 2; i++) {
        mproc_semaphore *s;
        assert_ok(mproc_semaphore_new(&s, 1, &kinds[i]));
        assert_ok(mproc_semaphore_acquire(s, MPROC_NOWAIT));
        expect_all_back(acquire_semaphore, s, free_semaphore, MPROC_EINVAL);
    }
}

/* ---- event ------------------------------------------------------------ */

struct relay {
    mproc_event *there, *back;
};

static void *relay_back(void *arg)
{
    struct relay *relay = arg;
    for (int i = 0; i < ROUNDS; i++) {
        assert_ok(mproc_event_wait(relay->there, MPROC_FOREVER));
        assert_ok(mproc_event_clear(relay->there));
        counter++;
        assert_ok(mproc_event_set(relay->back));
    }
    return NULL;
}

static void a_set_is_never_missed(void **state)
{
    (void)state;
    struct relay relay;
    assert_ok(mproc_event_new(&relay.there));
    assert_ok(mproc_event_new(&relay.back));
    pthread_t thread = start(relay_back, &relay);
    for (int i = 0; i < ROUNDS; i++) {
        assert_int_equal(counter, i);
        assert_ok(mproc_event_set(relay.there));
        assert_ok(mproc_event_wait(relay.back, MPROC_FOREVER));
        assert_ok(mproc_event_clear(relay.back));
    }
    pthread_join(thread, NULL);
    mproc_event_free(relay.there);
    mproc_event_free(relay.back);
}

static void free_event(void *e)
{
    mproc_event_free(e);
}

static void those_who_wait_on_a_freed_event_leave(void **state)
{
    (void)state;
    mproc_event *e;
    assert_ok(mproc_event_new(&e));
    expect_all_back(wait_for_event, e, free_event, MPROC_EINVAL);
}

/* ---- condition -------------------------------------------------------- */

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
#define TEST(name) cmocka_unit_test_setup(name, before_each)
    const struct CMUnitTest tests[] = {
        TEST(a_lock_excludes_and_loses_no_wakeup),
        TEST(each_release_wakes_the_next_of_those_asleep),
        TEST(the_death_of_a_holder_wakes_those_asleep),
        TEST(the_death_of_a_holder_is_told_by_who_notices_it),
        TEST(those_who_wait_for_a_freed_lock_leave),
        TEST(who_gives_up_takes_no_wakeup_along),
        TEST(an_rlock_excludes_and_loses_no_wakeup),
        TEST(a_semaphore_admits_as_many_as_it_has_units),
        TEST(who_wants_no_more_than_is_free_gets_it),
        TEST(units_of_the_dead_wake_those_asleep),
        TEST(a_dead_holder_of_a_unit_is_told_by_who_notices_it),
        TEST(signals_by_semaphore_are_not_lost),
        TEST(those_who_wait_on_a_freed_semaphore_leave),
        TEST(a_set_is_never_missed),
        TEST(those_who_wait_on_a_freed_event_leave),
        TEST(no_notify_is_lost),
        TEST(exactly_as_many_return_as_are_notified),
        TEST(what_the_dead_were_notified_of_is_passed_on),
        TEST(it_is_not_passed_on_to_who_came_later),
        TEST(the_dead_who_were_not_notified_take_none),
        TEST(those_who_wait_on_a_freed_condition_leave),
        TEST(who_timed_out_takes_no_notify),
        TEST(nothing_is_passed_on_within_a_freed_condition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
