/* SPDX-License-Identifier: MIT */
/*
 * The messages of a log whose order is not first in, first out.
 *
 * They lie in an array, by position: 0 to count - 1. MPROC_LIFO: a stack, the
 * next to take is the last. MPROC_PRIORITY: a heap in which each has up to four
 * children, none before its parent; the next to take is the first. Both put at
 * the end, so a put and a take are the moves of the log's two sequence numbers
 * here as well, and what was killed behind such a move is only to be sorted.
 *
 * The array is in chunks, which stay where they are: growing copies nothing. It
 * shrinks with the count.
 *
 * All calls are made with the guard locked that the log has for both its ends;
 * `count` is what the two numbers say then.
 */
#ifndef MPR_CHAN_ORDER_H
#define MPR_CHAN_ORDER_H

#include <mproc/queue.h>

#include "shm/slot.h"

enum {
    MPR_ORDER_RECORD = 80, /* bytes of a record: its header and a message */
    MPR_ORDER_FIRST = 16,  /* places that need no chunk */
    MPR_ORDER_LEVELS = 32  /* beyond what any heap holds */
};

/* `seq` is the number of the put: the first come is before its equals. */
struct mpr_element {
    int64_t priority;
    uint64_t seq;
    char record[MPR_ORDER_RECORD];
};

enum mpr_order_move { MPR_ORDER_RESTS, MPR_ORDER_RISES, MPR_ORDER_SINKS };

/*
 * `capacity` says how many places there are, and so which chunks. The places
 * from a power of two up to the next one are a level. `level` has the chunk of
 * one, or, where that would be larger than a chunk may be, a table of chunks;
 * NULL where there is no table.
 *
 * `moving` tells that an element is on its way to its place: it is `element`,
 * and `hole` the place that is free for it, or that holds what its neighbour on
 * the way holds as well. One that sinks takes the place of the first, which is
 * gone once the log's head has come to `taken`; before that nothing has moved.
 *
 * Locks: the guard of the log's head. Publishes: nothing by itself; an element
 * is in it when the log's tail has passed it. `capacity` and the tables of
 * `level`: after what they name. Survives: an element that was killed on its
 * way goes on from `hole`; then the last one, put and perhaps not yet moved,
 * rises. A block in hand that is part of the array belongs to it.
 */
struct mpr_order {
    _Atomic uint64_t capacity;
    void *_Atomic level[MPR_ORDER_LEVELS];
    int kind;                /* MPROC_LIFO or MPROC_PRIORITY */
    _Atomic uint32_t moving; /* enum mpr_order_move */
    _Atomic uint64_t hole;
    _Atomic uint64_t taken;
    struct mpr_element element;
    alignas(MPR_LINE) struct mpr_element first[MPR_ORDER_FIRST];
};

/* `kind`: MPROC_LIFO or MPROC_PRIORITY. */
void mpr_order_init(struct mpr_order *order, int kind);

/* Bytes of the block that the next growth needs. Needs no guard. */
size_t mpr_order_need(struct mpr_order *order);

/*
 * True when there is a place for one more; takes the block in the hand
 * MPR_HAND_SEGMENT for it. False: another is needed there.
 */
bool mpr_order_has_room(struct mpr_order *order, struct mpr_thread *self,
                        uint64_t count);

/* Where the record of the next one goes, which is put as number `seq`. */
void *mpr_order_next(struct mpr_order *order, uint64_t count, int64_t priority,
                     uint64_t seq);

/* After the tail's move: the last one goes to its place. */
void mpr_order_put(struct mpr_order *order, uint64_t count);

/* The record of the one to take, and the one that is given up most easily. */
void *mpr_order_first(struct mpr_order *order, uint64_t count);
void *mpr_order_last(struct mpr_order *order, uint64_t count);

/*
 * Before the head's move to `taken` that takes the first, and after it. The
 * last one needs none of this.
 */
void mpr_order_take(struct mpr_order *order, uint64_t count, uint64_t taken);
void mpr_order_taken(struct mpr_order *order, uint64_t count);

/*
 * Put a block that is not needed into the hand MPR_HAND_SEGMENT, if that is
 * empty, to be freed without the guard. False: there is none.
 */
bool mpr_order_shrink(struct mpr_order *order, struct mpr_thread *whose,
                      uint64_t count);

/*
 * The repair's first step: what is on its way arrives, and blocks of the array
 * leave the hands. Its last is mpr_order_put, for who was killed before that.
 */
void mpr_order_resume(struct mpr_order *order, struct mpr_thread *hands,
                      uint64_t count, uint64_t taken);

#endif
