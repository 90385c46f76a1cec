/* SPDX-License-Identifier: MIT */
/* A call on an end of a pipe, for the files that such calls are made of. */
#ifndef MPR_CHAN_CONNECTION_H
#define MPR_CHAN_CONNECTION_H

#include "chan/pipe.h"
#include "chan/watch.h"

/* Who makes it, on which end of which pipe, as that was when it began. */
struct mpr_connection_call {
    struct mpr_pipe *pipe;
    struct mproc_connection *end;
    struct mproc_connection *other;
    struct mpr_log *out;
    struct mpr_log *in;
    struct mpr_thread *self;
    uint64_t tag;
    uintptr_t outer;
    mproc_deadline until; /* bounds also the waits for guards */
};

/*
 * From here on the caller's process holds the end, and others are told if it
 * dies. EINVAL: the handle is none, the pipe has ended, or this process has
 * closed the end. `busy`: what to answer when the deadline passes before the
 * call has begun.
 */
int mpr_connection_begin(struct mpr_connection_call *call, mproc_connection *c,
                         mproc_deadline until, int busy);

/* Returns `err`. */
int mpr_connection_end(const struct mpr_connection_call *call, int err);

/* Is it still the pipe that the call began on? */
static inline bool
mpr_connection_unchanged(const struct mpr_connection_call *call)
{
    return mpr_object_unchanged(call->pipe, call->tag);
}

/* After nothing came of an attempt: `err`, if waiting is still of use. */
int mpr_connection_still(const struct mpr_connection_call *call, int err);

/*
 * Hold the end, where it is not told by its first words that this process does.
 * EINVAL: not any more. ETIMEDOUT: somebody has the guard for long. ENOMEM.
 */
int mpr_connection_hold_slowly(const struct mpr_connection_call *call);

/* How an end is waited for among many things (object.h). */
extern const struct mpr_object_wait mpr_connection_wait;

#endif
