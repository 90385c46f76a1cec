/* SPDX-License-Identifier: MIT */
/*
 * Every outcome of the library: one map of name, value and text. Negative is
 * failure, 0 is success, positive is success with news. A value is -errno where
 * an errno says it, else from -20001 down.
 */
#ifndef MPROC_ERROR_H
#define MPROC_ERROR_H

#include <errno.h>

#include <mproc/base.h>

/*
 * X(name, value, text) for each outcome. The comments name Python's exception.
 */
/* clang-format off */
#define MPROC_ERROR_MAP(X) \
    X(MPROC_OK, 0, "success") \
    X(MPROC_RECOVERED, 1, "acquired, but its last holder died holding it") \
    /* no errno says these */ \
    X(MPROC_EEMPTY, -20001, "nothing to take") /* queue.Empty */ \
    X(MPROC_EFULL, -20002, "no room") /* queue.Full */ \
    /* pebble's TimeoutError */ \
    X(MPROC_EOVERTIME, -20003, "the task ran longer than allowed") \
    /* EOFError, StopIteration */ \
    X(MPROC_EOF, -20004, "end of data: no writer is left") \
    X(MPROC_EBROKEN, -20005, "broken") /* BrokenBarrierError, …ProcessPool */ \
    /* BrokenProcessPool */ \
    X(MPROC_EWORKERLOST, -20006, "the process that was to do it died") \
    X(MPROC_ETASK, -20007, "the task failed") /* the task's own exception */ \
    /* an errno says these */ \
    /* TimeoutError, False */ \
    X(MPROC_ETIMEDOUT, -ETIMEDOUT, "deadline reached") \
    X(MPROC_EPIPE, -EPIPE, "no reader is left") /* BrokenPipeError */ \
    X(MPROC_EMSGSIZE, -EMSGSIZE, "message does not fit") /* BufferTooShort */ \
    X(MPROC_ESHUTDOWN, -ESHUTDOWN, "shut down or closed") /* queue.ShutDown */ \
    X(MPROC_ECANCELED, -ECANCELED, "cancelled") /* CancelledError */ \
    X(MPROC_EDEADLK, -EDEADLK, "this wait could never end") \
    /* ValueError */ \
    X(MPROC_EINVAL, -EINVAL, "invalid argument, or not a live handle") \
    X(MPROC_EPERM, -EPERM, "not the owner") /* AssertionError */ \
    X(MPROC_ENOMEM, -ENOMEM, "out of memory") \
    X(MPROC_EAGAIN, -EAGAIN, \
      "not now: still running, or a limit of processes or threads is reached") \
    X(MPROC_EMFILE, -EMFILE, "too many open descriptors in this process") \
    X(MPROC_ENFILE, -ENFILE, "too many open descriptors in the system") \
    X(MPROC_ENOTSUP, -ENOTSUP, "not supported") \
    X(MPROC_ECHILD, -ECHILD, \
      "exit status unknown: someone else reaped the process") \
    X(MPROC_ENOENT, -ENOENT, "no such function in the new process") \
    X(MPROC_EADDRINUSE, -EADDRINUSE, \
      "the addresses of the shared memory are taken") \
    X(MPROC_ESRCH, -ESRCH, "no such process") \
    X(MPROC_EOVERFLOW, -EOVERFLOW, "value too large") \
    X(MPROC_EFBIG, -EFBIG, "file size limit reached") \
    X(MPROC_ENOSPC, -ENOSPC, "no space left") \
    X(MPROC_EACCES, -EACCES, "permission denied") \
    X(MPROC_ENOSYS, -ENOSYS, "not provided by this system") \
    X(MPROC_EBADF, -EBADF, "bad descriptor") \
    X(MPROC_EBUSY, -EBUSY, "in use") \
    X(MPROC_EIO, -EIO, "input or output error")
/* clang-format on */

typedef enum mproc_error {
#define MPROC_ERROR_ENUM_(name, value, text) name = (value),
    MPROC_ERROR_MAP(MPROC_ERROR_ENUM_)
#undef MPROC_ERROR_ENUM_
} mproc_error;

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The text of an outcome: constant, never NULL, for every int (one that is no
 * outcome of the library has the text "unknown error"). Any thread, any time,
 * also from a signal handler. Python: str(exception).
 */
MPROC_API const char *mproc_strerror(int error);

/*
 * The name of an outcome as written in C, such as "MPROC_EFULL"; "MPROC_E?" for
 * an int that is none. Constant, never NULL; any thread, any time, also from a
 * signal handler.
 */
MPROC_API const char *mproc_error_name(int error);

#ifdef __cplusplus
}
#endif

#endif
