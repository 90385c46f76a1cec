/* SPDX-License-Identifier: MIT */
/*
 * Tests of whole programs. Each program is run anew from the test itself, as
 * test <program> <start method>, with pipes as its standard input and output.
 * That of the output is at its end once every process of the program has ended;
 * by closing that of the input the test gives the one order there is.
 */
#ifndef TESTS_API_PROGRAM_H
#define TESTS_API_PROGRAM_H

#include "test.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct program {
    const char *name;
    int (*main)(void);
};

#define PROGRAM(fn) \
    {               \
#fn, fn     \
    }

/* By which method processes are started: in the tests and in the programs. */
static int how;

/* ---- in the programs -------------------------------------------------- */

static inline void say(const char *text)
{
    if (write(STDOUT_FILENO, text, strlen(text)) < 0) {
        _exit(99);
    }
}

/* Waits until the test closes its end. */
static inline void await_order(void)
{
    char c;
    while (read(STDIN_FILENO, &c, 1) < 0 && errno == EINTR) {
    }
}

/* ---- in the tests ----------------------------------------------------- */

struct run {
    pid_t pid;
    int output;
    int orders;
    size_t size;
    char text[1024];
};

static inline struct run run_program(const char *name)
{
    int output[2], orders[2];
    struct run run = {0};
    assert_int_equal(pipe(output), 0);
    assert_int_equal(pipe(orders), 0);
    fflush(stdout);
    run.pid = fork();
    assert_true(run.pid >= 0);
    if (run.pid == 0) {
        char method[16];
        snprintf(method, sizeof method, "%d", how);
        dup2(orders[0], STDIN_FILENO);
        dup2(output[1], STDOUT_FILENO);
        for (int fd = 3; fd < 100; fd++) {
            close(fd);
        }
        execl("/proc/self/exe", "program", name, method, (char *)NULL);
        _exit(126);
    }
    close(output[1]);
    close(orders[0]);
    run.output = output[0];
    run.orders = orders[1];
    return run;
}

/* Read what is there, after waiting for it. False: the end. */
static inline bool read_some(struct run *run)
{
    struct pollfd readable = {.fd = run->output, .events = POLLIN};
    assert_int_equal(poll(&readable, 1, 30000), 1);
    ssize_t got = read(run->output, run->text + run->size,
                       sizeof run->text - 1 - run->size);
    assert_true(got >= 0);
    run->size += (size_t)got;
    return got > 0;
}

static inline void expect_said(struct run *run, const char *text)
{
    while (run->size < strlen(text) && read_some(run)) {
    }
    assert_string_equal(run->text, text);
}

static inline void give_order(struct run *run)
{
    close(run->orders);
    run->orders = -1;
}

static inline void end_of_all(struct run *run)
{
    if (run->orders >= 0) {
        give_order(run);
    }
    while (read_some(run)) {
    }
    close(run->output);
}

/* All has ended: what was said, and how the program itself ended. */
static inline void expect_end(struct run *run, const char *text, int code)
{
    end_of_all(run);
    int ended = test_wait_exit(run->pid);
    if (ended == 77) {
        skip();
    }
    assert_string_equal(run->text, text);
    assert_int_equal(ended, code);
}

static inline bool has_ended(pid_t pid)
{
    siginfo_t info = {0};
    assert_int_equal(
        waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    return info.si_pid == pid;
}

/* As a program, if this is one: does not return then. */
static inline void run_as_program(const struct program *programs, int argc,
                                  char **argv)
{
    if (argc == 3) {
        how = atoi(argv[2]);
        while (strcmp(argv[1], programs->name) != 0) {
            programs++;
        }
        exit(programs->main());
    }
}

#endif
