/* SPDX-License-Identifier: MIT */
/*
 * Queue: what dead processes had out is given back, or delivered again.
 *
 * usage: test_queue_redeliver [fifo | lifo | priority]
 */
#include "loan_support.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- deaths ----------------------------------------------------------- */

static int hold_some_of_each(void *arg)
{
    loan(arg, 64);
    loan(arg, 300 * KIB);
    take(arg);
    take(arg);
    atomic_fetch_add(ready, 1);
    return pause();
}

static void what_the_dead_had_out_is_given_back(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    mproc_heap_info before = heap_now();
    for (int round = 0; round < 3; round++) {
        put_int(q, 1);
        mproc_message m = loan(q, 300 * KIB);
        assert_ok(mproc_queue_send(q, &m));
        pid_t pid = test_fork(hold_some_of_each, q);
        await_ready(1);
        assert_true(heap_now().in_use >= before.in_use + 600 * KIB);
        assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        end_by_kill(pid);
        assert_ok(mproc_queue_join(q, TEST_BOUND));
        assert_true(mproc_queue_empty(q));
        assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
        while (heap_now().in_use >= before.in_use + 100 * KIB) {
            notice_deaths();
        }
    }
    mproc_queue_free(q);
}

enum { BACK = 60 };

static int take_half_get_half(void *arg)
{
    for (int i = 0; i < BACK / 2; i++) {
        take(arg);
        get_int(arg);
    }
    atomic_fetch_add(ready, 1);
    return pause();
}

static int take_half_get_half_and_leave(void *arg)
{
    for (int i = 0; i < BACK / 2; i++) {
        take(arg);
        get_int(arg);
    }
    return 0;
}

static void what_was_not_acknowledged_goes_back_first_in_line(void **state)
{
    (void)state;
    for (int killed = 0; killed < 2; killed++) {
        mproc_queue *q = redelivering();
        for (int i = 0; i < BACK; i++) {
            put_int(q, i);
        }
        pid_t pid = test_fork(
            killed ? take_half_get_half : take_half_get_half_and_leave, q);
        if (killed) {
            await_ready(1);
            assert_true(mproc_queue_empty(q));
            end_by_kill(pid);
        } else {
            assert_int_equal(test_wait_exit(pid), 0);
        }
        put_int(q, BACK);
        while (mproc_queue_qsize(q) == 1) {
            notice_deaths();
        }
        assert_int_equal(mproc_queue_qsize(q), BACK + 1);
        for (int i = 0; i < BACK; i++) { /* in the order of their taking */
            assert_int_equal(get_int(q),
                             order == MPROC_LIFO ? BACK - 1 - i : i);
        }
        assert_int_equal(get_int(q), BACK);
        mproc_queue_free(q);
    }
}

static int get_ten_acknowledge_four(void *arg)
{
    for (int i = 0; i < 10; i++) {
        get_int(arg);
    }
    for (int i = 0; i < 4; i++) {
        assert_ok(mproc_queue_task_done(arg));
    }
    return 0;
}

static void what_was_acknowledged_does_not_come_again(void **state)
{
    (void)state;
    mproc_queue *q = redelivering();
    int value[10];
    for (int i = 0; i < 10; i++) {
        put_int(q, i);
    }
    assert_int_equal(test_wait_exit(test_fork(get_ten_acknowledge_four, q)), 0);
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_int_equal(
        mproc_queue_get_many(q, value, sizeof *value, 10, MPROC_NOWAIT), 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(value[i], order == MPROC_LIFO ? 5 - i : 4 + i);
        assert_ok(mproc_queue_task_done(q));
    }
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    mproc_queue_free(q);
}

static int get_and_acknowledge(void *arg)
{
    int value = get_int(arg);
    assert_ok(mproc_queue_task_done(arg));
    return value;
}

static int take_and_wait(void *arg)
{
    take(arg);
    atomic_fetch_add(ready, 1);
    return pause();
}

static void who_waits_gets_what_a_dead_one_had(void **state)
{
    (void)state;
    mproc_queue *q = redelivering();
    put_int(q, 42);
    pid_t dies = test_fork(take_and_wait, q);
    await_ready(1);
    pid_t waits = fork_asleep(get_and_acknowledge, q);
    pid_t joiner = fork_asleep(blocked_join, q);
    end_by_kill(dies);
    assert_int_equal(test_wait_exit(waits), 42);
    assert_int_equal(test_wait_exit(joiner), 0);
    mproc_queue_free(q);
}

static void once_a_death_is_known_the_size_counts_it(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(
        &(mproc_queue_opts){.maxsize = 1, .joinable = 1, .redeliver = 1});
    put_int(q, 1);
    pid_t dies = test_fork(take_and_wait, q);
    await_ready(1);
    assert_int_equal(mproc_queue_qsize(q), 0);
    put_int(q, 2);
    end_by_kill(dies);
    while (mproc_queue_qsize(q) == 1) {
        notice_deaths();
    }
    assert_int_equal(mproc_queue_qsize(q), 2);
    assert_true(mproc_queue_full(q));
    int value = 3;
    assert_int_equal(get_int(q), 1);
    assert_err(mproc_queue_put(q, &value, sizeof value, MPROC_NOWAIT),
               MPROC_EFULL);
    assert_int_equal(get_int(q), 2);
    assert_true(mproc_queue_empty(q));
    put_int(q, 3);
    mproc_queue_free(q);
}

static void
a_message_that_may_come_again_is_acknowledged_by_its_own(void **state)
{
    (void)state;
    mproc_queue *q = redelivering();
    put_int(q, 1);
    get_int(q);
    assert_int_equal(test_wait_exit(test_fork(acknowledge_anothers, q)),
                     as_status(MPROC_EINVAL));
    assert_ok(mproc_queue_task_done(q));
    mproc_queue_free(q);
}

static void what_does_not_fit_stays_first_when_it_comes_again(void **state)
{
    (void)state;
    mproc_queue *q = redelivering();
    char small[4], large[2000];
    size_t size;
    assert_ok(mproc_queue_put(q, large, sizeof large, MPROC_NOWAIT));
    pid_t dies = test_fork(take_and_wait, q);
    await_ready(1);
    end_by_kill(dies);
    assert_err(mproc_queue_get(q, small, sizeof small, &size, MPROC_NOWAIT),
               MPROC_EMSGSIZE);
    assert_int_equal(size, sizeof large);
    assert_int_equal(mproc_queue_qsize(q), 1);
    assert_ok(mproc_queue_get(q, large, sizeof large, NULL, MPROC_NOWAIT));
    mproc_queue_free(q);
}

static void a_shutdown_drops_what_comes_again(void **state)
{
    (void)state;
    for (int immediate = 0; immediate < 2; immediate++) {
        mproc_queue *q = redelivering();
        put_int(q, 1);
        pid_t dies = test_fork(take_and_wait, q);
        await_ready(1);
        assert_ok(mproc_queue_shutdown(q, immediate));
        mproc_message m;
        assert_err(mproc_queue_take(q, &m, MPROC_NOWAIT), MPROC_ESHUTDOWN);
        pid_t joiner = fork_asleep(blocked_join, q);
        end_by_kill(dies);
        if (!immediate) {
            m = take(q);
            assert_int_equal(value_of(&m), 1);
            mproc_message_release(&m);
        }
        assert_int_equal(test_wait_exit(joiner), 0);
        assert_err(mproc_queue_take(q, &m, MPROC_NOWAIT), MPROC_ESHUTDOWN);
        mproc_queue_free(q);
    }
}

/* ---- a crowd ---------------------------------------------------------- */

enum { WORKERS = 4, TASKS = 400 };

static atomic_int *done; /* shared: how often each task was */

static int work(void *arg)
{
    mproc_message m;
    while (mproc_queue_take(arg, &m, TEST_BOUND) == 0) {
        int task = value_of(&m);
        if (task % 50 == 7 && atomic_fetch_add(&done[TASKS + task], 1) == 0) {
            raise(SIGKILL); /* the first who has it */
        }
        atomic_fetch_add(&done[task], 1);
        mproc_message_release(&m);
    }
    return 0;
}

static void each_task_is_done_whoever_dies(void **state)
{
    (void)state;
    mproc_queue *q = redelivering();
    done = mproc_calloc(2 * TASKS, sizeof *done);
    for (int i = 0; i < TASKS; i++) {
        send_int(q, i);
    }
    int running = 0, deaths = 0, status;
    for (; running < WORKERS; running++) {
        test_fork(work, q);
    }
    while (deaths < TASKS / 50) {
        assert_true(wait(&status) > 0);
        assert_true(WIFSIGNALED(status));
        deaths++;
        test_fork(work, q);
    }
    assert_ok(mproc_queue_join(q, TEST_BOUND));
    assert_ok(mproc_queue_shutdown(q, false));
    while (running-- > 0) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    for (int i = 0; i < TASKS; i++) {
        assert_int_equal(done[i], 1);
    }
    mproc_free(done);
    mproc_queue_free(q);
}

int main(int argc, char **argv)
{
    if (!order_is_read(argc, argv)) {
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_dead_had_out_is_given_back),
        cmocka_unit_test(what_was_not_acknowledged_goes_back_first_in_line),
        cmocka_unit_test(what_was_acknowledged_does_not_come_again),
        cmocka_unit_test(who_waits_gets_what_a_dead_one_had),
        cmocka_unit_test(once_a_death_is_known_the_size_counts_it),
        cmocka_unit_test(
            a_message_that_may_come_again_is_acknowledged_by_its_own),
        cmocka_unit_test(what_does_not_fit_stays_first_when_it_comes_again),
        cmocka_unit_test(a_shutdown_drops_what_comes_again),
        cmocka_unit_test(each_task_is_done_whoever_dies),
        cmocka_unit_test(nothing_is_left),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
