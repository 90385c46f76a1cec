/* SPDX-License-Identifier: MIT */
/*
 * Workers that are threads of the maker. Nothing can end them, so one whose
 * task is over its time is abandoned: it keeps its row and its task's record,
 * with all that the task may still look at, until it returns; a stand-in of the
 * task ends, or goes on with the rest of its chunk. The pool is not ended
 * before the last of them has returned.
 */
#include <stdlib.h>
#include <string.h>

#include "pool/private.h"

struct life {
    mproc_pool *pool;
    struct mpr_worker *worker;
};

/* ---- the life of a thread --------------------------------------------- */

/* What an abandoned one had is given back, perhaps the whole pool. */
static void come_back(mproc_pool *pool, struct mpr_worker *worker)
{
    struct mpr_thread *self;
    if (mpr_self(&self) < 0) {
        return; /* it had a record when it began, and has it still */
    }
    uintptr_t outer = mpr_op_begin(self, pool);
    mpr_pool_give_back(pool, self, &worker->current);
    atomic_store(&worker->pid, 0);
    mpr_pool_let_go(pool, self);
    mpr_op_end(self, outer);
}

/*
 * Also where a task calls pthread_exit. Once it is seen to have left the pool
 * may end, but not before it is unlocked.
 */
static void leave(void *user)
{
    const struct life *life = user;
    uint32_t bond = MPR_BOND_HOLDS;
    if (life->pool->maker_pid != mpr_os_pid()) {
        return; /* a fork of this thread */
    }
    mpr_pool_lock();
    bool left = atomic_compare_exchange_strong(&life->worker->bond, &bond,
                                               MPR_BOND_LEFT);
    if (left) {
        mpr_pool_call_keeper(life->pool);
    }
    mpr_pool_unlock();
    if (!left) {
        come_back(life->pool, life->worker);
    }
}

static void work(void *user)
{
    const struct life *life = user;
    mproc_pool *pool = life->pool;
    struct mpr_worker *worker = life->worker;
    struct mpr_thread *self;
    int err = mpr_self(&self);
    atomic_store(&worker->pid, mpr_os_tid());
    if (err == 0 && pool->initializer != NULL &&
        pool->initializer(pool->initializer_arg) != 0) {
        err = MPROC_ETASK;
    }
    if (err < 0) {
        worker->unfit = err;
        atomic_store(&worker->state, MPR_WORKER_UNFIT);
        return;
    }
    mpr_worker_begin(pool, worker);
    mpr_worker_work(pool, self, worker);
    atomic_store(&worker->state, MPR_WORKER_RETIRED);
}

static void *live(void *user)
{
    struct life life = *(struct life *)user;
    free(user);
    mpr_os_run_to_end(work, leave, &life);
    return NULL;
}

/* What it does after it has left may take long, and wait for the pool. */
static void detach(struct mpr_worker *worker)
{
    if (worker->joinable) {
        mpr_os_thread_detach(&worker->thread);
        worker->joinable = false;
    }
}

/* Or their stacks would be in the way of who forks many processes then. */
void mpr_threads_join(mproc_pool *pool)
{
    struct mpr_table *table = atomic_load(&pool->table);
    struct mpr_worker *worker;
    for (uint32_t i = 0; (worker = mpr_worker_at(table, i)) != NULL; i++) {
        if (worker->joinable) {
            mpr_os_thread_join(&worker->thread);
            worker->joinable = false;
        }
    }
}

/* Its row is taken before it says who it is. */
int mpr_threads_start(mproc_pool *pool, struct mpr_worker *worker)
{
    struct life *life = malloc(sizeof *life);
    if (life == NULL) {
        return MPROC_ENOMEM;
    }
    *life = (struct life){pool, worker};
    atomic_store(&worker->pid, pool->maker_pid);
    detach(worker); /* who was here before */
    int err = mpr_os_thread_start(&worker->thread, live, life);
    worker->joinable = err == 0;
    if (err < 0) {
        atomic_store(&worker->pid, 0);
        free(life);
    }
    return err;
}

/* ---- abandoning ------------------------------------------------------- */

static void *moved(const void *p, const struct mpr_chunk *from, size_t size,
                   struct mpr_chunk *to)
{
    uintptr_t offset = (uintptr_t)p - (uintptr_t)from;
    return p != NULL && offset < size ? (char *)to + offset : (void *)p;
}

/* A copy whose parts lie in it, in MPR_HAND_BLOCK. */
static struct mpr_chunk *copy_chunk(struct mpr_thread *self,
                                    const struct mpr_chunk *from)
{
    size_t size = mpr_heap_block_size(from);
    struct mpr_chunk *to = mpr_heap_alloc(self, size, MPR_HAND_BLOCK);
    if (to == NULL) {
        return NULL;
    }
    memcpy(to, from, size);
    to->in = moved(from->in, from, size, to);
    to->item = moved(from->item, from, size, to);
    to->out = moved(from->out, from, size, to);
    to->status = moved(from->status, from, size, to);
    to->items = moved(from->items, from, size, to);
    for (size_t i = 0; to->items != NULL && i < to->count; i++) {
        to->items[i].in = moved(to->items[i].in, from, size, to);
    }
    return to;
}

/*
 * What the ended items of a chunk have left. The task may be at putting it into
 * a larger block: not under the guard.
 */
static bool copy_replies(mproc_pool *pool, struct mpr_thread *self,
                         const struct mpr_task *from, struct mpr_task *to)
{
    size_t used = from->chunk->used;
    if (used == 0) {
        return true;
    }
    char *block = mpr_heap_alloc(self, used, MPR_HAND_BLOCK);
    if (block == NULL) {
        return false;
    }
    mpr_guard_lock(&pool->replies, self, self);
    memcpy(block, from->reply, used);
    mpr_guard_unlock(&pool->replies, self);
    mpr_worker_adopt(pool, self, to);
    return true;
}

static bool copy_task(mproc_pool *pool, struct mpr_thread *self,
                      const struct mpr_task *from, struct mpr_task *to)
{
    to->fn = from->fn;
    to->limit_ns = from->limit_ns;
    if (mpr_task_chunk(from) == NULL) {
        return true;
    }
    struct mpr_chunk *chunk = copy_chunk(self, from->chunk);
    if (chunk == NULL) {
        return false;
    }
    to->chunk = chunk;
    mpr_task_adopt_arg(pool, self, to, MPR_ARG_OF_CHUNK);
    return copy_replies(pool, self, from, to);
}

/*
 * Locked. Whoever looks for the chunk finds the stand-in; that of a single task
 * ends before it is looked for.
 */
static void replace(mproc_pool *pool, struct mpr_worker *worker,
                    const struct mpr_entry *entry)
{
    struct mpr_task *from = worker->current.task, *to = entry->task;
    to->user = from->user;
    to->result = from->result;
    from->result = NULL;
    if (mpr_task_chunk(to) != NULL) {
        to->chunk->part->entry = *entry;
    } else {
        to->callback = from->callback;
        to->error_callback = from->error_callback;
    }
    uint64_t word =
        mpr_task_word((uint32_t)worker->current.serial, 0, MPR_TASK_ABANDONED);
    enum mpr_task_state state =
        mpr_task_state(atomic_exchange(&from->word, word));
    atomic_store(&to->word, mpr_task_word_by(entry, worker->index, state));
    pool->mine->held++;
}

bool mpr_threads_abandon(struct mpr_keeper *k, struct mpr_worker *worker)
{
    mproc_pool *pool = k->pool;
    struct mpr_task *task = worker->current.task;
    struct mpr_entry entry;
    uint32_t bond = MPR_BOND_HOLDS;
    pid_t pid = atomic_load(&worker->pid);
    mpr_pool_lock();
    int err = mpr_pool_take_record(pool, k->self, &entry);
    mpr_pool_unlock();
    if (err < 0) {
        return false;
    }
    bool copied = copy_task(pool, k->self, task, entry.task);
    mpr_pool_lock(); /* or the thread might come back before it is replaced */
    bool abandoned = copied && atomic_compare_exchange_strong(
                                   &worker->bond, &bond, MPR_BOND_ABANDONED);
    if (abandoned) {
        replace(pool, worker, &entry);
    }
    mpr_pool_unlock();
    if (!abandoned) {
        mpr_pool_give_back(pool, k->self, &entry);
        return false;
    }
    detach(worker);
    struct mpr_worker ghost = {.index = worker->index,
                               .current = entry,
                               .pid = pid,
                               .limit = MPR_OVERTIME};
    mpr_worker_settle(pool, k->self, &ghost, 0);
    return true;
}
