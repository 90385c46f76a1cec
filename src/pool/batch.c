/* SPDX-License-Identifier: MIT */
/* Many items of one function: map. */
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "pool/private.h"

/* ---- chunks ----------------------------------------------------------- */

static size_t round_up(size_t n)
{
    return (n + MPR_LINE - 1) / MPR_LINE * MPR_LINE;
}

/* Where the parts of a chunk lie in its block. */
struct plan {
    const mproc_batch *batch;
    bool in_place, out_in_place, status_in_place;
    size_t item, in, out, status, end;
};

static struct plan plan_of(const mproc_batch *b, size_t count)
{
    struct plan plan = {
        .batch = b,
        .in_place = mpr_family_holds(b->in, b->count * b->in_size),
        .out_in_place = mpr_family_holds(b->out, b->count * b->out_size),
        .status_in_place =
            b->status != NULL &&
            mpr_family_holds(b->status, b->count * sizeof *b->status),
    };
    plan.item = round_up(sizeof(struct mpr_chunk));
    plan.in = plan.item + (plan.in_place ? 0 : round_up(b->in_size + 1));
    plan.out = plan.in + (plan.in_place ? 0 : round_up(count * b->in_size));
    plan.status = plan.out;
    if (b->out != NULL && !plan.out_in_place) {
        plan.status += round_up(count * b->out_size);
    }
    plan.end =
        plan.status + (plan.status_in_place ? 0 : count * sizeof *b->status);
    return plan;
}

static struct mpr_chunk *fill_chunk(const struct plan *plan, char *block,
                                    size_t first, size_t count)
{
    const mproc_batch *b = plan->batch;
    struct mpr_chunk *chunk = (struct mpr_chunk *)block;
    const char *in = (const char *)b->in + first * b->in_size;
    *chunk = (struct mpr_chunk){.first = first,
                                .count = count,
                                .in = in,
                                .in_size = b->in_size,
                                .out_size = b->out_size,
                                .bad = count};
    if (!plan->in_place) {
        chunk->item = block + plan->item;
        chunk->in = memcpy(block + plan->in, in, count * b->in_size);
    }
    if (b->out != NULL) {
        chunk->out = plan->out_in_place ? (char *)b->out + first * b->out_size
                                        : block + plan->out;
    }
    chunk->status = plan->status_in_place ? b->status + first
                                          : (int *)(block + plan->status);
    for (size_t i = 0; i < count; i++) {
        chunk->status[i] = MPR_ITEM_PENDING;
    }
    return chunk;
}

static int submit_chunk(mproc_pool *pool, struct mpr_thread *self,
                        struct mproc_result *result, const mproc_batch *b,
                        size_t first)
{
    struct mpr_entry *entry = &result->batch->chunk[first / b->chunk];
    size_t left = b->count - first;
    size_t count = left < b->chunk ? left : b->chunk;
    struct plan plan = plan_of(b, count);
    struct mpr_entry taken;
    int err = mpr_pool_take_task(pool, self, &taken);
    if (err < 0) {
        return err;
    }
    char *block = mpr_heap_alloc(self, plan.end, MPR_HAND_BLOCK);
    if (block == NULL) {
        mpr_pool_drop_task(pool, self, &taken);
        return MPROC_ENOMEM;
    }
    taken.task->fn = b->fn;
    taken.task->result = result;
    taken.task->limit_ns = mpr_pool_limit(b->timeout_s);
    taken.task->chunk = fill_chunk(&plan, block, first, count);
    mpr_hand_set(self, MPR_HAND_BLOCK, NULL);
    *entry = taken;
    return mpr_pool_submit(pool, self, &taken);
}

/* ---- what came out ---------------------------------------------------- */

static void note_bad(struct mpr_thread *self, struct mproc_result *result,
                     struct mpr_task *task, const mproc_outcome *bad)
{
    result->batch->bad = bad->index;
    result->outcome = *bad;
    if (result->error != NULL) {
        mpr_heap_free(self, result->error);
    }
    result->error = NULL;
    if (bad->error == task->error) {
        result->error = task->error;
        task->error = NULL;
    }
}

/* Items that never ended have the status of the task that carried them. */
static size_t end_items(struct mpr_chunk *chunk, int status)
{
    size_t first = chunk->count;
    for (size_t i = atomic_load(&chunk->at); i < chunk->count; i++) {
        if (chunk->status[i] == MPR_ITEM_PENDING) {
            chunk->status[i] = status != MPROC_OK ? status : MPROC_EWORKERLOST;
            first = first < i ? first : i;
        }
    }
    return first;
}

static void copy_out(const struct mpr_batch_state *batch,
                     const struct mpr_chunk *chunk)
{
    size_t size = batch->out_size;
    char *out = batch->out != NULL ? batch->out + chunk->first * size : NULL;
    bool there = out == NULL || out == chunk->out || size == 0;
    for (size_t i = 0; i < chunk->count && !there; i++) {
        if (chunk->status[i] == MPROC_OK) {
            memcpy(out + i * size, chunk->out + i * size, size);
        }
    }
    if (batch->status != NULL &&
        batch->status + chunk->first != chunk->status) {
        memcpy(batch->status + chunk->first, chunk->status,
               chunk->count * sizeof *chunk->status);
    }
}

bool mpr_batch_collect(struct mpr_thread *self, struct mproc_result *result,
                       struct mpr_task *task, const mproc_outcome *outcome)
{
    struct mpr_batch_state *batch = result->batch;
    struct mpr_chunk *chunk = task->chunk;
    size_t unended = end_items(chunk, outcome->status);
    mproc_outcome bad = *outcome;
    bad.data = "";
    bad.size = 0;
    if (chunk->bad < unended) {
        bad.index = chunk->first + chunk->bad;
        bad.status = chunk->status[chunk->bad];
        bad.code = chunk->bad_code;
        bad.worker = chunk->bad_worker;
        bad.error = task->error != NULL ? task->error : "";
    } else {
        bad.index = chunk->first + unended;
        bad.status = unended < chunk->count ? chunk->status[unended] : MPROC_OK;
    }
    if (bad.status != MPROC_OK && bad.index < batch->bad) {
        note_bad(self, result, task, &bad);
    }
    copy_out(batch, chunk);
    mpr_pool_lock();
    bool last = --batch->left == 0;
    mpr_pool_unlock();
    return last;
}

/* ---- the calls -------------------------------------------------------- */

/* Callbacks run where chunks are collected: not both at once. */
void mpr_batch_abandon(struct mproc_result *result, struct mpr_thread *self)
{
    mpr_result_cancel(result, self);
    if (mpr_result_await(result, MPROC_FOREVER) == MPROC_EDEADLK) {
        result->batch->out = NULL;
        result->batch->status = NULL;
    }
}

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
    if (b->next != NULL || b->on_item != NULL) {
        return MPROC_ENOTSUP;
    }
    bool wrong = b->fn == NULL || !(b->timeout_s >= 0) ||
                 (b->count > 0 && b->in == NULL) ||
                 is_absurd(b->count, b->in_size) ||
                 is_absurd(b->count, b->out_size) ||
                 is_absurd(b->count, sizeof(struct mpr_entry));
    return wrong ? MPROC_EINVAL : 0;
}

/* As Python chooses: four chunks a worker. */
static size_t chunk_of(const mproc_pool *pool, const mproc_batch *b)
{
    size_t parts = 4 * (size_t)pool->workers;
    size_t chunk = b->chunk != 0 ? b->chunk : (b->count + parts - 1) / parts;
    chunk = chunk < b->count ? chunk : b->count;
    return chunk > 0 ? chunk : 1;
}

static struct mpr_batch_state *state_of(const mproc_batch *b)
{
    size_t chunks = b->count / b->chunk + (b->count % b->chunk != 0);
    struct mpr_batch_state *state =
        calloc(1, sizeof *state + chunks * sizeof state->chunk[0]);
    if (state != NULL) {
        state->left = chunks;
        state->chunks = chunks;
        state->count = b->count;
        state->bad = b->count;
        state->out = b->out;
        state->out_size = b->out_size;
        state->status = b->status;
    }
    return state;
}

/*
 * `unsent` chunks were refused: what was sent is cancelled. Returns once the
 * arrays are no longer touched. If all that was sent has ended already, nobody
 * else ends the result.
 */
static void take_back(struct mproc_result *result, struct mpr_thread *self,
                      size_t unsent)
{
    mpr_pool_lock();
    result->batch->left -= unsent;
    bool none = result->batch->left == 0;
    mpr_pool_unlock();
    if (none) {
        mpr_result_release(self, result);
    } else {
        mpr_batch_abandon(result, self);
    }
    mpr_result_release(self, result);
}

static int send_batch(mproc_pool *pool, struct mpr_thread *self,
                      struct mproc_result *result, const mproc_batch *b)
{
    for (size_t first = 0; first < b->count; first += b->chunk) {
        int err = submit_chunk(pool, self, result, b, first);
        if (err < 0) {
            take_back(result, self, result->batch->chunks - first / b->chunk);
            return err;
        }
    }
    if (b->count == 0) {
        mpr_result_set_ended(result);
        mpr_result_release(self, result);
    }
    return 0;
}

static int begin_batch(mproc_pool *pool, struct mpr_thread *self,
                       mproc_batch *b, struct mproc_result **out)
{
    struct mproc_result *result;
    int err = mpr_pool_may_submit(pool);
    if (err < 0) {
        return err;
    }
    b->chunk = chunk_of(pool, b);
    struct mpr_batch_state *state = state_of(b);
    if (state == NULL) {
        return MPROC_ENOMEM;
    }
    err = mpr_result_new(pool, self, &result);
    if (err < 0) {
        free(state);
        return err;
    }
    result->batch = state;
    err = send_batch(pool, self, result, b);
    if (err == 0) {
        *out = result;
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
