/* SPDX-License-Identifier: MIT */
/* What only the process that made a pool has of it. */
#ifndef MPR_POOL_PRIVATE_H
#define MPR_POOL_PRIVATE_H

#include "pool/pool.h"

/*
 * A chunk under way. Of an iteration: it is kept when it has ended, with its
 * task, until its items were handed out; `newer` is then the next of these.
 */
struct mpr_part {
    struct mpr_part *older, *newer;
    struct mpr_entry entry;
    size_t first, items;
};

/* Items that do not lie in an array, side by side as a chunk has them. */
struct mpr_staged {
    char *bytes;
    size_t size, room;
    struct {
        size_t at, size;
    } * items;
    size_t count, items_room;
};

/*
 * A batch under way, part of its result. The arrays are the caller's.
 * `open`: items are still to come, and the pool has it in its list; it has
 * ended when it is neither open nor has parts in flight. `feeding`: the thread
 * that made it sends the first ones; later ones are the collector's to send.
 * `stop`: why the rest is not to be sent, if there is one; MPROC_ECANCELED also
 * when something that was sent was cancelled. `untold`: that rest is told, with
 * `sent`, by who runs callbacks of a manual pool. `forgotten`: its callback has
 * freed it, and nothing of the caller's is to be touched any more.
 * `bad`: the first bad item so far, else count. `item_ns`, `largest`: how long
 * an item ran lately, and the largest chunk of which that is known.
 * `is`, `count`, `tells_items`, `spare` do not change. `sent` is changed by who
 * sends, under mpr_pool_lock until `stop` says that there is nothing more to
 * send; `bad` belongs to who collects; the rest is under that lock.
 */
struct mpr_batch_state {
    mproc_batch is;
    size_t count;
    bool tells_items;
    bool forgotten;
    bool open;
    bool feeding;
    bool untold;
    int stop;
    size_t sent;
    size_t bad;
    char *spare; /* room for one reply and its NUL */
    char *text;  /* of the first bad item */
    struct mpr_part *newest;
    size_t parts;
    size_t ahead; /* items in flight */
    double item_ns;
    size_t largest;
    unsigned round;
    struct mproc_result *next_open;
    struct mpr_iteration *iter; /* of imap, else NULL */
};

/*
 * The iterating side of a batch. `ended`: chunks to be handed out, by their
 * place if `ordered`, else as they ended. `short_of`: the pool had no room
 * for more, and has not said otherwise since. `thread`: the serial of
 * who has asked last. These are under mpr_pool_lock; the rest is that
 * thread's. `now`, `at`: what was handed out last.
 */
struct mpr_iteration {
    bool ordered;
    bool short_of;
    uint64_t thread;
    struct mpr_part *ended, *ended_last;
    struct mpr_part *now;
    size_t at;
    size_t given; /* items handed out */
    int over;     /* why there is nothing more to send, 0: there may be */
    char *spare;  /* as that of the batch */
    struct mpr_staged staged;
    mproc_outcome outcome;
    char text[MPR_LOSS_TEXT];
};

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

/* Of that, the iterations. */
void mpr_iter_end_dead(struct mpr_thread *self);

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

/* ---- batches ---------------------------------------------------------- */

/*
 * A chunk of `count` items from item `first` on, in the hand MPR_HAND_BLOCK.
 * NULL: no memory.
 */
struct mpr_chunk *mpr_chunk_new(struct mpr_thread *self,
                                const struct mpr_batch_state *batch,
                                size_t first, size_t count);

/* The same block for others, not more, which do not come from `next`. */
void mpr_chunk_again(struct mpr_chunk *chunk,
                     const struct mpr_batch_state *batch, size_t first,
                     size_t count);

/*
 * Items that never ended have the status of the task that carried them. Returns
 * the first bad item, or their count.
 */
size_t mpr_chunk_end(struct mpr_chunk *chunk, int status);

/* Copy one more item there. ENOMEM. */
int mpr_staged_add(struct mpr_staged *staged, const void *item, size_t size);

/* How item i ended; a text may be made in `text`. */
mproc_outcome mpr_chunk_outcome(struct mpr_chunk *chunk, const char *replies,
                                size_t i, char text[MPR_LOSS_TEXT]);

/* To the caller's arrays, where it has not been written there. */
void mpr_chunk_copy_out(const struct mpr_chunk *chunk, const mproc_batch *to);

/* A chunk has ended; its record is given back, kept, or sent again. */
void mpr_batch_collect(mproc_pool *pool, struct mpr_thread *self,
                       const struct mpr_entry *entry, int status);

/*
 * Locked. The next items of the batch are to go with what an ended chunk had:
 * mpr_batch_send_again. False: not so. `more`: mpr_batch_feed finds more to do.
 */
bool mpr_batch_again(mproc_pool *pool, struct mpr_batch_state *batch,
                     const struct mpr_entry *entry, bool *more);

/* Collector: it is sent by the next mpr_batch_send_all. */
void mpr_batch_send_again(mproc_pool *pool, struct mpr_thread *self,
                          struct mpr_task *task);
void mpr_batch_send_all(mproc_pool *pool, struct mpr_thread *self);

/* Locked. How many items of it are to be sent next; 0: none now. */
size_t mpr_batch_next_count(const mproc_pool *pool,
                            const struct mpr_batch_state *batch);

/*
 * Locked. The part is under way, and its task QUEUED: who cancels the batch
 * finds it, or it is cancelled here.
 */
void mpr_batch_queue(mproc_pool *pool, struct mpr_batch_state *batch,
                     struct mpr_part *part);

/*
 * Locked. It could not be sent: neither is so any more. False: it ends all the
 * same, cancelled or without a worker.
 */
bool mpr_batch_unqueue(const struct mpr_entry *entry);

/* Send what there is room for, of one batch or of all that are open. */
void mpr_batch_feed(mproc_pool *pool, struct mpr_thread *self,
                    struct mproc_result *result);
void mpr_batch_feed_all(mproc_pool *pool, struct mpr_thread *self);

/* Locked. Why the rest of a batch is not to be sent; 0: it may be. */
int mpr_batch_stop(const mproc_pool *pool, const struct mpr_batch_state *batch);

/* Manual: end the rests that were left to who runs callbacks. How many items */
size_t mpr_batch_tell_untold(mproc_pool *pool, struct mpr_thread *self);

/*
 * Cancel what has not ended, of one task or of a batch: false if nothing is
 * cancelled by it. Its pool may be gone if it all has ended.
 */
bool mpr_result_cancel(struct mproc_result *result);

/*
 * Cancel a batch; returns once nothing of the caller's is touched any more,
 * also in a callback.
 */
void mpr_batch_abandon(struct mproc_result *result);

/* As many as the family has room for processes, or threads. */
size_t mpr_pool_most_workers(bool threads);
void mpr_batch_free(struct mpr_batch_state *batch);

/* An item ended badly: if it is the first one so far, the result says so. */
void mpr_batch_note_bad(struct mproc_result *result, const mproc_outcome *bad);

/* on_item, with a reply that lies as replies do. */
void mpr_batch_tell(const mproc_pool *pool, struct mpr_batch_state *batch,
                    mproc_outcome *outcome);

/* Nothing of it is under way or to come: the pool knows it no more. */
void mpr_batch_end(struct mpr_thread *self, struct mproc_result *result);

/* It is accepted, and open if it has items. ESHUTDOWN, EBROKEN. */
int mpr_batch_open(mproc_pool *pool, struct mproc_result *result);

/*
 * The first ones. Whatever hinders the others is the collector's matter; what
 * hinders the very first is refused. ENOMEM.
 */
int mpr_batch_begin(mproc_pool *pool, struct mpr_thread *self,
                    struct mproc_result *result);

/*
 * As many items as run for `ns`, if that is known, but no more than `share`;
 * one while it is not. Locked.
 */
size_t mpr_batch_chunk(const struct mpr_batch_state *batch, size_t share,
                       double ns);

/* Send the next `count` items. What mpr_pool_take_more is refused for. */
int mpr_batch_send(struct mpr_thread *self, struct mproc_result *result,
                   size_t count);

/*
 * Nothing more is to be sent of it: its pool forgets it, and it ends with what
 * is in flight. Nothing when it is not open.
 */
void mpr_batch_close(struct mpr_thread *self, struct mproc_result *result);

/*
 * Whether joining the pool would wait for what this thread alone is to go on
 * with: an iteration of its own. Takes the lock.
 */
bool mpr_iter_blocks_join(mproc_pool *pool, const struct mpr_thread *self);

/* Locked. A chunk of an iteration has ended. */
void mpr_iter_keep(struct mproc_result *result, struct mpr_part *part);

/* The pool has room again, or never will: who iterates looks. */
void mpr_iter_look(mproc_pool *pool, struct mpr_thread *self,
                   struct mproc_result *result);

/* What is kept has been freed. */
void mpr_iteration_free(struct mpr_iteration *iter);

/* map with next: in the calling thread. */
int mpr_iter_map(mproc_pool *pool, struct mpr_thread *self,
                 const mproc_batch *b, mproc_deadline until);

/* Room for one reply and its NUL, aligned for any type; NULL: no memory. */
char *mpr_batch_spare(const mproc_batch *b);

/* A batch as the user gave it. EINVAL, ENOTSUP. */
int mpr_batch_read(mproc_batch *b, const mproc_batch *theirs, size_t size);

/*
 * A batch that nobody else knows of yet, its arrays as in `b`; and the end of
 * it, if it was never open. ENOMEM.
 */
int mpr_batch_new(mproc_pool *pool, struct mpr_thread *self,
                  const mproc_batch *b, struct mproc_result **out);
void mpr_batch_drop(struct mpr_thread *self, struct mproc_result *result);

/* A part is no longer in flight. Locked. */
void mpr_batch_unlink(struct mpr_batch_state *batch, struct mpr_part *part);

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
