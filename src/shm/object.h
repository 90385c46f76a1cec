/* SPDX-License-Identifier: MIT */
/*
 * Objects that users hold handles of. A handle is the object's address. Its
 * memory is never given another type, so a mutex in it stays a mutex and a
 * stale handle can be told from a live one by its tag.
 */
#ifndef MPR_SHM_OBJECT_H
#define MPR_SHM_OBJECT_H

#include "shm/heap.h"

enum mpr_object_type {
    MPR_LOCK,
    MPR_RLOCK,
    MPR_SEMAPHORE,
    MPR_EVENT,
    MPR_CONDITION,
    MPR_BARRIER,
    MPR_QUEUE,
    MPR_PIPE,
    MPR_PROCESS,
    MPR_POOL,
    MPR_RESULT,
    MPR_ITER,
    MPR_OBJECT_TYPES
};

enum mpr_object_state {
    MPR_OBJECT_FREE,
    MPR_OBJECT_MAKING,
    MPR_OBJECT_LIVE,
    MPR_OBJECT_ENDING
};

/*
 * First member of every object. `tag` is {generation:32 | magic:16 | type:8 |
 * state:8}. FREE→MAKING, LIVE→ENDING and to FREE under the type's guard;
 * MAKING→LIVE by the maker.
 * `next_free` is a cache under the type's guard. `prepared` is set once what
 * lasts over reuse (mutexes) is initialised.
 * Publishes: `tag`. Survives: what is MAKING or ENDING stands in a hand of its
 * maker or ender, whose reaper ends it.
 */
struct mpr_object {
    _Atomic uint64_t tag;
    struct mpr_object *next_free;
    uint32_t prepared;
};

/* One who holds an object, since when at least; 0: nobody knows. */
typedef void mpr_holder_fn(mpr_id holder, int64_t since_ns, void *user);

/*
 * How a type is waited for among many things (chan/wait.h). It has a bell, or a
 * descriptor to be polled instead.
 */
struct mpr_object_wait {
    /*
     * 0: ready. MPROC_ETIMEDOUT: not. MPROC_EAGAIN: it cannot be told now, look
     * again soon. Else why it is not to be waited for; EINVAL also when the
     * handle has not the tag any more. *moment is 0 at the first look of a
     * wait, and then what this look keeps in it for the next ones.
     */
    int (*look)(struct mpr_thread *self, const void *handle, uint64_t tag,
                uint32_t *moment);
    /* Of a handle that a look has found to be one; memory that stays. */
    _Atomic uint32_t *(*bell)(const void *handle);
    /*
     * The descriptor, -1: none, look again every few milliseconds. It stays
     * until `release` is called with *hold, by the same process.
     */
    int (*hold)(const void *handle, void **hold);
    void (*release)(void *hold);
};

/*
 * What a type is. `end` gives back all that the object owns and wakes all who
 * wait on it, using the hands of `whose`; it may run again, on behalf of
 * another, after its first runner was killed in it. NULL: nothing to do.
 * `wait`: NULL where it cannot be waited for among many.
 * `holders` calls fn for each living process that holds the object, or each
 * thread that is there. NULL: such are not held.
 */
struct mpr_object_class {
    enum mpr_object_type type;
    size_t size;
    void (*end)(struct mpr_thread *self, struct mpr_thread *whose,
                struct mpr_object *object);
    const struct mpr_object_wait *wait;
    void (*holders)(struct mpr_object *object, mpr_holder_fn *fn, void *user);
};

/*
 * The free objects of a type: a list, and a cache of their tags. Locks:
 * `guard`. `spans` is the list of the type's spans, the youngest first, which
 * anybody reads. Locks: `guard`. Publishes: the store of a span's number + 1.
 * Survives: who is killed after a span became the type's and before it is in
 * the list has it in hand, from where the repair of `guard` puts it there.
 */
struct mpr_object_shelf {
    struct mpr_guard guard;
    struct mpr_object *first;
    _Atomic uint32_t spans;
};

void mpr_object_shelves_init(struct mpr_object_shelf *shelves);

/* Registered before main by each module that has objects. */
void mpr_object_register(const struct mpr_object_class *class);

/* NULL: none, or the type is not in this program. */
const struct mpr_object_wait *mpr_object_wait_of(enum mpr_object_type type);

#define MPR_OBJECT_MAGIC UINT32_C(0x4d500000)

static inline uint32_t mpr_object_word(enum mpr_object_type type,
                                       enum mpr_object_state state)
{
    return MPR_OBJECT_MAGIC | (uint32_t)type << 8 | (uint32_t)state;
}

/* The tag of a live object of the type; 0 for anything else, NULL included. */
static inline uint64_t mpr_object_tag(const void *handle,
                                      enum mpr_object_type type)
{
    const struct mpr_object *object = handle;
    if (mpr_unlikely(handle == NULL || (uintptr_t)handle % MPR_LINE != 0 ||
                     !mpr_family_holds(handle, MPR_LINE))) {
        return 0;
    }
    uint64_t tag = atomic_load_explicit(&object->tag, memory_order_acquire);
    return (uint32_t)tag == mpr_object_word(type, MPR_OBJECT_LIVE) ? tag : 0;
}

static inline bool mpr_object_is(const void *handle, enum mpr_object_type type)
{
    return mpr_object_tag(handle, type) != 0;
}

/* What is at that address; MPR_OBJECT_TYPES: no live object. */
static inline enum mpr_object_type mpr_object_type_of(const void *handle)
{
    enum mpr_object_type type = 0;
    while (type < MPR_OBJECT_TYPES && !mpr_object_is(handle, type)) {
        type++;
    }
    return type;
}

/* After a sleep: still the object that `tag` was read of? */
static inline bool mpr_object_unchanged(const void *handle, uint64_t tag)
{
    const struct mpr_object *object = handle;
    return atomic_load_explicit(&object->tag, memory_order_acquire) == tag;
}

/*
 * A new object in state MAKING, in the hand MPR_HAND_OBJECT_NEW. What it holds
 * beyond its header is what its predecessor left (zeros at first). NULL: no
 * memory.
 */
void *mpr_object_new(struct mpr_thread *self, enum mpr_object_type type);

/*
 * First step of a `_new`: the calling thread's record and mpr_object_new of it.
 * What mpr_self was refused for, or ENOMEM.
 */
int mpr_object_make(struct mpr_thread **self, enum mpr_object_type type,
                    void **made);

/* Last step of a `_new`: LIVE from here on; empties the hand. */
void mpr_object_publish(struct mpr_thread *self, void *object);

/* A `_new` that failed: back to the free ones; runs the type's `end`. */
void mpr_object_drop(struct mpr_thread *self, void *object);

/*
 * End a live object: runs its type's `end` and frees it. False: the handle is
 * not live, or another was faster.
 */
bool mpr_object_end(struct mpr_thread *self, void *handle,
                    enum mpr_object_type type);

/* All of a `_free`: nothing where the handle is not live. */
void mpr_object_free(void *handle, enum mpr_object_type type);

/*
 * As mpr_object_end, if its tag is still `live`: for who has decided about an
 * object that others may end and make anew meanwhile.
 */
bool mpr_object_end_if(struct mpr_thread *self, void *handle, uint64_t live);

/*
 * Calls fn for each object of the type that is live when it is met. Any of them
 * may end, and be made anew, while fn runs.
 */
void mpr_object_each(enum mpr_object_type type,
                     void (*fn)(struct mpr_object *object, void *user),
                     void *user);

/* Calls fn for each who holds it: see struct mpr_object_class. */
void mpr_object_holders(const void *handle, mpr_holder_fn *fn, void *user);

/* Reaper: end what a dead thread was making or ending. */
void mpr_object_settle_hands(struct mpr_thread *self, struct mpr_thread *dead);

#endif
