/* SPDX-License-Identifier: MIT */
/* Taking: at the head of a log. */
#include <string.h>

#include "chan/lease.h"
#include "chan/record.h"
#include "shm/heap.h"

/* The head is read first: when nothing is before the tail now, it was empty. */
static bool empty(struct mpr_log *log)
{
    uint64_t seq = mpr_log_load_seq(&log->head);
    uint64_t seen = atomic_load_explicit(&log->head.seen, memory_order_acquire);
    return mpr_unlikely(seq >= seen) && seq >= mpr_log_load_seq(&log->tail);
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

/* The first of an array is taken. */
static void move_in_array(struct mpr_log *log, struct mpr_thread *self,
                          uint64_t size)
{
    struct mpr_log_end *head = &log->head;
    uint64_t count = mpr_log_count_locked(log);
    mpr_order_take(&log->array, count, mpr_log_load_seq(head) + 1);
    mpr_log_move(head, 0, size);
    mpr_order_taken(&log->array, count - 1);
    mpr_order_shrink(&log->array, self, count - 1);
}

/* One try with the guard locked: the message, or its block, becomes ours. */
static int get_locked(const struct mpr_log_get *get, uint64_t *size)
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
    *size = mpr_record_message(record);
    if (too_large(get, *size)) {
        return MPROC_EMSGSIZE;
    }
    if (log->leases != NULL) {
        int err =
            mpr_leases_add(log->leases, get->self, mpr_log_load_seq(head));
        if (err < 0) {
            return err;
        }
    }
    if (record->kind == MPR_RECORD_BLOCK) {
        mpr_hand_set(get->self, MPR_HAND_BLOCK,
                     mpr_record_block(record)->block);
    } else if (*size > 0) {
        memcpy(get->data, record + 1, *size);
    }
    if (mpr_log_is_array(log)) {
        move_in_array(log, get->self, *size);
    } else {
        mpr_log_move(head, mpr_record_size(record), *size);
    }
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
    if (empty_locked(log)) {
        return MPROC_EEMPTY;
    }
    struct mpr_record *record = any_record(log, whose);
    if (record->kind == MPR_RECORD_BLOCK) {
        mpr_hand_set(whose, MPR_HAND_BLOCK, mpr_record_block(record)->block);
    }
    mpr_log_move(&log->head, mpr_record_size(record),
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
    int err = mpr_log_ended(get->object, get->tag) ? MPROC_ESHUTDOWN
                                                   : discard_locked(log, self);
    mpr_guard_unlock(&log->head.guard, self);
    give_back(log, self, self);
    return err;
}
