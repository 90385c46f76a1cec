/* SPDX-License-Identifier: MIT */
/* A worker: it takes tasks, runs them and answers. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "pool/private.h"
#include "pool/reply.h"
#include "proc/child.h"

static _Thread_local struct mproc_reply *running;

/* Of a thread, its own number. */
static pid_t own_pid(const mproc_reply *reply)
{
    return atomic_load_explicit(&reply->worker->pid, memory_order_relaxed);
}

static bool still_ours(const mproc_reply *reply)
{
    return atomic_load(&reply->entry.task->word) ==
           mpr_task_word((uint32_t)reply->entry.serial, reply->worker->index,
                         MPR_TASK_RUNNING);
}

bool mproc_task_canceled(void)
{
    return running != NULL &&
           (!still_ours(running) ||
            atomic_load(&running->worker->limit) == MPR_OVERTIME);
}

/* ---- its time --------------------------------------------------------- */

/* Where there is no limit, nobody looks at a clock. */
static void begin_time(const mproc_reply *reply)
{
    int64_t ns = reply->entry.task->limit_ns;
    if (ns == 0) {
        return;
    }
    int64_t now = mpr_os_now();
    int64_t at = ns < INT64_MAX - now ? now + ns : INT64_MAX;
    atomic_store(&reply->worker->limit, at);
    if (at < atomic_load(&reply->pool->looks_at)) {
        mpr_pool_call_keeper(reply->pool);
    }
}

/* False: it was over its time, and this process is about to be ended. */
static bool end_time(const mproc_reply *reply)
{
    _Atomic int64_t *limit = &reply->worker->limit;
    int64_t at = atomic_load_explicit(limit, memory_order_relaxed);
    return at == 0 || (at != MPR_OVERTIME &&
                       atomic_compare_exchange_strong(limit, &at, 0));
}

/* ---- running ---------------------------------------------------------- */

/* What a lost run of the same task has left. */
static void begin_again(mproc_reply *reply)
{
    struct mpr_task *task = reply->entry.task;
    task->losses &= ~UINT32_C(1);
    if (mpr_task_chunk(task) != NULL) {
        return;
    }
    if (task->reply != NULL) {
        mpr_worker_adopt(reply->pool, reply->self, task);
    }
}

/* False: over its time. Else `*status` is how it ended. */
static bool call(mproc_reply *reply, const void *arg, size_t size, int *status)
{
    reply->memory = NULL;
    reply->size = 0;
    reply->failed = false;
    if (mpr_unlikely(reply->text != NULL)) {
        free(reply->text);
        reply->text = NULL;
    }
    begin_time(reply);
    int code = reply->entry.task->fn(arg, size, reply);
    if (!mpr_reply_is_ours(reply)) {
        mpr_child_leave(0); /* a fork of the worker, by the task */
    }
    if (!end_time(reply)) {
        return false;
    }
    if (!reply->failed) {
        reply->code = code;
    }
    reply->ran++;
    *status = reply->failed || code != 0 ? MPROC_ETASK : MPROC_OK;
    return true;
}

/*
 * This worker is to leave: to be replaced, after its first task at the
 * earliest, or nothing would ever run; or since there are to be fewer.
 */
static bool is_worn_out(const mproc_reply *reply)
{
    const mproc_pool *pool = reply->pool;
    return atomic_load(&reply->worker->leave) ||
           (pool->max_tasks != 0 && reply->ran >= pool->max_tasks) ||
           (pool->max_rss != 0 && reply->ran > 0 &&
            mpr_os_own_memory() > pool->max_rss);
}

/* What came of a run. */
enum ran {
    RAN_TO_THE_END,
    RAN_IN_PART, /* of a chunk: this was the worker's last task */
    RAN_OVERTIME
};

static void give_text(mproc_reply *reply)
{
    struct mpr_task *task = reply->entry.task;
    size_t size = strlen(reply->text) + 1;
    char *block = mpr_heap_alloc(reply->self, size, MPR_HAND_BLOCK);
    if (block != NULL) {
        memcpy(block, reply->text, size);
        mpr_worker_adopt(reply->pool, reply->self, task);
        task->reply_size = MPR_REPLY_TEXT;
    }
}

static enum ran run_single(mproc_reply *reply)
{
    struct mpr_task *task = reply->entry.task;
    int status;
    if (!call(reply, mpr_task_arg(task), task->arg_size, &status)) {
        return RAN_OVERTIME;
    }
    task->status = status;
    task->code = reply->code;
    task->reply_size = reply->size;
    if (reply->text != NULL) {
        give_text(reply);
    }
    return RAN_TO_THE_END;
}

/*
 * Items of an array that the library carried lie packed: each is copied to
 * where any type may lie, with a NUL behind it.
 */
static const void *item_of(const struct mpr_chunk *chunk, size_t i,
                           size_t *size)
{
    *size = chunk->in != NULL ? chunk->in_size : chunk->items[i].in_size;
    if (chunk->in == NULL) {
        return chunk->items[i].in;
    }
    const char *item = chunk->in + i * chunk->in_size;
    if (chunk->item == NULL) {
        return item;
    }
    memcpy(chunk->item, item, chunk->in_size);
    chunk->item[chunk->in_size] = '\0';
    return chunk->item;
}

static int hand_out(const mproc_reply *reply, struct mpr_chunk *chunk, size_t i)
{
    if (chunk->out == NULL) {
        return MPROC_OK;
    }
    if (reply->size != chunk->out_size) {
        return MPROC_EMSGSIZE;
    }
    if (reply->size > 0) {
        memcpy(chunk->out + i * chunk->out_size, reply->memory, reply->size);
    }
    return MPROC_OK;
}

/* As call. */
static bool run_item(mproc_reply *reply, struct mpr_chunk *chunk, size_t i,
                     int *status)
{
    size_t size;
    const void *arg = item_of(chunk, i, &size);
    bool in_time = call(reply, arg, size, status);
    if (in_time && *status == MPROC_OK) {
        *status = hand_out(reply, chunk, i);
    }
    return in_time;
}

static void tell_reply(const mproc_reply *reply, struct mpr_item *item)
{
    struct mpr_task *task = reply->entry.task;
    if (mpr_reply_is_kept(task->chunk) && reply->memory != NULL) {
        item->data = (size_t)(reply->memory - (char *)task->reply);
        item->size = reply->size;
        task->chunk->used = item->data + item->size + 1;
    }
}

static void tell_text(mproc_reply *reply, struct mpr_item *item)
{
    struct mpr_chunk *chunk = reply->entry.task->chunk;
    size_t size = strlen(reply->text) + 1, end;
    char *text = mpr_reply_room(reply, chunk->used, size, &end);
    if (text != NULL) {
        memcpy(text, reply->text, size);
        item->text = chunk->used + 1;
        chunk->used += size;
    }
}

/* How item i ended, as far as that is to be known. */
static void tell_item(mproc_reply *reply, struct mpr_chunk *chunk, size_t i,
                      int status)
{
    struct mpr_item *item = mpr_chunk_item(chunk, i);
    if (item == NULL) {
        return;
    }
    item->worker = own_pid(reply);
    item->code = reply->code;
    item->text = 0;
    if (status == MPROC_OK) {
        tell_reply(reply, item);
    } else if (status == MPROC_ETASK && reply->text != NULL) {
        tell_text(reply, item);
    }
    if (status != MPROC_OK && chunk->bad == chunk->count) {
        chunk->bad = i;
    }
}

static enum ran run_items(mproc_reply *reply, struct mpr_chunk *chunk)
{
    struct mpr_task *task = reply->entry.task;
    size_t i = atomic_load(&chunk->at);
    chunk->lost = 0;
    for (; i < chunk->count; i++) {
        int status;
        if (is_worn_out(reply)) {
            return RAN_IN_PART;
        }
        if (!run_item(reply, chunk, i, &status)) {
            return RAN_OVERTIME;
        }
        if (!still_ours(reply)) {
            break; /* cancelled: what it replies is dropped */
        }
        if (mpr_unlikely(status != MPROC_OK) || chunk->items != NULL) {
            tell_item(reply, chunk, i, status);
        }
        chunk->status[i] = status;
        task->losses = 0;
        atomic_store_explicit(&chunk->at, i + 1, memory_order_release);
    }
    return RAN_TO_THE_END;
}

static enum ran run_chunk(mproc_reply *reply)
{
    struct mpr_chunk *chunk = reply->entry.task->chunk;
    int64_t begun = chunk->timed ? mpr_os_now() : 0;
    enum ran ran = run_items(reply, chunk);
    if (chunk->timed && ran != RAN_OVERTIME) {
        chunk->ns += mpr_os_now() - begun;
    }
    return ran;
}

/* The rest of a chunk goes to another worker. */
static bool hand_on(mproc_reply *reply)
{
    return mpr_task_move(&reply->entry, reply->worker->index, MPR_TASK_RUNNING,
                         MPR_TASK_QUEUED) &&
           mpr_pool_queue(reply->pool, reply->self, &reply->entry) == 0;
}

/* A thread can only be told of its cancel, and goes on when that is over. */
static bool end_cancelled(const mproc_reply *reply)
{
    struct mpr_task *task = reply->entry.task;
    mpr_pool_lock();
    enum mpr_awaited awaited = atomic_load(&task->awaited);
    bool ended = mpr_task_move(&reply->entry, reply->worker->index,
                               MPR_TASK_CANCELLING, MPR_TASK_CANCELED);
    if (ended) {
        mpr_pool_tell_ended(reply->pool, task, awaited);
    }
    mpr_pool_unlock();
    return ended;
}

/* Who has left it finds that it cannot be cancelled any more. */
static bool end_task(const mproc_reply *reply)
{
    struct mpr_task *task = reply->entry.task;
    bool awaited = atomic_load_explicit(&task->awaited, memory_order_relaxed) !=
                   MPR_AWAITED_NOT;
    if (!mpr_task_move(&reply->entry, reply->worker->index, MPR_TASK_RUNNING,
                       MPR_TASK_ENDED)) {
        return reply->pool->threads && end_cancelled(reply);
    }
    mpr_pool_tell_ended(reply->pool, task,
                        awaited ? MPR_AWAITED : MPR_AWAITED_NOT);
    return true;
}

/*
 * Returns false when this worker must leave: its task was cancelled or over its
 * time, and the nursery says so once this process has ended.
 */
static bool run(mproc_reply *reply)
{
    struct mpr_task *task = reply->entry.task;
    task->worker = own_pid(reply);
    if (task->losses != 0) {
        begin_again(reply);
    }
    running = reply;
    enum ran ran =
        mpr_task_chunk(task) == NULL ? run_single(reply) : run_chunk(reply);
    running = NULL;
    if (ran == RAN_IN_PART) {
        return hand_on(reply);
    }
    return ran != RAN_OVERTIME && end_task(reply);
}

/* ---- taking ----------------------------------------------------------- */

/*
 * What is taken stands in the table before the log lets it go, so that the
 * nursery knows of it whenever this process dies.
 */
static int attempt_take(void *user)
{
    mproc_reply *reply = user;
    if (atomic_load(&reply->worker->leave)) {
        return MPROC_ESHUTDOWN;
    }
    bool closed = mpr_log_closed(&reply->pool->todo);
    int err = mpr_pool_next(reply->pool, reply->self, &reply->worker->current);
    return err == MPROC_EEMPTY && closed ? MPROC_ESHUTDOWN : err;
}

static void be_idle(struct mpr_worker *worker)
{
    if (atomic_load_explicit(&worker->idle_since, memory_order_relaxed) != 0) {
        return;
    }
    atomic_store_explicit(&worker->idle_since, mpr_os_now(),
                          memory_order_relaxed);
}

static void be_busy(struct mpr_worker *worker)
{
    int64_t since =
        atomic_load_explicit(&worker->idle_since, memory_order_relaxed);
    if (since != 0) {
        int64_t idle = atomic_load(&worker->idle_ns) + mpr_os_now() - since;
        atomic_store(&worker->idle_since, 0);
        atomic_store(&worker->idle_ns, idle);
    }
}

/* One at a time spins. */
static bool look_out(void *user)
{
    const mproc_reply *reply = user;
    uint32_t nobody = 0;
    return atomic_compare_exchange_strong(&reply->pool->lookout, &nobody,
                                          reply->worker->index + 1);
}

static void end_lookout(void *user)
{
    const mproc_reply *reply = user;
    mpr_pool_end_lookout(reply->pool, reply->worker->index);
}

/* Who was not woken for the sake of this one is, if there is more. */
static int wait_for_task(mproc_reply *reply)
{
    mproc_pool *pool = reply->pool;
    struct mpr_waiting waiting = {.bell = &pool->to_workers,
                                  .until = MPROC_FOREVER,
                                  .busy = MPROC_EEMPTY,
                                  .attempt = attempt_take,
                                  .user = reply,
                                  .spins = look_out,
                                  .sleeps = end_lookout};
    int err = mpr_sleep_waiting(&waiting);
    end_lookout(reply);
    if (err == 0 && mpr_pool_queued(pool) > 0) {
        mpr_bell_ring(&pool->to_workers, 1);
    }
    return err;
}

static bool take(mproc_reply *reply)
{
    uintptr_t outer = mpr_op_begin(reply->self, reply->pool);
    int err = attempt_take(reply);
    if (err == MPROC_EEMPTY) {
        be_idle(reply->worker);
        mpr_op_waits(reply->self, outer);
        err = wait_for_task(reply);
    }
    be_busy(reply->worker);
    mpr_op_end(reply->self, outer);
    reply->entry = reply->worker->current;
    return err == 0;
}

void mpr_worker_work(mproc_pool *pool, struct mpr_thread *self,
                     struct mpr_worker *worker)
{
    mproc_reply reply = {.pool = pool, .self = self, .worker = worker};
    while (!is_worn_out(&reply) && take(&reply)) {
        bool ours = mpr_task_move(&reply.entry, worker->index, MPR_TASK_QUEUED,
                                  MPR_TASK_RUNNING);
        if (ours && !run(&reply)) {
            break;
        }
    }
    free(reply.scratch);
    free(reply.text);
}

/* ---- the life of a worker --------------------------------------------- */

static void set_state(mproc_pool *pool, struct mpr_worker *worker,
                      enum mpr_worker_state state)
{
    atomic_store(&worker->state, state);
    mpr_pool_call_keeper(pool);
}

void mpr_worker_begin(mproc_pool *pool, struct mpr_worker *worker)
{
    atomic_fetch_add(&pool->begun, 1);
    be_idle(worker);
    atomic_store(&worker->ready_since, atomic_load(&worker->idle_since));
    set_state(pool, worker, MPR_WORKER_READY);
}

/* MPROC_ETASK: the initializer failed. */
static int enter(mproc_pool *pool, struct mpr_worker *worker, mpr_id nursery,
                 struct mpr_thread **self)
{
    int err = mpr_self(self);
    if (err < 0) {
        return err;
    }
    mpr_id birth = nursery | 1;
    if (!atomic_compare_exchange_strong(&worker->id, &birth, mpr_self_id())) {
        mpr_os_end(0); /* the row may not be one any more */
    }
    atomic_store(&worker->pid, mpr_os_pid());
    if (atomic_load(&pool->nursery) != nursery) {
        mpr_os_end(0); /* nobody knows of this process any more */
    }
    if (pool->initializer == NULL) {
        return 0;
    }
    return pool->initializer(pool->initializer_arg) != 0 ? MPROC_ETASK : 0;
}

void mpr_worker_run(mproc_pool *pool, struct mpr_worker *worker, mpr_id nursery)
{
    struct mpr_thread *self;
    int err = enter(pool, worker, nursery, &self);
    if (err < 0) {
        worker->unfit = err;
        set_state(pool, worker, MPR_WORKER_UNFIT);
        mpr_child_leave(1);
    }
    mpr_worker_begin(pool, worker);
    mpr_worker_work(pool, self, worker);
    set_state(pool, worker, MPR_WORKER_RETIRED);
    mpr_child_leave(0);
}
