/* SPDX-License-Identifier: MIT */
/*
 * Waiting until others tell something, on a condition or a barrier: a thread
 * waits by its own record (slot.h), so that to wait needs no memory, and no
 * memory that a late teller might write to is ever anything else. Nothing here
 * takes a lock.
 *
 * A thread's `wait` is {number of the wait | enum mpr_wait_state}. The number
 * is new for each wait, so a compare-and-swap of `wait` also proves that
 * `wait_for` and `wait_ticket` were read of the same wait. It leaves ON for
 * TOLD or BROKEN by who tells, and for OVER by the waiter, or by who finds it
 * dead. What is told, and what the ticket means, is up to the object.
 * Publishes: the change of `wait`. Survives: a dead waiter leaves its word,
 * which the hook of its object's type settles when it is reaped.
 */
#ifndef MPR_SYNC_WAIT_H
#define MPR_SYNC_WAIT_H

#include "shm/object.h"

enum mpr_wait_state {
    MPR_WAIT_OVER,
    MPR_WAIT_ON,
    MPR_WAIT_TOLD,
    MPR_WAIT_BROKEN,
    MPR_WAIT_STATES
};

static inline enum mpr_wait_state mpr_wait_state(uint64_t wait)
{
    return (enum mpr_wait_state)(wait % MPR_WAIT_STATES);
}

/* ---- the waiter ------------------------------------------------------- */

/* From now on the calling thread can be told. Returns its `wait`. */
uint64_t mpr_wait_begin(struct mpr_thread *self, const void *object,
                        uint64_t ticket);

/* What the thread was told since; MPR_WAIT_ON: nothing. */
static inline enum mpr_wait_state mpr_wait_heard(struct mpr_thread *self)
{
    return mpr_wait_state(
        atomic_load_explicit(&self->wait, memory_order_seq_cst));
}

/* The wait is over with nothing told. False: something was. */
bool mpr_wait_withdraw(struct mpr_thread *self, uint64_t wait);

/* The wait is over in whatever way. */
void mpr_wait_end(struct mpr_thread *self, uint64_t wait);

/* ---- those who tell --------------------------------------------------- */

/* One wait, as it was seen. */
struct mpr_wait {
    struct mpr_thread *thread;
    uint64_t word;
    uint64_t ticket;
};

/*
 * The next of the waits on `object`, in no order; `*place` is 0 at first.
 * False: there is none any more.
 */
bool mpr_wait_next(uint32_t *place, const void *object, struct mpr_wait *seen);

/* False: it was told already, or is over. Wakes nobody. */
bool mpr_wait_tell(const struct mpr_wait *seen, enum mpr_wait_state what);

/*
 * For a reaper: the next record of a dead process that waits on a live object
 * of the type, or has been told something and not ended its wait.
 */
bool mpr_wait_next_dead(uint32_t *place, mpr_id dead, enum mpr_object_type type,
                        struct mpr_wait *seen);

#endif
