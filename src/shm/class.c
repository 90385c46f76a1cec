/* SPDX-License-Identifier: MIT */
/* Blocks of up to 32 KiB: spans of one size each, and a bit a block. */
#include "shm/span.h"

/* Multiples of a cache line, in steps of 12 to 25 %, that fill a span well. */
static const uint16_t class_size[MPR_CLASSES] = {
    64,   128,  192,  256,  320,  384,   448,   512,   640,   768,
    896,  1024, 1280, 1536, 1792, 2048,  2560,  3072,  3584,  4096,
    5120, 6144, 7168, 8192, 9344, 10880, 13056, 16384, 21824, MPR_SMALL_MAX,
};

static uint32_t class_of(size_t size)
{
    uint32_t low = 0, high = MPR_CLASSES - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (class_size[middle] < size) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint32_t blocks_in(uint32_t class)
{
    return (uint32_t)(MPR_SPAN_SIZE / class_size[class]);
}

/* Which block of its span p is; false when it is not the start of one. */
static bool block_of(const void *p, uint32_t span, uint32_t class,
                     uint32_t *block)
{
    size_t offset = (size_t)((const char *)p - mpr_span_address(span));
    *block = (uint32_t)(offset / class_size[class]);
    return offset % class_size[class] == 0 && *block < blocks_in(class);
}

static bool bit_is_set(const struct mpr_span *span, uint32_t block)
{
    uint64_t bits =
        atomic_load_explicit(&span->bits[block / 64], memory_order_relaxed);
    return bits >> (block % 64) & 1;
}

static void flip_bit(struct mpr_span *span, uint32_t block)
{
    uint64_t bits =
        atomic_load_explicit(&span->bits[block / 64], memory_order_relaxed);
    atomic_store_explicit(&span->bits[block / 64],
                          bits ^ UINT64_C(1) << (block % 64),
                          memory_order_release);
}

size_t mpr_class_size_of(const void *p, uint32_t number)
{
    const struct mpr_span *span = &mpr_heap()->spans[number];
    uint32_t class = mpr_span_what(mpr_span_load(span)), block;
    return block_of(p, number, class, &block) && bit_is_set(span, block)
               ? class_size[class]
               : 0;
}

size_t mpr_class_block_size(const struct mpr_span *span)
{
    return class_size[mpr_span_what(mpr_span_load(span))];
}

/* ---- taking and freeing ----------------------------------------------- */

static uint32_t free_block_in(const struct mpr_span *span)
{
    for (uint32_t i = 0;; i++) {
        uint64_t bits =
            atomic_load_explicit(&span->bits[i], memory_order_relaxed);
        if (~bits != 0) {
            return i * 64 + (uint32_t)__builtin_ctzll(~bits);
        }
    }
}

/* With the guard of the class locked, and a span with a block to spare: its
 * first clear bit is a block's, the bits behind the last block stay clear. */
static void *take_block(struct mpr_thread *self, uint32_t class,
                        enum mpr_hand hand)
{
    struct mpr_class *c = &mpr_heap()->classes[class];
    uint32_t number = c->partial - 1;
    struct mpr_span *span = &mpr_heap()->spans[number];
    uint32_t block = free_block_in(span);
    void *p = mpr_span_address(number) + (size_t)block * class_size[class];
    mpr_hand_set(self, hand, p);
    flip_bit(span, block);
    c->empty -= span->used == 0;
    if (++span->used == blocks_in(class)) {
        mpr_span_remove(&c->partial, number);
    }
    return p;
}

/* With the guard of the class locked: the span in hand is the class's. */
static void adopt_span(struct mpr_thread *self, uint32_t class)
{
    struct mpr_class *c = &mpr_heap()->classes[class];
    uint32_t number;
    MPR_CHECK(mpr_span_of(mpr_hand(self, MPR_HAND_SPAN), &number));
    struct mpr_span *span = &mpr_heap()->spans[number];
    for (uint32_t i = 0; i < MPR_MAP_WORDS; i++) {
        atomic_store_explicit(&span->bits[i], 0, memory_order_relaxed);
    }
    mpr_span_store(span, mpr_span_word(MPR_SPAN_CLASS, class, 1));
    mpr_hand_set(self, MPR_HAND_SPAN, NULL);
    span->used = 0;
    mpr_span_push(&c->partial, number);
    c->empty++;
}

void *mpr_class_alloc(struct mpr_thread *self, size_t size, enum mpr_hand hand)
{
    uint32_t class = class_of(size);
    struct mpr_class *c = &mpr_heap()->classes[class];
    mpr_guard_lock(&c->guard, self, self);
    while (c->partial == 0) {
        mpr_guard_unlock(&c->guard, self);
        if (mpr_heap_span(self) == NULL) {
            return NULL;
        }
        mpr_guard_lock(&c->guard, self, self);
        adopt_span(self, class);
    }
    void *p = take_block(self, class, hand);
    mpr_guard_unlock(&c->guard, self);
    return p;
}

/* With the guard of the class locked, for hands of the thread itself: an empty
 * span on its way back to the runs. */
static void take_span(struct mpr_thread *self, uint32_t class, uint32_t number)
{
    struct mpr_class *c = &mpr_heap()->classes[class];
    mpr_span_remove(&c->partial, number);
    c->empty--;
    mpr_hand_set(self, MPR_HAND_SPAN, mpr_span_address(number));
    mpr_span_store(&mpr_heap()->spans[number],
                   mpr_span_word(MPR_SPAN_LARGE, 0, 1));
}

/*
 * One empty span stays with its class. A second one goes back to the runs, by
 * way of the hand of the thread itself: a dead one's may be taken.
 */
static bool spare_span(struct mpr_thread *self, struct mpr_thread *whose,
                       uint32_t class, uint32_t number)
{
    if (mpr_heap()->classes[class].empty++ == 0 || whose != self) {
        return false;
    }
    take_span(self, class, number);
    return true;
}

/* The heap is full: what stayed with the classes goes back. */
void mpr_class_free_empty_spans(struct mpr_thread *self)
{
    struct mpr_span *spans = mpr_heap()->spans;
    for (uint32_t class = 0; class < MPR_CLASSES;) {
        struct mpr_class *c = &mpr_heap()->classes[class];
        mpr_guard_lock(&c->guard, self, self);
        uint32_t at = c->empty > 0 ? c->partial : 0;
        while (at != 0 && spans[at - 1].used > 0) {
            at = spans[at - 1].next;
        }
        if (at != 0) {
            take_span(self, class, at - 1);
        }
        mpr_guard_unlock(&c->guard, self);
        if (at != 0) {
            mpr_run_free(self, self, MPR_HAND_SPAN, at - 1);
        } else {
            class ++;
        }
    }
}

/* `hand`: MPR_HAND_COUNT when the block is in none. False: not in use. */
bool mpr_class_free(struct mpr_thread *self, struct mpr_thread *whose,
                    enum mpr_hand hand, void *p, uint32_t number)
{
    struct mpr_span *span = &mpr_heap()->spans[number];
    uint32_t class = mpr_span_what(mpr_span_load(span)), block;
    struct mpr_class *c = &mpr_heap()->classes[class];
    bool held = hand != MPR_HAND_COUNT, spare = false;
    mpr_guard_lock(&c->guard, self, whose);
    bool ours =
        mpr_span_load(span) == mpr_span_word(MPR_SPAN_CLASS, class, 1) &&
        block_of(p, number, class, &block) && bit_is_set(span, block) &&
        (!held || mpr_hand(whose, hand) == p);
    if (ours) {
        flip_bit(span, block);
        if (held) {
            mpr_hand_set(whose, hand, NULL);
        }
        if (span->used-- == blocks_in(class)) {
            mpr_span_push(&c->partial, number);
        }
        spare = span->used == 0 && spare_span(self, whose, class, number);
    }
    mpr_guard_unlock(&c->guard, self);
    if (spare) {
        mpr_run_free(self, self, MPR_HAND_SPAN, number);
    }
    return ours;
}

uint32_t mpr_class_used(const struct mpr_span *span)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < MPR_MAP_WORDS; i++) {
        used += (uint32_t)__builtin_popcountll(
            atomic_load_explicit(&span->bits[i], memory_order_relaxed));
    }
    return used;
}

/* A hand on a block that is not in use is empty, as is one on the span. */
static void settle_blocks(struct mpr_thread *hands, uint32_t class)
{
    struct mpr_span *spans = mpr_heap()->spans;
    for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
        void *p = mpr_hand(hands, (enum mpr_hand)hand);
        uint32_t span, block;
        if (hand != MPR_HAND_SPAN && p != NULL && mpr_span_of(p, &span) &&
            mpr_span_load(&spans[span]) ==
                mpr_span_word(MPR_SPAN_CLASS, class, 1) &&
            block_of(p, span, class, &block) &&
            !bit_is_set(&spans[span], block)) {
            mpr_hand_set(hands, (enum mpr_hand)hand, NULL);
        }
    }
    mpr_heap_span_settle(hands, NULL);
}

static void repair_class(struct mpr_guard *guard, struct mpr_thread *hands)
{
    struct mpr_class *c = (struct mpr_class *)guard;
    uint32_t class = (uint32_t)(c - mpr_heap()->classes);
    struct mpr_span *spans = mpr_heap()->spans;
    uint32_t top = atomic_load(&mpr_heap()->top);
    c->partial = 0;
    c->empty = 0;
    for (uint32_t i = top; i-- > 0;) {
        if (mpr_span_load(&spans[i]) !=
            mpr_span_word(MPR_SPAN_CLASS, class, 1)) {
            continue;
        }
        spans[i].used = mpr_class_used(&spans[i]);
        c->empty += spans[i].used == 0;
        if (spans[i].used < blocks_in(class)) {
            mpr_span_push(&c->partial, i);
        }
    }
    if (hands != NULL) {
        settle_blocks(hands, class);
    }
}

__attribute__((constructor)) static void register_repair(void)
{
    mpr_guard_on_repair(MPR_GUARD_CLASS, repair_class);
}

void mpr_class_init(struct mpr_class *classes)
{
    for (uint32_t class = 0; class < MPR_CLASSES; class ++) {
        mpr_guard_init(&classes[class].guard, MPR_GUARD_CLASS);
    }
}
