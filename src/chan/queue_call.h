/* SPDX-License-Identifier: MIT */
/* A call on a queue, for the files that queues are made of. */
#ifndef MPR_CHAN_QUEUE_CALL_H
#define MPR_CHAN_QUEUE_CALL_H

#include "chan/queue.h"
#include "chan/watch.h"

/*
 * One call: who makes it, on which queue, as it was when the call began.
 * `deaths`: how many it knew when it last looked what the dead had; `looked`:
 * it has.
 */
struct mpr_queue_call {
    struct mproc_queue *q;
    struct mpr_thread *self;
    uint64_t tag;
    uintptr_t outer;
    mproc_deadline until;
    uint32_t deaths;
    bool looked;
};

static inline int mpr_queue_begin(struct mpr_queue_call *call,
                                  const mproc_queue *q, mproc_deadline until)
{
    call->q = (struct mproc_queue *)q;
    call->until = until;
    call->looked = false;
    call->tag = mpr_object_tag(q, MPR_QUEUE);
    if (mpr_unlikely(call->tag == 0)) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(&call->self);
    if (mpr_likely(err == 0)) {
        call->outer = mpr_op_begin(call->self, q);
    }
    return err;
}

static inline int mpr_queue_end(const struct mpr_queue_call *call, int err)
{
    mpr_watch_settle(call->self, call->q);
    mpr_op_end(call->self, call->outer);
    return err;
}

static inline bool mpr_queue_ended(const struct mpr_queue_call *call)
{
    return mpr_unlikely(!mpr_object_unchanged(call->q, call->tag));
}

/*
 * Is it time to look what the dead had, or to look again? Who reaped them may
 * have found the guard held for long; whoever is told of a death afterwards
 * does it himself, before he sleeps.
 */
static inline bool mpr_queue_news(struct mpr_queue_call *call)
{
    uint32_t deaths = atomic_load(&mpr_family->deaths);
    bool news = !call->looked || call->deaths != deaths;
    call->deaths = deaths;
    call->looked = true;
    return news;
}

/* Why there is nothing to put to or take from: freed, or shut down. */
static inline int mpr_queue_closed_because(const struct mpr_queue_call *call)
{
    return mpr_queue_ended(call) ? MPROC_EINVAL : MPROC_ESHUTDOWN;
}

/*
 * What the log wants to know of it. Field by field: a struct that is made and
 * then copied would be read before its parts are written.
 */
static inline void mpr_queue_put_of(const struct mpr_queue_call *call,
                                    struct mpr_log_put *put)
{
    put->log = &call->q->log;
    put->self = call->self;
    put->data = NULL;
    put->size = 0;
    put->priority = 0;
    put->until = call->until;
    put->object = &call->q->object;
    put->tag = call->tag;
}

static inline void mpr_queue_get_of(const struct mpr_queue_call *call,
                                    struct mpr_log_get *get)
{
    get->log = &call->q->log;
    get->self = call->self;
    get->data = NULL;
    get->capacity = 0;
    get->size = NULL;
    get->until = call->until;
    get->object = &call->q->object;
    get->tag = call->tag;
}

/* What was to be dropped goes, whoever was killed while dropping it. */
void mpr_queue_drop_rest(const struct mpr_queue_call *call);

/* ---- messages without a copy (queue_message.c) ------------------------ */

enum mpr_message_kind { MPR_MESSAGE_NONE, MPR_MESSAGE_LOAN, MPR_MESSAGE_TAKEN };

/* Tell the user of a block that is out. */
void mpr_message_set(mproc_message *m, const struct mpr_queue_call *call,
                     const struct mpr_log_block *block,
                     enum mpr_message_kind kind);

/*
 * What a message of the user is, by its own words, and which queue's, which may
 * be live no more: NONE then, or if it is no message. Whether it is still out
 * is known to the queue.
 */
enum mpr_message_kind mpr_message_read(const mproc_message *m,
                                       mproc_queue **queue,
                                       struct mpr_log_block *block);

#endif
