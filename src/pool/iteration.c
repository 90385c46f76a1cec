/* SPDX-License-Identifier: MIT */
/*
 * Iterating over replies: imap, and map over items that come one by one.
 *
 * Items are sent by the thread that iterates, when it asks for the next reply:
 * as many as the window lets it be ahead. So the user's `next` runs there, and
 * nobody sends for who has stopped asking. The collector keeps what has ended
 * until it is asked for; it outlives the pool.
 */
#include <stdlib.h>
#include <string.h>

#include "pool/private.h"

enum {
    CHUNK_NS = 100000,     /* what a chosen chunk is to run */
    CHUNK_BYTES = 1 << 20, /* and to carry at most, where items are staged */
    WINDOW = 64,           /* a worker: the chosen window */
    WINDOW_CHUNKS = 4,     /* a worker: that it has room for, at least */
};

/* ---- the collector's side --------------------------------------------- */

void mpr_iteration_keep(struct mproc_result *result, struct mpr_part *part)
{
    struct mpr_iteration *iter = result->batch->iter;
    uint32_t serial = (uint32_t)part->entry.serial;
    atomic_store(&part->entry.task->word,
                 mpr_task_word(serial, 0, MPR_TASK_COLLECTED));
    result->pool->mine->held++;
    struct mpr_part *before = iter->ended_last;
    while (iter->ordered && before != NULL && before->first > part->first) {
        before = before->older;
    }
    struct mpr_part **after = before != NULL ? &before->newer : &iter->ended;
    part->older = before;
    part->newer = *after;
    *(part->newer != NULL ? &part->newer->older : &iter->ended_last) = part;
    *after = part;
    mpr_bell_ring(&result->bell, INT_MAX);
}

void mpr_iteration_look(mproc_pool *pool, struct mpr_thread *self,
                        struct mproc_result *result)
{
    struct mpr_batch_state *batch = result->batch;
    mpr_pool_lock();
    batch->stop = mpr_batch_stop(pool, batch);
    bool stop = batch->stop != 0;
    batch->iter->short_of = false;
    mpr_bell_ring(&result->bell, INT_MAX);
    mpr_pool_unlock();
    if (stop) {
        mpr_batch_close(self, result);
    }
}

bool mpr_iteration_blocks_join(mproc_pool *pool, const struct mpr_thread *self)
{
    bool blocks = false;
    mpr_pool_lock();
    for (struct mproc_result *r = pool->mine->open; r != NULL;
         r = r->batch->next_open) {
        blocks |=
            r->batch->iter != NULL && r->batch->iter->thread == self->serial;
    }
    mpr_pool_unlock();
    return blocks && atomic_load(&pool->phase) == MPR_POOL_CLOSED &&
           !atomic_load(&pool->broken);
}

/* ---- sending ---------------------------------------------------------- */

/* The window: given, or so that chunks of the given size find room. */
static size_t window_of(const struct mproc_result *result)
{
    const mproc_batch *b = &result->batch->is;
    size_t workers = mpr_pool_wanted(result->pool), window;
    if (b->window > 0) {
        return b->window;
    }
    if (__builtin_mul_overflow(b->chunk, WINDOW_CHUNKS * workers, &window)) {
        return SIZE_MAX;
    }
    return window > WINDOW * workers ? window : WINDOW * workers;
}

/* Locked. Of how many items the next chunk is to be, 0: there is no room. */
static size_t next_count(const struct mproc_result *result)
{
    const struct mpr_batch_state *batch = result->batch;
    struct mpr_iteration *iter = batch->iter;
    size_t window = window_of(result), chunk = batch->is.chunk;
    size_t left = batch->count - batch->sent;
    if (chunk == 0) {
        size_t share =
            window / (WINDOW_CHUNKS * (size_t)mpr_pool_wanted(result->pool));
        chunk = mpr_batch_chunk(batch, share, CHUNK_NS);
    }
    size_t room = mpr_pool_room(result->pool), staged = iter->staged.count;
    iter->short_of = room < (staged > 0 ? staged : 1);
    if (iter->short_of) {
        return 0;
    }
    chunk = chunk < left ? chunk : left;
    chunk = chunk < window ? chunk : window;
    chunk = chunk < room ? chunk : room;
    return batch->sent - iter->given <= window - chunk ? chunk : 0;
}

/* Ask for items until there are `count`, or no more. */
static void stage(struct mpr_batch_state *batch, size_t count)
{
    struct mpr_iteration *iter = batch->iter;
    struct mpr_staged *staged = &iter->staged;
    while (staged->count < count && staged->size < CHUNK_BYTES &&
           iter->over == 0) {
        const void *item = NULL;
        size_t size = 0;
        int err = batch->is.next(batch->is.user, &item, &size);
        if (err == 0) {
            err = item == NULL && size > 0 ? MPROC_EINVAL
                                           : mpr_staged_add(staged, item, size);
        }
        iter->over = err <= 0 ? err : MPROC_EINVAL;
    }
}

/* Whether what keeps it from sending may be otherwise later. */
static bool may_send_later(const struct mpr_batch_state *batch, int err)
{
    mpr_pool_lock();
    bool alone = batch->parts == 0 && batch->iter->ended == NULL &&
                 batch->iter->now == NULL;
    mpr_pool_unlock();
    return err == MPROC_EFULL || (err == MPROC_ENOMEM && !alone);
}

/* What was staged and may be sent later stays so. */
static int send_count(struct mpr_thread *self, struct mproc_result *result,
                      size_t count)
{
    struct mpr_batch_state *batch = result->batch;
    struct mpr_iteration *iter = batch->iter;
    if (batch->is.next != NULL) {
        stage(batch, count);
        count = iter->staged.count;
    }
    int err = count > 0 ? mpr_batch_send(self, result, count) : 0;
    if (err < 0 && may_send_later(batch, err)) {
        return err;
    }
    iter->staged.count = 0;
    iter->staged.size = 0;
    iter->over = err < 0 ? err : iter->over;
    return err;
}

/* As much as the window has room for. */
void mpr_iteration_send(struct mpr_thread *self, struct mproc_result *result)
{
    struct mpr_batch_state *batch = result->batch;
    struct mpr_iteration *iter = batch->iter;
    for (int err = 0; err == 0;) {
        mpr_pool_lock();
        bool open = batch->open;
        size_t count = open ? next_count(result) : 0;
        iter->thread = self->serial;
        mpr_pool_unlock();
        if (count == 0) {
            return;
        }
        err = send_count(self, result, count);
        if (batch->sent == batch->count && iter->over == 0) {
            iter->over = MPROC_EOF;
        }
        if (iter->over != 0 && iter->staged.count == 0) {
            mpr_batch_close(self, result);
        }
    }
}

/* ---- handing out ------------------------------------------------------ */

/* Its pool has waited for it, perhaps. */
static void free_part(struct mpr_thread *self, struct mproc_result *result,
                      struct mpr_part *part)
{
    mproc_pool *pool = (mproc_pool *)result->pool;
    mpr_pool_give_back(pool, self, &part->entry);
    mpr_pool_let_go(pool, self);
    free(part);
}

/* Locked. What comes next, if it is there. */
static struct mpr_part *next_ended(const struct mpr_iteration *iter)
{
    struct mpr_part *part = iter->ended;
    bool is_next =
        part != NULL && (!iter->ordered || part->first == iter->given);
    return is_next ? part : NULL;
}

/* True when there is an item, after the one handed out last. */
static bool advance(struct mpr_thread *self, struct mproc_result *result)
{
    struct mpr_iteration *iter = result->batch->iter;
    if (iter->now != NULL && ++iter->at < iter->now->items) {
        return true;
    }
    if (iter->now != NULL) {
        free_part(self, result, iter->now);
    }
    mpr_pool_lock();
    iter->now = next_ended(iter);
    if (iter->now != NULL) {
        iter->ended = iter->now->newer;
        *(iter->ended != NULL ? &iter->ended->older : &iter->ended_last) = NULL;
    }
    mpr_pool_unlock();
    iter->at = 0;
    return iter->now != NULL;
}

static void hand_out(struct mpr_iteration *iter, const mproc_outcome **out)
{
    const struct mpr_task *task = iter->now->entry.task;
    mproc_outcome *outcome = &iter->outcome;
    iter->given++;
    if (out == NULL) {
        return;
    }
    *outcome =
        mpr_chunk_outcome(task->chunk, task->reply, iter->at, iter->text);
    if (iter->spare != NULL && outcome->status == MPROC_OK) {
        outcome->data = memcpy(iter->spare, outcome->data, outcome->size);
    }
    *out = outcome;
}

/* 0: there may be something to hand out, or to send; EOF: there will not. */
static int attempt(void *user)
{
    struct mproc_result *result = user;
    struct mpr_batch_state *batch = result->batch;
    mpr_pool_lock();
    bool rests = batch->parts == 0;
    bool over = rests && !batch->open;
    bool again = rests && batch->open && !batch->iter->short_of;
    bool there = next_ended(batch->iter) != NULL;
    mpr_pool_unlock();
    return there || again ? 0 : over ? MPROC_EOF : MPROC_ETIMEDOUT;
}

static int await(struct mpr_thread *self, struct mproc_result *result,
                 mproc_deadline until)
{
    struct mpr_pool_wait wait = {.pool = (mproc_pool *)result->pool,
                                 .tag = result->pool_tag,
                                 .self = self,
                                 .attempt = attempt,
                                 .user = result,
                                 .busy = MPROC_ETIMEDOUT,
                                 .calls = true,
                                 .manual = result->manual};
    return mpr_pool_wait(&wait, &result->bell, until);
}

static int why_over(const struct mpr_batch_state *batch)
{
    return batch->iter->over != 0 ? batch->iter->over : batch->stop;
}

int mpr_iteration_next(struct mpr_thread *self, struct mproc_result *result,
                       const mproc_outcome **out, mproc_deadline until)
{
    struct mpr_batch_state *batch = result->batch;
    for (;;) {
        mpr_iteration_send(self, result);
        if (advance(self, result)) {
            hand_out(batch->iter, out);
            return 0;
        }
        int err = attempt(result);
        if (err == MPROC_ETIMEDOUT && mpr_pool_in_callback(result->pool)) {
            return MPROC_EDEADLK;
        }
        if (err == MPROC_ETIMEDOUT) {
            err = await(self, result, until);
        }
        if (err < 0) {
            return err == MPROC_EOF ? why_over(batch) : err;
        }
    }
}

/* ---- beginning and ending --------------------------------------------- */

void mpr_iteration_free(struct mpr_iteration *iter)
{
    if (iter != NULL) {
        free(iter->staged.bytes);
        free(iter->staged.items);
        free(iter->spare);
        free(iter);
    }
}

static int make_iteration(struct mpr_batch_state *batch, bool ordered)
{
    struct mpr_iteration *iter = calloc(1, sizeof *iter);
    if (iter == NULL) {
        return MPROC_ENOMEM;
    }
    batch->iter = iter;
    batch->tells_items = true;
    iter->ordered = ordered;
    if (batch->is.out != NULL) {
        iter->spare = mpr_batch_spare(&batch->is);
    }
    return batch->is.out != NULL && iter->spare == NULL ? MPROC_ENOMEM : 0;
}

int mpr_iteration_begin(mproc_pool *pool, struct mpr_thread *self,
                        const mproc_batch *b, bool ordered,
                        struct mproc_result **out)
{
    int err = mpr_batch_new(pool, self, b, out);
    if (err < 0) {
        return err;
    }
    err = make_iteration((*out)->batch, ordered);
    if (err == 0) {
        err = mpr_batch_open(pool, *out);
    }
    if (err < 0) {
        mpr_batch_drop(self, *out);
        return err;
    }
    if ((*out)->batch->count == 0) {
        (*out)->batch->iter->over = MPROC_EOF;
        mpr_batch_end(self, *out);
    }
    return 0;
}

void mpr_iteration_end(struct mpr_thread *self, struct mproc_result *result)
{
    struct mpr_iteration *iter = result->batch->iter;
    mpr_batch_abandon(result);
    mpr_pool_lock();
    struct mpr_part *part = iter->ended;
    iter->ended = NULL;
    mpr_pool_unlock();
    while (part != NULL) {
        struct mpr_part *after = part->newer;
        free_part(self, result, part);
        part = after;
    }
    if (iter->now != NULL) {
        free_part(self, result, iter->now);
    }
    mpr_result_release(self, result);
}
