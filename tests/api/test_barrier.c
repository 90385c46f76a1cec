/* SPDX-License-Identifier: MIT */
/* Barriers: rounds, what breaks them, and actions. */
#include "barrier_support.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- one process ------------------------------------------------------ */

static void a_barrier_of_one_blocks_nobody(void **state)
{
    (void)state;
    make(1);
    for (int i = 0; i < 3; i++) {
        unsigned index = 77;
        assert_ok(mproc_barrier_wait(s->b, &index, MPROC_NOWAIT));
        assert_int_equal(index, 0);
    }
    assert_int_equal(mproc_barrier_parties(s->b), 1);
    assert_int_equal(mproc_barrier_n_waiting(s->b), 0);
    assert_false(mproc_barrier_broken(s->b));
}

static void a_number_of_parties_that_is_none_is_refused(void **state)
{
    (void)state;
    mproc_barrier *b = NULL;
    assert_err(mproc_barrier_new(&b, 0, NULL), MPROC_EINVAL);
    assert_err(mproc_barrier_new(&b, 536870912, NULL), MPROC_EINVAL);
    assert_err(mproc_barrier_new(&b, UINT32_MAX, NULL), MPROC_EINVAL);
    assert_err(mproc_barrier_new(NULL, 1, NULL), MPROC_EINVAL);
    assert_null(b);
    make(536870911);
    assert_int_equal(mproc_barrier_parties(s->b), 536870911);
}

static void a_deadline_breaks_it_until_it_is_reset(void **state)
{
    (void)state;
    const mproc_deadline past[] = {MPROC_NOWAIT, mproc_in_ms(-1), mproc_in_s(0),
                                   mproc_in_ms(NAN)};
    make(2);
    for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
        unsigned index = 77;
        assert_err(mproc_barrier_wait(s->b, &index, past[i]), MPROC_ETIMEDOUT);
        assert_true(mproc_barrier_broken(s->b));
        assert_int_equal(mproc_barrier_n_waiting(s->b), 0);
        assert_err(mproc_barrier_wait(s->b, &index, MPROC_FOREVER),
                   MPROC_EBROKEN);
        assert_err(mproc_barrier_wait(s->b, &index, MPROC_NOWAIT),
                   MPROC_EBROKEN);
        assert_int_equal(index, 77);
        assert_ok(mproc_barrier_reset(s->b));
        assert_false(mproc_barrier_broken(s->b));
    }
    mproc_deadline until = mproc_in_ms(120);
    assert_err(mproc_barrier_wait(s->b, NULL, until), MPROC_ETIMEDOUT);
    assert_true(mproc_in_ms(0).at_ns >= until.at_ns);
}

static void abort_and_reset_may_be_repeated(void **state)
{
    (void)state;
    make(2);
    assert_ok(mproc_barrier_reset(s->b));
    assert_ok(mproc_barrier_reset(s->b));
    assert_false(mproc_barrier_broken(s->b));
    assert_ok(mproc_barrier_abort(s->b));
    assert_ok(mproc_barrier_abort(s->b));
    assert_true(mproc_barrier_broken(s->b));
    assert_err(mproc_barrier_wait(s->b, NULL, MPROC_FOREVER), MPROC_EBROKEN);
    assert_ok(mproc_barrier_reset(s->b));
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(2);
}

/* ---- several ---------------------------------------------------------- */

static void nobody_goes_on_before_all_have_come(void **state)
{
    (void)state;
    pid_t pids[PARTIES - 1];
    unsigned index;
    make(PARTIES);
    for (int i = 0; i < PARTIES - 1; i++) {
        start_waiters(&pids[i], 1);
        assert_int_equal(mproc_barrier_n_waiting(s->b), i + 1);
    }
    assert_int_equal(atomic_load(&s->back), 0);
    assert_ok(mproc_barrier_wait(s->b, &index, TEST_BOUND));
    assert_int_equal(index, PARTIES - 1);
    await_results(pids, PARTIES - 1, PASSED);
    for (int i = 0; i < PARTIES - 1; i++) {
        assert_int_equal(atomic_load(&s->index[i]), 1);
    }
}

enum { ROUNDS = 1000 };

/* No one is ever a round ahead of another, or two behind. */
static int go_round(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        unsigned index;
        int before = atomic_fetch_add(&s->ready, 1);
        assert_in_range(before, i * PARTIES, (i + 1) * PARTIES - 1);
        assert_ok(mproc_barrier_wait(s->b, &index, TEST_BOUND));
        assert_true(atomic_load(&s->ready) >= (i + 1) * PARTIES);
        assert_in_range(index, 0, PARTIES - 1);
        atomic_fetch_add(&s->index[index], 1);
    }
    return 0;
}

static void it_serves_many_rounds(void **state)
{
    (void)state;
    pid_t pids[PARTIES];
    make(PARTIES);
    for (int i = 0; i < PARTIES; i++) {
        pids[i] = test_fork(go_round, NULL);
    }
    await_results(pids, PARTIES, 0);
    for (int i = 0; i < PARTIES; i++) {
        assert_int_equal(atomic_load(&s->index[i]), ROUNDS);
    }
}

static void *go_round_in_thread(void *unused)
{
    assert_int_equal(go_round(unused), 0);
    return NULL;
}

static void threads_of_a_process_count_each(void **state)
{
    (void)state;
    pthread_t threads[PARTIES];
    make(PARTIES);
    for (int i = 0; i < PARTIES; i++) {
        assert_int_equal(
            pthread_create(&threads[i], NULL, go_round_in_thread, NULL), 0);
    }
    for (int i = 0; i < PARTIES; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < PARTIES; i++) {
        assert_int_equal(atomic_load(&s->index[i]), ROUNDS);
    }
}

static void more_than_its_parties_take_turns(void **state)
{
    (void)state;
    pid_t pids[3];
    make(2);
    start_waiters(&pids[0], 1);
    pids[1] = test_fork(wait_for_it, NULL);
    await_results(pids, 2, PASSED);
    start_waiters(&pids[2], 1);
    assert_ok(mproc_barrier_wait(s->b, NULL, TEST_BOUND));
    await_results(&pids[2], 1, PASSED);
}

static void a_deadline_of_one_breaks_it_for_all(void **state)
{
    (void)state;
    pid_t pids[PARTIES];
    make(PARTIES);
    start_waiters(pids, 2);
    s->until = mproc_in_ms(100);
    pids[2] = test_fork(wait_for_it, NULL);
    await_results(&pids[2], 1, TIMED_OUT);
    assert_true(mproc_in_ms(0).at_ns >= s->until.at_ns);
    await_results(pids, 2, SAW_BROKEN);
    assert_true(mproc_barrier_broken(s->b));
    assert_err(mproc_barrier_wait(s->b, NULL, MPROC_FOREVER), MPROC_EBROKEN);
    s->until = MPROC_FOREVER;
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(PARTIES);
}

static void an_abort_breaks_it_for_all(void **state)
{
    (void)state;
    pid_t pids[PARTIES - 1];
    make(PARTIES);
    start_waiters(pids, PARTIES - 1);
    assert_ok(mproc_barrier_abort(s->b));
    await_results(pids, PARTIES - 1, SAW_BROKEN);
    assert_true(mproc_barrier_broken(s->b));
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(PARTIES);
}

static void a_reset_sends_those_away_who_wait(void **state)
{
    (void)state;
    pid_t pids[PARTIES - 1];
    make(PARTIES);
    start_waiters(pids, PARTIES - 1);
    assert_ok(mproc_barrier_reset(s->b));
    assert_false(mproc_barrier_broken(s->b));
    assert_int_equal(mproc_barrier_n_waiting(s->b), 0);
    await_results(pids, PARTIES - 1, SAW_BROKEN);
    expect_good_for_one_more_round(PARTIES);
}

static void who_waits_for_a_freed_barrier_leaves(void **state)
{
    (void)state;
    pid_t pids[PARTIES - 1];
    make(PARTIES);
    start_waiters(pids, PARTIES - 1);
    mproc_barrier_free(s->b);
    await_results(pids, PARTIES - 1, SAW_FREED);
}

/* ---- the action ------------------------------------------------------- */

static int count_action(void *user)
{
    struct share *share = user;
    assert_ptr_equal(share, s);
    assert_int_equal(atomic_load(&s->back), 0); /* nobody has gone on */
    assert_int_equal(mproc_barrier_n_waiting(s->b), 3);
    atomic_fetch_add(&s->acted, 1);
    return s->action_result;
}

static void the_last_one_runs_the_action_before_all_go_on(void **state)
{
    (void)state;
    pid_t pids[2];
    make_acting(3, count_action);
    for (int i = 1; i <= 3; i++) {
        unsigned index;
        atomic_store(&s->back, 0);
        start_waiters(pids, 2);
        assert_int_equal(atomic_load(&s->acted), i - 1);
        assert_ok(mproc_barrier_wait(s->b, &index, MPROC_NOWAIT));
        assert_int_equal(index, 2);
        assert_int_equal(atomic_load(&s->acted), i);
        await_results(pids, 2, PASSED);
    }
}

static void an_action_that_fails_breaks_it(void **state)
{
    (void)state;
    pid_t pids[2];
    unsigned index = 77;
    static const int results[] = {1, -1, MPROC_ETIMEDOUT};
    make_acting(3, count_action);
    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        atomic_store(&s->back, 0);
        s->action_result = results[i];
        start_waiters(pids, 2);
        assert_err(mproc_barrier_wait(s->b, &index, TEST_BOUND), MPROC_EBROKEN);
        assert_int_equal(index, 77);
        await_results(pids, 2, SAW_BROKEN);
        assert_true(mproc_barrier_broken(s->b));
        assert_ok(mproc_barrier_reset(s->b));
    }
    atomic_store(&s->back, 0);
    s->action_result = 0;
    expect_good_for_one_more_round(3);
}

static void who_comes_during_an_action_waits_for_its_end(void **state)
{
    (void)state;
    pid_t pids[4];
    start_action(pids);
    assert_err(mproc_barrier_wait(s->b, NULL, mproc_in_ms(5)), MPROC_ETIMEDOUT);
    assert_false(mproc_barrier_broken(s->b)); /* it had not come in */
    start_waiters(&pids[3], 1);
    assert_int_equal(atomic_load(&s->back), 0);
    atomic_store(&s->may_act, 1);
    await_results(pids, 3, PASSED);
    s->until = MPROC_NOWAIT;
    assert_err(mproc_barrier_wait(s->b, NULL, s->until), MPROC_ETIMEDOUT);
    await_results(&pids[3], 1, SAW_BROKEN);
}

static void an_abort_during_an_action_breaks_it(void **state)
{
    (void)state;
    pid_t pids[3];
    start_action(pids);
    assert_ok(mproc_barrier_abort(s->b));
    await_results(pids, 2, SAW_BROKEN); /* the action runs still */
    atomic_store(&s->may_act, 1);
    await_results(&pids[2], 1, SAW_BROKEN);
    assert_true(mproc_barrier_broken(s->b));
}

static void a_reset_during_an_action_sends_all_away(void **state)
{
    (void)state;
    pid_t pids[3];
    start_action(pids);
    assert_ok(mproc_barrier_reset(s->b));
    await_results(pids, 2, SAW_BROKEN);
    assert_false(mproc_barrier_broken(s->b));
    atomic_store(&s->may_act, 1);
    await_results(&pids[2], 1, SAW_BROKEN);
    expect_good_for_one_more_round(3);
}

/* Until it is in, beside one other, or has left at its deadline. */
static pid_t start_hasty_waiter(int ms)
{
    mproc_deadline bound = TEST_BOUND;
    s->until = mproc_in_ms(ms);
    pid_t pid = test_fork(wait_for_it, NULL);
    while (mproc_barrier_n_waiting(s->b) < 2 && !mproc_barrier_broken(s->b)) {
        assert_true(mproc_in_ms(0).at_ns < bound.at_ns);
        look_again_soon();
    }
    s->until = MPROC_FOREVER;
    return pid;
}

/* Of three one waits for so long only. Whether the action had begun by then. */
static bool a_deadline_found_an_action(int ms)
{
    pid_t pids[3];
    start_waiters(pids, 1);
    pids[1] = start_hasty_waiter(ms);
    pids[2] = test_fork(wait_for_it, NULL);
    await_results(&pids[1], 1, TIMED_OUT);
    await_results(pids, 1, SAW_BROKEN);
    atomic_store(&s->may_act, 1);
    await_results(&pids[2], 1, SAW_BROKEN);
    assert_true(mproc_barrier_broken(s->b));
    assert_ok(mproc_barrier_reset(s->b));
    atomic_store(&s->may_act, 0);
    return atomic_load(&s->acted) > 0;
}

static void a_deadline_during_an_action_breaks_it(void **state)
{
    (void)state;
    int ms = 100;
    make_acting(3, act_until_told);
    while (!a_deadline_found_an_action(ms)) {
        ms *= 2; /* the third one took longer to come */
        assert_true(ms < 20000);
    }
}

static void a_free_during_an_action_is_told_to_all(void **state)
{
    (void)state;
    pid_t pids[3];
    start_action(pids);
    mproc_barrier_free(s->b);
    await_results(pids, 2, SAW_FREED);
    atomic_store(&s->may_act, 1);
    await_results(&pids[2], 1, SAW_FREED);
}

/* The action may use what its own wait is made of, too. */
static mproc_condition *inner_condition;
static mproc_barrier *inner_barrier;

static int wait_inside(void *unused)
{
    (void)unused;
    assert_ok(mproc_condition_acquire(inner_condition, TEST_BOUND));
    assert_err(mproc_condition_wait(inner_condition, mproc_in_ms(1)),
               MPROC_ETIMEDOUT);
    assert_ok(mproc_condition_release(inner_condition));
    assert_ok(mproc_barrier_wait(inner_barrier, NULL, MPROC_NOWAIT));
    return 0;
}

static void an_action_may_wait_for_other_things(void **state)
{
    (void)state;
    pid_t pid;
    assert_ok(mproc_condition_new(&inner_condition, NULL));
    assert_ok(mproc_barrier_new(&inner_barrier, 1, NULL));
    make_acting(2, wait_inside);
    start_waiters(&pid, 1);
    assert_ok(mproc_barrier_wait(s->b, NULL, TEST_BOUND));
    await_results(&pid, 1, PASSED);
    mproc_condition_free(inner_condition);
    mproc_barrier_free(inner_barrier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BARRIER_TEST(a_barrier_of_one_blocks_nobody),
        BARRIER_TEST(a_number_of_parties_that_is_none_is_refused),
        BARRIER_TEST(a_deadline_breaks_it_until_it_is_reset),
        BARRIER_TEST(abort_and_reset_may_be_repeated),
        BARRIER_TEST(nobody_goes_on_before_all_have_come),
        BARRIER_TEST(it_serves_many_rounds),
        BARRIER_TEST(threads_of_a_process_count_each),
        BARRIER_TEST(more_than_its_parties_take_turns),
        BARRIER_TEST(a_deadline_of_one_breaks_it_for_all),
        BARRIER_TEST(an_abort_breaks_it_for_all),
        BARRIER_TEST(a_reset_sends_those_away_who_wait),
        BARRIER_TEST(who_waits_for_a_freed_barrier_leaves),
        BARRIER_TEST(the_last_one_runs_the_action_before_all_go_on),
        BARRIER_TEST(an_action_that_fails_breaks_it),
        BARRIER_TEST(who_comes_during_an_action_waits_for_its_end),
        BARRIER_TEST(an_abort_during_an_action_breaks_it),
        BARRIER_TEST(a_reset_during_an_action_sends_all_away),
        BARRIER_TEST(a_deadline_during_an_action_breaks_it),
        BARRIER_TEST(a_free_during_an_action_is_told_to_all),
        BARRIER_TEST(an_action_may_wait_for_other_things),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
