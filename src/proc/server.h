/* SPDX-License-Identifier: MIT */
/*
 * The forkserver: a process of this program, started anew by the process that
 * it serves and by no other, with one thread and little memory. It forks on
 * demand, and says how its children ended.
 *
 *     parent                         server
 *     {serial, a channel's end}  →   forks; the child gets its errand over
 *                                    that channel (errand.h), or the server
 *                                    says there what kept it
 *                                ←   {serial, exit code}, once for each child
 *
 * A server holds nothing of the family. One that is killed takes with it what
 * it would have said: its children run on, and their codes are unknown. The
 * next start makes another. It ends when its parent does.
 *
 * In the parent: all below is under the mutex of the children (children.h),
 * unless it says otherwise.
 */
#ifndef MPR_PROC_SERVER_H
#define MPR_PROC_SERVER_H

#include "proc/errand.h"

struct mpr_child_record;

/* Not locked. Start it, unless it runs. As mpr_spawn. */
int mpr_server_ensure(void);

/* Not locked. As mpr_spawn, of a child of the server. */
int mpr_server_fork(const struct mpr_errand *errand, struct mpr_born *out);

/*
 * As mpr_os_child_reap, of a child of a server of this process. Waits a moment
 * for a server that has not told yet; EAGAIN when it does not.
 */
int mpr_server_reap(struct mpr_child_record *child, int *code);

/* End the server: it is dying, or this process ends. */
void mpr_server_end(void);

/* In a new child: close what it has of its parent's server. */
void mpr_server_forget(void);

/* In the server: serve until the parent ends. */
_Noreturn void mpr_server_run(int channel, const struct mpr_os_parent *parent);

#endif
