/* SPDX-License-Identifier: MIT */
/*
 * The private state of a process inside shm: one mutex, held over a fork so
 * that the child finds it whole, and taken only when something is claimed.
 */
#ifndef MPR_SHM_PRIVATE_H
#define MPR_SHM_PRIVATE_H

void mpr_private_lock(void);
void mpr_private_unlock(void);

/* Have the records of ending threads given back. ENOMEM: no key is left. */
int mpr_slots_hook_threads(void);

#endif
