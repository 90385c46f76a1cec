/* SPDX-License-Identifier: MIT */
/* Bells: no ring is lost, for one or for many, and they fall quiet again. */
#include "white.h"

#include <limits.h>

/* ---- bells ------------------------------------------------------------ */

/*
 * RINGERS put tokens, WATCHERS take them, all without a deadline: a ring that
 * is lost leaves a watcher asleep beside a token.
 */
enum { RINGERS = 3, WATCHERS = 3, TOKENS = WHITE_SANITIZED ? 1500 : 6000 };

struct tokens {
    _Atomic uint32_t bell;
    _Atomic uint32_t there; /* tokens put and not taken */
    _Atomic uint32_t taken;
};

static void *put_tokens(void *arg)
{
    struct tokens *tokens = arg;
    struct mpr_thread *self = white_self();
    for (int i = 0; i < TOKENS; i++) {
        uintptr_t outer = mpr_op_begin(self, tokens);
        atomic_fetch_add(&tokens->there, 1);
        mpr_bell_ring(&tokens->bell, i % 4 ? 1 : INT_MAX);
        mpr_op_end(self, outer);
        if (i % 64 == 0) {
            sched_yield();
        }
    }
    return NULL;
}

static bool take_token(struct tokens *tokens)
{
    uint32_t there = atomic_load(&tokens->there);
    while (there > 0 &&
           !atomic_compare_exchange_weak(&tokens->there, &there, there - 1)) {
    }
    return there > 0;
}

static void *take_tokens(void *arg)
{
    struct tokens *tokens = arg;
    white_self();
    for (int i = 0; i < TOKENS * RINGERS / WATCHERS; i++) {
        struct mpr_sleep sleep;
        mpr_sleep_begin(&sleep, MPROC_FOREVER);
        for (;;) {
            uint32_t seen = mpr_bell_watch(&tokens->bell);
            if (take_token(tokens)) {
                break;
            }
            mpr_sleep_on(&sleep, &tokens->bell, seen);
        }
        atomic_fetch_add(&tokens->taken, 1);
    }
    return NULL;
}

static struct tokens *new_tokens(void)
{
    mpr_test_deep_sleep = true;
    white_self();
    struct tokens *tokens = mproc_calloc(1, sizeof *tokens);
    assert_non_null(tokens);
    return tokens;
}

static int ring_by_threads(void)
{
    struct tokens *tokens = new_tokens();
    pthread_t threads[RINGERS + WATCHERS];
    for (int i = 0; i < RINGERS + WATCHERS; i++) {
        void *(*fn)(void *) = i < WATCHERS ? take_tokens : put_tokens;
        assert_int_equal(pthread_create(&threads[i], NULL, fn, tokens), 0);
    }
    for (int i = 0; i < RINGERS + WATCHERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(atomic_load(&tokens->taken), TOKENS * RINGERS);
    assert_int_equal(atomic_load(&tokens->there), 0);
    return 0;
}

WHITE_TEST(no_ring_is_lost_between_threads)
{
    return ring_by_threads();
}

WHITE_TEST(no_ring_is_lost_between_threads_with_slots_of_their_own)
{
    mpr_test_slot_per_thread(true);
    return ring_by_threads();
}

static int put_tokens_as_process(void *tokens)
{
    put_tokens(tokens);
    return 0;
}

static int take_tokens_as_process(void *tokens)
{
    take_tokens(tokens);
    return 0;
}

WHITE_TEST(no_ring_is_lost_between_processes)
{
    struct tokens *tokens = new_tokens();
    pid_t pids[RINGERS + WATCHERS];
    for (int i = 0; i < RINGERS + WATCHERS; i++) {
        pids[i] = test_fork(i < WATCHERS ? take_tokens_as_process
                                         : put_tokens_as_process,
                            tokens);
    }
    for (int i = 0; i < RINGERS + WATCHERS; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 0);
    }
    assert_int_equal(atomic_load(&tokens->taken), TOKENS * RINGERS);
    return 0;
}

WHITE_TEST(a_bell_without_sleepers_is_quiet_again)
{
    struct tokens *tokens = new_tokens();
    mpr_bell_ring(&tokens->bell, 1);
    assert_int_equal(atomic_load(&tokens->bell), 0); /* costs a load */
    uint32_t seen = mpr_bell_watch(&tokens->bell);
    assert_int_equal(seen, atomic_load(&tokens->bell));
    assert_true(seen & MPR_BELL_WAITERS);
    mpr_bell_ring(&tokens->bell, 1);
    assert_false(atomic_load(&tokens->bell) & MPR_BELL_WAITERS);
    assert_true(atomic_load(&tokens->bell) != seen);
    uint32_t quiet = atomic_load(&tokens->bell);
    mpr_bell_ring(&tokens->bell, INT_MAX);
    assert_int_equal(atomic_load(&tokens->bell), quiet);
    return 0;
}

/* ---- waiting for many ------------------------------------------------- */

/*
 * THINGS of tokens; who waits for many takes from any, and beside them somebody
 * waits for each alone. Who takes the last of all tells the others.
 */
enum { THINGS = 3 };

struct things {
    struct tokens at[THINGS];
    _Atomic uint32_t left;
    _Atomic uint32_t next; /* the number of the next who comes */
};

static bool take_from(struct things *things, uint32_t i)
{
    if (!take_token(&things->at[i])) {
        return false;
    }
    if (atomic_fetch_sub(&things->left, 1) == 1) {
        for (int k = 0; k < THINGS; k++) {
            mpr_bell_ring(&things->at[k].bell, INT_MAX);
        }
    }
    return true;
}

static void *put_things(void *arg)
{
    struct things *things = arg;
    return put_tokens(&things->at[atomic_fetch_add(&things->next, 1) % THINGS]);
}

static void *take_one_kind(void *arg)
{
    struct things *things = arg;
    struct mpr_thread *self = white_self();
    uint32_t i = atomic_fetch_add(&things->next, 1) % THINGS;
    while (atomic_load(&things->left) > 0) {
        struct mpr_sleep sleep;
        mpr_sleep_begin(&sleep, MPROC_FOREVER);
        uint32_t seen = mpr_bell_watch(&things->at[i].bell);
        uintptr_t outer = mpr_op_begin(self, things);
        bool taken = take_from(things, i);
        mpr_op_end(self, outer);
        if (!taken && atomic_load(&things->left) > 0) {
            mpr_sleep_on(&sleep, &things->at[i].bell, seen);
        }
    }
    return NULL;
}

static bool take_from_any(struct things *things, uint32_t first)
{
    bool taken = false;
    for (uint32_t i = 0; i < THINGS && !taken; i++) {
        taken = take_from(things, (first + i) % THINGS);
    }
    return taken;
}

static void *take_any_kind(void *arg)
{
    struct things *things = arg;
    struct mpr_thread *self = white_self();
    uint32_t mark[THINGS] = {0};
    for (uint32_t turn = 0; atomic_load(&things->left) > 0; turn++) {
        struct mpr_sleep sleep;
        mpr_sleep_begin(&sleep, MPROC_FOREVER);
        uint32_t seen = mpr_bell_watch(&mpr_family->many);
        for (int i = 0; i < THINGS; i++) {
            mark[i] = mpr_bell_mark(&things->at[i].bell, mark[i]);
        }
        uintptr_t outer = mpr_op_begin(self, things);
        bool taken = take_from_any(things, turn);
        mpr_op_end(self, outer);
        if (!taken && atomic_load(&things->left) > 0) {
            mpr_sleep_on(&sleep, &mpr_family->many, seen);
        }
    }
    return NULL;
}

static void *(*const many_parts[])(void *) = {
    take_one_kind, take_one_kind, take_one_kind, put_things,
    put_things,    put_things,    take_any_kind, take_any_kind,
};
enum { MANY_PARTS = sizeof many_parts / sizeof *many_parts };

static struct things *new_things(void)
{
    mpr_test_deep_sleep = true;
    white_self();
    struct things *things = mproc_calloc(1, sizeof *things);
    assert_non_null(things);
    atomic_store(&things->left, TOKENS * THINGS);
    return things;
}

static int ring_for_many_by_threads(void)
{
    struct things *things = new_things();
    pthread_t threads[MANY_PARTS];
    for (int i = 0; i < MANY_PARTS; i++) {
        int err = pthread_create(&threads[i], NULL, many_parts[i], things);
        assert_int_equal(err, 0);
    }
    for (int i = 0; i < MANY_PARTS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(atomic_load(&things->left), 0);
    return 0;
}

WHITE_TEST(no_ring_for_many_is_lost_between_threads)
{
    return ring_for_many_by_threads();
}

WHITE_TEST(no_ring_for_many_is_lost_between_threads_with_slots_of_their_own)
{
    mpr_test_slot_per_thread(true);
    return ring_for_many_by_threads();
}

static struct things *shared_things;

static int play_part(void *part)
{
    many_parts[*(int *)part](shared_things);
    return 0;
}

WHITE_TEST(no_ring_for_many_is_lost_between_processes)
{
    shared_things = new_things();
    pid_t pids[MANY_PARTS];
    for (int i = 0; i < MANY_PARTS; i++) {
        pids[i] = test_fork(play_part, &i);
    }
    for (int i = 0; i < MANY_PARTS; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 0);
    }
    assert_int_equal(atomic_load(&shared_things->left), 0);
    return 0;
}

WHITE_TEST(a_bell_that_nobody_marks_again_is_quiet_again)
{
    struct tokens *tokens = new_tokens();
    uint32_t family = atomic_load(&mpr_family->many);
    uint32_t mark = mpr_bell_mark(&tokens->bell, 0);
    assert_true(mark & MPR_BELL_MANY);
    assert_int_equal(mpr_bell_mark(&tokens->bell, mark), mark);
    mpr_bell_ring(&tokens->bell, 1);
    assert_int_equal(atomic_load(&mpr_family->many), family); /* none waits */
    assert_false(atomic_load(&tokens->bell) & MPR_BELL_MANY);

    uint32_t again = mpr_bell_mark(&tokens->bell, mark);
    assert_true(again != mark);
    uint32_t seen = mpr_bell_watch(&mpr_family->many);
    mpr_bell_watch(&tokens->bell);
    mpr_bell_ring(&tokens->bell, 1);
    assert_true(atomic_load(&mpr_family->many) != seen);
    uint32_t quiet = atomic_load(&tokens->bell);
    assert_false(quiet & (MPR_BELL_MANY | MPR_BELL_WAITERS));
    mpr_bell_ring(&tokens->bell, 1);
    assert_int_equal(atomic_load(&tokens->bell), quiet);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_ring_is_lost_between_threads),
        cmocka_unit_test(
            no_ring_is_lost_between_threads_with_slots_of_their_own),
        cmocka_unit_test(no_ring_is_lost_between_processes),
        cmocka_unit_test(a_bell_without_sleepers_is_quiet_again),
        cmocka_unit_test(no_ring_for_many_is_lost_between_threads),
        cmocka_unit_test(
            no_ring_for_many_is_lost_between_threads_with_slots_of_their_own),
        cmocka_unit_test(no_ring_for_many_is_lost_between_processes),
        cmocka_unit_test(a_bell_that_nobody_marks_again_is_quiet_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
