/* SPDX-License-Identifier: MIT */
/* The processes of a pool, as the system sees them. */
#ifndef MPROC_POOL_KIN_H
#define MPROC_POOL_KIN_H

#include "pool_support.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static inline bool runs(pid_t pid)
{
    return strchr("XZ", test_stat_of(pid).state) == NULL;
}

static inline void expect_gone(pid_t pid)
{
    for (int i = 0; i < 3000 && runs(pid); i++) {
        usleep(10000);
    }
    assert_false(runs(pid));
}

/* The nursery is the parent of the workers; 0: it is gone, or was just now. */
static inline pid_t nursery_of(mproc_pool *p)
{
    pid_t worker[16];
    size_t count = mproc_pool_worker_pids(p, worker, 16);
    for (size_t i = 0; i < count && i < 16; i++) {
        int parent = test_stat_of(worker[i]).parent;
        if (parent > 1 && test_stat_of(parent).parent == getpid()) {
            return parent;
        }
    }
    return 0;
}

/* ---- who is left ------------------------------------------------------ */

/* All that others leave come to this process, at any depth. */
static inline int adopt_orphans(void **state)
{
    (void)state;
    return prctl(PR_SET_CHILD_SUBREAPER, 1);
}

/* Killed are only own children, of which there always is one here. */
static inline void kill_who_is_left(void)
{
    enum { HIGHEST = 1 << 22 };
    pid_t pid = 2;
    while (waitpid(-1, NULL, WNOHANG) >= 0) {
        if (test_stat_of(pid).parent == getpid()) {
            print_error("%d is left: %c\n", (int)pid, test_stat_of(pid).state);
            kill(pid, SIGKILL);
        }
        pid = pid < HIGHEST ? pid + 1 : 2;
    }
}

/* Until no child is left. Returns the seconds that took. */
static inline double await_nobody(void)
{
    int64_t begin = mproc_in_s(0).at_ns;
    mproc_deadline until = TEST_BOUND;
    pid_t ended = 0;
    while (ended >= 0) {
        ended = waitpid(-1, NULL, WNOHANG);
        if (mproc_in_s(0).at_ns > until.at_ns) {
            kill_who_is_left();
            fail();
        }
        usleep(ended == 0 ? 1000 : 0);
    }
    assert_int_equal(errno, ECHILD);
    return (double)(mproc_in_s(0).at_ns - begin) / 1e9;
}

#endif
