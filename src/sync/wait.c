/* SPDX-License-Identifier: MIT */
#include "sync/wait.h"

static uint64_t in_state(uint64_t wait, enum mpr_wait_state state)
{
    return wait - wait % MPR_WAIT_STATES + state;
}

uint64_t mpr_wait_begin(struct mpr_thread *self, const void *object,
                        uint64_t ticket)
{
    uint64_t before = atomic_load_explicit(&self->wait, memory_order_relaxed);
    uint64_t wait = in_state(before + MPR_WAIT_STATES, MPR_WAIT_ON);
    atomic_store_explicit(&self->wait_ticket, ticket, memory_order_relaxed);
    atomic_store_explicit(&self->wait_for, object, memory_order_relaxed);
    atomic_store(&self->wait, wait);
    return wait;
}

bool mpr_wait_withdraw(struct mpr_thread *self, uint64_t wait)
{
    return atomic_compare_exchange_strong(&self->wait, &wait,
                                          in_state(wait, MPR_WAIT_OVER));
}

void mpr_wait_end(struct mpr_thread *self, uint64_t wait)
{
    atomic_store(&self->wait, in_state(wait, MPR_WAIT_OVER));
    atomic_store_explicit(&self->wait_for, NULL, memory_order_relaxed);
}

static const void *waits_for(struct mpr_thread *thread)
{
    return atomic_load_explicit(&thread->wait_for, memory_order_relaxed);
}

/* What is read may be of two waits, unless `word` is still the same. */
static struct mpr_wait look_at(struct mpr_thread *thread)
{
    struct mpr_wait seen = {.thread = thread};
    seen.word = atomic_load_explicit(&thread->wait, memory_order_acquire);
    seen.ticket =
        atomic_load_explicit(&thread->wait_ticket, memory_order_relaxed);
    return seen;
}

bool mpr_wait_next(uint32_t *place, const void *object, struct mpr_wait *seen)
{
    uint32_t top = atomic_load(&mpr_family->threads_top);
    while (++*place < top) {
        struct mpr_thread *thread = &mpr_family->threads[*place];
        if (waits_for(thread) != object) {
            continue;
        }
        *seen = look_at(thread);
        if (mpr_wait_state(seen->word) == MPR_WAIT_ON &&
            waits_for(thread) == object) {
            return true;
        }
    }
    return false;
}

bool mpr_wait_tell(const struct mpr_wait *seen, enum mpr_wait_state what)
{
    uint64_t word = seen->word;
    return atomic_compare_exchange_strong(&seen->thread->wait, &word,
                                          in_state(word, what));
}

bool mpr_wait_next_dead(uint32_t *place, mpr_id dead, enum mpr_object_type type,
                        struct mpr_wait *seen)
{
    struct mpr_thread *threads = mpr_family->threads;
    struct mpr_thread *thread = *place != 0 ? &threads[*place] : NULL;
    while ((thread = mpr_id_thread_after(dead, thread)) != NULL) {
        *place = (uint32_t)(thread - threads);
        if (!mpr_object_is(waits_for(thread), type)) {
            continue;
        }
        *seen = look_at(thread);
        if (mpr_wait_state(seen->word) != MPR_WAIT_OVER) {
            return true;
        }
    }
    return false;
}
