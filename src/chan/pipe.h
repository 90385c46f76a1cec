/* SPDX-License-Identifier: MIT */
/* What a pipe is, for this layer and for tests. */
#ifndef MPR_CHAN_PIPE_H
#define MPR_CHAN_PIPE_H

#include <mproc/pipe.h>

#include "chan/log.h"
#include "shm/object.h"

enum {
    MPR_PIPE_BYTES = 65536, /* in one direction, before a sender waits */
    MPR_PIPE_ITEMS = 65536, /* so that empty messages end as well */
    MPR_HOLDERS_FIRST = 5,
    MPR_HOLDERS_A_CHUNK = 30,
};

/*
 * A word of a holder is the id of a process. MPR_HOLDER_CLOSED beside it: that
 * process has closed the end, and may not use it again.
 */
#define MPR_HOLDER_CLOSED UINT64_C(1)

struct mpr_holder_chunk {
    struct mpr_holder_chunk *next;
    uint64_t reserved;
    _Atomic mpr_id holder[MPR_HOLDERS_A_CHUNK];
};

/*
 * One end, and the handle of it. `mark` tells a handle from other memory, and
 * which of the two ends it is; it lasts over reuse of the pipe.
 * `holder`, and the words of the chunks at `more`: who holds the end. A word
 * whose process is dead holds nothing, and is free for another. `closed`: the
 * last holder was gone once; nobody becomes one any more.
 * Locks: the pipe's guard, for all stores, and for what is behind `more`; the
 * first words and `closed` are read without.
 * Publishes: each word for itself. Survives: every change is one store. Who is
 * killed before it has told others is dead, and whoever reaps him settles the
 * pipe anew.
 */
struct mproc_connection {
    alignas(MPR_LINE) uint64_t mark;
    _Atomic uint32_t closed;
    uint32_t reserved;
    struct mpr_holder_chunk *_Atomic more;
    _Atomic mpr_id holder[MPR_HOLDERS_FIRST];
};

static_assert(sizeof(struct mproc_connection) == MPR_LINE, "one line an end");

/* The tag of the pipe that a handle is an end of; 0: it is of none. */
uint64_t mpr_connection_tag(const mproc_connection *c);

/*
 * Hold every end whose handle stands in the bytes, where a pointer may stand: a
 * process that is no fork of its parent does so before that one may go on, and
 * perhaps closes them. What cannot be held within a second is held when used.
 */
void mpr_pipe_hold_in(const void *bytes, size_t size);

/*
 * `log[i]` is what end i sends. It is closed only when the pipe ends; that
 * nobody is there to receive or to send is told by the ends.
 * `simplex` is written before the pipe is live.
 * Locks, Publishes, Survives: see above and log.h. A pipe ends when both ends
 * are closed; if the one who closed the second one is killed before he has
 * ended it, his reaper does.
 */
struct mpr_pipe {
    struct mpr_object object;
    uint32_t simplex;
    struct mproc_connection end[2];
    alignas(MPR_LINE) struct mpr_guard guard;
    struct mpr_log log[2];
};

#endif
