/* SPDX-License-Identifier: MIT */
#include "sync/waiters.h"

enum { IDLE = 0, WAITING = 1, NOTIFIED = 2, STATES = 4 };

static uint64_t in_state(uint64_t wait, uint64_t state)
{
    return (wait & ~(uint64_t)(STATES - 1)) | state;
}

static bool is(uint64_t wait, uint64_t state)
{
    return wait % STATES == state;
}

void mpr_waiters_init(struct mpr_waiters *waiters)
{
    uint64_t next = atomic_load(&waiters->tickets);
    atomic_store_explicit(&waiters->first, next, memory_order_relaxed);
    atomic_store_explicit(&waiters->notified, next, memory_order_relaxed);
}

/* ---- the waiter ------------------------------------------------------- */

uint64_t mpr_waiters_join(struct mpr_thread *self, struct mpr_waiters *waiters)
{
    uint64_t before = atomic_load_explicit(&self->wait, memory_order_relaxed);
    uint64_t wait = in_state(before + STATES, WAITING);
    atomic_store_explicit(&self->wait_ticket,
                          atomic_fetch_add(&waiters->tickets, 1),
                          memory_order_relaxed);
    atomic_store_explicit(&self->wait_for, waiters, memory_order_relaxed);
    atomic_store(&self->wait, wait);
    return wait;
}

bool mpr_waiters_withdraw(struct mpr_thread *self, uint64_t wait)
{
    return atomic_compare_exchange_strong(&self->wait, &wait,
                                          in_state(wait, IDLE));
}

void mpr_waiters_leave(struct mpr_thread *self, uint64_t wait)
{
    atomic_store(&self->wait, in_state(wait, IDLE));
    atomic_store_explicit(&self->wait_for, NULL, memory_order_relaxed);
}

/* ---- those who notify ------------------------------------------------- */

/* One wait, as it was seen. */
struct seen {
    struct mpr_thread *thread;
    uint64_t wait;
    uint64_t ticket;
};

/* Whether record `i` waits here; what is read may be of two waits. */
static bool look_at(uint32_t i, const struct mpr_waiters *waiters,
                    struct seen *seen)
{
    struct mpr_thread *thread = &mpr_family->threads[i];
    if (atomic_load_explicit(&thread->wait_for, memory_order_relaxed) !=
        waiters) {
        return false;
    }
    seen->thread = thread;
    seen->wait = atomic_load_explicit(&thread->wait, memory_order_acquire);
    seen->ticket =
        atomic_load_explicit(&thread->wait_ticket, memory_order_relaxed);
    return is(seen->wait, WAITING) &&
           atomic_load_explicit(&thread->wait_for, memory_order_relaxed) ==
               waiters;
}

/* False: it is dead, or waits no longer. */
static bool tell(const struct seen *seen)
{
    struct mpr_thread *thread = seen->thread;
    mpr_id owner = atomic_load(&thread->owner);
    bool alive = owner != 0 && !mpr_id_is_dead(owner);
    uint64_t wait = seen->wait;
    bool told = atomic_compare_exchange_strong(
        &thread->wait, &wait, in_state(wait, alive ? NOTIFIED : IDLE));
    if (told && alive) {
        mpr_os_wake(mpr_os_low_half(&thread->wait), 1);
    }
    return told && alive;
}

enum { LOT = 64 };

/* Into the `count` longest waits in `lot`, in order, of which it has `room`. */
static unsigned insert(struct seen *lot, unsigned count, unsigned room,
                       const struct seen *seen)
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
                             struct seen *lot, unsigned room)
{
    uint64_t first =
        atomic_load_explicit(&waiters->first, memory_order_relaxed);
    uint32_t top = atomic_load(&mpr_family->threads_top);
    unsigned count = 0;
    for (uint32_t i = 1; i < top; i++) {
        struct seen seen;
        if (look_at(i, waiters, &seen) && seen.ticket >= first &&
            seen.ticket < end) {
            count = insert(lot, count, room, &seen);
        }
    }
    return count;
}

static void tell_longest(const struct mpr_waiters *waiters, uint64_t end,
                         unsigned n)
{
    struct seen lot[LOT];
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
    if (!mpr_waiters_withdraw(self, wait)) {
        tell_longest(waiters, atomic_load(&waiters->notified), 1);
    }
    mpr_waiters_leave(self, wait);
}

void mpr_waiters_notify(struct mpr_waiters *waiters, unsigned n)
{
    uint64_t end = atomic_load(&waiters->tickets);
    atomic_store(&waiters->notified, end);
    tell_longest(waiters, end, n);
}

void mpr_waiters_end(struct mpr_waiters *waiters)
{
    uint32_t top = atomic_load(&mpr_family->threads_top);
    for (uint32_t i = 1; i < top; i++) {
        struct seen seen;
        if (look_at(i, waiters, &seen)) {
            (void)tell(&seen);
        }
    }
}

/* ---- after a death ---------------------------------------------------- */

/* Who found the dead one alive may tell it still, until it is withdrawn. */
static void pass_on_of(struct mpr_thread *dead,
                       bool (*live)(const struct mpr_waiters *waiters))
{
    uint64_t wait = atomic_load(&dead->wait);
    if (is(wait, WAITING) && !mpr_waiters_withdraw(dead, wait)) {
        wait = atomic_load(&dead->wait);
    }
    const struct mpr_waiters *waiters = atomic_load(&dead->wait_for);
    if (is(wait, NOTIFIED) && waiters != NULL && live(waiters) &&
        atomic_load(&dead->wait_ticket) >= atomic_load(&waiters->first)) {
        tell_longest(waiters, atomic_load(&waiters->notified), 1);
    }
    mpr_waiters_leave(dead, wait);
}

void mpr_waiters_pass_on(mpr_id dead,
                         bool (*live)(const struct mpr_waiters *waiters))
{
    uint32_t top = atomic_load(&mpr_family->threads_top);
    for (uint32_t i = 1; i < top; i++) {
        if (atomic_load(&mpr_family->threads[i].owner) == dead) {
            pass_on_of(&mpr_family->threads[i], live);
        }
    }
}
