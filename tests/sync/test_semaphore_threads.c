/* SPDX-License-Identifier: MIT */
/* Semaphores and events among threads that have a slot each. */
#include "threads.h"

#include "sync/units.h"

static int acquire_semaphore(void *s, mproc_deadline until)
{
    return mproc_semaphore_acquire(s, until);
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

int main(void)
{
    threads_have_slots();
    const struct CMUnitTest tests[] = {
        THREADS_TEST(a_semaphore_admits_as_many_as_it_has_units),
        THREADS_TEST(who_wants_no_more_than_is_free_gets_it),
        THREADS_TEST(units_of_the_dead_wake_those_asleep),
        THREADS_TEST(a_dead_holder_of_a_unit_is_told_by_who_notices_it),
        THREADS_TEST(signals_by_semaphore_are_not_lost),
        THREADS_TEST(those_who_wait_on_a_freed_semaphore_leave),
        THREADS_TEST(a_set_is_never_missed),
        THREADS_TEST(those_who_wait_on_a_freed_event_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
