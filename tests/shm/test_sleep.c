/* SPDX-License-Identifier: MIT */
/* Sleeping, to a deadline, and being woken by the deaths of others. */
#include "white.h"

#include <limits.h>

/* ---- sleepers --------------------------------------------------------- */

enum { SLEEPS, WOKEN, GO, WAKES };

/* Sleeps without a deadline until the last word is spoken. */
static int sleep_until_told(void *arg)
{
    struct white_stage *stage = arg;
    mpr_test_deep_sleep = true;
    white_self();
    _Atomic uint32_t bell = 0;
    struct mpr_sleep sleep;
    mpr_sleep_begin(&sleep, MPROC_FOREVER);
    white_reach(&stage->word[SLEEPS], atomic_load(&stage->word[SLEEPS]) + 1);
    while (!atomic_load(&stage->word[GO])) {
        mpr_sleep_on(&sleep, &bell, 0);
        atomic_fetch_add(&stage->word[WAKES], 1);
    }
    atomic_fetch_add(&stage->word[WOKEN], 1);
    mpr_os_wake(&stage->word[WOKEN], INT_MAX);
    white_stay(); /* its end would wake another */
}

static pid_t start_sleeper(struct white_stage *stage, uint32_t number)
{
    pid_t pid = test_fork(sleep_until_told, stage);
    white_await(&stage->word[SLEEPS], number);
    white_await_asleep(pid, pid);
    return pid;
}

/* The birth of the caller woke them once. */
static void await_asleep_again(struct white_stage *stage)
{
    for (int i = 0; atomic_load(&stage->value[i]) != 0; i++) {
        pid_t pid = (pid_t)atomic_load(&stage->value[i]);
        white_await_asleep(pid, pid);
    }
}

static int die_in_operation(void *arg)
{
    struct white_stage *stage = arg;
    struct mpr_thread *self = white_self();
    mpr_op_begin(self, mpr_family);
    await_asleep_again(stage);
    atomic_store(&stage->word[GO], 1);
    white_die();
}

static int die_holding(void *arg)
{
    struct white_stage *stage = arg;
    mpr_held_add(white_self(), 1);
    await_asleep_again(stage);
    atomic_store(&stage->word[GO], 1);
    white_die();
}

enum { SLEEPING = 3 };

static void start_sleepers(struct white_stage *stage)
{
    white_self();
    for (uint32_t i = 0; i < SLEEPING; i++) {
        atomic_store(&stage->value[i], (uint64_t)start_sleeper(stage, i + 1));
    }
}

static void kill_sleepers(struct white_stage *stage)
{
    for (uint32_t i = 0; i < SLEEPING; i++) {
        white_kill((pid_t)atomic_load(&stage->value[i]));
    }
}

/*
 * The parent looks at nothing, so that the sleepers alone can notice. The
 * kernel wakes one of them; that one has to wake the others.
 */
static void death_of_a_newcomer_wakes(int (*how)(void *))
{
    struct white_stage *stage = white_stage_new();
    start_sleepers(stage);
    pid_t dead = test_fork(how, stage);
    assert_int_equal(test_wait_exit(dead), -SIGKILL);
    white_await(&stage->word[WOKEN], SLEEPING);
    kill_sleepers(stage);
}

WHITE_TEST(a_newcomer_that_dies_in_an_operation_wakes_a_sleeper)
{
    death_of_a_newcomer_wakes(die_in_operation);
    return 0;
}

WHITE_TEST(a_newcomer_that_dies_holding_wakes_a_sleeper)
{
    death_of_a_newcomer_wakes(die_holding);
    return 0;
}

enum { LIVES = WAKES + 1, LISTENS };

static int die_when_told(void *arg)
{
    struct white_stage *stage = arg;
    mpr_op_begin(white_self(), mpr_family);
    atomic_store(&stage->value[0], mpr_self_id());
    white_reach(&stage->word[LIVES], 1);
    white_await(&stage->word[GO], 1);
    white_die();
}

/* As a sleeper that does nothing any more when it is woken. */
static void *listen_in_vain(void *arg)
{
    struct white_stage *stage = arg;
    struct mpr_os_word life;
    bool dead = false;
    white_self();
    assert_int_equal(mpr_slot_watch(stage->value[0], &life, &dead), 1);
    white_reach(&stage->word[LISTENS], (uint32_t)mpr_os_tid());
    mpr_os_wait(life.word, life.seen, TEST_BOUND);
    return NULL;
}

/* Deep in its sleep, as if that had lasted for some time. */
static int hear_of_the_death(void *arg)
{
    struct white_stage *stage = arg;
    white_self();
    _Atomic uint32_t bell = 0;
    struct mpr_sleep sleep;
    mpr_sleep_begin(&sleep, TEST_BOUND);
    white_reach(&stage->word[SLEEPS], 1);
    while (!sleep.expired && !mpr_id_is_dead(stage->value[0])) {
        sleep.deep = true;
        mpr_sleep_on(&sleep, &bell, 0);
    }
    return sleep.expired;
}

/*
 * The kernel wakes one who watches the dead: here a thread beside that which
 * holds its process's life, as if it had been killed just then.
 */
WHITE_TEST(a_death_that_only_a_stray_was_woken_by_is_heard)
{
    struct white_stage *stage = white_stage_new();
    pthread_t stray;
    white_self();
    pid_t dead = test_fork(die_when_told, stage);
    white_await(&stage->word[LIVES], 1);
    assert_int_equal(pthread_create(&stray, NULL, listen_in_vain, stage), 0);
    white_await(&stage->word[LISTENS], 1);
    white_await_asleep(getpid(), (pid_t)atomic_load(&stage->word[LISTENS]));
    pid_t other = test_fork(hear_of_the_death, stage);
    white_await(&stage->word[SLEEPS], 1);
    white_await_asleep(other, other);
    white_reach(&stage->word[GO], 1);
    assert_int_equal(test_wait_exit(dead), -SIGKILL);
    assert_int_equal(pthread_join(stray, NULL), 0);
    assert_int_equal(test_wait_exit(other), 0);
    return 0;
}

/* Nobody watches it: nobody was told of its birth. */
WHITE_TEST(a_newcomer_to_a_crowd_that_dies_wakes_a_sleeper)
{
    mpr_test_watched_max = 1;
    death_of_a_newcomer_wakes(die_in_operation);
    return 0;
}

WHITE_TEST(a_newcomer_to_a_crowd_that_dies_holding_wakes_a_sleeper)
{
    mpr_test_watched_max = 1;
    death_of_a_newcomer_wakes(die_holding);
    return 0;
}

static int come_and_go(void *unused)
{
    (void)unused;
    white_self();
    return 0;
}

/* Each wakes by the clock, once a second, and that is all. */
WHITE_TEST(births_in_a_crowd_wake_nobody)
{
    enum { BIRTHS = 20 };
    mpr_test_watched_max = 1;
    struct white_stage *stage = white_stage_new();
    start_sleepers(stage);
    int64_t began = mpr_os_now();
    uint32_t before = atomic_load(&stage->word[WAKES]);
    for (int i = 0; i < BIRTHS; i++) {
        await_asleep_again(stage);
        assert_int_equal(test_wait_exit(test_fork(come_and_go, NULL)), 0);
    }
    await_asleep_again(stage);
    uint32_t wakes = atomic_load(&stage->word[WAKES]) - before;
    int64_t seconds = (mpr_os_now() - began) / 1000000000;
    assert_true(wakes <= SLEEPING * (seconds + 1));
    kill_sleepers(stage);
    return 0;
}

static int die_idle(void *unused)
{
    (void)unused;
    white_self();
    white_die();
}

static uint32_t told_of(int (*how)(void *), struct white_stage *stage)
{
    pid_t dead = test_fork(how, stage);
    assert_int_equal(test_wait_exit(dead), -SIGKILL);
    uint32_t before = atomic_load(&mpr_family->deaths);
    assert_int_equal(mpr_slots_reap(white_self()).reaped, 1);
    return atomic_load(&mpr_family->deaths) - before;
}

WHITE_TEST(a_death_is_told_when_the_dead_one_may_have_owed_a_wake)
{
    struct white_stage *stage = white_stage_new();
    white_self();
    assert_int_equal(told_of(die_idle, stage), 0);
    assert_int_equal(told_of(die_in_operation, stage), 1);
    assert_int_equal(told_of(die_holding, stage), 1);
    return 0;
}

static int wait_at_bell(void *arg)
{
    struct white_stage *stage = arg;
    _Atomic uint32_t *bell = (_Atomic uint32_t *)atomic_load(&stage->value[0]);
    struct mpr_thread *self = white_self();
    struct mpr_sleep sleep;
    mpr_test_deep_sleep = true;
    mpr_op_waits(self, mpr_op_begin(self, bell));
    mpr_sleep_begin(&sleep, MPROC_FOREVER);
    while (atomic_load(bell) == 0) {
        mpr_sleep_on(&sleep, bell, 0);
    }
    return 0;
}

/* Past the library: only a wake on this very word ends it. */
static int sleep_at_bell(void *arg)
{
    struct white_stage *stage = arg;
    _Atomic uint32_t *bell = (_Atomic uint32_t *)atomic_load(&stage->value[0]);
    assert_int_equal(mpr_os_wait(bell, 0, TEST_BOUND), 0);
    return 0;
}

/* It may have taken a wake-up from another at its bell. */
WHITE_TEST(a_waiter_that_dies_asleep_wakes_one_of_its_kind)
{
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    void *bell = mproc_calloc(1, 64);
    assert_non_null(bell);
    atomic_store(&stage->value[0], (uintptr_t)bell);
    pid_t dead = test_fork(wait_at_bell, stage);
    white_await_asleep(dead, dead);
    pid_t other = test_fork(sleep_at_bell, stage);
    white_await_asleep(other, other);
    uint32_t deaths = atomic_load(&mpr_family->deaths);
    white_kill(dead);
    assert_int_equal(mpr_slots_reap(self).reaped, 1);
    assert_int_equal(test_wait_exit(other), 0);
    assert_int_equal(atomic_load(&mpr_family->deaths), deaths);
    return 0;
}

/* ---- a process that goes on without its first thread ------------------ */

enum { SLEEPERS = 4, FIRST_GONE = 4, HOLDER_TID, BELL_AT };

/* Sleeps until its bell, the k-th, is rung, or told of a death. */
static int sleep_on_bell(void *arg)
{
    struct white_stage *stage = arg;
    _Atomic uint32_t *bells = (_Atomic uint32_t *)atomic_load(&stage->value[0]);
    mpr_test_deep_sleep = true;
    white_self();
    uint32_t k = atomic_fetch_add(&stage->word[SLEEPS], 1);
    mpr_os_wake(&stage->word[SLEEPS], INT_MAX);
    struct mpr_sleep sleep;
    mpr_sleep_begin(&sleep, MPROC_FOREVER);
    while (atomic_load(&bells[k]) == 0 && !atomic_load(&stage->word[GO])) {
        mpr_sleep_on(&sleep, &bells[k], 0);
    }
    atomic_fetch_add(&stage->word[WOKEN], 1);
    mpr_os_wake(&stage->word[WOKEN], INT_MAX);
    white_stay();
}

static void *hold_on(void *arg)
{
    struct white_stage *stage = arg;
    mpr_held_add(white_self(), 1);
    white_reach(&stage->word[HOLDER_TID], (uint32_t)mpr_os_tid());
    white_stay();
}

static int leave_a_thread_behind(void *arg)
{
    pthread_t thread;
    white_self();
    assert_int_equal(pthread_create(&thread, NULL, hold_on, arg), 0);
    pthread_exit(NULL);
}

/*
 * The kernel tells one sleeper that the first thread has ended, and nobody when
 * the process ends. Who was told goes; the last sleeper must know by itself.
 */
WHITE_TEST(a_death_without_a_mark_wakes_whoever_sleeps)
{
    struct white_stage *stage = white_stage_new();
    struct mpr_thread *self = white_self();
    _Atomic uint32_t *bells = mpr_heap_alloc(self, 64, MPR_HAND_BLOCK);
    memset((void *)bells, 0, 64);
    atomic_store(&stage->value[0], (uintptr_t)bells);
    pid_t sleeper[SLEEPERS];
    for (uint32_t i = 0; i < SLEEPERS; i++) {
        sleeper[i] = test_fork(sleep_on_bell, stage);
        white_await(&stage->word[SLEEPS], i + 1);
    }
    pid_t holder = test_fork(leave_a_thread_behind, stage);
    white_await(&stage->word[HOLDER_TID], 1);
    test_await_state(holder, 'Z');
    for (uint32_t i = 0; i + 1 < SLEEPERS; i++) {
        white_await_asleep(sleeper[i], sleeper[i]);
        white_reach(&bells[i], 1);
        white_await(&stage->word[WOKEN], i + 1);
    }
    white_await_asleep(sleeper[SLEEPERS - 1], sleeper[SLEEPERS - 1]);
    atomic_store(&stage->word[GO], 1);
    white_kill(holder);
    white_await(&stage->word[WOKEN], SLEEPERS);
    for (uint32_t i = 0; i < SLEEPERS; i++) {
        white_kill(sleeper[i]);
    }
    return 0;
}

/* ---- deadlines -------------------------------------------------------- */

WHITE_TEST(a_passed_deadline_is_told_after_one_more_try)
{
    white_self();
    _Atomic uint32_t bell = 0;
    struct mpr_sleep sleep;
    mpr_sleep_begin(&sleep, MPROC_NOWAIT);
    assert_true(sleep.expired);
    mpr_sleep_begin(&sleep, mproc_in_ms(1));
    assert_false(sleep.expired);
    int rounds = 0;
    while (!sleep.expired) {
        mpr_sleep_on(&sleep, &bell, 0);
        rounds++;
    }
    assert_true(rounds >= 1);
    return 0;
}

/* As by a ringer that is always faster: the word is never as it was seen. */
WHITE_TEST(a_deadline_passes_though_the_bell_rings_all_the_time)
{
    white_self();
    _Atomic uint32_t bell = 1;
    struct mpr_sleep sleep;
    mproc_deadline bound = TEST_BOUND;
    mpr_sleep_begin(&sleep, mproc_in_ms(20));
    while (!sleep.expired) {
        mpr_sleep_on(&sleep, &bell, 0);
        assert_true(mpr_os_now() < bound.at_ns);
    }
    return 0;
}

static int stop_while_reaping(void *unused)
{
    (void)unused;
    struct mpr_thread *self = white_self();
    mpr_guard_lock(&mpr_family->slots_guard, self, NULL);
    raise(SIGSTOP);
    mpr_guard_unlock(&mpr_family->slots_guard, self);
    return 0;
}

WHITE_TEST(a_deadline_holds_while_a_reaper_is_stopped)
{
    struct white_stage *stage = white_stage_new();
    white_self();
    pid_t dead = test_fork(die_holding, stage);
    assert_int_equal(test_wait_exit(dead), -SIGKILL);
    pid_t stopped = test_fork(stop_while_reaping, NULL);
    int status;
    assert_int_equal(waitpid(stopped, &status, WUNTRACED), stopped);
    assert_true(WIFSTOPPED(status));
    mpr_test_deep_sleep = true;
    _Atomic uint32_t bell = 0;
    struct mpr_sleep sleep;
    mproc_deadline bound = TEST_BOUND;
    mpr_sleep_begin(&sleep, mproc_in_ms(20));
    while (!sleep.expired) {
        mpr_sleep_on(&sleep, &bell, 0);
        assert_true(mpr_os_now() < bound.at_ns);
    }
    kill(stopped, SIGCONT);
    assert_int_equal(test_wait_exit(stopped), 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_newcomer_that_dies_in_an_operation_wakes_a_sleeper),
        cmocka_unit_test(a_newcomer_that_dies_holding_wakes_a_sleeper),
        cmocka_unit_test(a_death_that_only_a_stray_was_woken_by_is_heard),
        cmocka_unit_test(a_newcomer_to_a_crowd_that_dies_wakes_a_sleeper),
        cmocka_unit_test(
            a_newcomer_to_a_crowd_that_dies_holding_wakes_a_sleeper),
        cmocka_unit_test(births_in_a_crowd_wake_nobody),
        cmocka_unit_test(
            a_death_is_told_when_the_dead_one_may_have_owed_a_wake),
        cmocka_unit_test(a_waiter_that_dies_asleep_wakes_one_of_its_kind),
        cmocka_unit_test(a_death_without_a_mark_wakes_whoever_sleeps),
        cmocka_unit_test(a_passed_deadline_is_told_after_one_more_try),
        cmocka_unit_test(a_deadline_passes_though_the_bell_rings_all_the_time),
        cmocka_unit_test(a_deadline_holds_while_a_reaper_is_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
