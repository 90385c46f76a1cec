/* SPDX-License-Identifier: MIT */
#include "sync/condition.h"

#include "shm/sleep.h"
#include "sync/lock.h"

/* A condition as it was when its handle was checked. */
struct view {
    mproc_condition *c;
    uint64_t tag;
    struct mpr_hold_of lock;
    struct mpr_relock *own; /* NULL: the lock is the user's */
};

static bool view_of(mproc_condition *c, struct view *view)
{
    view->c = c;
    view->tag = mpr_object_tag(c, MPR_CONDITION);
    if (view->tag == 0) {
        return false;
    }
    mproc_lock *lock = atomic_load(&c->lock);
    if (lock == NULL) {
        view->own = &c->own;
        view->lock = (struct mpr_hold_of){&c->own.hold, c, view->tag};
        return true;
    }
    uint64_t lock_tag = atomic_load(&c->lock_tag);
    view->own = NULL;
    view->lock = (struct mpr_hold_of){&lock->hold, lock, lock_tag};
    return mpr_object_unchanged(lock, lock_tag);
}

static int begin(mproc_condition *c, struct view *view,
                 struct mpr_thread **self)
{
    return view_of(c, view) ? mpr_self(self) : MPROC_EINVAL;
}

static bool holds(const struct view *view, const struct mpr_thread *self)
{
    return mpr_hold_mine(view->lock.hold) &&
           (view->own == NULL || mpr_relock_mine(view->own, self));
}

/* ---- making and ending ------------------------------------------------ */

static void end_condition(struct mpr_thread *self, struct mpr_thread *whose,
                          struct mpr_object *object)
{
    (void)self;
    (void)whose;
    mproc_condition *c = (mproc_condition *)object;
    mpr_hold_end(&c->own.hold);
    mpr_waiters_end(&c->waiters);
}

/* Of its lock, whosever that is. */
static void holder_of_condition(struct mpr_object *object, mpr_holder_fn *fn,
                                void *user)
{
    struct view view;
    if (view_of((mproc_condition *)object, &view)) {
        mpr_hold_holder(view.lock.hold, fn, user);
    }
}

static void reap(struct mpr_thread *self, mpr_id dead)
{
    (void)self;
    mpr_waiters_pass_on(dead);
}

__attribute__((constructor)) static void register_class(void)
{
    static const struct mpr_object_class class = {
        .type = MPR_CONDITION,
        .size = sizeof(mproc_condition),
        .end = end_condition,
        .holders = holder_of_condition};
    mpr_object_register(&class);
    mpr_slots_on_reap(reap);
}

int mproc_condition_new(mproc_condition **out, mproc_lock *lock)
{
    struct mpr_thread *self;
    uint64_t lock_tag = mpr_object_tag(lock, MPR_LOCK);
    if (out == NULL || (lock != NULL && lock_tag == 0)) {
        return MPROC_EINVAL;
    }
    void *made;
    int err = mpr_object_make(&self, MPR_CONDITION, &made);
    if (err < 0) {
        return err;
    }
    mproc_condition *c = made;
    atomic_store(&c->lock, lock);
    atomic_store(&c->lock_tag, lock_tag);
    mpr_relock_init(&c->own);
    mpr_waiters_init(&c->waiters);
    mpr_object_publish(self, c);
    *out = c;
    return 0;
}

void mproc_condition_free(mproc_condition *c)
{
    mpr_object_free(c, MPR_CONDITION);
}

/* ---- its lock --------------------------------------------------------- */

int mproc_condition_acquire(mproc_condition *c, mproc_deadline until)
{
    struct view view;
    struct mpr_thread *self;
    int err = begin(c, &view, &self);
    if (err < 0) {
        return err;
    }
    return view.own != NULL
               ? mpr_relock_acquire(self, view.own, &view.lock, until)
               : mpr_hold_acquire(self, &view.lock, until);
}

int mproc_condition_release(mproc_condition *c)
{
    struct view view;
    struct mpr_thread *self;
    int err = begin(c, &view, &self);
    if (err < 0) {
        return err;
    }
    return view.own != NULL ? mpr_relock_release(self, view.own, &view.lock)
                            : mpr_hold_release(self, &view.lock, true);
}

/* All levels; 0 of a lock that has none, for retake. */
static int give_up(struct mpr_thread *self, const struct view *view,
                   uint64_t *depth)
{
    *depth = view->own == NULL ? 0 : mpr_relock_disown(view->own);
    return mpr_hold_release(self, &view->lock, true);
}

static bool lock_lives(const struct view *view)
{
    return mpr_object_unchanged(view->lock.object, view->lock.tag);
}

/* The memory of a lock that has ended may be another's, now or just after. */
static int retake(struct mpr_thread *self, const struct view *view,
                  uint64_t depth)
{
    int err = MPROC_EINVAL;
    if (lock_lives(view)) {
        err = mpr_hold_acquire(self, &view->lock, MPROC_FOREVER);
    }
    if (err >= 0 && !lock_lives(view)) {
        (void)mpr_hold_release(self, &view->lock, true);
        err = MPROC_EINVAL;
    }
    if (err >= 0 && view->own != NULL) {
        mpr_relock_own(view->own, self, depth);
    }
    return err;
}

/* ---- waiting ---------------------------------------------------------- */

/* Without the lock. `wait` is what the thread's word is until it is told. */
static int sleep_until_told(struct mpr_thread *self, const struct view *view,
                            uint64_t wait, mproc_deadline until)
{
    struct mpr_sleep sleep;
    mpr_sleep_begin(&sleep, until);
    while (mpr_wait_heard(self) == MPR_WAIT_ON) {
        if (!mpr_object_unchanged(view->c, view->tag)) {
            return MPROC_EINVAL;
        }
        if (sleep.expired && mpr_wait_withdraw(self, wait)) {
            return MPROC_ETIMEDOUT;
        }
        if (!sleep.expired && !mpr_sleep_spin(&sleep)) {
            mpr_sleep_on(&sleep, mpr_os_low_half(&self->wait), (uint32_t)wait);
        }
    }
    return mpr_object_unchanged(view->c, view->tag) ? 0 : MPROC_EINVAL;
}

static int wait_held(struct mpr_thread *self, const struct view *view,
                     mproc_deadline until)
{
    uint64_t depth;
    uint64_t wait = mpr_waiters_join(self, &view->c->waiters);
    int err = give_up(self, view, &depth);
    if (err == MPROC_EPERM) { /* another has just released it */
        mpr_waiters_decline(self, &view->c->waiters, wait);
        return err;
    }
    if (err == 0) {
        int told = sleep_until_told(self, view, wait, until);
        err = retake(self, view, depth);
        err = err != 0 ? err : told;
    }
    mpr_wait_end(self, wait);
    return err;
}

int mproc_condition_wait(mproc_condition *c, mproc_deadline until)
{
    struct view view;
    struct mpr_thread *self;
    int err = begin(c, &view, &self);
    if (err < 0) {
        return err;
    }
    if (!holds(&view, self)) {
        return MPROC_EPERM;
    }
    uintptr_t outer = mpr_op_begin(self, c);
    err = wait_held(self, &view, until);
    mpr_op_end(self, outer);
    return err;
}

int mproc_condition_wait_for(mproc_condition *c, mproc_predicate_fn *pred,
                             void *user, mproc_deadline until)
{
    struct view view;
    struct mpr_thread *self;
    int err = pred == NULL ? MPROC_EINVAL : begin(c, &view, &self);
    if (err < 0) {
        return err;
    }
    if (!holds(&view, self)) {
        return MPROC_EPERM;
    }
    while (err == 0 && !pred(user)) {
        err = mproc_condition_wait(c, until);
    }
    return err == MPROC_ETIMEDOUT && pred(user) ? 0 : err;
}

/* ---- notifying -------------------------------------------------------- */

int mproc_condition_notify(mproc_condition *c, unsigned n)
{
    struct view view;
    struct mpr_thread *self;
    int err = begin(c, &view, &self);
    if (err < 0) {
        return err;
    }
    if (!holds(&view, self)) {
        return MPROC_EPERM;
    }
    uintptr_t outer = mpr_op_begin(self, c);
    mpr_waiters_notify(&c->waiters, n);
    mpr_op_end(self, outer);
    return 0;
}

int mproc_condition_notify_all(mproc_condition *c)
{
    return mproc_condition_notify(c, UINT_MAX);
}
