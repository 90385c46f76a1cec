/* SPDX-License-Identifier: MIT */
/*
 * The supervision of workers: as many as are wanted, ended when they must be,
 * replaced, counted. Done by the nursery of a pool of processes, and by who
 * does the collector's work of a pool of threads.
 */
#include <signal.h>

#include "pool/private.h"

enum {
    START_TRIES = 3,     /* a worker, of starts in a row that fail */
    FORK_TRIES = 3,      /* with no worker left */
    FORK_RETRY_MS = 100, /* when the system had none for us */
};

void mpr_keeper_begin(struct mpr_keeper *k, mproc_pool *pool)
{
    struct mpr_table *table = atomic_load(&pool->table);
    *k = (struct mpr_keeper){
        .pool = pool,
        .table = table,
        .begun = atomic_load(&pool->begun),
        .owed = table->older != NULL ? mpr_pool_wanted(pool) : 0};
}

/* ---- starting --------------------------------------------------------- */

/*
 * Nobody has a task there: it would be asked for one that the worker before was
 * lost in, and another runs by now.
 */
static int start(struct mpr_keeper *k, struct mpr_worker *worker)
{
    worker->current = (struct mpr_entry){0};
    atomic_store(&worker->limit, 0);
    worker->end_at = 0;
    atomic_store(&worker->leave, 0);
    atomic_store(&worker->ready_since, 0);
    atomic_store(&worker->idle_since, 0);
    atomic_store(&worker->idle_ns, 0);
    atomic_store(&worker->id, mpr_self_id() | 1);
    atomic_store(&worker->bond, MPR_BOND_HOLDS);
    atomic_store(&worker->state, MPR_WORKER_STARTING);
    int err = k->pool->threads ? mpr_threads_start(k->pool, worker)
                               : mpr_nursery_fork(k, worker);
    if (err == 0 && k->owed > 0) {
        k->owed--;
        atomic_fetch_add(&k->pool->respawned, 1);
    }
    return err;
}

/* ---- ending ----------------------------------------------------------- */

static void kill_worker(const struct mpr_worker *worker)
{
    pid_t pid = atomic_load(&worker->pid);
    if (pid != 0) {
        mpr_os_child_signal(pid, -1, SIGKILL);
    }
}

static void cancel(const struct mpr_entry *entry, void *user)
{
    struct mpr_keeper *k = user;
    mpr_pool_lock();
    mpr_pool_cancel(k->pool, entry);
    mpr_pool_unlock();
}

void mpr_keeper_end_all(struct mpr_keeper *k)
{
    struct mpr_worker *worker;
    if (k->pool->threads) {
        mpr_pool_each_task(k->pool, cancel, k);
        return;
    }
    for (uint32_t i = 0; (worker = mpr_worker_at(k->table, i)) != NULL; i++) {
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

int64_t mpr_keeper_time_out(struct mpr_worker *worker, int64_t now)
{
    int64_t limit = atomic_load(&worker->limit);
    if (limit > 0 && limit <= now &&
        atomic_compare_exchange_strong(&worker->limit, &limit, MPR_OVERTIME)) {
        limit = MPR_OVERTIME;
    }
    return limit != 0 ? limit : INT64_MAX;
}

/* End a worker whose time is up. Returns when to look at it again. */
static int64_t end_in_time(struct mpr_keeper *k, struct mpr_worker *worker,
                           int64_t now)
{
    int64_t limit = mpr_keeper_time_out(worker, now);
    int64_t grace = k->pool->grace_ns;
    if (k->pool->threads) {
        bool over = limit == MPR_OVERTIME;
        if (over && mpr_threads_abandon(k, worker)) {
            k->owed++;
            return INT64_MAX;
        }
        return over ? mproc_in_ms(FORK_RETRY_MS).at_ns : limit;
    }
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
 * to look again; a limit that is set meanwhile calls, as long as nobody knows
 * when that is.
 */
static int64_t end_what_must(struct mpr_keeper *k)
{
    int64_t now = mpr_os_now(), next = INT64_MAX;
    struct mpr_worker *worker;
    atomic_store(&k->pool->looks_at, INT64_MAX);
    for (uint32_t i = 0; (worker = mpr_worker_at(k->table, i)) != NULL; i++) {
        if (mpr_worker_pid(worker) != 0) {
            int64_t at = end_in_time(k, worker, now);
            next = at < next ? at : next;
        }
    }
    atomic_store(&k->pool->looks_at, next);
    return next;
}

/* ---- counting --------------------------------------------------------- */

/* What a look at all rows counts. */
struct census {
    uint32_t alive;
    uint32_t staying; /* of those, who were not told to leave */
    uint32_t ready;   /* of those, who began to work */
    uint32_t taken;   /* rows, also of threads that were abandoned */
};

static struct census census(const struct mpr_keeper *k)
{
    struct census c = {0};
    struct mpr_worker *worker;
    for (uint32_t i = 0; (worker = mpr_worker_at(k->table, i)) != NULL; i++) {
        uint32_t state = atomic_load(&worker->state);
        bool alive = mpr_worker_pid(worker) != 0;
        bool stays = alive && !atomic_load(&worker->leave);
        c.alive += alive;
        c.staying += stays;
        c.ready +=
            stays && (state == MPR_WORKER_READY || state == MPR_WORKER_RETIRED);
        c.taken += atomic_load(&worker->pid) != 0;
    }
    return c;
}

/* ---- burying ---------------------------------------------------------- */

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
void mpr_keeper_report(mproc_pool *pool, int result)
{
    if (atomic_load(&pool->report) == 0 &&
        (result > 0 || !atomic_load(&pool->started))) {
        atomic_store(&pool->report, result);
        mpr_pool_tell_maker(pool);
    }
}

bool mpr_keeper_bury(struct mpr_keeper *k, struct mpr_worker *worker, int code)
{
    int err = start_error(worker);
    if (mpr_worker_settle(k->pool, k->self, worker, code) < 0) {
        return false;
    }
    uint32_t begun = atomic_load(&k->pool->begun);
    if (begun != k->begun) {
        k->begun = begun;
        k->failed_starts = 0;
    }
    if (err < 0) {
        k->failed_starts++;
        mpr_keeper_report(k->pool, err);
    }
    mpr_pool_end_lookout(k->pool, worker->index);
    mpr_bell_ring(&k->pool->to_workers, 1); /* which it may have owed */
    k->owed += !atomic_load(&worker->leave);
    atomic_store(&worker->pid, 0);
    mpr_slots_reap(k->self);
    return true;
}

static bool has_ended(const struct mpr_keeper *k,
                      const struct mpr_worker *worker, int *code)
{
    if (k->pool->threads) {
        return atomic_load(&worker->bond) == MPR_BOND_LEFT;
    }
    return mpr_os_child_reap(atomic_load(&worker->pid), -1, code) !=
           MPROC_EAGAIN;
}

/*
 * The nursery has no children but the workers. One that is stopped may be the
 * one that looks out, or was woken for a task: another is to see that.
 */
static bool child_has_ended(const struct mpr_keeper *k)
{
    enum mpr_os_change change;
    while ((change = mpr_os_child_change()) == MPR_OS_STOPPED) {
        atomic_store(&k->pool->lookout, 0);
        mpr_bell_ring(&k->pool->to_workers, 1);
    }
    return change == MPR_OS_ENDED;
}

/* False: not all of them. */
static bool bury_the_dead(struct mpr_keeper *k)
{
    struct mpr_worker *worker;
    bool all = true;
    if (!k->pool->threads && !child_has_ended(k) && !k->unburied) {
        return true;
    }
    for (uint32_t i = 0; (worker = mpr_worker_at(k->table, i)) != NULL; i++) {
        int code = 0;
        if (mpr_worker_pid(worker) != 0 && has_ended(k, worker, &code)) {
            all &= mpr_keeper_bury(k, worker, code);
        }
    }
    k->unburied = !all;
    return all;
}

/* ---- as many as are wanted -------------------------------------------- */

/* Whether workers that end are to be replaced. */
static bool wants_workers(const struct mpr_keeper *k)
{
    mproc_pool *pool = k->pool;
    return atomic_load(&pool->phase) != MPR_POOL_TERMINATED &&
           !mpr_log_closed(&pool->todo) && atomic_load(&pool->report) >= 0 &&
           k->failed_starts < START_TRIES * mpr_pool_wanted(pool) &&
           k->failed_forks < FORK_TRIES;
}

/* What came of the last request. */
static void answer(struct mpr_keeper *k, int err)
{
    uint64_t number = k->wanted >> 32;
    if (atomic_load(&k->pool->resized) >> 32 != number) {
        atomic_store(&k->pool->resized, number << 32 | (uint32_t)-err);
        mpr_pool_tell_maker(k->pool);
    }
}

/* Up to `count` of those who were told to leave may stay. */
static uint32_t let_stay(struct mpr_keeper *k, uint32_t count)
{
    uint32_t stay = 0;
    struct mpr_worker *worker;
    for (uint32_t i = 0;
         stay < count && (worker = mpr_worker_at(k->table, i)) != NULL; i++) {
        uint32_t leave = 1;
        stay += mpr_worker_pid(worker) != 0 &&
                atomic_compare_exchange_strong(&worker->leave, &leave, 0);
    }
    return stay;
}

static int start_some(struct mpr_keeper *k, uint32_t count)
{
    struct mpr_worker *worker;
    int err = k->pool->threads ? mpr_pool_make_rows(k->pool, k->self,
                                                    census(k).taken + count)
                               : 0;
    for (uint32_t i = 0;
         err == 0 && count > 0 && (worker = mpr_worker_at(k->table, i)) != NULL;
         i++) {
        if (atomic_load(&worker->pid) == 0) {
            err = start(k, worker);
            count--;
        }
    }
    return err;
}

static void fill_up(struct mpr_keeper *k, uint32_t count)
{
    int err = start_some(k, count);
    if (err < 0) {
        mpr_keeper_report(k->pool, err);
        answer(k, err);
        k->failed_forks += census(k).alive == 0;
    } else {
        k->failed_forks = 0;
    }
}

/* One that has nothing to do, or any. False: not this one. */
static bool tell_to_leave(struct mpr_worker *worker, bool only_idle)
{
    bool idle = atomic_load(&worker->idle_since) != 0 ||
                atomic_load(&worker->state) != MPR_WORKER_READY;
    return mpr_worker_pid(worker) != 0 && (idle || !only_idle) &&
           !atomic_exchange(&worker->leave, 1);
}

/* Tell so many to leave, after what they run, idle ones first. */
static void let_go(struct mpr_keeper *k, uint32_t count)
{
    struct mpr_worker *worker;
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0;
             count > 0 && (worker = mpr_worker_at(k->table, i)) != NULL; i++) {
            count -= tell_to_leave(worker, round == 0);
        }
    }
    mpr_bell_ring(&k->pool->to_workers, INT_MAX);
}

/* Who asks for workers once more, has it tried once more. */
static void read_request(struct mpr_keeper *k)
{
    uint64_t wanted = atomic_load(&k->pool->wanted);
    if (wanted != k->wanted) {
        k->wanted = wanted;
        k->failed_starts = 0;
        k->failed_forks = 0;
    }
}

static void keep_number(struct mpr_keeper *k)
{
    read_request(k);
    uint32_t wanted = (uint32_t)k->wanted, staying = census(k).staying;
    if (staying < wanted && wants_workers(k)) {
        staying += let_stay(k, wanted - staying);
        fill_up(k, wanted - staying);
    } else if (staying > wanted) {
        let_go(k, staying - wanted);
    }
    if (census(k).staying == wanted) {
        answer(k, 0);
    }
}

int64_t mpr_keeper_pass(struct mpr_keeper *k)
{
    mproc_pool *pool = k->pool;
    bool buried = bury_the_dead(k);
    int64_t next = end_what_must(k);
    if (atomic_load(&pool->phase) == MPR_POOL_TERMINATED ||
        atomic_load(&pool->report) < 0) {
        mpr_keeper_end_all(k);
    }
    keep_number(k);
    struct census now = census(k);
    uint32_t wanted = (uint32_t)k->wanted;
    if (atomic_load(&pool->report) == 0 &&
        (pool->initializer == NULL ? now.staying : now.ready) == wanted) {
        mpr_keeper_report(pool, 1);
    }
    if (!wants_workers(k) && now.alive == 0) {
        return MPR_KEEPER_OVER;
    }
    if (!buried || (now.staying < wanted && wants_workers(k))) {
        int64_t retry = mproc_in_ms(FORK_RETRY_MS).at_ns;
        next = retry < next ? retry : next;
    }
    return next;
}

/* No worker is left, and none will be. */
void mpr_keeper_leave(mproc_pool *pool)
{
    if (!mpr_log_closed(&pool->todo)) {
        atomic_store(&pool->broken, 1);
    }
}
