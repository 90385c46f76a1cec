/* SPDX-License-Identifier: MIT */
/*
 * What lies in a log, for the files that make up the log: records, and how an
 * end moves over them.
 */
#ifndef MPR_CHAN_RECORD_H
#define MPR_CHAN_RECORD_H

#include "chan/log.h"

/*
 * `size` bytes of payload follow, or a struct mpr_block_ref, or nothing: a jump
 * says that the next record is the first of the next segment.
 */
struct mpr_record {
    uint32_t size;
    uint32_t kind;
};

enum { MPR_RECORD_INLINE = 1, MPR_RECORD_BLOCK = 2, MPR_RECORD_JUMP = 3 };

struct mpr_block_ref {
    void *block;
    uint64_t size;
};

static inline size_t mpr_record_inline_size(size_t size)
{
    return sizeof(struct mpr_record) + ((size + 7) & ~(size_t)7);
}

static inline size_t mpr_record_size(const struct mpr_record *record)
{
    return record->kind == MPR_RECORD_BLOCK
               ? sizeof *record + sizeof(struct mpr_block_ref)
               : mpr_record_inline_size(record->size);
}

static inline struct mpr_record *mpr_record_at(struct mpr_segment *segment,
                                               uint32_t offset)
{
    return (struct mpr_record *)((char *)(segment + 1) + offset);
}

static inline struct mpr_block_ref *mpr_record_block(struct mpr_record *record)
{
    return (struct mpr_block_ref *)(record + 1);
}

static inline uint64_t mpr_record_message(struct mpr_record *record)
{
    return record->kind == MPR_RECORD_BLOCK ? mpr_record_block(record)->size
                                            : record->size;
}

static inline uint64_t mpr_log_load_seq(const struct mpr_log_end *end)
{
    return atomic_load_explicit(&end->seq, memory_order_seq_cst);
}

static inline uint64_t mpr_log_load_bytes(const struct mpr_log_end *end)
{
    return atomic_load_explicit(&end->bytes, memory_order_seq_cst);
}

/*
 * Who sleeps on the other side announces itself, then looks at these words; who
 * moves them looks for sleepers afterwards. Between the two lies a full
 * barrier: on x86 the unlock of the guard is one, elsewhere these stores and
 * the look are ordered.
 */
static inline void mpr_log_store(_Atomic uint64_t *word, uint64_t value)
{
#if defined(__x86_64__) || defined(__i386__)
    atomic_store_explicit(word, value, memory_order_release);
#else
    atomic_store_explicit(word, value, memory_order_seq_cst);
#endif
}

/*
 * `n` messages of `size` bytes in all, whose records take `by` bytes. The first
 * store is the one that moves the end.
 */
static inline void mpr_log_move(struct mpr_log_end *end, uint64_t n, size_t by,
                                uint64_t size)
{
    uint64_t seq = atomic_load_explicit(&end->seq, memory_order_relaxed);
    uint64_t bytes = mpr_log_load_bytes(end);
    end->offset += (uint32_t)by;
    atomic_signal_fence(memory_order_seq_cst);
    mpr_log_store(&end->seq, seq + n);
    mpr_log_store(&end->bytes, bytes + size);
    atomic_signal_fence(memory_order_seq_cst);
}

static inline bool mpr_log_is_array(const struct mpr_log *log)
{
    int order = atomic_load_explicit(&log->order, memory_order_relaxed);
    return mpr_unlikely(order != MPROC_FIFO);
}

/* What puts lock. */
static inline struct mpr_guard *mpr_log_put_guard(struct mpr_log *log)
{
    return mpr_log_is_array(log) ? &log->head.guard : &log->tail.guard;
}

/* Messages in it, with both ends locked. */
static inline uint64_t mpr_log_count_locked(const struct mpr_log *log)
{
    return atomic_load_explicit(&log->tail.seq, memory_order_relaxed) -
           atomic_load_explicit(&log->head.seq, memory_order_relaxed);
}

/* Is what the call was made for still what the memory is? Under a guard. */
static inline bool mpr_log_ended(const struct mpr_object *object, uint64_t tag)
{
    return object != NULL && !mpr_object_unchanged(object, tag);
}

/*
 * `n` places are free. Who is woken for bytes may need more of them than
 * another, so then all look.
 */
static inline void mpr_log_ring_space(struct mpr_log *log, uint64_t n)
{
    bool all = n > INT_MAX || log->max_bytes != UINT64_MAX;
    mpr_bell_ring(&log->space, all ? INT_MAX : (int)n);
}

/*
 * Take the first into the hands of `whose` and forget it, whatever the log is
 * part of. EEMPTY.
 */
int mpr_log_drop(struct mpr_log *log, struct mpr_thread *self,
                 struct mpr_thread *whose);

#endif
