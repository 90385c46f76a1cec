/* SPDX-License-Identifier: MIT */
/* Objects: handles live and stale, made, ended, and left by the dead. */
#include "white.h"

#include "shm/span.h"

/* Two types of the test's own, in the places of real ones. */
#define TOY MPR_POOL
#define LARGE_TOY MPR_RESULT

struct toy {
    struct mpr_object object;
    void *owns; /* a block */
    _Atomic uint32_t ends;
};

struct large_toy {
    struct mpr_object object;
    char bytes[5000];
};

static _Atomic uint32_t *ends_seen; /* in memory that all see */

static void end_toy(struct mpr_thread *self, struct mpr_thread *whose,
                    struct mpr_object *object)
{
    struct toy *toy = (struct toy *)object;
    atomic_fetch_add(ends_seen, 1);
    mpr_hand_set(whose, MPR_HAND_BLOCK, toy->owns);
    toy->owns = NULL;
    mpr_heap_free_hand(self, whose, MPR_HAND_BLOCK);
}

static const struct mpr_object_class toys = {
    .type = TOY, .size = sizeof(struct toy), .end = end_toy};
static const struct mpr_object_class large_toys = {
    .type = LARGE_TOY, .size = sizeof(struct large_toy)};

static void register_toys(void)
{
    ends_seen = &white_stage_new()->word[0];
    mpr_object_register(&toys);
    mpr_object_register(&large_toys);
}

static struct toy *make_toy(struct mpr_thread *self)
{
    struct toy *toy = mpr_object_new(self, TOY);
    assert_non_null(toy);
    assert_ptr_equal(mpr_hand(self, MPR_HAND_OBJECT_NEW), toy);
    assert_false(mpr_object_is(toy, TOY));
    toy->owns = NULL;
    mpr_object_publish(self, toy);
    assert_null(mpr_hand(self, MPR_HAND_OBJECT_NEW));
    assert_true(mpr_object_is(toy, TOY));
    return toy;
}

static size_t blocks(void)
{
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    return info.blocks;
}

static void count_one(struct mpr_object *object, void *count)
{
    assert_true(mpr_object_is(object, TOY));
    ++*(unsigned *)count;
}

/* By a walk over all of the type. */
static unsigned toys_found(void)
{
    unsigned count = 0;
    mpr_object_each(TOY, count_one, &count);
    return count;
}

/*
 * No cell is on the shelf twice, nor there and live, nor lost: makes and ends
 * many.
 */
static void assert_shelf_is_good(struct mpr_thread *self)
{
    enum { MANY = 1500 }; /* more than a span holds */
    struct toy **toy = calloc(MANY, sizeof(struct toy *));
    assert_int_equal(toys_found(), 0);
    for (int i = 0; i < MANY; i++) {
        toy[i] = make_toy(self);
        toy[i]->owns = toy[i];
    }
    assert_int_equal(toys_found(), MANY);
    for (int i = 0; i < MANY; i++) {
        assert_ptr_equal(toy[i]->owns, toy[i]);
        toy[i]->owns = NULL;
        assert_true(mpr_object_end(self, toy[i], TOY));
    }
    assert_int_equal(toys_found(), 0);
    free(toy);
}

/* ---- handles ---------------------------------------------------------- */

WHITE_TEST(only_a_live_object_is_one)
{
    register_toys();
    char local[256];
    memset(local, 0, sizeof local);
    assert_false(mpr_object_is(local, TOY)); /* before there is a family */
    struct mpr_thread *self = white_self();
    struct toy *toy = make_toy(self);
    assert_false(mpr_object_is(toy, LARGE_TOY));
    assert_false(mpr_object_is((char *)toy + 1, TOY));
    assert_false(mpr_object_is((char *)toy + MPR_LINE, TOY));
    assert_false(mpr_object_is(NULL, TOY));
    assert_false(mpr_object_is(local, TOY));
    assert_false(mpr_object_is((void *)(uintptr_t)-MPR_LINE, TOY));
    assert_false(
        mpr_object_is((char *)mpr_family + mpr_family->size - MPR_LINE, TOY));
    assert_false(mpr_object_is((char *)mpr_family + mpr_family->size, TOY));
    assert_false(mpr_object_end(self, NULL, TOY));
    assert_false(mpr_object_end(self, local, TOY));
    assert_false(mpr_object_end(self, toy, LARGE_TOY));
    assert_true(mpr_object_end(self, toy, TOY));
    assert_false(mpr_object_is(toy, TOY));
    assert_false(mpr_object_end(self, toy, TOY));
    return 0;
}

WHITE_TEST(a_stale_handle_is_told_by_its_tag)
{
    register_toys();
    struct mpr_thread *self = white_self();
    struct toy *first = make_toy(self);
    uint64_t tag = mpr_object_tag(first, TOY);
    assert_true(mpr_object_unchanged(first, tag));
    assert_true(mpr_object_end(self, first, TOY));
    assert_false(mpr_object_unchanged(first, tag));
    struct toy *second = make_toy(self);
    assert_ptr_equal(second, first);
    assert_false(mpr_object_unchanged(first, tag));
    assert_true(mpr_object_tag(second, TOY) != tag);
    return 0;
}

WHITE_TEST(memory_of_a_type_is_never_of_another)
{
    register_toys();
    struct mpr_thread *self = white_self();
    struct toy *toy = make_toy(self);
    toy->object.prepared = 42;
    char *page = (char *)((uintptr_t)toy / MPR_SPAN_SIZE * MPR_SPAN_SIZE);
    assert_true(mpr_object_end(self, toy, TOY));
    for (int i = 0; i < 2000; i++) {
        char *p = mproc_alloc(i % 2 ? 64 : 60000);
        assert_false(p >= page && p < page + MPR_SPAN_SIZE);
        char *large = mpr_object_new(self, LARGE_TOY);
        assert_non_null(large);
        assert_false(large >= page && large < page + MPR_SPAN_SIZE);
        mpr_object_publish(self, large);
    }
    struct toy *again = make_toy(self);
    assert_ptr_equal(again, toy);
    assert_int_equal(again->object.prepared, 42);
    return 0;
}

WHITE_TEST(a_new_cell_is_zero_whatever_was_there)
{
    register_toys();
    struct mpr_thread *self = white_self();
    void *dirty[40];
    for (int i = 0; i < 40; i++) {
        dirty[i] = mproc_alloc(65536);
        memset(dirty[i], 0xff, 65536);
    }
    for (int i = 0; i < 40; i++) {
        mproc_free(dirty[i]);
    }
    static const char zeros[5000];
    for (int i = 0; i < 100; i++) {
        struct large_toy *toy = mpr_object_new(self, LARGE_TOY);
        assert_non_null(toy);
        assert_memory_equal(toy->bytes, zeros, sizeof zeros);
        mpr_object_publish(self, toy);
    }
    return 0;
}

WHITE_TEST(an_object_that_is_dropped_is_ended_and_free)
{
    register_toys();
    struct mpr_thread *self = white_self();
    struct toy *toy = mpr_object_new(self, TOY);
    toy->owns = mproc_alloc(100);
    mpr_object_drop(self, toy);
    assert_int_equal(atomic_load(ends_seen), 1);
    assert_int_equal(blocks(), 0);
    assert_ptr_equal(make_toy(self), toy);
    return 0;
}

WHITE_TEST(no_memory_is_no_object_until_there_is_some)
{
    register_toys();
    const mproc_config config = {.heap_max = 1 << 20};
    assert_ok(mproc_configure(&config));
    struct mpr_thread *self = white_self();
    void *all = mproc_alloc(1 << 20);
    assert_non_null(all);
    assert_null(mpr_object_new(self, TOY));
    assert_null(mpr_hand(self, MPR_HAND_OBJECT_NEW));
    mproc_free(all);
    make_toy(self);
    return 0;
}

/* ---- by many ----------------------------------------------------------- */

enum { ENDERS = 4, TURNS = 300 };

struct race {
    struct toy *_Atomic toy;
    _Atomic uint32_t turn, arrived, won;
};

static void *end_in_turns(void *arg)
{
    struct race *race = arg;
    struct mpr_thread *self = white_self();
    for (uint32_t turn = 1; turn <= TURNS; turn++) {
        while (atomic_load(&race->turn) < turn) {
            sched_yield();
        }
        if (mpr_object_end(self, atomic_load(&race->toy), TOY)) {
            atomic_fetch_add(&race->won, 1);
        }
        atomic_fetch_add(&race->arrived, 1);
    }
    return NULL;
}

static void hold_races(struct mpr_thread *self, struct race *race)
{
    for (uint32_t turn = 1; turn <= TURNS; turn++) {
        struct toy *toy = make_toy(self);
        toy->owns = mproc_alloc(turn % 2 ? 100 : 100000);
        atomic_store(&race->toy, toy);
        atomic_store(&race->turn, turn);
        while (atomic_load(&race->arrived) < turn * ENDERS) {
            sched_yield();
        }
        assert_int_equal(atomic_load(&race->won), turn);
        assert_int_equal(atomic_load(ends_seen), turn);
        assert_int_equal(blocks(), 1);
    }
}

static struct race *new_race(void)
{
    struct race *race = mproc_calloc(1, sizeof *race);
    assert_non_null(race);
    return race;
}

static int end_in_turns_as_process(void *race)
{
    end_in_turns(race);
    return 0;
}

WHITE_TEST(of_processes_that_end_one_object_one_does)
{
    register_toys();
    struct mpr_thread *self = white_self();
    struct race *race = new_race();
    pid_t pids[ENDERS];
    for (int i = 0; i < ENDERS; i++) {
        pids[i] = test_fork(end_in_turns_as_process, race);
    }
    hold_races(self, race);
    for (int i = 0; i < ENDERS; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 0);
    }
    assert_shelf_is_good(self);
    return 0;
}

WHITE_TEST(of_threads_that_end_one_object_one_does)
{
    register_toys();
    mpr_test_slot_per_thread(true);
    struct mpr_thread *self = white_self();
    struct race *race = new_race();
    pthread_t threads[ENDERS];
    for (int i = 0; i < ENDERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, end_in_turns, race),
                         0);
    }
    hold_races(self, race);
    for (int i = 0; i < ENDERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_shelf_is_good(self);
    return 0;
}

/* ---- deaths ----------------------------------------------------------- */

enum moment { MAKING, PUBLISHED, TAKING, ENDING, FREED, ADOPTING, ADOPTED };

static struct mpr_object_shelf *shelf(void)
{
    return &mpr_family->shelves[TOY];
}

static void set_tag(struct toy *toy, enum mpr_object_state state)
{
    uint64_t tag = atomic_load(&toy->object.tag);
    atomic_store(&toy->object.tag, (tag & ~UINT64_C(0xff)) | state);
}

static_assert(sizeof(struct toy) <= MPR_LINE, "one line a toy");

/* In the guard, with one more span, half of which is the type's. */
static void adopt_half(struct mpr_thread *self, bool listed)
{
    uint32_t span = 0;
    void *p = mpr_heap_span(self);
    assert_non_null(p);
    assert_true(mpr_span_of(p, &span));
    memset(p, 0, MPR_SPAN_SIZE);
    mpr_guard_lock(&shelf()->guard, self, self);
    if (listed) {
        mpr_heap_span_adopt(p, TOY, &shelf()->spans);
    } else {
        mpr_span_store(&mpr_heap()->spans[span],
                       mpr_span_word(MPR_SPAN_OBJECTS, TOY, 1));
    }
}

/* Dies where a call would be between two of its stores. */
static int die_at(void *arg)
{
    struct {
        enum moment moment;
        struct toy *toy;
    } *at = arg;
    struct mpr_thread *self = white_self();
    struct toy *toy = at->toy;
    switch (at->moment) {
    case MAKING:
        toy = mpr_object_new(self, TOY);
        toy->owns = mproc_alloc(100);
        break;
    case PUBLISHED:
        toy = mpr_object_new(self, TOY);
        toy->owns = mproc_alloc(100);
        set_tag(toy, MPR_OBJECT_LIVE);
        break;
    case TAKING:
        mpr_guard_lock(&shelf()->guard, self, self);
        mpr_hand_set(self, MPR_HAND_OBJECT_END, toy);
        break;
    case ENDING:
        mpr_guard_lock(&shelf()->guard, self, self);
        mpr_hand_set(self, MPR_HAND_OBJECT_END, toy);
        set_tag(toy, MPR_OBJECT_ENDING);
        mpr_guard_unlock(&shelf()->guard, self);
        break;
    case FREED:
        mpr_heap_free(self, toy->owns);
        toy->owns = NULL;
        mpr_guard_lock(&shelf()->guard, self, self);
        mpr_hand_set(self, MPR_HAND_OBJECT_END, toy);
        set_tag(toy, MPR_OBJECT_FREE);
        break;
    case ADOPTING:
    case ADOPTED:
        adopt_half(self, at->moment == ADOPTED);
        break;
    }
    white_die();
}

static int death_at(enum moment moment, bool lives)
{
    register_toys();
    struct mpr_thread *self = white_self();
    struct toy *toy = make_toy(self);
    toy->owns = mproc_alloc(100);
    struct {
        enum moment moment;
        struct toy *toy;
    } at = {moment, toy};
    assert_int_equal(test_wait_exit(test_fork(die_at, &at)), -SIGKILL);
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    assert_int_equal(mpr_object_is(toy, TOY), lives);
    assert_int_equal(mpr_object_end(self, toy, TOY), lives);
    assert_int_equal(blocks(), 0);
    assert_shelf_is_good(self);
    return 0;
}

WHITE_TEST(a_death_while_making_frees_the_object)
{
    return death_at(MAKING, true);
}

WHITE_TEST(a_death_before_the_handle_is_told_frees_the_object)
{
    return death_at(PUBLISHED, true);
}

WHITE_TEST(a_death_before_the_end_leaves_the_object_live)
{
    return death_at(TAKING, true);
}

WHITE_TEST(a_death_while_ending_ends_the_object)
{
    return death_at(ENDING, false);
}

WHITE_TEST(a_death_with_the_object_half_on_the_shelf_frees_it_once)
{
    return death_at(FREED, false);
}

/* No span is lost, which is seen when there is no memory for another. */
static int death_adopting(enum moment moment)
{
    register_toys();
    const mproc_config config = {.heap_max = 1 << 20};
    assert_ok(mproc_configure(&config));
    struct mpr_thread *self = white_self();
    struct {
        enum moment moment;
        struct toy *toy;
    } at = {moment, make_toy(self)};
    assert_int_equal(test_wait_exit(test_fork(die_at, &at)), -SIGKILL);
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    unsigned spans = (unsigned)(info.limit / MPR_SPAN_SIZE);
    unsigned cells = (unsigned)(MPR_SPAN_SIZE / MPR_LINE);
    struct toy *toy = at.toy;
    for (unsigned i = 1; i < spans * cells; i++) {
        toy = make_toy(self);
    }
    assert_null(mpr_object_new(self, TOY));
    assert_int_equal(toys_found(), spans * cells);
    assert_true(mpr_object_end(self, toy, TOY));
    assert_int_equal(toys_found(), spans * cells - 1);
    return 0;
}

WHITE_TEST(a_death_before_a_span_is_listed_leaves_it_listed)
{
    return death_adopting(ADOPTING);
}

WHITE_TEST(a_death_after_a_span_is_listed_leaves_it_listed_once)
{
    return death_adopting(ADOPTED);
}

static int die_making(void *arg)
{
    struct white_stage *stage = arg;
    struct mpr_thread *self = white_self();
    struct toy *toy = mpr_object_new(self, TOY);
    toy->owns = NULL;
    atomic_store(&stage->value[0], (uintptr_t)self);
    white_die();
}

/* In a reaper's last step for that one: it is free, but in hand still. */
static int die_reaping_it(void *arg)
{
    struct white_stage *stage = arg;
    struct mpr_thread *self = white_self();
    struct mpr_thread *dead = (void *)(uintptr_t)atomic_load(&stage->value[0]);
    mpr_guard_lock(&mpr_family->slots_guard, self, NULL);
    atomic_store(&mpr_family->reaper, self);
    mpr_guard_lock(&shelf()->guard, self, dead);
    set_tag(mpr_hand(dead, MPR_HAND_OBJECT_NEW), MPR_OBJECT_FREE);
    white_die();
}

WHITE_TEST(what_a_dead_reaper_had_freed_is_not_ended_again)
{
    register_toys();
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    pid_t pid = test_fork(die_making, stage);
    assert_int_equal(test_wait_exit(pid), -SIGKILL);
    pid = test_fork(die_reaping_it, stage);
    assert_int_equal(test_wait_exit(pid), -SIGKILL);
    assert_int_equal(mpr_slots_reap(self).reaped, 2);
    assert_int_equal(atomic_load(ends_seen), 0);
    assert_shelf_is_good(self);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_live_object_is_one),
        cmocka_unit_test(a_stale_handle_is_told_by_its_tag),
        cmocka_unit_test(memory_of_a_type_is_never_of_another),
        cmocka_unit_test(a_new_cell_is_zero_whatever_was_there),
        cmocka_unit_test(an_object_that_is_dropped_is_ended_and_free),
        cmocka_unit_test(no_memory_is_no_object_until_there_is_some),
        cmocka_unit_test(of_processes_that_end_one_object_one_does),
        cmocka_unit_test(of_threads_that_end_one_object_one_does),
        cmocka_unit_test(a_death_while_making_frees_the_object),
        cmocka_unit_test(a_death_before_the_handle_is_told_frees_the_object),
        cmocka_unit_test(a_death_before_the_end_leaves_the_object_live),
        cmocka_unit_test(a_death_while_ending_ends_the_object),
        cmocka_unit_test(
            a_death_with_the_object_half_on_the_shelf_frees_it_once),
        cmocka_unit_test(a_death_before_a_span_is_listed_leaves_it_listed),
        cmocka_unit_test(a_death_after_a_span_is_listed_leaves_it_listed_once),
        cmocka_unit_test(what_a_dead_reaper_had_freed_is_not_ended_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
