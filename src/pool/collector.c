/* SPDX-License-Identifier: MIT */
/*
 * The collector: a thread of the maker that takes what has ended, fills
 * results, runs callbacks, and looks after the nursery.
 */
#include <signal.h>
#include <string.h>

#include "pool/private.h"

enum {
    START_LOOK_MS = 50, /* a nursery that has no slot yet */
    LEAVE_LOOK_MS = 2,  /* one that can run no more and is not yet a zombie */
};

struct collector {
    mproc_pool *pool;
    struct mpr_thread *self;
};

enum work {
    WORK_TOLD,
    WORK_FEED,
    WORK_LEAVING,
    WORK_NURSERY,
    WORK_KEEP,
    WORK_END,
    WORK_OVER
};

/* ---- what has been told ----------------------------------------------- */

/*
 * What was told before this one: once it has ended, as its word publishes, and
 * so no longer what its maker wrote there.
 */
static struct mpr_task *told_before(const struct mpr_task *task)
{
    (void)atomic_load_explicit(&task->word, memory_order_acquire);
    return task->next;
}

/* What was told goes behind what was heard before, the first one first. */
static void hear(mproc_pool *pool)
{
    struct mpr_task *told = atomic_exchange(&pool->told, NULL);
    struct mpr_task *first = NULL, *last = pool->mine->heard;
    while (told != NULL) {
        struct mpr_task *before = told_before(told);
        told->next = first;
        first = told;
        told = before;
    }
    while (last != NULL && last->next != NULL) {
        last = last->next;
    }
    if (last != NULL) {
        last->next = first;
    } else {
        pool->mine->heard = first;
    }
}

static bool has_heard(mproc_pool *pool)
{
    /* it comes after the watch of the bell, which no weaker load must pass */
    if (pool->mine->heard == NULL && atomic_load(&pool->told) != NULL) {
        hear(pool);
    }
    return pool->mine->heard != NULL;
}

static void collect_first(mproc_pool *pool, struct mpr_thread *self)
{
    struct mpr_task *task = pool->mine->heard;
    pool->mine->heard = task->next;
    mpr_task_prefetch(task->next);
    mpr_collector_collect(pool, self, task);
    if (pool->mine->heard == NULL) {
        mpr_batch_send_all(pool, self);
    }
}

/* ---- what may not have been told -------------------------------------- */

static bool has_ended(const struct mpr_entry *entry)
{
    uint64_t word = atomic_load(&entry->task->word);
    enum mpr_task_state state = mpr_task_state(word);
    return word >> 32 == (uint32_t)entry->serial &&
           (state == MPR_TASK_ENDED || state == MPR_TASK_CANCELED ||
            state == MPR_TASK_UNSERVED);
}

/* Locked. It has ended: true if that is for the collector to take in. */
static bool is_ours(struct mpr_task *task)
{
    bool awaited = atomic_load(&task->awaited) == MPR_AWAITED;
    if (awaited) {
        mpr_bell_ring(&task->bell, INT_MAX);
    }
    return !awaited;
}

/*
 * The worker that ended it is dead, and a thread of ours that cancels a task
 * has told of it before it unlocks: what has ended and is not heard of by then
 * was not told, and is not going to be.
 */
static void settle_doubt(mproc_pool *pool, struct mpr_thread *self,
                         const struct mpr_entry *entry)
{
    mpr_pool_lock();
    bool ours = has_ended(entry) && is_ours(entry->task);
    hear(pool);
    mpr_pool_unlock();
    while (pool->mine->heard != NULL) {
        collect_first(pool, self);
    }
    if (ours && has_ended(entry)) {
        mpr_collector_collect(pool, self, entry->task);
        mpr_batch_send_all(pool, self);
    }
}

bool mpr_collector_take_in(mproc_pool *pool, struct mpr_thread *self)
{
    struct mpr_entry entry;
    struct mpr_log_get get = {.log = &pool->doubts,
                              .self = self,
                              .data = &entry,
                              .capacity = sizeof entry,
                              .until = MPROC_FOREVER};
    if (has_heard(pool)) {
        collect_first(pool, self);
        return true;
    }
    bool doubts = mpr_log_get(&get) == 0;
    if (doubts) {
        settle_doubt(pool, self, &entry);
    }
    return doubts;
}

/* ---- all that cannot be run any more ---------------------------------- */

/* No worker lives: what is queued or was running ends here. */
static void end_each(const struct mpr_entry *entry, void *user)
{
    struct collector *c = user;
    bool terminated = atomic_load(&c->pool->phase) == MPR_POOL_TERMINATED;
    uint64_t word = atomic_load(&entry->task->word);
    uint32_t worker = (uint32_t)word >> 8;
    mpr_pool_lock();
    bool ours =
        (mpr_task_move(entry, 0, MPR_TASK_QUEUED,
                       terminated ? MPR_TASK_CANCELED : MPR_TASK_UNSERVED) ||
         mpr_task_move(entry, worker, MPR_TASK_RUNNING, MPR_TASK_CANCELED) ||
         mpr_task_move(entry, worker, MPR_TASK_CANCELLING,
                       MPR_TASK_CANCELED)) &&
        is_ours(entry->task);
    mpr_pool_unlock();
    if (ours) {
        mpr_collector_collect(c->pool, c->self, entry->task);
    }
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
        mpr_pool_forget_nursery(pool);
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
           (nursery != 0 && !mpr_is_birth(nursery) && mpr_id_is_dead(nursery));
}

/* What can be said when there is no entry to collect. */
static int nursery_work(struct collector *c)
{
    mproc_pool *pool = c->pool;
    if (reap_nursery(pool)) {
        if (mpr_pool_workers_gone(pool)) {
            return WORK_NURSERY;
        }
        mpr_pool_end_orphans(pool);
        return MPROC_EEMPTY;
    }
    bool leaves = !pool->mine->leaving && nursery_is_leaving(pool);
    return leaves ? WORK_LEAVING : MPROC_EEMPTY;
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
    if (pool->mine->watch >= 0 && mpr_pool_watch_nursery(pool) < 0) {
        mpr_pool_show(pool); /* until there is a descriptor for it */
    }
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
        if (worker->current.task != NULL) {
            settle_doubt(pool, c->self, &worker->current);
        }
        mpr_pool_end_lookout(pool, worker->index);
        atomic_store(&worker->pid, 0);
    }
    bool over = atomic_load(&pool->phase) == MPR_POOL_TERMINATED ||
                atomic_load(&pool->broken) || mpr_log_closed(&pool->todo);
    if (!over && !start_another(c)) {
        atomic_store(&pool->broken, 1);
        over = true;
    }
    pool->mine->unserved = over;
}

/* ---- one step --------------------------------------------------------- */

enum left { LEFT_NOTHING, LEFT_CALLBACKS, LEFT_TASKS };

static enum left what_is_left(const mproc_pool *pool)
{
    const struct mpr_pool_private *mine = pool->mine;
    mpr_pool_lock();
    bool nothing = mpr_pool_is_done(pool);
    bool put_off = mpr_pool_pending(mine) == mine->put_off_items;
    for (struct mproc_result *r = mine->open; r; r = r->batch->next_open) {
        put_off &= r->batch->untold;
    }
    mpr_pool_unlock();
    return nothing ? LEFT_NOTHING : put_off ? LEFT_CALLBACKS : LEFT_TASKS;
}

/* Threads have no nursery. */
static bool must_keep(mproc_pool *pool)
{
    int64_t at = atomic_load(&pool->mine->keep_at);
    return pool->threads && !pool->mine->unserved &&
           (atomic_load(&pool->keep) ||
            (at != INT64_MAX && mpr_os_now() >= at));
}

static void keep_threads(struct collector *c)
{
    struct mpr_pool_private *mine = c->pool->mine;
    atomic_store(&c->pool->keep, 0);
    mine->keeper.self = c->self;
    int64_t next = mpr_keeper_pass(&mine->keeper);
    if (next == MPR_KEEPER_OVER) {
        mpr_keeper_leave(c->pool);
        atomic_store(&mine->unserved, true);
        next = INT64_MAX;
    }
    atomic_store(&mine->keep_at, next);
}

static int look(void *user)
{
    struct collector *c = user;
    mproc_pool *pool = c->pool;
    if (must_keep(pool)) {
        return WORK_KEEP;
    }
    if (has_heard(pool) || mpr_log_count(&pool->doubts) > 0) {
        return WORK_TOLD;
    }
    if (atomic_exchange(&pool->mine->attend, false)) {
        return WORK_FEED;
    }
    if (!pool->mine->unserved) {
        return pool->threads ? MPROC_EEMPTY : nursery_work(c);
    }
    enum left left = what_is_left(pool);
    if (left == LEFT_TASKS) {
        return WORK_END;
    }
    bool over = left == LEFT_NOTHING && !atomic_load(&pool->ended) &&
                atomic_load(&pool->phase) != MPR_POOL_OPEN;
    return over ? WORK_OVER : MPROC_EEMPTY;
}

static void work(struct collector *c, enum work what)
{
    c->pool->mine->leaving = what == WORK_LEAVING;
    switch (what) {
    case WORK_TOLD:
        mpr_collector_take_in(c->pool, c->self);
        break;
    case WORK_LEAVING:
        break;
    case WORK_FEED:
        mpr_batch_feed_all(c->pool, c->self);
        break;
    case WORK_NURSERY:
        take_over(c);
        break;
    case WORK_KEEP:
        keep_threads(c);
        break;
    case WORK_END:
        mpr_pool_each_task(c->pool, end_each, c);
        mpr_batch_feed_all(c->pool, c->self); /* nothing: they end too */
        break;
    case WORK_OVER:
        mpr_pool_is_over(c->pool, c->self);
        break;
    }
}

bool mpr_collector_step(mproc_pool *pool, struct mpr_thread *self)
{
    struct collector c = {.pool = pool, .self = self};
    int what = look(&c);
    if (what != MPROC_EEMPTY) {
        work(&c, (enum work)what);
    } else {
        pool->mine->leaving = false;
    }
    return what != MPROC_EEMPTY && what != WORK_LEAVING;
}

mproc_deadline mpr_collector_next_look(const mproc_pool *pool)
{
    if (pool->mine->leaving) {
        return mproc_in_ms(LEAVE_LOOK_MS);
    }
    if (pool->threads) {
        return mproc_deadline_at_(atomic_load(&pool->mine->keep_at));
    }
    bool starting = atomic_load(&pool->report) == 0;
    return starting && !pool->mine->unserved ? mproc_in_ms(START_LOOK_MS)
                                             : MPROC_FOREVER;
}

/* ---- the thread ------------------------------------------------------- */

static int next_work(struct collector *c)
{
    mproc_pool *pool = c->pool;
    int what;
    do {
        what =
            mpr_sleep_until(&pool->to_collector, mpr_collector_next_look(pool),
                            MPROC_EEMPTY, look, c);
        pool->mine->leaving = what == WORK_LEAVING;
    } while (what == MPROC_EEMPTY || what == WORK_LEAVING);
    return what;
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
    enum work what;
    do {
        what = (enum work)next_work(&c);
        if (what == WORK_OVER) {
            mpr_op_end(c.self, outer);
        }
        work(&c, what);
    } while (what != WORK_OVER);
    return NULL;
}
