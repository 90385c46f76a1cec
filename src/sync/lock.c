/* SPDX-License-Identifier: MIT */
#include "sync/lock.h"

static void end_lock(struct mpr_thread *self, struct mpr_thread *whose,
                     struct mpr_object *object)
{
    (void)self;
    (void)whose;
    mpr_hold_end(&((mproc_lock *)object)->hold);
}

static void holder_of_lock(struct mpr_object *object, mpr_holder_fn *fn,
                           void *user)
{
    mpr_hold_holder(&((mproc_lock *)object)->hold, fn, user);
}

__attribute__((constructor)) static void register_class(void)
{
    static const struct mpr_object_class class = {.type = MPR_LOCK,
                                                  .size = sizeof(mproc_lock),
                                                  .end = end_lock,
                                                  .holders = holder_of_lock};
    mpr_object_register(&class);
}

int mproc_lock_new(mproc_lock **out)
{
    struct mpr_thread *self;
    void *made;
    int err =
        out == NULL ? MPROC_EINVAL : mpr_object_make(&self, MPR_LOCK, &made);
    if (err < 0) {
        return err;
    }
    mproc_lock *l = made;
    mpr_hold_init(&l->hold);
    mpr_object_publish(self, l);
    *out = l;
    return 0;
}

int mproc_lock_acquire(mproc_lock *l, mproc_deadline until)
{
    struct mpr_hold_of of;
    struct mpr_thread *self;
    if (mpr_unlikely(!mpr_lock_hold(l, &of))) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(&self);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    return mpr_hold_acquire(self, &of, until);
}

int mproc_lock_release(mproc_lock *l)
{
    struct mpr_hold_of of;
    struct mpr_thread *self;
    if (mpr_unlikely(!mpr_lock_hold(l, &of))) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(&self);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    return mpr_hold_release(self, &of, false);
}

bool mproc_lock_locked(const mproc_lock *l)
{
    return mpr_object_is(l, MPR_LOCK) && mpr_hold_held(&l->hold);
}

void mproc_lock_free(mproc_lock *l)
{
    mpr_object_free(l, MPR_LOCK);
}
