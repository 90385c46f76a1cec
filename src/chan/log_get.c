/* SPDX-License-Identifier: MIT */
/* Taking: at the head of a log. */
#include <string.h>

#include "chan/record.h"
#include "shm/heap.h"

static bool any_ready(const struct mpr_log *log)
{
    return mpr_unlikely(log->redeliver) &&
           (uint32_t)mpr_leases_ready(&log->leases) > 0;
}

/* The head is read first: when nothing is before the tail now, it was empty. */
static bool empty(struct mpr_log *log)
{
    uint64_t seq = mpr_log_load_seq(&log->head);
    uint64_t seen = atomic_load_explicit(&log->head.seen, memory_order_acquire);
    return mpr_unlikely(seq >= seen) && seq >= mpr_log_load_seq(&log->tail) &&
           !any_ready(log);
}

static bool empty_locked(struct mpr_log *log)
{
    struct mpr_log_end *head = &log->head;
    uint64_t seq = atomic_load_explicit(&head->seq, memory_order_relaxed);
    if (head->segment == NULL) {
        return true;
    }
    if (mpr_likely(seq <
                   atomic_load_explicit(&head->seen, memory_order_relaxed))) {
        return false;
    }
    uint64_t seen = mpr_log_load_seq(&log->tail);
    atomic_store_explicit(&head->seen, seen, memory_order_release);
    return seq >= seen;
}

/*
 * The record at the head, past the end of its segment: that one goes into the
 * hand, to be freed without the guard, unless it is the log's own.
 */
static struct mpr_record *first_record(struct mpr_log *log,
                                       struct mpr_thread *whose)
{
    struct mpr_log_end *head = &log->head;
    if (mpr_log_is_array(log)) {
        return mpr_order_first(&log->array, mpr_log_count_locked(log));
    }
    struct mpr_record *record = mpr_record_at(head->segment, head->offset);
    if (mpr_likely(record->kind != MPR_RECORD_JUMP)) {
        return record;
    }
    struct mpr_segment *old = head->segment;
    if (old != &log->first) {
        mpr_hand_set(whose, MPR_HAND_SEGMENT, old);
    }
    head->segment = atomic_load_explicit(&old->next, memory_order_acquire);
    head->offset = 0;
    return mpr_record_at(head->segment, 0);
}

static bool too_large(const struct mpr_log_get *get, uint64_t size)
{
    if (get->size == NULL) {
        return size != get->capacity;
    }
    if (size > get->capacity) {
        *get->size = (size_t)size;
        return true;
    }
    return false;
}

/* For message `seq`, of which the taker has a copy. */
static int add_lease(const struct mpr_log_get *get, uint64_t seq)
{
    const struct mpr_lease copied = {.seq = seq};
    struct mpr_lease_place place;
    return get->log->joinable
               ? mpr_leases_add(&get->log->leases, get->self, &copied, &place)
               : 0;
}

/* How many of `most` messages are there, one at least. */
static size_t how_many(struct mpr_log *log, size_t most)
{
    uint64_t seq = atomic_load_explicit(&log->head.seq, memory_order_relaxed);
    uint64_t seen = atomic_load_explicit(&log->head.seen, memory_order_relaxed);
    if (seen - seq < most) {
        seen = mpr_log_load_seq(&log->tail);
        atomic_store_explicit(&log->head.seen, seen, memory_order_release);
    }
    return seen - seq < most ? (size_t)(seen - seq) : most;
}

/*
 * Copy messages of exactly `capacity` bytes out of their records, up to one
 * that is not such a message, the end of the segment, or the last place for a
 * lease at hand. The first is one, and has its lease.
 */
static size_t copy_records(const struct mpr_log_get *get,
                           const struct mpr_record *record, size_t most)
{
    uint64_t seq =
        atomic_load_explicit(&get->log->head.seq, memory_order_relaxed);
    size_t size = get->capacity, n = 0;
    char *data = get->data;
    do {
        if (size > 0) {
            memcpy(data + n * size, record + 1, size);
        }
        record = (const struct mpr_record *)((const char *)record +
                                             mpr_record_inline_size(size));
    } while (++n < most && record->kind == MPR_RECORD_INLINE &&
             record->size == size && add_lease(get, seq + n) == 0);
    return n;
}

/* The first `n`, each like this record, are taken; of an array the first. */
static inline void move(const struct mpr_log_get *get,
                        struct mpr_record *record, size_t n)
{
    struct mpr_log *log = get->log;
    struct mpr_log_end *head = &log->head;
    uint64_t size = mpr_record_message(record);
    if (mpr_log_is_array(log)) {
        uint64_t count = mpr_log_count_locked(log);
        mpr_order_take(&log->array, count, mpr_log_load_seq(head) + 1);
        mpr_log_move(head, 1, 0, size);
        mpr_order_taken(&log->array, count - 1);
        mpr_order_shrink(&log->array, get->self, count - 1);
    } else {
        mpr_log_move(head, n, n * mpr_record_size(record), n * size);
    }
}

/* What a try has brought: messages, and the size of the first. */
struct gain {
    size_t count;
    uint64_t size;
};

/* One try with the guard locked: the messages, or a block, become ours. */
static inline int get_locked(const struct mpr_log_get *get, size_t count,
                             struct gain *gain)
{
    struct mpr_log *log = get->log;
    struct mpr_log_end *head = &log->head;
    if (mpr_unlikely(mpr_log_ended(get->object, get->tag))) {
        return MPROC_ESHUTDOWN;
    }
    if (empty_locked(log)) {
        return MPROC_EEMPTY;
    }
    struct mpr_record *record = first_record(log, get->self);
    uint64_t size = mpr_record_message(record);
    *gain = (struct gain){1, size};
    if (too_large(get, size)) {
        return MPROC_EMSGSIZE;
    }
    int err = add_lease(get, mpr_log_load_seq(head));
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (record->kind == MPR_RECORD_BLOCK) {
        mpr_hand_set(get->self, MPR_HAND_BLOCK,
                     mpr_record_block(record)->block);
    } else if (count > 1 && !mpr_log_is_array(log)) {
        gain->count = copy_records(get, record, how_many(log, count));
    } else if (size > 0) {
        memcpy(get->data, record + 1, size);
    }
    move(get, record, gain->count);
    return 0;
}

/* What the taking of `count` messages leaves to be given back. */
static void give_back(struct mpr_log *log, struct mpr_thread *self,
                      struct mpr_thread *whose, size_t count)
{
    if (mpr_unlikely(mpr_hand(whose, MPR_HAND_SEGMENT) != NULL)) {
        mpr_heap_free_hand(self, whose, MPR_HAND_SEGMENT);
    }
    if (mpr_hand(whose, MPR_HAND_BLOCK) != NULL) {
        mpr_heap_free_hand(self, whose, MPR_HAND_BLOCK);
    }
    if (mpr_unlikely(mpr_hand(whose, MPR_HAND_SECOND) != NULL)) {
        mpr_heap_free_hand(self, whose, MPR_HAND_SECOND);
    }
    if (mpr_likely(count > 0)) {
        mpr_log_ring_space(log, count);
    }
}

/* What a try lacks, to be had unlocked. */
enum lack { NOTHING, A_CHUNK, A_BLOCK };

/*
 * For the next try, which may come past the end of a segment, as the last one
 * may have. A block that is too small for the message makes way for a larger.
 */
static int provide(struct mpr_thread *self, enum lack lack, size_t size)
{
    mpr_heap_free_hand(self, self, MPR_HAND_SEGMENT);
    if (lack == A_CHUNK) {
        return mpr_leases_fetch(self);
    }
    mpr_heap_free_hand(self, self, MPR_HAND_BLOCK);
    return mpr_heap_alloc(self, size + 1, MPR_HAND_BLOCK) != NULL
               ? 0
               : MPROC_ENOMEM;
}

/* The first, and what of the rest comes with it. */
static inline int get_some(const struct mpr_log_get *get, size_t count,
                           size_t *done)
{
    struct mpr_log *log = get->log;
    struct mpr_thread *self = get->self;
    struct gain gain = {0, 0};
    int err;
    do {
        if (empty(log) ||
            mpr_unlikely(mpr_guard_lock_until(&log->head.guard, self, self,
                                              get->until) < 0)) {
            err = MPROC_EEMPTY;
            break;
        }
        err = get_locked(get, count, &gain);
        mpr_guard_unlock(&log->head.guard, self);
    } while (err == MPROC_EAGAIN && (err = provide(self, A_CHUNK, 0)) == 0);
    if (mpr_likely(err == 0)) {
        void *block = mpr_hand(self, MPR_HAND_BLOCK);
        if (block != NULL) {
            memcpy(get->data, block, gain.size);
        }
        if (get->size != NULL) {
            *get->size = (size_t)gain.size;
        }
        *done = gain.count;
    }
    give_back(log, self, self, err == 0 ? gain.count : 0);
    return err;
}

/* ---- taking in place -------------------------------------------------- */

static void tell(struct mpr_log_block *out, struct mpr_lease_place place)
{
    const struct mpr_lease *lease = mpr_lease_at(place);
    *out = (struct mpr_log_block){place, lease->seq, lease->block, lease->size};
}

/* The copy of a message that lies in its record: NULL if there is no room. */
static char *copy_of(const struct mpr_log_get *get, struct mpr_record *record)
{
    char *block = mpr_hand(get->self, MPR_HAND_BLOCK);
    if (block == NULL || mpr_heap_block_size(block) <= record->size) {
        return NULL;
    }
    memcpy(block, record + 1, record->size);
    block[record->size] = '\0';
    return block;
}

static int take_first(const struct mpr_log_get *get, struct mpr_log_block *out,
                      enum lack *lack)
{
    struct mpr_log *log = get->log;
    struct mpr_record *record = first_record(log, get->self);
    bool copied = record->kind == MPR_RECORD_INLINE;
    struct mpr_lease like = {.owner = MPR_LEASE_HELD,
                             .seq = mpr_log_load_seq(&log->head),
                             .size = mpr_record_message(record)};
    out->size = like.size;
    if (too_large(get, like.size)) {
        return MPROC_EMSGSIZE;
    }
    like.block =
        copied ? copy_of(get, record) : mpr_record_block(record)->block;
    if (like.block == NULL) {
        *lack = A_BLOCK;
        return MPROC_EAGAIN;
    }
    if (mpr_leases_add(&log->leases, get->self, &like, &out->place) < 0) {
        *lack = A_CHUNK;
        return MPROC_EAGAIN;
    }
    move(get, record, 1);
    if (copied) {
        mpr_hand_set(get->self, MPR_HAND_BLOCK, NULL);
    }
    return 0;
}

static int take_locked(const struct mpr_log_get *get, struct mpr_log_block *out,
                       enum lack *lack)
{
    struct mpr_log *log = get->log;
    if (mpr_unlikely(mpr_log_ended(get->object, get->tag))) {
        return MPROC_ESHUTDOWN;
    }
    if (mpr_leases_first_ready(&log->leases, &out->place)) {
        if (too_large(get, mpr_lease_at(out->place)->size)) {
            return MPROC_EMSGSIZE;
        }
        mpr_lease_take_over(&log->leases, out->place, get->self);
        return 0;
    }
    return empty_locked(log) ? MPROC_EEMPTY : take_first(get, out, lack);
}

int mpr_log_take(const struct mpr_log_get *get, struct mpr_log_block *out)
{
    struct mpr_log *log = get->log;
    struct mpr_thread *self = get->self;
    enum lack lack = NOTHING;
    int err;
    do {
        if (empty(log) || mpr_guard_lock_until(&log->head.guard, self, self,
                                               get->until) < 0) {
            err = MPROC_EEMPTY;
            break;
        }
        err = take_locked(get, out, &lack);
        if (mpr_likely(err == 0)) {
            tell(out, out->place);
        }
        mpr_guard_unlock(&log->head.guard, self);
    } while (err == MPROC_EAGAIN &&
             (err = provide(self, lack, out->size)) == 0);
    give_back(log, self, self, err == 0);
    return err;
}

/* With the guard locked. */
static bool is_taken(const struct mpr_log_get *get,
                     const struct mpr_log_block *taken)
{
    return !mpr_log_ended(get->object, get->tag) &&
           mpr_lease_is_held(&get->log->leases, taken->place, taken->seq);
}

bool mpr_log_release(const struct mpr_log_get *get,
                     const struct mpr_log_block *taken)
{
    struct mpr_log *log = get->log;
    struct mpr_thread *self = get->self;
    mpr_guard_lock(&log->head.guard, self, self);
    bool ours = is_taken(get, taken);
    if (ours) {
        mpr_lease_end(&log->leases, taken->place, self);
    }
    mpr_guard_unlock(&log->head.guard, self);
    give_back(log, self, self, 0);
    return ours;
}

/*
 * While it is copied it is as one that is taken in place: no other thread can
 * acknowledge it.
 */
static int get_copy(const struct mpr_log_get *get)
{
    struct mpr_guard *guard = &get->log->head.guard;
    struct mpr_log_block taken;
    int err = mpr_log_take(get, &taken);
    if (err < 0) {
        return err;
    }
    if (taken.size > 0) {
        memcpy(get->data, taken.data, taken.size);
    }
    if (get->size != NULL) {
        *get->size = taken.size;
    }
    mpr_guard_lock(guard, get->self, get->self);
    if (is_taken(get, &taken)) {
        mpr_lease_let_go(taken.place);
    }
    mpr_guard_unlock(guard, get->self);
    return 0;
}

int mpr_log_get(const struct mpr_log_get *get)
{
    size_t done;
    return mpr_unlikely(get->log->redeliver) ? get_copy(get)
                                             : get_some(get, 1, &done);
}

int mpr_log_get_many(const struct mpr_log_get *get, size_t count, size_t *done)
{
    if (!get->log->redeliver) {
        return get_some(get, count, done);
    }
    int err = get_copy(get);
    *done = err == 0;
    return err;
}

/* ---- taking and forgetting -------------------------------------------- */

/* What to drop when all goes: of an array the one that nothing moves up for. */
static struct mpr_record *any_record(struct mpr_log *log,
                                     struct mpr_thread *whose)
{
    return mpr_log_is_array(log)
               ? mpr_order_last(&log->array, mpr_log_count_locked(log))
               : first_record(log, whose);
}

/* With the guard locked: one message is in the hands of `whose`. */
static int discard_locked(struct mpr_log *log, struct mpr_thread *whose)
{
    struct mpr_lease_place ready;
    if (mpr_leases_first_ready(&log->leases, &ready)) {
        mpr_lease_end(&log->leases, ready, whose);
        return 0;
    }
    if (empty_locked(log)) {
        return MPROC_EEMPTY;
    }
    struct mpr_record *record = any_record(log, whose);
    if (record->kind == MPR_RECORD_BLOCK) {
        mpr_hand_set(whose, MPR_HAND_BLOCK, mpr_record_block(record)->block);
    }
    mpr_log_move(&log->head, 1, mpr_record_size(record),
                 mpr_record_message(record));
    if (mpr_log_is_array(log)) {
        mpr_order_shrink(&log->array, whose, mpr_log_count_locked(log));
    }
    return 0;
}

int mpr_log_drop(struct mpr_log *log, struct mpr_thread *self,
                 struct mpr_thread *whose)
{
    mpr_guard_lock(&log->head.guard, self, whose);
    int err = discard_locked(log, whose);
    mpr_guard_unlock(&log->head.guard, self);
    give_back(log, self, whose, err == 0);
    return err;
}

int mpr_log_discard(const struct mpr_log_get *get)
{
    struct mpr_log *log = get->log;
    struct mpr_thread *self = get->self;
    if (empty(log) ||
        mpr_guard_lock_until(&log->head.guard, self, self, get->until) < 0) {
        return MPROC_EEMPTY;
    }
    int err = mpr_log_ended(get->object, get->tag) ? MPROC_ESHUTDOWN
                                                   : discard_locked(log, self);
    mpr_guard_unlock(&log->head.guard, self);
    give_back(log, self, self, err == 0);
    return err;
}
