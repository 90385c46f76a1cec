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

/* Are there watches in this process, or is one about to be? */
bool mpr_watch_any(void);

/* The lists that have watches, a bit each; they lie in lists by the handle. */
extern _Atomic uint64_t mpr_watch_lists_;

static inline unsigned mpr_watch_list_of_(const void *handle)
{
    uint64_t spread = (uintptr_t)handle * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(spread >> 58);
}

void mpr_watch_settle_(struct mpr_thread *self, const void *handle);

/*
 * After a call of this process that may have made the object ready or not
 * ready: its descriptor, if there is one, tells so when this returns.
 */
static inline void mpr_watch_settle(struct mpr_thread *self, const void *handle)
{
    uint64_t lists =
        atomic_load_explicit(&mpr_watch_lists_, memory_order_seq_cst);
    if (mpr_unlikely(lists != 0) && lists >> mpr_watch_list_of_(handle) & 1) {
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
