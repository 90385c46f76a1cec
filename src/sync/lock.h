/* SPDX-License-Identifier: MIT */
/* What a Lock is; for conditions over one. */
#ifndef MPR_SYNC_LOCK_H
#define MPR_SYNC_LOCK_H

#include <mproc/lock.h>

#include "sync/hold.h"

/* See struct mpr_hold. */
struct mproc_lock {
    struct mpr_object object;
    struct mpr_hold hold;
};

static_assert(sizeof(struct mproc_lock) <= MPR_LINE, "one line a lock");

/* False: not the handle of a live lock. */
static inline bool mpr_lock_hold(mproc_lock *l, struct mpr_hold_of *of)
{
    uint64_t tag = mpr_object_tag(l, MPR_LOCK);
    if (mpr_unlikely(tag == 0)) {
        return false;
    }
    *of = (struct mpr_hold_of){.hold = &l->hold, .object = l, .tag = tag};
    return true;
}

#endif
