/* SPDX-License-Identifier: MIT */
/*
 * What a pipe is, for this layer and for tests: two ends (chan/end.h), and a
 * log each way (chan/log.h).
 *
 * What the holders' words mean for the pipe is drawn from them anew each time
 * they may have changed: an end that nobody holds is closed for ever, those who
 * wait look again, and a pipe whose ends are both closed ends. That is settling
 * it; it may be done by anybody, at any time, twice, and be stopped anywhere.
 * It is done by who closes an end, by who reaps a dead process, and by who
 * finds nobody at the other end when nothing comes.
 */
#ifndef MPR_CHAN_PIPE_H
#define MPR_CHAN_PIPE_H

#include "chan/end.h"
#include "chan/log.h"
#include "shm/object.h"

enum {
    MPR_PIPE_BYTES = 65536, /* in one direction, before a sender waits */
    MPR_PIPE_ITEMS = 65536, /* so that empty messages end as well */
};

/*
 * `log[i]` is what end i sends. It is closed only when the pipe ends; that
 * nobody is there to receive or to send is told by the ends.
 * `simplex` is written before the pipe is live.
 * Locks, Publishes, Survives: see end.h and log.h. A pipe ends when both ends
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

/* That an end belongs to, be it live or not. */
static inline struct mpr_pipe *mpr_pipe_of(const struct mproc_connection *end)
{
    const struct mproc_connection *first = end - mpr_end_which(end);
    return (struct mpr_pipe *)((uintptr_t)first -
                               offsetof(struct mpr_pipe, end));
}

/* The tag of the pipe that a handle is an end of; 0: it is of none. */
static inline uint64_t mpr_connection_tag(const struct mproc_connection *c)
{
    return mpr_likely(mpr_end_is(c)) ? mpr_object_tag(mpr_pipe_of(c), MPR_PIPE)
                                     : 0;
}

/*
 * Everybody who waits for something at this pipe looks again. Harmless, should
 * it be another pipe meanwhile.
 */
void mpr_pipe_ring(struct mpr_pipe *pipe);

/*
 * Draw the conclusions from who holds what, if it is still the pipe that had
 * this tag. `until` bounds the wait for the guard; false: it was not to be had.
 */
bool mpr_pipe_settle(struct mpr_pipe *pipe, struct mpr_thread *self,
                     uint64_t tag, mproc_deadline until);

/* Before a fork (slot.h): the child will hold what its parent holds. */
int32_t mpr_pipes_inherit(struct mpr_thread *self, mpr_id parent, mpr_id child);

/*
 * Hold every end whose handle stands in the bytes, where a pointer may stand: a
 * process that is no fork of its parent does so before that one may go on, and
 * perhaps closes them. What cannot be held within a second is held when used.
 */
void mpr_pipe_hold_in(const void *bytes, size_t size);

#endif
