/* SPDX-License-Identifier: MIT */
/* What the tests of how programs end that have started processes share. */
#ifndef TESTS_API_PROCESS_END_H
#define TESTS_API_PROCESS_END_H

#include "program.h"

#include <stdio.h>
#include <unistd.h>

/* What a child gets. */
struct note {
    mproc_event *ready;
    char text[24];
};

static inline mproc_process *started_by(int method, mproc_main_fn *fn,
                                        const struct note *note, int daemon)
{
    mproc_process *p;
    mproc_process_opts opts = {
        .daemon = daemon, .start = method, .arg_size = sizeof *note};
    if (mproc_process_new(&p, fn, (void *)note, &opts) != 0 ||
        mproc_process_start(p) != 0) {
        _exit(98);
    }
    return p;
}

static inline mproc_process *started(mproc_main_fn *fn, const char *text,
                                     int daemon)
{
    struct note note = {NULL, ""};
    snprintf(note.text, sizeof note.text, "%s", text);
    return started_by(how, fn, &note, daemon);
}

/* Start a daemon that sets the event once it is ready; wait for that. */
static inline mproc_process *started_ready(mproc_main_fn *fn)
{
    struct note note = {NULL, ""};
    if (mproc_event_new(&note.ready) != 0) {
        _exit(97);
    }
    mproc_process *p = started_by(how, fn, &note, 1);
    if (mproc_event_wait(note.ready, TEST_BOUND) != 0) {
        _exit(96);
    }
    mproc_event_free(note.ready);
    return p;
}

static inline int sleeps(void *arg)
{
    (void)arg;
    while (pause() != 0) {
    }
    return 0;
}

static inline int says_when_told(void *arg)
{
    await_order();
    say(((const struct note *)arg)->text);
    return 0;
}

static inline mproc_process *started_thread(mproc_main_fn *fn, const char *text,
                                            int daemon)
{
    struct note note = {NULL, ""};
    snprintf(note.text, sizeof note.text, "%s", text);
    return started_by(MPROC_START_THREAD, fn, &note, daemon);
}

static inline int prints(void *arg)
{
    printf("%s", ((const struct note *)arg)->text);
    return 0;
}

static inline int code_of(mproc_process *p)
{
    int code = -1;
    return mproc_process_join(p, TEST_BOUND) == 0 &&
                   mproc_process_exitcode(p, &code) == 0
               ? code
               : -1;
}

/* Run a group of tests for each start method that makes a process. */
#define run_for_each_process(name, tests)                            \
    (run_for(MPROC_START_FORK, name " by fork", tests) +             \
     run_for(MPROC_START_FORKSERVER, name " by forkserver", tests) + \
     run_for(MPROC_START_SPAWN, name " by spawn", tests))
#define run_for(method, name, tests) \
    (how = (method), cmocka_run_group_tests_name(name, tests, NULL, NULL))

#endif
