/* SPDX-License-Identifier: MIT */
/* Tasks, and the items of batches, as workers and their maker share them. */
#ifndef MPR_POOL_TASK_H
#define MPR_POOL_TASK_H

#include <string.h>

#include <mproc/pool.h>

#include "shm/object.h"

struct mpr_task;
struct mpr_part;

enum mpr_task_state {
    MPR_TASK_FREE,
    MPR_TASK_QUEUED,
    MPR_TASK_RUNNING,    /* by the worker in the word */
    MPR_TASK_CANCELLING, /* was running; its worker will be ended */
    MPR_TASK_ENDED,      /* so by the worker in the word; `status` says how */
    MPR_TASK_CANCELED,   /* ended, with MPROC_ECANCELED */
    MPR_TASK_UNSERVED,   /* ended, with MPROC_EBROKEN */
    MPR_TASK_COLLECTED,  /* ended, with `status`; its callback is to come */
    MPR_TASK_ABANDONED,  /* a thread runs it, another record has its place */
};

/* How a log names a task. Zero is none. */
struct mpr_entry {
    struct mpr_task *task;
    uint64_t serial;
};

enum { MPR_TASK_ARG = 24, MPR_TASK_REPLY = 24 };

/*
 * `word` is {serial:32 | worker:24 | state:8}. By compare-and-swap only:
 *   FREE→QUEUED            maker, all else written before
 *   QUEUED→FREE            maker, when the log would not take it
 *   QUEUED→RUNNING         the worker
 *   QUEUED→CANCELED        maker
 *   QUEUED→UNSERVED        collector, nursery: no worker can be had for it
 *   RUNNING→ENDED          the worker, after status, code and reply; or, when
 *                          the worker is dead, the nursery. The word keeps the
 *                          worker: only of a dead one's it is in doubt whether
 *                          it was told
 *   RUNNING→QUEUED         the nursery, or the worker at its last task: to be
 *                          run again, or the rest of a batch's chunk
 *   RUNNING→CANCELLING     maker; the worker leaves when the task returns, or
 *                          the nursery ends it once the grace is over
 *   RUNNING→CANCELED       the nursery, when it ended the worker
 *   CANCELLING→CANCELED    the same
 *   these three→COLLECTED  collector, where callbacks wait to be dispatched
 *   these four→FREE        collector, or who awaits it; the serial goes up
 *   ENDED→QUEUED           collector, with the next serial: a chunk that goes
 *                          again, whose block is written before the log has it
 *   RUNNING, CANCELLING→ABANDONED  the keeper of threads
 *   ABANDONED→FREE         the thread
 * `status`, `code`, `worker`, `losses`, `reply` belong to the worker while it
 * is RUNNING and to who ends it, or has it run again, in its place once the
 * worker is dead; of a chunk, `losses` counts for the item at `at`. `awaited`
 * changes under mpr_pool_lock once the task is QUEUED; `bell` is what its maker
 * sleeps on, and counts on when the record serves another. The rest is the
 * maker's.
 * `reply` is a heap block of the task's own unless it points into the record;
 * with the size MPR_REPLY_TEXT it is the text of an error. An argument that has
 * no room in `inline_arg` is such a block too, whose address is there then.
 * `arg_size` MPR_ARG_OF_CHUNK: the task is a batch's and has `chunk`, but
 * neither argument nor callbacks: mpr_task_chunk.
 * Locks: none. Publishes: `word`. Survives: a worker killed with a block in
 * hand for `reply`: see mproc_pool.adopting.
 */
struct mpr_task {
    _Atomic uint64_t word;
    mproc_task_fn *fn;
    size_t arg_size;
    void *reply;
    size_t reply_size;
    int status;
    int code;
    pid_t worker;
    uint32_t losses; /* workers lost in it << 1 | the last run is counted */
    union {
        int64_t limit_ns; /* it may run as long, or each item; 0: no limit */
        struct mpr_task *next; /* ended: the one told before it, or after */
    };
    struct mproc_result *result;
    union {
        mproc_done_fn *callback;
        struct mpr_chunk *chunk;
    };
    mproc_done_fn *error_callback;
    void *user; /* while FREE: the next free one */
    alignas(16) char inline_arg[MPR_TASK_ARG];
    _Atomic int64_t priority; /* lower first */
    alignas(16) char inline_reply[MPR_TASK_REPLY];
    _Atomic uint32_t awaited;
    _Atomic uint32_t bell;
};

/* It is going to be used: read it from memory meanwhile. */
static inline void mpr_task_prefetch(const struct mpr_task *task)
{
    const char *p = (const char *)task;
    __builtin_prefetch(p, 1);
    __builtin_prefetch(p + MPR_LINE, 1);
    __builtin_prefetch(p + sizeof *task - 1, 1);
}

/* Of a task that ends: who is told. */
enum mpr_awaited {
    MPR_AWAITED_NOT, /* the collector */
    MPR_AWAITED,     /* a thread of the maker, which takes it in */
    MPR_AWAITED_LEFT /* that has left it, cancelled, to the collector */
};

#define MPR_ARG_OF_CHUNK SIZE_MAX

#define MPR_REPLY_TEXT SIZE_MAX

static_assert(sizeof(struct mpr_task) <= 160, "a pending task is small");

/*
 * What is told of one item of a batch. Where it lies is the maker's, the rest
 * who runs it, or settles its end. A reply and a text lie in the task's reply.
 */
struct mpr_item {
    const char *in;
    size_t in_size;
    size_t data; /* where its reply begins, and its size */
    size_t size;
    size_t text; /* 1 + where its error text begins, 0: it has none */
    int code;
    pid_t worker;
};

/*
 * Items of a batch that travel together; their data follow it in its block.
 * An item has ended once its `status` says so; what is told of it was written
 * before, and `at` comes after.
 * Locks: none; the word of the task says whose it is. Publishes: `at`, and that
 * word. Survives: a worker killed before an item's `status` is stored leaves
 * that item pending, whatever it has told of it, and `used` may count bytes
 * that nobody names.
 */
struct mpr_chunk {
    size_t first; /* index in the batch */
    size_t count;
    const char *in; /* an array; NULL: each of `items` says where it lies */
    size_t in_size;
    char *item; /* NULL: items lie where they are used; else room for one */
    char *out;  /* NULL: not wanted, or kept in the task's reply */
    size_t out_size;
    int *status; /* one an item; MPR_ITEM_PENDING until it has ended */
    struct mpr_item *items; /* one an item; NULL: only of the first bad one */
    _Atomic size_t at; /* the item that runs, the first that has not ended */
    size_t lost; /* 1 + the item whose worker was lost, 0 while one runs it */
    size_t bad;  /* the first bad item, count when there is none */
    struct mpr_item first_bad; /* where there are no `items` */
    size_t used; /* bytes of the task's reply that belong to ended items */
    int64_t ns;  /* that its items have run, if `timed` */
    bool timed;
    struct mpr_part *part; /* the maker's */
};

enum { MPR_ITEM_PENDING = 0x7fffffff };

/* What is told of item i, which has not ended or is the first bad one. */
static inline struct mpr_item *mpr_chunk_item(struct mpr_chunk *chunk, size_t i)
{
    if (chunk->items != NULL) {
        return &chunk->items[i];
    }
    return chunk->bad >= i ? &chunk->first_bad : NULL;
}

/* NULL: it is a single task. */
static inline struct mpr_chunk *mpr_task_chunk(const struct mpr_task *task)
{
    return task->arg_size == MPR_ARG_OF_CHUNK ? task->chunk : NULL;
}

/* The block that the argument of a single task lies in; NULL: in the task. */
static inline void *mpr_task_arg_block(const struct mpr_task *task)
{
    void *block = NULL;
    if (task->arg_size >= MPR_TASK_ARG && task->arg_size != MPR_ARG_OF_CHUNK) {
        memcpy(&block, task->inline_arg, sizeof block);
    }
    return block;
}

/* Either, or NULL. */
static inline void *mpr_task_block(const struct mpr_task *task)
{
    void *chunk = mpr_task_chunk(task);
    return chunk != NULL ? chunk : mpr_task_arg_block(task);
}

static inline const void *mpr_task_arg(const struct mpr_task *task)
{
    const void *block = mpr_task_arg_block(task);
    return block != NULL ? block : task->inline_arg;
}

static inline uint64_t mpr_task_word(uint32_t serial, uint32_t worker,
                                     enum mpr_task_state state)
{
    return (uint64_t)serial << 32 | (uint64_t)worker << 8 | state;
}

static inline enum mpr_task_state mpr_task_state(uint64_t word)
{
    return (enum mpr_task_state)(word & 0xff);
}

static inline uint64_t mpr_task_word_by(const struct mpr_entry *entry,
                                        uint32_t worker,
                                        enum mpr_task_state state)
{
    bool has = state == MPR_TASK_RUNNING || state == MPR_TASK_CANCELLING ||
               state == MPR_TASK_ENDED;
    return mpr_task_word((uint32_t)entry->serial, has ? worker : 0, state);
}

/* `worker` counts where one of the two states has it. */
static inline bool mpr_task_move(const struct mpr_entry *entry, uint32_t worker,
                                 enum mpr_task_state from,
                                 enum mpr_task_state to)
{
    uint64_t word = mpr_task_word_by(entry, worker, from);
    uint64_t moved = mpr_task_word_by(entry, worker, to);
    return atomic_compare_exchange_strong(&entry->task->word, &word, moved);
}

#endif
