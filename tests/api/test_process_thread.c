/* SPDX-License-Identifier: MIT */
/* Processes that are threads: what they have of their own. */
#include "test.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const mproc_process_opts by_thread = {.start = MPROC_START_THREAD};

static mproc_process *started(mproc_main_fn *fn, void *arg)
{
    mproc_process *p;
    assert_ok(mproc_process_new(&p, fn, arg, &by_thread));
    assert_ok(mproc_process_start(p));
    return p;
}

static int code_of(mproc_process *p)
{
    int code = 12345;
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_ok(mproc_process_exitcode(p, &code));
    mproc_process_free(p);
    return code;
}

/* What makes a thread wait until the test says so. */
struct gate {
    mproc_event *open;
    mproc_process *itself;
    int result;
};

static struct gate *gate_new(void)
{
    static struct gate gate;
    gate = (struct gate){.result = -1};
    assert_ok(mproc_event_new(&gate.open));
    return &gate;
}

static int waits_at_gate(void *arg)
{
    const struct gate *gate = arg;
    return mproc_event_wait(gate->open, TEST_BOUND) == 0 ? 5 : 6;
}

static int opened(struct gate *gate, mproc_process *p)
{
    assert_ok(mproc_event_set(gate->open));
    int code = code_of(p);
    mproc_event_free(gate->open);
    return code;
}

static int counts(void *arg)
{
    ++*(int *)arg;
    return getpid() == mproc_process_pid(mproc_process_current()) ? 7 : 8;
}

static void it_runs_in_the_memory_of_its_maker(void **state)
{
    (void)state;
    int count = 0;
    mproc_process *p = started(counts, &count);
    assert_int_equal(mproc_process_pid(p), getpid());
    assert_int_equal(code_of(p), 7);
    assert_int_equal(count, 1);
}

static int leaves_by_pthread_exit(void *arg)
{
    pthread_exit(arg);
}

static void pthread_exit_is_an_end_with_code_0(void **state)
{
    (void)state;
    assert_int_equal(code_of(started(leaves_by_pthread_exit, "")), 0);
}

static void signals_to_it_are_not_supported(void **state)
{
    (void)state;
    struct gate *gate = gate_new();
    mproc_process *p = started(waits_at_gate, gate);
    assert_err(mproc_process_terminate(p), MPROC_ENOTSUP);
    assert_err(mproc_process_kill(p), MPROC_ENOTSUP);
    assert_err(mproc_process_interrupt(p), MPROC_ENOTSUP);
    assert_true(mproc_process_is_alive(p));
    assert_int_equal(opened(gate, p), 5);
}

static int looks_at_itself(void *arg)
{
    struct gate *gate = arg;
    int code;
    if (mproc_event_wait(gate->open, TEST_BOUND) != 0) {
        return 6;
    }
    mproc_process *me = mproc_process_current();
    bool right = me == gate->itself && mproc_process_is_alive(me) &&
                 mproc_process_join(me, MPROC_NOWAIT) == MPROC_EDEADLK &&
                 mproc_process_exitcode(me, &code) == MPROC_EAGAIN &&
                 mproc_process_parent_pid() == getpid() &&
                 strncmp(mproc_process_name(me), "Process-", 8) == 0;
    return right ? 5 : 7;
}

static void current_is_the_thread_in_it_and_not_elsewhere(void **state)
{
    (void)state;
    struct gate *gate = gate_new();
    mproc_process *me = mproc_process_current();
    gate->itself = started(looks_at_itself, gate);
    assert_ptr_equal(mproc_process_current(), me);
    assert_int_equal(opened(gate, gate->itself), 5);
    assert_ptr_equal(mproc_process_current(), me);
}

static int names_its_child(void *arg)
{
    mproc_process *child;
    char expected[100];
    const char *name = mproc_process_name(mproc_process_current());
    if (mproc_process_new(&child, counts, arg, &by_thread) != 0) {
        return 1;
    }
    snprintf(expected, sizeof expected, "%s:1", name);
    bool right =
        strncmp(mproc_process_name(child), expected, strlen(expected)) == 0;
    mproc_process_free(child);
    return right ? 5 : 2;
}

static int forks_and_asks(void *arg)
{
    pid_t thread_of = getpid();
    (void)arg;
    pid_t pid = fork();
    if (pid == 0) {
        mproc_process *me = mproc_process_current();
        _exit(mproc_process_pid(me) == getpid() &&
                      strcmp(mproc_process_name(me), "MainProcess") == 0 &&
                      mproc_process_parent_pid() == thread_of &&
                      mproc_active_children(NULL, 0) == 0
                  ? 5
                  : 6);
    }
    return test_wait_exit(pid);
}

static void a_fork_of_the_thread_is_a_process(void **state)
{
    (void)state;
    assert_int_equal(code_of(started(forks_and_asks, NULL)), 5);
}

/* A plain fork whose copy of the thread goes on to the thread's end. */
static int forks_and_returns(void *arg)
{
    *(pid_t *)arg = fork();
    return 5;
}

static void a_fork_of_the_thread_ends_as_a_process_does(void **state)
{
    (void)state;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    skip(); /* such a process never ends, or leaks what its threads had */
#endif
    pid_t pid = -1;
    assert_int_equal(code_of(started(forks_and_returns, &pid)), 5);
    assert_int_equal(test_wait_exit(pid), 0);
}

static int is_freed_while_it_runs(void *arg)
{
    struct gate *gate = arg;
    if (mproc_event_wait(gate->open, TEST_BOUND) == 0) {
        mproc_process *me = mproc_process_current();
        gate->result = strcmp(mproc_process_name(me), "runs on") == 0 &&
                       mproc_process_is_alive(me);
        mproc_process_free(me); /* not a handle: nothing happens */
    }
    mproc_event_clear(gate->open); /* told: it has looked */
    return 0;
}

static void it_runs_on_when_its_handle_is_freed(void **state)
{
    (void)state;
    struct gate *gate = gate_new();
    mproc_process *p;
    mproc_process_opts opts = by_thread;
    opts.name = "runs on";
    assert_ok(mproc_process_new(&p, is_freed_while_it_runs, gate, &opts));
    assert_ok(mproc_process_start(p));
    mproc_process_free(p);
    assert_err(mproc_process_join(p, MPROC_NOWAIT), MPROC_EINVAL);
    assert_int_equal(mproc_active_children(NULL, 0), 0);
    assert_ok(mproc_event_set(gate->open));
    while (mproc_event_is_set(gate->open)) {
        sched_yield();
    }
    assert_int_equal(gate->result, 1);
    mproc_event_free(gate->open);
}

static int tries_to_start(void *arg)
{
    mproc_process *p;
    int err = mproc_process_new(&p, counts, arg, &by_thread);
    if (err == 0) {
        err = mproc_process_start(p);
        mproc_process_free(p);
    }
    return err == MPROC_EPERM && mproc_process_daemon(mproc_process_current())
               ? 5
               : 6;
}

static void a_daemonic_thread_may_not_start_children(void **state)
{
    (void)state;
    mproc_process *p;
    mproc_process_opts opts = by_thread;
    opts.daemon = 1;
    assert_ok(mproc_process_new(&p, tries_to_start, NULL, &opts));
    assert_ok(mproc_process_start(p));
    assert_int_equal(code_of(p), 5);
}

static void a_child_of_the_thread_is_named_after_it(void **state)
{
    (void)state;
    int count = 0;
    assert_int_equal(code_of(started(names_its_child, &count)), 5);
}

static void it_costs_a_descriptor_only_when_asked(void **state)
{
    (void)state;
    struct gate *gate = gate_new();
    int before = test_open_fds();
    mproc_process *p = started(waits_at_gate, gate);
    assert_int_equal(test_open_fds(), before);
    struct pollfd ended = {.fd = mproc_process_fd(p), .events = POLLIN};
    assert_int_equal(mproc_process_fd(p), ended.fd);
    assert_int_equal(fcntl(ended.fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(poll(&ended, 1, 0), 0);
    assert_ok(mproc_event_set(gate->open));
    assert_int_equal(poll(&ended, 1, 30000), 1);
    assert_int_equal(opened(gate, p), 5);
    assert_int_equal(test_open_fds(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_runs_in_the_memory_of_its_maker),
        cmocka_unit_test(pthread_exit_is_an_end_with_code_0),
        cmocka_unit_test(signals_to_it_are_not_supported),
        cmocka_unit_test(current_is_the_thread_in_it_and_not_elsewhere),
        cmocka_unit_test(a_fork_of_the_thread_is_a_process),
        cmocka_unit_test(a_fork_of_the_thread_ends_as_a_process_does),
        cmocka_unit_test(it_runs_on_when_its_handle_is_freed),
        cmocka_unit_test(a_daemonic_thread_may_not_start_children),
        cmocka_unit_test(a_child_of_the_thread_is_named_after_it),
        cmocka_unit_test(it_costs_a_descriptor_only_when_asked),
    };
    return cmocka_run_group_tests_name("process_thread", tests, NULL, NULL);
}
