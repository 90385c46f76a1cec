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
 * `deaths` counts the deaths that others may have to know of; `news` is a bell
 * that is rung for these, later, and for the births of those whose deaths
 * others will have to know of. Every sleeper sleeps on one of the two in its
 * deep stage: on `news` who relies on watching each life, on `deaths` who looks
 * again by the clock (sleep.h), and whom a birth would wake in vain.
 * Locks: none. Publishes: each add, before a wake of all. Survives: a reaper
 * killed between add and wake leaves a slot that is still DEAD; whoever reaps
 * it again adds and wakes again. Who is killed there at its birth has done
 * nothing that anybody sleeps for.
 *
 * `looked_ns` is when somebody last began to look at all slots, on the
 * monotonic clock, `living` how many lives the last look found: caches, each
 * for itself. Who is killed while it looks leaves a time at which nobody has
 * looked to the end; the next look comes a little later then.
 *
 * `many` is the bell of all who wait for many things at once (sleep.h). Locks:
 * none. Publishes: nothing by itself. Survives: as every bell.
 *
 * `slots_top` and `threads_top` bound what a scan must look at; they only
 * grow. A slot below slots_top has its life mutex initialised. Locks: slots by
 * `slots_guard`; threads by compare-and-swap.
 *
 * `free_from` is where a claimer begins to look for a free slot: {slots
 * freed:32 | slot number:32}, so that who raises it has seen every slot below
 * taken. A cache: killed in between, a reaper leaves a free slot below it,
 * which is found once there is none above. Locks: none; compare-and-swap.
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
    _Atomic uint64_t free_from;
    alignas(MPR_LINE) _Atomic uint32_t deaths;
    alignas(MPR_LINE) _Atomic uint32_t news;
    alignas(MPR_LINE) _Atomic int64_t looked_ns;
    _Atomic uint32_t living;
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
