/* SPDX-License-Identifier: MIT */
#include "shm/heap.h"

#include <string.h>

#include <mproc/shared.h>

#include "base/options.h"
#include "shm/span.h"

size_t mpr_heap_tables_size(size_t spans)
{
    return sizeof(struct mpr_heap) + spans * sizeof(struct mpr_span);
}

void mpr_heap_init(struct mpr_heap *h, char *first_span, size_t spans)
{
    h->first = first_span;
    h->spans = (struct mpr_span *)(h + 1);
    h->limit = (uint32_t)spans;
    mpr_guard_init(&h->guard, MPR_GUARD_RUNS);
    mpr_class_init(h->classes);
}

size_t mpr_heap_limit(void)
{
    return mpr_heap()->limit * MPR_SPAN_SIZE;
}

size_t mpr_heap_block_size(const void *p)
{
    uint32_t span;
    if (mpr_family == NULL || !mpr_span_of(p, &span)) {
        return 0;
    }
    uint64_t word = mpr_span_load(&mpr_heap()->spans[span]);
    switch (mpr_span_kind(word)) {
    case MPR_SPAN_LARGE:
        return p == mpr_span_address(span) ? (uint32_t)word * MPR_SPAN_SIZE : 0;
    case MPR_SPAN_CLASS:
        return mpr_class_size_of(p, span);
    default:
        return 0;
    }
}

static void *heap_alloc(struct mpr_thread *self, size_t size, bool zeroed,
                        enum mpr_hand hand)
{
    if (size > MPR_SMALL_MAX) {
        return mpr_run_alloc(self, size, zeroed, hand);
    }
    void *p = mpr_class_alloc(self, size, hand);
    if (p != NULL && zeroed) {
        memset(p, 0, size);
    }
    return p;
}

void *mpr_heap_alloc(struct mpr_thread *self, size_t size, enum mpr_hand hand)
{
    return heap_alloc(self, size, false, hand);
}

void mpr_heap_free_hand(struct mpr_thread *self, struct mpr_thread *whose,
                        enum mpr_hand hand)
{
    void *p = mpr_hand(whose, hand);
    uint32_t span;
    if (p == NULL) {
        return;
    }
    MPR_CHECK(mpr_span_of(p, &span));
    switch (mpr_span_kind(mpr_span_load(&mpr_heap()->spans[span]))) {
    case MPR_SPAN_LARGE:
        mpr_run_free(self, whose, hand, span);
        break;
    case MPR_SPAN_CLASS:
        mpr_class_free(self, whose, hand, p, span);
        break;
    default:
        /* freed by one who was killed before it emptied the hand: the repair
         * empties it */
        mpr_guard_lock(&mpr_heap()->guard, self, NULL);
        mpr_guard_unlock(&mpr_heap()->guard, self);
    }
}

bool mpr_heap_free(struct mpr_thread *self, void *block)
{
    uint32_t span;
    if (mpr_heap_block_size(block) == 0 || !mpr_span_of(block, &span)) {
        return false;
    }
    if (mpr_span_kind(mpr_span_load(&mpr_heap()->spans[span])) ==
        MPR_SPAN_LARGE) {
        mpr_hand_set(self, MPR_HAND_RETURN, block);
        mpr_run_free(self, self, MPR_HAND_RETURN, span);
        return true;
    }
    return mpr_class_free(self, self, MPR_HAND_COUNT, block, span);
}

/* ---- the public calls ------------------------------------------------- */

static void *public_alloc(size_t size, bool zeroed)
{
    struct mpr_thread *self;
    if (mpr_self(&self) < 0) {
        return NULL;
    }
    void *p = heap_alloc(self, size, zeroed, MPR_HAND_BLOCK);
    if (p != NULL) {
        mpr_hand_set(self, MPR_HAND_BLOCK, NULL);
    }
    return p;
}

void *mproc_alloc(size_t size)
{
    return public_alloc(size, false);
}

void *mproc_calloc(size_t n, size_t size)
{
    size_t all;
    return __builtin_mul_overflow(n, size, &all) ? NULL
                                                 : public_alloc(all, true);
}

void mproc_free(void *p)
{
    struct mpr_thread *self;
    if (p != NULL && mpr_family != NULL && mpr_self(&self) == 0) {
        mpr_heap_free(self, p);
    }
}

/* What is new stays in hand until what was has been given back. */
static void *move_block(struct mpr_thread *self, void *p, size_t has,
                        size_t size)
{
    void *moved = heap_alloc(self, size, false, MPR_HAND_BLOCK);
    if (moved == NULL) {
        return size <= has ? p : NULL;
    }
    memcpy(moved, p, size < has ? size : has);
    mpr_heap_free(self, p);
    mpr_hand_set(self, MPR_HAND_BLOCK, NULL);
    return moved;
}

void *mproc_realloc(void *p, size_t size)
{
    struct mpr_thread *self;
    if (p == NULL) {
        return mproc_alloc(size);
    }
    size_t has = mpr_heap_block_size(p);
    if (has == 0 || mpr_self(&self) < 0) {
        return NULL;
    }
    bool fits = size <= has && size >= has / 2;
    return fits ? p : move_block(self, p, has, size);
}

char *mproc_strdup(const char *s)
{
    size_t size = s != NULL ? strlen(s) + 1 : 0;
    char *copy = s != NULL ? mproc_alloc(size) : NULL;
    return copy != NULL ? memcpy(copy, s, size) : NULL;
}

/* Counted from the two truths, so nothing has to be kept in step with them. */
static void count_heap(mproc_heap_info *info)
{
    const struct mpr_span *spans = mpr_heap()->spans;
    uint32_t top = atomic_load(&mpr_heap()->top), length, resident = 0;
    *info = (mproc_heap_info){
        .high_water = top * MPR_SPAN_SIZE,
        .limit = mpr_heap()->limit * MPR_SPAN_SIZE,
    };
    for (uint32_t i = 0; i < top; i += length) {
        uint64_t word = mpr_span_load(&spans[i]);
        length = 1;
        if (mpr_span_kind(word) == MPR_SPAN_LARGE) {
            length = (uint32_t)word;
            info->in_use += length * MPR_SPAN_SIZE;
            info->blocks++;
        } else if (mpr_span_kind(word) == MPR_SPAN_CLASS) {
            size_t used = mpr_class_used(&spans[i]);
            info->in_use += used * mpr_class_block_size(&spans[i]);
            info->blocks += used;
        }
        resident += mpr_span_resident(i, length);
    }
    info->resident = mpr_os_region_resident(&mpr_family->region);
    if (info->resident == 0) {
        info->resident = resident * MPR_SPAN_SIZE;
    }
}

int mproc_heap_stats_sized(mproc_heap_info *out, size_t size)
{
    mproc_heap_info info;
    if (out == NULL) {
        return MPROC_EINVAL;
    }
    int err = mpr_family_use();
    if (err == 0) {
        count_heap(&info);
        mpr_info_write(out, size, &info, sizeof info);
    }
    return err;
}
