/* SPDX-License-Identifier: MIT */
/*
 * Leases: which messages are out of a queue, and with whom: got and not
 * acknowledged, taken in place, or on loan to be written. What a process had
 * out when it ended goes back to the queue or to the heap.
 */
#ifndef MPR_CHAN_LEASE_H
#define MPR_CHAN_LEASE_H

#include "shm/heap.h"

enum { MPR_LEASES_A_CHUNK = 50 };

/*
 * The word of an owner is the id of a process, and 0 once the lease has ended.
 * MPR_LEASE_HELD beside the id: it does not end by being acknowledged.
 * MPR_LEASE_READY, alone: the owner is dead, and the message goes to the next
 * who wants one.
 */
#define MPR_LEASE_HELD UINT64_C(1)
#define MPR_LEASE_READY UINT64_C(1)

/*
 * `owner` is the truth of who has it. `seq` grows from lease to lease. `thread`
 * is the serial of the thread that took it. `block` is where the message lies,
 * NULL when its holder has a copy, and nothing else is to be given back; `size`
 * is that of the message. All are written before `owner`.
 */
struct mpr_lease {
    _Atomic mpr_id owner;
    uint64_t seq;
    uint64_t thread;
    char *block;
    uint64_t size;
};

/*
 * `used` leases have been made in it, and `left` have not ended. `of`: what it
 * is a part of, NULL once it is not.
 */
struct mpr_lease_chunk {
    struct mpr_lease_chunk *next;
    const struct mpr_leases *of;
    uint32_t used;
    uint32_t left;
    struct mpr_lease lease[MPR_LEASES_A_CHUNK];
};

/*
 * Chunks follow each other in order, and so do the leases in them. A chunk with
 * nothing left is given back, but the newest, which is used again: so there is
 * at most one more than leases that are out.
 * `oldest`, the links, `used` and the leases are the truth; `newest`, `left`,
 * `out` (leases that have not ended), and `ready` are caches of it. `ready`
 * counts those that are READY, and in its upper half how often that changed.
 * Locks: one guard for all, which its user has; `oldest`, `out` and `ready` are
 * read without. Publishes: `owner`; but a lease made for what is about to be
 * taken becomes valid when the number of what was taken passes its `seq`, which
 * the repair is told. Survives: leases beyond that number are those of a dead
 * taker that took nothing. A block or a chunk that is named here is in no hand.
 */
struct mpr_leases {
    struct mpr_lease_chunk *_Atomic oldest;
    struct mpr_lease_chunk *newest;
    _Atomic uint64_t out;
    _Atomic uint64_t ready;
};

void mpr_leases_init(struct mpr_leases *leases);

static inline uint64_t mpr_leases_out(const struct mpr_leases *leases)
{
    return atomic_load_explicit(&leases->out, memory_order_relaxed);
}

/* Differs whenever it was otherwise in between; its lower half is the count. */
static inline uint64_t mpr_leases_ready(const struct mpr_leases *leases)
{
    return atomic_load_explicit(&leases->ready, memory_order_seq_cst);
}

/* A chunk for mpr_leases_add, in the hand MPR_HAND_SECOND. ENOMEM. */
int mpr_leases_fetch(struct mpr_thread *self);

/* ---- with the guard locked -------------------------------------------- */

/* Where a lease is, as long as it has not ended. */
struct mpr_lease_place {
    struct mpr_lease_chunk *chunk;
    uint32_t index;
};

static inline struct mpr_lease *mpr_lease_at(struct mpr_lease_place place)
{
    return &place.chunk->lease[place.index];
}

/* The chunk in hand is the next one. */
void mpr_leases_link(struct mpr_leases *leases, struct mpr_thread *self);

/*
 * Make a lease for the calling thread: as `like`, whose owner is 0 or
 * MPR_LEASE_HELD. EAGAIN: first mpr_leases_fetch, unlocked. The chunk may be
 * left over, in hand, in the end.
 */
int mpr_leases_add(struct mpr_leases *leases, struct mpr_thread *self,
                   const struct mpr_lease *like, struct mpr_lease_place *place);

/*
 * Does the calling process hold lease `seq`, and is that at this place? Nothing
 * about the place must be true.
 */
bool mpr_lease_is_held(const struct mpr_leases *leases,
                       struct mpr_lease_place place, uint64_t seq);

/* It may be acknowledged from now on. */
void mpr_lease_let_go(struct mpr_lease_place place);

/*
 * End a lease. Its block, if any, goes into the hand MPR_HAND_BLOCK of `whose`,
 * a chunk with nothing left into MPR_HAND_SECOND, to be freed unlocked.
 */
void mpr_lease_end(struct mpr_leases *leases, struct mpr_lease_place place,
                   struct mpr_thread *whose);

/*
 * Acknowledge a lease: the oldest of this thread, else of this process, else,
 * with `anyones`, of any other. As mpr_lease_end. EINVAL: there is none.
 */
int mpr_leases_acknowledge(struct mpr_leases *leases, struct mpr_thread *self,
                           bool anyones);

/* Is anything out? What the dead have counts if it will be redelivered. */
bool mpr_leases_outstanding(const struct mpr_leases *leases, bool redeliver);

/* The first that is READY. False: there is none. */
bool mpr_leases_first_ready(const struct mpr_leases *leases,
                            struct mpr_lease_place *place);

/* One that is READY is held by the calling thread from now on. */
void mpr_lease_take_over(struct mpr_leases *leases,
                         struct mpr_lease_place place, struct mpr_thread *self);

/*
 * What the dead had becomes READY, with `redeliver`, or ends, as by
 * mpr_lease_end. True: something is in those hands, and there may be more.
 */
bool mpr_leases_reclaim(struct mpr_leases *leases, struct mpr_thread *whose,
                        bool redeliver);

/* The end of all leases and of their chunks, likewise. */
bool mpr_leases_drop(struct mpr_leases *leases, struct mpr_thread *whose);

/* `taken`: leases of that number and beyond are not valid. */
void mpr_leases_repair(struct mpr_leases *leases, uint64_t taken,
                       struct mpr_thread *hands);

/*
 * In a repair: the lease of a block that is somebody else's by now ends; NULL:
 * none.
 */
void mpr_leases_forget(struct mpr_leases *leases, const void *block);

#endif
