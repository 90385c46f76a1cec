/* SPDX-License-Identifier: MIT */
/*
 * How a child of the library is forked, lives and leaves; for whatever is run
 * in it.
 *
 *     struct mpr_child child;
 *     int err = mpr_child_fork(MPR_CHILD_ENDS_WITH_PARENT, &child);
 *     if (err < 0) {
 *         return err;
 *     }
 *     if (child.pid == 0) {
 *         mpr_who_become_named("Worker-1");
 *         mpr_child_ready(&child);
 *         mpr_child_leave(work());
 *     }
 *     … child.pid runs; child.pidfd tells of its end
 */
#ifndef MPR_PROC_CHILD_H
#define MPR_PROC_CHILD_H

#include "os/os.h"

enum mpr_child_bond {
    MPR_CHILD_OUTLIVES,        /* its parent, when that is killed */
    MPR_CHILD_ENDS_WITH_PARENT /* also when the parent is killed */
};

struct mpr_child {
    pid_t pid;     /* 0: this is the child */
    int pidfd;     /* in the parent, -1: none. The caller closes it */
    sigset_t mask; /* in the child: the parent's, before the fork */
};

/*
 * Fork. Flushes stdio before, so that nothing buffered is written twice; what
 * can be refused is refused before the fork: EMFILE, ENFILE, ENOMEM, EAGAIN.
 *
 * In the child signals are blocked until mpr_child_ready; exit(), whoever calls
 * it, means mpr_child_leave; the bond holds; its parent's children are
 * forgotten and their pidfds closed. It is a process as after a plain fork
 * (who.h), until it becomes something else.
 *
 * The bond of a child that the main thread forks is the kernel's, and ends the
 * child when that thread ends, even alone; any other is a thread in the child.
 */
int mpr_child_fork(enum mpr_child_bond bond, struct mpr_child *out);

/* In the child, before user code runs: let signals in. */
void mpr_child_ready(const struct mpr_child *child);

/* See that the children of this process are ended when it exits. ENOMEM. */
int mpr_child_end_at_exit(void);

/*
 * End the calling process the way a child of the library ends: run what was
 * registered by mpr_child_on_end, end its own children, flush stdio, and leave
 * without the exit handlers that its parent has registered. Any thread.
 */
_Noreturn void mpr_child_leave(int status);

/*
 * End it with what fn(arg) returns; or, where that ends its thread instead,
 * with 0 once the other threads of the user have ended too.
 */
_Noreturn void mpr_child_run(int (*fn)(void *arg), void *arg);

/*
 * Have `fn` called at the normal end of every process that forked a child or is
 * one, before its children are ended. Registered before main.
 */
typedef void mpr_child_end_fn(void);
void mpr_child_on_end(mpr_child_end_fn *fn);

#endif
