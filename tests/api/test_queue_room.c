/* SPDX-License-Identifier: MIT */
/*
 * Queue: full ones, empty ones, and those who wait for either to pass.
 *
 * usage: test_queue_room [fifo | lifo | priority]
 */
#include "queue_support.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- room ------------------------------------------------------------- */

static void a_full_queue_refuses_at_once_or_after_the_time(void **state)
{
    (void)state;
    mproc_queue *q = bounded(2);
    put_int(q, 1);
    assert_false(mproc_queue_full(q));
    put_int(q, 2);
    assert_true(mproc_queue_full(q));
    int third = 3;
    assert_err(mproc_queue_put(q, &third, sizeof third, MPROC_NOWAIT),
               MPROC_EFULL);
    double begin = seconds();
    assert_err(mproc_queue_put(q, &third, sizeof third, mproc_in_ms(30)),
               MPROC_EFULL);
    assert_true(seconds() - begin >= 0.03);
    assert_err(mproc_queue_putf(q, MPROC_NOWAIT, "three"), MPROC_EFULL);
    assert_int_equal(mproc_queue_qsize(q), 2);
    assert_int_equal(get_int(q), 1);
    assert_ok(mproc_queue_put(q, &third, sizeof third, MPROC_NOWAIT));
    assert_int_equal(get_int(q), 2);
    assert_int_equal(get_int(q), 3);
    mproc_queue_free(q);
}

static void an_empty_queue_refuses_at_once_or_after_the_time(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    int value = 5;
    size_t size = 6;
    assert_err(mproc_queue_get(q, &value, sizeof value, &size, MPROC_NOWAIT),
               MPROC_EEMPTY);
    double begin = seconds();
    assert_err(mproc_queue_get(q, &value, sizeof value, &size, mproc_in_ms(30)),
               MPROC_EEMPTY);
    assert_true(seconds() - begin >= 0.03);
    assert_int_equal(value, 5);
    assert_int_equal(size, 6);
    mproc_queue_free(q);
}

static void a_blocked_put_goes_on_after_a_get(void **state)
{
    (void)state;
    mproc_queue *q = bounded(1);
    put_int(q, 1);
    pid_t pid = fork_asleep(blocked_put, q);
    assert_int_equal(get_int(q), 1);
    assert_int_equal(test_wait_exit(pid), 0);
    assert_int_equal(get_int(q), 7);
    mproc_queue_free(q);
}

static void a_blocked_get_goes_on_after_a_put(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    pid_t first = fork_asleep(blocked_get, q);
    pid_t second = fork_asleep(blocked_get, q);
    put_int(q, 1);
    put_int(q, 2);
    assert_int_equal(test_wait_exit(first), 0);
    assert_int_equal(test_wait_exit(second), 0);
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
}

static void without_a_limit_it_is_never_full(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    for (int i = 0; i < 20000; i++) {
        assert_ok(mproc_queue_put(q, &i, sizeof i, MPROC_NOWAIT));
        assert_false(mproc_queue_full(q));
    }
    assert_int_equal(mproc_queue_qsize(q), 20000);
    for (int i = 0; i < 20000; i++) {
        assert_int_equal(get_int(q), i);
    }
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
}

static void it_tells_how_much_is_in_it_at_each_step(void **state)
{
    (void)state;
    mproc_queue *q = bounded(3);
    for (int round = 0; round < 300; round++) {
        for (size_t n = 0; n <= 3; n++) {
            assert_int_equal(mproc_queue_qsize(q), n);
            assert_int_equal(mproc_queue_empty(q), n == 0);
            assert_int_equal(mproc_queue_full(q), n == 3);
            if (n < 3) {
                put_int(q, (int)n);
            }
        }
        for (size_t n = 3; n > 0; n--) {
            assert_int_equal(mproc_queue_qsize(q), n);
            get_int(q);
        }
    }
    mproc_queue_free(q);
}

/*
 * Who holds what it locks may be off the processor for long; only then a call
 * without waiting may take as long as that and say no.
 */
static void expect_at_once(int err, double begin)
{
    if (seconds() - begin < 0.09) {
        assert_ok(err);
    }
}

/*
 * Each has at most one message in it: there is always room for one's own, and
 * always something to take after it.
 */
static int put_and_get_at_once(void *arg)
{
    for (int i = 0; i < 30000; i++) {
        double begin = seconds();
        int err = mproc_queue_put(arg, &i, sizeof i, MPROC_NOWAIT), got;
        expect_at_once(err, begin);
        begin = seconds();
        if (err == 0) {
            err = mproc_queue_get(arg, &got, sizeof got, NULL, MPROC_NOWAIT);
            expect_at_once(err, begin);
            if (err < 0) {
                get_int(arg);
            }
        }
    }
    return 0;
}

static void it_is_full_or_empty_only_when_it_is(void **state)
{
    (void)state;
    mproc_queue *q = bounded(3);
    pid_t pid[3];
    for (int i = 0; i < 3; i++) {
        pid[i] = test_fork(put_and_get_at_once, q);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(test_wait_exit(pid[i]), 0);
    }
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
}

/* The put wakes the first of them, who cannot take it and passes it on. */
static int get_one_byte(void *arg)
{
    char byte;
    return as_status(mproc_queue_get(arg, &byte, 1, NULL, MPROC_FOREVER));
}

static void a_getter_it_does_not_fit_wakes_the_next(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    pid_t small = fork_asleep(get_one_byte, q);
    pid_t large = fork_asleep(blocked_get, q);
    assert_ok(mproc_queue_put(q, "0123456789", 10, MPROC_NOWAIT));
    assert_int_equal(test_wait_exit(large), 0);
    /* it was asleep all the time, or woken and told the size */
    assert_ok(mproc_queue_put(q, "0123456789", 10, MPROC_NOWAIT));
    assert_int_equal(test_wait_exit(small), WAS_TOO_LARGE);
    mproc_queue_free(q);
}

/* ---- waits ------------------------------------------------------------ */

static _Atomic int *signals;

static void count_signal(int signal)
{
    (void)signal;
    atomic_fetch_add(signals, 1);
}

static void storm(void)
{
    const struct sigaction action = {.sa_handler = count_signal};
    const struct itimerval each_ms = {{0, 1000}, {0, 1000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &each_ms, NULL);
}

static int get_in_a_storm(void *arg)
{
    storm();
    return blocked_get(arg);
}

static int put_in_a_storm(void *arg)
{
    storm();
    return blocked_put(arg);
}

static int join_in_a_storm(void *arg)
{
    storm();
    return blocked_join(arg);
}

static void await_signals(pid_t pid)
{
    double until = seconds() + 30;
    int seen = atomic_load(signals);
    while (atomic_load(signals) < seen + 100) { /* over the first 50 ms */
        assert_true(seconds() < until);
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        usleep(1000);
    }
}

static void signals_do_not_end_a_wait(void **state)
{
    (void)state;
    mproc_queue *q =
        new_queue(&(mproc_queue_opts){.maxsize = 1, .joinable = 1});
    signals = mproc_calloc(1, sizeof *signals);
    pid_t getter = test_fork(get_in_a_storm, q);
    await_signals(getter);
    put_int(q, 1);
    assert_int_equal(test_wait_exit(getter), 0);

    put_int(q, 1);
    pid_t putter = test_fork(put_in_a_storm, q);
    await_signals(putter);
    get_int(q);
    assert_int_equal(test_wait_exit(putter), 0);
    get_int(q);

    pid_t joiner = test_fork(join_in_a_storm, q);
    await_signals(joiner);
    assert_ok(mproc_queue_task_done(q));
    assert_ok(mproc_queue_task_done(q));
    assert_int_equal(test_wait_exit(joiner), 0);
    mproc_free(signals);
    mproc_queue_free(q);
}

int main(int argc, char **argv)
{
    if (!order_is_read(argc, argv)) {
        return 2;
    }
    const struct CMUnitTest first_come_first_served[] = {
        cmocka_unit_test(a_full_queue_refuses_at_once_or_after_the_time),
        cmocka_unit_test(without_a_limit_it_is_never_full),
    };
    const struct CMUnitTest in_any_order[] = {
        cmocka_unit_test(an_empty_queue_refuses_at_once_or_after_the_time),
        cmocka_unit_test(a_blocked_put_goes_on_after_a_get),
        cmocka_unit_test(a_blocked_get_goes_on_after_a_put),
        cmocka_unit_test(it_tells_how_much_is_in_it_at_each_step),
        cmocka_unit_test(it_is_full_or_empty_only_when_it_is),
        cmocka_unit_test(a_getter_it_does_not_fit_wakes_the_next),
        cmocka_unit_test(signals_do_not_end_a_wait),
        cmocka_unit_test(nothing_is_left_of_it_all),
    };
    return run_in_order(first_come_first_served, in_any_order);
}
