/* SPDX-License-Identifier: MIT */
#include "chan/lease.h"

static mpr_id load_owner(const struct mpr_lease *lease)
{
    return atomic_load_explicit(&lease->owner, memory_order_relaxed);
}

static void store_owner(struct mpr_lease *lease, mpr_id owner)
{
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&lease->owner, owner, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
}

static struct mpr_lease_chunk *oldest(const struct mpr_leases *leases)
{
    return atomic_load_explicit(&leases->oldest, memory_order_relaxed);
}

static void set_out(struct mpr_leases *leases, uint64_t out)
{
    atomic_store_explicit(&leases->out, out, memory_order_relaxed);
}

static void count_ready(struct mpr_leases *leases, uint32_t n)
{
    uint64_t word = atomic_load_explicit(&leases->ready, memory_order_relaxed);
    atomic_store(&leases->ready, ((word >> 32) + 1) << 32 | n);
}

void mpr_leases_init(struct mpr_leases *leases)
{
    atomic_store(&leases->oldest, NULL);
    leases->newest = NULL;
    set_out(leases, 0);
    count_ready(leases, 0);
}

int mpr_leases_fetch(struct mpr_thread *self)
{
    size_t size = sizeof(struct mpr_lease_chunk);
    return mpr_heap_alloc(self, size, MPR_HAND_SECOND) != NULL ? 0
                                                               : MPROC_ENOMEM;
}

/* ---- making ----------------------------------------------------------- */

void mpr_leases_link(struct mpr_leases *leases, struct mpr_thread *self)
{
    struct mpr_lease_chunk *chunk = mpr_hand(self, MPR_HAND_SECOND);
    chunk->next = NULL;
    chunk->of = leases;
    chunk->used = 0;
    chunk->left = 0;
    atomic_signal_fence(memory_order_seq_cst);
    if (oldest(leases) == NULL) {
        atomic_store(&leases->oldest, chunk);
    } else {
        leases->newest->next = chunk;
    }
    mpr_hand_set(self, MPR_HAND_SECOND, NULL);
    leases->newest = chunk;
}

/* A place for one more: in the newest chunk or in another. */
static int make_room(struct mpr_leases *leases, struct mpr_thread *self)
{
    struct mpr_lease_chunk *newest = leases->newest;
    if (mpr_likely(newest != NULL && newest->used < MPR_LEASES_A_CHUNK)) {
        return 0;
    }
    if (newest != NULL && newest->left == 0) {
        newest->used = 0;
        return 0;
    }
    if (mpr_hand(self, MPR_HAND_SECOND) == NULL) {
        return MPROC_EAGAIN;
    }
    mpr_leases_link(leases, self);
    return 0;
}

int mpr_leases_add(struct mpr_leases *leases, struct mpr_thread *self,
                   const struct mpr_lease *like, struct mpr_lease_place *place)
{
    int err = make_room(leases, self);
    if (err < 0) {
        return err;
    }
    struct mpr_lease_chunk *chunk = leases->newest;
    *place = (struct mpr_lease_place){chunk, chunk->used};
    struct mpr_lease *lease = mpr_lease_at(*place);
    lease->seq = like->seq;
    lease->thread = self->serial;
    lease->block = like->block;
    lease->size = like->size;
    mpr_held_add(self, 1);
    store_owner(lease, mpr_self_id() | load_owner(like));
    chunk->left++;
    set_out(leases, mpr_leases_out(leases) + 1);
    atomic_signal_fence(memory_order_seq_cst);
    chunk->used++;
    atomic_signal_fence(memory_order_seq_cst);
    return 0;
}

/* ---- ending ----------------------------------------------------------- */

bool mpr_lease_is_held(const struct mpr_leases *leases,
                       struct mpr_lease_place place, uint64_t seq)
{
    const struct mpr_lease_chunk *chunk = place.chunk;
    return (uintptr_t)chunk % MPR_LINE == 0 &&
           mpr_family_holds(chunk, sizeof *chunk) && chunk->of == leases &&
           place.index < chunk->used &&
           (uintptr_t)chunk->lease[place.index].seq == (uintptr_t)seq &&
           load_owner(&chunk->lease[place.index]) ==
               (mpr_self_id() | MPR_LEASE_HELD);
}

void mpr_lease_let_go(struct mpr_lease_place place)
{
    struct mpr_lease *lease = mpr_lease_at(place);
    store_owner(lease, load_owner(lease) & ~MPR_LEASE_HELD);
}

/* Into the hand MPR_HAND_SECOND of `whose`. */
static void unlink_chunk(struct mpr_leases *leases,
                         struct mpr_lease_chunk *chunk,
                         struct mpr_thread *whose)
{
    struct mpr_lease_chunk *before = oldest(leases);
    chunk->of = NULL;
    mpr_hand_set(whose, MPR_HAND_SECOND, chunk);
    if (chunk == before) {
        atomic_store(&leases->oldest, chunk->next);
        return;
    }
    while (before->next != chunk) {
        before = before->next;
    }
    before->next = chunk->next;
}

void mpr_lease_end(struct mpr_leases *leases, struct mpr_lease_place place,
                   struct mpr_thread *whose)
{
    struct mpr_lease *lease = mpr_lease_at(place);
    struct mpr_lease_chunk *chunk = place.chunk;
    mpr_id owner = load_owner(lease);
    if (lease->block != NULL) {
        mpr_hand_set(whose, MPR_HAND_BLOCK, lease->block);
    }
    store_owner(lease, 0);
    if (owner == MPR_LEASE_READY) {
        count_ready(leases, (uint32_t)mpr_leases_ready(leases) - 1);
    } else if ((owner & ~MPR_LEASE_HELD) == mpr_self_id()) {
        mpr_held_add(whose, -1);
    }
    set_out(leases, mpr_leases_out(leases) - 1);
    if (--chunk->left == 0 && chunk != leases->newest) {
        unlink_chunk(leases, chunk, whose);
    }
}

/* ---- looking through them --------------------------------------------- */

/* The next that has not ended, from `*at` on. NULL: there is none. */
static struct mpr_lease *find(struct mpr_lease_place *at)
{
    while (at->chunk != NULL) {
        if (at->index == at->chunk->used || at->chunk->left == 0) {
            *at = (struct mpr_lease_place){at->chunk->next, 0};
        } else if (load_owner(mpr_lease_at(*at)) != 0) {
            return mpr_lease_at(*at);
        } else {
            at->index++;
        }
    }
    return NULL;
}

/* The verdict about one process, which may take long. */
struct verdict {
    mpr_id id;
    bool dead;
};

static bool is_dead(struct verdict *last, mpr_id owner)
{
    owner &= ~MPR_LEASE_HELD;
    if (owner != last->id) {
        *last = (struct verdict){owner, owner != 0 && mpr_id_is_dead(owner)};
    }
    return last->dead;
}

/* How well a lease suits who acknowledges: 3 its own, 2 its process's. */
static int suits(const struct mpr_lease *lease, const struct mpr_thread *self,
                 struct verdict *last)
{
    mpr_id owner = load_owner(lease);
    if (owner & MPR_LEASE_HELD) {
        return 0;
    }
    if (owner == mpr_self_id()) {
        return 2 + (lease->thread == self->serial);
    }
    return !is_dead(last, owner);
}

int mpr_leases_acknowledge(struct mpr_leases *leases, struct mpr_thread *self,
                           bool anyones)
{
    struct mpr_lease_place at = {oldest(leases), 0}, best = at;
    struct verdict last = {0, false};
    int best_suits = anyones ? 0 : 1;
    for (const struct mpr_lease *lease;
         best_suits < 3 && (lease = find(&at)) != NULL; at.index++) {
        int this_suits = suits(lease, self, &last);
        if (this_suits > best_suits) {
            best = at;
            best_suits = this_suits;
        }
    }
    if (best_suits == (anyones ? 0 : 1)) {
        return MPROC_EINVAL;
    }
    mpr_lease_end(leases, best, self);
    return 0;
}

bool mpr_leases_outstanding(const struct mpr_leases *leases, bool redeliver)
{
    struct mpr_lease_place at = {oldest(leases), 0};
    struct verdict last = {0, false};
    for (const struct mpr_lease *lease; (lease = find(&at)) != NULL;
         at.index++) {
        if (redeliver || !is_dead(&last, load_owner(lease))) {
            return true;
        }
    }
    return false;
}

bool mpr_leases_first_ready(const struct mpr_leases *leases,
                            struct mpr_lease_place *place)
{
    *place = (struct mpr_lease_place){oldest(leases), 0};
    if (mpr_likely((uint32_t)mpr_leases_ready(leases) == 0)) {
        return false;
    }
    const struct mpr_lease *lease;
    while ((lease = find(place)) != NULL &&
           load_owner(lease) != MPR_LEASE_READY) {
        place->index++;
    }
    return lease != NULL;
}

void mpr_lease_take_over(struct mpr_leases *leases,
                         struct mpr_lease_place place, struct mpr_thread *self)
{
    struct mpr_lease *lease = mpr_lease_at(place);
    lease->thread = self->serial;
    mpr_held_add(self, 1);
    store_owner(lease, mpr_self_id() | MPR_LEASE_HELD);
    count_ready(leases, (uint32_t)mpr_leases_ready(leases) - 1);
}

/* ---- what is left behind ---------------------------------------------- */

static bool hands_are_full(struct mpr_thread *whose)
{
    return mpr_hand(whose, MPR_HAND_BLOCK) != NULL ||
           mpr_hand(whose, MPR_HAND_SECOND) != NULL;
}

bool mpr_leases_reclaim(struct mpr_leases *leases, struct mpr_thread *whose,
                        bool redeliver)
{
    struct mpr_lease_place at = {oldest(leases), 0};
    struct verdict last = {0, false};
    uint32_t ready = (uint32_t)mpr_leases_ready(leases), before = ready;
    for (struct mpr_lease *lease;
         !hands_are_full(whose) && (lease = find(&at)) != NULL; at.index++) {
        if (!is_dead(&last, load_owner(lease))) {
            continue;
        }
        if (redeliver) {
            store_owner(lease, MPR_LEASE_READY);
            ready++;
        } else {
            mpr_lease_end(leases, at, whose);
        }
    }
    if (ready != before) {
        count_ready(leases, ready);
    }
    return hands_are_full(whose);
}

bool mpr_leases_drop(struct mpr_leases *leases, struct mpr_thread *whose)
{
    struct mpr_lease_place at = {oldest(leases), 0};
    while (!hands_are_full(whose) && find(&at) != NULL) {
        mpr_lease_end(leases, at, whose);
    }
    struct mpr_lease_chunk *chunk = oldest(leases);
    if (!hands_are_full(whose) && chunk != NULL) {
        unlink_chunk(leases, chunk, whose);
    }
    return hands_are_full(whose);
}

/* ---- repair ----------------------------------------------------------- */

/* It is named here, so it is in no hand. */
static void settle(struct mpr_thread *hands, enum mpr_hand hand,
                   const void *thing)
{
    if (hands != NULL && thing != NULL && mpr_hand(hands, hand) == thing) {
        mpr_hand_set(hands, hand, NULL);
    }
}

static void repair_chunk(struct mpr_leases *leases,
                         struct mpr_lease_chunk *chunk, uint64_t taken)
{
    while (chunk->used > 0 && chunk->lease[chunk->used - 1].seq >= taken) {
        chunk->used--;
    }
    chunk->of = leases;
    chunk->left = 0;
    for (uint32_t i = 0; i < chunk->used; i++) {
        chunk->left += load_owner(&chunk->lease[i]) != 0;
    }
}

static uint32_t settle_leases(const struct mpr_lease_chunk *chunk,
                              struct mpr_thread *hands)
{
    uint32_t ready = 0;
    for (uint32_t i = 0; i < chunk->used; i++) {
        mpr_id owner = load_owner(&chunk->lease[i]);
        ready += owner == MPR_LEASE_READY;
        if (owner != 0) {
            settle(hands, MPR_HAND_BLOCK, chunk->lease[i].block);
        }
    }
    return ready;
}

void mpr_leases_repair(struct mpr_leases *leases, uint64_t taken,
                       struct mpr_thread *hands)
{
    uint64_t out = 0;
    uint32_t ready = 0;
    leases->newest = NULL;
    for (struct mpr_lease_chunk *chunk = oldest(leases); chunk != NULL;
         chunk = chunk->next) {
        settle(hands, MPR_HAND_SECOND, chunk);
        repair_chunk(leases, chunk, taken);
        ready += settle_leases(chunk, hands);
        out += chunk->left;
        leases->newest = chunk;
    }
    set_out(leases, out);
    count_ready(leases, ready);
}

void mpr_leases_forget(struct mpr_leases *leases, const void *block)
{
    struct mpr_lease_place at = {oldest(leases), 0};
    for (struct mpr_lease *lease; block != NULL && (lease = find(&at)) != NULL;
         at.index++) {
        if (lease->block == block) {
            store_owner(lease, 0);
            at.chunk->left--;
            set_out(leases, mpr_leases_out(leases) - 1);
            return;
        }
    }
}
