/* SPDX-License-Identifier: MIT */
#include "sync_support.h"

#include <pthread.h>

enum { PARTIES = 4 };

struct share {
    mproc_barrier *b;
    atomic_int ready, back, acted, may_act;
    atomic_int index[PARTIES]; /* how often each was given */
    int action_result;
    mproc_deadline until;
};

static struct share *s;

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
    mproc_barrier_free(s->b);
    return munmap(s, sizeof *s);
}

static void make(unsigned parties)
{
    assert_ok(mproc_barrier_new(&s->b, parties, NULL));
}

static void make_acting(unsigned parties, int (*action)(void *user))
{
    const mproc_barrier_opts opts = {.action = action, .user = s};
    assert_ok(mproc_barrier_new(&s->b, parties, &opts));
}

/* What a child's wait said, as its exit status. */
enum { PASSED, TIMED_OUT, SAW_BROKEN, SAW_FREED, ODD };

static int status_of(int err)
{
    return err == 0                 ? PASSED
           : err == MPROC_ETIMEDOUT ? TIMED_OUT
           : err == MPROC_EBROKEN   ? SAW_BROKEN
           : err == MPROC_EINVAL    ? SAW_FREED
                                    : ODD;
}

static int wait_for_it(void *unused)
{
    (void)unused;
    unsigned index = 77;
    mproc_deadline until = s->until;
    atomic_fetch_add(&s->ready, 1);
    int err = mproc_barrier_wait(s->b, &index, until);
    assert_true(err == 0 || index == 77);
    if (err == 0) {
        atomic_fetch_add(&s->index[index], 1);
    }
    atomic_fetch_add(&s->back, 1);
    return status_of(err);
}

/* Until they sleep in it. */
static void start_waiters(pid_t *pids, int n)
{
    start_asleep(pids, n, wait_for_it, &s->ready);
}

static void expect_good_for_one_more_round(int parties)
{
    pid_t pids[PARTIES];
    assert_false(mproc_barrier_broken(s->b));
    assert_int_equal(mproc_barrier_n_waiting(s->b), 0);
    start_waiters(pids, parties - 1);
    assert_int_equal(mproc_barrier_n_waiting(s->b), parties - 1);
    assert_ok(mproc_barrier_wait(s->b, NULL, TEST_BOUND));
    await_results(pids, parties - 1, PASSED);
    assert_int_equal(mproc_barrier_n_waiting(s->b), 0);
}

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

static void what_is_no_barrier_is_refused(void **state)
{
    (void)state;
    mproc_barrier *freed;
    mproc_lock *lock;
    assert_ok(mproc_lock_new(&lock));
    assert_ok(mproc_barrier_new(&freed, 1, NULL));
    mproc_barrier_free(freed);
    mproc_barrier *const bad[] = {NULL, freed, no_object(),
                                  (mproc_barrier *)lock};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_err(mproc_barrier_wait(bad[i], NULL, MPROC_NOWAIT),
                   MPROC_EINVAL);
        assert_err(mproc_barrier_abort(bad[i]), MPROC_EINVAL);
        assert_err(mproc_barrier_reset(bad[i]), MPROC_EINVAL);
        assert_int_equal(mproc_barrier_parties(bad[i]), 0);
        assert_int_equal(mproc_barrier_n_waiting(bad[i]), 0);
        assert_false(mproc_barrier_broken(bad[i]));
        mproc_barrier_free(bad[i]);
    }
    assert_ok(mproc_lock_acquire(lock, MPROC_NOWAIT));
    mproc_lock_free(lock);
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

/* An action that goes on until it is told to end. */
static int act_until_told(void *user)
{
    (void)user;
    atomic_fetch_add(&s->acted, 1);
    await_count(&s->may_act, 1);
    return 0;
}

/* Of a barrier of 3: two wait, the last one is in the action. */
static void start_action(pid_t *pids)
{
    make_acting(3, act_until_told);
    start_waiters(pids, 2);
    pids[2] = test_fork(wait_for_it, NULL);
    await_count(&s->acted, 1);
    assert_int_equal(mproc_barrier_n_waiting(s->b), 3);
    assert_false(mproc_barrier_broken(s->b));
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

static void a_deadline_during_an_action_breaks_it(void **state)
{
    (void)state;
    pid_t pids[3];
    make_acting(3, act_until_told);
    start_waiters(pids, 1);
    s->until = mproc_in_ms(300);
    pids[1] = test_fork(wait_for_it, NULL);
    await_count(&s->ready, 2);
    s->until = MPROC_FOREVER;
    pids[2] = test_fork(wait_for_it, NULL);
    await_results(&pids[1], 1, TIMED_OUT);
    await_results(pids, 1, SAW_BROKEN);
    atomic_store(&s->may_act, 1);
    await_results(&pids[2], 1, SAW_BROKEN);
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

/* ---- deaths ----------------------------------------------------------- */

static void a_dead_waiter_breaks_it_for_those_who_sleep(void **state)
{
    (void)state;
    pid_t pids[PARTIES - 1];
    make(PARTIES);
    start_waiters(pids, PARTIES - 1);
    kill_and_reap(pids[1]);
    await_results(&pids[0], 1, SAW_BROKEN);
    await_results(&pids[2], 1, SAW_BROKEN);
    assert_true(mproc_barrier_broken(s->b));
    assert_err(mproc_barrier_wait(s->b, NULL, MPROC_FOREVER), MPROC_EBROKEN);
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(PARTIES);
}

/* With nobody who could have noticed the deaths before. */
static void the_last_one_does_not_go_on_with_the_dead(void **state)
{
    (void)state;
    pid_t pids[PARTIES - 1];
    make(PARTIES);
    start_waiters(pids, PARTIES - 1);
    for (int i = 0; i < PARTIES - 1; i++) {
        stop(pids[i]);
    }
    for (int i = 0; i < PARTIES - 1; i++) {
        kill_and_reap(pids[i]);
    }
    assert_err(mproc_barrier_wait(s->b, NULL, TEST_BOUND), MPROC_EBROKEN);
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(PARTIES);
}

static void a_dead_waiter_is_seen_by_who_only_asks(void **state)
{
    (void)state;
    pid_t pid;
    make(2);
    for (int i = 0; i < 2; i++) {
        start_waiters(&pid, 1);
        kill_and_reap(pid);
        assert_int_equal(i == 0 ? 0 : mproc_barrier_n_waiting(s->b), 0);
        assert_true(mproc_barrier_broken(s->b));
        assert_err(mproc_barrier_wait(s->b, NULL, TEST_BOUND), MPROC_EBROKEN);
        assert_ok(mproc_barrier_reset(s->b));
    }
}

static void a_dead_actor_breaks_it(void **state)
{
    (void)state;
    pid_t pids[4];
    start_action(pids);
    start_waiters(&pids[3], 1); /* one who would be of the next round */
    kill_and_reap(pids[2]);
    await_results(pids, 2, SAW_BROKEN);
    await_results(&pids[3], 1, SAW_BROKEN);
    assert_true(mproc_barrier_broken(s->b));
}

static void a_lone_dead_actor_breaks_it(void **state)
{
    (void)state;
    make_acting(1, act_until_told);
    pid_t pid = test_fork(wait_for_it, NULL);
    await_count(&s->acted, 1);
    kill_and_reap(pid);
    assert_true(mproc_barrier_broken(s->b));
    assert_err(mproc_barrier_wait(s->b, NULL, TEST_BOUND), MPROC_EBROKEN);
}

static void a_waiter_that_dies_during_an_action_breaks_it(void **state)
{
    (void)state;
    pid_t pids[3];
    start_action(pids);
    kill_and_reap(pids[0]);
    await_results(&pids[1], 1, SAW_BROKEN);
    atomic_store(&s->may_act, 1);
    await_results(&pids[2], 1, SAW_BROKEN);
}

static void *wait_in_thread(void *unused)
{
    (void)wait_for_it(unused);
    return NULL;
}

static int end_with_one_waiting(void *unused)
{
    pthread_t thread;
    (void)unused;
    int before = atomic_load(&s->ready);
    pthread_create(&thread, NULL, wait_in_thread, NULL);
    await_count(&s->ready, before + 1);
    mproc_deadline until = TEST_BOUND;
    while (mproc_barrier_n_waiting(s->b) == 0) {
        assert_true(mproc_in_ms(0).at_ns < until.at_ns);
        look_again_soon();
    }
    return 9;
}

static void the_end_of_a_process_with_a_waiter_breaks_it(void **state)
{
    (void)state;
    make(2);
    pid_t pid = test_fork(end_with_one_waiting, NULL);
    assert_int_equal(test_wait_exit(pid), 9);
    assert_err(mproc_barrier_wait(s->b, NULL, TEST_BOUND), MPROC_EBROKEN);
}

/* Released, but not yet back: its generation is over. */
static void who_dies_after_the_release_breaks_nothing(void **state)
{
    (void)state;
    pid_t pids[3];
    make(3);
    start_waiters(pids, 2);
    stop(pids[0]);
    assert_ok(mproc_barrier_wait(s->b, NULL, TEST_BOUND));
    await_results(&pids[1], 1, PASSED);
    kill_and_reap(pids[0]);
    expect_good_for_one_more_round(3);
}

static void a_stopped_waiter_only_delays(void **state)
{
    (void)state;
    pid_t pids[3], others[2];
    make(3);
    start_waiters(pids, 2);
    stop(pids[0]);
    pids[2] = test_fork(wait_for_it, NULL);
    await_results(&pids[1], 2, PASSED);
    start_waiters(others, 2); /* the next round, and its end */
    assert_ok(mproc_barrier_abort(s->b));
    await_results(others, 2, SAW_BROKEN);
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(3);
    assert_int_equal(kill(pids[0], SIGCONT), 0);
    await_results(pids, 1, PASSED); /* as its own round ended */
}

static void a_stopped_waiter_hears_how_its_own_round_ended(void **state)
{
    (void)state;
    pid_t pids[2];
    make(2);
    start_waiters(&pids[0], 1);
    stop(pids[0]);
    assert_ok(mproc_barrier_reset(s->b));
    expect_good_for_one_more_round(2);
    expect_good_for_one_more_round(2);
    assert_int_equal(kill(pids[0], SIGCONT), 0);
    await_results(pids, 1, SAW_BROKEN);
}

static int wait_and_tell_when(void *unused)
{
    (void)unused;
    atomic_fetch_add(&s->ready, 1);
    int err = mproc_barrier_wait(s->b, NULL, MPROC_FOREVER);
    s->until = mproc_in_ms(0);
    return status_of(err);
}

/* On a machine that is busy it may last longer, but not each time. */
static void a_death_is_told_within_100_ms(void **state)
{
    (void)state;
    double best = 1e9;
    make(3);
    for (int round = 0; round < 20 && best > 100; round++) {
        pid_t pids[2];
        s->until = MPROC_FOREVER;
        start_waiters(pids, 1);
        pids[1] = test_fork(wait_and_tell_when, NULL);
        await_count(&s->ready, 2 * round + 2);
        await_asleep(pids[1]);
        int64_t killed = mproc_in_ms(0).at_ns;
        kill_and_reap(pids[0]);
        await_results(&pids[1], 1, SAW_BROKEN);
        double ms = (double)(s->until.at_ns - killed) / 1e6;
        best = ms < best ? ms : best;
        assert_ok(mproc_barrier_reset(s->b));
    }
    assert_true(best <= 100);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_barrier_of_one_blocks_nobody),
        TEST(a_number_of_parties_that_is_none_is_refused),
        TEST(a_deadline_breaks_it_until_it_is_reset),
        TEST(abort_and_reset_may_be_repeated),
        TEST(what_is_no_barrier_is_refused),
        TEST(nobody_goes_on_before_all_have_come),
        TEST(it_serves_many_rounds),
        TEST(threads_of_a_process_count_each),
        TEST(more_than_its_parties_take_turns),
        TEST(a_deadline_of_one_breaks_it_for_all),
        TEST(an_abort_breaks_it_for_all),
        TEST(a_reset_sends_those_away_who_wait),
        TEST(who_waits_for_a_freed_barrier_leaves),
        TEST(the_last_one_runs_the_action_before_all_go_on),
        TEST(an_action_that_fails_breaks_it),
        TEST(who_comes_during_an_action_waits_for_its_end),
        TEST(an_abort_during_an_action_breaks_it),
        TEST(a_reset_during_an_action_sends_all_away),
        TEST(a_deadline_during_an_action_breaks_it),
        TEST(a_free_during_an_action_is_told_to_all),
        TEST(an_action_may_wait_for_other_things),
        TEST(a_dead_waiter_breaks_it_for_those_who_sleep),
        TEST(the_last_one_does_not_go_on_with_the_dead),
        TEST(a_dead_waiter_is_seen_by_who_only_asks),
        TEST(a_dead_actor_breaks_it),
        TEST(a_lone_dead_actor_breaks_it),
        TEST(a_waiter_that_dies_during_an_action_breaks_it),
        TEST(the_end_of_a_process_with_a_waiter_breaks_it),
        TEST(who_dies_after_the_release_breaks_nothing),
        TEST(a_stopped_waiter_only_delays),
        TEST(a_death_is_told_within_100_ms),
        TEST(a_stopped_waiter_hears_how_its_own_round_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
