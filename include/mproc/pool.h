/* SPDX-License-Identifier: MIT */
/*
 * Pool: worker processes that run tasks. Python: Pool, AsyncResult.
 *
 * On deaths. Every accepted task ends exactly once, whatever it does: returns,
 * calls exit, crashes, is killed. A worker that dies fails its own task with
 * MPROC_EWORKERLOST, whose outcome names its pid and how it ended; the others
 * never notice, and the pool replaces the worker. A pool lives on with fewer
 * workers while one can be had. When none can (no processes left, or an
 * initializer that fails later) the pending tasks end and new ones are refused
 * with MPROC_EBROKEN, after at most a few forks. If the process by which the
 * pool keeps its workers is killed, the workers die with it: running tasks are
 * lost, queued ones go on. Workers end with the process that made the pool.
 *
 * Only the process that made a pool submits to it and waits for it, in any of
 * its threads; elsewhere MPROC_EPERM, and free does nothing. The same holds for
 * results, which outlive their pool. Workers ignore SIGINT and may make pools.
 * Daemonic processes may make pools too: workers are not daemonic, yet end with
 * their maker.
 * A function handed to a pool must be in the program when the pool starts: in
 * the place of one that is loaded later the workers have nothing, and crash
 * (MPROC_EWORKERLOST). One function serves apply and map alike.
 *
 * Callbacks run one at a time, in the process that made the pool, in a thread
 * of the pool or, with manual_dispatch, where the caller lets them. A result is
 * ready before its callback runs. A callback may submit, cancel, free results,
 * close and terminate; waiting there for the same pool is MPROC_EDEADLK.
 *
 * Workers that are threads (MPROC_START_THREAD; Python: ThreadPool) share all
 * with their maker, so a crash, an exit is the whole process's. A task can only
 * be told to stop: one that runs and is cancelled, or whose pool is terminated
 * or freed, ends when it returns. One that is over its timeout_s ends at once;
 * its thread is abandoned and replaced, and what its argument points to must
 * stay until it returns, whether the pool is still there or not. A thread that
 * calls pthread_exit is a lost worker. The pids of such workers are the numbers
 * of their threads. max_rss_per_child is MPROC_ENOTSUP, grace_s without effect.
 *
 * Calls do not block unless they say so; none may be made by a signal handler.
 * A handle that is NULL, freed or of another kind: MPROC_EINVAL where an int is
 * returned, else false, 0 or NULL. mproc_queue and its kin, made before or
 * after the pool, are usable in its tasks.
 */
#ifndef MPROC_POOL_H
#define MPROC_POOL_H

#include <mproc/base.h>
#include <mproc/deadline.h>
#include <mproc/error.h>
#include <mproc/process.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mproc_pool mproc_pool;
typedef struct mproc_result mproc_result;
typedef struct mproc_iter mproc_iter;
typedef struct mproc_reply mproc_reply;

/* Inside a task. */

/*
 * A task, run in a worker. `arg` is `size` bytes, aligned for any type and
 * followed by a NUL byte that size does not count; a batch array in the shared
 * heap is used in place, without that NUL. They and `reply` are valid until the
 * task returns. The result is 0 for success; anything else fails the task with
 * MPROC_ETASK and is the `code` of its outcome.
 */
typedef int mproc_task_fn(const void *arg, size_t size, mproc_reply *reply);

/*
 * Make a copy of `size` bytes at `data` the reply of this task. A task that
 * sets none replies with no bytes. Python: the value that the function returns.
 *
 * 0             set
 * MPROC_ENOMEM  the shared heap is full
 * MPROC_EINVAL  reply is NULL or another process's, as in one that the task has
 *               forked; or data is NULL with a size
 */
MPROC_API int mproc_reply_set(mproc_reply *reply, const void *data,
                              size_t size);

/*
 * Memory of `size` bytes for the reply, to be written in place before the task
 * returns; called again with less it shrinks the reply. Aligned for any type,
 * owned by the library. NULL: the shared heap is full, or the reply is another
 * process's.
 */
MPROC_API void *mproc_reply_reserve(mproc_reply *reply, size_t size);

/*
 * Fail this task: its status becomes MPROC_ETASK, its `code` is `code` and its
 * `error` the text that printf would print. Returns `code`, to be returned by
 * the task. Python: raise.
 */
MPROC_API int mproc_reply_fail(mproc_reply *reply, int code, const char *fmt,
                               ...) MPROC_PRINTF(3, 4);

/*
 * Whether the task that calls this has been cancelled or is over its time, so
 * that what it still does is dropped. Does not block; in the thread that runs
 * the task.
 */
MPROC_API bool mproc_task_canceled(void);

/* How a task ended. */

/*
 * Made by the library, which owns everything in it. Grows only at its end.
 *
 * status  MPROC_OK, or
 *         MPROC_ETASK        the task returned non-zero or failed its reply
 *         MPROC_EWORKERLOST  its worker died
 *         MPROC_ECANCELED    cancelled, or ended by terminate
 *         MPROC_EOVERTIME    it ran longer than its timeout_s
 *         MPROC_EMSGSIZE     its reply has not the size that was asked for
 *         MPROC_EBROKEN      the pool can have no workers
 * code    MPROC_ETASK: what the task returned or told mproc_reply_fail;
 *         MPROC_EWORKERLOST: the exit code, or minus the signal
 * index   the item of a batch, else 0
 * data    the reply: `size` bytes, aligned for any type and followed by a NUL
 *         byte that size does not count
 * error   never NULL: "", the task's text, or what happened, such as
 *         "worker 4711 killed by signal 9 (SIGKILL)"
 * worker  the pid of the worker that ran it
 */
typedef struct mproc_outcome {
    int status;
    int code;
    size_t index;
    const void *data;
    size_t size;
    const char *error;
    pid_t worker;
} mproc_outcome;

/*
 * Called when a task has ended, in the process that made the pool; the outcome
 * is valid during the call.
 */
typedef void mproc_done_fn(const mproc_outcome *outcome, void *user);

/* Making and ending pools. */

/*
 * Options of a pool; zero is the default.
 *
 * workers              how many. Default: mproc_cpu_count()
 * max_tasks_per_child  tasks after which a worker is replaced. Default: no
 *                      limit
 * max_rss_per_child    bytes of memory of its own, shared memory not counted; a
 *                      worker above it is replaced after its task. Default: no
 *                      limit
 * initializer          run in every new worker before its first task; non-zero
 *                      is a failure. Default: none
 * initializer_arg      its argument
 * initializer_arg_size > 0: that many bytes are copied and each worker gets the
 *                      copy; 0: initializer_arg is handed on as it is, and what
 *                      it points to must outlive the pool
 * retries              how often a task, or an item of a batch, whose worker
 *                      was lost is run again, behind those of its priority
 *                      that wait by then. Default: not
 * max_pending          tasks, and items of batches, accepted and not yet done:
 *                      those that wait, run, or whose callback has not
 *                      returned. At the limit submitting waits, but not in a
 *                      callback; batches are fed as room comes. Default: no
 *                      limit
 * grace_s              seconds between telling a task that it is cancelled or
 *                      over its time (mproc_task_canceled) and killing its
 *                      worker, if it has not returned by then. Default: at
 *                      once
 * start                MPROC_START_FORK is the default. MPROC_START_THREAD: the
 *                      workers are threads of the maker
 * manual_dispatch      1: callbacks run only where the caller lets them: in
 *                      mproc_pool_dispatch, in mproc_pool_join, _map, _apply
 *                      and mproc_iter_next while they wait, and in _apply_async
 *                      while it waits for room. There is no thread of the
 *                      library in the maker then. Default 0
 *
 * In this version the other start methods answer MPROC_ENOTSUP.
 */
typedef struct mproc_pool_opts {
    size_t workers;
    size_t max_tasks_per_child;
    size_t max_rss_per_child;
    mproc_main_fn *initializer;
    void *initializer_arg;
    size_t initializer_arg_size;
    size_t retries;
    size_t max_pending;
    double grace_s;
    int start;
    int manual_dispatch;
} mproc_pool_opts;
MPROC_NO_PADDING_(mproc_pool_opts,
                  6 * sizeof(size_t) + sizeof(mproc_main_fn *) +
                      sizeof(void *) + sizeof(double) + 2 * sizeof(int));

/* mproc_pool_new with the size of the caller's options; call that. */
MPROC_API int mproc_pool_new_sized(mproc_pool **out,
                                   const mproc_pool_opts *opts,
                                   size_t opts_size);

/*
 * Make a pool and start its workers. With an initializer it blocks until every
 * worker has run it. `opts` NULL means all defaults. Python: Pool().
 *
 * 0                  *out is the pool; end it with mproc_pool_free
 * MPROC_ETASK        the initializer failed
 * MPROC_EWORKERLOST  a worker died in the initializer
 * MPROC_EAGAIN       no processes left: the limit of the system, or
 *                    processes_max
 * MPROC_ENOMEM       no memory
 * MPROC_EMFILE, MPROC_ENFILE  no descriptor left
 * MPROC_EINVAL       out is NULL, or an option is absurd
 * MPROC_ENOTSUP      an option is set that this version does not serve or know
 */
static inline int mproc_pool_new(mproc_pool **out, const mproc_pool_opts *opts)
{
    return mproc_pool_new_sized(out, opts, sizeof *opts);
}

/*
 * Take no more tasks: submitting answers MPROC_ESHUTDOWN. Those accepted run to
 * their end. Python: Pool.close().
 *
 * 0            closed, now or before
 * MPROC_EPERM  the caller did not make the pool
 */
MPROC_API int mproc_pool_close(mproc_pool *p);

/*
 * Close the pool and end its tasks, waiting or running, with MPROC_ECANCELED;
 * running ones are ended with their workers. mproc_pool_join waits for the end
 * of it. Python: Pool.terminate(), which leaves their results pending for ever.
 *
 * 0            terminated, now or before
 * MPROC_EPERM  the caller did not make the pool
 */
MPROC_API int mproc_pool_terminate(mproc_pool *p);

/*
 * Wait until every task has ended, every callback has run and every worker is
 * gone. Blocks until then or until `until`; may be repeated. Python:
 * Pool.join().
 *
 * 0                all have ended
 * MPROC_ETIMEDOUT  not yet
 * MPROC_EINVAL     neither closed nor terminated
 * MPROC_EPERM      the caller did not make the pool
 * MPROC_EDEADLK    called by a callback of the pool, closed or not
 */
MPROC_API int mproc_pool_join(mproc_pool *p, mproc_deadline until);

/*
 * Change how many workers there are, at least 1. More are started, and this
 * blocks until they are; the initializer runs in each before its first task. Of
 * fewer those go first that have nothing to do, others after the task that they
 * run; nobody waits for them. A callback does not wait for either. Has no
 * Python namesake (billiard: grow and shrink).
 *
 * 0                as many there are, or will be
 * MPROC_EAGAIN     no processes left: the limit of the system, or
 *                  processes_max; there are as many as before
 * MPROC_ENOMEM     no memory
 * MPROC_ESHUTDOWN  the pool is closed
 * MPROC_EBROKEN    the pool can have no workers
 * MPROC_EINVAL     workers is 0
 * MPROC_EPERM      the caller did not make the pool
 */
MPROC_API int mproc_pool_resize(mproc_pool *p, size_t workers);

/*
 * What a pool is doing; single tasks and items of batches count alike.
 *
 * workers    workers that are alive
 * queued     accepted and not yet begun, or ended and not yet taken note of
 * running    being run
 * done       ended well
 * failed     ended otherwise, but for those
 * lost       that ended with MPROC_EWORKERLOST
 * respawned  workers that took the place of one that had ended
 */
typedef struct mproc_pool_info {
    size_t workers;
    size_t queued;
    size_t running;
    size_t done;
    size_t failed;
    size_t lost;
    size_t respawned;
} mproc_pool_info;
MPROC_NO_PADDING_(mproc_pool_info, 7 * sizeof(size_t));

/* mproc_pool_stats with the size of the caller's struct; call that. */
MPROC_API int mproc_pool_stats_sized(mproc_pool *p, mproc_pool_info *out,
                                     size_t out_size);

/*
 * Count what the pool is doing; it goes on meanwhile. Has no Python namesake.
 *
 * 0             *out is stored
 * MPROC_EINVAL  out is NULL
 * MPROC_EPERM   the caller did not make the pool
 */
static inline int mproc_pool_stats(mproc_pool *p, mproc_pool_info *out)
{
    return mproc_pool_stats_sized(p, out, sizeof *out);
}

/*
 * What a worker has done since it began to work: seconds in which it had a
 * task, `busy_s`, and in which it waited for one, `idle_s`. `busy` is 1 while
 * it has one.
 */
typedef struct mproc_worker_info {
    pid_t pid;
    int busy;
    double busy_s;
    double idle_s;
} mproc_worker_info;
MPROC_NO_PADDING_(mproc_worker_info,
                  sizeof(pid_t) + sizeof(int) + 2 * sizeof(double));

/* mproc_pool_worker_stats with the size of one struct; call that. */
MPROC_API size_t mproc_pool_worker_stats_sized(mproc_pool *p,
                                               mproc_worker_info *out,
                                               size_t out_size,
                                               size_t capacity);

/*
 * The workers that are alive. Stores at most `capacity` of them in `out` and
 * returns how many there are. Has no Python namesake.
 */
static inline size_t
mproc_pool_worker_stats(mproc_pool *p, mproc_worker_info *out, size_t capacity)
{
    return mproc_pool_worker_stats_sized(p, out, sizeof *out, capacity);
}

/*
 * For event loops, of a pool with manual_dispatch: a descriptor that is
 * readable while mproc_pool_dispatch has something to do: a callback to run,
 * tasks that have ended, the end of the pool to tell; now and then once in
 * vain. To be polled, not to be read or closed; it lives as long as the pool.
 * (Where the system has no pidfds, it does not tell of the death of the pool's
 * helper process.) Has no Python namesake.
 *
 * >= 0          the descriptor, the same each time
 * MPROC_EMFILE, MPROC_ENFILE, MPROC_ENOMEM  none left
 * MPROC_EINVAL  the pool was made without manual_dispatch
 * MPROC_EPERM   the caller did not make the pool
 */
MPROC_API int mproc_pool_fd(mproc_pool *p);

/*
 * Run callbacks of a pool with manual_dispatch: those of the tasks that have
 * ended, in the calling thread. Blocks until there is one, until `until`, or
 * until the pool, closed or terminated, has nothing left. Has no Python
 * namesake.
 *
 * > 0              so many callbacks were run
 * MPROC_ETIMEDOUT  none before the deadline
 * MPROC_EOF        closed, and nothing is left: no task, no callback
 * MPROC_EINVAL     the pool was made without manual_dispatch
 * MPROC_EPERM      the caller did not make the pool
 * MPROC_EDEADLK    called by a callback of the pool
 */
MPROC_API int mproc_pool_dispatch(mproc_pool *p, mproc_deadline until);

/*
 * The pids of the workers that are alive. Stores at most `capacity` of them in
 * `out` and returns how many there are. Has no Python namesake.
 */
MPROC_API size_t mproc_pool_worker_pids(mproc_pool *p, pid_t *out,
                                        size_t capacity);

/*
 * Terminate what still runs, wait for its end and free the pool; NULL is taken,
 * in another process than its maker's nothing happens. No callback runs after
 * it returns, so a running one is waited for; those that were not dispatched
 * are dropped. In a callback it does not wait: the pool ends once that has
 * returned. Results stay. Python: leaving `with Pool()`.
 */
MPROC_API void mproc_pool_free(mproc_pool *p);

/* One task. */

/*
 * A task to run; zero is the default.
 *
 * fn              the task
 * arg, arg_size   its argument, copied before the call returns; MPROC_ARG
 * callback        called when it has ended well. Default: none
 * error_callback  called when it has ended otherwise. Default: none
 * user            handed to both
 * timeout_s       seconds that the task may run; over them it ends with
 *                 MPROC_EOVERTIME and its worker is replaced, whatever the task
 *                 does: also one that is stopped. Default: no limit
 * priority        of the tasks that wait, those with a lower one begin first,
 *                 those with the same one in order; the items of batches have
 *                 0. One that is run again is put behind its equals
 */
typedef struct mproc_call {
    mproc_task_fn *fn;
    const void *arg;
    size_t arg_size;
    mproc_done_fn *callback;
    mproc_done_fn *error_callback;
    void *user;
    double timeout_s;
    int64_t priority;
} mproc_call;
MPROC_NO_PADDING_(mproc_call, sizeof(mproc_task_fn *) +
                                  2 * sizeof(mproc_done_fn *) +
                                  2 * sizeof(void *) + sizeof(size_t) +
                                  sizeof(double) + sizeof(int64_t));

/*
 * The fields arg and arg_size of a mproc_call, from a variable:
 * &(mproc_call){.fn = square, MPROC_ARG(x)}. In C++ from C++20 on.
 */
#define MPROC_ARG(x) .arg = &(x), .arg_size = sizeof(x)

/* mproc_pool_apply with the size of the caller's struct; call that. */
MPROC_API int mproc_pool_apply_sized(mproc_pool *p, const mproc_call *call,
                                     size_t call_size, void *out, size_t size,
                                     mproc_deadline until);

/*
 * Run a task in a worker and wait for its reply, which must be of exactly
 * `size` bytes; `out` NULL and `size` 0: the reply is not wanted. Blocks until
 * the task has ended or until `until`, when it is cancelled as by
 * mproc_result_cancel. Python: Pool.apply().
 *
 * 0                  the reply is in `out`
 * MPROC_ETASK        the task failed
 * MPROC_EWORKERLOST  its worker died
 * MPROC_EOVERTIME    it ran longer than its timeout_s
 * MPROC_EMSGSIZE     the reply is not of `size` bytes
 * MPROC_ECANCELED    the pool was terminated
 * MPROC_ETIMEDOUT    not ended, or no room for it, before the deadline
 * MPROC_ESHUTDOWN    the pool is closed; nothing ran
 * MPROC_EBROKEN      the pool can have no workers
 * MPROC_ENOMEM       the shared heap is full
 * MPROC_EPERM        the caller did not make the pool
 * MPROC_EDEADLK      called by a callback of the pool
 * MPROC_EINVAL       call or fn is NULL, arg or out is NULL with a size, or
 *                    timeout_s is absurd
 * MPROC_ENOTSUP      a field is set that this version does not serve or know
 */
static inline int mproc_pool_apply(mproc_pool *p, const mproc_call *call,
                                   void *out, size_t size, mproc_deadline until)
{
    return mproc_pool_apply_sized(p, call, sizeof *call, out, size, until);
}

/* mproc_pool_apply_async with the size of the caller's struct; call that. */
MPROC_API int mproc_pool_apply_async_sized(mproc_pool *p,
                                           const mproc_call *call,
                                           size_t call_size, mproc_result **out,
                                           mproc_deadline until);

/*
 * Have a task run in a worker. `out` NULL: its callbacks alone tell its end.
 * Blocks, until `until`, only for room under max_pending, and never in a
 * callback. Python: Pool.apply_async().
 *
 * 0                accepted; *out is its result, to be ended by
 *                  mproc_result_free, and is stored before a callback runs
 * MPROC_EFULL      no room under max_pending before the deadline
 * MPROC_ESHUTDOWN  the pool is closed
 * MPROC_EBROKEN    the pool can have no workers
 * MPROC_ENOMEM     the shared heap is full
 * MPROC_EPERM      the caller did not make the pool
 * MPROC_EINVAL     call or fn is NULL, arg is NULL with a size, or timeout_s
 *                  is absurd
 * MPROC_ENOTSUP    a field is set that this version does not serve or know
 */
static inline int mproc_pool_apply_async(mproc_pool *p, const mproc_call *call,
                                         mproc_result **out,
                                         mproc_deadline until)
{
    return mproc_pool_apply_async_sized(p, call, sizeof *call, out, until);
}

/* Many tasks of one function. */

/*
 * The next item of a batch: *size bytes at *item, which are copied before it is
 * called again. 0, MPROC_EOF when there is none, or an error that ends the
 * batch: the items before it run all the same, then the error is told. Not
 * called again after either. Called in the thread that calls mproc_pool_imap,
 * mproc_iter_next or mproc_pool_map; it may do all but use its own iterator
 * (MPROC_EBUSY).
 */
typedef int mproc_next_fn(void *user, const void **item, size_t *size);

/*
 * A batch of items to run one function on; zero is the default.
 *
 * fn         the task
 * in         the items: an array of `count`, each of in_size bytes
 * in_size
 * count
 * next       instead of `in`: items of any size, one by one, until it says that
 *            there are no more, or until `count` if that is not 0. Only where a
 *            thread of the caller's waits for the batch: not in map_async
 * out        array for the replies: `count`, each of exactly out_size bytes; an
 *            item whose reply has another size ends MPROC_EMSGSIZE. NULL: the
 *            replies are not wanted
 * out_size
 * status     array of `count` for the status of each item, or NULL
 * chunk      items that travel together, and are told together; a crash loses
 *            one of them all the same. Default: chosen, and again while the
 *            batch runs, by how many there are and how long they take
 * window     how many items may be under way at a time; of an iteration, how
 *            many may have been asked of `in` or `next` and not yet handed out.
 *            Default: chosen, so that the workers have work
 * timeout_s  seconds that each item may run; over them that item alone ends,
 *            with MPROC_EOVERTIME. Default: no limit
 * on_item    called for every item as it ends, good or bad, those cancelled
 *            before they ran too: with its index, its reply (also where `out`
 *            is NULL), its error. As all callbacks, one at a time
 * user       handed to next and on_item
 *
 * in, out and status must live until the batch has ended. Those that lie in the
 * shared heap are used in place, without a copy; reply and status of an item
 * are there before on_item is called for it.
 * Several arguments: let the items be structs. Python: starmap().
 */
typedef struct mproc_batch {
    mproc_task_fn *fn;
    const void *in;
    size_t in_size;
    size_t count;
    mproc_next_fn *next;
    void *out;
    size_t out_size;
    int *status;
    size_t chunk;
    size_t window;
    double timeout_s;
    mproc_done_fn *on_item;
    void *user;
} mproc_batch;
MPROC_NO_PADDING_(mproc_batch,
                  sizeof(mproc_task_fn *) + sizeof(mproc_next_fn *) +
                      sizeof(mproc_done_fn *) + 3 * sizeof(void *) +
                      sizeof(int *) + 5 * sizeof(size_t) + sizeof(double));

/* mproc_pool_map with the size of the caller's struct; call that. */
MPROC_API int mproc_pool_map_sized(mproc_pool *p, const mproc_batch *b,
                                   size_t b_size, mproc_deadline until);

/*
 * Run the function on every item and wait for all of them. An item that fails
 * does not stop the others; `status` and `on_item` tell of each. Blocks until
 * all have ended or until `until`, when the rest is cancelled, and then until
 * what ran of it has ended, at most the grace_s of the pool. No items: 0 at
 * once. Python: Pool.map().
 *
 * 0                  every item ended well
 * MPROC_ETASK, MPROC_EWORKERLOST, MPROC_EOVERTIME, MPROC_EMSGSIZE,
 * MPROC_ECANCELED    how the first bad item, in their order, ended
 * MPROC_ETIMEDOUT    not all had ended before the deadline
 * MPROC_ESHUTDOWN    the pool is closed; nothing ran
 * MPROC_EBROKEN      the pool can have no workers
 * MPROC_ENOMEM       the shared heap is full
 * MPROC_EPERM        the caller did not make the pool
 * MPROC_EDEADLK      called by a callback of the pool
 * MPROC_EINVAL       b or fn is NULL, neither or both of in and next are there,
 *                    a size or time is absurd, or there is an array without
 *                    count
 * of next()          its error, unless an item ended badly
 * MPROC_ENOTSUP      a field is set that this version does not serve or know
 */
static inline int mproc_pool_map(mproc_pool *p, const mproc_batch *b,
                                 mproc_deadline until)
{
    return mproc_pool_map_sized(p, b, sizeof *b, until);
}

/* mproc_pool_map_async with the size of the caller's struct; call that. */
MPROC_API int mproc_pool_map_async_sized(mproc_pool *p, const mproc_batch *b,
                                         size_t b_size, mproc_result **out);

/*
 * Have the function run on every item; wait for it by the result. Python:
 * Pool.map_async().
 *
 * 0                accepted; *out is its result, to be ended by
 *                  mproc_result_free, and is stored before a callback runs
 * MPROC_ESHUTDOWN  the pool is closed
 * MPROC_EBROKEN    the pool can have no workers
 * MPROC_ENOMEM     the shared heap is full
 * MPROC_EPERM      the caller did not make the pool
 * MPROC_EINVAL     out, b or fn is NULL, in is NULL where there are items, next
 *                  is set, or a size or time is absurd
 * MPROC_ENOTSUP    a field is set that this version does not serve or know
 */
static inline int mproc_pool_map_async(mproc_pool *p, const mproc_batch *b,
                                       mproc_result **out)
{
    return mproc_pool_map_async_sized(p, b, sizeof *b, out);
}

/*
 * What mproc_progress_line shows: the first two are set by the caller, the rest
 * is zero at first and the library's.
 *
 * total   how many items there will be; 0: not known, then they are counted,
 *         and the newline is the caller's to print
 * label   in front of the line. Default: none
 * done    items that have ended, and those of them that ended badly
 * failed
 */
typedef struct mproc_progress {
    size_t total;
    const char *label;
    size_t done;
    size_t failed;
    int64_t private_[4];
} mproc_progress;
MPROC_NO_PADDING_(mproc_progress, 3 * sizeof(size_t) + sizeof(const char *) +
                                      4 * sizeof(int64_t));

/*
 * An on_item that shows the progress of a batch in one line on the terminal at
 * stderr, and nothing where stderr is none: a bar, how many of how many, how
 * many failed, how long it will take. `user` is a mproc_progress:
 *
 *     mproc_progress line = {.total = n, .label = "thumbnails"};
 *     mproc_batch b = {…, .on_item = mproc_progress_line, .user = &line};
 *
 * Draws ten times a second at most, over what it drew before; the last item
 * ends the line. May block as long as the terminal does. Has no Python
 * namesake; tqdm is what people use there.
 */
MPROC_API void mproc_progress_line(const mproc_outcome *outcome, void *user);

/* Iterating over replies. */

/* The two below with the size of the caller's struct; call those. */
MPROC_API int mproc_pool_imap_sized(mproc_pool *p, const mproc_batch *b,
                                    size_t b_size, mproc_iter **out);
MPROC_API int mproc_pool_imap_unordered_sized(mproc_pool *p,
                                              const mproc_batch *b,
                                              size_t b_size, mproc_iter **out);

/*
 * Have the function run on every item, and be handed the outcomes one by one:
 * in the order of the items, or (unordered) as they end. Lazy: items are taken
 * from `in` or `next` and sent by this call and by mproc_iter_next, in their
 * caller's thread, never more than `window` ahead of what was handed out. `out`
 * and `status` are filled, and `on_item` called, as in a map. Blocks for
 * nothing but `next`. Python: Pool.imap(), Pool.imap_unordered(), which run
 * ahead without bound.
 *
 * An iterator belongs to the process that made it, and outlives its pool: what
 * had ended is handed out. After mproc_pool_close it goes on to its end; so a
 * join of the pool waits for it, and by the thread that iterates, where that
 * could never end, it is MPROC_EDEADLK: go on to MPROC_EOF or free the iterator
 * first. When the pool is terminated, items under way end MPROC_ECANCELED, and
 * that is also what comes instead of those that were not yet taken.
 *
 * 0                *out is the iterator, to be ended by mproc_iter_free
 * MPROC_ESHUTDOWN  the pool is closed
 * MPROC_EBROKEN    the pool can have no workers
 * MPROC_ENOMEM     the shared heap is full
 * MPROC_EPERM      the caller did not make the pool
 * MPROC_EINVAL     out, b or fn is NULL, neither or both of in and next are
 *                  there, a size or time is absurd, or there is an array
 *                  without count
 * MPROC_ENOTSUP    a field is set that this version does not know
 */
static inline int mproc_pool_imap(mproc_pool *p, const mproc_batch *b,
                                  mproc_iter **out)
{
    return mproc_pool_imap_sized(p, b, sizeof *b, out);
}

static inline int mproc_pool_imap_unordered(mproc_pool *p, const mproc_batch *b,
                                            mproc_iter **out)
{
    return mproc_pool_imap_unordered_sized(p, b, sizeof *b, out);
}

/*
 * The next outcome: how one item ended, well or not. *out is valid until the
 * next call with this iterator; NULL: not wanted. Blocks until there is one, or
 * until `until`; may then be repeated. One thread at a time. Python: next().
 *
 * 0                *out is the outcome, its `status` says how the item ended
 * MPROC_EOF        every item was handed out; also from then on
 * MPROC_ETIMEDOUT  the next one had not ended before the deadline
 * MPROC_ECANCELED  the pool was terminated before every item was taken
 * MPROC_EBROKEN    the pool can have no workers
 * MPROC_ENOMEM     no memory for the next item
 * MPROC_EPERM      the caller did not make the iterator
 * MPROC_EDEADLK    none is there, and called by a callback of its pool
 * MPROC_EBUSY      called by its own next(), or by two threads at a time
 * MPROC_EINVAL     no iterator, or it was freed meanwhile
 * of next()        its error, after the outcomes of the items before it
 */
MPROC_API int mproc_iter_next(mproc_iter *it, const mproc_outcome **out,
                              mproc_deadline until);

/*
 * End the iterator; NULL is taken, in another process than its maker's nothing
 * happens. Items that have not ended are cancelled, and this blocks until the
 * workers that run them have been ended, so nothing of the batch is touched any
 * more. In its own next() it is freed when that call returns.
 */
MPROC_API void mproc_iter_free(mproc_iter *it);

/* Results. */

/*
 * Wait for the end of a task and take its reply; may be repeated. Blocks until
 * it has ended or until `until`. The reply is in `buf` and its size in bytes in
 * *size; with `size` NULL it must be exactly `capacity` bytes. The size of one
 * that does not fit is stored in *size. A batch has its replies in its own
 * arrays, so there is nothing here, of size 0: (r, NULL, 0, NULL, until) waits
 * for it. Python: AsyncResult.get().
 *
 * 0                  the task, or every item of the batch, ended well
 * MPROC_ETASK, MPROC_EWORKERLOST, MPROC_EOVERTIME, MPROC_ECANCELED,
 * MPROC_EBROKEN      how the task, or the first bad item in order, ended
 * MPROC_EMSGSIZE     the reply does not fit; or so ended an item of the batch
 * MPROC_ETIMEDOUT    not ended before the deadline
 * MPROC_EPERM        the caller did not make the result
 * MPROC_EDEADLK      not ended, and called by a callback of its pool
 * MPROC_EINVAL       buf is NULL with a capacity
 */
MPROC_API int mproc_result_get(mproc_result *r, void *buf, size_t capacity,
                               size_t *size, mproc_deadline until);

/*
 * Wait until the task or batch has ended, well or not. Blocks until then or
 * until `until`. With manual_dispatch no callback runs here: a batch with an
 * on_item ends when that has been called for all, so elsewhere somebody must
 * dispatch. Python: AsyncResult.wait(), which does not tell which.
 *
 * 0                it has ended
 * MPROC_ETIMEDOUT  not yet
 * MPROC_EPERM      the caller did not make the result
 * MPROC_EDEADLK    not ended, and called by a callback of its pool
 */
MPROC_API int mproc_result_wait(mproc_result *r, mproc_deadline until);

/*
 * Whether the task or batch has ended; and whether it has ended well, false
 * while it has not ended. Python: AsyncResult.ready(), .successful().
 */
MPROC_API bool mproc_result_ready(const mproc_result *r);
MPROC_API bool mproc_result_successful(const mproc_result *r);

/*
 * Cancel the task, or all of a batch that has not ended. What has not begun
 * never runs. What runs is told so (mproc_task_canceled), and its worker is
 * killed when the grace_s of the pool are over, unless the task has returned by
 * then; the worker is replaced either way, and what the task replies is
 * dropped. Does not wait for any of it: the result is ready, with
 * MPROC_ECANCELED, once all has ended. Python: Future.cancel(), which leaves
 * alone what runs.
 *
 * 0             cancelled, now or before: of a batch, at least one item
 * MPROC_EINVAL  it has ended; nothing of it is cancelled by this call
 * MPROC_EPERM   the caller did not make the result
 */
MPROC_API int mproc_result_cancel(mproc_result *r);

/*
 * How the task ended: NULL until it has; valid until the result is freed. Has
 * no Python namesake.
 */
MPROC_API const mproc_outcome *mproc_result_outcome(const mproc_result *r);

/*
 * End the result; NULL is taken, in another process than its maker's nothing
 * happens. A task that has not ended runs on, and its callbacks are called. A
 * batch that has not ended is cancelled, and this blocks until the workers that
 * run items of it have been ended: its arrays are no longer touched then, and
 * its on_item is not called any more. That holds in callbacks too, its own
 * included, where items that have not been told by then are not told at all.
 */
MPROC_API void mproc_result_free(mproc_result *r);

#ifdef __cplusplus
}
#endif

#endif
