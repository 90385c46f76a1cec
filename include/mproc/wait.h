/* SPDX-License-Identifier: MIT */
/*
 * Waiting for many things at once. Python: multiprocessing.connection.wait().
 *
 * Queues, connections, processes, events, results and descriptors, all kinds
 * mixed, any number of them. Nothing is taken from what is ready: get, receive
 * or join it afterwards. Where others take from the same queue or connection,
 * they may have been faster by then: do so with MPROC_NOWAIT.
 *
 * On deaths. Whoever is killed at any instruction, this wait ends when one of
 * the things is ready. It costs no descriptor while it waits for queues,
 * connections, events and results only; with processes or descriptors among
 * them it has one while it waits, and with both sorts its process has one more
 * thread, which serves all its waits and its descriptors of queues and
 * connections, and ends a second after the last of them.
 *
 * Any thread may call this, no signal handler. A signal that is handled does
 * not end the wait.
 */
#ifndef MPROC_WAIT_H
#define MPROC_WAIT_H

#include <mproc/base.h>
#include <mproc/deadline.h>
#include <mproc/error.h>
#include <mproc/event.h>
#include <mproc/pipe.h>
#include <mproc/pool.h>
#include <mproc/process.h>
#include <mproc/queue.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * One thing to wait for, made by the functions below. It may be copied, used
 * any number of times and given to other processes of the family as bytes. A
 * zeroed one is skipped: so one leaves the set without moving the others.
 */
typedef struct mproc_waitable {
    uint64_t private_[4];
} mproc_waitable;

/*
 * What is ready when. They do not block and never fail: what is no handle, or
 * is freed by the time, is told by mproc_wait.
 *
 * queue       mproc_queue_get would not wait: a message, or it is shut down
 * connection  mproc_connection_recv would not wait: a message, or the end
 * process     a child of the caller that has ended
 * event       it is set, or was set while this waited and cleared since
 * result      the task or batch has ended
 * fd          a read would not wait, as poll says: data, the end, an error
 */
MPROC_API mproc_waitable mproc_waitable_queue(const mproc_queue *q);
MPROC_API mproc_waitable mproc_waitable_connection(const mproc_connection *c);
MPROC_API mproc_waitable mproc_waitable_process(const mproc_process *p);
MPROC_API mproc_waitable mproc_waitable_event(const mproc_event *e);
MPROC_API mproc_waitable mproc_waitable_result(const mproc_result *r);
MPROC_API mproc_waitable mproc_waitable_fd(int fd);

/*
 * Wait until one of the `count` things at `what` is ready. Blocks until then or
 * until `until`. *ready is the index of one that is, unless `ready` is NULL.
 * When several are, calls one after the other on the same set tell each in
 * turn; whatever the sets, none that stays ready is passed over for ever. All
 * are looked at, so a bad one is told also where another is ready; which it is
 * is not told.
 *
 * An empty set, or one of zeroed waitables only, is never ready: the call ends
 * at its deadline, and answers at once where it would have none.
 *
 * 0                *ready is stored
 * MPROC_ETIMEDOUT  none was ready before the deadline
 * MPROC_EINVAL     one was freed, also while this waited; one is no handle, a
 *                  connection that this process has closed, a process that was
 *                  not started, or no descriptor; or what is NULL with a count
 * MPROC_EPERM      a process or a result that the caller did not make, or an
 *                  end of a pipe that only sends
 * MPROC_EDEADLK    nothing to wait for and no deadline; the caller's own
 *                  process; or a result that has not ended, in a callback of
 *                  its pool
 * MPROC_ENOMEM     no memory
 * MPROC_EMFILE, MPROC_ENFILE  no descriptor left
 * MPROC_EAGAIN     no thread left
 */
MPROC_API int mproc_wait(const mproc_waitable *what, size_t count,
                         size_t *ready, mproc_deadline until);

#ifdef __cplusplus
}
#endif

#endif
