/* SPDX-License-Identifier: MIT */
#include "shm/guard.h"

#include "base/check.h"
#include "base/deadline.h"
#include "shm/slot.h"

static mpr_guard_repair_fn *repairs[MPR_GUARD_KINDS];

void mpr_guard_on_repair(enum mpr_guard_kind kind, mpr_guard_repair_fn *fn)
{
    repairs[kind] = fn;
}

void mpr_guard_init(struct mpr_guard *guard, enum mpr_guard_kind kind)
{
    mpr_os_mutex_init(&guard->mutex);
    atomic_store_explicit(&guard->hands, NULL, memory_order_relaxed);
    guard->kind = kind;
}

/*
 * The slots' guard is the outer one of two, and needs no repair, so it is not
 * noted in the thread's record.
 */
static void note(struct mpr_thread *self, struct mpr_guard *guard,
                 uint32_t kind)
{
    if (kind != MPR_GUARD_SLOTS) {
        atomic_signal_fence(memory_order_seq_cst);
        atomic_store_explicit(&self->guard, (uintptr_t)guard,
                              memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
    }
}

/* Release: who finds them settled, without the lock, finds them as settled. */
static void set_hands(struct mpr_guard *guard, struct mpr_thread *hands)
{
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&guard->hands, hands, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
}

/* Sections are some dozens of instructions: look a while before sleeping. */
static enum mpr_os_lock lock_mutex(pthread_mutex_t *mutex, mproc_deadline until)
{
    enum { LOOKS = 100, PAUSES = 8 };
    for (int i = 0; i < LOOKS; i++) {
        enum mpr_os_lock got = mpr_os_mutex_trylock(mutex);
        if (mpr_likely(got != MPR_OS_BUSY)) {
            return got;
        }
        for (int j = 0; j < PAUSES; j++) {
            mpr_pause();
        }
    }
    if (mpr_deadline_is_forever(until)) {
        return mpr_os_mutex_lock(mutex, until);
    }
    mproc_deadline least = mpr_deadline_after(mpr_os_now(), 100, 1e6);
    return mpr_os_mutex_lock(mutex, until.at_ns > least.at_ns ? until : least);
}

int mpr_guard_lock_until(struct mpr_guard *guard, struct mpr_thread *self,
                         struct mpr_thread *hands, mproc_deadline until)
{
    note(self, guard, guard->kind);
    switch (lock_mutex(&guard->mutex, until)) {
    case MPR_OS_LOCKED:
        break;
    case MPR_OS_OWNER_DIED:
        if (repairs[guard->kind] != NULL) {
            repairs[guard->kind](guard, atomic_load(&guard->hands));
        }
        set_hands(guard, NULL);
        mpr_os_mutex_repaired(&guard->mutex);
        break;
    case MPR_OS_BUSY:
        note(self, NULL, guard->kind);
        return MPROC_ETIMEDOUT;
    }
    set_hands(guard, hands);
    return 0;
}

void mpr_guard_lock(struct mpr_guard *guard, struct mpr_thread *self,
                    struct mpr_thread *hands)
{
    (void)mpr_guard_lock_until(guard, self, hands, MPROC_FOREVER);
}

void mpr_guard_unlock(struct mpr_guard *guard, struct mpr_thread *self)
{
    uint32_t kind = guard->kind;
    set_hands(guard, NULL);
    mpr_os_mutex_unlock(&guard->mutex);
    note(self, NULL, kind);
}

bool mpr_guard_needs_repair(struct mpr_guard *guard, struct mpr_thread *dead)
{
    _Atomic uint32_t *word = mpr_os_mutex_word(&guard->mutex);
    return word == NULL || (atomic_load(word) & MPR_OS_WORD_DIED) ||
           atomic_load(&guard->hands) == dead;
}
