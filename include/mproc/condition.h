/* SPDX-License-Identifier: MIT */
/*
 * Condition: wait, under a lock, for others to change something. Python:
 * Condition.
 *
 * It belongs to the family: any process of it and any thread may use it, and
 * anyone ends it, once, when nobody uses it. It costs no descriptor.
 *
 * On deaths. A waiter or holder that dies, by any signal at any instruction,
 * blocks nobody. No wake-up is lost with the dead, and a deadline that expires
 * eats none that was meant for another. Nobody who notifies waits for those who
 * wait. A holder's death is told by MPROC_RECOVERED, as in <mproc/lock.h>.
 *
 * Calls do not block unless they say so; none may be made by a signal handler.
 * A handle that is NULL, freed or of another kind: MPROC_EINVAL.
 */
#ifndef MPROC_CONDITION_H
#define MPROC_CONDITION_H

#include <mproc/base.h>
#include <mproc/deadline.h>
#include <mproc/error.h>
#include <mproc/lock.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mproc_condition mproc_condition;

/* Whether what is waited for has come; called with the lock held. */
typedef bool mproc_predicate_fn(void *user);

/*
 * Make a condition over `lock`, which stays the caller's and must outlive it.
 * `lock` NULL: over a re-entrant lock of its own. Python: Condition(lock).
 *
 * 0             *out is the condition; end it with mproc_condition_free
 * MPROC_EINVAL  out is NULL, or lock is neither NULL nor a lock
 * MPROC_ENOMEM  the shared heap is full
 */
MPROC_API int mproc_condition_new(mproc_condition **out, mproc_lock *lock);

/*
 * Take and release the condition's lock: outcomes, blocking and ownership are
 * those of mproc_lock_acquire and mproc_lock_release, or, for a lock of its
 * own, of mproc_rlock_acquire and mproc_rlock_release; but releasing a lock
 * that the caller does not hold is always MPROC_EPERM. Python:
 * Condition.acquire(), Condition.release().
 */
MPROC_API int mproc_condition_acquire(mproc_condition *c, mproc_deadline until);
MPROC_API int mproc_condition_release(mproc_condition *c);

/*
 * Give up the lock, all levels of it, sleep until notified or until `until`,
 * and take it again as often as before. The lock is held at the return whatever
 * the outcome of the wait; retaking it blocks without regard to the deadline.
 * Nobody returns without a notify, the deadline or a death. Python:
 * Condition.wait().
 *
 * 0                notified
 * MPROC_RECOVERED  the lock was retaken after its holder ended holding it; this
 *                  is told rather than MPROC_ETIMEDOUT
 * MPROC_ETIMEDOUT  not notified before the deadline
 * MPROC_EPERM      the caller does not hold the lock; nothing was given up
 * MPROC_EINVAL     freed while this waited
 */
MPROC_API int mproc_condition_wait(mproc_condition *c, mproc_deadline until);

/*
 * Wait, as mproc_condition_wait does, until pred(user) is true; asked first
 * before any wait, and once more at the deadline. Python: Condition.wait_for().
 *
 * 0                the predicate is true
 * MPROC_RECOVERED  as in mproc_condition_wait; ask the predicate again
 * MPROC_ETIMEDOUT  it was still false at the deadline
 * MPROC_EPERM      the caller does not hold the lock; nothing was given up
 * MPROC_EINVAL     pred is NULL, or freed while this waited
 */
MPROC_API int mproc_condition_wait_for(mproc_condition *c,
                                       mproc_predicate_fn *pred, void *user,
                                       mproc_deadline until);

/*
 * Wake at most `n` of those who wait (all of them), who then retake the lock
 * one by one. A wake-up is not saved for later: with nobody waiting nothing
 * happens. Python: Condition.notify(), Condition.notify_all().
 *
 * 0            told
 * MPROC_EPERM  the caller does not hold the lock
 */
MPROC_API int mproc_condition_notify(mproc_condition *c, unsigned n);
MPROC_API int mproc_condition_notify_all(mproc_condition *c);

/*
 * End the condition, and the lock of its own; NULL is taken. Once, by anyone,
 * when nobody uses it: who still waits for it then gets MPROC_EINVAL.
 */
MPROC_API void mproc_condition_free(mproc_condition *c);

/* The rest makes MPROC_WITH of <mproc/lock.h> take conditions. */

static inline int mproc_with_condition_end_(void *held)
{
    return mproc_condition_release((mproc_condition *)held);
}

static inline mproc_with_ mproc_with_condition_(mproc_condition *c)
{
    return mproc_with_made_(mproc_condition_acquire(c, MPROC_FOREVER), c,
                            mproc_with_condition_end_);
}

#ifdef __cplusplus
extern "C++" {
inline mproc_with_ mproc_with_of_(mproc_condition *c)
{
    return mproc_with_condition_(c);
}
}
#else
#undef MPROC_WITH_MORE_
#define MPROC_WITH_MORE_ , mproc_condition * : mproc_with_condition_
#endif

#ifdef __cplusplus
}
#endif

#endif
