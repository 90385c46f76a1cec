/* SPDX-License-Identifier: MIT */
#include <mproc/event.h>

#include "shm/object.h"
#include "shm/sleep.h"

/*
 * `word` is {generation:30 | WAITERS:1 | SET:1}. A set of a clear event begins
 * a new generation, so who waited since an older one knows of it, whatever
 * happened to the flag afterwards. WAITERS is set by who is about to sleep on
 * the word; a setter takes it away after it has woken them, so that another
 * setter wakes in the place of one that was stopped in between.
 * `bell` is there for those who wait for this among many.
 * Locks: none. Publishes: the compare-and-swap that sets SET.
 * Survives: a dead waiter leaves WAITERS, which costs one setter a system call;
 * a setter has `op` set from before it sets until it has woken.
 */
struct mproc_event {
    struct mpr_object object;
    _Atomic uint32_t word;
    _Atomic uint32_t bell;
};

enum { SET = 1, WAITERS = 2, GENERATION = 4 };

static_assert(sizeof(struct mproc_event) <= MPR_LINE, "one line an event");

static uint32_t generation_of(uint32_t word)
{
    return word / GENERATION;
}

static void end_event(struct mpr_thread *self, struct mpr_thread *whose,
                      struct mpr_object *object)
{
    (void)self;
    (void)whose;
    mproc_event *e = (mproc_event *)object;
    atomic_fetch_add(&e->word, GENERATION);
    mpr_os_wake(&e->word, INT_MAX);
    mpr_bell_ring(&e->bell, INT_MAX);
}

/* `moment` is the generation as the wait began, + 1. */
static int look(struct mpr_thread *self, const void *handle, uint64_t tag,
                uint32_t *moment)
{
    (void)self;
    if (tag == 0 || mpr_object_tag(handle, MPR_EVENT) != tag) {
        return MPROC_EINVAL;
    }
    const mproc_event *e = handle;
    uint32_t word = atomic_load(&e->word);
    if (*moment == 0) {
        *moment = generation_of(word) + 1;
    }
    bool was_set = (word & SET) || generation_of(word) + 1 != *moment;
    return was_set ? 0 : MPROC_ETIMEDOUT;
}

static _Atomic uint32_t *bell(const void *handle)
{
    return &((mproc_event *)handle)->bell;
}

__attribute__((constructor)) static void register_class(void)
{
    static const struct mpr_object_wait wait = {.look = look, .bell = bell};
    static const struct mpr_object_class class = {.type = MPR_EVENT,
                                                  .size = sizeof(mproc_event),
                                                  .end = end_event,
                                                  .wait = &wait};
    mpr_object_register(&class);
}

int mproc_event_new(mproc_event **out)
{
    struct mpr_thread *self;
    void *made;
    int err =
        out == NULL ? MPROC_EINVAL : mpr_object_make(&self, MPR_EVENT, &made);
    if (err < 0) {
        return err;
    }
    mproc_event *e = made;
    uint32_t last = atomic_load_explicit(&e->word, memory_order_relaxed);
    atomic_store_explicit(&e->word, last & ~(uint32_t)(SET | WAITERS),
                          memory_order_relaxed);
    mpr_object_publish(self, e);
    *out = e;
    return 0;
}

static void set(mproc_event *e)
{
    uint32_t word = atomic_load_explicit(&e->word, memory_order_relaxed);
    uint32_t next;
    do {
        next = word & SET ? word : (word + GENERATION) | SET;
    } while (!atomic_compare_exchange_weak_explicit(
        &e->word, &word, next, memory_order_seq_cst, memory_order_relaxed));
    mpr_bell_ring(&e->bell, INT_MAX);
    if (next & WAITERS) {
        mpr_os_wake(&e->word, INT_MAX);
        atomic_compare_exchange_strong_explicit(
            &e->word, &next, next & ~(uint32_t)WAITERS, memory_order_relaxed,
            memory_order_relaxed);
    }
}

/* Perhaps in a signal handler: then nothing here claims or locks. */
int mproc_event_set(mproc_event *e)
{
    if (!mpr_object_is(e, MPR_EVENT)) {
        return MPROC_EINVAL;
    }
    struct mpr_thread *self = mpr_self_if_any();
    if (self == NULL) {
        struct mpr_slot *slot = mpr_nameless_begin();
        set(e);
        mpr_nameless_end(slot);
    } else {
        uintptr_t outer = mpr_op_begin(self, e);
        set(e);
        mpr_op_end(self, outer);
    }
    return 0;
}

int mproc_event_clear(mproc_event *e)
{
    if (!mpr_object_is(e, MPR_EVENT)) {
        return MPROC_EINVAL;
    }
    atomic_fetch_and_explicit(&e->word, ~(uint32_t)SET, memory_order_acq_rel);
    return 0;
}

bool mproc_event_is_set(const mproc_event *e)
{
    return mpr_object_is(e, MPR_EVENT) &&
           (atomic_load_explicit(&e->word, memory_order_acquire) & SET);
}

static bool announce(mproc_event *e, uint32_t *word)
{
    if (*word & WAITERS) {
        return true;
    }
    bool done = atomic_compare_exchange_strong_explicit(
        &e->word, word, *word | WAITERS, memory_order_relaxed,
        memory_order_relaxed);
    *word |= WAITERS;
    return done;
}

/* `first` is the word as this began to wait. */
static int wait_since(mproc_event *e, uint64_t tag, uint32_t first,
                      mproc_deadline until)
{
    struct mpr_sleep sleep;
    mpr_sleep_begin(&sleep, until);
    for (;;) {
        uint32_t word = atomic_load_explicit(&e->word, memory_order_acquire);
        /* after the word: its end, too, is a new generation */
        if (!mpr_object_unchanged(e, tag)) {
            return MPROC_EINVAL;
        }
        if ((word & SET) || generation_of(word) != generation_of(first)) {
            return 0;
        }
        if (sleep.expired) {
            return MPROC_ETIMEDOUT;
        }
        if (mpr_sleep_spin(&sleep) || !announce(e, &word)) {
            continue;
        }
        mpr_sleep_on(&sleep, &e->word, word);
    }
}

int mproc_event_wait(mproc_event *e, mproc_deadline until)
{
    struct mpr_thread *self;
    uint64_t tag = mpr_object_tag(e, MPR_EVENT);
    if (tag == 0) {
        return MPROC_EINVAL;
    }
    uint32_t first = atomic_load_explicit(&e->word, memory_order_acquire);
    if (first & SET) {
        return 0;
    }
    int err = mpr_self(&self);
    if (err < 0) {
        return err;
    }
    uintptr_t outer = mpr_op_begin(self, e);
    mpr_op_waits(self, outer);
    err = wait_since(e, tag, first, until);
    mpr_op_end(self, outer);
    return err;
}

void mproc_event_free(mproc_event *e)
{
    mpr_object_free(e, MPR_EVENT);
}
