/* SPDX-License-Identifier: MIT */
/*
 * The family: one region of shared memory at one address, made by the first
 * call of the first process, inherited by everything forked from it since,
 * never unmapped. What lies in it, from its start:
 *
 *   struct mpr_family | slots | thread records | span descriptors | spans
 *
 * Nothing is allocated until touched, so the tables cost only what is used.
 */
#ifndef MPR_SHM_FAMILY_H
#define MPR_SHM_FAMILY_H

#include <assert.h>
#include <stdalign.h>

#include "os/os.h"
#include "shm/guard.h"

struct mpr_slot;
struct mpr_thread;
struct mpr_heap;
struct mpr_object_shelf;

#define MPR_LINE 64 /* bytes of a cache line */

/*
 * Written once by its maker before any other process can see it; from then on
 * only the counters change.
 *
 * `deaths` counts the deaths that others may have to know of, and the births
 * of those whose deaths they will have to know of. Every sleeper sleeps on it
 * too, in its deep stage.
 * Locks: none. Publishes: each add, before a wake of all. Survives: a reaper
 * killed between add and wake leaves a slot that is still DEAD; whoever reaps
 * it again adds and wakes again. Who is killed there at its birth has done
 * nothing that anybody sleeps for.
 *
 * `many` is the bell of all who wait for many things at once (sleep.h). Locks:
 * none. Publishes: nothing by itself. Survives: as every bell.
 *
 * `slots_top` and `threads_top` bound what a scan must look at; they only
 * grow. A slot below slots_top has its life mutex initialised. Locks: slots by
 * `slots_guard`; threads by compare-and-swap.
 *
 * `reaper` is the record of who reaps. Locks: slots_guard. Survives: a dead
 * reaper's record stays here until another has repaired the guard noted in it.
 */
struct mpr_family {
    uint64_t magic;
    size_t size;
    unsigned cpus; /* that its maker may use: each worker may be bound to one */
    struct mpr_os_region region; /* as its maker knew it */
    struct mpr_slot *slots;
    uint32_t slots_max;
    struct mpr_thread *threads;
    uint32_t threads_max;
    struct mpr_heap *heap;
    struct mpr_object_shelf *shelves; /* of MPR_OBJECT_TYPES */
    alignas(MPR_LINE) struct mpr_guard slots_guard;
    struct mpr_thread *_Atomic reaper;
    _Atomic uint32_t slots_top;
    _Atomic uint32_t threads_top;
    alignas(MPR_LINE) _Atomic uint32_t deaths;
    alignas(MPR_LINE) _Atomic uint32_t many;
};

/* NULL before the first use. Never changes afterwards, in no process. */
extern struct mpr_family *mpr_family;

/*
 * Make the family if there is none. What the region or its tables were refused
 * for: ENOMEM, EMFILE, ENFILE; the next call tries again.
 */
int mpr_family_use(void);

/*
 * In a program started anew (os.h): why it has no part in the family of who
 * started it. 0: it has, since before other constructors than those of the
 * earliest priority were run. ENOENT: the library is another than there;
 * EADDRINUSE.
 */
int mpr_family_joined(void);

/* True when all `size` bytes at p lie in the region. */
static inline bool mpr_family_holds(const void *p, size_t size)
{
    uintptr_t offset = (uintptr_t)p - (uintptr_t)mpr_family;
    return mpr_family != NULL && offset < mpr_family->size &&
           size <= mpr_family->size - offset;
}

#endif
