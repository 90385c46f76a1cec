/* SPDX-License-Identifier: MIT */
/* The process that keeps the workers of a pool of processes. */
#include <signal.h>
#include <stdio.h>

#include "pool/pool.h"
#include "proc/child.h"
#include "proc/who.h"

int mpr_nursery_fork(struct mpr_keeper *k, struct mpr_worker *worker)
{
    struct mpr_child child;
    mpr_id nursery = mpr_self_id();
    int err = mpr_child_fork(MPR_CHILD_ENDS_WITH_PARENT, &child);
    if (err < 0) {
        return err;
    }
    if (child.pid == 0) {
        char name[32];
        snprintf(name, sizeof name, "PoolWorker-%u",
                 (unsigned)worker->index + 1);
        mpr_os_signal_default(SIGCHLD);
        mpr_who_become_named(name);
        mpr_who_set_parent(k->pool->maker_pid);
        child.mask = *k->mask;
        mpr_child_ready(&child);
        mpr_worker_run(k->pool, worker, nursery);
    }
    mpr_os_close(child.pidfd);
    atomic_store(&worker->pid, child.pid);
    return 0;
}

/*
 * Its maker's death ends it at once, and the workers: the kernel would do that,
 * but not where one has changed its user since.
 */
static void keep(struct mpr_keeper *k)
{
    mproc_pool *pool = k->pool;
    for (;;) {
        struct mpr_sleep sleep;
        mpr_sleep_begin(&sleep, MPROC_FOREVER); /* deaths from here on end it */
        uint32_t seen = mpr_bell_watch(&pool->to_nursery);
        if (mpr_id_is_dead(pool->maker)) {
            mpr_keeper_end_all(k);
            mpr_os_end(0);
        }
        int64_t next = mpr_keeper_pass(k);
        if (mpr_pool_is_manual(pool) && mpr_pool_has_told(pool)) {
            mpr_pool_show(pool);
        }
        if (next == MPR_KEEPER_OVER) {
            return;
        }
        sleep.until = mproc_deadline_at_(next);
        sleep.deep = true;
        mpr_sleep_on(&sleep, &pool->to_nursery, seen);
    }
}

static void leave(mproc_pool *pool)
{
    mpr_keeper_leave(pool);
    atomic_store(&pool->idle, 1);
    mpr_bell_ring(&pool->to_collector, INT_MAX);
    if (mpr_pool_is_manual(pool)) {
        mpr_pool_show(pool);
    }
}

/* The pool is touched by who has become its nursery, or knows its maker. */
static void run(mproc_pool *pool, mpr_id birth, const sigset_t *mask)
{
    struct mpr_keeper keeper;
    struct mpr_thread *self;
    int err = mpr_self(&self);
    mpr_id id = err < 0 ? 0 : mpr_self_id();
    if (!atomic_compare_exchange_strong(&pool->nursery, &birth, id)) {
        return;
    }
    if (err < 0) {
        mpr_keeper_report(pool, err);
        atomic_store(&pool->broken, 1);
        return;
    }
    mpr_keeper_begin(&keeper, pool);
    keeper.self = self;
    keeper.mask = mask;
    mpr_op_begin(self, pool);
    keep(&keeper);
    leave(pool);
}

/* What becomes of a child is heard whatever the mask was. */
pid_t mpr_nursery_start(mproc_pool *pool, const sigset_t *mask)
{
    struct mpr_child child;
    mpr_id birth = mpr_self_id() | 1;
    atomic_store(&pool->nursery, birth);
    mpr_fork_without_heritage(true); /* workers hold what they use */
    int err = mpr_child_fork(MPR_CHILD_OUTLIVES, &child);
    mpr_fork_without_heritage(false);
    if (err < 0) {
        atomic_store(&pool->nursery, 0);
        return err;
    }
    if (child.pid == 0) {
        mpr_who_become_named("PoolNursery");
        mpr_os_signal_ignore(SIGINT);
        mpr_os_continue_with_parent();
        child.mask = *mask;
        mpr_child_ready(&child);
        mpr_os_on_child_change(&pool->to_nursery);
        run(pool, birth, mask);
        mpr_os_end(0);
    }
    mpr_os_close(child.pidfd);
    return child.pid;
}
