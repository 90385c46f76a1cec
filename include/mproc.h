/* SPDX-License-Identifier: MIT */
/*
 * libmproc: what Python's multiprocessing gives Python, for C. This header
 * includes every topic; each can be included alone. Who knows the Python name
 * guesses the C name: Pool.apply_async is mproc_pool_apply_async.
 *
 * No call is needed to begin. The first one of the library makes the family's
 * shared memory, and each process and thread is entered there at its first
 * call. So besides the outcomes that stand with each function, a first call may
 * answer what the system or the limits of mproc_configure refuse: MPROC_ENOMEM,
 * MPROC_EAGAIN, MPROC_EMFILE, MPROC_ENFILE. MPROC_EBROKEN from any call: the
 * object is beyond repair.
 *
 * The library prints nothing, installs no signal handler and reaps only its own
 * children. It ends the process only where going on would corrupt memory that
 * others use. It leaves nothing behind in the file system.
 */
#ifndef MPROC_H
#define MPROC_H

#include <mproc/barrier.h>
#include <mproc/base.h>
#include <mproc/condition.h>
#include <mproc/deadline.h>
#include <mproc/error.h>
#include <mproc/event.h>
#include <mproc/lock.h>
#include <mproc/pipe.h>
#include <mproc/pool.h>
#include <mproc/process.h>
#include <mproc/queue.h>
#include <mproc/shared.h>
#include <mproc/wait.h>

#endif
