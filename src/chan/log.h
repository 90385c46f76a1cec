/* SPDX-License-Identifier: MIT */
/*
 * A log: messages in order, any number of processes at either end. What queues
 * and pipes are made of. It never waits: "full" and "empty" are results.
 *
 * Records lie one behind the other in segments. A message of up to
 * MPR_LOG_INLINE bytes lies in its record, a larger one in a heap block that
 * the record names. Two sequence numbers are the whole truth: `tail_seq`
 * messages were ever put, `head_seq` of them were taken. Each moves by one
 * store, inside the guard of its end.
 *
 * That is its order when it begins. In another (order.h) the records lie in an
 * array, and both ends have one guard, the head's; all else is the same.
 */
#ifndef MPR_CHAN_LOG_H
#define MPR_CHAN_LOG_H

#include "chan/lease.h"
#include "chan/order.h"
#include "shm/object.h"
#include "shm/sleep.h"

enum { MPR_LOG_INLINE = 1024, MPR_LOG_FIRST_BYTES = 2560 };

/*
 * Records up to the tail are written before tail_seq counts them and never
 * change again. `base_seq` and `base_bytes`: what had been put, messages and
 * bytes, when the segment was begun. `next` is stored once, when the segment is
 * full, before anything is put in the next one.
 * Locks: the tail's guard; readers need none for what tail_seq counts.
 */
struct mpr_segment {
    uint64_t base_seq;
    uint64_t base_bytes;
    struct mpr_segment *_Atomic next;
    uint32_t capacity; /* bytes of records, which follow */
    uint32_t reserved;
};

/*
 * One end. `seq` is the truth, moved only under `guard`. `segment` and `offset`
 * say where the record of that number begins; `bytes` is the sum of the sizes
 * of the messages before it; `seen` is what this end last saw of the other
 * end's seq, which saves touching a line that the other end writes; it is never
 * ahead of it, and is stored under `guard`.
 * Publishes: `seq`, after the record (tail) or after everything the taker must
 * know (head). Survives: who is killed before that store has done nothing; the
 * repair walks the segment from its base to `seq` and so finds `offset` and
 * `bytes`, and settles the hands: a block in hand that a record before the tail
 * names belongs to the log, one that a record behind the head names to its
 * taker. `settled` is the last `seq` whose block has left the putter's hand, or
 * his loan: a record older than that may name memory that is something else by
 * now. `loaned` is how many loans were ever made.
 */
struct mpr_log_end {
    alignas(MPR_LINE) struct mpr_guard guard;
    alignas(MPR_LINE) struct mpr_segment *segment;
    uint32_t offset;
    _Atomic uint32_t closed; /* tail only: no more puts */
    uint64_t settled;        /* tail only */
    uint64_t loaned;         /* tail only */
    _Atomic uint64_t seen;
    alignas(MPR_LINE) _Atomic uint64_t seq;
    _Atomic uint64_t bytes;
};

/*
 * `space` is rung when something was taken, `items` when something was put,
 * both when the log is closed. They lie on lines of their own: a flag beside a
 * word that changes at each message would cost each message a cache miss. They
 * count on when the memory serves another log: who was about to sleep on the
 * one that ended must not find them as they were.
 * From `max_items` to `order` all is set once, before the log is anybody's; who
 * still has a handle of the one before may read it then.
 * `leases`, under the head's guard: what was taken in place, and in a joinable
 * log also what was got and not acknowledged. With `redeliver` each message
 * lies in a block, which its lease keeps: what is READY there is first in line.
 * `loans`, under the guard that puts lock: blocks on loan to be written, each
 * of which has its place among max_items.
 * `redeliver` and `order` may be read by one who waited for what the memory
 * held before.
 */
struct mpr_log {
    struct mpr_log_end tail;
    struct mpr_log_end head;
    alignas(MPR_LINE) _Atomic uint32_t space;
    alignas(MPR_LINE) _Atomic uint32_t items;
    _Atomic uint64_t max_items; /* UINT64_MAX: no limit */
    _Atomic uint64_t max_bytes; /* beyond it only one message */
    _Atomic uint32_t joinable;
    _Atomic uint32_t redeliver;
    _Atomic uint32_t inline_below; /* messages of other sizes lie in blocks */
    _Atomic int order;             /* MPROC_FIFO, or that of `array` */
    alignas(MPR_LINE) struct mpr_leases leases;
    struct mpr_leases loans;
    union {
        struct {
            alignas(MPR_LINE) struct mpr_segment first;
            char first_records[MPR_LOG_FIRST_BYTES];
        };
        struct mpr_order array;
    };
};

/* Begin, in memory that may hold a log that was ended. */
void mpr_log_init(struct mpr_log *log, bool prepared);

/* Another order than MPROC_FIFO, before anybody else knows the log. */
void mpr_log_set_order(struct mpr_log *log, int order);

/*
 * Give back all messages, also those that are out, and segments; may be
 * repeated, by another thread, when its caller was killed in it. The log is
 * closed from its start.
 */
void mpr_log_end(struct mpr_log *log, struct mpr_thread *self,
                 struct mpr_thread *whose);

/*
 * `object` is what the log is part of, and `tag` its tag when the call began. A
 * call that slept may wake when the object has ended and its memory serves
 * another: asked with the guard locked, which the end takes as well, the tag
 * says so. NULL: the log is the caller's while the call lasts.
 */
struct mpr_log_put {
    struct mpr_log *log;
    struct mpr_thread *self;
    const void *data;
    size_t size;
    int64_t priority;     /* for MPROC_PRIORITY */
    mproc_deadline until; /* bounds the wait for a guard */
    const struct mpr_object *object;
    uint64_t tag;
};

/*
 * Append a copy. A large message is copied into a block once; the block stays
 * in hand after MPROC_EFULL, for the next try: mpr_log_put_done ends that.
 * MPROC_EFULL, MPROC_ESHUTDOWN (closed, or ended), MPROC_ENOMEM.
 */
int mpr_log_put(const struct mpr_log_put *put);

/*
 * As mpr_log_put for `count` messages of `size` bytes each, one behind the
 * other in `data`: the first and, by the same store, what of the others goes
 * with it, *done of them.
 */
int mpr_log_put_many(const struct mpr_log_put *put, size_t count, size_t *done);

/* After the last try of a put. */
void mpr_log_put_done(const struct mpr_log_put *put);

struct mpr_log_get {
    struct mpr_log *log;
    struct mpr_thread *self;
    void *data;
    size_t capacity;
    size_t *size; /* NULL: exactly capacity */
    mproc_deadline until;
    const struct mpr_object *object;
    uint64_t tag;
};

/*
 * Take the first. MPROC_EEMPTY; MPROC_EMSGSIZE: it does not fit, *size is its
 * size and it stays; MPROC_ENOMEM: no room for a lease, it stays;
 * MPROC_ESHUTDOWN: the log has ended.
 */
int mpr_log_get(const struct mpr_log_get *get);

/*
 * As mpr_log_get, with `size` NULL, for up to `count` messages of exactly
 * `capacity` bytes, one behind the other: the first and, by the same store,
 * what of the others comes with it, *done of them.
 */
int mpr_log_get_many(const struct mpr_log_get *get, size_t count, size_t *done);

/* Take and forget the first. MPROC_EEMPTY, MPROC_ESHUTDOWN as mpr_log_get. */
int mpr_log_discard(const struct mpr_log_get *get);

/* ---- without a copy --------------------------------------------------- */

/* A message that is out, and where its lease is. */
struct mpr_log_block {
    struct mpr_lease_place place;
    uint64_t seq;
    char *data;
    size_t size;
};

/*
 * A block of put->size bytes and a NUL, on loan to the calling process, and a
 * place for it. As mpr_log_put, mpr_log_put_done included.
 */
int mpr_log_loan(const struct mpr_log_put *put, struct mpr_log_block *out);

/*
 * Append what is on loan, the first put->size bytes of it. It never waits for
 * room. MPROC_EINVAL: it is not on loan to this process, or smaller;
 * MPROC_ESHUTDOWN, MPROC_ENOMEM: it stays on loan.
 */
int mpr_log_send(const struct mpr_log_put *put,
                 const struct mpr_log_block *loan);

/* A loan is given up. False: it is not on loan to this process. */
bool mpr_log_take_back(const struct mpr_log_put *put,
                       const struct mpr_log_block *loan);

/*
 * Take the first in place, as mpr_log_get; get->data is not used, and what
 * is larger than get->capacity does not fit.
 */
int mpr_log_take(const struct mpr_log_get *get, struct mpr_log_block *out);

/* What was taken is done with. False: this process has not taken it. */
bool mpr_log_release(const struct mpr_log_get *get,
                     const struct mpr_log_block *taken);

/*
 * What dead processes had taken, and had on loan, goes back. How much did: 0,
 * or 1, which may be more. ETIMEDOUT: the guard was not to be had by
 * get->until, so something may be left.
 */
int mpr_log_reclaim_taken(const struct mpr_log_get *get);
int mpr_log_reclaim_loans(const struct mpr_log_get *get);

/* No puts from now on. Returns false when it was closed before. */
bool mpr_log_close(struct mpr_log *log, struct mpr_thread *self);

static inline bool mpr_log_closed(const struct mpr_log *log)
{
    return atomic_load_explicit(&log->tail.closed, memory_order_seq_cst) != 0;
}

/* Messages in it, at one moment of the call. */
uint64_t mpr_log_count(const struct mpr_log *log);

/* Is there no place for one more? As that; may wait for the tail's guard. */
bool mpr_log_full(struct mpr_log *log, struct mpr_thread *self);

static inline uint64_t mpr_log_head(const struct mpr_log *log)
{
    return atomic_load_explicit(&log->head.seq, memory_order_seq_cst);
}

static inline uint64_t mpr_log_tail(const struct mpr_log *log)
{
    return atomic_load_explicit(&log->tail.seq, memory_order_seq_cst);
}

#endif
