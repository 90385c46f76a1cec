/* SPDX-License-Identifier: MIT */
/*
 * What the dead had out comes back also when it could not at their death,
 * since somebody who was stopped had the guard; nor is a wake lost then.
 */
#include "test.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <mproc/queue.h>
#include <mproc/wait.h>

#include "base/deadline.h"
#include "chan/queue.h"
#include "chan/record.h"

static mproc_queue *q, *answers, *go;

static struct mpr_thread *self(void)
{
    struct mpr_thread *thread;
    assert_ok(mpr_self(&thread));
    return thread;
}

static void set_up(mproc_queue_opts opts)
{
    assert_ok(mproc_queue_new(&q, &opts));
    assert_ok(mproc_queue_new(&answers, NULL));
    assert_ok(mproc_queue_new(&go, NULL));
}

static int answer(int value)
{
    return mproc_queue_put(answers, &value, sizeof value, MPROC_NOWAIT) != 0;
}

/* What one of the children says. */
static int hear(void)
{
    int value = 1;
    assert_ok(mproc_queue_get(answers, &value, sizeof value, NULL, TEST_BOUND));
    return value;
}

/* ---- the children ----------------------------------------------------- */

static int get_and_stay(void *arg)
{
    char byte;
    (void)arg;
    answer(mproc_queue_get(q, &byte, 1, NULL, TEST_BOUND));
    pause();
    return 0;
}

static int loan_and_stay(void *arg)
{
    mproc_message m;
    (void)arg;
    answer(mproc_queue_loan(q, &m, 1, TEST_BOUND));
    pause();
    return 0;
}

static int get_one(void *arg)
{
    char byte;
    (void)arg;
    return answer(mproc_queue_get(q, &byte, 1, NULL, MPROC_FOREVER));
}

static int put_one(void *arg)
{
    (void)arg;
    return answer(mproc_queue_put(q, "b", 1, MPROC_FOREVER));
}

static int wait_for_one(void *arg)
{
    (void)arg;
    const mproc_waitable what = mproc_waitable_queue(q);
    return answer(mproc_wait(&what, 1, NULL, MPROC_FOREVER));
}

static int join_all(void *arg)
{
    (void)arg;
    return answer(mproc_queue_join(q, MPROC_FOREVER));
}

/* As one who is stopped in there, and lives on. */
static int stay_in_guard(void *guard)
{
    char byte;
    mpr_guard_lock(guard, self(), self());
    answer(0);
    int err = mproc_queue_get(go, &byte, 1, NULL, TEST_BOUND);
    mpr_guard_unlock(guard, self());
    pause();
    return err;
}

/* ---- a death while the guard is held ---------------------------------- */

static void sleep_until_asleep(_Atomic uint32_t *bell)
{
    while (!(atomic_load(bell) & (MPR_BELL_WAITERS | MPR_BELL_MANY))) {
        mpr_os_wait(bell, atomic_load(bell),
                    mpr_deadline_after(mpr_os_now(), 1, 1e6));
    }
}

/* Without a deadline of their own they wait 100 ms for a guard. */
static void wait_longer_than_any_who_may_not(void)
{
    _Atomic uint32_t never = 0;
    mpr_os_wait(&never, 0, mpr_deadline_after(mpr_os_now(), 400, 1e6));
}

/*
 * `has` takes something and is killed, while `wants` waits for it, and nobody
 * can give it back until the death has been told to all.
 */
static void kill_behind_guard(int (*has)(void *), int (*wants)(void *),
                              struct mpr_guard *guard, _Atomic uint32_t *bell,
                              bool drop)
{
    pid_t victim = test_fork(has, NULL);
    assert_int_equal(hear(), 0);
    if (drop) {
        assert_ok(mproc_queue_shutdown(q, true));
    }
    pid_t waiter = test_fork(wants, NULL);
    sleep_until_asleep(bell);
    uint32_t deaths = atomic_load(&mpr_family->deaths);
    pid_t stopped = test_fork(stay_in_guard, guard);
    assert_int_equal(hear(), 0);
    kill(victim, SIGKILL);
    assert_int_equal(test_wait_exit(victim), -SIGKILL);
    while (atomic_load(&mpr_family->deaths) == deaths) {
        mpr_slots_reap(self());
    }
    wait_longer_than_any_who_may_not();
    assert_ok(mproc_queue_put(go, "g", 1, MPROC_NOWAIT));
    int outcome = -1;
    int err = mproc_queue_get(answers, &outcome, sizeof outcome, NULL,
                              mproc_in_s(10));
    kill(waiter, SIGKILL);
    kill(stopped, SIGKILL);
    test_wait_exit(waiter);
    test_wait_exit(stopped);
    assert_ok(err);
    assert_int_equal(outcome, 0);
    mproc_queue_free(q);
    mproc_queue_free(go);
    mproc_queue_free(answers);
}

static const mproc_queue_opts redelivering = {.joinable = 1, .redeliver = 1};

static void test_a_message_comes_back(void **state)
{
    (void)state;
    set_up(redelivering);
    assert_ok(mproc_queue_put(q, "a", 1, MPROC_NOWAIT));
    kill_behind_guard(get_and_stay, get_one, &q->log.head.guard, &q->log.items,
                      false);
}

static void test_who_waits_for_many_sees_it(void **state)
{
    (void)state;
    set_up(redelivering);
    assert_ok(mproc_queue_put(q, "a", 1, MPROC_NOWAIT));
    kill_behind_guard(get_and_stay, wait_for_one, &q->log.head.guard,
                      &q->log.items, false);
}

static void test_what_was_dropped_is_joined(void **state)
{
    (void)state;
    set_up(redelivering);
    assert_ok(mproc_queue_put(q, "a", 1, MPROC_NOWAIT));
    kill_behind_guard(get_and_stay, join_all, &q->log.head.guard, &q->done,
                      true);
}

static void test_a_place_comes_back(void **state)
{
    (void)state;
    set_up((mproc_queue_opts){.maxsize = 1});
    kill_behind_guard(loan_and_stay, put_one, &q->log.tail.guard, &q->log.space,
                      false);
}

/* ---- a wake that came too late ---------------------------------------- */

static int get_within_a_second(void *arg)
{
    char byte;
    (void)arg;
    answer(mproc_queue_get(q, &byte, 1, NULL, mproc_in_ms(1000)));
    pause(); /* its end would wake the other */
    return 0;
}

/*
 * The first of two sleepers is woken for the message and finds the guard held
 * until its deadline: then the message is the other's.
 */
static void test_a_wake_is_passed_on(void **state)
{
    (void)state;
    set_up((mproc_queue_opts){0});
    pid_t first = test_fork(get_within_a_second, NULL);
    sleep_until_asleep(&q->log.items);
    pid_t other = test_fork(get_one, NULL);
    wait_longer_than_any_who_may_not();
    pid_t stopped = test_fork(stay_in_guard, &q->log.head.guard);
    assert_int_equal(hear(), 0);
    assert_ok(mproc_queue_put(q, "a", 1, MPROC_NOWAIT));
    assert_int_equal(hear(), MPROC_EEMPTY);
    assert_ok(mproc_queue_put(go, "g", 1, MPROC_NOWAIT));
    int outcome = -1;
    int err = mproc_queue_get(answers, &outcome, sizeof outcome, NULL,
                              mproc_in_s(10));
    kill(first, SIGKILL);
    kill(other, SIGKILL);
    kill(stopped, SIGKILL);
    test_wait_exit(first);
    test_wait_exit(other);
    test_wait_exit(stopped);
    assert_ok(err);
    assert_int_equal(outcome, 0);
    mproc_queue_free(q);
    mproc_queue_free(go);
    mproc_queue_free(answers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_comes_back),
        cmocka_unit_test(test_who_waits_for_many_sees_it),
        cmocka_unit_test(test_what_was_dropped_is_joined),
        cmocka_unit_test(test_a_place_comes_back),
        cmocka_unit_test(test_a_wake_is_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
