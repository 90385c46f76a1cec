/* SPDX-License-Identifier: MIT */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "pool/pool.h"
#include "proc/child.h"
#include "proc/who.h"

enum {
    START_TRIES = 3,     /* a worker, of starts in a row that fail */
    FORK_TRIES = 3,      /* with no worker left */
    FORK_RETRY_MS = 100, /* when the system had no process for us */
};

struct nursery {
    mproc_pool *pool;
    struct mpr_thread *self;
    struct mpr_table *table;
    const sigset_t *mask;
    uint32_t begun;         /* as the pool told it last */
    unsigned failed_starts; /* since a worker became ready */
    unsigned failed_forks;  /* since one went through */
};

/* ---- how the task of a dead worker ended ------------------------------ */

/* What became of a worker, and so of what it ran. */
static struct mpr_death death_of(const struct mpr_worker *worker, int code)
{
    bool over = atomic_load(&worker->limit) == MPR_OVERTIME;
    return (struct mpr_death){
        .pid = atomic_load(&worker->pid),
        .status = over ? MPROC_EOVERTIME : MPROC_EWORKERLOST,
        .code = over ? 0 : code,
    };
}

const char *mpr_death_text(char text[MPR_DEATH_TEXT],
                           const struct mpr_death *death, int64_t limit_ns)
{
    long pid = death->pid;
    if (death->status == MPROC_EOVERTIME) {
        snprintf(text, MPR_DEATH_TEXT,
                 "worker %ld ended: its task ran longer than %g s", pid,
                 (double)limit_ns / 1e9);
    } else if (death->code < 0) {
        snprintf(text, MPR_DEATH_TEXT, "worker %ld killed by signal %d (%s)",
                 pid, -death->code, mpr_os_signal_name(-death->code));
    } else {
        snprintf(text, MPR_DEATH_TEXT, "worker %ld exited with status %d", pid,
                 death->code);
    }
    return text;
}

static void tell_error(mproc_pool *pool, struct mpr_thread *self,
                       struct mpr_task *task, const struct mpr_death *death)
{
    char text[MPR_DEATH_TEXT];
    size_t size = strlen(mpr_death_text(text, death, task->limit_ns)) + 1;
    char *block = mpr_heap_alloc(self, size, MPR_HAND_BLOCK);
    if (block != NULL) {
        memcpy(block, text, size);
        mpr_worker_adopt(pool, self, task, (void **)&task->error);
    }
}

/* A lost one, if it may. A run is counted once, however often it is asked. */
static bool runs_again(const mproc_pool *pool, struct mpr_task *task,
                       const struct mpr_death *death)
{
    if (death->status != MPROC_EWORKERLOST) {
        return false;
    }
    if ((task->losses & 1) == 0) {
        task->losses += 3;
    }
    return task->losses >> 1 <= pool->retries;
}

/*
 * The item that ran is lost: `lost` says which, so that a nursery that goes on
 * with another's work does not take the next one for it. True when it is to be
 * run again, or there are others left.
 */
static bool settle_chunk(const mproc_pool *pool, struct mpr_task *task,
                         const struct mpr_death *death)
{
    struct mpr_chunk *chunk = task->chunk;
    if (chunk->lost == 0) {
        chunk->lost = atomic_load(&chunk->at) + 1;
    }
    size_t at = chunk->lost - 1;
    if (at < chunk->count && chunk->status[at] == MPR_ITEM_PENDING) {
        if (runs_again(pool, task, death)) {
            return true;
        }
        struct mpr_item *item = mpr_chunk_item(chunk, at);
        if (item != NULL) {
            item->code = death->code;
            item->worker = death->pid;
            item->text = 0;
        }
        chunk->bad = chunk->bad < at ? chunk->bad : at;
        chunk->status[at] = death->status;
    }
    task->losses = 0;
    if (at < chunk->count) {
        atomic_store(&chunk->at, at + 1);
    }
    return at + 1 < chunk->count;
}

static void requeue(mproc_pool *pool, struct mpr_thread *self,
                    const struct mpr_entry *entry)
{
    if (mpr_pool_post(&pool->todo, self, entry) < 0 &&
        mpr_task_move(entry, 0, MPR_TASK_QUEUED, MPR_TASK_UNSERVED)) {
        mpr_pool_tell_ended(pool, self, entry);
    }
}

static void settle_running(mproc_pool *pool, struct mpr_thread *self,
                           const struct mpr_worker *worker, int code)
{
    const struct mpr_entry *entry = &worker->current;
    struct mpr_task *task = entry->task;
    struct mpr_death death = death_of(worker, code);
    enum mpr_task_state to = MPR_TASK_ENDED;
    if (atomic_load(&pool->phase) == MPR_POOL_TERMINATED) {
        to = MPR_TASK_CANCELED;
    } else if (task->chunk != NULL) {
        if (settle_chunk(pool, task, &death)) {
            to = MPR_TASK_QUEUED;
        }
    } else if (runs_again(pool, task, &death)) {
        to = MPR_TASK_QUEUED;
    } else {
        task->status = death.status;
        task->code = death.code;
        task->worker = death.pid;
        tell_error(pool, self, task, &death);
    }
    if (!mpr_task_move(entry, worker->index, MPR_TASK_RUNNING, to)) {
        /* cancelled meanwhile */
        mpr_task_move(entry, worker->index, MPR_TASK_CANCELLING,
                      MPR_TASK_CANCELED);
    }
}

/*
 * A worker that died in mpr_worker_adopt may have in hand what its task has. It
 * must not any more when the task ends: what is freed with the task would be
 * freed with the hand once more.
 */
static void settle_hands(mproc_pool *pool, struct mpr_thread *self)
{
    mpr_guard_lock(&pool->replies, self, self);
    mpr_guard_unlock(&pool->replies, self);
}

void mpr_nursery_settle(mproc_pool *pool, struct mpr_thread *self,
                        struct mpr_worker *worker, int code)
{
    struct mpr_entry entry = worker->current;
    uint32_t index = worker->index;
    if (entry.task == NULL) {
        return;
    }
    settle_hands(pool, self);
    uint64_t word = atomic_load(&entry.task->word);
    if (word >> 32 != (uint32_t)entry.serial) {
        return;
    }
    if (word == mpr_task_word_by(&entry, index, MPR_TASK_RUNNING)) {
        settle_running(pool, self, worker, code);
    } else if (word == mpr_task_word_by(&entry, index, MPR_TASK_CANCELLING)) {
        mpr_task_move(&entry, index, MPR_TASK_CANCELLING, MPR_TASK_CANCELED);
    }
    switch (mpr_task_state(atomic_load(&entry.task->word))) {
    case MPR_TASK_QUEUED: /* taken, perhaps, but not begun; or to be gone on */
        requeue(pool, self, &entry);
        break;
    case MPR_TASK_ENDED: /* told, perhaps */
    case MPR_TASK_CANCELED:
    case MPR_TASK_UNSERVED:
        mpr_pool_tell_ended(pool, self, &entry);
        break;
    default:
        break;
    }
}

/* ---- workers ---------------------------------------------------------- */

static int spawn(struct nursery *n, struct mpr_worker *worker)
{
    struct mpr_child child;
    mpr_id nursery = mpr_self_id();
    worker->current = (struct mpr_entry){0};
    atomic_store(&worker->limit, 0);
    worker->end_at = 0;
    atomic_store(&worker->id, 0);
    atomic_store(&worker->state, MPR_WORKER_STARTING);
    int err = mpr_child_fork(MPR_CHILD_ENDS_WITH_PARENT, &child);
    if (err < 0) {
        atomic_store(&worker->state, MPR_WORKER_NONE);
        return err;
    }
    if (child.pid == 0) {
        char name[32];
        snprintf(name, sizeof name, "PoolWorker-%u",
                 (unsigned)worker->index + 1);
        mpr_os_signal_default(SIGCHLD);
        mpr_who_become_named(name);
        mpr_who_set_parent(n->pool->maker_pid);
        child.mask = *n->mask;
        mpr_child_ready(&child);
        mpr_worker_run(n->pool, worker, nursery);
    }
    mpr_os_close(child.pidfd);
    atomic_store(&worker->pid, child.pid);
    return 0;
}

static void kill_worker(const struct mpr_worker *worker)
{
    pid_t pid = atomic_load(&worker->pid);
    if (pid != 0) {
        mpr_os_child_signal(pid, -1, SIGKILL);
    }
}

static void kill_all(struct nursery *n)
{
    for (uint32_t i = 0; i < n->table->count; i++) {
        kill_worker(&n->table->worker[i]);
    }
}

static bool is_cancelled(const struct mpr_worker *worker)
{
    struct mpr_entry entry = worker->current;
    return entry.task != NULL &&
           atomic_load(&entry.task->word) ==
               mpr_task_word_by(&entry, worker->index, MPR_TASK_CANCELLING);
}

int64_t mpr_nursery_time_out(struct mpr_worker *worker, int64_t now)
{
    int64_t limit = atomic_load(&worker->limit);
    if (limit > 0 && limit <= now &&
        atomic_compare_exchange_strong(&worker->limit, &limit, MPR_OVERTIME)) {
        limit = MPR_OVERTIME;
    }
    return limit != 0 ? limit : INT64_MAX;
}

/* End a worker whose time is up. Returns when to look at it again. */
static int64_t end_in_time(const struct nursery *n, struct mpr_worker *worker,
                           int64_t now)
{
    int64_t limit = mpr_nursery_time_out(worker, now),
            grace = n->pool->grace_ns;
    if (worker->end_at == 0 &&
        (limit == MPR_OVERTIME || is_cancelled(worker))) {
        worker->end_at = grace < INT64_MAX - now ? now + grace : INT64_MAX;
    }
    if (worker->end_at == 0) {
        return limit;
    }
    if (worker->end_at <= now) {
        kill_worker(worker);
        worker->end_at = INT64_MAX;
    }
    return worker->end_at;
}

/*
 * End the workers of tasks that are cancelled or over their time. Returns when
 * to look again; a limit that is set meanwhile rings, as long as nobody knows
 * when that is.
 */
static int64_t end_what_must(struct nursery *n)
{
    int64_t now = mpr_os_now(), next = INT64_MAX;
    atomic_store(&n->pool->looks_at, INT64_MAX);
    for (uint32_t i = 0; i < n->table->count; i++) {
        struct mpr_worker *worker = &n->table->worker[i];
        if (atomic_load(&worker->pid) != 0) {
            int64_t at = end_in_time(n, worker, now);
            next = at < next ? at : next;
        }
    }
    atomic_store(&n->pool->looks_at, next);
    return next;
}

static uint32_t alive(const struct nursery *n)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->table->count; i++) {
        count += atomic_load(&n->table->worker[i].pid) != 0;
    }
    return count;
}

static bool all_ready(const struct nursery *n)
{
    for (uint32_t i = 0; i < n->table->count; i++) {
        uint32_t state = atomic_load(&n->table->worker[i].state);
        if (state != MPR_WORKER_READY && state != MPR_WORKER_RETIRED) {
            return false;
        }
    }
    return true;
}

/* What the start of a worker came to; 0: it began to work. */
static int start_error(const struct mpr_worker *worker)
{
    switch (atomic_load(&worker->state)) {
    case MPR_WORKER_STARTING:
        return MPROC_EWORKERLOST;
    case MPR_WORKER_UNFIT:
        return worker->unfit;
    default:
        return 0;
    }
}

/* What hinders a start ends the pool; later it costs workers. */
static void report(mproc_pool *pool, int result)
{
    if (atomic_load(&pool->report) == 0 &&
        (result > 0 || !atomic_load(&pool->started))) {
        atomic_store(&pool->report, result);
        mpr_bell_ring(&pool->to_maker, INT_MAX);
    }
}

static void bury(struct nursery *n, struct mpr_worker *worker, int code)
{
    int err = start_error(worker);
    uint32_t begun = atomic_load(&n->pool->begun);
    if (begun != n->begun) {
        n->begun = begun;
        n->failed_starts = 0;
    }
    if (err < 0) {
        n->failed_starts++;
        report(n->pool, err);
    }
    mpr_nursery_settle(n->pool, n->self, worker, code);
    atomic_store(&worker->state, MPR_WORKER_NONE);
    atomic_store(&worker->pid, 0);
    mpr_slots_reap(n->self);
}

static void bury_the_dead(struct nursery *n)
{
    for (uint32_t i = 0; i < n->table->count; i++) {
        struct mpr_worker *worker = &n->table->worker[i];
        pid_t pid = atomic_load(&worker->pid);
        int code = 0;
        if (pid != 0 && mpr_os_child_reap(pid, -1, &code) != MPROC_EAGAIN) {
            bury(n, worker, code);
        }
    }
}

/* ---- the nursery ------------------------------------------------------ */

/* Whether workers that end are to be replaced. */
static bool wants_workers(const struct nursery *n)
{
    mproc_pool *pool = n->pool;
    return atomic_load(&pool->phase) != MPR_POOL_TERMINATED &&
           !mpr_log_closed(&pool->todo) && atomic_load(&pool->report) >= 0 &&
           n->failed_starts < START_TRIES * pool->workers &&
           n->failed_forks < FORK_TRIES;
}

static void fill_up(struct nursery *n)
{
    for (uint32_t i = 0; i < n->table->count && wants_workers(n); i++) {
        struct mpr_worker *worker = &n->table->worker[i];
        if (atomic_load(&worker->pid) != 0) {
            continue;
        }
        int err = spawn(n, worker);
        if (err < 0) {
            report(n->pool, err);
            n->failed_forks += alive(n) == 0;
            return;
        }
        n->failed_forks = 0;
    }
}

/* Until something happens; not for ever while a worker is wanted. */
static void wait_for_news(struct nursery *n, uint32_t seen, int64_t next)
{
    struct mpr_sleep sleep;
    mproc_deadline until = mproc_deadline_at_(next);
    if (wants_workers(n) && alive(n) < n->table->count) {
        until = mpr_deadline_earlier(until, mproc_in_ms(FORK_RETRY_MS));
    }
    mpr_sleep_begin(&sleep, until);
    sleep.deep = true;
    mpr_sleep_on(&sleep, &n->pool->to_nursery, seen);
}

/*
 * Its maker's death ends it at once, and the kernel then ends the workers.
 */
static void keep(struct nursery *n)
{
    mproc_pool *pool = n->pool;
    for (;;) {
        uint32_t seen = mpr_bell_watch(&pool->to_nursery);
        if (mpr_id_is_dead(pool->maker)) {
            mpr_os_end(0);
        }
        bury_the_dead(n);
        int64_t next = end_what_must(n);
        if (atomic_load(&pool->phase) == MPR_POOL_TERMINATED ||
            atomic_load(&pool->report) < 0) {
            kill_all(n);
        }
        fill_up(n);
        if (atomic_load(&pool->report) == 0 && alive(n) == n->table->count &&
            (pool->initializer == NULL || all_ready(n))) {
            report(pool, 1);
        }
        if (alive(n) == 0 && !wants_workers(n)) {
            return;
        }
        wait_for_news(n, seen, next);
    }
}

/* No worker is left, and none will be. */
static void leave(struct nursery *n)
{
    mproc_pool *pool = n->pool;
    if (atomic_load(&pool->phase) == MPR_POOL_OPEN ||
        !mpr_log_closed(&pool->todo)) {
        atomic_store(&pool->broken, 1);
    }
    atomic_store(&pool->idle, 1);
    mpr_bell_ring(&pool->done.items, INT_MAX);
}

static void run(mproc_pool *pool, const sigset_t *mask)
{
    struct nursery n = {.pool = pool,
                        .table = atomic_load(&pool->table),
                        .mask = mask,
                        .begun = atomic_load(&pool->begun)};
    int err = mpr_self(&n.self);
    if (err < 0) {
        report(pool, err);
        atomic_store(&pool->broken, 1);
        return;
    }
    mpr_op_begin(n.self, pool);
    atomic_store(&pool->nursery, mpr_self_id());
    keep(&n);
    leave(&n);
}

/* The end of a child is heard whatever the mask was. */
pid_t mpr_nursery_start(mproc_pool *pool, const sigset_t *mask)
{
    struct mpr_child child;
    mpr_fork_without_heritage(true); /* workers hold what they use */
    int err = mpr_child_fork(MPR_CHILD_OUTLIVES, &child);
    mpr_fork_without_heritage(false);
    if (err < 0) {
        return err;
    }
    if (child.pid == 0) {
        mpr_who_become_named("PoolNursery");
        mpr_os_signal_ignore(SIGINT);
        child.mask = *mask;
        mpr_child_ready(&child);
        mpr_os_on_child_end(&pool->to_nursery);
        run(pool, mask);
        mpr_os_end(0);
    }
    mpr_os_close(child.pidfd);
    return child.pid;
}
