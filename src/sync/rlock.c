/* SPDX-License-Identifier: MIT */
#include <mproc/lock.h>

#include "sync/relock.h"

/* See struct mpr_relock. */
struct mproc_rlock {
    struct mpr_object object;
    struct mpr_relock relock;
};

static_assert(sizeof(struct mproc_rlock) <= MPR_LINE, "one line an rlock");

static void end_rlock(struct mpr_thread *self, struct mpr_thread *whose,
                      struct mpr_object *object)
{
    (void)self;
    (void)whose;
    mpr_hold_end(&((mproc_rlock *)object)->relock.hold);
}

static void holder_of_rlock(struct mpr_object *object, mpr_holder_fn *fn,
                            void *user)
{
    mpr_hold_holder(&((mproc_rlock *)object)->relock.hold, fn, user);
}

__attribute__((constructor)) static void register_class(void)
{
    static const struct mpr_object_class class = {.type = MPR_RLOCK,
                                                  .size = sizeof(mproc_rlock),
                                                  .end = end_rlock,
                                                  .holders = holder_of_rlock};
    mpr_object_register(&class);
}

static bool hold_of(mproc_rlock *l, struct mpr_hold_of *of)
{
    uint64_t tag = mpr_object_tag(l, MPR_RLOCK);
    if (mpr_unlikely(tag == 0)) {
        return false;
    }
    *of = (struct mpr_hold_of){&l->relock.hold, l, tag};
    return true;
}

int mproc_rlock_new(mproc_rlock **out)
{
    struct mpr_thread *self;
    void *made;
    int err =
        out == NULL ? MPROC_EINVAL : mpr_object_make(&self, MPR_RLOCK, &made);
    if (err < 0) {
        return err;
    }
    mproc_rlock *l = made;
    mpr_relock_init(&l->relock);
    mpr_object_publish(self, l);
    *out = l;
    return 0;
}

int mproc_rlock_acquire(mproc_rlock *l, mproc_deadline until)
{
    struct mpr_hold_of of;
    struct mpr_thread *self;
    if (mpr_unlikely(!hold_of(l, &of))) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(&self);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    return mpr_relock_acquire(self, &l->relock, &of, until);
}

int mproc_rlock_release(mproc_rlock *l)
{
    struct mpr_hold_of of;
    struct mpr_thread *self;
    if (mpr_unlikely(!hold_of(l, &of))) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(&self);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    return mpr_relock_release(self, &l->relock, &of);
}

bool mproc_rlock_locked(const mproc_rlock *l)
{
    return mpr_object_is(l, MPR_RLOCK) && mpr_hold_held(&l->relock.hold);
}

void mproc_rlock_free(mproc_rlock *l)
{
    mpr_object_free(l, MPR_RLOCK);
}
