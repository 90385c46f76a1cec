/* SPDX-License-Identifier: MIT */
/*
 * The words of an end. Nobody but a fork takes one without the pipe's guard;
 * since that one may be at it at any time, each is taken by compare-and-swap.
 * A word is freed by its process's death alone: nobody stores 0.
 */
#include "chan/end.h"

void mpr_end_init(struct mproc_connection *end, unsigned which, mpr_id holder)
{
    end->mark = MPR_END_MARK ^ which;
    atomic_store(&end->closed, 0);
    atomic_store(&end->more, NULL);
    for (int i = 0; i < MPR_HOLDERS_FIRST; i++) {
        atomic_store(&end->holder[i], i == 0 ? holder : 0);
    }
}

/* ---- words ------------------------------------------------------------ */

static bool is_free(mpr_id word)
{
    return word == 0 || mpr_id_is_dead(word & ~MPR_HOLDER_CLOSED);
}

static bool take_if_free(_Atomic mpr_id *word, mpr_id id)
{
    mpr_id before = mpr_end_load(word);
    return is_free(before) && atomic_compare_exchange_strong(word, &before, id);
}

bool mpr_end_names_first(const struct mproc_connection *end, mpr_id id)
{
    for (int i = 0; i < MPR_HOLDERS_FIRST; i++) {
        if (mpr_end_load(&end->holder[i]) == id) {
            return true;
        }
    }
    return false;
}

bool mpr_end_add_first(struct mproc_connection *end, mpr_id id)
{
    for (int i = 0; i < MPR_HOLDERS_FIRST; i++) {
        if (take_if_free(&end->holder[i], id)) {
            return true;
        }
    }
    return false;
}

struct mpr_end_words mpr_end_words(struct mproc_connection *end)
{
    return (struct mpr_end_words){end->holder, MPR_HOLDERS_FIRST,
                                  atomic_load(&end->more)};
}

_Atomic mpr_id *mpr_end_next_word(struct mpr_end_words *words)
{
    if (words->left == 0) {
        if (words->next == NULL) {
            return NULL;
        }
        words->at = words->next->holder;
        words->left = MPR_HOLDERS_A_CHUNK;
        words->next = words->next->next;
    }
    words->left--;
    return words->at++;
}

bool mpr_end_is_held(struct mproc_connection *end)
{
    struct mpr_end_words words = mpr_end_words(end);
    const _Atomic mpr_id *word;
    while ((word = mpr_end_next_word(&words)) != NULL) {
        if (mpr_end_holds(mpr_end_load(word))) {
            return true;
        }
    }
    return false;
}

_Atomic mpr_id *mpr_end_find(struct mproc_connection *end, mpr_id id)
{
    struct mpr_end_words words = mpr_end_words(end);
    _Atomic mpr_id *word;
    while ((word = mpr_end_next_word(&words)) != NULL) {
        if ((mpr_end_load(word) & ~MPR_HOLDER_CLOSED) == id) {
            break;
        }
    }
    return word;
}

/* ---- chunks, and who needs one ---------------------------------------- */

int mpr_end_fetch_chunk(struct mpr_thread *self)
{
    size_t size = sizeof(struct mpr_holder_chunk);
    return mpr_heap_alloc(self, size, MPR_HAND_SECOND) != NULL ? 0
                                                               : MPROC_ENOMEM;
}

/* The chunk in the hand MPR_HAND_SECOND becomes the end's. */
static void link_chunk(struct mproc_connection *end, struct mpr_thread *self)
{
    struct mpr_holder_chunk *chunk = mpr_hand(self, MPR_HAND_SECOND);
    for (int i = 0; i < MPR_HOLDERS_A_CHUNK; i++) {
        atomic_store_explicit(&chunk->holder[i], 0, memory_order_relaxed);
    }
    chunk->next = atomic_load(&end->more);
    atomic_store(&end->more, chunk);
    mpr_hand_set(self, MPR_HAND_SECOND, NULL);
}

bool mpr_end_drop_chunk(struct mproc_connection *end, struct mpr_thread *whose)
{
    struct mpr_holder_chunk *chunk = atomic_load(&end->more);
    if (chunk != NULL) {
        mpr_hand_set(whose, MPR_HAND_SECOND, chunk);
        atomic_store(&end->more, chunk->next);
    }
    return chunk != NULL;
}

bool mpr_end_has_chunk(const struct mproc_connection *end, const void *chunk)
{
    const struct mpr_holder_chunk *at = atomic_load(&end->more);
    while (at != NULL && at != chunk) {
        at = at->next;
    }
    return at != NULL;
}

static bool take_word(struct mproc_connection *end, mpr_id id)
{
    struct mpr_end_words words = mpr_end_words(end);
    _Atomic mpr_id *word;
    while ((word = mpr_end_next_word(&words)) != NULL) {
        if (take_if_free(word, id)) {
            return true;
        }
    }
    return false;
}

int mpr_end_add(struct mproc_connection *end, struct mpr_thread *self,
                mpr_id id)
{
    if (atomic_load(&end->closed)) {
        return MPROC_EINVAL;
    }
    while (!take_word(end, id)) {
        if (mpr_hand(self, MPR_HAND_SECOND) == NULL) {
            return MPROC_EAGAIN;
        }
        link_chunk(end, self);
    }
    return 0;
}
