/* SPDX-License-Identifier: MIT */
#include "proc/child.h"

#include <stdlib.h>

#include "base/check.h"
#include "proc/children.h"
#include "shm/slot.h"

enum { END_HOOKS_MAX = 4 };
static mpr_child_end_fn *end_hooks[END_HOOKS_MAX];

void mpr_child_on_end(mpr_child_end_fn *fn)
{
    for (int i = 0; i < END_HOOKS_MAX; i++) {
        if (end_hooks[i] == NULL) {
            end_hooks[i] = fn;
            return;
        }
    }
    MPR_CHECK(!"too many end hooks");
}

static void end_children(void)
{
    for (int i = 0; i < END_HOOKS_MAX && end_hooks[i] != NULL; i++) {
        end_hooks[i]();
    }
    mpr_children_end();
}

void mpr_child_leave(int status)
{
    end_children();
    mpr_os_stdio_flush();
    mpr_os_end(status);
}

/*
 * Under the mutex of the children: libc has a lock of its own here, which no
 * fork may find locked.
 */
static bool registered;

/* What handlers behind this one start is ended by another call. */
static void end_children_at_exit(void)
{
    mpr_children_enter();
    registered = false;
    mpr_children_leave();
    end_children();
}

/*
 * Registered once: a fork inherits what is registered, and in a forked child
 * there are no children to end but its own.
 */
int mpr_child_end_at_exit(void)
{
    mpr_children_enter();
    registered = registered || atexit(end_children_at_exit) == 0;
    bool done = registered;
    mpr_children_leave();
    return done ? 0 : MPROC_ENOMEM;
}

struct work {
    int (*fn)(void *arg);
    void *arg;
};

static void run(void *user)
{
    const struct work *work = user;
    mpr_child_leave(work->fn(work->arg));
}

/* libc would wait for the library's own threads too, if it waited at all. */
static void leave_last(void *user)
{
    (void)user;
    mpr_os_await_single_thread();
    mpr_child_leave(0);
}

void mpr_child_run(int (*fn)(void *arg), void *arg)
{
    struct work work = {fn, arg};
    mpr_os_run_to_end(run, leave_last, &work);
    mpr_child_leave(0); /* not reached */
}

static void set_up(enum mpr_child_bond bond, const struct mpr_os_parent *parent)
{
    mpr_os_on_exit(mpr_child_leave);
    mpr_children_forget();
    if (bond == MPR_CHILD_ENDS_WITH_PARENT) {
        mpr_os_end_with_parent(parent);
    }
}

/*
 * There must be a place for the child's pidfd: that cannot be opened before the
 * fork, and must not fail after it. (Another thread may snatch the place: then
 * there is none.) The pidfd of this process, needed for the bond, keeps one.
 */
static int reserve(enum mpr_child_bond bond, struct mpr_os_parent *parent)
{
    bool bound = bond == MPR_CHILD_ENDS_WITH_PARENT;
    int fd = bound ? mpr_os_pidfd(parent->pid) : mpr_os_flag(false);
    parent->pidfd = bound ? fd : -1;
    if (!bound) {
        mpr_os_close(fd);
    }
    return fd < 0 && fd != MPROC_ENOTSUP ? fd : 0;
}

int mpr_child_fork(enum mpr_child_bond bond, struct mpr_child *out)
{
    struct mpr_os_parent parent = {.pid = mpr_os_pid()};
    parent.main_thread = parent.pid == mpr_os_tid();
    int err = mpr_child_end_at_exit();
    if (err == 0) {
        err = reserve(bond, &parent);
    }
    if (err < 0) {
        return err;
    }
    mpr_os_stdio_flush();
    out->pidfd = -1;
    out->pid = mpr_os_fork(&out->mask);
    if (out->pid == 0) {
        set_up(bond, &parent);
        return 0;
    }
    mpr_os_close(parent.pidfd);
    if (out->pid > 0) {
        int pidfd = mpr_os_pidfd(out->pid);
        out->pidfd = pidfd >= 0 ? pidfd : -1;
    } else {
        mpr_fork_failed();
    }
    mpr_os_fork_end(&out->mask);
    return out->pid < 0 ? out->pid : 0;
}

void mpr_child_ready(const struct mpr_child *child)
{
    mpr_os_fork_end(&child->mask);
}
