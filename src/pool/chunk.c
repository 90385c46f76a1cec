/* SPDX-License-Identifier: MIT */
/* Items of a batch that travel together: their block, and what came back. */
#include <stdlib.h>
#include <string.h>

#include "pool/private.h"

/* ---- making ----------------------------------------------------------- */

static size_t round_up(size_t n)
{
    return (n + MPR_LINE - 1) / MPR_LINE * MPR_LINE;
}

static bool grow(void **memory, size_t *room, size_t needed)
{
    size_t larger = needed < 2 * *room ? 2 * *room : needed;
    if (needed <= *room) {
        return true;
    }
    void *grown = realloc(*memory, larger);
    if (grown == NULL) {
        return false;
    }
    *memory = grown;
    *room = larger;
    return true;
}

int mpr_staged_add(struct mpr_staged *s, const void *item, size_t size)
{
    const size_t to = alignof(max_align_t);
    size_t at = (s->size + to - 1) / to * to;
    size_t items_room = s->items_room * sizeof *s->items;
    void *bytes = s->bytes, *items = s->items;
    bool grown = size < SIZE_MAX / 8 && grow(&bytes, &s->room, at + size + 1);
    s->bytes = bytes;
    grown =
        grown && grow(&items, &items_room, (s->count + 1) * sizeof *s->items);
    s->items = items;
    if (!grown) {
        return MPROC_ENOMEM;
    }
    s->items_room = items_room / sizeof *s->items;
    if (size > 0) {
        memcpy(s->bytes + at, item, size);
    }
    s->bytes[at + size] = '\0';
    s->items[s->count].at = at;
    s->items[s->count].size = size;
    s->size = at + size + 1;
    s->count++;
    return 0;
}

/* Where the parts of a chunk lie in its block. */
struct plan {
    const mproc_batch *batch;
    bool in_place, out_in_place, status_in_place, has_items;
    size_t items, item, in, out, status, end;
};

static void plan_places(struct plan *plan, const mproc_batch *b)
{
    plan->in_place =
        b->next == NULL && mpr_family_holds(b->in, b->count * b->in_size);
    plan->out_in_place = mpr_family_holds(b->out, b->count * b->out_size);
    plan->status_in_place =
        b->status != NULL &&
        mpr_family_holds(b->status, b->count * sizeof *b->status);
}

/* `staged`: bytes of items that do not lie in an array. */
static struct plan plan_of(const struct mpr_batch_state *batch, size_t count,
                           size_t staged)
{
    const mproc_batch *b = &batch->is;
    struct plan plan = {.batch = b, .has_items = batch->tells_items};
    bool packed;
    plan_places(&plan, b);
    packed = b->next == NULL && !plan.in_place;
    plan.items = round_up(sizeof(struct mpr_chunk));
    plan.item =
        plan.items +
        (plan.has_items ? round_up(count * sizeof(struct mpr_item)) : 0);
    plan.in = plan.item + (packed ? round_up(b->in_size + 1) : 0);
    plan.out = plan.in + round_up(packed ? count * b->in_size : staged);
    plan.status = plan.out;
    if (b->out != NULL && !plan.out_in_place) {
        plan.status += round_up(count * b->out_size);
    }
    plan.end =
        plan.status + (plan.status_in_place ? 0 : count * sizeof *b->status);
    return plan;
}

static void fill_in(struct mpr_chunk *chunk, const struct plan *plan)
{
    const mproc_batch *b = plan->batch;
    char *block = (char *)chunk;
    if (b->next != NULL) {
        return;
    }
    chunk->in = (const char *)b->in + chunk->first * b->in_size;
    if (!plan->in_place) {
        chunk->item = block + plan->item;
        chunk->in =
            memcpy(block + plan->in, chunk->in, chunk->count * b->in_size);
    }
}

static void fill_items(struct mpr_chunk *chunk, const struct plan *plan,
                       const struct mpr_staged *staged)
{
    char *block = (char *)chunk;
    if (!plan->has_items) {
        return;
    }
    chunk->items = (struct mpr_item *)(block + plan->items);
    memset(chunk->items, 0, chunk->count * sizeof *chunk->items);
    if (staged == NULL) {
        return;
    }
    memcpy(block + plan->in, staged->bytes, staged->size);
    for (size_t i = 0; i < chunk->count; i++) {
        chunk->items[i].in = block + plan->in + staged->items[i].at;
        chunk->items[i].in_size = staged->items[i].size;
    }
}

static void lay_out(struct mpr_chunk *chunk, const struct plan *plan,
                    const struct mpr_staged *staged, size_t first, size_t count)
{
    const mproc_batch *b = plan->batch;
    char *block = (char *)chunk;
    *chunk = (struct mpr_chunk){.first = first,
                                .count = count,
                                .in_size = b->in_size,
                                .out_size = b->out_size,
                                .timed = b->chunk == 0,
                                .bad = count};
    fill_in(chunk, plan);
    fill_items(chunk, plan, staged);
    if (b->out != NULL) {
        chunk->out = plan->out_in_place ? (char *)b->out + first * b->out_size
                                        : block + plan->out;
    }
    chunk->status = plan->status_in_place ? b->status + first
                                          : (int *)(block + plan->status);
    for (size_t i = 0; i < count; i++) {
        chunk->status[i] = MPR_ITEM_PENDING;
    }
}

struct mpr_chunk *mpr_chunk_new(struct mpr_thread *self,
                                const struct mpr_batch_state *batch,
                                size_t first, size_t count)
{
    const struct mpr_staged *staged =
        batch->is.next != NULL ? &batch->iter->staged : NULL;
    struct plan plan = plan_of(batch, count, staged != NULL ? staged->size : 0);
    struct mpr_chunk *chunk = mpr_heap_alloc(self, plan.end, MPR_HAND_BLOCK);
    if (chunk != NULL) {
        lay_out(chunk, &plan, staged, first, count);
    }
    return chunk;
}

void mpr_chunk_again(struct mpr_chunk *chunk,
                     const struct mpr_batch_state *batch, size_t first,
                     size_t count)
{
    struct plan plan = plan_of(batch, count, 0);
    lay_out(chunk, &plan, NULL, first, count);
}

/* ---- what came back --------------------------------------------------- */

/* Had all of it ended: who cancelled it was told that something would not. */
static void cancel_last(struct mpr_chunk *chunk)
{
    size_t last = chunk->count - 1;
    chunk->status[last] = MPROC_ECANCELED;
    chunk->bad = chunk->bad < last ? chunk->bad : last;
}

size_t mpr_chunk_end(struct mpr_chunk *chunk, int status)
{
    if (status == MPROC_ECANCELED) {
        cancel_last(chunk);
    }
    size_t first = chunk->bad;
    for (size_t i = atomic_load(&chunk->at); i < chunk->count; i++) {
        if (chunk->status[i] == MPR_ITEM_PENDING) {
            chunk->status[i] = status;
            first = first < i ? first : i;
        }
    }
    return first;
}

static const char *text_of(const struct mpr_item *item, int status,
                           const char *replies, char text[MPR_LOSS_TEXT])
{
    switch (status) {
    case MPROC_OK:
        return "";
    case MPROC_ETASK:
        return item != NULL && item->text > 0 ? replies + item->text - 1 : "";
    case MPROC_EWORKERLOST:
    case MPROC_EOVERTIME:
        if (item != NULL && item->worker != 0) {
            return mpr_loss_text(text, item->worker, status, item->code);
        }
        break;
    default:
        break;
    }
    return mproc_strerror(status);
}

mproc_outcome mpr_chunk_outcome(struct mpr_chunk *chunk, const char *replies,
                                size_t i, char text[MPR_LOSS_TEXT])
{
    const struct mpr_item *item = mpr_chunk_item(chunk, i);
    mproc_outcome outcome = {.status = chunk->status[i],
                             .index = chunk->first + i,
                             .data = mpr_no_reply};
    if (item != NULL) {
        bool cancelled = outcome.status == MPROC_ECANCELED;
        outcome.code = cancelled ? 0 : item->code;
        outcome.worker = item->worker;
    }
    outcome.error = text_of(item, outcome.status, replies, text);
    if (outcome.status == MPROC_OK && chunk->out != NULL) {
        outcome.data = chunk->out + i * chunk->out_size;
        outcome.size = chunk->out_size;
    } else if (outcome.status == MPROC_OK && item != NULL && item->size > 0) {
        outcome.data = replies + item->data;
        outcome.size = item->size;
    }
    return outcome;
}

void mpr_chunk_copy_out(const struct mpr_chunk *chunk, const mproc_batch *to)
{
    size_t size = to->out_size;
    char *out = to->out != NULL ? (char *)to->out + chunk->first * size : NULL;
    bool there = out == NULL || out == chunk->out || size == 0;
    for (size_t i = 0; i < chunk->count && !there; i++) {
        if (chunk->status[i] == MPROC_OK) {
            memcpy(out + i * size, chunk->out + i * size, size);
        }
    }
    if (to->status != NULL && to->status + chunk->first != chunk->status) {
        memcpy(to->status + chunk->first, chunk->status,
               chunk->count * sizeof *chunk->status);
    }
}
