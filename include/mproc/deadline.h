/* SPDX-License-Identifier: MIT */
/*
 * Deadlines: the last argument of every call that may wait. A deadline is a
 * moment of the monotonic clock, so several calls can share one budget, and
 * changes of the wall clock do not matter. A signal handled meanwhile does not
 * end a wait early.
 */
#ifndef MPROC_DEADLINE_H
#define MPROC_DEADLINE_H

#include <mproc/base.h>

/*
 * A moment in nanoseconds of CLOCK_MONOTONIC; what has passed means "do not
 * wait", INT64_MAX means "for ever". Made by the macros and functions below.
 * Valid in every process of one machine.
 */
typedef struct mproc_deadline {
    int64_t at_ns;
} mproc_deadline;

#ifdef __cplusplus
extern "C" {
#endif

static inline mproc_deadline mproc_deadline_at_(int64_t at_ns)
{
    mproc_deadline d;
    d.at_ns = at_ns;
    return d;
}

/* Wait for ever. Python: timeout=None. */
#define MPROC_FOREVER mproc_deadline_at_(INT64_MAX)

/* Try once, do not wait. Python: block=False, timeout=0. */
#define MPROC_NOWAIT mproc_deadline_at_(INT64_MIN)

/*
 * The moment `ms` milliseconds (`s` seconds) from now. Negative and NaN
 * durations mean now, those too large for the clock mean for ever. Does not
 * block; any thread, any time.
 */
MPROC_API mproc_deadline mproc_in_ms(double ms);
MPROC_API mproc_deadline mproc_in_s(double s);

#ifdef __cplusplus
}
#endif

#endif
