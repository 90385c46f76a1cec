/* SPDX-License-Identifier: MIT */
/* What a queue is, for this layer and for tests. */
#ifndef MPR_CHAN_QUEUE_H
#define MPR_CHAN_QUEUE_H

#include <mproc/queue.h>

#include "chan/log.h"
#include "shm/object.h"

enum { MPR_QUEUE_OPEN, MPR_QUEUE_SHUT, MPR_QUEUE_DROPPED };

/*
 * `shut` says how the queue was shut down; it only grows. Stored when the log
 * is closed, so that nothing is put any more: what is still in a DROPPED queue
 * is discarded by whoever meets it.
 * `done` is the bell of those who join.
 * Locks, Publishes, Survives: see log.h; `shut` is one store.
 */
struct mproc_queue {
    struct mpr_object object;
    _Atomic uint32_t shut;
    alignas(MPR_LINE) _Atomic uint32_t done;
    struct mpr_log log;
};

static_assert(sizeof(struct mproc_queue) <= 4096, "an empty queue is small");

#endif
