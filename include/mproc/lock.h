/* SPDX-License-Identifier: MIT */
/*
 * Lock, RLock, Semaphore, and MPROC_WITH, which holds one of them for a block.
 *
 * They belong to the family: any process of it and any thread may use them, and
 * anyone ends them, once, when nobody uses them. They cost no descriptor.
 *
 * On deaths. A holder or waiter that dies, by any signal at any instruction,
 * blocks nobody. The holder of a lock is the process that acquired it last. If
 * that process ends, in whatever way, and nobody has released the lock, the
 * next to acquire it is told once, by MPROC_RECOVERED, within 100 ms: what the
 * lock protects may be half done. The end of a thread is not told: its process
 * still holds the lock. A gate that its closer may leave shut for ever is a
 * semaphore. A process that is stopped, not dead, holds on. What semaphores do
 * is said there.
 *
 * Calls do not block unless they say so, and none may be made by a signal
 * handler but mproc_semaphore_release of one that is not bounded. A handle that
 * is NULL, freed or of another kind: MPROC_EINVAL where an int is returned,
 * else false or 0.
 */
#ifndef MPROC_LOCK_H
#define MPROC_LOCK_H

#include <mproc/base.h>
#include <mproc/deadline.h>
#include <mproc/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mproc_lock mproc_lock;
typedef struct mproc_rlock mproc_rlock;
typedef struct mproc_semaphore mproc_semaphore;

/*
 * Make a free lock. Python: Lock(), RLock().
 *
 * 0             *out is the lock; end it with its free
 * MPROC_EINVAL  out is NULL
 * MPROC_ENOMEM  the shared heap is full
 */
MPROC_API int mproc_lock_new(mproc_lock **out);
MPROC_API int mproc_rlock_new(mproc_rlock **out);

/*
 * Take the lock. Blocks until it is free or `until` is reached. A lock that its
 * caller holds already is waited for like any other. Python: Lock.acquire().
 *
 * 0                acquired
 * MPROC_RECOVERED  acquired, but the last holder ended holding it
 * MPROC_ETIMEDOUT  still held at the deadline
 * MPROC_EINVAL     freed while this waited
 */
MPROC_API int mproc_lock_acquire(mproc_lock *l, mproc_deadline until);

/*
 * Give the lock back. Any process and any thread may do so, not only the one
 * that acquired it. Python: Lock.release().
 *
 * 0             released
 * MPROC_EINVAL  the lock is free
 */
MPROC_API int mproc_lock_release(mproc_lock *l);

/*
 * Take the re-entrant lock. The thread that holds it takes it again at once,
 * and releases it as often. Otherwise as mproc_lock_acquire. Python:
 * RLock.acquire().
 *
 * 0                acquired, once more where the caller held it
 * MPROC_RECOVERED  acquired, but the last holder ended holding it
 * MPROC_ETIMEDOUT  still held at the deadline
 * MPROC_EINVAL     freed while this waited
 */
MPROC_API int mproc_rlock_acquire(mproc_rlock *l, mproc_deadline until);

/*
 * Undo one acquire; the last one undone frees the lock. Python:
 * RLock.release().
 *
 * 0            one level less
 * MPROC_EPERM  the calling thread does not hold it
 */
MPROC_API int mproc_rlock_release(mproc_rlock *l);

/*
 * Whether anyone holds the lock: true at one moment of the call, perhaps no
 * longer at its return. Python: Lock.locked(), RLock.locked().
 */
MPROC_API bool mproc_lock_locked(const mproc_lock *l);
MPROC_API bool mproc_rlock_locked(const mproc_rlock *l);

/*
 * End the lock; NULL is taken. Once, by anyone, when nobody uses it: who still
 * waits for it then gets MPROC_EINVAL.
 */
MPROC_API void mproc_lock_free(mproc_lock *l);
MPROC_API void mproc_rlock_free(mproc_rlock *l);

/*
 * Options of a semaphore; zero is the default.
 *
 * bounded  1: its value never exceeds the start value, and a unit held by a
 *          process that died is given back. Python: BoundedSemaphore
 * recover  1: not bounded, but a unit held by a process that died is given back
 *
 * Without either a unit may be a signal rather than a resource, so what a dead
 * process had acquired stays acquired. With either, a release gives back a unit
 * of the calling process, else the one held longest.
 *
 * Limits: a value of 2147483647; with either option a start value of 65536, and
 * with `recover` 1024 units more than at the start.
 */
typedef struct mproc_semaphore_opts {
    int bounded;
    int recover;
} mproc_semaphore_opts;
MPROC_NO_PADDING_(mproc_semaphore_opts, 2 * sizeof(int));

/* mproc_semaphore_new with the size of the caller's options; call that. */
MPROC_API int mproc_semaphore_new_sized(mproc_semaphore **out, unsigned value,
                                        const mproc_semaphore_opts *opts,
                                        size_t opts_size);

/*
 * Make a semaphore of `value` units. `opts` NULL means all defaults. Python:
 * Semaphore(), BoundedSemaphore().
 *
 * 0              *out is the semaphore; end it with mproc_semaphore_free
 * MPROC_EINVAL   out is NULL, or the value is above its limit
 * MPROC_ENOMEM   the shared heap is full
 * MPROC_ENOTSUP  an option that this version does not know is set
 */
static inline int mproc_semaphore_new(mproc_semaphore **out, unsigned value,
                                      const mproc_semaphore_opts *opts)
{
    return mproc_semaphore_new_sized(out, value, opts, sizeof *opts);
}

/*
 * Take one unit. Blocks until there is one or `until` is reached. Python:
 * Semaphore.acquire().
 *
 * 0                acquired
 * MPROC_ETIMEDOUT  no unit before the deadline
 * MPROC_EINVAL     freed while this waited
 */
MPROC_API int mproc_semaphore_acquire(mproc_semaphore *s, mproc_deadline until);

/*
 * Give one unit back, or add one: any process and any thread may. Of a
 * semaphore that is not bounded, a signal handler may too. Python:
 * Semaphore.release().
 *
 * 0                there is one unit more
 * MPROC_EINVAL     bounded, and at its start value
 * MPROC_EOVERFLOW  not bounded, and at its limit
 */
MPROC_API int mproc_semaphore_release(mproc_semaphore *s);

/*
 * The units that are free at one moment of the call. Python:
 * Semaphore.get_value().
 */
MPROC_API unsigned mproc_semaphore_value(const mproc_semaphore *s);

/*
 * End the semaphore; NULL is taken. Once, by anyone, when nobody uses it: who
 * still waits for it then gets MPROC_EINVAL.
 */
MPROC_API void mproc_semaphore_free(mproc_semaphore *s);

/* What follows up to MPROC_WITH serves that macro only. */

typedef struct mproc_with_ {
    void *held; /* NULL: could not be acquired */
    int (*release)(void *held);
    int turns; /* of the block, still to come: 1 or 0 */
} mproc_with_;

static inline mproc_with_ mproc_with_made_(int err, void *object,
                                           int (*release)(void *held))
{
    mproc_with_ w;
    w.held = err < 0 ? NULL : object;
    w.release = release;
    w.turns = err < 0 ? 0 : 1;
    return w;
}

static inline void mproc_with_end_(mproc_with_ *w)
{
    if (w->held != NULL) {
        (void)w->release(w->held);
    }
}

static inline int mproc_with_lock_end_(void *held)
{
    return mproc_lock_release((mproc_lock *)held);
}

static inline mproc_with_ mproc_with_lock_(mproc_lock *l)
{
    return mproc_with_made_(mproc_lock_acquire(l, MPROC_FOREVER), l,
                            mproc_with_lock_end_);
}

static inline int mproc_with_rlock_end_(void *held)
{
    return mproc_rlock_release((mproc_rlock *)held);
}

static inline mproc_with_ mproc_with_rlock_(mproc_rlock *l)
{
    return mproc_with_made_(mproc_rlock_acquire(l, MPROC_FOREVER), l,
                            mproc_with_rlock_end_);
}

static inline int mproc_with_semaphore_end_(void *held)
{
    return mproc_semaphore_release((mproc_semaphore *)held);
}

static inline mproc_with_ mproc_with_semaphore_(mproc_semaphore *s)
{
    return mproc_with_made_(mproc_semaphore_acquire(s, MPROC_FOREVER), s,
                            mproc_with_semaphore_end_);
}

#ifdef __cplusplus
extern "C++" {
inline mproc_with_ mproc_with_of_(mproc_lock *l)
{
    return mproc_with_lock_(l);
}

inline mproc_with_ mproc_with_of_(mproc_rlock *l)
{
    return mproc_with_rlock_(l);
}

inline mproc_with_ mproc_with_of_(mproc_semaphore *s)
{
    return mproc_with_semaphore_(s);
}

class mproc_with_guard_
{
  public:
    explicit mproc_with_guard_(const mproc_with_ &w) : with(w)
    {
    }
    ~mproc_with_guard_()
    {
        mproc_with_end_(&with);
    }
    mproc_with_guard_(const mproc_with_guard_ &) = delete;
    mproc_with_guard_ &operator=(const mproc_with_guard_ &) = delete;

    mproc_with_ with;
};
}
#endif

#define MPROC_WITH_NAME_OF_(line) mproc_with_at_##line##_
#define MPROC_WITH_NAME_(line) MPROC_WITH_NAME_OF_(line)

/* In C, what _Generic chooses from; <mproc/condition.h> puts one more here. */
#define MPROC_WITH_MORE_

/*
 * MPROC_WITH(l) { ... }
 *
 * Hold `l`, a lock, a re-entrant lock, a semaphore (one unit) or, with
 * <mproc/condition.h>, a condition, while the block runs. Waits for ever; the
 * block is skipped if `l` cannot be acquired. Released on every way out of the
 * block: its end, `break` and `continue`, which leave this block only, `goto`,
 * `return` and C++ exceptions; not longjmp. MPROC_RECOVERED is not seen:
 * acquire by hand to see it. `l` is evaluated once. Do not release `l` by hand
 * inside, nor let a child forked inside leave the block: it would release it
 * too. C needs a compiler with __attribute__((cleanup)), such as GCC and Clang;
 * others do not have this macro. Python: with l:
 */
#ifdef __cplusplus
#define MPROC_WITH_AS_(name, l)                                          \
    for (mproc_with_guard_ name(mproc_with_of_(l)); name.with.turns > 0; \
         name.with.turns = 0)
#elif defined(__GNUC__) || defined(__clang__)
#define MPROC_WITH_OF_(l)                           \
    _Generic((l), mproc_lock *                      \
             : mproc_with_lock_, mproc_rlock *      \
             : mproc_with_rlock_, mproc_semaphore * \
             : mproc_with_semaphore_ MPROC_WITH_MORE_)(l)
#define MPROC_WITH_AS_(name, l)                                         \
    for (mproc_with_ name                                               \
         __attribute__((cleanup(mproc_with_end_))) = MPROC_WITH_OF_(l); \
         name.turns > 0; name.turns = 0)
#endif
#ifdef MPROC_WITH_AS_
#define MPROC_WITH(l) MPROC_WITH_AS_(MPROC_WITH_NAME_(__LINE__), l)
#endif

#ifdef __cplusplus
}
#endif

#endif
