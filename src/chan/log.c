/* SPDX-License-Identifier: MIT */
/* A log as a whole: its repair, its beginning and its end. */
#include "chan/record.h"
#include "shm/heap.h"

/* ---- repair ----------------------------------------------------------- */

/* Walk to the record of number `seq`. `*before` is the last one passed. */
static void find_place(struct mpr_log_end *end, struct mpr_record **before)
{
    struct mpr_segment *segment = end->segment;
    uint64_t bytes = segment->base_bytes;
    uint32_t offset = 0;
    *before = NULL;
    for (uint64_t seq = segment->base_seq; seq < mpr_log_load_seq(end); seq++) {
        *before = mpr_record_at(segment, offset);
        offset += (uint32_t)mpr_record_size(*before);
        bytes += mpr_record_message(*before);
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

static void *block_in(struct mpr_record *record)
{
    return record != NULL && record->kind == MPR_RECORD_BLOCK
               ? mpr_record_block(record)->block
               : NULL;
}

/* What was linked is the log's, though it may not be the tail's yet. */
static void repair_tail(struct mpr_guard *guard, struct mpr_thread *hands)
{
    struct mpr_log *log =
        (struct mpr_log *)((char *)guard - offsetof(struct mpr_log, tail));
    struct mpr_log_end *tail = &log->tail;
    struct mpr_record *last;
    if (mpr_log_is_array(log)) { /* locked by one who knew another log here */
        return;
    }
    mpr_leases_repair(&log->loans, UINT64_MAX, hands);
    struct mpr_segment *next =
        tail->segment != NULL ? atomic_load(&tail->segment->next) : NULL;
    if (next != NULL) {
        tail->segment = next;
    }
    if (tail->segment == NULL) {
        return;
    }
    find_place(tail, &last);
    if (tail->settled != mpr_log_load_seq(tail)) {
        settle(hands, MPR_HAND_BLOCK, block_in(last));
        mpr_leases_forget(&log->loans, block_in(last));
        tail->settled = mpr_log_load_seq(tail);
    }
    settle(hands, MPR_HAND_SEGMENT, tail->segment);
}

/*
 * What is in it is its own, and then goes to its place: until it is settled,
 * the last one is the one that was put last.
 */
static void repair_array(struct mpr_log *log, struct mpr_thread *hands)
{
    struct mpr_order *array = &log->array;
    struct mpr_log_end *tail = &log->tail;
    uint64_t count = mpr_log_count_locked(log);
    mpr_order_resume(array, hands, count, mpr_log_load_seq(&log->head));
    if (count > 0) {
        void *last = block_in(mpr_order_last(array, count));
        settle(hands, MPR_HAND_BLOCK, block_in(mpr_order_first(array, count)));
        settle(hands, MPR_HAND_BLOCK, last);
        if (tail->settled != mpr_log_load_seq(tail)) {
            mpr_leases_forget(&log->loans, last);
            tail->settled = mpr_log_load_seq(tail);
        }
    }
    mpr_order_put(array, count);
}

/* What was not taken, or not left behind, is the log's. */
static void repair_head(struct mpr_guard *guard, struct mpr_thread *hands)
{
    struct mpr_log *log =
        (struct mpr_log *)((char *)guard - offsetof(struct mpr_log, head));
    struct mpr_log_end *head = &log->head;
    struct mpr_record *last;
    mpr_leases_repair(&log->leases, mpr_log_load_seq(head), hands);
    if (mpr_log_is_array(log)) {
        mpr_leases_repair(&log->loans, UINT64_MAX, hands);
    }
    if (head->segment == NULL) { /* ended, but perhaps not its leases */
        return;
    }
    if (mpr_log_is_array(log)) {
        repair_array(log, hands);
        return;
    }
    /* first the tail: who put the records that are walked has stored it */
    bool more = mpr_log_load_seq(&log->tail) > mpr_log_load_seq(head);
    find_place(head, &last);
    if (more) {
        settle(hands, MPR_HAND_BLOCK,
               block_in(mpr_record_at(head->segment, head->offset)));
    }
    settle(hands, MPR_HAND_SEGMENT, head->segment);
}

__attribute__((constructor)) static void register_repairs(void)
{
    mpr_guard_on_repair(MPR_GUARD_QUEUE_TAIL, repair_tail);
    mpr_guard_on_repair(MPR_GUARD_QUEUE_HEAD, repair_head);
}

/* ---- beginning -------------------------------------------------------- */

/*
 * The segment comes last. Who knew the log before may lock the guard and be
 * killed, and the next such one repairs: he must not look for the old number in
 * the new segment.
 */
static void init_end(struct mpr_log_end *end, struct mpr_segment *first)
{
    end->offset = 0;
    end->settled = 0;
    end->loaned = 0;
    atomic_store(&end->closed, 0);
    atomic_store(&end->seen, 0);
    atomic_store(&end->seq, 0);
    atomic_store(&end->bytes, 0);
    end->segment = first;
}

void mpr_log_init(struct mpr_log *log, bool prepared)
{
    if (!prepared) {
        mpr_guard_init(&log->tail.guard, MPR_GUARD_QUEUE_TAIL);
        mpr_guard_init(&log->head.guard, MPR_GUARD_QUEUE_HEAD);
    }
    atomic_store(&log->order, MPROC_FIFO);
    atomic_signal_fence(memory_order_seq_cst);
    log->first.base_seq = 0;
    log->first.base_bytes = 0;
    log->first.capacity = MPR_LOG_FIRST_BYTES;
    atomic_store(&log->first.next, NULL);
    init_end(&log->tail, &log->first);
    init_end(&log->head, &log->first);
    log->max_items = UINT64_MAX;
    log->max_bytes = UINT64_MAX;
    log->joinable = 0;
    log->redeliver = 0;
    mpr_leases_init(&log->leases);
    mpr_leases_init(&log->loans);
    log->inline_below = MPR_LOG_INLINE + 1;
}

void mpr_log_set_order(struct mpr_log *log, int order)
{
    if (order == MPROC_FIFO) {
        return;
    }
    struct mpr_segment *first = log->head.segment;
    log->tail.segment = NULL;
    log->head.segment = NULL;
    atomic_signal_fence(memory_order_seq_cst);
    mpr_order_init(&log->array, order);
    log->inline_below = MPR_ORDER_RECORD - sizeof(struct mpr_record) + 1;
    atomic_store(&log->order, order);
    atomic_signal_fence(memory_order_seq_cst);
    log->head.segment = first;
}

/* ---- closing and ending ----------------------------------------------- */

bool mpr_log_close(struct mpr_log *log, struct mpr_thread *self)
{
    struct mpr_guard *guard = mpr_log_put_guard(log);
    mpr_guard_lock(guard, self, self);
    bool first = atomic_exchange(&log->tail.closed, 1) == 0;
    mpr_guard_unlock(guard, self);
    mpr_bell_ring(&log->space, INT_MAX);
    mpr_bell_ring(&log->items, INT_MAX);
    return first;
}

/* All chunks, once nothing is in them. */
static void leave_array(struct mpr_log *log, struct mpr_thread *self,
                        struct mpr_thread *whose)
{
    bool more;
    do {
        mpr_guard_lock(&log->head.guard, self, whose);
        more = mpr_order_shrink(&log->array, whose, 0);
        if (!more) {
            log->head.segment = NULL;
        }
        mpr_guard_unlock(&log->head.guard, self);
        mpr_heap_free_hand(self, whose, MPR_HAND_SEGMENT);
    } while (more);
}

/* The segment of the head, in which nothing is left. False: there is none. */
static bool leave_segment(struct mpr_log *log, struct mpr_thread *whose)
{
    struct mpr_log_end *head = &log->head;
    struct mpr_segment *old = head->segment;
    if (old == NULL) {
        return false;
    }
    if (old != &log->first) {
        mpr_hand_set(whose, MPR_HAND_SEGMENT, old);
    }
    head->segment = atomic_load(&old->next);
    atomic_signal_fence(memory_order_seq_cst);
    return true;
}

/*
 * All segments, once nothing is in them: the last, and one behind it if the
 * last to put was killed when he had begun it.
 */
static void leave_segments(struct mpr_log *log, struct mpr_thread *self,
                           struct mpr_thread *whose)
{
    bool more;
    mpr_guard_lock(&log->tail.guard, self, whose);
    log->tail.segment = NULL;
    mpr_guard_unlock(&log->tail.guard, self);
    do {
        mpr_guard_lock(&log->head.guard, self, whose);
        more = leave_segment(log, whose);
        mpr_guard_unlock(&log->head.guard, self);
        mpr_heap_free_hand(self, whose, MPR_HAND_SEGMENT);
    } while (more);
}

static void free_out(struct mpr_thread *self, struct mpr_thread *whose)
{
    mpr_heap_free_hand(self, whose, MPR_HAND_BLOCK);
    mpr_heap_free_hand(self, whose, MPR_HAND_SECOND);
}

static void drop_leases(struct mpr_guard *guard, struct mpr_leases *leases,
                        struct mpr_thread *self, struct mpr_thread *whose)
{
    bool more;
    do {
        mpr_guard_lock(guard, self, whose);
        more = mpr_leases_drop(leases, whose);
        mpr_guard_unlock(guard, self);
        free_out(self, whose);
    } while (more);
}

void mpr_log_end(struct mpr_log *log, struct mpr_thread *self,
                 struct mpr_thread *whose)
{
    mpr_heap_free_hand(self, whose, MPR_HAND_SEGMENT);
    free_out(self, whose);
    mpr_log_close(log, self);
    while (mpr_log_drop(log, self, whose) == 0) {
    }
    if (mpr_log_is_array(log)) {
        leave_array(log, self, whose);
    } else {
        leave_segments(log, self, whose);
    }
    drop_leases(&log->head.guard, &log->leases, self, whose);
    drop_leases(mpr_log_put_guard(log), &log->loans, self, whose);
}

/* ---- what is left behind ---------------------------------------------- */

static int reclaim(const struct mpr_log_get *get, struct mpr_guard *guard,
                   struct mpr_leases *leases, bool redeliver)
{
    int any = 0;
    bool more = mpr_leases_out(leases) > 0;
    while (more) {
        if (mpr_guard_lock_until(guard, get->self, get->self, get->until) < 0) {
            return any > 0 ? any : MPROC_ETIMEDOUT;
        }
        uint64_t out = mpr_leases_out(leases), ready = mpr_leases_ready(leases);
        more = !mpr_log_ended(get->object, get->tag) &&
               mpr_leases_reclaim(leases, get->self, redeliver);
        any |=
            out != mpr_leases_out(leases) || ready != mpr_leases_ready(leases);
        mpr_guard_unlock(guard, get->self);
        free_out(get->self, get->self);
    }
    return any;
}

int mpr_log_reclaim_taken(const struct mpr_log_get *get)
{
    struct mpr_log *log = get->log;
    int any = reclaim(get, &log->head.guard, &log->leases, log->redeliver != 0);
    if (any > 0) {
        mpr_bell_ring(&log->items, INT_MAX);
    }
    return any;
}

int mpr_log_reclaim_loans(const struct mpr_log_get *get)
{
    struct mpr_log *log = get->log;
    int any = reclaim(get, mpr_log_put_guard(log), &log->loans, false);
    if (any > 0) {
        mpr_bell_ring(&log->space, INT_MAX);
    }
    return any;
}

/* With those that are READY: as many as they were before and after. */
uint64_t mpr_log_count(const struct mpr_log *log)
{
    uint64_t head = mpr_log_head(log), ready = mpr_leases_ready(&log->leases);
    for (;;) {
        uint64_t tail = mpr_log_tail(log);
        uint64_t head_again = mpr_log_head(log);
        uint64_t ready_again = mpr_leases_ready(&log->leases);
        if (head_again == head && ready_again == ready) {
            return tail - head + (uint32_t)ready;
        }
        head = head_again;
        ready = ready_again;
    }
}
