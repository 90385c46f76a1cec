/* SPDX-License-Identifier: MIT */
/*
 * Chunks that have ended: what they had serves the next items of their batch.
 *
 * The collector takes in what it has heard of one by one, and sends what comes
 * in their places together: it locks the log once, and wakes workers once. None
 * waits while a callback runs, or the collector sleeps.
 */
#include <stdlib.h>

#include "pool/private.h"

/* ---- in its place ----------------------------------------------------- */

/* Locked. How many items are to go with what the chunk had; 0: not that way. */
static size_t count_again(const mproc_pool *pool,
                          const struct mpr_batch_state *batch,
                          const struct mpr_chunk *chunk)
{
    bool others = batch->feeding || !batch->open ||
                  pool->max_pending < SIZE_MAX || mpr_pool_is_manual(pool);
    if (others || mpr_batch_stop(pool, batch) != 0) {
        return 0;
    }
    size_t count = mpr_batch_next_count(pool, batch);
    return count <= chunk->count ? count : 0;
}

/* Can more of it be sent, or is it to be closed? */
static bool wants_more(const mproc_pool *pool,
                       const struct mpr_batch_state *batch)
{
    return batch->sent == batch->count || mpr_batch_next_count(pool, batch) > 0;
}

bool mpr_batch_again(mproc_pool *pool, struct mpr_batch_state *batch,
                     const struct mpr_entry *entry, bool *more)
{
    struct mpr_chunk *chunk = entry->task->chunk;
    struct mpr_part *part = chunk->part;
    size_t count = count_again(pool, batch, chunk);
    if (count > 0) {
        part->items = count;
        part->entry =
            (struct mpr_entry){entry->task, (uint32_t)entry->serial + 1};
        /* not later: who cancels it makes this the `next` of what is told */
        entry->task->limit_ns = mpr_pool_limit(batch->is.timeout_s);
        mpr_pool_accept(pool, count);
        mpr_batch_queue(pool, batch, part);
    }
    *more = count == 0 || wants_more(pool, batch);
    return count > 0;
}

void mpr_batch_send_again(mproc_pool *pool, struct mpr_thread *self,
                          struct mpr_task *task)
{
    struct mpr_pool_private *mine = pool->mine;
    struct mpr_batch_state *batch = task->result->batch;
    struct mpr_part *part = task->chunk->part;
    if (task->reply != NULL) {
        mpr_worker_adopt(pool, self, task);
    }
    mpr_chunk_again(task->chunk, batch, part->first, part->items);
    task->chunk->part = part;
    mine->sending[mine->sendings++] = part->entry;
    if (mine->sendings == MPR_SENDINGS) {
        mpr_batch_send_all(pool, self);
    }
}

/* ---- together --------------------------------------------------------- */

/*
 * They are to be sent anew, or end, by who feeds all. Nobody else sends of
 * their batches, so they are the last of them; who cancels one cancels all.
 */
static void take_back(mproc_pool *pool, struct mpr_thread *self,
                      const struct mpr_entry *entries, size_t n)
{
    bool unsent[MPR_SENDINGS];
    mpr_pool_lock();
    for (size_t i = 0; i < n; i++) {
        unsent[i] = mpr_batch_unqueue(&entries[i]);
    }
    mpr_pool_unlock();
    for (size_t i = 0; i < n; i++) {
        if (unsent[i]) {
            free(entries[i].task->chunk->part);
            mpr_pool_refuse_task(pool, self, &entries[i]);
        }
    }
    atomic_store(&pool->mine->attend, true);
}

void mpr_batch_send_all(mproc_pool *pool, struct mpr_thread *self)
{
    struct mpr_pool_private *mine = pool->mine;
    size_t n = mine->sendings, done = 0;
    mine->sendings = 0;
    if (n > 0 && mpr_pool_queue_many(pool, self, mine->sending, n, &done) < 0) {
        take_back(pool, self, mine->sending + done, n - done);
    }
}
