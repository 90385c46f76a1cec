/* SPDX-License-Identifier: MIT */
/*
 * Queue: messages of any size from any process to any other, each taken by one.
 * Python: Queue, JoinableQueue, LifoQueue, PriorityQueue.
 *
 * There is no feeder thread: when put returns, the message is in the queue and
 * outlives its sender. Joining a process before draining its queue is safe.
 * Messages of one producer stay in order, except where the queue has another.
 *
 * On deaths. Killing any participant at any instruction loses no message that
 * was put, doubles none, leaks none and blocks nobody. What a consumer of a
 * joinable queue took and had not acknowledged when it ended, in whatever way,
 * counts as done, or, with `redeliver`, goes back; so join ends. A loan that a
 * process had when it ended is given up, a message that it had taken in place
 * is gone with it, unless redelivered.
 *
 * A queue belongs to the family: any process of it and any thread may use it,
 * and anyone ends it, once, when nobody uses it. It costs no descriptor until
 * mproc_queue_fd asks for one. Calls do not block unless they say so; none may
 * be made by a signal handler. A handle that is NULL, freed or of another kind:
 * MPROC_EINVAL where an int is returned, else false or 0. Calls that wait
 * answer MPROC_EINVAL when the queue is freed meanwhile.
 */
#ifndef MPROC_QUEUE_H
#define MPROC_QUEUE_H

#include <mproc/base.h>
#include <mproc/deadline.h>
#include <mproc/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mproc_queue mproc_queue;

/* The order of a queue. Python: Queue, LifoQueue, PriorityQueue. */
enum {
    MPROC_FIFO = 0,
    MPROC_LIFO,    /* the last that was put is the first to be taken */
    MPROC_PRIORITY /* lowest first, first come first served among equals */
};

/*
 * Options of a queue; zero is the default.
 *
 * maxsize    messages it holds at most, those on loan included. Default: no
 *            limit but the heap's
 * order      MPROC_FIFO is the default
 * joinable   1: mproc_queue_task_done and mproc_queue_join are served
 * redeliver  1: joinable, and what a dead consumer took and had not
 *            acknowledged goes back, first in line, also when the queue is
 *            full or shut down: once its death is noticed, which mproc_process
 *            calls and whoever waits for a message do
 * reserved   0
 */
typedef struct mproc_queue_opts {
    size_t maxsize;
    int order;
    int joinable;
    int redeliver;
    int reserved;
} mproc_queue_opts;
MPROC_NO_PADDING_(mproc_queue_opts, sizeof(size_t) + 4 * sizeof(int));

/* mproc_queue_new with the size of the caller's options; call that. */
MPROC_API int mproc_queue_new_sized(mproc_queue **out,
                                    const mproc_queue_opts *opts,
                                    size_t opts_size);

/*
 * Make an empty queue. `opts` NULL means all defaults. Python: Queue(maxsize).
 *
 * 0              *out is the queue; end it with mproc_queue_free
 * MPROC_EINVAL   out is NULL, or an option is absurd
 * MPROC_ENOMEM   the shared heap is full
 * MPROC_ENOTSUP  an option is set that this version does not serve or know
 */
static inline int mproc_queue_new(mproc_queue **out,
                                  const mproc_queue_opts *opts)
{
    return mproc_queue_new_sized(out, opts, sizeof *opts);
}

/*
 * Put a copy of `size` bytes at `data`, or, with putf, the text that printf
 * would print with its NUL. Any size that the heap holds, 0 too. The order of
 * the queue says its place among the others; in one of MPROC_PRIORITY it has
 * the priority 0. Blocks until there is room or `until` is reached. Python:
 * Queue.put().
 *
 * 0                the message is in the queue
 * MPROC_EFULL      no room before the deadline
 * MPROC_ESHUTDOWN  the queue is shut down
 * MPROC_ENOMEM     the heap is full: at once, whatever the deadline; the queue
 *                  is good as before
 * MPROC_EINVAL     data is NULL with a size, or the text cannot be formatted
 */
MPROC_API int mproc_queue_put(mproc_queue *q, const void *data, size_t size,
                              mproc_deadline until);
MPROC_API int mproc_queue_putf(mproc_queue *q, mproc_deadline until,
                               const char *fmt, ...) MPROC_PRINTF(3, 4);

/*
 * As mproc_queue_put with a priority, in a queue of MPROC_PRIORITY: it is taken
 * before all that have a higher number, and after those put earlier with the
 * same. Putting and taking cost the logarithm of how many there are. Python:
 * PriorityQueue.put((priority, data)).
 *
 * MPROC_EINVAL  also for a queue of another order
 */
MPROC_API int mproc_queue_put_priority(mproc_queue *q, int64_t priority,
                                       const void *data, size_t size,
                                       mproc_deadline until);

/*
 * Take the message that is first by the queue's order: the oldest, the newest,
 * or the oldest of those with the lowest priority. Blocks until there is one or
 * `until` is reached. On success it is in `buf` and its size in bytes in *size;
 * with `size` NULL it must be exactly `capacity` bytes. A message that does not
 * fit stays in its place, and its size is stored in *size. Python: Queue.get().
 *
 * 0                the message is the caller's
 * MPROC_EEMPTY     nothing came before the deadline
 * MPROC_EMSGSIZE   it does not fit; nothing was taken
 * MPROC_ESHUTDOWN  shut down, and nothing is left
 * MPROC_ENOMEM     joinable, and the heap has no room to note who took it;
 *                  nothing was taken
 * MPROC_EINVAL     buf is NULL with a capacity
 */
MPROC_API int mproc_queue_get(mproc_queue *q, void *buf, size_t capacity,
                              size_t *size, mproc_deadline until);

/*
 * Take the first message into memory of malloc: *data, to be ended by free(),
 * and *size bytes, unless `size` is NULL. A NUL byte that size does not count
 * follows, also after an empty message. Blocks as mproc_queue_get. Python:
 * Queue.get().
 *
 * 0                the message is the caller's
 * MPROC_EEMPTY     nothing came before the deadline
 * MPROC_ESHUTDOWN  shut down, and nothing is left
 * MPROC_ENOMEM     malloc failed, or as mproc_queue_get; nothing was taken
 * MPROC_EINVAL     data is NULL
 */
MPROC_API int mproc_queue_get_malloc(mproc_queue *q, void **data, size_t *size,
                                     mproc_deadline until);

/*
 * Put or take many at once, `count` messages of `item_size` bytes each, one
 * behind the other at `items`: what a loop of put or get does, in less time.
 * put_many blocks until there was room for all or `until` is reached; get_many
 * waits for the first only, then takes what is there, up to a message of
 * another size, which stays first. At most INT_MAX go in one call. If the
 * process is killed meanwhile, some of them may have gone.
 *
 * n > 0            n went through: the first n of `items`
 * 0                count is 0
 * negative         none did: as mproc_queue_put and mproc_queue_get, and
 * MPROC_EMSGSIZE   get_many: the first is not exactly item_size bytes
 * MPROC_EINVAL     items is NULL with a size, or the sizes overflow
 */
MPROC_API int mproc_queue_put_many(mproc_queue *q, const void *items,
                                   size_t item_size, size_t count,
                                   mproc_deadline until);
MPROC_API int mproc_queue_get_many(mproc_queue *q, void *items,
                                   size_t item_size, size_t count,
                                   mproc_deadline until);

/*
 * A message that lies in the shared heap, outside of the queue: on loan, to be
 * written and sent, or taken, to be read in place. `data` is aligned for any
 * type; a NUL byte that `size` does not count follows it. `private_` is the
 * library's. It belongs to the process that got it: any thread of that may end
 * it, a forked child has no part in it. The struct may be copied; it ends once,
 * and with its queue.
 */
typedef struct mproc_message {
    void *data;
    size_t size;
    void *private_[4];
} mproc_message;

/*
 * Have a message of `size` bytes on loan: write it at m->data, then send it, or
 * give it up with mproc_message_release. What is there at first is arbitrary.
 * Blocks until there is room or `until` is reached; the place is kept for it,
 * so that sending never waits.
 *
 * 0                *m is on loan
 * MPROC_EFULL      no room before the deadline
 * MPROC_ESHUTDOWN  the queue is shut down
 * MPROC_ENOMEM     the heap is full: at once, whatever the deadline
 * MPROC_EINVAL     m is NULL
 */
MPROC_API int mproc_queue_loan(mproc_queue *q, mproc_message *m, size_t size,
                               mproc_deadline until);

/*
 * Put a message that is on loan, without copying it: its place in the queue is
 * that of a put at this moment. m->size may be smaller by now, to put only that
 * much. Does not block. After a failure the loan is as before: release it.
 *
 * 0                the message is in the queue, and *m is empty
 * MPROC_ESHUTDOWN  the queue is shut down
 * MPROC_ENOMEM     the heap is full
 * MPROC_EINVAL     m is NULL, not on loan from this queue to this process (any
 *                  more), or its data or a larger size was stored in it
 */
MPROC_API int mproc_queue_send(mproc_queue *q, mproc_message *m);

/*
 * Take the next message without copying it: it is at m->data, m->size bytes,
 * which may also be written, until mproc_message_release. Blocks until there is
 * one or `until` is reached.
 *
 * 0                *m is the caller's
 * MPROC_EEMPTY     nothing came before the deadline
 * MPROC_ESHUTDOWN  shut down, and nothing is left
 * MPROC_ENOMEM     the heap is full; nothing was taken
 * MPROC_EINVAL     m is NULL
 */
MPROC_API int mproc_queue_take(mproc_queue *q, mproc_message *m,
                               mproc_deadline until);

/*
 * Give a loan up, or end a message that was taken: in a joinable queue that
 * acknowledges exactly this one, for which there is no mproc_queue_task_done.
 * *m is empty afterwards. What is empty, NULL, not out any more, or another
 * process's, is left as it is. Does not block.
 */
MPROC_API void mproc_message_release(mproc_message *m);

/*
 * How many messages there are, whether there is none, and whether maxsize is
 * reached, counting what is on loan (never without a maxsize): exact at one
 * moment of the call. After a
 * put of one's own that nobody took the queue is not empty. Python:
 * Queue.qsize(), .empty(), .full().
 */
MPROC_API size_t mproc_queue_qsize(const mproc_queue *q);
MPROC_API bool mproc_queue_empty(const mproc_queue *q);
MPROC_API bool mproc_queue_full(const mproc_queue *q);

/*
 * Acknowledge one message that was got: the oldest that the calling thread
 * took, else its process's, else, without `redeliver`, anyone's. Python:
 * JoinableQueue.task_done().
 *
 * 0             one less to wait for in mproc_queue_join
 * MPROC_EINVAL  more often than messages were got, or not joinable
 */
MPROC_API int mproc_queue_task_done(mproc_queue *q);

/*
 * Wait until every message that was put has been got and acknowledged. Blocks
 * until then or until `until`; may be repeated. Python: JoinableQueue.join().
 *
 * 0                nothing is unfinished
 * MPROC_ETIMEDOUT  something still is
 * MPROC_EINVAL     not joinable
 */
MPROC_API int mproc_queue_join(mproc_queue *q, mproc_deadline until);

/*
 * Shut the queue down for all processes: from now on put answers
 * MPROC_ESHUTDOWN, and get hands out the rest, then MPROC_ESHUTDOWN too. With
 * `immediate` the rest is dropped and counts as done. Wakes all whose wait this
 * ends. Python: queue.Queue.shutdown().
 *
 * 0  it is shut down, now or before
 */
MPROC_API int mproc_queue_shutdown(mproc_queue *q, bool immediate);

/*
 * A descriptor for poll and its kin, level-triggered: readable while a get
 * would not wait, because there is a message or the queue is shut down. What
 * the caller's process does shows at once; a message from another process
 * makes it readable soon after it is there, and never fails to. It may be
 * readable although another process was faster: so get with MPROC_NOWAIT, and
 * the MPROC_EEMPTY of that makes it right again.
 *
 * It belongs to the calling process and the library: poll it, do not read or
 * close it. Asked again, it is the same. A forked child asks for one of its
 * own: what it inherits under this number tells of its parent's. It is closed
 * when this process frees the queue; when another does, it is readable from
 * then on, and closed when the queue that takes the place of this one is asked
 * for its own. The first descriptor of a process brings a thread of the
 * library with it. Python: Queue._reader.fileno().
 *
 * >= 0          the descriptor
 * MPROC_EMFILE, MPROC_ENFILE  no descriptor left
 * MPROC_EAGAIN  no thread left
 * MPROC_ENOMEM  no memory
 */
MPROC_API int mproc_queue_fd(mproc_queue *q);

/*
 * End the queue and the messages in it; NULL is taken. Once, by anyone, when
 * nobody uses it: who still waits for it then gets MPROC_EINVAL.
 */
MPROC_API void mproc_queue_free(mproc_queue *q);

/*
 * MPROC_PUT(q, struct item, .x = 2)
 * MPROC_GET(q, struct item, &it)
 *
 * Put one value of a type, made from an initialiser, and take one, which must
 * be exactly as large; the pointer must be one to that type. Both wait for ever
 * and give the int of mproc_queue_put and mproc_queue_get; to end those who
 * wait, shut the queue down. In C++ the type must be trivially copyable, and
 * designated initialisers need C++20.
 */
#ifdef __cplusplus
extern "C++" {
template <typename T> using mproc_type_ = T;

template <typename T>
inline int mproc_put_value_(mproc_queue *q, const T &value)
{
    static_assert(__is_trivially_copyable(T), "bytes must be all of it");
    return mproc_queue_put(q, &value, sizeof value, MPROC_FOREVER);
}

template <typename T>
inline int mproc_get_value_(mproc_queue *q, mproc_type_<T> *value)
{
    static_assert(__is_trivially_copyable(T), "bytes must be all of it");
    return mproc_queue_get(q, value, sizeof *value, nullptr, MPROC_FOREVER);
}
}
#define MPROC_PUT(q, type, ...) \
    mproc_put_value_<type>((q), mproc_type_<type>{__VA_ARGS__})
#define MPROC_GET(q, type, pointer) mproc_get_value_<type>((q), (pointer))
#else
#define MPROC_PUT(q, type, ...) \
    mproc_queue_put((q), &(type){__VA_ARGS__}, sizeof(type), MPROC_FOREVER)
#define MPROC_TYPED_(type, pointer) _Generic((pointer), type * : (pointer))
#define MPROC_GET(q, type, pointer)                                       \
    mproc_queue_get((q), MPROC_TYPED_(type, pointer), sizeof(type), NULL, \
                    MPROC_FOREVER)
#endif

#ifdef __cplusplus
}
#endif

#endif
