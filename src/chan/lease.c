/* SPDX-License-Identifier: MIT */
#include "chan/lease.h"

static mpr_id load_owner(const struct mpr_lease *lease)
{
    return atomic_load_explicit(&lease->owner, memory_order_relaxed);
}

static void clear(struct mpr_lease *lease)
{
    atomic_store_explicit(&lease->owner, 0, memory_order_release);
}

static void begin_chunk(struct mpr_lease_chunk *chunk, uint64_t base_seq)
{
    chunk->base_seq = base_seq;
    atomic_store_explicit(&chunk->next, NULL, memory_order_relaxed);
    for (int i = 0; i < MPR_LEASES_A_CHUNK; i++) {
        clear(&chunk->lease[i]);
    }
}

void mpr_leases_init(struct mpr_leases *leases, struct mpr_thread *self)
{
    struct mpr_lease_chunk *first = mpr_hand(self, MPR_HAND_SECOND);
    begin_chunk(first, 0);
    leases->newest = first;
    leases->oldest = first;
    mpr_hand_set(self, MPR_HAND_SECOND, NULL);
}

static struct mpr_lease_chunk *next_of(struct mpr_lease_chunk *chunk)
{
    return atomic_load_explicit(&chunk->next, memory_order_acquire);
}

int mpr_leases_fetch(struct mpr_thread *self)
{
    size_t size = sizeof(struct mpr_lease_chunk);
    return mpr_heap_alloc(self, size, MPR_HAND_SECOND) != NULL ? 0
                                                               : MPROC_ENOMEM;
}

static void link_chunk(struct mpr_leases *leases, struct mpr_thread *self,
                       uint64_t seq)
{
    struct mpr_lease_chunk *chunk = mpr_hand(self, MPR_HAND_SECOND);
    begin_chunk(chunk, seq);
    atomic_store_explicit(&leases->newest->next, chunk, memory_order_release);
    mpr_hand_set(self, MPR_HAND_SECOND, NULL);
    leases->newest = chunk;
}

/* No lease of a living process is in it; clears those of the dead. */
static bool finished(struct mpr_lease_chunk *chunk)
{
    for (int i = 0; i < MPR_LEASES_A_CHUNK; i++) {
        mpr_id owner = load_owner(&chunk->lease[i]);
        if (owner != 0 && !mpr_id_is_dead(owner)) {
            return false;
        }
        clear(&chunk->lease[i]);
    }
    return true;
}

/* A place for the lease of message `seq`: in the newest chunk or in another. */
static int make_room(struct mpr_leases *leases, struct mpr_thread *self,
                     uint64_t seq)
{
    struct mpr_lease_chunk *newest = leases->newest;
    if (mpr_likely(seq - newest->base_seq < MPR_LEASES_A_CHUNK)) {
        return 0;
    }
    if (newest == leases->oldest && finished(newest)) {
        newest->base_seq = seq;
        return 0;
    }
    if (mpr_hand(self, MPR_HAND_SECOND) == NULL &&
        !mpr_leases_drop_chunk(leases, self, false)) {
        return MPROC_EAGAIN;
    }
    link_chunk(leases, self, seq);
    return 0;
}

int mpr_leases_add(struct mpr_leases *leases, struct mpr_thread *self,
                   uint64_t seq)
{
    int err = make_room(leases, self, seq);
    if (err < 0) {
        return err;
    }
    struct mpr_lease *lease =
        &leases->newest->lease[seq - leases->newest->base_seq];
    lease->thread = self->serial;
    mpr_held_add(self, 1);
    atomic_store_explicit(&lease->owner, mpr_self_id(), memory_order_release);
    return 0;
}

/* ---- looking through them --------------------------------------------- */

struct place {
    struct mpr_lease_chunk *chunk;
    unsigned index;
};

/* The next valid lease from `*at` on that is not acknowledged. */
static struct mpr_lease *find(struct place *at, uint64_t head_seq)
{
    while (at->chunk != NULL && at->chunk->base_seq + at->index < head_seq) {
        if (at->index == MPR_LEASES_A_CHUNK) {
            *at = (struct place){next_of(at->chunk), 0};
        } else if (load_owner(&at->chunk->lease[at->index]) != 0) {
            return &at->chunk->lease[at->index];
        } else {
            at->index++;
        }
    }
    return NULL;
}

/* How well a lease suits who acknowledges: 2 its own, 1 its process's. */
static int suits(const struct mpr_lease *lease, const struct mpr_thread *self)
{
    bool process = load_owner(lease) == mpr_self_id();
    return process ? 1 + (lease->thread == self->serial) : 0;
}

int mpr_leases_acknowledge(struct mpr_leases *leases, struct mpr_thread *self,
                           uint64_t head_seq)
{
    struct place at = {leases->oldest, 0};
    struct mpr_lease *best = NULL;
    int best_suits = -1;
    for (struct mpr_lease *lease;
         best_suits < 2 && (lease = find(&at, head_seq)) != NULL; at.index++) {
        if (suits(lease, self) > best_suits) {
            best = lease;
            best_suits = suits(lease, self);
        }
    }
    if (best == NULL) {
        return MPROC_EINVAL;
    }
    bool own = best_suits > 0;
    clear(best);
    if (own) {
        mpr_held_add(self, -1);
    }
    return 0;
}

bool mpr_leases_outstanding(struct mpr_leases *leases, uint64_t head_seq)
{
    struct place at = {leases->oldest, 0};
    for (struct mpr_lease *lease; (lease = find(&at, head_seq)) != NULL;
         at.index++) {
        if (!mpr_id_is_dead(load_owner(lease))) {
            return true;
        }
        clear(lease);
    }
    return false;
}

/* ---- repair and giving back ------------------------------------------- */

void mpr_leases_repair(struct mpr_leases *leases, uint64_t head_seq,
                       struct mpr_thread *hands)
{
    struct mpr_lease_chunk *chunk = leases->oldest;
    void *in_hand = hands != NULL ? mpr_hand(hands, MPR_HAND_SECOND) : NULL;
    for (; chunk != NULL; chunk = next_of(chunk)) {
        leases->newest = chunk;
        if (chunk == in_hand) { /* linked, or not yet unlinked */
            mpr_hand_set(hands, MPR_HAND_SECOND, NULL);
        }
    }
    if (leases->oldest == NULL) { /* ended */
        return;
    }
    uint64_t beyond = head_seq - leases->newest->base_seq;
    if (beyond < MPR_LEASES_A_CHUNK) {
        clear(&leases->newest->lease[beyond]);
    }
}

static void unlink_chunk(struct mpr_leases *leases,
                         struct mpr_lease_chunk *before,
                         struct mpr_lease_chunk *next)
{
    if (before == NULL) {
        leases->oldest = next;
    } else {
        atomic_store_explicit(&before->next, next, memory_order_release);
    }
}

bool mpr_leases_drop_chunk(struct mpr_leases *leases, struct mpr_thread *whose,
                           bool all)
{
    struct mpr_lease_chunk *before = NULL, *chunk = leases->oldest, *next;
    for (; chunk != NULL; before = chunk, chunk = next) {
        next = next_of(chunk);
        if (all || (next != NULL && finished(chunk))) {
            mpr_hand_set(whose, MPR_HAND_SECOND, chunk);
            unlink_chunk(leases, before, next);
            return true;
        }
    }
    return false;
}
