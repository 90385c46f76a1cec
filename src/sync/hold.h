/* SPDX-License-Identifier: MIT */
/*
 * A hold: the word of a lock that names the process that holds it. What Lock,
 * RLock and Condition are built of.
 */
#ifndef MPR_SYNC_HOLD_H
#define MPR_SYNC_HOLD_H

#include "shm/object.h"
#include "sync/since.h"

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words of 64 bits need no lock");

/*
 * `word` is 0, or the id of the process that acquired last, with the flag
 * MPR_HOLD_WAITERS in the id's spare bit once somebody sleeps; MPR_HOLD_ENDED
 * when the object is ended. Sleepers sleep on its low half. Anyone may release.
 * Whoever acquires after a sleep sets the flag: the release that woke him has
 * cleared it, and others may sleep.
 * `since` (since.h) is told while MPR_HOLD_WAITERS is set: noted by who sets
 * that, and cleared by who takes it away.
 * Locks: none; every change is one compare-and-swap.
 * Publishes: the store of 0, or of the next holder's id.
 * Survives: a holder's death leaves its id, which the next one replaces by its
 * own; a waiter and a releaser have `op` set from before they take a wake-up,
 * or owe one, until it is passed on.
 */
struct mpr_hold {
    _Atomic uint64_t word;
    _Atomic uint64_t since;
};

#define MPR_HOLD_WAITERS UINT64_C(1)
#define MPR_HOLD_ENDED UINT64_MAX

/* The object that a hold is of, as when its handle was checked. */
struct mpr_hold_of {
    struct mpr_hold *hold;
    const void *object;
    uint64_t tag;
};

int mpr_hold_wait_(struct mpr_thread *self, const struct mpr_hold_of *of,
                   mproc_deadline until);
void mpr_hold_wake_(struct mpr_hold *hold);

/*
 * 0, or MPROC_RECOVERED, MPROC_ETIMEDOUT, MPROC_EINVAL (ended) as in
 * mproc_lock_acquire.
 */
static inline int mpr_hold_acquire(struct mpr_thread *self,
                                   const struct mpr_hold_of *of,
                                   mproc_deadline until)
{
    uint64_t word = 0;
    mpr_held_add(self, 1);
    if (mpr_likely(atomic_compare_exchange_strong_explicit(
            &of->hold->word, &word, mpr_self_id(), memory_order_acquire,
            memory_order_relaxed))) {
        return 0;
    }
    mpr_held_add(self, -1);
    return mpr_hold_wait_(self, of, until);
}

/*
 * MPROC_EINVAL: it is free or ended. MPROC_EPERM: `mine` is asked for, and
 * another process holds it, or nobody.
 */
static inline int mpr_hold_release(struct mpr_thread *self,
                                   const struct mpr_hold_of *of, bool mine)
{
    struct mpr_hold *hold = of->hold;
    uint64_t word = atomic_load_explicit(&hold->word, memory_order_relaxed);
    uintptr_t outer = mpr_op_begin(self, of->object);
    int err = 0;
    do {
        bool other = (word & ~MPR_HOLD_WAITERS) != mpr_self_id();
        if (mpr_unlikely(word == MPR_HOLD_ENDED || (word == 0 && !mine))) {
            err = MPROC_EINVAL;
        } else if (mine && other) {
            err = MPROC_EPERM;
        } else if (mpr_unlikely(word & MPR_HOLD_WAITERS)) {
            atomic_store_explicit(&hold->since, 0, memory_order_relaxed);
        }
    } while (mpr_likely(err == 0) &&
             !atomic_compare_exchange_weak_explicit(&hold->word, &word, 0,
                                                    memory_order_release,
                                                    memory_order_relaxed));
    if (err == 0 && mpr_unlikely(word & MPR_HOLD_WAITERS)) {
        mpr_hold_wake_(hold);
    }
    mpr_op_end(self, outer);
    if (err == 0 && (word & ~MPR_HOLD_WAITERS) == mpr_self_id()) {
        mpr_held_add(self, -1);
    }
    return err;
}

/* Whether a process that lives holds it, at one moment of the call. */
bool mpr_hold_held(const struct mpr_hold *hold);

/* As `holders` of a class. */
void mpr_hold_holder(struct mpr_hold *hold, mpr_holder_fn *fn, void *user);

/* Whether the calling process holds it. */
static inline bool mpr_hold_mine(struct mpr_hold *hold)
{
    uint64_t word = atomic_load_explicit(&hold->word, memory_order_relaxed);
    return (word & ~MPR_HOLD_WAITERS) == mpr_self_id();
}

/* Of an object that is being made. */
static inline void mpr_hold_init(struct mpr_hold *hold)
{
    atomic_store_explicit(&hold->since, 0, memory_order_relaxed);
    atomic_store_explicit(&hold->word, 0, memory_order_relaxed);
}

/* Of an object that is being ended; may be repeated. */
void mpr_hold_end(struct mpr_hold *hold);

#endif
