/* SPDX-License-Identifier: MIT */
/* Putting: at the tail of a log. */
#include <string.h>

#include "chan/record.h"
#include "shm/heap.h"

enum { SMALL_SEGMENT = 16384, SEGMENT = 65536 };

/* What is held is what lies between two looks at what was taken. */
static bool full_of_bytes(struct mpr_log *log, size_t size)
{
    uint64_t out, in;
    do {
        out = mpr_log_load_bytes(&log->head);
        in = mpr_log_load_bytes(&log->tail);
    } while (out != mpr_log_load_bytes(&log->head));
    uint64_t held = in > out ? in - out : 0, items = mpr_log_count(log);
    return items != 0 &&
           (size > log->max_bytes || held > log->max_bytes - size ||
            items >= log->max_items);
}

/* True only if it was so at one moment of the call. */
static bool full(struct mpr_log *log, size_t size)
{
    struct mpr_log_end *tail = &log->tail;
    if (mpr_unlikely(log->max_bytes != UINT64_MAX)) {
        return full_of_bytes(log, size);
    }
    uint64_t seen = atomic_load_explicit(&tail->seen, memory_order_acquire);
    return mpr_unlikely(mpr_log_load_seq(tail) - seen >= log->max_items) &&
           mpr_log_count(log) >= log->max_items;
}

/* Room for the record, and for a MPR_RECORD_JUMP behind it. */
static bool fits(const struct mpr_log_end *tail, size_t record)
{
    return tail->offset + record + sizeof(struct mpr_record) <=
           tail->segment->capacity;
}

/* In place of one that others made too small meanwhile, perhaps. */
static int fetch_places(struct mpr_log *log, struct mpr_thread *self)
{
    size_t size = mpr_order_need(&log->array);
    mpr_heap_free_hand(self, self, MPR_HAND_SEGMENT);
    void *block = mpr_heap_alloc(self, size, MPR_HAND_SEGMENT);
    return block != NULL ? 0 : MPROC_ENOMEM;
}

/* A segment for the hand: small at first, so that small queues stay small. */
static int fetch_segment(struct mpr_log *log, struct mpr_thread *self)
{
    if (mpr_log_is_array(log)) {
        return fetch_places(log, self);
    }
    size_t size =
        mpr_log_tail(log) <= MPR_LOG_FIRST_BYTES / 16 ? SMALL_SEGMENT : SEGMENT;
    struct mpr_segment *segment = mpr_heap_alloc(self, size, MPR_HAND_SEGMENT);
    if (segment == NULL) {
        return MPROC_ENOMEM;
    }
    segment->capacity = (uint32_t)(size - sizeof *segment);
    return 0;
}

static void begin_segment(struct mpr_log_end *tail, struct mpr_thread *self)
{
    struct mpr_segment *next = mpr_hand(self, MPR_HAND_SEGMENT);
    struct mpr_record *jump = mpr_record_at(tail->segment, tail->offset);
    next->base_seq = mpr_log_load_seq(tail);
    next->base_bytes = mpr_log_load_bytes(tail);
    atomic_store_explicit(&next->next, NULL, memory_order_relaxed);
    *jump = (struct mpr_record){.kind = MPR_RECORD_JUMP};
    atomic_store_explicit(&tail->segment->next, next, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    tail->segment = next;
    tail->offset = 0;
    mpr_hand_set(self, MPR_HAND_SEGMENT, NULL);
}

static size_t write_record(struct mpr_record *record,
                           const struct mpr_log_put *put)
{
    if (put->size <= put->log->max_inline) {
        *record = (struct mpr_record){(uint32_t)put->size, MPR_RECORD_INLINE};
        if (put->size > 0) {
            memcpy(record + 1, put->data, put->size);
        }
    } else {
        *record = (struct mpr_record){.kind = MPR_RECORD_BLOCK};
        *mpr_record_block(record) = (struct mpr_block_ref){
            mpr_hand(put->self, MPR_HAND_BLOCK), put->size};
    }
    return mpr_record_size(record);
}

/* Once the head seems to be far behind. */
static void look_at_head(struct mpr_log *log)
{
    struct mpr_log_end *tail = &log->tail;
    uint64_t seen = atomic_load_explicit(&tail->seen, memory_order_relaxed);
    if (mpr_unlikely(mpr_log_load_seq(tail) - seen >= log->max_items)) {
        atomic_store_explicit(&tail->seen, mpr_log_load_seq(&log->head),
                              memory_order_release);
    }
}

/* Where the record goes. NULL: a segment, or places, are needed in the hand. */
static struct mpr_record *next_record(const struct mpr_log_put *put)
{
    struct mpr_log_end *tail = &put->log->tail;
    bool lies_in_it = put->size <= put->log->max_inline;
    struct mpr_record shape = {lies_in_it ? (uint32_t)put->size : 0,
                               lies_in_it ? MPR_RECORD_INLINE
                                          : MPR_RECORD_BLOCK};
    if (mpr_log_is_array(put->log)) {
        struct mpr_order *array = &put->log->array;
        uint64_t count = mpr_log_count_locked(put->log);
        return mpr_order_has_room(array, put->self, count)
                   ? mpr_order_next(array, count, put->priority,
                                    mpr_log_load_seq(tail))
                   : NULL;
    }
    if (mpr_unlikely(!fits(tail, mpr_record_size(&shape)))) {
        if (mpr_hand(put->self, MPR_HAND_SEGMENT) == NULL) {
            return NULL;
        }
        begin_segment(tail, put->self);
    }
    return mpr_record_at(tail->segment, tail->offset);
}

/* One try with the guard locked. EAGAIN: a segment is needed. */
static int put_locked(const struct mpr_log_put *put)
{
    struct mpr_log_end *tail = &put->log->tail;
    if (mpr_unlikely(mpr_log_closed(put->log) ||
                     mpr_log_ended(put->object, put->tag))) {
        return MPROC_ESHUTDOWN;
    }
    if (mpr_unlikely(full(put->log, put->size))) {
        return MPROC_EFULL;
    }
    look_at_head(put->log);
    struct mpr_record *record = next_record(put);
    if (mpr_unlikely(record == NULL)) {
        return MPROC_EAGAIN;
    }
    mpr_log_move(tail, write_record(record, put), put->size);
    if (put->size > put->log->max_inline) {
        mpr_hand_set(put->self, MPR_HAND_BLOCK, NULL);
    }
    tail->settled = atomic_load_explicit(&tail->seq, memory_order_relaxed);
    if (mpr_log_is_array(put->log)) {
        mpr_order_put(&put->log->array, mpr_log_count_locked(put->log));
    }
    return 0;
}

static int copy_to_block(const struct mpr_log_put *put)
{
    if (put->size >= SIZE_MAX / 2) {
        return MPROC_ENOMEM;
    }
    char *block = mpr_heap_alloc(put->self, put->size + 1, MPR_HAND_BLOCK);
    if (block == NULL) {
        return MPROC_ENOMEM;
    }
    memcpy(block, put->data, put->size);
    block[put->size] = '\0';
    return 0;
}

int mpr_log_put(const struct mpr_log_put *put)
{
    struct mpr_log *log = put->log;
    struct mpr_thread *self = put->self;
    if (full(log, put->size) && !mpr_log_closed(log)) {
        return MPROC_EFULL;
    }
    if (put->size > log->max_inline && mpr_hand(self, MPR_HAND_BLOCK) == NULL) {
        int err = copy_to_block(put);
        if (err < 0) {
            return err;
        }
    }
    struct mpr_guard *guard = mpr_log_put_guard(log);
    for (;;) {
        int err = mpr_guard_lock_until(guard, self, self, put->until);
        if (mpr_unlikely(err < 0)) {
            return MPROC_EFULL;
        }
        err = put_locked(put);
        mpr_guard_unlock(guard, self);
        if (mpr_likely(err == 0)) {
            mpr_bell_ring(&log->items, 1);
            return 0;
        }
        if (err != MPROC_EAGAIN) {
            return err;
        }
        err = fetch_segment(log, self);
        if (err < 0) {
            return err;
        }
    }
}

void mpr_log_put_done(const struct mpr_log_put *put)
{
    mpr_heap_free_hand(put->self, put->self, MPR_HAND_SEGMENT);
    mpr_heap_free_hand(put->self, put->self, MPR_HAND_BLOCK);
}
