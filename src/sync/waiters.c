/* SPDX-License-Identifier: MIT */
#include "sync/condition.h"

/* What their records name. */
static const void *object_of(const struct mpr_waiters *waiters)
{
    return (const char *)waiters - offsetof(mproc_condition, waiters);
}

void mpr_waiters_init(struct mpr_waiters *waiters)
{
    uint64_t next = atomic_load(&waiters->tickets);
    atomic_store_explicit(&waiters->first, next, memory_order_relaxed);
    atomic_store_explicit(&waiters->notified, next, memory_order_relaxed);
}

uint64_t mpr_waiters_join(struct mpr_thread *self, struct mpr_waiters *waiters)
{
    return mpr_wait_begin(self, object_of(waiters),
                          atomic_fetch_add(&waiters->tickets, 1));
}

/* False: it is dead, or waits no longer. */
static bool tell(const struct mpr_wait *seen)
{
    mpr_id owner = atomic_load(&seen->thread->owner);
    bool alive = owner != 0 && !mpr_id_is_dead(owner);
    bool told = mpr_wait_tell(seen, alive ? MPR_WAIT_TOLD : MPR_WAIT_OVER);
    if (told && alive) {
        mpr_os_wake(mpr_os_low_half(&seen->thread->wait), 1);
    }
    return told && alive;
}

enum { LOT = 64 };

/* Into the `count` longest waits in `lot`, in order, of which it has `room`. */
static unsigned insert(struct mpr_wait *lot, unsigned count, unsigned room,
                       const struct mpr_wait *seen)
{
    unsigned at = count < room ? count++ : room;
    for (; at > 0 && lot[at - 1].ticket > seen->ticket; at--) {
        if (at < room) {
            lot[at] = lot[at - 1];
        }
    }
    if (at < room) {
        lot[at] = *seen;
    }
    return count;
}

/*
 * The longest waits of those with a ticket from `first` to before `end`: up to
 * `room` of them, in order.
 */
static unsigned find_longest(const struct mpr_waiters *waiters, uint64_t end,
                             struct mpr_wait *lot, unsigned room)
{
    uint64_t first =
        atomic_load_explicit(&waiters->first, memory_order_relaxed);
    struct mpr_wait seen;
    unsigned count = 0;
    for (uint32_t at = 0; mpr_wait_next(&at, object_of(waiters), &seen);) {
        if (seen.ticket >= first && seen.ticket < end) {
            count = insert(lot, count, room, &seen);
        }
    }
    return count;
}

static void tell_longest(const struct mpr_waiters *waiters, uint64_t end,
                         unsigned n)
{
    struct mpr_wait lot[LOT];
    while (n > 0) {
        unsigned count =
            find_longest(waiters, end, lot, n < LOT ? n : (unsigned)LOT);
        for (unsigned i = 0; i < count; i++) {
            n -= tell(&lot[i]);
        }
        if (count == 0) {
            return;
        }
    }
}

void mpr_waiters_decline(struct mpr_thread *self, struct mpr_waiters *waiters,
                         uint64_t wait)
{
    if (!mpr_wait_withdraw(self, wait)) {
        tell_longest(waiters, atomic_load(&waiters->notified), 1);
    }
    mpr_wait_end(self, wait);
}

void mpr_waiters_notify(struct mpr_waiters *waiters, unsigned n)
{
    uint64_t end = atomic_load(&waiters->tickets);
    atomic_store(&waiters->notified, end);
    tell_longest(waiters, end, n);
}

void mpr_waiters_end(struct mpr_waiters *waiters)
{
    struct mpr_wait seen;
    for (uint32_t at = 0; mpr_wait_next(&at, object_of(waiters), &seen);) {
        (void)tell(&seen);
    }
}

/* ---- after a death ---------------------------------------------------- */

/* Who found the dead one alive may tell it still, until it is withdrawn. */
static void pass_on_of(const struct mpr_wait *seen)
{
    struct mpr_thread *dead = seen->thread;
    const mproc_condition *c = atomic_load(&dead->wait_for);
    if (mpr_wait_state(seen->word) == MPR_WAIT_ON) {
        (void)mpr_wait_withdraw(dead, seen->word);
    }
    bool told = mpr_wait_heard(dead) == MPR_WAIT_TOLD;
    if (told && seen->ticket >= atomic_load(&c->waiters.first)) {
        tell_longest(&c->waiters, atomic_load(&c->waiters.notified), 1);
    }
    mpr_wait_end(dead, seen->word);
}

void mpr_waiters_pass_on(mpr_id dead)
{
    struct mpr_wait seen;
    for (uint32_t at = 0;
         mpr_wait_next_dead(&at, dead, MPR_CONDITION, &seen);) {
        pass_on_of(&seen);
    }
}
