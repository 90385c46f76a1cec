/* SPDX-License-Identifier: MIT */
/* Closing a pool, waiting for its end, ending it. */
#include <signal.h>

#include "pool/private.h"

bool mpr_pool_is_done(const mproc_pool *pool)
{
    return mpr_pool_pending(pool->mine) == 0 && pool->mine->open == NULL;
}

void mpr_pool_close_if_done(mproc_pool *pool, struct mpr_thread *self)
{
    if (mpr_pool_is_done(pool) && atomic_load(&pool->phase) != MPR_POOL_OPEN &&
        !pool->mine->closed) {
        pool->mine->closed = true;
        mpr_log_close(&pool->todo, self);
        mpr_bell_ring(&pool->to_workers, INT_MAX);
        mpr_pool_call_keeper(pool);
        mpr_bell_ring(&pool->to_collector, INT_MAX);
    }
}

/* Locked. */
static void set_phase(mproc_pool *p, struct mpr_thread *self, uint32_t to)
{
    if (atomic_load(&p->phase) < to) {
        atomic_store(&p->phase, to);
    }
    mpr_pool_close_if_done(p, self);
    mpr_pool_call_keeper(p);
    mpr_bell_ring(&p->to_collector, INT_MAX);
    mpr_bell_ring(&p->room, INT_MAX);
}

/* A pool that a callback has freed may end at any time, but not meanwhile. */
static int end_phase(mproc_pool *p, uint32_t to)
{
    struct mpr_thread *self;
    uint64_t tag = mpr_object_tag(p, MPR_POOL);
    int err = mpr_pool_check(p, &self);
    if (err < 0) {
        return err;
    }
    mpr_pool_lock();
    if (mpr_object_unchanged(p, tag)) {
        set_phase(p, self, to);
    } else {
        err = MPROC_EINVAL;
    }
    mpr_pool_unlock();
    return err;
}

int mproc_pool_close(mproc_pool *p)
{
    return end_phase(p, MPR_POOL_CLOSED);
}

int mproc_pool_terminate(mproc_pool *p)
{
    return end_phase(p, MPR_POOL_TERMINATED);
}

struct join {
    mproc_pool *pool;
    uint64_t tag; /* another: a callback has freed the pool, which had ended */
};

static int attempt_join(void *user)
{
    const struct join *join = user;
    bool ended = atomic_load(&join->pool->ended) != 0 ||
                 !mpr_object_unchanged(join->pool, join->tag);
    return ended ? 0 : MPROC_ETIMEDOUT;
}

int mproc_pool_join(mproc_pool *p, mproc_deadline until)
{
    struct mpr_thread *self;
    struct join join = {p, mpr_object_tag(p, MPR_POOL)};
    int err = mpr_pool_check(p, &self);
    if (err < 0) {
        return err;
    }
    if (mpr_pool_in_callback(p)) {
        return MPROC_EDEADLK; /* also before a close: it could never end */
    }
    if (atomic_load(&p->phase) == MPR_POOL_OPEN) {
        return MPROC_EINVAL;
    }
    if (mpr_iteration_blocks_join(p, self)) {
        return MPROC_EDEADLK;
    }
    struct mpr_pool_wait wait = {.pool = p,
                                 .tag = join.tag,
                                 .self = self,
                                 .attempt = attempt_join,
                                 .user = &join,
                                 .busy = MPROC_ETIMEDOUT,
                                 .calls = true,
                                 .manual = mpr_pool_is_manual(p)};
    uintptr_t outer = mpr_op_begin(self, p);
    err = mpr_pool_wait(&wait, &p->to_maker, until);
    mpr_op_end(self, outer);
    return err;
}

void mpr_pool_is_over(mproc_pool *pool, struct mpr_thread *self)
{
    struct mpr_pool_private *mine = pool->mine;
    bool free_it = mine->has_collector && mine->free_at_end;
    struct mpr_os_thread collector = mine->collector;
    if (pool->threads) {
        mpr_threads_join(pool);
    }
    atomic_store(&pool->ended, 1);
    mpr_pool_tell_maker(pool);
    if (mpr_pool_is_manual(pool)) {
        mpr_pool_show(pool);
    }
    if (free_it) {
        mpr_os_thread_detach(&collector);
        mpr_pool_end(pool, self);
    }
}

/* There was no collector to wait for it and for its workers. */
static void end_nursery(mproc_pool *pool)
{
    struct mpr_pool_private *mine = pool->mine;
    int code;
    mpr_os_child_signal(mine->nursery_pid, -1, SIGKILL);
    while (mpr_os_child_reap(mine->nursery_pid, -1, &code) == MPROC_EAGAIN) {
        mpr_os_child_wait(-1, MPROC_FOREVER);
    }
    mine->nursery_pid = 0;
    atomic_store(&pool->nursery, 0);
    while (!mpr_pool_workers_gone(pool)) {
        mpr_pool_end_orphans(pool);
        mpr_os_child_wait(-1, MPROC_FOREVER);
    }
}

void mpr_pool_stop(mproc_pool *pool, struct mpr_thread *self)
{
    struct mpr_pool_private *mine = pool->mine;
    mproc_pool_terminate(pool);
    if (mine->has_collector) {
        mpr_os_thread_join(&mine->collector);
    }
    if (mpr_pool_is_manual(pool)) {
        mine->silent = true;
        mpr_pool_await_end(pool, self);
    }
    if (mine->nursery_pid > 0) {
        end_nursery(pool);
    }
}

/* In its own callback nobody can be waited for: the collector frees it. */
void mproc_pool_free(mproc_pool *p)
{
    struct mpr_thread *self;
    if (mpr_pool_check(p, &self) < 0) {
        return;
    }
    if (mpr_pool_in_callback(p)) {
        p->mine->silent = true;
        p->mine->free_at_end = true;
        mproc_pool_terminate(p);
        return;
    }
    mpr_pool_stop(p, self);
    mpr_pool_end(p, self);
}
