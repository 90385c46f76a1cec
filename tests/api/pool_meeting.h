/* SPDX-License-Identifier: MIT */
/* Tasks that are known to run, and go on when they are told to. */
#ifndef MPROC_POOL_MEETING_H
#define MPROC_POOL_MEETING_H

#include "pool_support.h"

#include <unistd.h>

struct meeting {
    mproc_queue *here, *gate;
};

/* Says its pid before it waits. */
static inline int comes_and_waits(const void *arg, size_t size,
                                  mproc_reply *reply)
{
    const struct meeting *m = arg;
    pid_t pid = getpid();
    (void)size;
    (void)reply;
    mproc_queue_put(m->here, &pid, sizeof pid, MPROC_FOREVER);
    return mproc_queue_get(m->gate, NULL, 0, NULL, MPROC_FOREVER);
}

static inline pid_t met(const struct meeting *m)
{
    pid_t pid;
    assert_ok(mproc_queue_get(m->here, &pid, sizeof pid, NULL, TEST_BOUND));
    return pid;
}

static inline struct meeting meeting(void)
{
    return (struct meeting){queue(), queue()};
}

static inline void free_meeting(struct meeting *m)
{
    mproc_queue_free(m->here);
    mproc_queue_free(m->gate);
}

#endif
