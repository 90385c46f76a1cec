/* SPDX-License-Identifier: MIT */
/*
 * The shared heap. Blocks start on a cache line and may be freed by any
 * process. A block is handed over through a word of a thread's hand (slot.h),
 * so that it is never lost nor freed twice, whoever is killed when.
 *
 * What is bounded. Who is killed inside a guard of the heap costs the next one
 * a walk over the descriptors, some 10 ns for each 64 KiB ever used. Who is
 * stopped there (SIGSTOP, a debugger) holds up everybody who takes or frees a
 * block of that class, or of any class that needs a span, until it goes on or
 * is killed: nobody else may decide what it was about to do. These waits have
 * no deadline, and so the calls that carry messages in blocks have none in that
 * case, which is one of some hundred instructions at a time. Calls that wait
 * for others (locks, semaphores, events, conditions, receiving what lies in a
 * segment) take no block and keep their deadlines. Free runs keep the pages of
 * 64 MiB at most, each class one empty span.
 */
#ifndef MPR_SHM_HEAP_H
#define MPR_SHM_HEAP_H

#include "shm/slot.h"

#define MPR_SPAN_SIZE ((size_t)64 * 1024)

/* Bytes that the heap's own tables take for `spans` spans. */
size_t mpr_heap_tables_size(size_t spans);

/* Lay out a heap of `spans` spans: its tables, and where the spans begin. */
void mpr_heap_init(struct mpr_heap *heap, char *first_span, size_t spans);

/*
 * A block of at least `size` bytes, not zeroed, aligned to a cache line, left
 * in the hand `hand` of `self`, which must be empty. NULL: no memory, or the
 * limit is reached.
 */
void *mpr_heap_alloc(struct mpr_thread *self, size_t size, enum mpr_hand hand);

/* Free the block in a hand of `whose` and empty the hand; nothing if empty. */
void mpr_heap_free_hand(struct mpr_thread *self, struct mpr_thread *whose,
                        enum mpr_hand hand);

/*
 * Free a block that is in nobody's hand. False, and nothing done, when `block`
 * is no block in use.
 */
bool mpr_heap_free(struct mpr_thread *self, void *block);

/* No block can ever be larger, in bytes. */
size_t mpr_heap_limit(void);

/* Bytes that the block may be used for; 0 when it is no block in use. */
size_t mpr_heap_block_size(const void *block);

/*
 * One span, zeroed where it was never used, in the hand MPR_HAND_SPAN; given
 * to its new owner for ever, at the head of the owner's list, by
 * mpr_heap_span_adopt, inside a guard that settles hands, or freed with
 * mpr_heap_free_hand. NULL: as mpr_heap_alloc.
 */
void *mpr_heap_span(struct mpr_thread *self);
void mpr_heap_span_adopt(void *span, uint32_t type, _Atomic uint32_t *list);

/*
 * The repair of a guard under which a span is adopted calls this, with the
 * owner's list, or NULL: it has none.
 */
void mpr_heap_span_settle(struct mpr_thread *hands, _Atomic uint32_t *list);

#endif
