/* SPDX-License-Identifier: MIT */
/*
 * Who waits on a condition: threads, each by its own record (slot.h), so that
 * to wait needs no memory, and no memory that a late waker might write to is
 * ever anything else. Nothing here takes a lock.
 *
 * A thread's `wait` is {number of the wait | WAITING, NOTIFIED or neither}. The
 * number is new for each wait, so a compare-and-swap of `wait` also proves that
 * `wait_for` and `wait_ticket` were read of the same wait. It is WAITING→
 * NOTIFIED by who notifies, WAITING→neither by the waiter whose deadline came,
 * and NOTIFIED→neither by the waiter when it holds the lock again. A waiter
 * that dies before that leaves a notification, which its reaper passes on, to
 * one who was waiting as well when the last notify was made.
 * Publishes: the change of `wait`. Survives: who notifies has `op` set from
 * before that until it has woken; a reaper killed while it passes one on passes
 * it on again.
 */
#ifndef MPR_SYNC_WAITERS_H
#define MPR_SYNC_WAITERS_H

#include "shm/object.h"

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

/* The wait is over without a notify. False: there was one. */
bool mpr_waiters_withdraw(struct mpr_thread *self, uint64_t wait);

/* The wait could not begin: what it was told meanwhile is told to another. */
void mpr_waiters_decline(struct mpr_thread *self, struct mpr_waiters *waiters,
                         uint64_t wait);

/* The wait is over in whatever way; a notification is used up. */
void mpr_waiters_leave(struct mpr_thread *self, uint64_t wait);

static inline bool mpr_waiters_told(struct mpr_thread *self, uint64_t wait)
{
    return atomic_load_explicit(&self->wait, memory_order_acquire) != wait;
}

/* Notify the `n` living who have waited longest. */
void mpr_waiters_notify(struct mpr_waiters *waiters, unsigned n);

/* Of a condition that is being ended: let all go. */
void mpr_waiters_end(struct mpr_waiters *waiters);

/*
 * For a reaper: pass on what the dead was notified of and did not use up.
 * `live` tells whether a condition is one still.
 */
void mpr_waiters_pass_on(mpr_id dead,
                         bool (*live)(const struct mpr_waiters *waiters));

#endif
