/* SPDX-License-Identifier: MIT */
/*
 * Leases: which messages of a joinable queue were taken and not acknowledged,
 * and by whom. A queue is finished when nothing is in it and no living process
 * has a lease.
 */
#ifndef MPR_CHAN_LEASE_H
#define MPR_CHAN_LEASE_H

#include "shm/heap.h"

enum { MPR_LEASES_A_CHUNK = 62 };

/*
 * `owner` is who took the message, 0 once it is acknowledged. Written before
 * the head's sequence number passes the message; valid once it has.
 */
struct mpr_lease {
    _Atomic mpr_id owner;
    uint64_t thread; /* serial of the thread that took it */
};

/*
 * The lease of message `base_seq` + i is the i-th. Chunks follow each other in
 * order. All but the newest are given back, or used as the newest again, when
 * nobody who lives has a lease in them; the only one may be moved on then. So
 * there is at most one more than leases that are out.
 */
struct mpr_lease_chunk {
    uint64_t base_seq;
    struct mpr_lease_chunk *_Atomic next;
    struct mpr_lease lease[MPR_LEASES_A_CHUNK];
};

/*
 * `oldest` and, found from it, the last of the chain are the truth; `newest` is
 * a cache of it. `seq` counts the leases ever made: messages before the first
 * lease do not occur. Locks: the guard of the log's head, for everything.
 * Publishes: nothing by itself; a lease is valid when the head's number has
 * passed it. Survives: a lease at the head's number is that of a dead taker
 * that took nothing, and is cleared by the repair.
 */
struct mpr_leases {
    struct mpr_lease_chunk *oldest;
    struct mpr_lease_chunk *newest;
};

/* Begin with the chunk in the hand MPR_HAND_SECOND; the guard is locked. */
void mpr_leases_init(struct mpr_leases *leases, struct mpr_thread *self);

/*
 * Make the lease of message `seq` for the calling thread. EAGAIN: a chunk is
 * needed in the hand MPR_HAND_SECOND; mpr_leases_fetch gets it, unlocked.
 */
int mpr_leases_add(struct mpr_leases *leases, struct mpr_thread *self,
                   uint64_t seq);
int mpr_leases_fetch(struct mpr_thread *self);

/*
 * Acknowledge the oldest valid lease of this thread, else of this process, else
 * of anyone. EINVAL: there is none.
 */
int mpr_leases_acknowledge(struct mpr_leases *leases, struct mpr_thread *self,
                           uint64_t head_seq);

/* True when a living process has a valid lease; clears those of the dead. */
bool mpr_leases_outstanding(struct mpr_leases *leases, uint64_t head_seq);

void mpr_leases_repair(struct mpr_leases *leases, uint64_t head_seq,
                       struct mpr_thread *hands);

/*
 * Put a chunk into the hand MPR_HAND_SECOND, to be freed without the guard: one
 * in which no living process has a lease and that others follow, or, at the
 * queue's end (`all`), the oldest. False: there is none.
 */
bool mpr_leases_drop_chunk(struct mpr_leases *leases, struct mpr_thread *whose,
                           bool all);

#endif
