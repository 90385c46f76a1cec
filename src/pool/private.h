/* SPDX-License-Identifier: MIT */
/* What only the process that made a pool has of it. */
#ifndef MPR_POOL_PRIVATE_H
#define MPR_POOL_PRIVATE_H

#include "pool/pool.h"

/* A batch under way, part of its result. Its arrays are the caller's. */
struct mpr_batch_state {
    size_t left; /* chunks that have not ended, under mpr_pool_lock */
    size_t count;
    char *out;
    size_t out_size;
    int *status;
    size_t bad; /* index of the first bad item; count: none */
    size_t chunks;
    struct mpr_entry chunk[];
};

/*
 * A handle, so it lies in the shared region, but all of it is the maker's.
 * `users`: the holder of the handle, and the pool while the task has not ended
 * or its callback runs; under mpr_pool_lock. `ended` is set once, when all else
 * is filled in; `bell` tells of it.
 */
struct mproc_result {
    struct mpr_object object;
    mpr_id maker;
    const mproc_pool *pool; /* may be gone once it has ended */
    uint32_t users;
    _Atomic uint32_t freed;
    _Atomic uint32_t ended;
    _Atomic uint32_t bell;
    struct mpr_entry entry; /* of a single task */
    struct mpr_batch_state *batch;
    mproc_outcome outcome;
    void *reply; /* blocks that the outcome points to, or NULL */
    char *error;
    alignas(16) char inline_reply[MPR_TASK_REPLY];
};

/*
 * `pending`: tasks accepted and not yet collected. `free_tasks`: records to be
 * used again. Under mpr_pool_lock.
 */
struct mpr_pool_private {
    mproc_pool *pool;
    struct mpr_pool_private *next; /* of this process's pools */
    pthread_t collector;
    bool has_collector;
    bool free_at_end;                 /* freed by its own callback */
    _Atomic bool silent;              /* the process ends: no more callbacks */
    bool closed;                      /* the workers were told to go */
    void *initializer_arg;            /* a copy */
    sigset_t mask;                    /* of who made the pool: the workers' */
    pid_t nursery_pid;                /* 0: reaped. Under mpr_pool_lock */
    _Atomic int32_t collector_report; /* 1: it runs; or why it cannot */
    size_t pending;
    struct mpr_task *free_tasks;
};

/* In nanoseconds; too many are INT64_MAX. */
int64_t mpr_pool_duration(double seconds);

/* As mpr_task.limit_ns. */
static inline int64_t mpr_pool_limit(double timeout_s)
{
    int64_t ns = timeout_s > 0 ? mpr_pool_duration(timeout_s) : 0;
    return ns == INT64_MAX ? 0 : ns + (timeout_s > 0 && ns == 0);
}

/* Of this process: results and pools' private parts. Short. */
void mpr_pool_lock(void);
void mpr_pool_unlock(void);

/*
 * A pool without processes, and the end of it. `opts` as they were read.
 * ENOMEM.
 */
int mpr_pool_begin(mproc_pool **out, struct mpr_thread *self,
                   const mproc_pool_opts *opts);
void mpr_pool_end(mproc_pool *pool, struct mpr_thread *self);

/* The pool whose callback this thread runs, else NULL. */
extern _Thread_local const mproc_pool *mpr_pool_in_callback;

/* 0, EINVAL, EPERM: may this process use the pool? Claims the thread. */
int mpr_pool_check(const mproc_pool *pool, struct mpr_thread **self);

/* A record, FREE, counted as pending. ESHUTDOWN, EBROKEN, ENOMEM. */
int mpr_pool_take_task(mproc_pool *pool, struct mpr_thread *self,
                       struct mpr_entry *entry);

/* Give a record back, with all blocks it owns; no longer pending. */
void mpr_pool_drop_task(mproc_pool *pool, struct mpr_thread *self,
                        const struct mpr_entry *entry);

/*
 * FREE→QUEUED and into the log. On failure the record is dropped, else the task
 * ends once.
 */
int mpr_pool_submit(mproc_pool *pool, struct mpr_thread *self,
                    const struct mpr_entry *entry);

/*
 * Cancel one task, wherever it is: it ends with MPROC_ECANCELED. False: it has
 * ended, or will, otherwise.
 */
bool mpr_pool_cancel(mproc_pool *pool, struct mpr_thread *self,
                     const struct mpr_entry *entry);

/* 0, ESHUTDOWN, EBROKEN. */
int mpr_pool_may_submit(const mproc_pool *pool);

/* Calls fn for every record, FREE or not. */
void mpr_pool_each_task(mproc_pool *pool,
                        void (*fn)(const struct mpr_entry *entry, void *user),
                        void *user);

/* The pool has no task left and is closed: let the workers go. */
void mpr_pool_close_if_done(mproc_pool *pool, struct mpr_thread *self);

/* A result of `pool` with one user more than the caller. ENOMEM. */
int mpr_result_new(mproc_pool *pool, struct mpr_thread *self,
                   struct mproc_result **out);

/* One user less; the last one ends it. */
void mpr_result_release(struct mpr_thread *self, struct mproc_result *result);

/* It has ended: the outcome is filled in. Wakes those who wait. */
void mpr_result_set_ended(struct mproc_result *result);

int mpr_result_await(struct mproc_result *result, mproc_deadline until);

/*
 * A chunk has ended: its outcome goes to the arrays of its batch. True when it
 * was the last one.
 */
bool mpr_batch_collect(struct mpr_thread *self, struct mproc_result *result,
                       struct mpr_task *task, const mproc_outcome *outcome);

/*
 * Cancel what has not ended, of one task or of a batch: false if nothing is
 * cancelled by it. Its pool may be gone if it all has ended.
 */
bool mpr_result_cancel(struct mproc_result *result, struct mpr_thread *self);

/*
 * Cancel a batch; returns once its arrays are no longer touched. In a callback,
 * which cannot wait, only those in the shared heap still are, by the workers
 * that run an item.
 */
void mpr_batch_abandon(struct mproc_result *result, struct mpr_thread *self);

/* A new table of workers for the pool's next nursery. ENOMEM. */
int mpr_pool_new_table(mproc_pool *pool, struct mpr_thread *self);

/*
 * True once no worker of the last nursery can do anything: that is dead, and
 * `nursery` is 0.
 */
bool mpr_pool_workers_gone(const mproc_pool *pool);

/* An entry of `done`: if its task has ended, that is told and dropped. */
void mpr_collector_collect(mproc_pool *pool, struct mpr_thread *self,
                           const struct mpr_entry *entry);

/* The last act of the collector. */
void mpr_pool_is_over(mproc_pool *pool, struct mpr_thread *self);

#endif
