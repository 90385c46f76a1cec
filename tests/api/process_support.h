/* SPDX-License-Identifier: MIT */
/* What the tests of processes share that are run for every start method. */
#ifndef TESTS_API_PROCESS_SUPPORT_H
#define TESTS_API_PROCESS_SUPPORT_H

#include "test.h"

#include <stdlib.h>

/*
 * Every test is run for every start method. Children get what they need in
 * their argument, which is copied, and answer in memory of the shared heap.
 */
static int how;

static inline bool by_thread(void)
{
    return how == MPROC_START_THREAD;
}

/* Known to the system as a child of this process. */
static inline bool by_own_process(void)
{
    return how == MPROC_START_FORK || how == MPROC_START_SPAWN;
}

/* ---- what children do ------------------------------------------------- */

/* What is passed to most children. */
struct note {
    int number;
    pid_t pid;
    mproc_event *event;
    mproc_process *process[3];
    _Atomic int *count; /* the rest lies in the shared heap */
    char *text;
};

static struct note nothing;

static inline int ends_with(void *arg)
{
    return ((const struct note *)arg)->number;
}

static inline int ends_at_once(void *arg)
{
    (void)arg;
    return 0;
}

static mproc_event *stop; /* what the longest-lived wait for */

static inline int never_ends(void *arg)
{
    const struct note *note = arg;
    while (mproc_event_wait(note->event, MPROC_FOREVER) != 0) {
    }
    return 0;
}

/* A failed assertion in a child must not go on with the tests there. */
static inline void be_strict(void)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1);
}

static inline mproc_process *made(mproc_main_fn *fn, const struct note *note)
{
    mproc_process *p;
    mproc_process_opts opts = {.start = how, .arg_size = sizeof *note};
    assert_ok(mproc_process_new(&p, fn, (void *)note, &opts));
    return p;
}

static inline mproc_process *started(mproc_main_fn *fn, const struct note *note)
{
    mproc_process *p = made(fn, note);
    assert_ok(mproc_process_start(p));
    return p;
}

static inline mproc_process *started_endless(void)
{
    struct note note = {.event = stop};
    return started(never_ends, &note);
}

static inline void joined(mproc_process *p)
{
    assert_ok(mproc_process_join(p, TEST_BOUND));
    mproc_process_free(p);
}

static inline int code_of(mproc_process *p)
{
    int code = 12345;
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_ok(mproc_process_exitcode(p, &code));
    return code;
}

/* The exit code of a new process that runs fn. */
static inline int run(mproc_main_fn *fn, const struct note *note)
{
    mproc_process *p = started(fn, note);
    int code = code_of(p);
    mproc_process_free(p);
    return code;
}

/* Make an endless one end. */
static inline void stop_it(mproc_process *p)
{
    if (!by_thread()) {
        assert_ok(mproc_process_kill(p));
        assert_ok(mproc_process_join(p, TEST_BOUND));
    } else if (mproc_process_is_alive(p)) {
        assert_ok(mproc_event_set(stop));
        assert_ok(mproc_process_join(p, TEST_BOUND));
        assert_ok(mproc_event_clear(stop));
    }
}

static inline void end(mproc_process *p)
{
    stop_it(p);
    mproc_process_free(p);
}

static inline void expect_no_handle(mproc_process *p)
{
    int code;
    assert_err(mproc_process_start(p), MPROC_EINVAL);
    assert_err(mproc_process_join(p, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_process_exitcode(p, &code), MPROC_EINVAL);
    assert_err(mproc_process_terminate(p), MPROC_EINVAL);
    assert_err(mproc_process_kill(p), MPROC_EINVAL);
    assert_err(mproc_process_interrupt(p), MPROC_EINVAL);
    assert_err(mproc_process_fd(p), MPROC_EINVAL);
    assert_false(mproc_process_is_alive(p));
    assert_false(mproc_process_daemon(p));
    assert_int_equal(mproc_process_pid(p), 0);
    assert_string_equal(mproc_process_name(p), "");
    mproc_process_free(p);
}

static inline int prepare(void **state)
{
    (void)state;
    int err = mproc_event_new(&stop);
    if (err == 0 && how == MPROC_START_FORKSERVER) {
        err = mproc_forkserver_start();
    }
    return err;
}

static inline int clean_up(void **state)
{
    (void)state;
    mproc_event_free(stop);
    return 0;
}

/* Run a group of tests for each start method. */
#define run_for_each_method(name, tests)                             \
    (run_for(MPROC_START_FORK, name " by fork", tests) +             \
     run_for(MPROC_START_THREAD, name " by thread", tests) +         \
     run_for(MPROC_START_FORKSERVER, name " by forkserver", tests) + \
     run_for(MPROC_START_SPAWN, name " by spawn", tests))
#define run_for(method, name, tests) \
    (how = (method),                 \
     cmocka_run_group_tests_name(name, tests, prepare, clean_up))

#endif
