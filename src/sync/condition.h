/* SPDX-License-Identifier: MIT */
/* What a Condition is; for its tests. */
#ifndef MPR_SYNC_CONDITION_H
#define MPR_SYNC_CONDITION_H

#include <mproc/condition.h>

#include "sync/relock.h"
#include "sync/waiters.h"

/*
 * `lock` and `lock_tag` are the user's lock as when the condition was made;
 * NULL: the lock is `own`. Written by the maker.
 * The rest: see struct mpr_relock and struct mpr_waiters, whose words tell what
 * they are locked by, publish and survive.
 */
struct mproc_condition {
    struct mpr_object object;
    mproc_lock *_Atomic lock;
    _Atomic uint64_t lock_tag;
    struct mpr_relock own;
    struct mpr_waiters waiters;
};

static_assert(sizeof(struct mproc_condition) <= 2 * MPR_LINE,
              "two lines a condition");

#endif
