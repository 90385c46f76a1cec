/* SPDX-License-Identifier: MIT */
/*
 * A guard: the internal lock of the library. Robust, short, never held while
 * asleep or while running the user's code, never two at once but the slots'
 * guard around one other.
 *
 * Who locks a guard finds the invariants of what it guards restored: when the
 * last holder died in it, mpr_guard_lock runs the repair of its kind first. The
 * repair may itself be killed anywhere; the next one begins it again.
 *
 * What a section moves out of or into a thread's hands (slot.h), it moves
 * between its two stores of `hands`, so that the repair knows whose hands may
 * tell of a move that did not happen, or that did.
 */
#ifndef MPR_SHM_GUARD_H
#define MPR_SHM_GUARD_H

#include "os/os.h"

struct mpr_thread;

enum mpr_guard_kind {
    MPR_GUARD_SLOTS,
    MPR_GUARD_RUNS,
    MPR_GUARD_CLASS,
    MPR_GUARD_OBJECTS,
    MPR_GUARD_QUEUE_TAIL,
    MPR_GUARD_QUEUE_HEAD,
    MPR_GUARD_PIPES,
    MPR_GUARD_POOL,
    MPR_GUARD_KINDS
};

/*
 * Locks: itself. Publishes: nothing. Survives: the kernel marks `mutex` when
 * its holder dies; `hands` then names the record whose hands the dead one was
 * settling, or NULL when it died before or after.
 */
struct mpr_guard {
    pthread_mutex_t mutex;
    struct mpr_thread *_Atomic hands;
    uint32_t kind;
};

/* Restore the invariants; `hands` may be NULL. Runs with the guard locked. */
typedef void mpr_guard_repair_fn(struct mpr_guard *guard,
                                 struct mpr_thread *hands);

/* Called once a process by each module that owns a kind, before main. */
void mpr_guard_on_repair(enum mpr_guard_kind kind, mpr_guard_repair_fn *fn);

void mpr_guard_init(struct mpr_guard *guard, enum mpr_guard_kind kind);

/*
 * Lock for the thread `self`, which will settle the hands of `hands`. Always
 * succeeds; waits for a living holder, however long that is stopped.
 */
void mpr_guard_lock(struct mpr_guard *guard, struct mpr_thread *self,
                    struct mpr_thread *hands);

/*
 * As mpr_guard_lock, but gives up at the deadline (and 100 ms from now at the
 * earliest: a holder that runs needs far less): MPROC_ETIMEDOUT.
 */
int mpr_guard_lock_until(struct mpr_guard *guard, struct mpr_thread *self,
                         struct mpr_thread *hands, mproc_deadline until);

void mpr_guard_unlock(struct mpr_guard *guard, struct mpr_thread *self);

/*
 * Reaper: may the guard noted in a dead thread's record still be unrepaired?
 * (Locking it anyway could mean to wait for a stopped process.)
 */
bool mpr_guard_needs_repair(struct mpr_guard *guard, struct mpr_thread *dead);

#endif
