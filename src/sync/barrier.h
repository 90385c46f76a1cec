/* SPDX-License-Identifier: MIT */
/* What a Barrier is; for its tests. */
#ifndef MPR_SYNC_BARRIER_H
#define MPR_SYNC_BARRIER_H

#include <mproc/barrier.h>

#include "shm/object.h"

/*
 * `state` is {generation:32 | number:29 | phase:3}; barrier.c tells how it
 * moves. The generation goes on over all barriers that were ever in this place.
 * Who waits sleeps on `bell`. The rest is written by the maker.
 */
struct mproc_barrier {
    struct mpr_object object;
    _Atomic uint64_t state;
    _Atomic uint32_t bell;
    _Atomic uint32_t parties;
    int (*_Atomic action)(void *user);
    void *_Atomic user;
};

static_assert(sizeof(struct mproc_barrier) <= MPR_LINE, "one line a barrier");

#endif
