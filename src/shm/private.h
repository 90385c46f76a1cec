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

/*
 * Around a fork: in the parent, with the private state locked, and in the
 * child. That one locks no guard, since a thread of its parent may hold it.
 */
void mpr_slots_before_fork(void);
void mpr_slots_after_fork(void);
void mpr_slots_in_child(void);

#endif
