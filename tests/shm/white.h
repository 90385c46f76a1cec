/* SPDX-License-Identifier: MIT */
/*
 * What the white-box tests of shm share. The test program itself never uses
 * the library: each test runs in a child, which makes a family of its own.
 */
#ifndef TESTS_SHM_WHITE_H
#define TESTS_SHM_WHITE_H

#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/object.h"
#include "shm/sleep.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WHITE_SANITIZED 1
#else
#define WHITE_SANITIZED 0
#endif

/* Words for the processes of a test to tell each other how far they are. */
struct white_stage {
    _Atomic uint32_t word[16];
    _Atomic uint64_t value[16];
};

static inline struct white_stage *white_stage_new(void)
{
    void *p = mmap(NULL, sizeof(struct white_stage), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

static inline void white_reach(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store(word, value);
    mpr_os_wake(word, INT_MAX);
}

/* Wait until the word is at least `value`. */
static inline void white_await(_Atomic uint32_t *word, uint32_t value)
{
    mproc_deadline bound = TEST_BOUND;
    for (uint32_t seen; (seen = atomic_load(word)) < value;) {
        assert_int_equal(mpr_os_wait(word, seen, bound), 0);
    }
}

static inline struct mpr_thread *white_self(void)
{
    struct mpr_thread *self = NULL;
    assert_ok(mpr_self(&self));
    return self;
}

/* Kill a child and wait until the system has forgotten it. */
static inline void white_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(test_wait_exit(pid), -SIGKILL);
}

/* Until killed. */
static inline _Noreturn void white_stay(void)
{
    for (;;) {
        pause();
    }
}

static inline _Noreturn void white_die(void)
{
    kill(getpid(), SIGKILL);
    white_stay();
}

/* Wait until a thread is asleep on a futex, by the system call it is in. */
static inline void white_await_asleep(pid_t pid, pid_t tid)
{
    char path[64], text[64];
    mproc_deadline bound = TEST_BOUND;
    snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", (int)pid, (int)tid);
    for (;;) {
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        bool read = fgets(text, sizeof text, file) != NULL;
        fclose(file);
        long call = read ? strtol(text, NULL, 10) : -1;
        if (call == 449 || call == 202) { /* futex_waitv, futex */
            return;
        }
        assert_true(mpr_os_now() < bound.at_ns);
        sched_yield();
    }
}

/* Run a test in a child, with a family of its own if it uses the library. */
static inline void white_run(int (*test)(void *))
{
    assert_int_equal(test_wait_exit(test_fork(test, NULL)), 0);
}

#define WHITE_TEST(name)                      \
    static int name##_in_child(void *unused); \
    static void name(void **state)            \
    {                                         \
        (void)state;                          \
        white_run(name##_in_child);           \
    }                                         \
    static int name##_in_child(__attribute__((unused)) void *unused)

#endif
