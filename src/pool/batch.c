/* SPDX-License-Identifier: MIT */
/* Many items of one function: map. */
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "pool/private.h"

/* ---- what came out ---------------------------------------------------- */

void mpr_batch_note_bad(struct mproc_result *result, const mproc_outcome *bad)
{
    struct mpr_batch_state *batch = result->batch;
    if (bad->status == MPROC_OK || bad->index >= batch->bad) {
        return;
    }
    batch->bad = bad->index;
    free(batch->text);
    batch->text = strdup(bad->error);
    result->outcome = *bad;
    result->outcome.error = batch->text != NULL ? batch->text : "";
}

/* Of an array, items lie as they happen to: not so in a callback. */
void mpr_batch_tell(const mproc_pool *pool, struct mpr_batch_state *batch,
                    mproc_outcome *outcome)
{
    const mproc_batch *b = &batch->is;
    if (batch->spare != NULL && outcome->status == MPROC_OK) {
        outcome->data = memcpy(batch->spare, outcome->data, outcome->size);
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
        mpr_batch_tell(pool, batch, &outcome);
    }
}

/* From the first bad one on; those before ended well. */
static void count_items(mproc_pool *pool, const struct mpr_chunk *chunk,
                        size_t bad)
{
    mpr_pool_count(pool, MPROC_OK, bad);
    for (size_t i = bad; i < chunk->count; i++) {
        mpr_pool_count(pool, chunk->status[i], 1);
    }
}

static void take_in(mproc_pool *pool, struct mpr_task *task, int status)
{
    struct mpr_batch_state *batch = task->result->batch;
    struct mpr_chunk *chunk = mpr_task_chunk(task);
    char text[MPR_LOSS_TEXT];
    size_t bad = mpr_chunk_end(chunk, status);
    count_items(pool, chunk, bad);
    if (bad < chunk->count) {
        mproc_outcome outcome =
            mpr_chunk_outcome(chunk, task->reply, bad, text);
        mpr_batch_note_bad(task->result, &outcome);
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

void mpr_batch_end(struct mpr_thread *self, struct mproc_result *result)
{
    mpr_result_set_ended(result);
    mpr_result_release(self, result);
}

/* Only who collects sends: with manual dispatch this may be somebody else. */
static void send_more(mproc_pool *pool, struct mpr_thread *self,
                      struct mproc_result *result)
{
    if (mpr_pool_is_manual(pool)) {
        atomic_store(&pool->mine->attend, true);
    } else {
        mpr_batch_send_all(pool, self); /* the earlier items first */
        mpr_batch_feed(pool, self, result);
    }
}

void mpr_batch_collect(mproc_pool *pool, struct mpr_thread *self,
                       const struct mpr_entry *entry, int status)
{
    struct mpr_task *task = entry->task;
    struct mproc_result *result = task->result;
    struct mpr_batch_state *batch = result->batch;
    struct mpr_part *part = task->chunk->part;
    size_t items = part->items;
    if (batch->forgotten) {
        mpr_pool_count(pool, MPROC_ECANCELED, items);
    } else {
        take_in(pool, task, status);
    }
    mpr_pool_lock();
    measure(batch, task->chunk);
    mpr_batch_unlink(batch, part);
    bool kept = batch->iter != NULL && !batch->forgotten;
    if (kept) {
        mpr_iteration_keep(result, part);
    }
    bool more = batch->open && batch->iter == NULL;
    bool over = !batch->open && batch->parts == 0;
    bool again = more && mpr_batch_again(pool, batch, entry, &more);
    mpr_pool_unlock();
    if (again) {
        mpr_batch_send_again(pool, self, task);
    } else if (!kept) {
        mpr_pool_give_back(pool, self, entry);
        free(part);
    }
    if (over) {
        mpr_batch_end(self, result);
    }
    mpr_collector_end_items(pool, self, items);
    if (more) {
        send_more(pool, self, result);
    }
}

/* ---- giving up -------------------------------------------------------- */

/*
 * Locked. May a worker, the thread that sends, or with manual dispatch who does
 * the collector's work beside this callback still touch the arrays?
 */
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
    return batch->feeding || pool->mine->attended ||
           (runs && (pool->threads || !mpr_pool_workers_gone(pool)));
}

static int attempt_forget(void *user)
{
    struct mproc_result *result = user;
    struct mpr_pool_private *mine = result->pool->mine;
    mpr_pool_lock();
    bool touched = is_touched(result->pool, result->batch);
    if (!touched) {
        result->batch->forgotten = true;
    }
    mine->refused |= mine->attended; /* it rings when it is done */
    mpr_pool_unlock();
    return touched ? MPROC_ETIMEDOUT : 0;
}

/*
 * In a callback nobody takes in what has ended: it waits for the workers alone.
 * When they are ended the nursery tells so.
 */
static void forget(struct mproc_result *result)
{
    mproc_pool *pool = (mproc_pool *)result->pool;
    mpr_sleep_until(&pool->to_collector, MPROC_FOREVER, MPROC_ETIMEDOUT,
                    attempt_forget, result);
}

void mpr_batch_abandon(struct mproc_result *result)
{
    mpr_result_cancel(result);
    if (mpr_result_await(result, MPROC_FOREVER, true) == MPROC_EDEADLK) {
        forget(result);
    }
}

void mpr_batch_free(struct mpr_batch_state *batch)
{
    if (batch != NULL) {
        mpr_iteration_free(batch->iter);
        free(batch->spare);
        free(batch->text);
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

int mpr_batch_read(mproc_batch *b, const mproc_batch *theirs, size_t size)
{
    if (theirs == NULL) {
        return MPROC_EINVAL;
    }
    int err = mpr_options_read(b, sizeof *b, theirs, size);
    if (err < 0) {
        return err;
    }
    bool both = b->next != NULL && b->in != NULL;
    bool neither = b->next == NULL && b->in == NULL && b->count > 0;
    bool endless = b->next != NULL && b->count == 0 &&
                   (b->out != NULL || b->status != NULL);
    bool wrong = b->fn == NULL || !(b->timeout_s >= 0) || both || neither ||
                 endless || is_absurd(b->count, b->in_size) ||
                 is_absurd(b->count, b->out_size) ||
                 is_absurd(b->count, sizeof(struct mpr_item));
    return wrong ? MPROC_EINVAL : 0;
}

char *mpr_batch_spare(const mproc_batch *b)
{
    size_t size = b->out_size / MPR_LINE * MPR_LINE + MPR_LINE;
    char *spare = aligned_alloc(MPR_LINE, size);
    if (spare != NULL) {
        spare[b->out_size] = '\0';
    }
    return spare;
}

static struct mpr_batch_state *new_state(const mproc_batch *b)
{
    struct mpr_batch_state *batch = calloc(1, sizeof *batch);
    if (batch == NULL) {
        return NULL;
    }
    batch->is = *b;
    bool endless = b->next != NULL && b->count == 0;
    batch->count = endless ? SIZE_MAX : b->count;
    batch->bad = batch->count;
    batch->tells_items = b->on_item != NULL;
    if (batch->tells_items && b->out != NULL) {
        batch->spare = mpr_batch_spare(b);
        if (batch->spare == NULL) {
            mpr_batch_free(batch);
            return NULL;
        }
    }
    return batch;
}

int mpr_batch_new(mproc_pool *pool, struct mpr_thread *self,
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

void mpr_batch_drop(struct mpr_thread *self, struct mproc_result *result)
{
    mpr_result_release(self, result);
    mpr_result_release(self, result);
}

/* The result is the caller's before a callback can look for it there. */
static int begin_batch(mproc_pool *pool, struct mpr_thread *self,
                       const mproc_batch *b, struct mproc_result **out)
{
    struct mproc_result *result, *before = *out;
    int err = mpr_batch_new(pool, self, b, &result);
    if (err < 0) {
        return err;
    }
    err = mpr_batch_open(pool, result);
    if (err < 0) {
        mpr_batch_drop(self, result);
        return err;
    }
    *out = result;
    if (b->count == 0) {
        mpr_batch_end(self, result);
        return 0;
    }
    err = mpr_batch_begin(pool, self, result);
    if (err < 0) {
        *out = before;
        mpr_batch_drop(self, result);
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
    if (err != 0 || (err = mpr_batch_read(&b, theirs, size)) != 0) {
        return err;
    }
    if (b.next != NULL) {
        return MPROC_EINVAL; /* whose thread would call it? */
    }
    uintptr_t outer = mpr_op_begin(self, p);
    err = begin_batch(p, self, &b, out);
    mpr_op_end(self, outer);
    return err;
}

static int map_array(mproc_pool *p, const mproc_batch *b, mproc_deadline until)
{
    mproc_result *result = NULL;
    int err = mproc_pool_map_async(p, b, &result);
    if (err < 0 || result == NULL) {
        return err;
    }
    err = mpr_result_wait(result, until, true);
    if (err == 0) {
        err = result->outcome.status;
    }
    mproc_result_free(result); /* cancels what has not ended */
    return err;
}

int mproc_pool_map_sized(mproc_pool *p, const mproc_batch *theirs, size_t size,
                         mproc_deadline until)
{
    mproc_batch b;
    struct mpr_thread *self;
    int err = mpr_pool_check(p, &self);
    if (err != 0 || (err = mpr_batch_read(&b, theirs, size)) != 0) {
        return err;
    }
    if (mpr_pool_in_callback(p)) {
        return MPROC_EDEADLK;
    }
    return b.next != NULL ? mpr_iter_map(p, self, &b, until)
                          : map_array(p, &b, until);
}
