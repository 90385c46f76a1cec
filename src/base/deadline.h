/* SPDX-License-Identifier: MIT */
/* The arithmetic of deadlines; the clock itself is in os. */
#ifndef MPR_BASE_DEADLINE_H
#define MPR_BASE_DEADLINE_H

#include <mproc/deadline.h>

/*
 * `now_ns` plus `count` units of `unit_ns`: negative and NaN are now, too large
 * is for ever.
 */
mproc_deadline mpr_deadline_after(int64_t now_ns, double count, double unit_ns);

static inline bool mpr_deadline_is_forever(mproc_deadline d)
{
    return d.at_ns == INT64_MAX;
}

/* True when it takes no look at the clock to know that `d` has passed. */
static inline bool mpr_deadline_is_nowait(mproc_deadline d)
{
    return d.at_ns <= 0;
}

static inline mproc_deadline mpr_deadline_earlier(mproc_deadline a,
                                                  mproc_deadline b)
{
    return a.at_ns < b.at_ns ? a : b;
}

#endif
