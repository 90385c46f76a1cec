/* SPDX-License-Identifier: MIT */
/*
 * Inside the heap: spans of 64 KiB. A span holds blocks of one class (up to
 * 32 KiB), or cells of one type of object, or is the first of a run that is one
 * large block. Which of these is told by its descriptor, outside the memory
 * that users write.
 *
 * Two truths, everything else is recomputed from them:
 *   the word of a descriptor   what the span, or the run it heads, is
 *   the bits of a descriptor   which blocks of a class's span are in use
 *
 * Each class has a guard, the runs have one. Who is killed inside a guard has
 * its lists rebuilt and its hands settled by the next to lock it: a hand that
 * names a block which is not in use names nothing.
 */
#include "shm/heap.h"
#ifndef MPR_SHM_SPAN_H
#define MPR_SHM_SPAN_H

#include "shm/heap.h"

enum {
    MPR_CLASSES = 30,
    MPR_SMALL_MAX = 32768, /* the largest block of a class */
    MPR_MAP_WORDS = 16,    /* bits for 1024 blocks of 64 bytes */
    MPR_BINS = 32,
};

enum mpr_span_kind {
    MPR_SPAN_FREE,
    MPR_SPAN_LARGE,
    MPR_SPAN_CLASS,
    MPR_SPAN_OBJECTS
};

/*
 * `word` is {kind:8 | class or object type:24 | spans:32}: a truth. Inside a
 * run, behind its first span, it is 0. FREE→LARGE and LARGE→FREE under the
 * guard of the runs, LARGE↔CLASS under the class's, LARGE→OBJECTS under the
 * type's; each is one store, and the span stands in a hand before and after.
 * `bits`: a truth, under the guard of the class. Of a span of objects: which
 * cells are in use, a cache under the guard of the type (object.c).
 * `run`, at the first and last span of a free run: its length, else 0. `next`,
 * `prev`: in the list of a bin or of a class, span number + 1. `used`: bits
 * set. Caches, under the same guards. `next` of a span of objects: in the list
 * of its type, for ever.
 * `resident`: the pages may be there. Written by who holds the span; who counts
 * the heap reads it all the same.
 */
struct mpr_span {
    alignas(MPR_LINE) _Atomic uint64_t word;
    uint32_t run;
    uint32_t next, prev;
    uint32_t used;
    _Atomic uint32_t resident;
    alignas(MPR_LINE) _Atomic uint64_t bits[MPR_MAP_WORDS];
};

/* `partial`: spans with a block to spare; `empty`: those with none in use. */
struct mpr_class {
    alignas(MPR_LINE) struct mpr_guard guard;
    uint32_t partial;
    uint32_t empty;
};

/*
 * `first`, `spans`, `limit` are set once. `top` bounds the spans ever used, and
 * only grows, before the word it uncovers is written. `bins` (free runs by the
 * logarithm of their length, last freed first), `warm` (single free spans that
 * are in no run; `warm_count` of them) and `kept` (free spans with pages) are
 * caches. Locks: `guard` for all of these.
 */
struct mpr_heap {
    char *first;
    struct mpr_span *spans;
    uint32_t limit;
    alignas(MPR_LINE) struct mpr_guard guard;
    _Atomic uint32_t top;
    _Atomic uint32_t kept;
    uint32_t warm;
    _Atomic uint32_t warm_count;
    uint32_t bins[MPR_BINS];
    struct mpr_class classes[MPR_CLASSES];
};

/* ---- addresses, spans, words ------------------------------------------ */

static inline struct mpr_heap *mpr_heap(void)
{
    return mpr_family->heap;
}

static inline uint64_t mpr_span_word(enum mpr_span_kind kind, uint32_t what,
                                     uint32_t length)
{
    return (uint64_t)kind << 56 | (uint64_t)what << 32 | length;
}

static inline enum mpr_span_kind mpr_span_kind(uint64_t word)
{
    return (enum mpr_span_kind)(word >> 56);
}

static inline uint32_t mpr_span_what(uint64_t word)
{
    return (uint32_t)(word >> 32) & 0xffffff;
}

static inline uint64_t mpr_span_load(const struct mpr_span *span)
{
    return atomic_load_explicit(&span->word, memory_order_acquire);
}

static inline void mpr_span_store(struct mpr_span *span, uint64_t word)
{
    atomic_store_explicit(&span->word, word, memory_order_release);
}

static inline char *mpr_span_address(uint32_t span)
{
    return mpr_heap()->first + span * MPR_SPAN_SIZE;
}

/* The number of the span that holds p; false when p lies in none. */
static inline bool mpr_span_of(const void *p, uint32_t *span)
{
    uintptr_t offset = (uintptr_t)p - (uintptr_t)mpr_heap()->first;
    uintptr_t number = offset / MPR_SPAN_SIZE;
    if ((uintptr_t)p < (uintptr_t)mpr_heap()->first ||
        number >=
            atomic_load_explicit(&mpr_heap()->top, memory_order_acquire)) {
        return false;
    }
    *span = (uint32_t)number;
    return true;
}

static inline uint32_t mpr_span_resident(uint32_t first, uint32_t length)
{
    uint32_t count = 0;
    for (uint32_t i = first; i < first + length; i++) {
        count += atomic_load_explicit(&mpr_heap()->spans[i].resident,
                                      memory_order_relaxed);
    }
    return count;
}

/* Lists of spans, by their numbers + 1: caches. */
void mpr_span_push(uint32_t *head, uint32_t span);
void mpr_span_remove(uint32_t *head, uint32_t span);

/* ---- runs (run.c) ----------------------------------------------------- */

/*
 * A run of spans for `size` bytes, left in a hand of `self`; its pages are
 * there, or come when touched. NULL: the limit is reached, or no memory.
 */
void *mpr_run_alloc(struct mpr_thread *self, size_t size, bool zeroed,
                    enum mpr_hand hand);

/* Free the run that begins with span `first` and is in a hand of `whose`. */
void mpr_run_free(struct mpr_thread *self, struct mpr_thread *whose,
                  enum mpr_hand hand, uint32_t first);

/* ---- classes (class.c) ------------------------------------------------ */

/* A block of at least `size` bytes, up to MPR_SMALL_MAX, in a hand. */
void *mpr_class_alloc(struct mpr_thread *self, size_t size, enum mpr_hand hand);

/*
 * Free block `p` of span `number`, in the hand `hand` of `whose`, or in none:
 * MPR_HAND_COUNT. False, and nothing done: it is not in use.
 */
bool mpr_class_free(struct mpr_thread *self, struct mpr_thread *whose,
                    enum mpr_hand hand, void *p, uint32_t number);

/* The size of block `p` of a span of a class; 0: no block, or not in use. */
size_t mpr_class_size_of(const void *p, uint32_t number);

/* How many blocks of a class's span are in use, and the size of each. */
uint32_t mpr_class_used(const struct mpr_span *span);
size_t mpr_class_block_size(const struct mpr_span *span);

/* The heap is full: what stayed empty with the classes goes back. */
void mpr_class_free_empty_spans(struct mpr_thread *self);

void mpr_class_init(struct mpr_class *classes);

#endif
