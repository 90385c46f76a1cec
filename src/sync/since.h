/* SPDX-License-Identifier: MIT */
/*
 * Since when at least somebody holds something, in one word beside the one that
 * names him: {microseconds:48 | number of his slot:16}. To read the clock at
 * each acquire would be too slow, so it is noted by the first who has to wait.
 * Who releases clears it before; but one who is late to note can be later than
 * that, so the slot's number tells whom it is about. (Only of a process that
 * has released and taken it again in between, a waiter that was stopped just
 * before it notes tells too early a time.)
 */
#ifndef MPR_SYNC_SINCE_H
#define MPR_SYNC_SINCE_H

#include "shm/slot.h"

static inline uint64_t mpr_since_of(mpr_id holder, int64_t now_ns)
{
    return (uint64_t)(now_ns / 1000) << 16 | (uint16_t)((uint32_t)holder >> 1);
}

/* On the monotonic clock; 0: nothing is noted about this holder. */
static inline int64_t mpr_since_ns(uint64_t since, mpr_id holder)
{
    bool about_him = (uint16_t)since == (uint16_t)((uint32_t)holder >> 1);
    return about_him ? (int64_t)(since >> 16) * 1000 : 0;
}

#endif
