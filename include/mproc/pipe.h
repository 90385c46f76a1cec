/* SPDX-License-Identifier: MIT */
/*
 * Pipe: two connected ends that carry whole messages. Python: Pipe(),
 * Connection.
 *
 * A process holds an end that it made, used, or inherited by fork from a
 * holder, until it closes it or ends, in whatever way. Children of a plain fork
 * count although they never call the library. One that is started by spawn or
 * forkserver holds the ends whose handles stand in its argument, before the
 * start returns. Pool workers inherit none: they
 * hold what they use. An end sent as bytes stays open at its sender until the
 * receiver has used it. Once the last holder of an end is gone, that end is
 * closed for ever: a use by another process answers MPROC_EINVAL. The memory
 * goes when nobody holds either end. The first use of an end in a process that
 * did not hold it may answer MPROC_ENOMEM.
 *
 * On deaths. When no process holds the other end, what was sent is still
 * received, then comes MPROC_EOF, and sending answers MPROC_EPIPE: also when
 * the last holder was killed. Killing a process at any instruction loses no
 * message that was sent, doubles none and blocks nobody. A child counts from
 * the fork on; of one that does not come, because the fork failed or it was
 * killed before it ran, that is noticed within about a second. (One that was
 * kept from running for longer finds that it holds nothing.)
 *
 * A pipe holds at least 64 KiB, and one message of any size when
 * empty. Any process of the family and any thread may call everything here, a
 * signal handler nothing. It costs no descriptor until mproc_connection_fd asks
 * for one. Calls do not block unless they say so. A handle that is NULL, of
 * another kind, or closed by this process: MPROC_EINVAL.
 */
#ifndef MPROC_PIPE_H
#define MPROC_PIPE_H

#include <mproc/base.h>
#include <mproc/deadline.h>
#include <mproc/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One end of a pipe. */
typedef struct mproc_connection mproc_connection;

/*
 * Options of a pipe; zero is the default.
 *
 * simplex   1: the first end only receives, the second only sends. Default 0:
 *           both ends do both
 * reserved  0
 */
typedef struct mproc_pipe_opts {
    int simplex;
    int reserved;
} mproc_pipe_opts;
MPROC_NO_PADDING_(mproc_pipe_opts, 2 * sizeof(int));

/* mproc_pipe_new with the size of the caller's options; call that. */
MPROC_API int mproc_pipe_new_sized(mproc_connection **a, mproc_connection **b,
                                   const mproc_pipe_opts *opts,
                                   size_t opts_size);

/*
 * Make a pipe; the caller holds both ends. `opts` NULL means all defaults.
 * Close each end in each process that holds it. Python: Pipe(duplex).
 *
 * 0              *a and *b are its ends
 * MPROC_EINVAL   a or b is NULL
 * MPROC_ENOMEM   the shared heap is full
 * MPROC_ENOTSUP  an option that this version does not know is set
 */
static inline int mproc_pipe_new(mproc_connection **a, mproc_connection **b,
                                 const mproc_pipe_opts *opts)
{
    return mproc_pipe_new_sized(a, b, opts, sizeof *opts);
}

/*
 * Send a copy of `size` bytes at `data` as one message, of any size, 0 too.
 * Blocks until there is room or `until` is reached. Python:
 * Connection.send_bytes().
 *
 * 0             the message is in the pipe and outlives its sender
 * MPROC_EFULL   no room before the deadline
 * MPROC_EPIPE   no process holds the other end
 * MPROC_EPERM   this end only receives
 * MPROC_ENOMEM  the heap is full: at once; the pipe is good as before
 * MPROC_EINVAL  data is NULL with a size
 */
MPROC_API int mproc_connection_send(mproc_connection *c, const void *data,
                                    size_t size, mproc_deadline until);

/*
 * Take the oldest message. Blocks until there is one, until no process holds
 * the other end, or until `until`. On success it is in `buf` and its size in
 * bytes in *size; with `size` NULL it must be exactly `capacity` bytes. A
 * message that does not fit stays first, and its size is stored in *size.
 * Python: Connection.recv_bytes_into().
 *
 * 0               the message is the caller's
 * MPROC_EEMPTY    nothing came before the deadline
 * MPROC_EOF       nothing is left, and no process holds the other end
 * MPROC_EMSGSIZE  it does not fit; nothing was taken
 * MPROC_EPERM     this end only sends
 * MPROC_EINVAL    buf is NULL with a capacity
 */
MPROC_API int mproc_connection_recv(mproc_connection *c, void *buf,
                                    size_t capacity, size_t *size,
                                    mproc_deadline until);

/*
 * Take the oldest message into memory of malloc: *data, to be ended by free(),
 * and *size bytes, unless `size` is NULL. A NUL byte that size does not count
 * follows, also after an empty message. Blocks as mproc_connection_recv.
 * Python: Connection.recv_bytes().
 *
 * 0             the message is the caller's
 * MPROC_EEMPTY  nothing came before the deadline
 * MPROC_EOF     nothing is left, and no process holds the other end
 * MPROC_EPERM   this end only sends
 * MPROC_ENOMEM  malloc failed; nothing was taken
 * MPROC_EINVAL  data is NULL
 */
MPROC_API int mproc_connection_recv_malloc(mproc_connection *c, void **data,
                                           size_t *size, mproc_deadline until);

/*
 * Wait until a receive would not wait: a message or end-of-file is there. Takes
 * nothing. Blocks until then or until `until`. Python: Connection.poll().
 *
 * 0                a receive would return at once
 * MPROC_ETIMEDOUT  it would still wait
 * MPROC_EPERM      this end only sends
 */
MPROC_API int mproc_connection_poll(mproc_connection *c, mproc_deadline until);

/*
 * A descriptor for poll and its kin, level-triggered: readable while a receive
 * would not wait, because there is a message or end-of-file. What the caller's
 * process does shows at once; what others do makes it readable soon after, and
 * never fails to. It may be readable although another holder of the end was
 * faster: so receive with MPROC_NOWAIT, and the MPROC_EEMPTY of that makes it
 * right again.
 *
 * It belongs to the calling process and the library: poll it, do not read or
 * close it. Asked again, it is the same. A forked child asks for one of its
 * own: what it inherits under this number tells of its parent's. It is closed
 * when this process closes the end. The first descriptor of a process brings a
 * thread of the library with it. Python: Connection.fileno().
 *
 * >= 0          the descriptor
 * MPROC_EPERM   this end only sends
 * MPROC_EMFILE, MPROC_ENFILE  no descriptor left
 * MPROC_EAGAIN  no thread left
 * MPROC_ENOMEM  no memory
 */
MPROC_API int mproc_connection_fd(mproc_connection *c);

/*
 * Close the end for this process; the other holders keep it. Once a process:
 * any use after it answers MPROC_EINVAL. Python: Connection.close().
 *
 * 0  closed
 */
MPROC_API int mproc_connection_close(mproc_connection *c);

/*
 * Store in *out the pid of a process that holds the other end, another than the
 * caller if there is one. Waits, about a second at most, for one that is just
 * being forked. Has no Python namesake.
 *
 * 0             stored
 * MPROC_EPIPE   no process holds the other end
 * MPROC_EINVAL  out is NULL
 */
MPROC_API int mproc_connection_peer_pid(mproc_connection *c, pid_t *out);

#ifdef __cplusplus
}
#endif

#endif
