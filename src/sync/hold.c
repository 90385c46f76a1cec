/* SPDX-License-Identifier: MIT */
#include "sync/hold.h"

#include "shm/sleep.h"

static mpr_id holder_of(uint64_t word)
{
    return word & ~MPR_HOLD_WAITERS;
}

/*
 * Takes the lock if it is free or its holder dead. MPROC_EBUSY: `*word` names
 * a living holder.
 */
static int look(struct mpr_hold *hold, uint64_t flag, uint64_t *word)
{
    *word = atomic_load_explicit(&hold->word, memory_order_acquire);
    for (;;) {
        if (*word == MPR_HOLD_ENDED) {
            return MPROC_EINVAL;
        }
        bool dead = *word != 0 && mpr_id_is_dead(holder_of(*word));
        if (*word != 0 && !dead) {
            return MPROC_EBUSY;
        }
        uint64_t mine = mpr_self_id() | (*word & MPR_HOLD_WAITERS) | flag;
        if (atomic_compare_exchange_weak_explicit(&hold->word, word, mine,
                                                  memory_order_acquire,
                                                  memory_order_acquire)) {
            return dead ? MPROC_RECOVERED : 0;
        }
    }
}

/*
 * Since when at least `word` is what it is, with the flag. The first to say so
 * is right; what is noted about an earlier word is replaced by who sets the
 * flag. Not right for long, if at all, when the word has changed meanwhile.
 */
static void note_since(struct mpr_hold *hold, uint64_t word, bool first)
{
    mpr_id holder = holder_of(word);
    uint64_t before = atomic_load(&hold->since);
    if (!first && mpr_since_ns(before, holder) != 0) {
        return;
    }
    uint64_t since = mpr_since_of(holder, mpr_os_now());
    if (atomic_compare_exchange_strong(&hold->since, &before, since) &&
        atomic_load(&hold->word) != word) {
        atomic_compare_exchange_strong(&hold->since, &since, 0);
    }
}

static bool set_flag(struct mpr_hold *hold, uint64_t *word)
{
    if (*word & MPR_HOLD_WAITERS) {
        note_since(hold, *word, false);
        return true;
    }
    bool set = atomic_compare_exchange_strong_explicit(
        &hold->word, word, *word | MPR_HOLD_WAITERS, memory_order_relaxed,
        memory_order_relaxed);
    *word |= MPR_HOLD_WAITERS;
    if (set) {
        note_since(hold, *word, true);
    }
    return set;
}

/*
 * Who holds it and takes it again and again is slowed down by each look, so
 * there is about a microsecond between them.
 */
static void leave_alone(void)
{
    enum { PAUSES = 32 };
    for (int i = 0; i < PAUSES; i++) {
        mpr_pause();
    }
}

/* `*word` is what this has replaced. */
static int wait_for(const struct mpr_hold_of *of, mproc_deadline until,
                    uint64_t *word)
{
    struct mpr_hold *hold = of->hold;
    struct mpr_sleep sleep;
    uint64_t flag = 0; /* MPR_HOLD_WAITERS once this has slept */
    mpr_sleep_begin(&sleep, until);
    for (;;) {
        int err = look(hold, flag, word);
        if (err >= 0 && (flag || (*word & MPR_HOLD_WAITERS))) {
            note_since(hold, mpr_self_id() | MPR_HOLD_WAITERS, true);
        }
        if (err != MPROC_EBUSY) {
            return err;
        }
        if (sleep.expired) { /* of itself: this sleep was not ended by a wake */
            return MPROC_ETIMEDOUT;
        }
        if (mpr_sleep_spin(&sleep)) {
            leave_alone();
            continue;
        }
        if (!set_flag(hold, word)) {
            continue;
        }
        mpr_sleep_on_holder(&sleep, mpr_os_low_half(&hold->word),
                            (uint32_t)*word, holder_of(*word));
        flag = MPR_HOLD_WAITERS;
        if (!mpr_object_unchanged(of->object, of->tag)) {
            return MPROC_EINVAL;
        }
    }
}

/* The one who died still holds it: his death is for another to be told. */
static void hand_back(struct mpr_hold *hold, mpr_id dead)
{
    uint64_t word = atomic_load(&hold->word);
    while (holder_of(word) == mpr_self_id() &&
           !atomic_compare_exchange_weak(&hold->word, &word,
                                         dead | (word & MPR_HOLD_WAITERS))) {
    }
}

/*
 * The memory of an ended lock may be another lock by now: what this took of
 * it, the lock itself, after a death or not, or a wake-up, it gives back.
 */
static int leave_ended(struct mpr_thread *self, const struct mpr_hold_of *of,
                       int err, uint64_t replaced)
{
    if (err == 0) {
        (void)mpr_hold_release(self, of, true);
    } else {
        if (err == MPROC_RECOVERED) {
            hand_back(of->hold, holder_of(replaced));
        }
        mpr_held_add(self, -1);
    }
    mpr_os_wake(mpr_os_low_half(&of->hold->word), INT_MAX);
    return MPROC_EINVAL;
}

int mpr_hold_wait_(struct mpr_thread *self, const struct mpr_hold_of *of,
                   mproc_deadline until)
{
    uintptr_t outer = mpr_op_begin(self, of->object);
    uint64_t replaced;
    mpr_held_add(self, 1);
    int err = wait_for(of, until, &replaced);
    bool ended = !mpr_object_unchanged(of->object, of->tag);
    if (ended || err == MPROC_EINVAL) {
        err = leave_ended(self, of, err, replaced);
    } else if (err < 0) {
        mpr_held_add(self, -1);
    }
    mpr_op_end(self, outer);
    return err;
}

void mpr_hold_wake_(struct mpr_hold *hold)
{
    mpr_os_wake(mpr_os_low_half(&hold->word), 1);
}

bool mpr_hold_held(const struct mpr_hold *hold)
{
    uint64_t word = atomic_load_explicit(&hold->word, memory_order_acquire);
    return word != 0 && word != MPR_HOLD_ENDED &&
           !mpr_id_is_dead(holder_of(word));
}

void mpr_hold_holder(struct mpr_hold *hold, mpr_holder_fn *fn, void *user)
{
    uint64_t word, since;
    do {
        word = atomic_load(&hold->word);
        since = atomic_load(&hold->since);
    } while (atomic_load(&hold->word) != word);
    mpr_id holder = holder_of(word);
    if (word == 0 || word == MPR_HOLD_ENDED || mpr_id_is_dead(holder)) {
        return;
    }
    bool told = word & MPR_HOLD_WAITERS;
    fn(holder, told ? mpr_since_ns(since, holder) : 0, user);
}

void mpr_hold_end(struct mpr_hold *hold)
{
    atomic_store(&hold->word, MPR_HOLD_ENDED);
    mpr_os_wake(mpr_os_low_half(&hold->word), INT_MAX);
}
