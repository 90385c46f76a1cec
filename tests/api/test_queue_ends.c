/* SPDX-License-Identifier: MIT */
/*
 * Queue: shutting down, joining, the deaths of its users, its own end.
 *
 * usage: test_queue_ends [fifo | lifo | priority]
 */
#include "queue_support.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- shutting down ---------------------------------------------------- */

static void a_shutdown_lets_the_rest_be_got(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    put_int(q, 1);
    put_int(q, 2);
    assert_ok(mproc_queue_shutdown(q, false));
    assert_ok(mproc_queue_shutdown(q, false));
    assert_err(mproc_queue_put(q, "", 1, MPROC_FOREVER), MPROC_ESHUTDOWN);
    assert_err(mproc_queue_putf(q, MPROC_FOREVER, "x"), MPROC_ESHUTDOWN);
    assert_int_equal(mproc_queue_qsize(q), 2);
    assert_int_equal(get_int(q), 1);
    assert_int_equal(get_int(q), 2);
    int value;
    void *data;
    assert_err(mproc_queue_get(q, &value, sizeof value, NULL, MPROC_FOREVER),
               MPROC_ESHUTDOWN);
    assert_err(mproc_queue_get_malloc(q, &data, NULL, MPROC_FOREVER),
               MPROC_ESHUTDOWN);
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_ok(mproc_queue_task_done(q));
    assert_ok(mproc_queue_task_done(q));
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    mproc_queue_free(q);
}

static void a_shutdown_at_once_drops_the_rest(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    put_int(q, 1);
    put_int(q, 2);
    put_int(q, 3);
    assert_int_equal(get_int(q), 1);
    pid_t joiner = fork_asleep(blocked_join, q);
    assert_ok(mproc_queue_shutdown(q, true));
    assert_int_equal(mproc_queue_qsize(q), 0);
    int value;
    assert_err(mproc_queue_get(q, &value, sizeof value, NULL, MPROC_FOREVER),
               MPROC_ESHUTDOWN);
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_ok(mproc_queue_task_done(q));
    assert_int_equal(test_wait_exit(joiner), 0);
    mproc_queue_free(q);
}

static void a_shutdown_ends_the_waits(void **state)
{
    (void)state;
    for (int immediate = 0; immediate < 2; immediate++) {
        mproc_queue *empty = new_queue(NULL), *full = bounded(1);
        mproc_queue *unfinished = joinable();
        pid_t child[5];
        put_int(full, 1);
        put_int(unfinished, 1);
        child[0] = fork_asleep(blocked_get, empty);
        child[1] = fork_asleep(blocked_get, empty);
        child[2] = fork_asleep(blocked_put, full);
        child[3] = fork_asleep(blocked_put, full);
        child[4] = fork_asleep(blocked_join, unfinished);
        assert_ok(mproc_queue_shutdown(empty, immediate));
        assert_ok(mproc_queue_shutdown(full, immediate));
        assert_ok(mproc_queue_shutdown(unfinished, true));
        for (int i = 0; i < 4; i++) {
            assert_int_equal(test_wait_exit(child[i]), WAS_SHUT_DOWN);
        }
        assert_int_equal(test_wait_exit(child[4]), 0);
        assert_int_equal(mproc_queue_qsize(full), immediate ? 0 : 1);
        mproc_queue_free(empty);
        mproc_queue_free(full);
        mproc_queue_free(unfinished);
    }
}

/* ---- joining ---------------------------------------------------------- */

static void join_waits_until_all_is_acknowledged(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    for (int i = 0; i < 200; i++) {
        put_int(q, i);
    }
    pid_t joiner = fork_asleep(blocked_join, q);
    for (int i = 0; i < 200; i++) {
        assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        assert_int_equal(get_int(q), i);
    }
    assert_err(mproc_queue_join(q, mproc_in_ms(5)), MPROC_ETIMEDOUT);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(waitpid(joiner, NULL, WNOHANG), 0);
        assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        assert_ok(mproc_queue_task_done(q));
    }
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    assert_ok(mproc_queue_join(q, MPROC_FOREVER));
    assert_int_equal(test_wait_exit(joiner), 0);
    mproc_queue_free(q);
}

static void more_task_done_than_messages_is_refused(void **state)
{
    (void)state;
    mproc_queue *q = joinable(), *plain = new_queue(NULL);
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    put_int(q, 1);
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    get_int(q);
    assert_ok(mproc_queue_task_done(q));
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));

    put_int(plain, 1);
    get_int(plain);
    assert_err(mproc_queue_task_done(plain), MPROC_EINVAL);
    assert_err(mproc_queue_join(plain, MPROC_FOREVER), MPROC_EINVAL);
    mproc_queue_free(plain);
    mproc_queue_free(q);
}

static void anyone_may_acknowledge(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    put_int(q, 1);
    get_int(q);
    assert_int_equal(test_wait_exit(test_fork(acknowledge_anothers, q)), 0);
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    mproc_queue_free(q);
}

static int take_and_wait_for_the_end(void *arg)
{
    get_int(arg);
    return pause();
}

static int take_and_leave(void *arg)
{
    get_int(arg);
    return 0;
}

static void what_a_dead_consumer_had_counts_as_done(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    put_int(q, 1);
    pid_t consumer = test_fork(take_and_wait_for_the_end, q);
    while (!mproc_queue_empty(q)) {
        usleep(200);
    }
    pid_t joiner = fork_asleep(blocked_join, q);
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    end_by_kill(consumer);
    assert_ok(mproc_queue_join(q, TEST_BOUND));
    assert_int_equal(test_wait_exit(joiner), 0);

    put_int(q, 2);
    assert_int_equal(test_wait_exit(test_fork(take_and_leave, q)), 0);
    assert_ok(mproc_queue_join(q, TEST_BOUND));
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    mproc_queue_free(q);
}

static void notes_of_who_took_what_do_not_pile_up(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    put_int(q, 0);
    assert_int_equal(test_wait_exit(test_fork(take_and_leave, q)), 0);
    put_int(q, 0);
    pid_t slow = test_fork(take_and_wait_for_the_end, q);
    while (!mproc_queue_empty(q)) {
        usleep(200);
    }
    size_t before = heap_now().in_use;
    for (int i = 0; i < 20000; i++) {
        put_int(q, i);
        get_int(q);
        assert_ok(mproc_queue_task_done(q));
    }
    assert_true(heap_now().in_use < before + 100 * KIB);
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    end_by_kill(slow);
    assert_ok(mproc_queue_join(q, TEST_BOUND));
    mproc_queue_free(q);
}

/* ---- deaths ----------------------------------------------------------- */

static int put_without_end(void *arg)
{
    static char data[3000];
    int err = 0;
    for (int i = 0; err == 0; i++) {
        memcpy(data, &i, sizeof i);
        err =
            mproc_queue_put(arg, data, i % 2 ? 4 : sizeof data, MPROC_FOREVER);
    }
    return as_status(err);
}

static int get_without_end(void *arg)
{
    static char data[3000];
    size_t size;
    int err = 0;
    while (err == 0) {
        err = mproc_queue_get(arg, data, sizeof data, &size, MPROC_FOREVER);
    }
    return as_status(err);
}

static void killed_users_leave_it_good(void **state)
{
    (void)state;
    mproc_queue *q = bounded(10);
    static char data[3000];
    for (int round = 0; round < 30; round++) {
        pid_t putter = test_fork(put_without_end, q);
        pid_t getter = test_fork(get_without_end, q);
        size_t size;
        for (int i = 0; i < 20 + round; i++) {
            assert_ok(mproc_queue_get(q, data, sizeof data, &size, TEST_BOUND));
        }
        end_by_kill(putter);
        end_by_kill(getter);
        while (mproc_queue_get(q, data, sizeof data, &size, MPROC_NOWAIT) ==
               0) {
        }
        assert_true(mproc_queue_empty(q));
        put_int(q, round);
        assert_int_equal(get_int(q), round);
    }
    mproc_queue_free(q);
}

/* ---- ends ------------------------------------------------------------- */

static void who_waits_for_a_freed_queue_is_told(void **state)
{
    (void)state;
    mproc_queue *q =
        new_queue(&(mproc_queue_opts){.maxsize = 1, .joinable = 1});
    mproc_queue *empty = new_queue(NULL);
    put_int(q, 1);
    pid_t child[] = {fork_asleep(blocked_put, q), fork_asleep(blocked_join, q),
                     fork_asleep(blocked_get, empty)};
    mproc_queue_free(q);
    mproc_queue_free(empty);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(test_wait_exit(child[i]), WAS_INVALID);
    }
}

/* Stopped while the queue is freed, they wake when another has its place. */
static void who_waited_for_a_freed_queue_does_not_use_the_next(void **state)
{
    (void)state;
    const mproc_queue_opts opts = {.maxsize = 1, .joinable = 1};
    mproc_queue *full = new_queue(&opts), *empty = new_queue(&opts);
    mproc_queue *unfinished = new_queue(&opts);
    put_int(full, 1);
    put_int(unfinished, 1);
    pid_t child[] = {fork_asleep(blocked_put, full),
                     fork_asleep(blocked_get, empty),
                     fork_asleep(blocked_join, unfinished)};
    for (int i = 0; i < 3; i++) {
        kill(child[i], SIGSTOP);
        test_await_state(child[i], 'T');
    }
    mproc_queue_free(unfinished);
    mproc_queue_free(empty);
    mproc_queue_free(full);
    mproc_queue *next[3];
    for (int i = 0; i < 3; i++) {
        next[i] = new_queue(&opts);
    }
    assert_ptr_equal(next[0], full); /* or nothing is tested */
    assert_ptr_equal(next[1], empty);
    put_int(next[1], 5);
    for (int i = 0; i < 3; i++) {
        kill(child[i], SIGCONT);
        assert_int_equal(test_wait_exit(child[i]), WAS_INVALID);
    }
    assert_int_equal(mproc_queue_qsize(next[0]), 0);
    assert_int_equal(mproc_queue_qsize(next[1]), 1);
    for (int i = 0; i < 3; i++) {
        mproc_queue_free(next[i]);
    }
}

int main(int argc, char **argv)
{
    if (!order_is_read(argc, argv)) {
        return 2;
    }
    const struct CMUnitTest first_come_first_served[] = {
        cmocka_unit_test(a_shutdown_lets_the_rest_be_got),
        cmocka_unit_test(a_shutdown_at_once_drops_the_rest),
        cmocka_unit_test(join_waits_until_all_is_acknowledged),
    };
    const struct CMUnitTest in_any_order[] = {
        cmocka_unit_test(a_shutdown_ends_the_waits),
        cmocka_unit_test(more_task_done_than_messages_is_refused),
        cmocka_unit_test(anyone_may_acknowledge),
        cmocka_unit_test(what_a_dead_consumer_had_counts_as_done),
        cmocka_unit_test(notes_of_who_took_what_do_not_pile_up),
        cmocka_unit_test(killed_users_leave_it_good),
        cmocka_unit_test(who_waits_for_a_freed_queue_is_told),
        cmocka_unit_test(who_waited_for_a_freed_queue_does_not_use_the_next),
        cmocka_unit_test(nothing_is_left_of_it_all),
    };
    return run_in_order(first_come_first_served, in_any_order);
}
