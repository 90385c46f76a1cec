/* SPDX-License-Identifier: MIT */
/* What only the process that made a pool has of it. */
#ifndef MPR_POOL_PRIVATE_H
#define MPR_POOL_PRIVATE_H

#include "pool/batch.h"
#include "pool/pool.h"

/*
 * A handle, so it lies in the shared region, but all of it is the maker's. Who
 * reaps asks for `maker`, perhaps while the memory becomes another's.
 * `users`: the holder of the handle, and the pool while the task has not ended
 * or its callback runs. `ended` is set once, when all else is filled in; `bell`
 * tells of it.
 */
struct mproc_result {
    struct mpr_object object;
    _Atomic mpr_id maker;
    const mproc_pool *pool; /* may be gone once it has ended */
    uint64_t pool_tag;
    bool manual;
    _Atomic uint32_t users;
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

enum { MPR_SENDINGS = 32 };

/*
 * `free_tasks`: records to be used again, to which those `given_back` come once
 * there are no others. `accepted`: tasks, and items of chunks, there ever were.
 * `collected`: those of them that are gone; the others are pending. `done`,
 * `failed` and `lost`: how those of them ended that have. `heard`: of the
 * pool's `told`, what the collector has taken, the first one first. `sending`:
 * chunks that it is about to send, QUEUED. `open`, `round`: for pool/batch.c.
 * Under mpr_pool_lock, but for what only grows, and what is the collector's.
 */
struct mpr_pool_private {
    mproc_pool *pool;
    struct mpr_pool_private *next; /* of this process's pools */
    struct mpr_os_thread collector;
    bool has_collector;
    bool free_at_end;                 /* freed by its own callback */
    _Atomic bool silent;              /* no more callbacks */
    bool closed;                      /* the workers were told to go */
    void *initializer_arg;            /* a copy */
    sigset_t mask;                    /* of who made the pool: the workers' */
    pid_t nursery_pid;                /* 0: reaped. Under mpr_pool_lock */
    _Atomic int32_t collector_report; /* 1: it runs; or why it cannot */
    struct mproc_result *open;        /* batches that have items to come */
    _Atomic bool attend;              /* one of them wants the collector */
    unsigned round;
    _Atomic bool unserved;    /* no nursery, and none will be */
    struct mpr_keeper keeper; /* of threads */
    _Atomic int64_t keep_at;  /* when it looks next */
    size_t held;              /* under mpr_pool_lock: see mpr_pool_let_go */
    _Atomic bool leaving;     /* it is about to end: to be looked at soon */

    /* for manual dispatch */
    bool attended;            /* a thread does the collector's work */
    bool refused;             /* and another wanted to */
    bool calling;             /* a thread runs callbacks */
    struct mpr_task *put_off; /* those to come, up to put_off_last */
    struct mpr_task *put_off_last;
    size_t put_off_items;
    size_t untold;  /* batches of which the rest is */
    int watch;      /* a descriptor, readable with the flag or that */
    int nursery_fd; /* of the nursery, -1: none */
    int timer;      /* of threads: when the keeper looks next */

    /* each task's: who submits has one line, who collects the other */
    alignas(MPR_LINE) struct mpr_task *free_tasks;
    _Atomic size_t accepted;
    alignas(MPR_LINE) _Atomic size_t collected;
    _Atomic size_t done, failed, lost;
    struct mpr_task *_Atomic given_back;
    struct mpr_task *_Atomic heard;
    struct mpr_entry sending[MPR_SENDINGS];
    size_t sendings;
};

/* Tasks and items of which the collector is not done. */
static inline size_t mpr_pool_pending(const struct mpr_pool_private *mine)
{
    size_t collected = atomic_load(&mine->collected);
    return atomic_load(&mine->accepted) - collected;
}

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
/* Later, while it is held. */
void mpr_pool_end(mproc_pool *pool, struct mpr_thread *self);

/*
 * Ends everything that runs for the pool; not in its callback. Callbacks that
 * were not dispatched are not run any more.
 */
void mpr_pool_stop(mproc_pool *pool, struct mpr_thread *self);

/*
 * An abandoned thread has come back, or an iterator has handed out a part that
 * it kept: the last to let go ends the pool, if that has been freed.
 */
void mpr_pool_let_go(mproc_pool *pool, struct mpr_thread *self);

/* Of a reply without bytes: its NUL, where any type may lie. */
extern const char mpr_no_reply[];

/* Does this thread run a callback of the pool, perhaps with others inside? */
bool mpr_pool_in_callback(const mproc_pool *pool);

/* After a fork: what this thread runs are callbacks of the parent's. */
void mpr_pool_forget_callbacks(void);

/* 0, EINVAL, EPERM: may this process use the pool? Claims the thread. */
int mpr_pool_check(const mproc_pool *pool, struct mpr_thread **self);

/*
 * A record, FREE, counted as pending. EFULL, but not in a callback; ESHUTDOWN,
 * EBROKEN, ENOMEM; EINVAL: the pool is not the one with that tag any more.
 */
int mpr_pool_take_task(mproc_pool *pool, uint64_t tag, struct mpr_thread *self,
                       struct mpr_entry *entry);

/*
 * The same for the items of a part of an open batch, also of a closed pool,
 * which may be gone once the batch is not open. EFULL, ECANCELED, EBROKEN,
 * ENOMEM.
 */
int mpr_pool_take_more(struct mproc_result *result, struct mpr_thread *self,
                       struct mpr_part *part);

/* A record that is not counted, locked; and back. ENOMEM. */
int mpr_pool_take_record(mproc_pool *pool, struct mpr_thread *self,
                         struct mpr_entry *entry);
void mpr_pool_give_back(mproc_pool *pool, struct mpr_thread *self,
                        const struct mpr_entry *entry);

/* Locked. So many more tasks may be accepted. */
size_t mpr_pool_room(const mproc_pool *pool);

/* Locked. So many more tasks or items are accepted, or fewer. */
void mpr_pool_accept(mproc_pool *pool, size_t items);

/* So many more tasks or items have ended so. */
void mpr_pool_count(mproc_pool *pool, int status, size_t items);

/* The same for items of a batch that were never accepted. */
void mpr_pool_count_unsent(mproc_pool *pool, int status, size_t items);

/* Reaper: free what all records name (mpr_task_free_all). */
void mpr_pool_free_tasks(mproc_pool *pool, struct mpr_thread *self,
                         struct mpr_thread *whose);

/* Reaper: end what belongs to the dead, and is used by nobody. */
void mpr_orphans_end(struct mpr_thread *self, mpr_id dead);

/* Give the record of one task back, which is no longer pending. */
void mpr_pool_drop_task(mproc_pool *pool, struct mpr_thread *self,
                        const struct mpr_entry *entry);

/*
 * By the collector, beside which the pool cannot end: so many are no longer
 * pending, whose record is given back, or kept.
 */
void mpr_collector_end_items(mproc_pool *pool, struct mpr_thread *self,
                             size_t items);

/* As mpr_pool_drop_task, for one that was not accepted after all. */
void mpr_pool_refuse_task(mproc_pool *pool, struct mpr_thread *self,
                          const struct mpr_entry *entry);

/*
 * FREE→QUEUED and into the log. On failure the record is dropped, else the task
 * ends once.
 */
static inline void mpr_task_set_queued(const struct mpr_entry *entry)
{
    atomic_store_explicit(&entry->task->word,
                          mpr_task_word_by(entry, 0, MPR_TASK_QUEUED),
                          memory_order_release);
}
int mpr_pool_send(mproc_pool *pool, struct mpr_thread *self,
                  const struct mpr_entry *entry);

/*
 * Locked. Cancel one task, wherever it is: it ends with MPROC_ECANCELED. False:
 * it has ended, or will, otherwise.
 */
bool mpr_pool_cancel(mproc_pool *pool, const struct mpr_entry *entry);

/* 0, ESHUTDOWN, EBROKEN. */
int mpr_pool_may_submit(const mproc_pool *pool);

/* Calls fn for every record, FREE or not. */
void mpr_pool_each_task(mproc_pool *pool,
                        void (*fn)(const struct mpr_entry *entry, void *user),
                        void *user);

/* The pool has no task left and is closed: let the workers go. Locked. */
void mpr_pool_close_if_done(mproc_pool *pool, struct mpr_thread *self);

/* No task is left, and none is to come. Locked. */
bool mpr_pool_is_done(const mproc_pool *pool);

/* Run a callback, unless the process ends. */
void mpr_pool_call_back(const mproc_pool *pool, mproc_done_fn *fn,
                        const mproc_outcome *outcome, void *user);

/* A result of `pool` with one user more than the caller. ENOMEM. */
int mpr_result_new(mproc_pool *pool, struct mpr_thread *self,
                   struct mproc_result **out);

/* One user less; the last one ends it. */
void mpr_result_release(struct mpr_thread *self, struct mproc_result *result);

/* It has ended: the outcome is filled in. Wakes those who wait. */
void mpr_result_set_ended(struct mproc_result *result);

/* With manual dispatch callbacks run meanwhile if `calls`. */
int mpr_result_await(struct mproc_result *result, mproc_deadline until,
                     bool calls);

/*
 * Cancel what has not ended, of one task or of a batch: false if nothing is
 * cancelled by it. Its pool may be gone if it all has ended.
 */
bool mpr_result_cancel(struct mproc_result *result);

/* As mproc_result_wait, or as mpr_result_await with `calls`. */
int mpr_result_wait(mproc_result *r, mproc_deadline until, bool calls);

/* ---- waiting in the maker --------------------------------------------- */

/*
 * As mpr_sleep_until, for a pool that may be `manual`: then the collector's
 * work is done here, and callbacks run here if `calls`.
 */
struct mpr_pool_wait {
    mproc_pool *pool;
    uint64_t tag; /* another: it is gone */
    struct mpr_thread *self;
    mpr_attempt_fn *attempt;
    void *user;
    int busy;
    bool calls;
    bool manual;
    mproc_deadline look; /* when it wakes to look; not the caller's */
};

int mpr_pool_wait(struct mpr_pool_wait *w, _Atomic uint32_t *bell,
                  mproc_deadline until);

/* Manual: an attempt; EAGAIN where another is to come soon. */
int mpr_pool_look(struct mpr_pool_wait *w);

/*
 * Manual: when it has been terminated, wait until it is over and no other
 * thread is at it; it must be ended then.
 */
void mpr_pool_await_end(mproc_pool *pool, struct mpr_thread *self);

/* Manual, by who does the collector's work: lower the flag, if it is to be. */
void mpr_pool_hide(mproc_pool *pool);

/* Locked: let the descriptor tell of the nursery's end, or no more. */
int mpr_pool_watch_nursery(mproc_pool *pool);
void mpr_pool_forget_nursery(mproc_pool *pool);

/*
 * Do a step of the collector's work. False: there is nothing to do, before the
 * deadline that the other tells.
 */
bool mpr_collector_step(mproc_pool *pool, struct mpr_thread *self);
mproc_deadline mpr_collector_next_look(const mproc_pool *pool);

/*
 * Run the first callback that is put off, of which there must be one. Returns
 * how often it was called: for each item of a chunk.
 */
size_t mpr_pool_call_one(mproc_pool *pool, struct mpr_thread *self,
                         const struct mpr_task **called);

/* ---- workers ---------------------------------------------------------- */

/* As many as the family has room for processes, or threads. */
size_t mpr_pool_most_workers(bool threads);

/* At least so many rows in the pool's table. ENOMEM. */
int mpr_pool_make_rows(mproc_pool *pool, struct mpr_thread *self,
                       uint32_t count);

/* A new table of workers for the pool's next nursery. ENOMEM. */
int mpr_pool_new_table(mproc_pool *pool, struct mpr_thread *self);

/*
 * True once no worker of the last nursery can do anything: that is dead, and
 * `nursery` is 0.
 */
bool mpr_pool_workers_gone(const mproc_pool *pool);

/*
 * The kernel ends workers with their nursery, but for those that have changed
 * their user since: whom it spared.
 */
void mpr_pool_end_orphans(const mproc_pool *pool);

/* ---- what has ended --------------------------------------------------- */

/* One of what has been told, or may not have been. False: there is none. */
bool mpr_collector_take_in(mproc_pool *pool, struct mpr_thread *self);

/* A task that has ended, and is nobody else's: tell that, and drop it. */
void mpr_collector_collect(mproc_pool *pool, struct mpr_thread *self,
                           struct mpr_task *task);

/* Who awaits a task does so: its outcome, until it is dropped. */
mproc_outcome mpr_pool_take_in(mproc_pool *pool, const struct mpr_entry *entry);

/* The reply of a task that ended well, by the rules of mproc_queue_get. */
int mpr_outcome_hand_out(const mproc_outcome *outcome, void *buf,
                         size_t capacity, size_t *size);

/* The last act of the collector. */
void mpr_pool_is_over(mproc_pool *pool, struct mpr_thread *self);

#endif
