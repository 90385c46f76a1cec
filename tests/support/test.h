/* SPDX-License-Identifier: MIT */
/*
 * What tests are written in. The words of the library on top of cmocka's:
 *
 *     assert_ok(mproc_queue_put(q, "bun", 3, TEST_BOUND));
 *     assert_err(mproc_queue_get(q, buf, 1, NULL, MPROC_NOWAIT), MPROC_EEMPTY);
 *
 * A deadline in a test bounds a failure; it is never what the test waits for.
 */
#ifndef MPROC_TEST_H
#define MPROC_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <mproc.h>

/* Far beyond what any call of a test takes, within the limit of the runner. */
#define TEST_BOUND mproc_in_s(30)

/* `expr` is 0: success without news. */
#define assert_ok(expr) assert_err(expr, MPROC_OK)

/* `expr` is exactly `expected`, an outcome of mproc_error. */
#define assert_err(expr, expected) \
    test_expect((expr), (expected), #expr, __FILE__, __LINE__)

void test_expect(int err, int expected, const char *expr, const char *file,
                 int line);

/* The descriptors that this process has open. */
int test_open_fds(void);

/* What the system tells of a process, or of a thread by its tid. */
struct test_stat {
    char state; /* S asleep, T stopped, Z ended; X: there is no such process */
    pid_t parent;
};

struct test_stat test_stat_of(pid_t pid);

/* Wait until `pid`, which must be there, is in that state. */
void test_await_state(pid_t pid, char state);

/*
 * Fork a child that runs `fn` and leaves by _exit with its result. A failed
 * assertion in it ends it by SIGABRT. Fails the test when there is no fork.
 */
pid_t test_fork(int (*fn)(void *arg), void *arg);

/* Wait for the end of a child: its exit status, or minus the signal. */
int test_wait_exit(pid_t pid);

#endif
