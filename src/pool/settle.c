/* SPDX-License-Identifier: MIT */
/* How the task of a dead worker ended; everything may be repeated. */
#include <stdio.h>
#include <string.h>

#include "pool/pool.h"

/* Of a worker, and so of what it ran. */
struct death {
    pid_t pid;
    int status; /* of the task or item */
    int code;
};

static struct death death_of(const struct mpr_worker *worker, int code)
{
    bool over = atomic_load(&worker->limit) == MPR_OVERTIME;
    return (struct death){
        .pid = atomic_load(&worker->pid),
        .status = over ? MPROC_EOVERTIME : MPROC_EWORKERLOST,
        .code = over ? 0 : code,
    };
}

const char *mpr_loss_text(char text[MPR_LOSS_TEXT], pid_t pid, int status,
                          int code)
{
    if (status == MPROC_EOVERTIME) {
        snprintf(text, MPR_LOSS_TEXT, "worker %ld ended: its task ran too long",
                 (long)pid);
    } else if (code < 0) {
        snprintf(text, MPR_LOSS_TEXT, "worker %ld killed by signal %d (%s)",
                 (long)pid, -code, mpr_os_signal_name(-code));
    } else {
        snprintf(text, MPR_LOSS_TEXT, "worker %ld exited with status %d",
                 (long)pid, code);
    }
    return text;
}

/* A lost one, if it may. A run is counted once, however often it is asked. */
static bool runs_again(const mproc_pool *pool, struct mpr_task *task,
                       const struct death *death)
{
    if (death->status != MPROC_EWORKERLOST) {
        return false;
    }
    if ((task->losses & 1) == 0) {
        task->losses += 3;
    }
    return task->losses >> 1 <= pool->retries;
}

static void end_item(struct mpr_chunk *chunk, size_t at,
                     const struct death *death)
{
    struct mpr_item *item = mpr_chunk_item(chunk, at);
    if (item != NULL) {
        item->code = death->code;
        item->worker = death->pid;
    }
    chunk->bad = chunk->bad < at ? chunk->bad : at;
    chunk->status[at] = death->status;
}

/*
 * The item that ran is lost: `lost` says which, so that a nursery that goes on
 * with another's work does not take the next one for it. True when it is to be
 * run again, or there are others left.
 */
static bool settle_chunk(const mproc_pool *pool, struct mpr_task *task,
                         const struct death *death)
{
    struct mpr_chunk *chunk = mpr_task_chunk(task);
    if (chunk->lost == 0) {
        chunk->lost = atomic_load(&chunk->at) + 1;
    }
    size_t at = chunk->lost - 1;
    if (at < chunk->count && chunk->status[at] == MPR_ITEM_PENDING) {
        if (runs_again(pool, task, death)) {
            return true;
        }
        end_item(chunk, at, death);
    }
    task->losses = 0;
    if (at < chunk->count) {
        atomic_store(&chunk->at, at + 1);
    }
    return at + 1 < chunk->count;
}

static void end_single(mproc_pool *pool, struct mpr_thread *self,
                       struct mpr_task *task, const struct death *death)
{
    char text[MPR_LOSS_TEXT];
    task->status = death->status;
    task->code = death->code;
    task->worker = death->pid;
    mpr_loss_text(text, death->pid, death->status, death->code);
    size_t size = strlen(text) + 1;
    char *block = mpr_heap_alloc(self, size, MPR_HAND_BLOCK);
    task->reply_size = 0;
    if (block != NULL) {
        memcpy(block, text, size);
        mpr_worker_adopt(pool, self, task);
        task->reply_size = MPR_REPLY_TEXT;
    }
}

static int requeue(mproc_pool *pool, struct mpr_thread *self,
                   const struct mpr_entry *entry)
{
    bool unserved = mpr_pool_queue(pool, self, entry) < 0 &&
                    mpr_task_move(entry, 0, MPR_TASK_QUEUED, MPR_TASK_UNSERVED);
    return unserved ? mpr_pool_tell_doubt(pool, self, entry) : 0;
}

/* What the running task of a dead worker is to be now. */
static enum mpr_task_state state_after(mproc_pool *pool,
                                       struct mpr_thread *self,
                                       const struct mpr_worker *worker,
                                       int code)
{
    struct mpr_task *task = worker->current.task;
    struct death death = death_of(worker, code);
    if (atomic_load(&pool->phase) == MPR_POOL_TERMINATED) {
        return MPR_TASK_CANCELED;
    }
    if (mpr_task_chunk(task) != NULL ? settle_chunk(pool, task, &death)
                                     : runs_again(pool, task, &death)) {
        return MPR_TASK_QUEUED;
    }
    if (mpr_task_chunk(task) == NULL) {
        end_single(pool, self, task, &death);
    }
    return MPR_TASK_ENDED;
}

/*
 * Has it ended, and perhaps nobody tells of it? Another may have ended it, that
 * took it up after the dead, or before it could: that one tells, or else is
 * settled itself.
 */
static bool is_in_doubt(const struct mpr_entry *entry,
                        const struct mpr_worker *worker)
{
    uint64_t word = atomic_load(&entry->task->word);
    enum mpr_task_state state = mpr_task_state(word);
    return state == MPR_TASK_CANCELED || state == MPR_TASK_UNSERVED ||
           word == mpr_task_word_by(entry, worker->index, MPR_TASK_ENDED);
}

int mpr_worker_settle(mproc_pool *pool, struct mpr_thread *self,
                      struct mpr_worker *worker, int code)
{
    struct mpr_entry entry = worker->current;
    if (entry.task == NULL) {
        return 0;
    }
    uint64_t word = atomic_load(&entry.task->word);
    if (word >> 32 != (uint32_t)entry.serial) {
        return 0;
    }
    if (word == mpr_task_word_by(&entry, worker->index, MPR_TASK_RUNNING)) {
        mpr_task_move(&entry, worker->index, MPR_TASK_RUNNING,
                      state_after(pool, self, worker, code));
    }
    /* cancelled, perhaps meanwhile */
    mpr_task_move(&entry, worker->index, MPR_TASK_CANCELLING,
                  MPR_TASK_CANCELED);
    if (mpr_task_state(atomic_load(&entry.task->word)) == MPR_TASK_QUEUED) {
        /* taken, perhaps, but not begun; or to be gone on */
        return requeue(pool, self, &entry);
    }
    return is_in_doubt(&entry, worker) ? mpr_pool_tell_doubt(pool, self, &entry)
                                       : 0;
}
