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

static bool full_of_items(struct mpr_log *log, uint64_t out)
{
    struct mpr_log_end *tail = &log->tail;
    uint64_t seen = atomic_load_explicit(&tail->seen, memory_order_acquire);
    bool far = mpr_log_load_seq(tail) - seen + out >= log->max_items;
    return mpr_unlikely(far || log->redeliver) &&
           mpr_log_count(log) + out >= log->max_items;
}

/*
 * True only if it was so at one moment of the call. What is on loan counts when
 * the guard is locked.
 */
static inline bool full(struct mpr_log *log, size_t size, bool locked)
{
    if (mpr_unlikely(log->max_bytes != UINT64_MAX)) {
        return full_of_bytes(log, size);
    }
    return log->max_items != UINT64_MAX &&
           full_of_items(log, locked ? mpr_leases_out(&log->loans) : 0);
}

bool mpr_log_full(struct mpr_log *log, struct mpr_thread *self)
{
    bool is = mpr_log_count(log) >= log->max_items;
    if (!is && mpr_leases_out(&log->loans) > 0) {
        mpr_guard_lock(mpr_log_put_guard(log), self, self);
        is = mpr_log_count(log) + mpr_leases_out(&log->loans) >= log->max_items;
        mpr_guard_unlock(mpr_log_put_guard(log), self);
    }
    return is;
}

/* Room for the record, and for a jump behind it. */
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

/* ---- writing, with the guard locked ----------------------------------- */

enum { BLOCK_SPACE = sizeof(struct mpr_record) + sizeof(struct mpr_block_ref) };

static bool in_block(const struct mpr_log_put *put)
{
    return put->size >= put->log->inline_below;
}

static void write_inline(struct mpr_record *record, const void *data,
                         size_t size)
{
    *record = (struct mpr_record){(uint32_t)size, MPR_RECORD_INLINE};
    if (size > 0) {
        memcpy(record + 1, data, size);
    }
}

static void write_block(struct mpr_log *log, struct mpr_record *record,
                        void *block, size_t size)
{
    *record = (struct mpr_record){.kind = MPR_RECORD_BLOCK};
    *mpr_record_block(record) = (struct mpr_block_ref){block, size};
    mpr_log_move(&log->tail, 1, BLOCK_SPACE, size);
}

/* What was put is in no hand and not on loan any more. */
static void settle(struct mpr_log *log)
{
    struct mpr_log_end *tail = &log->tail;
    tail->settled = atomic_load_explicit(&tail->seq, memory_order_relaxed);
    if (mpr_log_is_array(log)) {
        mpr_order_put(&log->array, mpr_log_count_locked(log));
    }
}

/* As many as there is room for in the log and in the segment. */
static size_t how_many(const struct mpr_log_put *put, size_t count)
{
    const struct mpr_log *log = put->log;
    if (mpr_log_is_array(log)) {
        return 1;
    }
    size_t fit = (log->tail.segment->capacity - log->tail.offset -
                  sizeof(struct mpr_record)) /
                 mpr_record_inline_size(put->size);
    size_t n = count < fit ? count : fit;
    if (log->max_items == UINT64_MAX) {
        return n;
    }
    uint64_t held = mpr_log_count(log) + mpr_leases_out(&log->loans);
    uint64_t room = held < log->max_items ? log->max_items - held : 1;
    return n < room ? n : (size_t)room;
}

/* All that is written becomes the log's by one store. */
static inline size_t write_records(const struct mpr_log_put *put,
                                   struct mpr_record *record, size_t count)
{
    const char *data = put->data;
    size_t space = mpr_record_inline_size(put->size);
    size_t n = count > 1 ? how_many(put, count) : 1;
    write_inline(record, data, put->size);
    for (size_t i = 1; i < n; i++) {
        record = (struct mpr_record *)((char *)record + space);
        write_inline(record, data + i * put->size, put->size);
    }
    mpr_log_move(&put->log->tail, n, n * space, n * put->size);
    return n;
}

static bool is_open(const struct mpr_log_put *put)
{
    return mpr_likely(!mpr_log_closed(put->log) &&
                      !mpr_log_ended(put->object, put->tag));
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

/* Where the record goes. NULL: a segment, or places, are needed in hand. */
static inline struct mpr_record *next_record(const struct mpr_log_put *put,
                                             size_t space)
{
    struct mpr_log_end *tail = &put->log->tail;
    if (mpr_log_is_array(put->log)) {
        struct mpr_order *array = &put->log->array;
        uint64_t count = mpr_log_count_locked(put->log);
        return mpr_order_has_room(array, put->self, count)
                   ? mpr_order_next(array, count, put->priority,
                                    mpr_log_load_seq(tail))
                   : NULL;
    }
    if (mpr_unlikely(!fits(tail, space))) {
        if (mpr_hand(put->self, MPR_HAND_SEGMENT) == NULL) {
            return NULL;
        }
        begin_segment(tail, put->self);
    }
    return mpr_record_at(tail->segment, tail->offset);
}

/* One try. EAGAIN: as next_record. */
static inline int put_locked(const struct mpr_log_put *put, bool block,
                             size_t count, size_t *done)
{
    struct mpr_log *log = put->log;
    if (!is_open(put)) {
        return MPROC_ESHUTDOWN;
    }
    if (mpr_unlikely(full(log, put->size, true))) {
        return MPROC_EFULL;
    }
    look_at_head(log);
    size_t space = block ? BLOCK_SPACE : mpr_record_inline_size(put->size);
    struct mpr_record *record = next_record(put, space);
    if (mpr_unlikely(record == NULL)) {
        return MPROC_EAGAIN;
    }
    if (mpr_unlikely(block)) {
        write_block(log, record, mpr_hand(put->self, MPR_HAND_BLOCK),
                    put->size);
        mpr_hand_set(put->self, MPR_HAND_BLOCK, NULL);
        *done = 1;
    } else {
        *done = write_records(put, record, count);
    }
    settle(log);
    return 0;
}

/* ---- putting ---------------------------------------------------------- */

/* Where the message is going to lie, in hand: `data` NULL leaves it unwritten.
 */
static int fetch_block(const struct mpr_log_put *put)
{
    char *block = mpr_heap_alloc(put->self, put->size + 1, MPR_HAND_BLOCK);
    if (block == NULL) {
        return MPROC_ENOMEM;
    }
    if (put->data != NULL && put->size > 0) {
        memcpy(block, put->data, put->size);
    }
    block[put->size] = '\0';
    return 0;
}

/*
 * Before the guard is locked. A size that can never be had is told whether
 * there is room or not.
 */
static inline int prepare(const struct mpr_log_put *put, bool block)
{
    struct mpr_log *log = put->log;
    if (mpr_unlikely(mpr_log_closed(log))) {
        return MPROC_ESHUTDOWN;
    }
    if (mpr_unlikely(block) && put->size >= mpr_heap_limit()) {
        return MPROC_ENOMEM;
    }
    if (mpr_unlikely(full(log, put->size, false))) {
        return MPROC_EFULL;
    }
    return mpr_unlikely(block) && mpr_hand(put->self, MPR_HAND_BLOCK) == NULL
               ? fetch_block(put)
               : 0;
}

/* At least one, and what of the rest goes with it. */
static inline int put_some(const struct mpr_log_put *put, size_t count,
                           size_t *done)
{
    struct mpr_log *log = put->log;
    struct mpr_thread *self = put->self;
    struct mpr_guard *guard = mpr_log_put_guard(log);
    const bool block = in_block(put);
    int err = prepare(put, block);
    while (mpr_likely(err == 0)) {
        err = mpr_guard_lock_until(guard, self, self, put->until);
        if (mpr_unlikely(err < 0)) {
            return MPROC_EFULL;
        }
        err = put_locked(put, block, count, done);
        mpr_guard_unlock(guard, self);
        if (mpr_likely(err == 0)) {
            mpr_bell_ring(&log->items, *done < INT_MAX ? (int)*done : INT_MAX);
            return 0;
        }
        if (err == MPROC_EAGAIN) {
            err = fetch_segment(log, self);
        }
    }
    return err;
}

int mpr_log_put(const struct mpr_log_put *put)
{
    size_t done;
    return put_some(put, 1, &done);
}

int mpr_log_put_many(const struct mpr_log_put *put, size_t count, size_t *done)
{
    return put_some(put, count, done);
}

void mpr_log_put_done(const struct mpr_log_put *put)
{
    static const enum mpr_hand used[] = {MPR_HAND_SEGMENT, MPR_HAND_BLOCK,
                                         MPR_HAND_SECOND};
    for (int i = 0; i < 3; i++) {
        if (mpr_unlikely(mpr_hand(put->self, used[i]) != NULL)) {
            mpr_heap_free_hand(put->self, put->self, used[i]);
        }
    }
}

/* ---- loans ------------------------------------------------------------ */

/* EAGAIN: a chunk is needed in hand. */
static int loan_locked(const struct mpr_log_put *put, struct mpr_log_block *out)
{
    struct mpr_log *log = put->log;
    struct mpr_lease like = {.owner = MPR_LEASE_HELD,
                             .seq = log->tail.loaned,
                             .block = mpr_hand(put->self, MPR_HAND_BLOCK),
                             .size = put->size};
    if (!is_open(put)) {
        return MPROC_ESHUTDOWN;
    }
    if (full(log, put->size, true)) {
        return MPROC_EFULL;
    }
    log->tail.loaned++;
    int err = mpr_leases_add(&log->loans, put->self, &like, &out->place);
    if (err == 0) {
        mpr_hand_set(put->self, MPR_HAND_BLOCK, NULL);
        out->seq = like.seq;
        out->data = like.block;
        out->size = like.size;
    }
    return err;
}

int mpr_log_loan(const struct mpr_log_put *put, struct mpr_log_block *out)
{
    struct mpr_guard *guard = mpr_log_put_guard(put->log);
    struct mpr_thread *self = put->self;
    int err = prepare(put, true);
    while (err == 0) {
        if (mpr_guard_lock_until(guard, self, self, put->until) < 0) {
            return MPROC_EFULL;
        }
        err = loan_locked(put, out);
        mpr_guard_unlock(guard, self);
        if (err != MPROC_EAGAIN) {
            break;
        }
        err = mpr_leases_fetch(self);
    }
    return err;
}

static bool is_on_loan(const struct mpr_log_put *put,
                       const struct mpr_log_block *loan)
{
    return !mpr_log_ended(put->object, put->tag) &&
           mpr_lease_is_held(&put->log->loans, loan->place, loan->seq);
}

/*
 * The block is the log's by the store that puts it. The lease forgets it before
 * it ends.
 */
static int send_locked(const struct mpr_log_put *put,
                       const struct mpr_log_block *loan)
{
    struct mpr_log *log = put->log;
    if (!is_on_loan(put, loan)) {
        return MPROC_EINVAL;
    }
    struct mpr_lease *lease = mpr_lease_at(loan->place);
    if (put->size > lease->size || loan->data != lease->block) {
        return MPROC_EINVAL;
    }
    if (!is_open(put)) {
        return MPROC_ESHUTDOWN;
    }
    struct mpr_record *record = next_record(put, BLOCK_SPACE);
    if (record == NULL) {
        return MPROC_EAGAIN;
    }
    lease->block[put->size] = '\0';
    write_block(log, record, lease->block, put->size);
    lease->block = NULL;
    mpr_lease_end(&log->loans, loan->place, put->self);
    settle(log);
    return 0;
}

int mpr_log_send(const struct mpr_log_put *put,
                 const struct mpr_log_block *loan)
{
    struct mpr_log *log = put->log;
    struct mpr_thread *self = put->self;
    struct mpr_guard *guard = mpr_log_put_guard(log);
    int err;
    do {
        mpr_guard_lock(guard, self, self);
        err = send_locked(put, loan);
        mpr_guard_unlock(guard, self);
    } while (err == MPROC_EAGAIN && (err = fetch_segment(log, self)) == 0);
    mpr_log_put_done(put);
    if (err == 0) {
        mpr_bell_ring(&log->items, 1);
    }
    return err;
}

bool mpr_log_take_back(const struct mpr_log_put *put,
                       const struct mpr_log_block *loan)
{
    struct mpr_log *log = put->log;
    struct mpr_thread *self = put->self;
    struct mpr_guard *guard = mpr_log_put_guard(log);
    mpr_guard_lock(guard, self, self);
    bool ours = is_on_loan(put, loan);
    if (ours) {
        mpr_lease_end(&log->loans, loan->place, self);
    }
    mpr_guard_unlock(guard, self);
    mpr_log_put_done(put);
    if (ours) {
        mpr_log_ring_space(log, 1);
    }
    return ours;
}
