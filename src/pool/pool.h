/* SPDX-License-Identifier: MIT */
/*
 * What a pool is made of, for the files of this layer.
 *
 * Three kinds of processes. The maker submits; its collector thread takes what
 * has ended, fills results and runs callbacks. The nursery, a single-threaded
 * child of the maker, forks the workers, waits for them by pid, says how the
 * task of a dead one ended, and replaces it. Workers take tasks and answer.
 *
 * A task has one word of ownership; all of death, cancel and success are
 * compare-and-swaps on it, so each task ends exactly once. What travels through
 * the logs `todo` and `doubts` names a task with a serial: an entry that is
 * there twice, or came too late, is told by it and skipped, so whoever is in
 * doubt whether an entry was written writes it again.
 *
 * Who ended a task tells so exactly once. One that somebody awaits (apply) has
 * a bell of its own, and who waits takes it in. All others go into the list
 * `told`, which the collector takes as a whole. Whether a worker that died had
 * told is not known: the nursery writes its last task into `doubts`. The
 * collector empties the list first; what has ended then and is not in it, the
 * dead did not tell.
 */
#ifndef MPR_POOL_POOL_H
#define MPR_POOL_POOL_H

#include "chan/log.h"
#include "pool/task.h"
#include "shm/object.h"

/* ---- workers ---------------------------------------------------------- */

enum mpr_worker_state {
    MPR_WORKER_NONE, /* never yet */
    MPR_WORKER_STARTING,
    MPR_WORKER_READY,
    MPR_WORKER_UNFIT,  /* it leaves before its first task: `unfit` */
    MPR_WORKER_RETIRED /* it leaves by itself, without a task */
};

/*
 * `pid` and the way to STARTING are the nursery's, the rest the worker's, which
 * stores its pid as well: its nursery may die before it does. `state` is that
 * of the last one in this row, and means nothing where `pid` is 0.
 * `current` is what it took last, written before the log lets it go and never
 * cleared: its serial tells whether it matters still. `id` is that of its
 * nursery with the lowest bit set (mpr_is_birth) until the worker has put its
 * own there, by compare-and-swap: who finds all others dead puts 0 there, and
 * refuses it. `id` is there before it looks whether its nursery is still the
 * pool's. `index` names the
 * worker in the words of tasks, and is set once.
 * `limit` is when the task or item that runs is over its time, 0 while none
 * runs that has a limit. Worker: 0→time→0; nursery: time→MPR_OVERTIME. By
 * compare-and-swap where both may, which decides whether it ended in time. A
 * worker that lost answers nothing any more.
 * `end_at` is when the nursery ends the worker, 0: not yet; the nursery's own.
 * `leave` is the nursery's: one worker less is wanted, after its task.
 * `bond` is between a thread and its pool: HOLDS→LEFT by the thread, as its
 * last act, HOLDS→ABANDONED by the pool, by compare-and-swap; one that is
 * abandoned frees the row.
 * `ready_since`, `idle_since` (0: it does something) and `idle_ns` are times of
 * the worker, who reads a clock only when it has nothing to do.
 * `thread` is the last one in this row, the keeper's to join or detach while it
 * is `joinable`.
 */
struct mpr_worker {
    alignas(MPR_LINE) _Atomic uint32_t state;
    _Atomic pid_t pid;
    _Atomic mpr_id id;
    struct mpr_entry current;
    uint32_t index;
    int unfit;
    _Atomic int64_t limit;
    int64_t end_at;
    _Atomic uint32_t leave;
    _Atomic uint32_t bond;
    alignas(MPR_LINE) _Atomic int64_t ready_since;
    _Atomic int64_t idle_since;
    _Atomic int64_t idle_ns;
    struct mpr_os_thread thread;
    bool joinable;
};

enum { MPR_OVERTIME = -1 };

/* Of one that is to come, and has no id yet. */
static inline bool mpr_is_birth(mpr_id id)
{
    return id & 1;
}

enum mpr_bond { MPR_BOND_HOLDS, MPR_BOND_LEFT, MPR_BOND_ABANDONED };

/* 0 when there is none, or a thread that is none any more. */
static inline pid_t mpr_worker_pid(const struct mpr_worker *worker)
{
    struct mpr_worker *w = (struct mpr_worker *)worker;
    pid_t pid = atomic_load(&w->pid);
    return atomic_load(&w->bond) == MPR_BOND_ABANDONED ? 0 : pid;
}

/*
 * The workers of one nursery; a new nursery has a new table. `more` has further
 * rows, stored once, by the maker.
 */
struct mpr_table {
    struct mpr_table *older;
    struct mpr_table *_Atomic more;
    uint32_t count;
    struct mpr_worker worker[];
};

/* The row of that number, NULL: there are not so many. */
static inline struct mpr_worker *mpr_worker_at(struct mpr_table *table,
                                               uint32_t i)
{
    while (table != NULL && i >= table->count) {
        i -= table->count;
        table = atomic_load(&table->more);
    }
    return table != NULL ? &table->worker[i] : NULL;
}

/* ---- the pool --------------------------------------------------------- */

enum mpr_pool_phase { MPR_POOL_OPEN, MPR_POOL_CLOSED, MPR_POOL_TERMINATED };

struct mpr_pool_private;

/*
 * Up to `initializer_arg` set once, by the maker. `mine` is memory of the
 * maker, which alone may follow it.
 * `phase` and `broken` only grow; `phase` is the maker's, `broken` is told by
 * the nursery. `report` is what the nursery says of its start: 0 nothing yet,
 * 1 all workers are there, else the error, which ends it; `started`: a nursery
 * before has reported 1, so no later one ends it. `nursery` is its id, 0 when
 * there is none; before it comes, its maker's with the lowest bit set, which it
 * replaces as a worker does in its row; `idle` is set by a nursery that leaves
 * with no worker left.
 * `flag` is a descriptor of maker and nursery, -1 but for manual dispatch. It
 * is raised when there is something to do for the maker; `shown` is odd once it
 * is, goes up to the next even number before it is lowered, and is odd while
 * nobody looks at the flag. The nursery raises it, woken by workers that find
 * `shown` even.
 * `ended` is the collector's last word: no task, no worker, no callback is
 * left.
 * `wanted` is {number of the request:32 | workers:32}, the maker's; `resized`
 * is {request:32 | minus the error:32}, what the nursery says of the last one.
 * `told` are tasks that have ended, the last one first, linked by their `next`:
 * anybody adds one by compare-and-swap, the collector takes all by an exchange.
 * `doubts` are of the dead.
 * Tasks of priority 0 wait in `todo`, those of a lower or higher one in `ahead`
 * and `behind`, in order. `to_workers` is rung for all three, and that `todo`
 * is closed means all.
 * `lookout` is 1 + the row of a worker that has nothing to do and looks for
 * tasks without sleeping, 0: none does. It sees the first one that comes, so
 * nobody is woken for that; once it does something else it has put 0 there and
 * then looks whether there are more. Of one that is dead or stopped the nursery
 * puts 0 there and then wakes another.
 * `adopting` is the task into which, under `replies`, a block moves from the
 * hand of the thread named there: a block that the task names is the task's.
 * `to_nursery`, `to_maker`, `to_workers`, `to_collector` and `room` are bells:
 * `to_collector` for who does its work, `room` for who waits to submit.
 * `looks_at` is when the nursery looks at limits next, whether the bell rings
 * or not: who sets an earlier limit rings.
 * Locks: `replies`, and the logs' own. Publishes: each word for itself.
 * Survives: workers hold nothing but a guard for some instructions; a nursery's
 * work is taken up by the next one, from the workers' `current`. `slabs` and
 * `table` are the maker's, and are emptied under `replies` at the end.
 */
struct mproc_pool {
    struct mpr_object object;
    _Atomic mpr_id maker;
    pid_t maker_pid;
    int flag;
    bool threads; /* the workers are threads of the maker */
    struct mpr_pool_private *mine;
    size_t max_tasks;
    size_t max_rss;
    size_t retries;
    size_t max_pending; /* SIZE_MAX: no limit */
    int64_t grace_ns;
    mproc_main_fn *initializer;
    void *initializer_arg;

    _Atomic uint32_t ended;
    _Atomic uint32_t shown;
    _Atomic uint32_t gone; /* freed, but held: mpr_pool_let_go */
    _Atomic uint32_t keep; /* of threads: their keeper is called */
    _Atomic uint32_t phase;
    _Atomic uint32_t broken;
    _Atomic int32_t report;
    _Atomic uint32_t started;
    _Atomic uint32_t idle;
    struct mpr_slab *slabs;
    _Atomic mpr_id nursery;
    struct mpr_table *_Atomic table;
    _Atomic uint32_t begun; /* workers that ever became READY */
    _Atomic uint32_t respawned;
    _Atomic uint64_t wanted;
    _Atomic uint64_t resized;
    _Atomic uint32_t to_nursery;
    _Atomic uint32_t to_maker;
    _Atomic uint32_t room;
    _Atomic int64_t looks_at;

    alignas(MPR_LINE) _Atomic uint32_t lookout;
    _Atomic uint32_t to_workers;
    alignas(MPR_LINE) struct mpr_task *_Atomic told;
    alignas(MPR_LINE) _Atomic uint32_t to_collector;

    alignas(MPR_LINE) struct mpr_guard replies;
    struct mpr_task *_Atomic adopting;

    struct mpr_log todo;
    struct mpr_log doubts;
    struct mpr_log ahead;
    struct mpr_log behind;
};

/* Callbacks run only where the maker dispatches. */
static inline bool mpr_pool_is_manual(const mproc_pool *pool)
{
    return pool->flag >= 0;
}

/* How many workers there are to be. */
static inline uint32_t mpr_pool_wanted(const mproc_pool *pool)
{
    return (uint32_t)atomic_load(&((mproc_pool *)pool)->wanted);
}

/* Records of tasks, in one block. */
struct mpr_slab {
    struct mpr_slab *next;
    alignas(MPR_LINE) struct mpr_task tasks[];
};

/* ---- the parts -------------------------------------------------------- */

/* Put a task where the workers take it: ENOMEM, ESHUTDOWN. */
int mpr_pool_queue(mproc_pool *pool, struct mpr_thread *self,
                   const struct mpr_entry *entry);

/* The same for some of priority 0, in order: *done of n. */
int mpr_pool_queue_many(mproc_pool *pool, struct mpr_thread *self,
                        const struct mpr_entry *entries, size_t n,
                        size_t *done);

/* Tasks that wait to be taken. */
size_t mpr_pool_queued(const mproc_pool *pool);

/* The worker of that row looks out no more. */
void mpr_pool_end_lookout(mproc_pool *pool, uint32_t row);

/* Take the next one, into `data`. EEMPTY. */
int mpr_pool_next(mproc_pool *pool, struct mpr_thread *self,
                  struct mpr_entry *data);

/*
 * Tell of a task that the caller has ended, once. `awaited` as it was before
 * that: the record may be another's by now if it was.
 */
void mpr_pool_tell_ended(mproc_pool *pool, struct mpr_task *task,
                         enum mpr_awaited awaited);

/*
 * The same for one that a dead worker may have ended, and told of, or that was
 * ended in its place; may be repeated. ENOMEM.
 */
int mpr_pool_tell_doubt(mproc_pool *pool, struct mpr_thread *self,
                        const struct mpr_entry *entry);

/* Has anything ended that the collector has not taken? */
bool mpr_pool_has_told(const mproc_pool *pool);

/* Maker, nursery: raise the flag, which must be one. */
void mpr_pool_show(mproc_pool *pool);

/* Something that the maker may wait for has come. */
void mpr_pool_tell_maker(mproc_pool *pool);

/* Nursery, or who does its work: look at once. */
void mpr_pool_call_keeper(mproc_pool *pool);

/* The life of a worker process, of the nursery `nursery`. */
_Noreturn void mpr_worker_run(mproc_pool *pool, struct mpr_worker *worker,
                              mpr_id nursery);

/* Its work: takes tasks and answers them until it must leave. */
void mpr_worker_work(mproc_pool *pool, struct mpr_thread *self,
                     struct mpr_worker *worker);

/*
 * Worker, and the maker before and after: the block in MPR_HAND_BLOCK, or NULL,
 * is the task's reply, and what that was, if it was a block, is freed.
 */
void mpr_worker_adopt(mproc_pool *pool, struct mpr_thread *self,
                      struct mpr_task *task);

/* It begins to work. */
void mpr_worker_begin(mproc_pool *pool, struct mpr_worker *worker);

/* Collector: the reply goes from the task to its result. */
void mpr_task_hand_over(mproc_pool *pool, struct mpr_thread *self,
                        struct mpr_task *task);

/*
 * The block in MPR_HAND_BLOCK, whose address the task has already, is its
 * argument or chunk from here on, as `arg_size` says.
 */
void mpr_task_adopt_arg(mproc_pool *pool, struct mpr_thread *self,
                        struct mpr_task *task, size_t arg_size);

/*
 * Free all that a record names, which is nobody else's; may be repeated. The
 * hands of `whose` are used, which must be empty.
 */
void mpr_task_free_all(mproc_pool *pool, struct mpr_thread *self,
                       struct mpr_thread *whose, struct mpr_task *task);

/*
 * A worker is dead, by `code` (exit code, or minus the signal): say how its
 * task ended. Everything may be repeated, and must be after ENOMEM.
 */
int mpr_worker_settle(mproc_pool *pool, struct mpr_thread *self,
                      struct mpr_worker *worker, int code);

/* Who keeps the workers. */
struct mpr_keeper {
    mproc_pool *pool;
    struct mpr_thread *self;
    struct mpr_table *table;
    const sigset_t *mask;
    uint64_t wanted;        /* as the pool told it last */
    uint32_t begun;         /* as the pool told it last */
    uint32_t owed;          /* workers that ended and were not replaced */
    bool unburied;          /* a worker that was reaped has its row yet */
    unsigned failed_starts; /* since a worker became ready */
    unsigned failed_forks;  /* since one went through */
};

void mpr_keeper_begin(struct mpr_keeper *k, mproc_pool *pool);

/*
 * Do what there is to do. Returns when to do so again, unless called before; or
 * MPR_KEEPER_OVER: no worker is left, and none will be, as the other then says.
 */
int64_t mpr_keeper_pass(struct mpr_keeper *k);
void mpr_keeper_leave(mproc_pool *pool);
enum { MPR_KEEPER_OVER = -1 };

/* A worker is dead. False: there is no memory to tell of its task now. */
bool mpr_keeper_bury(struct mpr_keeper *k, struct mpr_worker *worker, int code);

/* End all workers; threads are only told. */
void mpr_keeper_end_all(struct mpr_keeper *k);

/* Say what the start came to, unless that was said. */
void mpr_keeper_report(mproc_pool *pool, int result);

/*
 * When what the worker runs will be over its time, or INT64_MAX. MPR_OVERTIME:
 * it is, by this look or an earlier one.
 */
int64_t mpr_keeper_time_out(struct mpr_worker *worker, int64_t now);

/* Start a worker in a row that is made ready. */
int mpr_nursery_fork(struct mpr_keeper *k, struct mpr_worker *worker);
int mpr_threads_start(mproc_pool *pool, struct mpr_worker *worker);

/* All have left the pool: wait until they have ended. */
void mpr_threads_join(mproc_pool *pool);

/*
 * Let a thread whose task is over its time run on by itself. False: no memory
 * now, or it has come back.
 */
bool mpr_threads_abandon(struct mpr_keeper *k, struct mpr_worker *worker);

/* What became of a worker, and so of what it ran, in words. Returns `text`. */
enum { MPR_LOSS_TEXT = 96 };
const char *mpr_loss_text(char text[MPR_LOSS_TEXT], pid_t pid, int status,
                          int code);

/*
 * Fork the nursery; returns its pid, or an error. Workers begin with the signal
 * mask `mask`, whatever thread forks.
 */
pid_t mpr_nursery_start(mproc_pool *pool, const sigset_t *mask);

/* The collector thread. */
void *mpr_collector_run(void *pool);

#endif
