/* SPDX-License-Identifier: MIT */
/*
 * The private state of a process inside shm: one mutex, held over a fork so
 * that the child finds it whole, and taken only when something is claimed.
 */
#ifndef MPR_SHM_PRIVATE_H
#define MPR_SHM_PRIVATE_H

#include "shm/slot.h"

void mpr_private_lock(void);
bool mpr_private_try_lock(void);
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

/* ---- between the files that deal with slots --------------------------- */

static inline uint64_t mpr_slot_word(uint32_t generation,
                                     enum mpr_slot_state state)
{
    return (uint64_t)generation << 32 | state;
}

static inline enum mpr_slot_state mpr_slot_state_of(uint64_t word)
{
    return (enum mpr_slot_state)(uint32_t)word;
}

static inline mpr_id mpr_slot_id(const struct mpr_slot *slot, uint64_t word)
{
    uint64_t number = (uint64_t)(slot - mpr_family->slots) + 1;
    return (word >> 32) << 32 | number << 1;
}

/* By the state word of its slot: is that child still to come? */
static inline bool mpr_slot_is_unborn(uint64_t word, mpr_id id)
{
    enum mpr_slot_state state = mpr_slot_state_of(word);
    return word >> 32 == id >> 32 &&
           (state == MPR_SLOT_EMBRYO || state == MPR_SLOT_BORN);
}

/*
 * The first record is nobody's: for who reaps before it has one, and for the
 * hooks of every reaper, whose own hands may be full.
 */
static inline struct mpr_thread *mpr_spare_record(void)
{
    return &mpr_family->threads[0];
}

/* The record that the first thread of a process finds free, mostly. */
static inline struct mpr_thread *mpr_own_record(mpr_id id)
{
    return &mpr_family->threads[1 + (mpr_id_slot(id) - mpr_family->slots)];
}

/* Test mode: each new thread has a slot of its own. */
extern bool mpr_slot_per_thread;

/* A free slot, LIVE and its life locked by this thread. NULL: none is free. */
struct mpr_slot *mpr_slot_claim(void);

/* A free slot for the child to be of this process. NULL: none is free. */
struct mpr_slot *mpr_slot_conceive(void);

/*
 * In that child: the slot is its own, LIVE, and holds that many things. False:
 * it was given up before the child came.
 */
bool mpr_slot_be_born(mpr_id id, int32_t held);

/*
 * The thread that locked the life mutex has ended before its process: lock it
 * in its place, once the kernel has written that death.
 */
bool mpr_slot_take_life_over(struct mpr_slot *slot);

/* Whoever looks for a free slot finds this one. */
void mpr_slot_is_free(const struct mpr_slot *slot);

/* What mpr_self does, with the private state locked. */
int mpr_self_claim_locked(void);

/* In a forked child: whether it was born with a slot; NULL: it was not. */
void mpr_self_in_child(struct mpr_slot *slot);

/* The pid namespace of this process, which it keeps for life. */
uint64_t mpr_own_namespace(void);

/* Nothing in hand, no guard, in no operation. */
static inline bool mpr_thread_is_idle(struct mpr_thread *thread)
{
    uintptr_t any = atomic_load(&thread->op) | atomic_load(&thread->guard);
    for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
        any |= (uintptr_t)mpr_hand(thread, (enum mpr_hand)hand);
    }
    return any == 0;
}

enum mpr_reaped { MPR_REAPED, MPR_REAPED_BY_ANOTHER, MPR_REAP_BUSY };

/*
 * Reap one slot whose state was `word` when it was found to be a dead one's.
 * MPR_REAP_BUSY: somebody holds what is needed, for long; it stays DEAD.
 */
enum mpr_reaped mpr_slot_reap(struct mpr_thread *self, struct mpr_slot *slot,
                              uint64_t word);

#endif
