/* SPDX-License-Identifier: MIT */
/* A process that is a thread of its maker. */
#ifndef MPR_PROC_THREAD_H
#define MPR_PROC_THREAD_H

#include "proc/children.h"

/*
 * Start it, with the record among those that run. Returns with the children
 * locked, whatever it returns. MPROC_EAGAIN: no threads left; MPROC_ENOMEM.
 */
int mpr_thread_start(const struct mpr_role *role,
                     struct mpr_child_record *record);

#endif
