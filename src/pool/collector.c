/* SPDX-License-Identifier: MIT */
/*
 * The collector: a thread of the maker that takes what has ended, fills
 * results, runs callbacks, and looks after the nursery.
 */
#include <signal.h>
#include <string.h>

#include "pool/private.h"

_Thread_local const mproc_pool *mpr_pool_in_callback;

enum {
    START_LOOK_MS = 50, /* a nursery that has no slot yet */
    LEAVE_LOOK_MS = 2,  /* one that can run no more and is not yet a zombie */
};

struct collector {
    mproc_pool *pool;
    struct mpr_thread *self;
    struct mpr_entry entry;
    bool unserved; /* no nursery, and none will be */
    bool leaving;  /* looks again soon: its nursery is about to end */
};

enum work {
    WORK_ENTRY,
    WORK_SWEEP,
    WORK_FEED,
    WORK_LEAVING,
    WORK_NURSERY,
    WORK_END,
    WORK_OVER
};

/* ---- one task that has ended ------------------------------------------ */

/* The outcome as far as the task's word and record tell it. */
static mproc_outcome outcome_of(const struct mpr_task *task,
                                enum mpr_task_state state)
{
    mproc_outcome outcome = {
        .status = task->status,
        .code = task->code,
        .data = "",
        .error = task->error != NULL ? task->error : "",
        .worker = task->worker,
    };
    if (state == MPR_TASK_CANCELED) {
        outcome.status = MPROC_ECANCELED;
        outcome.code = 0;
        outcome.error = mproc_strerror(MPROC_ECANCELED);
    } else if (state == MPR_TASK_UNSERVED) {
        outcome.status = MPROC_EBROKEN;
        outcome.code = 0;
        outcome.error = mproc_strerror(MPROC_EBROKEN);
    } else if (task->status == MPROC_OK && task->reply_size > 0) {
        outcome.data = task->reply;
        outcome.size = task->reply_size;
    }
    return outcome;
}

/* What the outcome points to moves from the task to the result. */
static void move_to_result(struct mproc_result *result, struct mpr_task *task,
                           const mproc_outcome *outcome)
{
    result->outcome = *outcome;
    if (task->reply == task->inline_reply) {
        for (size_t i = 0; i < sizeof task->inline_reply; i++) {
            result->inline_reply[i] = task->inline_reply[i];
        }
        if (outcome->data == task->inline_reply) {
            result->outcome.data = result->inline_reply;
        }
    } else {
        result->reply = task->reply;
        task->reply = NULL;
    }
    result->error = task->error;
    task->error = NULL;
}

void mpr_pool_call_back(const mproc_pool *pool, mproc_done_fn *fn,
                        const mproc_outcome *outcome, void *user)
{
    if (fn != NULL && !pool->mine->silent) {
        mpr_pool_in_callback = pool;
        fn(outcome, user);
        mpr_pool_in_callback = NULL;
    }
}

static void collect_single(mproc_pool *pool, struct mpr_thread *self,
                           struct mpr_task *task, enum mpr_task_state state)
{
    mproc_outcome outcome = outcome_of(task, state);
    struct mproc_result *result = task->result;
    mpr_pool_lock();
    mpr_pool_count(pool, outcome.status, 1);
    mpr_pool_unlock();
    if (result != NULL) {
        move_to_result(result, task, &outcome);
        outcome = result->outcome;
        mpr_result_set_ended(result);
    }
    mproc_done_fn *fn =
        outcome.status == MPROC_OK ? task->callback : task->error_callback;
    mpr_pool_call_back(pool, fn, &outcome, task->user);
    if (result != NULL) {
        mpr_result_release(self, result);
    }
}

/* Once its record is given back there may be room for more of the batch. */
static void collect_chunk(mproc_pool *pool, struct mpr_thread *self,
                          const struct mpr_entry *entry,
                          enum mpr_task_state state)
{
    struct mproc_result *result = entry->task->result;
    int status = outcome_of(entry->task, state).status;
    bool more = mpr_batch_collect(pool, self, entry->task, status);
    mpr_pool_drop_task(pool, self, entry);
    if (more) {
        mpr_batch_feed(pool, self, result);
    }
}

void mpr_pool_count(mproc_pool *pool, int status, size_t items)
{
    mproc_pool_info *ended = &pool->mine->ended;
    size_t *count = status == MPROC_OK            ? &ended->done
                    : status == MPROC_EWORKERLOST ? &ended->lost
                                                  : &ended->failed;
    *count += items;
}

void mpr_collector_collect(mproc_pool *pool, struct mpr_thread *self,
                           const struct mpr_entry *entry)
{
    uint64_t word = atomic_load(&entry->task->word);
    if (word >> 32 != (uint32_t)entry->serial) {
        return; /* told twice */
    }
    switch (mpr_task_state(word)) {
    case MPR_TASK_ENDED:
    case MPR_TASK_CANCELED:
    case MPR_TASK_UNSERVED:
        break;
    default:
        return;
    }
    if (entry->task->chunk != NULL) {
        collect_chunk(pool, self, entry, mpr_task_state(word));
    } else {
        collect_single(pool, self, entry->task, mpr_task_state(word));
        mpr_pool_drop_task(pool, self, entry);
    }
}

static void collect_each(const struct mpr_entry *entry, void *user)
{
    struct collector *c = user;
    mpr_collector_collect(c->pool, c->self, entry);
}

/* ---- all that cannot be run any more ---------------------------------- */

/* No worker lives: what is queued or was running ends here. */
static void end_each(const struct mpr_entry *entry, void *user)
{
    struct collector *c = user;
    bool terminated = atomic_load(&c->pool->phase) == MPR_POOL_TERMINATED;
    uint64_t word = atomic_load(&entry->task->word);
    uint32_t worker = (uint32_t)word >> 8;
    mpr_task_move(entry, 0, MPR_TASK_QUEUED,
                  terminated ? MPR_TASK_CANCELED : MPR_TASK_UNSERVED);
    mpr_task_move(entry, worker, MPR_TASK_RUNNING, MPR_TASK_CANCELED);
    mpr_task_move(entry, worker, MPR_TASK_CANCELLING, MPR_TASK_CANCELED);
    mpr_collector_collect(c->pool, c->self, entry);
}

/* ---- the nursery ------------------------------------------------------ */

/*
 * Under the lock, so that who ends the process signals no other's pid. True
 * once there is none.
 */
static bool reap_nursery(mproc_pool *pool)
{
    struct mpr_pool_private *mine = pool->mine;
    int code;
    mpr_pool_lock();
    if (mine->nursery_pid != 0 &&
        mpr_os_child_reap(mine->nursery_pid, -1, &code) != MPROC_EAGAIN) {
        atomic_store(&pool->nursery, 0);
        mine->nursery_pid = 0;
    }
    bool none = mine->nursery_pid == 0;
    mpr_pool_unlock();
    return none;
}

/* Its end as a process comes after all that would wake the collector. */
static bool nursery_is_leaving(const mproc_pool *pool)
{
    mpr_id nursery = atomic_load(&pool->nursery);
    return atomic_load(&pool->idle) ||
           (nursery != 0 && mpr_id_is_dead(nursery));
}

/* What can be said when there is no entry to collect. */
static int nursery_work(struct collector *c)
{
    mproc_pool *pool = c->pool;
    if (reap_nursery(pool)) {
        return mpr_pool_workers_gone(pool) ? WORK_NURSERY : MPROC_EEMPTY;
    }
    return !c->leaving && nursery_is_leaving(pool) ? WORK_LEAVING
                                                   : MPROC_EEMPTY;
}

static bool start_another(struct collector *c)
{
    mproc_pool *pool = c->pool;
    if (atomic_exchange(&pool->report, 0) > 0) {
        atomic_store(&pool->started, 1);
    }
    atomic_store(&pool->idle, 0);
    if (mpr_pool_new_table(pool, c->self) < 0) {
        return false;
    }
    pid_t pid = mpr_nursery_start(pool, &pool->mine->mask);
    mpr_pool_lock();
    pool->mine->nursery_pid = pid > 0 ? pid : 0;
    mpr_pool_unlock();
    return pid > 0;
}

/* The nursery has ended: in order, or killed, or it never began. */
static void take_over(struct collector *c)
{
    mproc_pool *pool = c->pool;
    struct mpr_table *table = atomic_load(&pool->table);
    struct mpr_worker *worker;
    for (uint32_t i = 0; (worker = mpr_worker_at(table, i)) != NULL; i++) {
        mpr_worker_settle(pool, c->self, worker, -SIGKILL);
        atomic_store(&worker->pid, 0);
    }
    bool over = atomic_load(&pool->phase) == MPR_POOL_TERMINATED ||
                atomic_load(&pool->broken) || mpr_log_closed(&pool->todo);
    if (!over && !start_another(c)) {
        atomic_store(&pool->broken, 1);
        over = true;
    }
    c->unserved = over;
}

/* ---- the loop --------------------------------------------------------- */

static bool nothing_pending(const mproc_pool *pool)
{
    mpr_pool_lock();
    bool nothing = mpr_pool_is_done(pool);
    mpr_pool_unlock();
    return nothing;
}

static int attempt(void *user)
{
    struct collector *c = user;
    mproc_pool *pool = c->pool;
    struct mpr_log_get get = {.log = &pool->done,
                              .self = c->self,
                              .data = &c->entry,
                              .capacity = sizeof c->entry,
                              .until = MPROC_FOREVER};
    if (mpr_log_get(&get) == 0) {
        return WORK_ENTRY;
    }
    if (atomic_exchange(&pool->sweep, 0)) {
        return WORK_SWEEP;
    }
    if (atomic_exchange(&pool->mine->attend, false)) {
        return WORK_FEED;
    }
    if (!c->unserved) {
        return nursery_work(c);
    }
    if (!nothing_pending(pool)) {
        return WORK_END;
    }
    return atomic_load(&pool->phase) != MPR_POOL_OPEN ? WORK_OVER
                                                      : MPROC_EEMPTY;
}

static mproc_deadline next_look(const struct collector *c)
{
    if (c->leaving) {
        return mproc_in_ms(LEAVE_LOOK_MS);
    }
    bool starting = atomic_load(&c->pool->report) == 0;
    return starting && !c->unserved ? mproc_in_ms(START_LOOK_MS)
                                    : MPROC_FOREVER;
}

static int next_work(struct collector *c)
{
    int work;
    do {
        work = mpr_sleep_until(&c->pool->done.items, next_look(c), MPROC_EEMPTY,
                               attempt, c);
        c->leaving = work == WORK_LEAVING;
    } while (work == MPROC_EEMPTY || work == WORK_LEAVING);
    return work;
}

static void collect_all(struct collector *c)
{
    for (;;) {
        switch ((enum work)next_work(c)) {
        case WORK_ENTRY:
            mpr_collector_collect(c->pool, c->self, &c->entry);
            break;
        case WORK_LEAVING: /* not told */
            break;
        case WORK_SWEEP:
            mpr_pool_each_task(c->pool, collect_each, c);
            break;
        case WORK_FEED:
            mpr_batch_feed_all(c->pool, c->self);
            break;
        case WORK_NURSERY:
            take_over(c);
            break;
        case WORK_END:
            mpr_pool_each_task(c->pool, end_each, c);
            mpr_batch_feed_all(c->pool, c->self); /* nothing: they end too */
            break;
        case WORK_OVER:
            return;
        }
    }
}

void *mpr_collector_run(void *user)
{
    struct collector c = {.pool = user};
    struct mpr_pool_private *mine = c.pool->mine;
    int err = mpr_self(&c.self);
    atomic_store(&mine->collector_report, err < 0 ? err : 1);
    mpr_bell_ring(&c.pool->to_maker, INT_MAX);
    if (err < 0) {
        return NULL;
    }
    uintptr_t outer = mpr_op_begin(c.self, c.pool);
    collect_all(&c);
    mpr_op_end(c.self, outer);
    mpr_pool_is_over(c.pool, c.self);
    return NULL;
}
