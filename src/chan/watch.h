/* SPDX-License-Identifier: MIT */
/*
 * Watches: descriptors that tell whether an object is ready, each a flag in
 * private memory, raised by the pump and lowered when a call of this process
 * leaves the object not ready. A forked child has none.
 */
#ifndef MPR_CHAN_WATCH_H
#define MPR_CHAN_WATCH_H

#include "shm/object.h"

/*
 * The descriptor of the object that had this tag when the call began; of a type
 * with a bell. It stays until mpr_watch_close. EMFILE, ENFILE, ENOMEM, EAGAIN:
 * no thread left.
 */
int mpr_watch_fd(struct mpr_thread *self, enum mpr_object_type type,
                 const void *handle, uint64_t tag);

extern _Atomic unsigned mpr_watches_; /* of this process */

static inline bool mpr_watch_any(void)
{
    return atomic_load_explicit(&mpr_watches_, memory_order_seq_cst) != 0;
}

void mpr_watch_settle_(struct mpr_thread *self, const void *handle);

/*
 * After a call of this process that may have made the object ready or not
 * ready: its descriptor, if there is one, tells so when this returns.
 */
static inline void mpr_watch_settle(struct mpr_thread *self, const void *handle)
{
    if (mpr_unlikely(mpr_watch_any())) {
        mpr_watch_settle_(self, handle);
    }
}

/* The pump: raise what has become ready. */
void mpr_watch_settle_all(struct mpr_thread *self);

/*
 * This process is done with the object that had this tag. Who polls the
 * descriptor is woken.
 */
void mpr_watch_close(const void *handle, uint64_t tag);

#endif
