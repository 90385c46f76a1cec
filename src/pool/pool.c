/* SPDX-License-Identifier: MIT */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "pool/private.h"
#include "proc/child.h"
#include "proc/children.h"

enum { MAKER_AND_NURSERY = 2 };

/* ---- this process's part ---------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct mpr_pool_private *pools;

void mpr_pool_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void mpr_pool_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

/*
 * The pools of a parent are nothing to its child, whose one thread has locked
 * the mutex.
 */
static void forget_parent(void)
{
    mpr_pool_unlock();
    pools = NULL;
    mpr_pool_forget_callbacks();
}

/* Without its nursery no worker lives on. Callbacks are over. */
static void end_pools(void)
{
    mpr_pool_lock();
    for (struct mpr_pool_private *mine = pools; mine; mine = mine->next) {
        mine->silent = true;
        atomic_store(&mine->pool->phase, MPR_POOL_TERMINATED);
        if (mine->nursery_pid > 0) {
            mpr_os_child_signal(mine->nursery_pid, -1, SIGKILL);
        }
        mpr_pool_end_orphans(mine->pool);
    }
    mpr_pool_unlock();
}

/* ---- the object ------------------------------------------------------- */

static bool end_one_block(mproc_pool *pool, struct mpr_thread *self,
                          struct mpr_thread *whose)
{
    mpr_heap_free_hand(self, whose, MPR_HAND_BLOCK);
    mpr_guard_lock(&pool->replies, self, whose);
    struct mpr_table *table = atomic_load(&pool->table);
    struct mpr_table *more = table != NULL ? atomic_load(&table->more) : NULL;
    struct mpr_slab *slab = pool->slabs;
    if (more != NULL) {
        mpr_hand_set(whose, MPR_HAND_BLOCK, more);
        atomic_store(&table->more, atomic_load(&more->more));
    } else if (table != NULL) {
        mpr_hand_set(whose, MPR_HAND_BLOCK, table);
        atomic_store(&pool->table, table->older);
    } else if (slab != NULL) {
        mpr_hand_set(whose, MPR_HAND_BLOCK, slab);
        pool->slabs = slab->next;
    }
    mpr_guard_unlock(&pool->replies, self);
    return table != NULL || slab != NULL;
}

static void end_pool(struct mpr_thread *self, struct mpr_thread *whose,
                     struct mpr_object *object)
{
    mproc_pool *pool = (mproc_pool *)object;
    if (!object->prepared) { /* its maker was killed first: no guards yet */
        return;
    }
    if (mpr_id_is_dead(pool->maker)) {
        mpr_heap_free_hand(self, whose, MPR_HAND_BLOCK);
        mpr_heap_free_hand(self, whose, MPR_HAND_SECOND);
        mpr_pool_free_tasks(pool, self, whose);
    }
    mpr_log_end(&pool->todo, self, whose);
    mpr_log_end(&pool->doubts, self, whose);
    mpr_log_end(&pool->ahead, self, whose);
    mpr_log_end(&pool->behind, self, whose);
    while (end_one_block(pool, self, whose)) {
    }
}

static const struct mpr_object_class pool_class = {
    .type = MPR_POOL, .size = sizeof(mproc_pool), .end = end_pool};

__attribute__((constructor)) static void register_class(void)
{
    mpr_object_register(&pool_class);
    mpr_slots_on_reap(mpr_orphans_end);
    mpr_child_on_end(end_pools);
    /* before there is a second thread that could fork beside this */
    MPR_CHECK(pthread_atfork(mpr_pool_lock, mpr_pool_unlock, forget_parent) ==
              0);
}

static void init_pool(mproc_pool *pool, const mproc_pool_opts *opts)
{
    pool->maker = mpr_self_id(); /* before it may be ended */
    if (!pool->object.prepared) {
        mpr_guard_init(&pool->replies, MPR_GUARD_POOL);
    }
    mpr_log_init(&pool->todo, pool->object.prepared);
    mpr_log_init(&pool->doubts, pool->object.prepared);
    mpr_log_init(&pool->ahead, pool->object.prepared);
    mpr_log_init(&pool->behind, pool->object.prepared);
    mpr_log_set_order(&pool->ahead, MPROC_PRIORITY);
    mpr_log_set_order(&pool->behind, MPROC_PRIORITY);
    pool->object.prepared = 1;
    pool->maker_pid = mpr_os_pid();
    atomic_store(&pool->wanted, opts->workers);
    atomic_store(&pool->resized, 0);
    atomic_store(&pool->respawned, 0);
    pool->max_tasks = opts->max_tasks_per_child;
    pool->max_rss = opts->max_rss_per_child;
    pool->retries = opts->retries;
    pool->max_pending = opts->max_pending != 0 ? opts->max_pending : SIZE_MAX;
    pool->grace_ns = mpr_pool_duration(opts->grace_s);
    pool->initializer = opts->initializer;
    pool->initializer_arg = opts->initializer_arg;
    pool->mine = NULL;
    pool->flag = -1;
    pool->threads = opts->start == MPROC_START_THREAD;
    atomic_store(&pool->gone, 0);
    atomic_store(&pool->keep, 0);
    atomic_store(&pool->shown, 1);
    pool->slabs = NULL;
    atomic_store(&pool->phase, MPR_POOL_OPEN);
    atomic_store(&pool->broken, 0);
    atomic_store(&pool->report, 0);
    atomic_store(&pool->started, 0);
    atomic_store(&pool->idle, 0);
    atomic_store(&pool->told, NULL);
    atomic_store(&pool->lookout, 0);
    atomic_store(&pool->nursery, 0);
    atomic_store(&pool->begun, 0);
    atomic_store(&pool->looks_at, INT64_MAX);
    atomic_store(&pool->table, NULL);
    atomic_store(&pool->adopting, NULL);
    atomic_store(&pool->ended, 0);
    /* the bells ring on: somebody may yet sleep on what was here before */
}

/* ---- making ----------------------------------------------------------- */

int64_t mpr_pool_duration(double seconds)
{
    return mpr_deadline_after(0, seconds, 1e9).at_ns;
}

static int read_options(mproc_pool_opts *opts, const mproc_pool_opts *theirs,
                        size_t size)
{
    int err = mpr_options_read(opts, sizeof *opts, theirs, size);
    if (err < 0) {
        return err;
    }
    if (opts->start < MPROC_START_FORK || opts->start > MPROC_START_SPAWN) {
        return MPROC_EINVAL;
    }
    bool threads = opts->start == MPROC_START_THREAD;
    if ((opts->start != MPROC_START_FORK && !threads) ||
        (threads && opts->max_rss_per_child != 0)) {
        return MPROC_ENOTSUP;
    }
    if (!(opts->grace_s >= 0)) { /* NaN too */
        return MPROC_EINVAL;
    }
    if (opts->workers == 0) {
        opts->workers = mproc_cpu_count();
    }
    return opts->initializer_arg_size > 0 && opts->initializer_arg == NULL
               ? MPROC_EINVAL
               : 0;
}

static void add_private(struct mpr_pool_private *mine)
{
    mpr_pool_lock();
    mine->next = pools;
    pools = mine;
    mpr_pool_unlock();
}

static void remove_private(struct mpr_pool_private *mine, int flag)
{
    mpr_pool_lock();
    for (struct mpr_pool_private **at = &pools; *at; at = &(*at)->next) {
        if (*at == mine) {
            *at = mine->next;
            break;
        }
    }
    mpr_pool_unlock();
    mpr_os_close(mine->nursery_fd);
    mpr_os_close(mine->watch);
    mpr_os_close(mine->timer);
    mpr_os_close(flag);
    free(mine->initializer_arg);
    free(mine);
}

/* The workers get their copy by the fork, as everything else. */
static int make_private(mproc_pool *pool, const mproc_pool_opts *opts)
{
    struct mpr_pool_private *mine = aligned_alloc(MPR_LINE, sizeof *mine);
    if (mine == NULL) {
        return MPROC_ENOMEM;
    }
    memset(mine, 0, sizeof *mine);
    if (opts->initializer_arg_size > 0) {
        size_t size = opts->initializer_arg_size;
        mine->initializer_arg = size < SIZE_MAX ? calloc(1, size + 1) : NULL;
        if (mine->initializer_arg == NULL) {
            free(mine);
            return MPROC_ENOMEM;
        }
        memcpy(mine->initializer_arg, opts->initializer_arg,
               opts->initializer_arg_size);
        pool->initializer_arg = mine->initializer_arg;
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mine->mask);
    mine->watch = -1;
    mine->nursery_fd = -1;
    mine->timer = -1;
    atomic_store(&mine->keep_at, INT64_MAX);
    mine->pool = pool;
    pool->mine = mine;
    add_private(mine);
    return 0;
}

static int start_collector(mproc_pool *pool)
{
    int err =
        mpr_os_thread_start(&pool->mine->collector, mpr_collector_run, pool);
    pool->mine->has_collector = err == 0;
    return err;
}

static int attempt_start(void *user)
{
    mproc_pool *pool = user;
    bool manual = mpr_pool_is_manual(pool);
    int collector = manual ? 1 : atomic_load(&pool->mine->collector_report);
    int nursery = atomic_load(&pool->report);
    if (collector < 0 || nursery < 0) {
        return collector < 0 ? collector : nursery;
    }
    return collector > 0 && nursery > 0 ? 1 : MPROC_ETIMEDOUT;
}

/*
 * The processes first, then the thread: they are forked from a process that has
 * no thread of ours. The collector tells when a nursery ended before it said
 * anything.
 */
static int start(mproc_pool *pool, struct mpr_thread *self, bool manual)
{
    int err = mpr_pool_new_table(pool, self);
    if (err == 0 && manual) {
        err = mpr_os_flag(true);
        pool->flag = err < 0 ? -1 : err;
    }
    if (err < 0) {
        return err;
    }
    if (pool->threads) {
        mpr_keeper_begin(&pool->mine->keeper, pool);
        atomic_store(&pool->keep, 1);
    } else {
        pid_t pid = mpr_nursery_start(pool, &pool->mine->mask);
        if (pid < 0) {
            return pid;
        }
        pool->mine->nursery_pid = pid;
    }
    err = manual ? 0 : start_collector(pool);
    if (err < 0) {
        return err;
    }
    struct mpr_pool_wait wait = {.pool = pool,
                                 .tag = mpr_object_tag(pool, MPR_POOL),
                                 .self = self,
                                 .attempt = attempt_start,
                                 .user = pool,
                                 .busy = MPROC_ETIMEDOUT,
                                 .manual = manual};
    int started = mpr_pool_wait(&wait, &pool->to_maker, MPROC_FOREVER);
    return started < 0 ? started : 0;
}

void mpr_pool_end(mproc_pool *pool, struct mpr_thread *self)
{
    struct mpr_pool_private *mine = pool->mine;
    int flag = pool->flag;
    mpr_pool_lock();
    bool later = mine->held > 0;
    atomic_store(&pool->gone, later);
    mpr_pool_unlock();
    if (later) {
        return;
    }
    mpr_object_end(self, pool, MPR_POOL);
    remove_private(mine, flag);
}

void mpr_pool_let_go(mproc_pool *pool, struct mpr_thread *self)
{
    mpr_pool_lock();
    bool last = --pool->mine->held == 0 && atomic_load(&pool->gone);
    mpr_pool_unlock();
    if (last) {
        mpr_pool_end(pool, self);
    }
}

/*
 * Live before there are processes that use it: a maker that is killed from here
 * on leaves it to them, not to who reaps the maker.
 */
int mpr_pool_begin(mproc_pool **out, struct mpr_thread *self,
                   const mproc_pool_opts *opts)
{
    mproc_pool *pool = mpr_object_new(self, MPR_POOL);
    if (pool == NULL) {
        return MPROC_ENOMEM;
    }
    init_pool(pool, opts);
    int err = make_private(pool, opts);
    if (err < 0) {
        mpr_object_drop(self, pool);
        return err;
    }
    mpr_object_publish(self, pool);
    *out = pool;
    return 0;
}

static int make_pool(mproc_pool **out, struct mpr_thread *self,
                     const mproc_pool_opts *opts)
{
    mproc_pool *pool;
    int err = mpr_pool_begin(&pool, self, opts);
    if (err < 0) {
        return err;
    }
    err = start(pool, self, opts->manual_dispatch != 0);
    if (err < 0) {
        mpr_pool_stop(pool, self);
        mpr_pool_end(pool, self);
        return err;
    }
    *out = pool;
    return 0;
}

size_t mpr_pool_most_workers(bool threads)
{
    return threads ? mpr_family->threads_max
                   : mpr_family->slots_max - MAKER_AND_NURSERY;
}

int mproc_pool_new_sized(mproc_pool **out, const mproc_pool_opts *theirs,
                         size_t size)
{
    mproc_pool_opts opts;
    struct mpr_thread *self;
    if (out == NULL) {
        return MPROC_EINVAL;
    }
    int err = read_options(&opts, theirs, size);
    if (err < 0 || (err = mpr_self(&self)) < 0) {
        return err;
    }
    bool threads = opts.start == MPROC_START_THREAD;
    if (opts.workers > mpr_pool_most_workers(threads) ||
        (!threads && !mpr_children_room(self, (uint32_t)opts.workers + 1))) {
        return MPROC_EAGAIN; /* before thousands are forked in vain */
    }
    uintptr_t outer = mpr_op_begin(self, &opts);
    err = make_pool(out, self, &opts);
    mpr_op_end(self, outer);
    return err;
}

int mpr_pool_check(const mproc_pool *pool, struct mpr_thread **self)
{
    if (!mpr_object_is(pool, MPR_POOL) ||
        atomic_load(&((mproc_pool *)pool)->gone)) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(self);
    if (err < 0) {
        return err;
    }
    return pool->maker == mpr_self_id() ? 0 : MPROC_EPERM;
}
