/* SPDX-License-Identifier: MIT */
/*
 * Units of a semaphore that have holders: a word for each, so that those of a
 * dead process can be told and taken.
 */
#ifndef MPR_SYNC_UNITS_H
#define MPR_SYNC_UNITS_H

#include "shm/object.h"

/*
 * `word` is the holder's id, MPR_UNIT_FREE or MPR_UNIT_ABSENT, in its spare
 * bits the number of the change that made it so, all of it xor the semaphore's
 * salt. So words that are what they were have not changed meanwhile. The salt
 * differs for every semaphore that ever was, so the compare-and-swap of
 * somebody who was slow to learn that the semaphore has ended, and that the
 * memory is another's, changes nothing there. `since` tells who has held
 * longest (times the salt as well): a hint. `noted` is since when at least
 * (since.h), xor the salt, too.
 * Locks: none. Publishes: each change of `word`. Survives: a holder's death
 * leaves its id, which the next one replaces by its own.
 */
struct mpr_unit {
    _Atomic uint64_t word;
    _Atomic uint64_t since;
    _Atomic uint64_t noted;
};

#define MPR_UNIT_FREE UINT64_C(0)
#define MPR_UNIT_ABSENT UINT64_C(1)

/*
 * Part of a semaphore. `array` is its own block of the heap, NULL while the
 * semaphore is free; it and `capacity` do not change while it lives. `stamp`
 * grows with each acquire.
 */
struct mpr_units {
    struct mpr_unit *_Atomic array;
    _Atomic uint32_t capacity;
    _Atomic uint64_t stamp;
};

/*
 * The units of one semaphore, as they were when its handle was found live. May
 * be used after its end: then there is nothing to take or to give.
 */
struct mpr_units_view {
    struct mpr_units *units;
    struct mpr_unit *array;
    uint32_t capacity;
    uint64_t salt;
};

/* Of a semaphore being made: `present` free units, room for `capacity`. */
int mpr_units_make(struct mpr_thread *self, struct mpr_units *units,
                   uint64_t salt, uint32_t present, uint32_t capacity);

/* Of one being ended, with the hands of `whose`; may be repeated. */
void mpr_units_end(struct mpr_thread *self, struct mpr_thread *whose,
                   struct mpr_units *units);

/* To be taken before the look that finds the semaphore still live; acquires. */
static inline struct mpr_units_view mpr_units_view(struct mpr_units *units,
                                                   uint64_t salt)
{
    return (struct mpr_units_view){
        .units = units,
        .array = atomic_load_explicit(&units->array, memory_order_acquire),
        .capacity =
            atomic_load_explicit(&units->capacity, memory_order_acquire),
        .salt = salt,
    };
}

/* Take a unit that is free or whose holder is dead. False: there is none. */
bool mpr_units_take(struct mpr_thread *self, const struct mpr_units_view *view);

/*
 * Give back one that `id` holds (0: nobody), else the one held longest, else,
 * if it may `grow`, one that was absent. EINVAL: none is held, EOVERFLOW: none
 * is absent. `*own`: it was one of `id`.
 */
int mpr_units_give(const struct mpr_units_view *view, mpr_id id, bool grow,
                   bool *own);

/* By who is about to wait: that they are held, now. */
void mpr_units_note(const struct mpr_units_view *view);

/* As `holders` of a class. */
void mpr_units_holders(const struct mpr_units_view *view, mpr_holder_fn *fn,
                       void *user);

/* How many are free or held by the dead. */
uint32_t mpr_units_value(const struct mpr_units_view *view);

#endif
