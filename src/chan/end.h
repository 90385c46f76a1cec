/* SPDX-License-Identifier: MIT */
/*
 * One end of a pipe, and who holds it.
 *
 * Who holds an end is written in it, not counted: a process that ends, in
 * whatever way, holds nothing from then on, and nobody has to take its part
 * back. Each holder has a word in the end, or in a chunk of the heap that the
 * end keeps until its pipe ends. A process that uses an end becomes a holder of
 * it; one that has closed it leaves its word there, so that it does not become
 * one again.
 *
 * What is concluded from the words, and who is told of it: chan/pipe.h.
 */
#ifndef MPR_CHAN_END_H
#define MPR_CHAN_END_H

#include <mproc/pipe.h>

#include "shm/heap.h"

enum { MPR_HOLDERS_FIRST = 5, MPR_HOLDERS_A_CHUNK = 30 };

/*
 * A word of a holder is the id of a process. MPR_HOLDER_CLOSED beside it: that
 * process has closed the end, and may not use it again.
 */
#define MPR_HOLDER_CLOSED UINT64_C(1)

struct mpr_holder_chunk {
    struct mpr_holder_chunk *next;
    uint64_t reserved;
    _Atomic mpr_id holder[MPR_HOLDERS_A_CHUNK];
};

/*
 * One end, and the handle of it. `mark` tells a handle from other memory, and
 * which of the two ends it is; it lasts over reuse of the pipe.
 * `holder`, and the words of the chunks at `more`: who holds the end. A word
 * whose process is dead holds nothing, and is free for another. `closed`: the
 * last holder was gone once; nobody becomes one any more.
 * Locks: the pipe's guard, for all stores but a fork's (chan/inherit.c), and
 * for what is behind `more`; the first words and `closed` are read without.
 * Publishes: each word for itself. Survives: every change is one store. Who is
 * killed before it has told others is dead, and whoever reaps him settles the
 * pipe anew. A chunk on its way to or from `more` is in a hand as well: it is
 * the end's while it is among the end's.
 */
struct mproc_connection {
    alignas(MPR_LINE) uint64_t mark;
    _Atomic uint32_t closed;
    uint32_t reserved;
    struct mpr_holder_chunk *_Atomic more;
    _Atomic mpr_id holder[MPR_HOLDERS_FIRST];
};

static_assert(sizeof(struct mproc_connection) == MPR_LINE, "one line an end");

#define MPR_END_MARK UINT64_C(0x6d70726320656e64) /* "mprc end" */

/* Before its pipe is live: end 0 or 1, held by that process alone. */
void mpr_end_init(struct mproc_connection *end, unsigned which, mpr_id holder);

/* The handle of an end, be its pipe live or not? */
static inline bool mpr_end_is(const struct mproc_connection *c)
{
    return (uintptr_t)c % MPR_LINE == 0 && mpr_family_holds(c, sizeof *c) &&
           (c->mark | 1) == (MPR_END_MARK | 1);
}

static inline unsigned mpr_end_which(const struct mproc_connection *end)
{
    return end->mark != MPR_END_MARK;
}

/* ---- words ------------------------------------------------------------ */

static inline mpr_id mpr_end_load(const _Atomic mpr_id *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static inline bool mpr_end_holds(mpr_id word)
{
    return word != 0 && !(word & MPR_HOLDER_CLOSED) && !mpr_id_is_dead(word);
}

/* ---- without the guard ------------------------------------------------ */

/* False tells nothing. */
static inline bool mpr_end_surely_held(const struct mproc_connection *end)
{
    for (int i = 0; i < MPR_HOLDERS_FIRST; i++) {
        if (mpr_end_holds(mpr_end_load(&end->holder[i]))) {
            return true;
        }
    }
    return false;
}

/* Is one of the first words this process's, who has not closed the end? */
bool mpr_end_names_first(const struct mproc_connection *end, mpr_id id);

/* Gives the process one of the first words, if one is free. */
bool mpr_end_add_first(struct mproc_connection *end, mpr_id id);

/* ---- with the guard locked -------------------------------------------- */

/* All holders' words of an end, one by one; NULL behind the last. */
struct mpr_end_words {
    _Atomic mpr_id *at;
    unsigned left;
    struct mpr_holder_chunk *next;
};

struct mpr_end_words mpr_end_words(struct mproc_connection *end);
_Atomic mpr_id *mpr_end_next_word(struct mpr_end_words *words);

bool mpr_end_is_held(struct mproc_connection *end);

/* The word of a process that holds the end or has closed it, else NULL. */
_Atomic mpr_id *mpr_end_find(struct mproc_connection *end, mpr_id id);

/*
 * Another holder. EAGAIN: a chunk is needed in the hand MPR_HAND_SECOND, see
 * mpr_end_fetch_chunk. EINVAL: the end is closed for ever.
 */
int mpr_end_add(struct mproc_connection *end, struct mpr_thread *self,
                mpr_id id);

/* The first chunk leaves the end for the hand MPR_HAND_SECOND of `whose`. */
bool mpr_end_drop_chunk(struct mproc_connection *end, struct mpr_thread *whose);

/* Is that chunk among the end's? */
bool mpr_end_has_chunk(const struct mproc_connection *end, const void *chunk);

/* Without the guard: a chunk in the hand MPR_HAND_SECOND, or ENOMEM. */
int mpr_end_fetch_chunk(struct mpr_thread *self);

#endif
