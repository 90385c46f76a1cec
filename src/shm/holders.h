/* SPDX-License-Identifier: MIT */
/*
 * Who holds what, and who waits for what: to be drawn, not to be decided by.
 * Each answer was true at some moment of the call, but not all at the same.
 * Changes nothing, and waits for nobody.
 */
#ifndef MPR_SHM_HOLDERS_H
#define MPR_SHM_HOLDERS_H

#include "shm/object.h"

/*
 * `since_ns`, on the monotonic clock: it has held the object at least since
 * then. That is noted by the first who has to wait for it; 0: nobody has.
 */
struct mpr_holder {
    mpr_id id;
    pid_t pid;
    int64_t since_ns;
};

/* A thread asleep, for what, and since when it waits for that. */
struct mpr_sleeper {
    mpr_id id;
    pid_t pid;
    pid_t tid;
    const void *object;
    int64_t since_ns;
};

/*
 * Those who hold the object: of a lock one, of a bounded semaphore or one with
 * recovery one a unit, of a barrier one a thread that has arrived or acts. How
 * many there are; the first `room` of them in `out`.
 */
unsigned mpr_holders_of(const void *object, struct mpr_holder *out,
                        unsigned room);

/* Those who are asleep in an operation of the object; as above. */
unsigned mpr_sleepers_on(const void *object, struct mpr_sleeper *out,
                         unsigned room);

/* False: the thread is dead, awake, or asleep for nothing that is known. */
bool mpr_sleeper_at(struct mpr_thread *thread, struct mpr_sleeper *out);

#endif
