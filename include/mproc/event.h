/* SPDX-License-Identifier: MIT */
/*
 * Event: a flag that many may wait for. Python: Event.
 *
 * It belongs to the family: any process of it and any thread may use it, and
 * anyone ends it, once, when nobody uses it. It costs no descriptor.
 *
 * On deaths. A waiter that dies, by any signal at any instruction, blocks
 * nobody, and no wake-up is lost with it. Who sets waits for nobody.
 *
 * Only mproc_event_wait blocks, and only mproc_event_set may be called by a
 * signal handler. A handle that is NULL, freed or of another kind: MPROC_EINVAL
 * where an int is returned, else false.
 */
#ifndef MPROC_EVENT_H
#define MPROC_EVENT_H

#include <mproc/base.h>
#include <mproc/deadline.h>
#include <mproc/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mproc_event mproc_event;

/*
 * Make an event that is not set. Python: Event().
 *
 * 0             *out is the event; end it with mproc_event_free
 * MPROC_EINVAL  out is NULL
 * MPROC_ENOMEM  the shared heap is full
 */
MPROC_API int mproc_event_new(mproc_event **out);

/*
 * Set the flag and wake all who wait. Setting it again changes nothing. Also
 * from a signal handler. Python: Event.set().
 *
 * 0  set
 */
MPROC_API int mproc_event_set(mproc_event *e);

/*
 * Clear the flag. Clearing it again changes nothing. Python: Event.clear().
 *
 * 0  cleared
 */
MPROC_API int mproc_event_clear(mproc_event *e);

/*
 * The flag at one moment of the call. Python: Event.is_set().
 */
MPROC_API bool mproc_event_is_set(const mproc_event *e);

/*
 * Wait until the flag is set. Blocks until then or until `until`. Who was
 * waiting when it was set reports it set, also when it is cleared at once.
 * Python: Event.wait(), which misses a set that is cleared at once.
 *
 * 0                set
 * MPROC_ETIMEDOUT  not set before the deadline
 * MPROC_EINVAL     freed while this waited
 */
MPROC_API int mproc_event_wait(mproc_event *e, mproc_deadline until);

/*
 * End the event; NULL is taken. Once, by anyone, when nobody uses it: who still
 * waits for it then gets MPROC_EINVAL.
 */
MPROC_API void mproc_event_free(mproc_event *e);

#ifdef __cplusplus
}
#endif

#endif
