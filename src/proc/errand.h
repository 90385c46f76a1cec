/* SPDX-License-Identifier: MIT */
/*
 * Errands: what a process tells one that is not forked from it to do. They talk
 * over a channel (os.h):
 *
 *     parent                          child
 *     errand, and the argument  →     finds the function, joins the family
 *                               ←     hello: its pid, or what kept it
 *     go                        →     runs the function
 *
 * Nothing is done before the go: a parent that is killed, or hears no hello,
 * has started nothing, since its end of the channel is closed then.
 */
#ifndef MPR_PROC_ERRAND_H
#define MPR_PROC_ERRAND_H

#include "proc/children.h"

/* Private to the two: nothing of it lies in shared memory. */
struct mpr_errand {
    struct mpr_role role; /* its fn and arg mean nothing there */
    struct mpr_os_place fn;
    size_t arg_size; /* bytes that follow the errand */
    uint32_t server; /* it is no user's: see server.h */
    uint32_t padding;
    struct mpr_os_parent parent; /* its pidfd means nothing there */
    sigset_t mask;
};

/*
 * Fill in an errand for a role; arg_size as in mproc_process_opts. ENOENT: the
 * function lies in no module.
 */
int mpr_errand_fill(struct mpr_errand *errand, const struct mpr_role *role,
                    size_t arg_size);

/*
 * Give an errand and wait for the hello; `death` as in mpr_os_channel_receive.
 * EWORKERLOST: the child died first; else what kept it from going.
 */
int mpr_errand_give(const struct mpr_errand *errand, int channel, int death,
                    pid_t *pid);

/* Say go, and close the channel. With the second: only close it. */
void mpr_errand_go(int channel);
void mpr_errand_withdraw(int channel);

/* Tell who sent it over the channel what kept it, and close the channel. */
void mpr_errand_refuse(int channel, int err);

/* In a server, which runs from here on. */
void mpr_errand_hello(int channel);

/*
 * In the child: get an errand over the channel and run it to the end. Takes the
 * descriptors over; `parent_pidfd` of who sent it, or -1.
 */
_Noreturn void mpr_errand_obey(int channel, int parent_pidfd);

#endif
