/* SPDX-License-Identifier: MIT */
/* The helpers themselves: each notices what it is there to notice. */
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static int give_back(void *arg)
{
    return *(int *)arg;
}

static int fail_an_expectation(void *unused)
{
    (void)unused;
    assert_non_null(freopen("/dev/null", "w", stderr)); /* it is meant */
    assert_ok(MPROC_EFULL);
    return 0;
}

static int end_by_signal(void *unused)
{
    (void)unused;
    raise(SIGKILL);
    return 0;
}

static void a_childs_result_is_its_exit_status(void **state)
{
    (void)state;
    int result = 7;
    assert_int_equal(test_wait_exit(test_fork(give_back, &result)), 7);
}

static void an_expectation_that_fails_in_a_child_is_noticed(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(fail_an_expectation, NULL)),
                     -SIGABRT);
}

static void a_signal_is_told_as_minus_its_number(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(end_by_signal, NULL)), -SIGKILL);
}

static void open_descriptors_are_counted(void **state)
{
    (void)state;
    int before = test_open_fds();
    int fd = open("/dev/null", O_RDONLY);
    assert_int_equal(test_open_fds(), before + 1);
    close(fd);
    assert_int_equal(test_open_fds(), before);
}

static int wait_for_an_end(void *unused)
{
    (void)unused;
    return pause();
}

static void the_state_of_a_process_is_told(void **state)
{
    (void)state;
    pid_t pid = test_fork(wait_for_an_end, NULL);
    test_await_state(pid, 'S');
    assert_int_equal(test_stat_of(pid).parent, getpid());
    kill(pid, SIGSTOP);
    test_await_state(pid, 'T');
    kill(pid, SIGKILL);
    test_await_state(pid, 'Z');
    assert_int_equal(test_wait_exit(pid), -SIGKILL);
    assert_int_equal(test_stat_of(pid).state, 'X');
    assert_int_equal(test_stat_of(getpid()).state, 'R');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_childs_result_is_its_exit_status),
        cmocka_unit_test(an_expectation_that_fails_in_a_child_is_noticed),
        cmocka_unit_test(a_signal_is_told_as_minus_its_number),
        cmocka_unit_test(open_descriptors_are_counted),
        cmocka_unit_test(the_state_of_a_process_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
