/* SPDX-License-Identifier: MIT */
/* What a user has of a message that is out, and its end. */
#include "chan/queue_call.h"

/*
 * The four words: the queue, where the lease is (the address of its chunk, and
 * its number there in the low bits), the number of the lease, and a sum over
 * these, the tag of the queue and what the message is. The sum tells a message
 * from other memory, and from one of a queue that was freed.
 */
enum { QUEUE, PLACE, SEQ, SUM };

static_assert(MPR_LEASES_A_CHUNK <= MPR_LINE, "a number fits the low bits");

static uintptr_t word(const mproc_message *m, int i)
{
    return (uintptr_t)m->private_[i];
}

static uintptr_t sum(const mproc_message *m, uint64_t tag,
                     enum mpr_message_kind kind)
{
    uint64_t sum = tag + (uint64_t)kind;
    for (int i = QUEUE; i < SUM; i++) {
        sum = (sum ^ word(m, i)) * UINT64_C(0x9e3779b97f4a7c15);
        sum ^= sum >> 29;
    }
    return (uintptr_t)sum | 1;
}

void mpr_message_set(mproc_message *m, const struct mpr_queue_call *call,
                     const struct mpr_log_block *block,
                     enum mpr_message_kind kind)
{
    uintptr_t place = (uintptr_t)block->place.chunk | block->place.index;
    m->data = block->data;
    m->size = block->size;
    m->private_[QUEUE] = call->q;
    m->private_[PLACE] = (void *)place;
    m->private_[SEQ] = (void *)(uintptr_t)block->seq;
    m->private_[SUM] = (void *)sum(m, call->tag, kind);
}

enum mpr_message_kind mpr_message_read(const mproc_message *m,
                                       mproc_queue **queue,
                                       struct mpr_log_block *block)
{
    if (m == NULL) {
        return MPR_MESSAGE_NONE;
    }
    *queue = m->private_[QUEUE];
    uint64_t tag = mpr_object_tag(*queue, MPR_QUEUE);
    uintptr_t place = word(m, PLACE), index = place % MPR_LINE;
    *block = (struct mpr_log_block){
        .place = {(struct mpr_lease_chunk *)(place - index), (uint32_t)index},
        .seq = word(m, SEQ),
        .data = m->data,
        .size = m->size};
    if (tag != 0 && word(m, SUM) == sum(m, tag, MPR_MESSAGE_LOAN)) {
        return MPR_MESSAGE_LOAN;
    }
    return tag != 0 && word(m, SUM) == sum(m, tag, MPR_MESSAGE_TAKEN)
               ? MPR_MESSAGE_TAKEN
               : MPR_MESSAGE_NONE;
}

static bool give_up(const struct mpr_queue_call *call,
                    enum mpr_message_kind kind,
                    const struct mpr_log_block *block)
{
    if (kind == MPR_MESSAGE_LOAN) {
        struct mpr_log_put put;
        mpr_queue_put_of(call, &put);
        return mpr_log_take_back(&put, block);
    }
    struct mpr_log_get get;
    mpr_queue_get_of(call, &get);
    bool ours = mpr_log_release(&get, block);
    if (ours && call->q->log.joinable) {
        mpr_bell_ring(&call->q->done, INT_MAX);
    }
    return ours;
}

void mproc_message_release(mproc_message *m)
{
    struct mpr_queue_call call;
    struct mpr_log_block block;
    mproc_queue *q;
    enum mpr_message_kind kind = mpr_message_read(m, &q, &block);
    if (kind == MPR_MESSAGE_NONE ||
        mpr_queue_begin(&call, q, MPROC_FOREVER) < 0) {
        return;
    }
    if (mpr_likely(give_up(&call, kind, &block))) {
        *m = (mproc_message){0};
    }
    mpr_queue_end(&call, 0);
}
