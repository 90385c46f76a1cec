/* SPDX-License-Identifier: MIT */
/* A task that has ended: its result, its count, its callback. */
#include <stdalign.h>

#include "pool/private.h"

alignas(max_align_t) const char mpr_no_reply[] = "";

/* A callback that runs; one may run those of another pool inside. */
struct calling {
    const mproc_pool *pool;
    const struct calling *outer;
};

static _Thread_local const struct calling *innermost;

bool mpr_pool_in_callback(const mproc_pool *pool)
{
    const struct calling *c = innermost;
    while (c != NULL && c->pool != pool) {
        c = c->outer;
    }
    return c != NULL;
}

void mpr_pool_forget_callbacks(void)
{
    innermost = NULL;
}

/* The outcome as far as the task's word and record tell it. */
static mproc_outcome outcome_of(const struct mpr_task *task,
                                enum mpr_task_state state)
{
    mproc_outcome outcome = {
        .status = task->status,
        .code = task->code,
        .data = mpr_no_reply,
        .error = task->reply_size == MPR_REPLY_TEXT ? task->reply : "",
        .worker = task->worker,
    };
    if (state == MPR_TASK_CANCELED) {
        outcome.status = MPROC_ECANCELED;
    } else if (state == MPR_TASK_UNSERVED) {
        outcome.status = MPROC_EBROKEN;
    }
    if (outcome.status == MPROC_ECANCELED || outcome.status == MPROC_EBROKEN) {
        outcome.code = 0;
        outcome.error = mproc_strerror(outcome.status);
    } else if (task->status == MPROC_OK && task->reply_size > 0) {
        outcome.data = task->reply;
        outcome.size = task->reply_size;
    }
    return outcome;
}

/* What the outcome points to moves from the task to the result. */
static void move_to_result(mproc_pool *pool, struct mpr_thread *self,
                           struct mpr_task *task, const mproc_outcome *outcome)
{
    struct mproc_result *result = task->result;
    result->outcome = *outcome;
    if (task->reply == task->inline_reply) {
        for (size_t i = 0; i < sizeof task->inline_reply; i++) {
            result->inline_reply[i] = task->inline_reply[i];
        }
        if (outcome->data == task->inline_reply) {
            result->outcome.data = result->inline_reply;
        }
    } else {
        mpr_task_hand_over(pool, self, task);
    }
}

void mpr_pool_call_back(const mproc_pool *pool, mproc_done_fn *fn,
                        const mproc_outcome *outcome, void *user)
{
    if (fn != NULL && !pool->mine->silent) {
        struct calling here = {pool, innermost};
        innermost = &here;
        fn(outcome, user);
        innermost = here.outer;
    }
}

static mproc_done_fn *callback_of(const struct mpr_task *task, int status)
{
    return status == MPROC_OK ? task->callback : task->error_callback;
}

/* A result is ready before its callback runs. */
static void fill_result(mproc_pool *pool, struct mpr_thread *self,
                        struct mpr_task *task, mproc_outcome *outcome)
{
    mpr_pool_count(pool, outcome->status, 1);
    if (task->result != NULL) {
        move_to_result(pool, self, task, outcome);
        *outcome = task->result->outcome;
        mpr_result_set_ended(task->result);
    }
}

static void end_single(mproc_pool *pool, struct mpr_thread *self,
                       const struct mpr_entry *entry,
                       const mproc_outcome *outcome)
{
    struct mpr_task *task = entry->task;
    mpr_pool_call_back(pool, callback_of(task, outcome->status), outcome,
                       task->user);
    if (task->result != NULL) {
        mpr_result_release(self, task->result);
    }
    mpr_pool_give_back(pool, self, entry);
    mpr_collector_end_items(pool, self, 1);
}

/* ---- callbacks that wait to be dispatched ----------------------------- */

/* From here on it is told from what is said of it twice by its state. */
static void put_off(mproc_pool *pool, const struct mpr_entry *entry,
                    const mproc_outcome *outcome)
{
    struct mpr_task *task = entry->task;
    struct mpr_pool_private *mine = pool->mine;
    task->status = outcome->status;
    task->code = outcome->code;
    atomic_store(&task->word,
                 mpr_task_word((uint32_t)entry->serial, 0, MPR_TASK_COLLECTED));
    mpr_pool_lock();
    task->next = NULL;
    *(mine->put_off != NULL ? &mine->put_off_last->next : &mine->put_off) =
        task;
    mine->put_off_last = task;
    mine->put_off_items +=
        mpr_task_chunk(task) != NULL ? task->chunk->count : 1;
    mpr_pool_unlock();
    mpr_pool_show(pool);
}

/* Locked. */
static struct mpr_task *take_put_off(struct mpr_pool_private *mine)
{
    struct mpr_task *task = mine->put_off;
    mine->put_off = task->next;
    return task;
}

size_t mpr_pool_call_one(mproc_pool *pool, struct mpr_thread *self,
                         const struct mpr_task **called)
{
    struct mpr_pool_private *mine = pool->mine;
    mpr_pool_lock();
    struct mpr_task *task = take_put_off(mine);
    mpr_pool_unlock();
    *called = task;
    struct mpr_entry entry = {task, atomic_load(&task->word) >> 32};
    mproc_outcome outcome = outcome_of(task, MPR_TASK_COLLECTED);
    size_t items = 1;
    if (mpr_task_chunk(task) != NULL) {
        items = task->chunk->count;
        mpr_batch_collect(pool, self, &entry, outcome.status);
    } else {
        end_single(pool, self, &entry,
                   task->result != NULL ? &task->result->outcome : &outcome);
    }
    mpr_pool_lock();
    mine->put_off_items -= items;
    mpr_pool_unlock();
    return items;
}

/* ---- a task that has ended -------------------------------------------- */

void mpr_pool_count(mproc_pool *pool, int status, size_t items)
{
    struct mpr_pool_private *mine = pool->mine;
    _Atomic size_t *count = status == MPROC_OK            ? &mine->done
                            : status == MPROC_EWORKERLOST ? &mine->lost
                                                          : &mine->failed;
    atomic_fetch_add(count, items);
}

void mpr_pool_count_unsent(mproc_pool *pool, int status, size_t items)
{
    mpr_pool_lock();
    mpr_pool_accept(pool, items);
    mpr_pool_unlock();
    mpr_pool_count(pool, status, items);
    atomic_fetch_add(&pool->mine->collected, items);
}

mproc_outcome mpr_pool_take_in(mproc_pool *pool, const struct mpr_entry *entry)
{
    uint64_t word = atomic_load(&entry->task->word);
    mproc_outcome outcome = outcome_of(entry->task, mpr_task_state(word));
    mpr_pool_count(pool, outcome.status, 1);
    return outcome;
}

void mpr_collector_collect(mproc_pool *pool, struct mpr_thread *self,
                           struct mpr_task *task)
{
    uint64_t word = atomic_load(&task->word);
    const struct mpr_entry *entry = &(struct mpr_entry){task, word >> 32};
    bool batch = mpr_task_chunk(task) != NULL;
    mproc_outcome outcome = outcome_of(task, mpr_task_state(word));
    if (!batch) {
        fill_result(pool, self, task, &outcome);
    }
    bool calls = batch ? task->result->batch->is.on_item != NULL
                       : callback_of(task, outcome.status) != NULL;
    if (calls) {
        mpr_batch_send_all(pool, self);
    }
    if (calls && mpr_pool_is_manual(pool)) {
        put_off(pool, entry, &outcome);
    } else if (batch) {
        mpr_batch_collect(pool, self, entry, outcome.status);
    } else {
        end_single(pool, self, entry, &outcome);
    }
}
