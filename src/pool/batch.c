/* SPDX-License-Identifier: MIT */
/*
 * Many items of one function: map.
 *
 * The thread that makes a batch sends its first chunks; whenever one has ended,
 * the collector sends the next. So few are under way at a time, and how many
 * items travel together is decided late, by how long those before have run.
 */
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "pool/private.h"

enum {
    CHUNK_NS = 500000,     /* what a chosen chunk is to run */
    CHUNK_BYTES = 1 << 20, /* and to carry at most */
    GROWTH = 4,            /* of chosen chunks, from one to the next */
    PARTS_A_WORKER = 4,    /* under way, of chosen chunks */
    PARTS_MORE = 512,      /* of others, which may be small */
};

/* ---- how much at a time ----------------------------------------------- */

/*
 * As many items as run for some time, yet few enough that the workers end
 * together; while no time is known, one.
 */
static size_t chosen_chunk(const mproc_pool *pool,
                           const struct mpr_batch_state *batch)
{
    if (batch->largest == 0) {
        return 1;
    }
    const mproc_batch *b = &batch->is;
    size_t by_growth = GROWTH * batch->largest;
    size_t share = (batch->count - batch->sent) /
                       (PARTS_A_WORKER * (size_t)mpr_pool_wanted(pool)) +
                   1;
    size_t by_size = CHUNK_BYTES / (b->in_size + b->out_size + sizeof(int)) + 1;
    double by_time = CHUNK_NS / (batch->item_ns + 1);
    size_t chunk = by_growth < share ? by_growth : share;
    chunk = chunk < by_size ? chunk : by_size;
    chunk = by_time < (double)chunk ? (size_t)by_time : chunk;
    return chunk > 0 ? chunk : 1;
}

/* Locked. Items to be sent next, 0: nothing now. */
static size_t next_count(const mproc_pool *pool,
                         const struct mpr_batch_state *batch)
{
    size_t left = batch->count - batch->sent, room = mpr_pool_room(pool);
    size_t window = batch->is.window, chunk = batch->is.chunk;
    size_t parts = PARTS_A_WORKER * (size_t)mpr_pool_wanted(pool);
    if (chunk == 0) {
        chunk = chosen_chunk(pool, batch);
    } else {
        parts += PARTS_MORE;
    }
    chunk = chunk < left ? chunk : left;
    chunk = chunk < room ? chunk : room;
    if (window > 0) {
        chunk = chunk < window ? chunk : window;
        if (window - batch->ahead < chunk) {
            return 0;
        }
    }
    return batch->parts < parts && batch->stop == 0 ? chunk : 0;
}

/* ---- sending ---------------------------------------------------------- */

/* Locked. */
static void unlink_part(struct mpr_batch_state *batch, struct mpr_part *part)
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
    part->older = batch->newest;
    if (part->older != NULL) {
        part->older->newer = part;
    }
    batch->newest = part;
    batch->parts++;
    batch->ahead += part->items;
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
        pool->mine->pending -= part->items - 1;
        mpr_pool_unlock();
        mpr_pool_drop_task(pool, self, &part->entry);
        return MPROC_ENOMEM;
    }
    chunk->part = part;
    task->fn = batch->is.fn;
    task->limit_ns = mpr_pool_limit(batch->is.timeout_s);
    task->result = result;
    task->chunk = chunk;
    mpr_hand_set(self, MPR_HAND_BLOCK, NULL);
    mpr_pool_lock();
    link_part(batch, part);
    mpr_pool_unlock();
    struct mpr_entry entry = part->entry; /* it may end, and be freed */
    int err = mpr_pool_submit(pool, self, &entry);
    if (err < 0) {
        mpr_pool_lock();
        unlink_part(batch, part);
        mpr_pool_unlock();
    }
    return err;
}

static int send_part(struct mpr_thread *self, struct mproc_result *result,
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
    if (err == 0) {
        result->batch->sent += count;
    } else {
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
        size_t count = next_count(pool, result->batch);
        mpr_pool_unlock();
        if (count == 0) {
            break;
        }
        err = send_part(self, result, count);
    }
    return err;
}

/* ---- what came out ---------------------------------------------------- */

static void note_bad(struct mpr_thread *self, struct mproc_result *result,
                     const mproc_outcome *bad)
{
    if (bad->status == MPROC_OK || bad->index >= result->batch->bad) {
        return;
    }
    result->batch->bad = bad->index;
    if (result->error != NULL) {
        mpr_heap_free(self, result->error);
    }
    size_t size = strlen(bad->error) + 1;
    char *text = mpr_heap_alloc(self, size, MPR_HAND_BLOCK);
    result->error = text;
    mpr_hand_set(self, MPR_HAND_BLOCK, NULL);
    result->outcome = *bad;
    result->outcome.error = text != NULL ? memcpy(text, bad->error, size) : "";
    result->outcome.data = "";
    result->outcome.size = 0;
}

/* Of an array, items lie as they happen to: not so in a callback. */
static void tell_item(const mproc_pool *pool, struct mpr_batch_state *batch,
                      mproc_outcome *outcome)
{
    const mproc_batch *b = &batch->is;
    if (batch->spare != NULL && outcome->status == MPROC_OK) {
        memcpy(batch->spare, outcome->data, outcome->size);
        batch->spare[outcome->size] = '\0';
        outcome->data = batch->spare;
    }
    mpr_pool_call_back(pool, b->on_item, outcome, b->user);
}

static void tell_items(mproc_pool *pool, struct mpr_batch_state *batch,
                       struct mpr_chunk *chunk, const char *replies)
{
    char text[MPR_LOSS_TEXT];
    size_t count = batch->is.on_item != NULL ? chunk->count : 0;
    for (size_t i = 0; i < count && !batch->forgotten; i++) {
        mproc_outcome outcome = mpr_chunk_outcome(chunk, replies, i, text);
        tell_item(pool, batch, &outcome);
    }
}

/* `status`: NULL when they were cancelled and nobody wants to know more. */
static void count_items(mproc_pool *pool, const struct mpr_chunk *chunk,
                        const int *status)
{
    mpr_pool_lock();
    for (size_t i = 0; i < chunk->count; i++) {
        mpr_pool_count(pool, status != NULL ? status[i] : MPROC_ECANCELED);
    }
    mpr_pool_unlock();
}

static void take_in(mproc_pool *pool, struct mpr_thread *self,
                    struct mpr_task *task, int status)
{
    struct mpr_batch_state *batch = task->result->batch;
    struct mpr_chunk *chunk = task->chunk;
    char text[MPR_LOSS_TEXT];
    size_t bad = mpr_chunk_end(chunk, status);
    count_items(pool, chunk, chunk->status);
    if (bad < chunk->count) {
        mproc_outcome outcome =
            mpr_chunk_outcome(chunk, task->reply, bad, text);
        note_bad(self, task->result, &outcome);
    }
    mpr_chunk_copy_out(chunk, &batch->is);
    tell_items(pool, batch, chunk, task->reply);
}

/* Locked. */
static void measure(struct mpr_batch_state *batch,
                    const struct mpr_chunk *chunk)
{
    double ns = (double)chunk->ns / (double)chunk->count;
    batch->item_ns = batch->largest == 0 ? ns : (batch->item_ns + ns) / 2;
    if (batch->largest < chunk->count) {
        batch->largest = chunk->count;
    }
}

static void end_batch(struct mpr_thread *self, struct mproc_result *result)
{
    mpr_result_set_ended(result);
    mpr_result_release(self, result);
}

bool mpr_batch_collect(mproc_pool *pool, struct mpr_thread *self,
                       struct mpr_task *task, int status)
{
    struct mproc_result *result = task->result;
    struct mpr_batch_state *batch = result->batch;
    struct mpr_part *part = task->chunk->part;
    mpr_pool_lock();
    measure(batch, task->chunk);
    mpr_pool_unlock();
    if (!batch->forgotten) {
        take_in(pool, self, task, status);
    } else {
        count_items(pool, task->chunk, NULL);
    }
    mpr_pool_lock();
    unlink_part(batch, part);
    bool more = batch->open;
    bool over = !more && batch->parts == 0;
    mpr_pool_unlock();
    free(part);
    if (over) {
        end_batch(self, result);
    }
    return more;
}

/* ---- going on --------------------------------------------------------- */

/* The items that are not sent end as well. */
static void end_rest(mproc_pool *pool, struct mpr_thread *self,
                     struct mproc_result *result, int status)
{
    struct mpr_batch_state *batch = result->batch;
    for (; batch->sent < batch->count && !batch->forgotten; batch->sent++) {
        mproc_outcome outcome = {.status = status,
                                 .index = batch->sent,
                                 .data = "",
                                 .error = mproc_strerror(status)};
        note_bad(self, result, &outcome);
        mpr_pool_lock();
        mpr_pool_count(pool, status);
        mpr_pool_unlock();
        if (batch->is.status != NULL) {
            batch->is.status[batch->sent] = status;
        }
        tell_item(pool, batch, &outcome);
    }
    batch->sent = batch->count;
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
}

/* Nothing of it is to be sent any more. */
static void close_batch(mproc_pool *pool, struct mpr_thread *self,
                        struct mproc_result *result)
{
    mpr_pool_lock();
    remove_open(pool, result);
    bool over = result->batch->parts == 0;
    mpr_pool_close_if_done(pool, self);
    mpr_pool_unlock();
    if (over) {
        end_batch(self, result);
    }
}

/* For lack of room it waits; for lack of memory, if that may come back. */
void mpr_batch_feed(mproc_pool *pool, struct mpr_thread *self,
                    struct mproc_result *result)
{
    struct mpr_batch_state *batch = result->batch;
    mpr_pool_lock();
    bool feeding = batch->feeding;
    mpr_pool_unlock();
    if (feeding) {
        return;
    }
    int err = send_some(pool, self, result);
    mpr_pool_lock();
    bool waits =
        err == MPROC_EFULL || (err == MPROC_ENOMEM && batch->parts > 0);
    int stop = batch->stop != 0 ? batch->stop : waits ? 0 : err;
    mpr_pool_unlock();
    if (stop != 0) {
        end_rest(pool, self, result, stop);
    }
    if (batch->sent == batch->count) {
        close_batch(pool, self, result);
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

/* ---- giving up -------------------------------------------------------- */

/* Locked. May a worker, or the thread that sends, still touch the arrays? */
static bool is_touched(const mproc_pool *pool,
                       const struct mpr_batch_state *batch)
{
    bool runs = false;
    for (struct mpr_part *part = batch->newest; part; part = part->older) {
        uint64_t word = atomic_load(&part->entry.task->word);
        enum mpr_task_state state = mpr_task_state(word);
        runs |= word >> 32 == (uint32_t)part->entry.serial &&
                (state == MPR_TASK_RUNNING || state == MPR_TASK_CANCELLING);
    }
    return batch->feeding || (runs && !mpr_pool_workers_gone(pool));
}

static int attempt_forget(void *user)
{
    struct mproc_result *result = user;
    mpr_pool_lock();
    bool touched = is_touched(result->pool, result->batch);
    mpr_pool_unlock();
    return touched ? MPROC_ETIMEDOUT : 0;
}

/*
 * In a callback nobody takes in what has ended: it waits for the workers alone.
 * When they are ended the nursery says so by `done`.
 */
static void forget(struct mproc_result *result)
{
    mproc_pool *pool = (mproc_pool *)result->pool;
    mpr_sleep_until(&pool->done.items, MPROC_FOREVER, MPROC_ETIMEDOUT,
                    attempt_forget, result);
    result->batch->forgotten = true;
}

void mpr_batch_abandon(struct mproc_result *result, struct mpr_thread *self)
{
    mpr_result_cancel(result, self);
    if (mpr_result_await(result, MPROC_FOREVER) == MPROC_EDEADLK) {
        forget(result);
    }
}

void mpr_batch_free(struct mpr_batch_state *batch)
{
    if (batch != NULL) {
        free(batch->spare);
        free(batch);
    }
}

/* ---- the calls -------------------------------------------------------- */

/* So many that sums of such sizes may not be a size_t any more. */
static bool is_absurd(size_t count, size_t size)
{
    size_t bytes;
    return __builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 8;
}

static int read_batch(mproc_batch *b, const mproc_batch *theirs, size_t size)
{
    if (theirs == NULL) {
        return MPROC_EINVAL;
    }
    int err = mpr_options_read(b, sizeof *b, theirs, size);
    if (err < 0) {
        return err;
    }
    if (b->next != NULL) {
        return MPROC_ENOTSUP;
    }
    bool wrong = b->fn == NULL || !(b->timeout_s >= 0) ||
                 (b->count > 0 && b->in == NULL) ||
                 is_absurd(b->count, b->in_size) ||
                 is_absurd(b->count, b->out_size) ||
                 is_absurd(b->count, sizeof(struct mpr_item));
    return wrong ? MPROC_EINVAL : 0;
}

static struct mpr_batch_state *new_state(const mproc_batch *b)
{
    struct mpr_batch_state *batch = calloc(1, sizeof *batch);
    if (batch == NULL) {
        return NULL;
    }
    batch->is = *b;
    batch->count = b->count;
    batch->bad = b->count;
    batch->tells_items = b->on_item != NULL;
    if (batch->tells_items && b->out != NULL) {
        size_t room = b->out_size / MPR_LINE * MPR_LINE + MPR_LINE;
        batch->spare = aligned_alloc(MPR_LINE, room);
        if (batch->spare == NULL) {
            mpr_batch_free(batch);
            return NULL;
        }
    }
    return batch;
}

/* A result that nobody else knows of yet. */
static int new_batch(mproc_pool *pool, struct mpr_thread *self,
                     const mproc_batch *b, struct mproc_result **out)
{
    struct mpr_batch_state *batch = new_state(b);
    if (batch == NULL) {
        return MPROC_ENOMEM;
    }
    int err = mpr_result_new(pool, self, out);
    if (err < 0) {
        mpr_batch_free(batch);
        return err;
    }
    (*out)->batch = batch;
    return 0;
}

static void drop_batch(struct mpr_thread *self, struct mproc_result *result)
{
    mpr_result_release(self, result);
    mpr_result_release(self, result);
}

/* It is accepted, and open if it has items. ESHUTDOWN, EBROKEN. */
static int open_batch(mproc_pool *pool, struct mproc_result *result)
{
    mpr_pool_lock();
    int err = mpr_pool_may_submit(pool);
    if (err == 0 && result->batch->count > 0) {
        result->batch->open = true;
        result->batch->feeding = true;
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
static int begin_sending(mproc_pool *pool, struct mpr_thread *self,
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
        mpr_bell_ring(&pool->done.items, INT_MAX);
    }
    mpr_pool_unlock();
    return refused ? err : 0;
}

/* The result is the caller's before a callback can look for it there. */
static int begin_batch(mproc_pool *pool, struct mpr_thread *self,
                       const mproc_batch *b, struct mproc_result **out)
{
    struct mproc_result *result, *before = *out;
    int err = new_batch(pool, self, b, &result);
    if (err < 0) {
        return err;
    }
    err = open_batch(pool, result);
    if (err < 0) {
        drop_batch(self, result);
        return err;
    }
    *out = result;
    if (b->count == 0) {
        end_batch(self, result);
        return 0;
    }
    err = begin_sending(pool, self, result);
    if (err < 0) {
        *out = before;
        drop_batch(self, result);
    }
    return err;
}

int mproc_pool_map_async_sized(mproc_pool *p, const mproc_batch *theirs,
                               size_t size, mproc_result **out)
{
    mproc_batch b;
    struct mpr_thread *self;
    if (p == NULL || out == NULL) {
        return MPROC_EINVAL;
    }
    int err = mpr_pool_check(p, &self);
    if (err != 0 || (err = read_batch(&b, theirs, size)) != 0) {
        return err;
    }
    uintptr_t outer = mpr_op_begin(self, p);
    err = begin_batch(p, self, &b, out);
    mpr_op_end(self, outer);
    return err;
}

int mproc_pool_map_sized(mproc_pool *p, const mproc_batch *theirs, size_t size,
                         mproc_deadline until)
{
    mproc_result *result = NULL;
    if (p != NULL && mpr_pool_in_callback == p) {
        return MPROC_EDEADLK;
    }
    int err = mproc_pool_map_async_sized(p, theirs, size, &result);
    if (err < 0) {
        return err;
    }
    err = mproc_result_get(result, NULL, 0, NULL, until);
    mproc_result_free(result); /* cancels what has not ended */
    return err;
}
