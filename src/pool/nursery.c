/* SPDX-License-Identifier: MIT */
#include <signal.h>
#include <stdio.h>

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
    uint64_t wanted;        /* as the pool told it last */
    uint32_t begun;         /* as the pool told it last */
    unsigned failed_starts; /* since a worker became ready */
    unsigned failed_forks;  /* since one went through */
};

/* ---- workers ---------------------------------------------------------- */

static int spawn(struct nursery *n, struct mpr_worker *worker)
{
    struct mpr_child child;
    mpr_id nursery = mpr_self_id();
    worker->current = (struct mpr_entry){0};
    atomic_store(&worker->limit, 0);
    worker->end_at = 0;
    atomic_store(&worker->leave, 0);
    atomic_store(&worker->ready_since, 0);
    atomic_store(&worker->idle_since, 0);
    atomic_store(&worker->idle_ns, 0);
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
    if (worker->owed) {
        atomic_fetch_add(&n->pool->respawned, 1);
        worker->owed = false;
    }
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
    struct mpr_worker *worker;
    for (uint32_t i = 0; (worker = mpr_worker_at(n->table, i)) != NULL; i++) {
        kill_worker(worker);
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
    struct mpr_worker *worker;
    for (uint32_t i = 0; (worker = mpr_worker_at(n->table, i)) != NULL; i++) {
        if (atomic_load(&worker->pid) != 0) {
            int64_t at = end_in_time(n, worker, now);
            next = at < next ? at : next;
        }
    }
    atomic_store(&n->pool->looks_at, next);
    return next;
}

/* What a look at all rows counts. */
struct census {
    uint32_t alive;
    uint32_t staying; /* of those, who were not told to leave */
    uint32_t ready;   /* of those, who began to work */
};

static struct census census(const struct nursery *n)
{
    struct census c = {0};
    struct mpr_worker *worker;
    for (uint32_t i = 0; (worker = mpr_worker_at(n->table, i)) != NULL; i++) {
        uint32_t state = atomic_load(&worker->state);
        bool alive = atomic_load(&worker->pid) != 0;
        bool stays = alive && !atomic_load(&worker->leave);
        c.alive += alive;
        c.staying += stays;
        c.ready +=
            stays && (state == MPR_WORKER_READY || state == MPR_WORKER_RETIRED);
    }
    return c;
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
        mpr_pool_tell_maker(pool);
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
    mpr_worker_settle(n->pool, n->self, worker, code);
    worker->owed = !atomic_load(&worker->leave);
    atomic_store(&worker->state, MPR_WORKER_NONE);
    atomic_store(&worker->pid, 0);
    mpr_slots_reap(n->self);
}

static void bury_the_dead(struct nursery *n)
{
    struct mpr_worker *worker;
    for (uint32_t i = 0; (worker = mpr_worker_at(n->table, i)) != NULL; i++) {
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
           n->failed_starts < START_TRIES * mpr_pool_wanted(pool) &&
           n->failed_forks < FORK_TRIES;
}

/* What came of the last request. */
static void answer(struct nursery *n, int err)
{
    uint64_t number = n->wanted >> 32;
    if (atomic_load(&n->pool->resized) >> 32 != number) {
        atomic_store(&n->pool->resized, number << 32 | (uint32_t)-err);
        mpr_pool_tell_maker(n->pool);
    }
}

/* Up to `count` of those who were told to leave may stay. */
static uint32_t let_stay(struct nursery *n, uint32_t count)
{
    uint32_t stay = 0;
    struct mpr_worker *worker;
    for (uint32_t i = 0;
         stay < count && (worker = mpr_worker_at(n->table, i)) != NULL; i++) {
        uint32_t leave = 1;
        stay += atomic_load(&worker->pid) != 0 &&
                atomic_compare_exchange_strong(&worker->leave, &leave, 0);
    }
    return stay;
}

static void fill_up(struct nursery *n, uint32_t count)
{
    struct mpr_worker *worker;
    for (uint32_t i = 0;
         count > 0 && (worker = mpr_worker_at(n->table, i)) != NULL; i++) {
        if (atomic_load(&worker->pid) != 0) {
            continue;
        }
        int err = spawn(n, worker);
        if (err < 0) {
            report(n->pool, err);
            answer(n, err);
            n->failed_forks += census(n).alive == 0;
            return;
        }
        n->failed_forks = 0;
        count--;
    }
}

static bool is_idle(struct mpr_worker *worker)
{
    return atomic_load(&worker->idle_since) != 0 ||
           atomic_load(&worker->state) != MPR_WORKER_READY;
}

/* Tell so many to leave, after what they run, idle ones first. */
static void let_go(struct nursery *n, uint32_t count)
{
    struct mpr_worker *worker;
    for (int idle = 1; idle >= 0; idle--) {
        for (uint32_t i = 0;
             count > 0 && (worker = mpr_worker_at(n->table, i)) != NULL; i++) {
            bool may =
                atomic_load(&worker->pid) != 0 && is_idle(worker) >= idle;
            count -= may && !atomic_exchange(&worker->leave, 1);
        }
    }
    mpr_bell_ring(&n->pool->todo.items, INT_MAX);
}

/* As many workers as are wanted. */
static void keep_number(struct nursery *n)
{
    n->wanted = atomic_load(&n->pool->wanted);
    uint32_t wanted = (uint32_t)n->wanted, staying = census(n).staying;
    if (staying < wanted && wants_workers(n)) {
        staying += let_stay(n, wanted - staying);
        fill_up(n, wanted - staying);
    } else if (staying > wanted) {
        let_go(n, staying - wanted);
    }
    if (census(n).staying == wanted) {
        answer(n, 0);
    }
}

/* Until something happens; not for ever while a worker is wanted. */
static void wait_for_news(struct nursery *n, uint32_t seen, int64_t next)
{
    struct mpr_sleep sleep;
    mproc_deadline until = mproc_deadline_at_(next);
    if (wants_workers(n) && census(n).staying < (uint32_t)n->wanted) {
        until = mpr_deadline_earlier(until, mproc_in_ms(FORK_RETRY_MS));
    }
    mpr_sleep_begin(&sleep, until);
    sleep.deep = true;
    mpr_sleep_on(&sleep, &n->pool->to_nursery, seen);
}

static bool has_news(const mproc_pool *pool)
{
    return mpr_log_count(&pool->done) > 0 ||
           atomic_load(&((mproc_pool *)pool)->sweep);
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
        keep_number(n);
        struct census now = census(n);
        if (atomic_load(&pool->report) == 0 &&
            (pool->initializer == NULL ? now.staying : now.ready) ==
                (uint32_t)n->wanted) {
            report(pool, 1);
        }
        if (mpr_pool_is_manual(pool) && has_news(pool)) {
            mpr_pool_show(pool);
        }
        if (now.alive == 0 && !wants_workers(n)) {
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
    if (mpr_pool_is_manual(pool)) {
        mpr_pool_show(pool);
    }
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
