/* SPDX-License-Identifier: MIT */
/* Processes that run this program anew. */
#ifndef MPR_PROC_SPAWN_H
#define MPR_PROC_SPAWN_H

#include "proc/errand.h"

/*
 * Start one by an errand. It awaits the go, or runs if it is a server.
 * ENOTSUP: the family's memory, or this program, cannot be had by another
 * process; ENOENT: no such function there; EADDRINUSE; EWORKERLOST: it died;
 * EMFILE, ENFILE, EAGAIN, ENOMEM.
 */
int mpr_spawn(const struct mpr_errand *errand, struct mpr_born *out);

/* Kill one that no record knows, perhaps dying already, and reap it. */
void mpr_spawn_undo(const struct mpr_born *born);

#endif
