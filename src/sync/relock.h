/* SPDX-License-Identifier: MIT */
/* A hold that its thread may take again: RLock, and a condition's own lock. */
#ifndef MPR_SYNC_RELOCK_H
#define MPR_SYNC_RELOCK_H

#include "sync/hold.h"

/*
 * `owner` is the serial of the thread that holds the hold, 0 of nobody: written
 * by that thread, after it acquired and before it releases, so no other thread
 * ever reads its own serial there. `depth`, of its acquires, is its alone.
 * Locks: `hold`. Publishes: nothing. Survives: what a dead owner left is
 * written anew by the next one.
 */
struct mpr_relock {
    struct mpr_hold hold;
    _Atomic uint64_t owner;
    _Atomic uint64_t depth;
};

static inline void mpr_relock_init(struct mpr_relock *relock)
{
    mpr_hold_init(&relock->hold);
    atomic_store_explicit(&relock->owner, 0, memory_order_relaxed);
    atomic_store_explicit(&relock->depth, 0, memory_order_relaxed);
}

static inline bool mpr_relock_mine(struct mpr_relock *relock,
                                   const struct mpr_thread *self)
{
    return atomic_load_explicit(&relock->owner, memory_order_relaxed) ==
           self->serial;
}

/* After the hold was acquired. */
static inline void mpr_relock_own(struct mpr_relock *relock,
                                  const struct mpr_thread *self, uint64_t depth)
{
    atomic_store_explicit(&relock->depth, depth, memory_order_relaxed);
    atomic_store_explicit(&relock->owner, self->serial, memory_order_relaxed);
}

/* Before the hold is released, all levels at once: how many there were. */
static inline uint64_t mpr_relock_disown(struct mpr_relock *relock)
{
    atomic_store_explicit(&relock->owner, 0, memory_order_relaxed);
    return atomic_load_explicit(&relock->depth, memory_order_relaxed);
}

/* As mpr_hold_acquire; `of` is of relock->hold. */
static inline int mpr_relock_acquire(struct mpr_thread *self,
                                     struct mpr_relock *relock,
                                     const struct mpr_hold_of *of,
                                     mproc_deadline until)
{
    if (mpr_relock_mine(relock, self)) {
        uint64_t depth =
            atomic_load_explicit(&relock->depth, memory_order_relaxed);
        atomic_store_explicit(&relock->depth, depth + 1, memory_order_relaxed);
        return 0;
    }
    int err = mpr_hold_acquire(self, of, until);
    if (mpr_likely(err >= 0)) {
        mpr_relock_own(relock, self, 1);
    }
    return err;
}

/* EPERM: the calling thread does not hold it. */
static inline int mpr_relock_release(struct mpr_thread *self,
                                     struct mpr_relock *relock,
                                     const struct mpr_hold_of *of)
{
    if (mpr_unlikely(!mpr_relock_mine(relock, self))) {
        return MPROC_EPERM;
    }
    uint64_t depth = atomic_load_explicit(&relock->depth, memory_order_relaxed);
    if (depth > 1) {
        atomic_store_explicit(&relock->depth, depth - 1, memory_order_relaxed);
        return 0;
    }
    (void)mpr_relock_disown(relock);
    return mpr_hold_release(self, of, true);
}

#endif
