/* SPDX-License-Identifier: MIT */
/* What a worker knows of the task that it runs. */
#ifndef MPR_POOL_REPLY_H
#define MPR_POOL_REPLY_H

#include "pool/pool.h"

/* The task that this worker runs, and what it has said so far. */
struct mproc_reply {
    mproc_pool *pool;
    struct mpr_thread *self;
    struct mpr_worker *worker;
    struct mpr_entry entry;
    char *memory; /* the reply: in the task, or for an item in `scratch` */
    size_t size;
    size_t capacity;
    bool failed;
    int code;
    char *scratch;
    size_t scratch_capacity;
    char *text; /* why the item failed; private until it has ended */
    size_t ran;
};

/*
 * False in a process that the task has forked: that has all of this, but is no
 * worker, and its thread's record may be another's by now.
 */
static inline bool mpr_reply_is_ours(const mproc_reply *reply)
{
    mpr_id worker = reply->pool->threads ? reply->pool->maker
                                         : atomic_load(&reply->worker->id);
    mpr_id own = mpr_own_id();
    return own != 0 && own == worker;
}

/* Replies of the items of a chunk are kept in it. */
bool mpr_reply_is_kept(const struct mpr_chunk *chunk);

/*
 * What a chunk's items leave lies one behind the other in the task's reply.
 * Room for `size` bytes at `offset` there, behind what the items before have
 * left; the last of the bytes it has are in *end. NULL: no memory.
 */
char *mpr_reply_room(mproc_reply *reply, size_t offset, size_t size,
                     size_t *end);

#endif
