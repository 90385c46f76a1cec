/* SPDX-License-Identifier: MIT */
/*
 * Who waits on a condition: threads, each by its own record (wait.h). A wait is
 * told by who notifies, withdrawn by the waiter whose deadline came, and ended
 * by the waiter when it holds the lock again. A waiter that dies between those
 * leaves a notification, which its reaper passes on, to one who was waiting as
 * well when the last notify was made.
 * Survives: who notifies has `op` set from before it tells until it has woken;
 * a reaper killed while it passes one on passes it on again.
 */
#ifndef MPR_SYNC_WAITERS_H
#define MPR_SYNC_WAITERS_H

#include "sync/wait.h"

/*
 * Part of a condition. Tickets number the waits, over all conditions that were
 * ever in this place: those from `first` on are of this one. `notified` is the
 * first ticket that was not given away yet when the last notify was made.
 * Locks: `first` and `notified` the condition's lock; its order of holders is
 * what makes "waiting" and "not yet waiting" a fact to a notifier.
 * Publishes, Survives: nothing; a ticket that its taker never used is a gap.
 */
struct mpr_waiters {
    _Atomic uint64_t tickets;
    _Atomic uint64_t first;
    _Atomic uint64_t notified;
};

void mpr_waiters_init(struct mpr_waiters *waiters);

/* From now on a notify counts the calling thread. Returns its `wait`. */
uint64_t mpr_waiters_join(struct mpr_thread *self, struct mpr_waiters *waiters);

/* The wait could not begin: what it was told meanwhile is told to another. */
void mpr_waiters_decline(struct mpr_thread *self, struct mpr_waiters *waiters,
                         uint64_t wait);

/* Notify the `n` living who have waited longest. */
void mpr_waiters_notify(struct mpr_waiters *waiters, unsigned n);

/* Of a condition that is being ended: let all go. */
void mpr_waiters_end(struct mpr_waiters *waiters);

/* For a reaper: pass on what the dead was notified of and did not use up. */
void mpr_waiters_pass_on(mpr_id dead);

#endif
