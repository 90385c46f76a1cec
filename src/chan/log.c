/* SPDX-License-Identifier: MIT */
#include "chan/log.h"

#include <string.h>

#include "chan/lease.h"
#include "shm/heap.h"

/*
 * `size` bytes of payload follow, or a struct block_ref, or nothing: a JUMP
 * says that the next record is the first of the next segment.
 */
struct record {
    uint32_t size;
    uint32_t kind;
};

enum { INLINE = 1, BLOCK = 2, JUMP = 3 };

struct block_ref {
    void *block;
    uint64_t size;
};

enum { SMALL_SEGMENT = 16384, SEGMENT = 65536 };

static size_t record_size(const struct record *record)
{
    size_t size = record->kind == BLOCK ? sizeof(struct block_ref)
                                        : (record->size + 7u) & ~(size_t)7;
    return sizeof *record + size;
}

static struct record *record_at(struct mpr_segment *segment, uint32_t offset)
{
    return (struct record *)((char *)(segment + 1) + offset);
}

static struct block_ref *block_of(struct record *record)
{
    return (struct block_ref *)(record + 1);
}

static uint64_t message_size(struct record *record)
{
    return record->kind == BLOCK ? block_of(record)->size : record->size;
}

static uint64_t load_seq(const struct mpr_log_end *end)
{
    return atomic_load_explicit(&end->seq, memory_order_seq_cst);
}

static uint64_t load_bytes(const struct mpr_log_end *end)
{
    return atomic_load_explicit(&end->bytes, memory_order_seq_cst);
}

/*
 * Who sleeps on the other side announces itself, then looks at these words; who
 * moves them looks for sleepers afterwards. Between the two lies a full
 * barrier: on x86 the unlock of the guard is one, elsewhere these stores and
 * the look are ordered.
 */
static void store(_Atomic uint64_t *word, uint64_t value)
{
#if defined(__x86_64__) || defined(__i386__)
    atomic_store_explicit(word, value, memory_order_release);
#else
    atomic_store_explicit(word, value, memory_order_seq_cst);
#endif
}

/* The first store is the one that moves the end. */
static void move(struct mpr_log_end *end, size_t by, uint64_t size)
{
    uint64_t seq = atomic_load_explicit(&end->seq, memory_order_relaxed);
    uint64_t bytes = load_bytes(end);
    end->offset += (uint32_t)by;
    atomic_signal_fence(memory_order_seq_cst);
    store(&end->seq, seq + 1);
    store(&end->bytes, bytes + size);
    atomic_signal_fence(memory_order_seq_cst);
}

/* ---- repair ----------------------------------------------------------- */

/* Walk to the record of number `seq`. `*before` is the last one passed. */
static void find_place(struct mpr_log_end *end, struct record **before)
{
    struct mpr_segment *segment = end->segment;
    uint64_t bytes = segment->base_bytes;
    uint32_t offset = 0;
    *before = NULL;
    for (uint64_t seq = segment->base_seq; seq < load_seq(end); seq++) {
        *before = record_at(segment, offset);
        offset += (uint32_t)record_size(*before);
        bytes += message_size(*before);
    }
    end->offset = offset;
    atomic_store(&end->bytes, bytes);
}

static void settle(struct mpr_thread *hands, enum mpr_hand hand,
                   const void *thing)
{
    if (hands != NULL && thing != NULL && mpr_hand(hands, hand) == thing) {
        mpr_hand_set(hands, hand, NULL);
    }
}

static void *block_in(struct record *record)
{
    return record != NULL && record->kind == BLOCK ? block_of(record)->block
                                                   : NULL;
}

/* What was linked is the log's, though it may not be the tail's yet. */
static void repair_tail(struct mpr_guard *guard, struct mpr_thread *hands)
{
    struct mpr_log_end *tail = (struct mpr_log_end *)guard;
    struct record *last;
    struct mpr_segment *next =
        tail->segment != NULL ? atomic_load(&tail->segment->next) : NULL;
    if (next != NULL) {
        tail->segment = next;
    }
    if (tail->segment == NULL) {
        return;
    }
    find_place(tail, &last);
    if (tail->settled != load_seq(tail)) {
        settle(hands, MPR_HAND_BLOCK, block_in(last));
        tail->settled = load_seq(tail);
    }
    settle(hands, MPR_HAND_SEGMENT, tail->segment);
}

/* What was not taken, or not left behind, is the log's. */
static void repair_head(struct mpr_guard *guard, struct mpr_thread *hands)
{
    struct mpr_log *log =
        (struct mpr_log *)((char *)guard - offsetof(struct mpr_log, head));
    struct mpr_log_end *head = &log->head;
    struct record *last;
    if (log->leases != NULL) {
        mpr_leases_repair(log->leases, load_seq(head), hands);
    }
    if (head->segment == NULL) { /* ended, but perhaps not its leases */
        return;
    }
    find_place(head, &last);
    if (load_seq(head) < load_seq(&log->tail)) {
        settle(hands, MPR_HAND_BLOCK,
               block_in(record_at(head->segment, head->offset)));
    }
    settle(hands, MPR_HAND_SEGMENT, head->segment);
}

__attribute__((constructor)) static void register_repairs(void)
{
    mpr_guard_on_repair(MPR_GUARD_QUEUE_TAIL, repair_tail);
    mpr_guard_on_repair(MPR_GUARD_QUEUE_HEAD, repair_head);
}

/* ---- beginning -------------------------------------------------------- */

static void init_end(struct mpr_log_end *end, struct mpr_segment *first)
{
    end->segment = first;
    end->offset = 0;
    end->settled = 0;
    atomic_store(&end->closed, 0);
    atomic_store(&end->seen, 0);
    atomic_store(&end->seq, 0);
    atomic_store(&end->bytes, 0);
}

void mpr_log_init(struct mpr_log *log, bool prepared)
{
    if (!prepared) {
        mpr_guard_init(&log->tail.guard, MPR_GUARD_QUEUE_TAIL);
        mpr_guard_init(&log->head.guard, MPR_GUARD_QUEUE_HEAD);
    }
    log->first.base_seq = 0;
    log->first.base_bytes = 0;
    log->first.capacity = MPR_LOG_FIRST_BYTES;
    atomic_store(&log->first.next, NULL);
    init_end(&log->tail, &log->first);
    init_end(&log->head, &log->first);
    log->max_items = UINT64_MAX;
    log->max_bytes = UINT64_MAX;
    log->leases = NULL;
}

/* ---- putting ---------------------------------------------------------- */

/* Is what the call was made for still what the memory is? Under a guard. */
static bool ended(const struct mpr_object *object, uint64_t tag)
{
    return object != NULL && !mpr_object_unchanged(object, tag);
}

/* What is held is what lies between two looks at what was taken. */
static bool full_of_bytes(struct mpr_log *log, size_t size)
{
    uint64_t out, in;
    do {
        out = load_bytes(&log->head);
        in = load_bytes(&log->tail);
    } while (out != load_bytes(&log->head));
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
    return mpr_unlikely(load_seq(tail) - seen >= log->max_items) &&
           mpr_log_count(log) >= log->max_items;
}

/* Room for the record, and for a JUMP behind it. */
static bool fits(const struct mpr_log_end *tail, size_t record)
{
    return tail->offset + record + sizeof(struct record) <=
           tail->segment->capacity;
}

/* A segment for the hand: small at first, so that small queues stay small. */
static int fetch_segment(struct mpr_log *log, struct mpr_thread *self)
{
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
    struct record *jump = record_at(tail->segment, tail->offset);
    next->base_seq = load_seq(tail);
    next->base_bytes = load_bytes(tail);
    atomic_store_explicit(&next->next, NULL, memory_order_relaxed);
    *jump = (struct record){.kind = JUMP};
    atomic_store_explicit(&tail->segment->next, next, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    tail->segment = next;
    tail->offset = 0;
    mpr_hand_set(self, MPR_HAND_SEGMENT, NULL);
}

static size_t write_record(struct mpr_log_end *tail,
                           const struct mpr_log_put *put)
{
    struct record *record = record_at(tail->segment, tail->offset);
    if (put->size <= MPR_LOG_INLINE) {
        *record = (struct record){(uint32_t)put->size, INLINE};
        if (put->size > 0) {
            memcpy(record + 1, put->data, put->size);
        }
    } else {
        *record = (struct record){.kind = BLOCK};
        *block_of(record) =
            (struct block_ref){mpr_hand(put->self, MPR_HAND_BLOCK), put->size};
    }
    return record_size(record);
}

/* Once the head seems to be far behind. */
static void look_at_head(struct mpr_log *log)
{
    struct mpr_log_end *tail = &log->tail;
    uint64_t seen = atomic_load_explicit(&tail->seen, memory_order_relaxed);
    if (mpr_unlikely(load_seq(tail) - seen >= log->max_items)) {
        atomic_store_explicit(&tail->seen, load_seq(&log->head),
                              memory_order_release);
    }
}

/* One try with the guard locked. EAGAIN: a segment is needed. */
static int put_locked(const struct mpr_log_put *put)
{
    struct mpr_log_end *tail = &put->log->tail;
    struct record shape = {put->size <= MPR_LOG_INLINE ? (uint32_t)put->size
                                                       : 0,
                           put->size <= MPR_LOG_INLINE ? INLINE : BLOCK};
    if (mpr_unlikely(mpr_log_closed(put->log) ||
                     ended(put->object, put->tag))) {
        return MPROC_ESHUTDOWN;
    }
    if (mpr_unlikely(full(put->log, put->size))) {
        return MPROC_EFULL;
    }
    look_at_head(put->log);
    if (mpr_unlikely(!fits(tail, record_size(&shape)))) {
        if (mpr_hand(put->self, MPR_HAND_SEGMENT) == NULL) {
            return MPROC_EAGAIN;
        }
        begin_segment(tail, put->self);
    }
    move(tail, write_record(tail, put), put->size);
    if (put->size > MPR_LOG_INLINE) {
        mpr_hand_set(put->self, MPR_HAND_BLOCK, NULL);
    }
    tail->settled = atomic_load_explicit(&tail->seq, memory_order_relaxed);
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
    if (put->size > MPR_LOG_INLINE && mpr_hand(self, MPR_HAND_BLOCK) == NULL) {
        int err = copy_to_block(put);
        if (err < 0) {
            return err;
        }
    }
    for (;;) {
        int err =
            mpr_guard_lock_until(&log->tail.guard, self, self, put->until);
        if (mpr_unlikely(err < 0)) {
            return MPROC_EFULL;
        }
        err = put_locked(put);
        mpr_guard_unlock(&log->tail.guard, self);
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

/* ---- taking ----------------------------------------------------------- */

/* The head is read first: when nothing is before the tail now, it was empty. */
static bool empty(struct mpr_log *log)
{
    uint64_t seq = load_seq(&log->head);
    uint64_t seen = atomic_load_explicit(&log->head.seen, memory_order_acquire);
    return mpr_unlikely(seq >= seen) && seq >= load_seq(&log->tail);
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
    uint64_t seen = load_seq(&log->tail);
    atomic_store_explicit(&head->seen, seen, memory_order_release);
    return seq >= seen;
}

/*
 * The record at the head, past the end of its segment: that one goes into the
 * hand, to be freed without the guard, unless it is the log's own.
 */
static struct record *first_record(struct mpr_log *log,
                                   struct mpr_thread *whose)
{
    struct mpr_log_end *head = &log->head;
    struct record *record = record_at(head->segment, head->offset);
    if (mpr_likely(record->kind != JUMP)) {
        return record;
    }
    struct mpr_segment *old = head->segment;
    if (old != &log->first) {
        mpr_hand_set(whose, MPR_HAND_SEGMENT, old);
    }
    head->segment = atomic_load_explicit(&old->next, memory_order_acquire);
    head->offset = 0;
    return record_at(head->segment, 0);
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

/* One try with the guard locked: the message, or its block, becomes ours. */
static int get_locked(const struct mpr_log_get *get, uint64_t *size)
{
    struct mpr_log *log = get->log;
    struct mpr_log_end *head = &log->head;
    if (mpr_unlikely(ended(get->object, get->tag))) {
        return MPROC_ESHUTDOWN;
    }
    if (empty_locked(log)) {
        return MPROC_EEMPTY;
    }
    struct record *record = first_record(log, get->self);
    *size = message_size(record);
    if (too_large(get, *size)) {
        return MPROC_EMSGSIZE;
    }
    if (log->leases != NULL) {
        int err = mpr_leases_add(log->leases, get->self, load_seq(head));
        if (err < 0) {
            return err;
        }
    }
    if (record->kind == BLOCK) {
        mpr_hand_set(get->self, MPR_HAND_BLOCK, block_of(record)->block);
    } else if (*size > 0) {
        memcpy(get->data, record + 1, *size);
    }
    move(head, record_size(record), *size);
    return 0;
}

/* What a taken message leaves to be given back. */
static void give_back(struct mpr_log *log, struct mpr_thread *self,
                      struct mpr_thread *whose)
{
    if (mpr_unlikely(mpr_hand(whose, MPR_HAND_SEGMENT) != NULL)) {
        mpr_heap_free_hand(self, whose, MPR_HAND_SEGMENT);
    }
    if (mpr_hand(whose, MPR_HAND_BLOCK) != NULL) {
        mpr_heap_free_hand(self, whose, MPR_HAND_BLOCK);
    }
    mpr_bell_ring(&log->space, 1);
}

int mpr_log_get(const struct mpr_log_get *get)
{
    struct mpr_log *log = get->log;
    struct mpr_thread *self = get->self;
    uint64_t size = 0;
    int err;
    do {
        if (empty(log)) {
            return MPROC_EEMPTY;
        }
        err = mpr_guard_lock_until(&log->head.guard, self, self, get->until);
        if (mpr_unlikely(err < 0)) {
            return MPROC_EEMPTY;
        }
        err = get_locked(get, &size);
        mpr_guard_unlock(&log->head.guard, self);
    } while (err == MPROC_EAGAIN && (err = mpr_leases_fetch(self)) == 0);
    if (mpr_likely(err == 0)) {
        void *block = mpr_hand(self, MPR_HAND_BLOCK);
        if (block != NULL) {
            memcpy(get->data, block, size);
        }
        if (get->size != NULL) {
            *get->size = (size_t)size;
        }
    }
    give_back(log, self, self);
    if (log->leases != NULL) {
        mpr_heap_free_hand(self, self, MPR_HAND_SECOND);
    }
    return err;
}

/* With the guard locked: the first message is in the hands of `whose`. */
static int discard_locked(struct mpr_log *log, struct mpr_thread *whose)
{
    if (empty_locked(log)) {
        return MPROC_EEMPTY;
    }
    struct record *record = first_record(log, whose);
    if (record->kind == BLOCK) {
        mpr_hand_set(whose, MPR_HAND_BLOCK, block_of(record)->block);
    }
    move(&log->head, record_size(record), message_size(record));
    return 0;
}

static int discard(struct mpr_log *log, struct mpr_thread *self,
                   struct mpr_thread *whose)
{
    mpr_guard_lock(&log->head.guard, self, whose);
    int err = discard_locked(log, whose);
    mpr_guard_unlock(&log->head.guard, self);
    give_back(log, self, whose);
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
    int err = ended(get->object, get->tag) ? MPROC_ESHUTDOWN
                                           : discard_locked(log, self);
    mpr_guard_unlock(&log->head.guard, self);
    give_back(log, self, self);
    return err;
}

/* ---- closing and ending ----------------------------------------------- */

bool mpr_log_close(struct mpr_log *log, struct mpr_thread *self)
{
    mpr_guard_lock(&log->tail.guard, self, self);
    bool first = atomic_exchange(&log->tail.closed, 1) == 0;
    mpr_guard_unlock(&log->tail.guard, self);
    mpr_bell_ring(&log->space, INT_MAX);
    mpr_bell_ring(&log->items, INT_MAX);
    return first;
}

/* The last segment, once nothing is in it. */
static void leave_segment(struct mpr_log *log, struct mpr_thread *self,
                          struct mpr_thread *whose)
{
    mpr_guard_lock(&log->tail.guard, self, whose);
    log->tail.segment = NULL;
    mpr_guard_unlock(&log->tail.guard, self);
    mpr_guard_lock(&log->head.guard, self, whose);
    struct mpr_segment *last = log->head.segment;
    if (last != NULL && last != &log->first) {
        mpr_hand_set(whose, MPR_HAND_SEGMENT, last);
    }
    log->head.segment = NULL;
    mpr_guard_unlock(&log->head.guard, self);
    mpr_heap_free_hand(self, whose, MPR_HAND_SEGMENT);
}

void mpr_log_end(struct mpr_log *log, struct mpr_thread *self,
                 struct mpr_thread *whose)
{
    mpr_heap_free_hand(self, whose, MPR_HAND_SEGMENT);
    mpr_heap_free_hand(self, whose, MPR_HAND_BLOCK);
    mpr_log_close(log, self);
    while (discard(log, self, whose) == 0) {
    }
    leave_segment(log, self, whose);
}

uint64_t mpr_log_count(const struct mpr_log *log)
{
    uint64_t head = mpr_log_head(log), tail, again;
    for (;;) {
        tail = mpr_log_tail(log);
        again = mpr_log_head(log);
        if (again == head) {
            return tail - head;
        }
        head = again;
    }
}
