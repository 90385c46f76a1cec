/* SPDX-License-Identifier: MIT */
/*
 * Sending the items of batches, as there is room for them.
 *
 * The thread that makes a batch sends its first chunks; whenever one has ended,
 * the collector sends the next. So few are under way at a time, and how many
 * items travel together is decided late, by how long those before have run.
 */
#include <stdlib.h>

#include "pool/private.h"

enum {
    CHUNK_NS = 2000000,    /* what a chosen chunk is to run */
    CHUNK_BYTES = 1 << 20, /* and to carry at most */
    FIRST_ITEMS = 64,   /* in chosen chunks while no time is known, at most */
    FIRST_SHARES = 64,  /* a worker: these are of the items, at most */
    GROWTH = 16,        /* of chosen chunks, from those known to the next */
    PARTS_A_WORKER = 4, /* under way, of chosen chunks */
    PARTS_MORE = 512,   /* of others, which may be small */
};

/* ---- how much at a time ----------------------------------------------- */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* What an item takes of a chunk's block. */
static size_t bytes_of_item(const mproc_batch *b)
{
    bool in = mpr_family_holds(b->in, 1), out = mpr_family_holds(b->out, 1);
    return sizeof(int) + (in ? 0 : b->in_size) + (out ? 0 : b->out_size);
}

size_t mpr_batch_chunk(const struct mpr_batch_state *batch, size_t share,
                       double ns)
{
    size_t chunk = least(share, GROWTH * batch->largest);
    chunk = least(chunk, CHUNK_BYTES / bytes_of_item(&batch->is));
    double by_time = ns / (batch->item_ns + 1);
    chunk = by_time < (double)chunk ? (size_t)by_time : chunk;
    return chunk > 0 ? chunk : 1;
}

/* So few that the workers end together. */
static size_t chosen_chunk(const mproc_pool *pool,
                           const struct mpr_batch_state *batch)
{
    size_t workers = mpr_pool_wanted(pool);
    size_t share = (batch->count - batch->sent) / (PARTS_A_WORKER * workers);
    if (batch->largest == 0) {
        size_t first = batch->count / (FIRST_SHARES * workers);
        return least(first, FIRST_ITEMS) + (first == 0);
    }
    return mpr_batch_chunk(batch, share + 1, CHUNK_NS);
}

/* As many as may be under way. */
static size_t most_parts(const mproc_pool *pool,
                         const struct mpr_batch_state *batch)
{
    return PARTS_A_WORKER * (size_t)mpr_pool_wanted(pool) +
           (batch->is.chunk != 0 ? PARTS_MORE : 0);
}

size_t mpr_batch_next_count(const mproc_pool *pool,
                            const struct mpr_batch_state *batch)
{
    size_t left = batch->count - batch->sent, room = mpr_pool_room(pool);
    size_t window = batch->is.window, chunk = batch->is.chunk;
    if (chunk == 0) {
        chunk = chosen_chunk(pool, batch);
    }
    chunk = chunk < left ? chunk : left;
    chunk = chunk < room ? chunk : room;
    if (window > 0) {
        chunk = chunk < window ? chunk : window;
        if (window - batch->ahead < chunk) {
            return 0;
        }
    }
    return batch->parts < most_parts(pool, batch) ? chunk : 0;
}

/* ---- sending ---------------------------------------------------------- */

/* Locked. */
void mpr_batch_unlink(struct mpr_batch_state *batch, struct mpr_part *part)
{
    if (part->newer != NULL) {
        part->newer->older = part->older;
    } else {
        batch->newest = part->older;
    }
    if (part->older != NULL) {
        part->older->newer = part->newer;
    }
    batch->parts--;
    batch->ahead -= part->items;
}

static void link_part(struct mpr_batch_state *batch, struct mpr_part *part)
{
    part->first = batch->sent;
    part->newer = NULL;
    part->older = batch->newest;
    if (part->older != NULL) {
        part->older->newer = part;
    }
    batch->newest = part;
    batch->parts++;
    batch->ahead += part->items;
}

void mpr_batch_queue(mproc_pool *pool, struct mpr_batch_state *batch,
                     struct mpr_part *part)
{
    link_part(batch, part);
    batch->sent += part->items;
    mpr_task_set_queued(&part->entry);
    if (batch->stop != 0) {
        mpr_pool_cancel(pool, &part->entry);
    }
}

bool mpr_batch_unqueue(const struct mpr_entry *entry)
{
    struct mpr_task *task = entry->task;
    if (!mpr_task_move(entry, 0, MPR_TASK_QUEUED, MPR_TASK_FREE)) {
        return false;
    }
    struct mpr_batch_state *batch = task->result->batch;
    mpr_batch_unlink(batch, task->chunk->part);
    batch->sent -= task->chunk->count;
    return true;
}

/*
 * It could not be sent, and may have been the last of a closed batch. False: it
 * ends all the same, cancelled or without a worker.
 */
static bool take_part_back(struct mpr_thread *self, struct mproc_result *result,
                           const struct mpr_entry *entry)
{
    struct mpr_batch_state *batch = result->batch;
    mpr_pool_lock();
    bool back = mpr_batch_unqueue(entry);
    bool over = back && !batch->open && batch->parts == 0;
    mpr_pool_unlock();
    if (back) {
        mpr_pool_refuse_task((mproc_pool *)result->pool, self, entry);
    }
    if (over) {
        mpr_batch_end(self, result);
    }
    return back;
}

/* Of an open batch: one that was closed meanwhile may have ended. */
static int put_under_way(struct mpr_thread *self, struct mproc_result *result,
                         struct mpr_part *part)
{
    mproc_pool *pool = (mproc_pool *)result->pool;
    struct mpr_batch_state *batch = result->batch;
    struct mpr_entry entry = part->entry; /* it may end, and be freed */
    mpr_pool_lock();
    int stop = batch->stop != 0 ? batch->stop : MPROC_ECANCELED;
    bool open = batch->open;
    if (open) {
        mpr_batch_queue(pool, batch, part);
    }
    mpr_pool_unlock();
    if (!open) {
        mpr_pool_refuse_task(pool, self, &entry);
        return stop;
    }
    int err = mpr_pool_queue(pool, self, &entry);
    return err < 0 && take_part_back(self, result, &entry) ? err : 0;
}

/* The record is the task's from here on, and gone with it on failure. */
static int submit_part(struct mpr_thread *self, struct mproc_result *result,
                       struct mpr_part *part)
{
    mproc_pool *pool = (mproc_pool *)result->pool;
    struct mpr_batch_state *batch = result->batch;
    struct mpr_task *task = part->entry.task;
    struct mpr_chunk *chunk =
        mpr_chunk_new(self, batch, batch->sent, part->items);
    if (chunk == NULL) {
        mpr_pool_lock();
        mpr_pool_accept(pool, 1 - part->items);
        mpr_pool_unlock();
        mpr_pool_refuse_task(pool, self, &part->entry);
        return MPROC_ENOMEM;
    }
    chunk->part = part;
    task->fn = batch->is.fn;
    task->result = result;
    task->limit_ns = mpr_pool_limit(batch->is.timeout_s);
    task->chunk = chunk;
    mpr_task_adopt_arg(pool, self, task, MPR_ARG_OF_CHUNK);
    return put_under_way(self, result, part);
}

int mpr_batch_send(struct mpr_thread *self, struct mproc_result *result,
                   size_t count)
{
    struct mpr_part *part = calloc(1, sizeof *part);
    if (part == NULL) {
        return MPROC_ENOMEM;
    }
    part->items = count;
    int err = mpr_pool_take_more(result, self, part);
    if (err == 0) {
        err = submit_part(self, result, part);
    }
    if (err < 0) {
        free(part);
    }
    return err;
}

/* What there is room for. */
static int send_some(mproc_pool *pool, struct mpr_thread *self,
                     struct mproc_result *result)
{
    int err = 0;
    while (err == 0) {
        mpr_pool_lock();
        size_t count = mpr_batch_next_count(pool, result->batch);
        mpr_pool_unlock();
        if (count == 0) {
            break;
        }
        err = mpr_batch_send(self, result, count);
    }
    return err;
}

/* ---- going on --------------------------------------------------------- */

int mpr_batch_stop(const mproc_pool *pool, const struct mpr_batch_state *batch)
{
    mproc_pool *p = (mproc_pool *)pool;
    return batch->stop != 0                                ? batch->stop
           : atomic_load(&p->phase) == MPR_POOL_TERMINATED ? MPROC_ECANCELED
           : atomic_load(&p->broken)                       ? MPROC_EBROKEN
                                                           : 0;
}

/* The items that are not sent end as well. Returns how many. */
static size_t end_rest(mproc_pool *pool, struct mproc_result *result,
                       int status)
{
    struct mpr_batch_state *batch = result->batch;
    size_t first = batch->sent;
    for (; batch->sent < batch->count && !batch->forgotten; batch->sent++) {
        mproc_outcome outcome = {.status = status,
                                 .index = batch->sent,
                                 .data = mpr_no_reply,
                                 .error = mproc_strerror(status)};
        mpr_batch_note_bad(result, &outcome);
        mpr_pool_count_unsent(pool, status, 1);
        if (batch->is.status != NULL) {
            batch->is.status[batch->sent] = status;
        }
        mpr_batch_tell(pool, batch, &outcome);
    }
    size_t ended = batch->sent - first;
    batch->sent = batch->count;
    return ended;
}

/* Locked. */
static void remove_open(mproc_pool *pool, struct mproc_result *result)
{
    struct mproc_result **at = &pool->mine->open;
    while (*at != result) {
        at = &(*at)->batch->next_open;
    }
    *at = result->batch->next_open;
    result->batch->open = false;
    pool->mine->untold -= result->batch->untold;
}

void mpr_batch_close(struct mpr_thread *self, struct mproc_result *result)
{
    bool over = false;
    mpr_pool_lock();
    if (result->batch->open) {
        mproc_pool *pool = (mproc_pool *)result->pool;
        remove_open(pool, result);
        over = result->batch->parts == 0;
        mpr_pool_close_if_done(pool, self);
    }
    mpr_pool_unlock();
    if (over) {
        mpr_batch_end(self, result);
    }
}

/*
 * Callbacks are not for who feeds a pool that is manual: false, unless the
 * batch has none.
 */
static bool may_end_rest(mproc_pool *pool, struct mpr_batch_state *batch)
{
    mpr_pool_lock();
    bool calls = mpr_pool_is_manual(pool) && batch->is.on_item != NULL;
    if (calls) {
        batch->untold = true;
        pool->mine->untold++;
    }
    mpr_pool_unlock();
    if (calls) {
        mpr_pool_show(pool);
    }
    return !calls;
}

/* For lack of room it waits; for lack of memory, if that may come back. */
void mpr_batch_feed(mproc_pool *pool, struct mpr_thread *self,
                    struct mproc_result *result)
{
    struct mpr_batch_state *batch = result->batch;
    mpr_pool_lock();
    bool others = batch->feeding || batch->untold;
    mpr_pool_unlock();
    if (batch->iter != NULL) {
        mpr_iteration_look(pool, self, result);
        return;
    }
    if (others) {
        return;
    }
    int err = send_some(pool, self, result);
    mpr_pool_lock();
    bool waits =
        err == MPROC_EFULL || (err == MPROC_ENOMEM && batch->parts > 0);
    int stop = mpr_batch_stop(pool, batch);
    stop = stop != 0 ? stop : waits ? 0 : err;
    bool ends = stop != 0 && batch->sent < batch->count;
    if (ends) {
        batch->stop = stop; /* who cancels it now comes too late for these */
    }
    mpr_pool_unlock();
    if (ends && may_end_rest(pool, batch)) {
        end_rest(pool, result, stop);
    }
    if (batch->sent == batch->count) {
        mpr_batch_close(self, result);
    }
}

/* One that has not been looked at in this round. */
static struct mproc_result *next_open(struct mpr_pool_private *mine)
{
    mpr_pool_lock();
    struct mproc_result *result = mine->open;
    while (result != NULL && result->batch->round == mine->round) {
        result = result->batch->next_open;
    }
    if (result != NULL) {
        result->batch->round = mine->round;
    }
    mpr_pool_unlock();
    return result;
}

/* Callbacks may make and end batches meanwhile. */
void mpr_batch_feed_all(mproc_pool *pool, struct mpr_thread *self)
{
    struct mproc_result *result;
    pool->mine->round++;
    while ((result = next_open(pool->mine)) != NULL) {
        mpr_batch_feed(pool, self, result);
    }
}

static struct mproc_result *next_untold(const struct mpr_pool_private *mine)
{
    mpr_pool_lock();
    struct mproc_result *result = mine->untold > 0 ? mine->open : NULL;
    while (result != NULL && !result->batch->untold) {
        result = result->batch->next_open;
    }
    mpr_pool_unlock();
    return result;
}

size_t mpr_batch_tell_untold(mproc_pool *pool, struct mpr_thread *self)
{
    size_t ended = 0;
    struct mproc_result *result;
    while ((result = next_untold(pool->mine)) != NULL) {
        ended += end_rest(pool, result, result->batch->stop);
        mpr_batch_close(self, result);
    }
    return ended;
}

/* ---- beginning ----------------------------------------------------------- */

/* It is accepted, and open if it has items. ESHUTDOWN, EBROKEN. */
int mpr_batch_open(mproc_pool *pool, struct mproc_result *result)
{
    mpr_pool_lock();
    int err = mpr_pool_may_submit(pool);
    if (err == 0 && result->batch->count > 0) {
        result->batch->open = true;
        result->batch->feeding = result->batch->iter == NULL;
        result->batch->next_open = pool->mine->open;
        pool->mine->open = result;
    }
    mpr_pool_unlock();
    return err;
}

/*
 * The first ones. Whatever hinders the others is the collector's matter; what
 * hinders the very first is refused.
 */
int mpr_batch_begin(mproc_pool *pool, struct mpr_thread *self,
                    struct mproc_result *result)
{
    struct mpr_batch_state *batch = result->batch;
    int err = send_some(pool, self, result);
    mpr_pool_lock();
    bool refused = err == MPROC_ENOMEM && batch->sent == 0;
    batch->feeding = false;
    if (refused) {
        remove_open(pool, result);
        mpr_pool_close_if_done(pool, self);
    } else {
        if (batch->parts == 0) {
            atomic_store(&pool->mine->attend, true);
        }
        mpr_bell_ring(&pool->to_collector, INT_MAX);
    }
    mpr_pool_unlock();
    return refused ? err : 0;
}
