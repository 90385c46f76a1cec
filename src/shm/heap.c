/* SPDX-License-Identifier: MIT */
/*
 * Spans of 64 KiB. A span holds blocks of one class (up to 32 KiB), or cells of
 * one type of object, or is the first of a run that is one large block. Which
 * of these is told by its descriptor, outside the memory that users write.
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

#include <string.h>

#include <mproc/shared.h>

#include "base/options.h"

enum {
    CLASSES = 30,
    SMALL_MAX = 32768,
    MAP_WORDS = 16, /* bits for 1024 blocks of 64 bytes */
    BINS = 32,
    EAGER_SPANS = 16,  /* runs up to 1 MiB get their pages at once */
    KEPT_SPANS = 1024, /* free spans that keep their pages: 64 MiB */
    BIN_LOOKS = 16,
};

/* Multiples of a cache line, in steps of 12 to 25 %, that fill a span well. */
static const uint16_t class_size[CLASSES] = {
    64,   128,  192,  256,  320,  384,   448,   512,   640,   768,
    896,  1024, 1280, 1536, 1792, 2048,  2560,  3072,  3584,  4096,
    5120, 6144, 7168, 8192, 9344, 10880, 13056, 16384, 21824, SMALL_MAX,
};

enum span_kind { SPAN_FREE, SPAN_LARGE, SPAN_CLASS, SPAN_OBJECTS };

/*
 * `word` is {kind:8 | class or object type:24 | spans:32}: a truth. Inside a
 * run, behind its first span, it is 0. FREE→LARGE and LARGE→FREE under the
 * guard of the runs, LARGE↔CLASS under the class's, LARGE→OBJECTS under the
 * type's; each is one store, and the span stands in a hand before and after.
 * `bits`: a truth, under the guard of the class.
 * `run`, at the first and last span of a free run: its length, else 0. `next`,
 * `prev`: in the list of a bin or of a class, span number + 1. `used`: bits
 * set. Caches, under the same guards.
 * `resident`: the pages may be there. Written by who holds the span.
 */
struct span {
    alignas(MPR_LINE) _Atomic uint64_t word;
    uint32_t run;
    uint32_t next, prev;
    uint32_t used;
    uint32_t resident;
    alignas(MPR_LINE) _Atomic uint64_t bits[MAP_WORDS];
};

/* `partial`: spans with a block to spare; `empty`: those with none in use. */
struct class
{
    alignas(MPR_LINE) struct mpr_guard guard;
    uint32_t partial;
    uint32_t empty;
};

/*
 * `first`, `spans`, `limit` are set once. `top` bounds the spans ever used, and
 * only grows, before the word it uncovers is written. `bins` (free runs by the
 * logarithm of their length, last freed first) and `kept` (free spans with
 * pages) are caches. Locks: `guard` for all of these.
 */
struct mpr_heap {
    char *first;
    struct span *spans;
    uint32_t limit;
    alignas(MPR_LINE) struct mpr_guard guard;
    _Atomic uint32_t top;
    _Atomic uint32_t kept;
    uint32_t bins[BINS];
    struct class classes[CLASSES];
};

/* ---- addresses, spans, words ------------------------------------------ */

static struct mpr_heap *heap(void)
{
    return mpr_family->heap;
}

static uint64_t span_word(enum span_kind kind, uint32_t what, uint32_t length)
{
    return (uint64_t)kind << 56 | (uint64_t)what << 32 | length;
}

static enum span_kind kind_of(uint64_t word)
{
    return (enum span_kind)(word >> 56);
}

static uint32_t what_of(uint64_t word)
{
    return (uint32_t)(word >> 32) & 0xffffff;
}

static uint64_t load_word(const struct span *span)
{
    return atomic_load_explicit(&span->word, memory_order_acquire);
}

static void store_word(struct span *span, uint64_t word)
{
    atomic_store_explicit(&span->word, word, memory_order_release);
}

static char *address_of(uint32_t span)
{
    return heap()->first + span * MPR_SPAN_SIZE;
}

/* The number of the span that holds p; false when p lies in none. */
static bool span_of(const void *p, uint32_t *span)
{
    uintptr_t offset = (uintptr_t)p - (uintptr_t)heap()->first;
    uintptr_t number = offset / MPR_SPAN_SIZE;
    if ((uintptr_t)p < (uintptr_t)heap()->first ||
        number >= atomic_load_explicit(&heap()->top, memory_order_acquire)) {
        return false;
    }
    *span = (uint32_t)number;
    return true;
}

static uint32_t class_of(size_t size)
{
    uint32_t low = 0, high = CLASSES - 1;
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
    size_t offset = (size_t)((const char *)p - address_of(span));
    *block = (uint32_t)(offset / class_size[class]);
    return offset % class_size[class] == 0 && *block < blocks_in(class);
}

static bool bit_is_set(const struct span *span, uint32_t block)
{
    uint64_t bits =
        atomic_load_explicit(&span->bits[block / 64], memory_order_relaxed);
    return bits >> (block % 64) & 1;
}

static void flip_bit(struct span *span, uint32_t block)
{
    uint64_t bits =
        atomic_load_explicit(&span->bits[block / 64], memory_order_relaxed);
    atomic_store_explicit(&span->bits[block / 64],
                          bits ^ UINT64_C(1) << (block % 64),
                          memory_order_release);
}

size_t mpr_heap_block_size(const void *p)
{
    uint32_t span, block;
    if (mpr_family == NULL || !span_of(p, &span)) {
        return 0;
    }
    uint64_t word = load_word(&heap()->spans[span]);
    switch (kind_of(word)) {
    case SPAN_LARGE:
        return p == address_of(span) ? (uint32_t)word * MPR_SPAN_SIZE : 0;
    case SPAN_CLASS:
        return block_of(p, span, what_of(word), &block) &&
                       bit_is_set(&heap()->spans[span], block)
                   ? class_size[what_of(word)]
                   : 0;
    default:
        return 0;
    }
}

/* ---- lists of spans (caches) ------------------------------------------ */

static void list_push(uint32_t *head, uint32_t span)
{
    struct span *spans = heap()->spans;
    spans[span].prev = 0;
    spans[span].next = *head;
    if (*head != 0) {
        spans[*head - 1].prev = span + 1;
    }
    *head = span + 1;
}

static void list_remove(uint32_t *head, uint32_t span)
{
    struct span *spans = heap()->spans;
    uint32_t next = spans[span].next, prev = spans[span].prev;
    if (prev != 0) {
        spans[prev - 1].next = next;
    } else {
        *head = next;
    }
    if (next != 0) {
        spans[next - 1].prev = prev;
    }
}

/* ---- runs ------------------------------------------------------------- */

static uint32_t *bin_of(uint32_t length)
{
    return &heap()->bins[31 - __builtin_clz(length)];
}

static void free_run_add(uint32_t first, uint32_t length)
{
    struct span *spans = heap()->spans;
    spans[first].run = length;
    spans[first + length - 1].run = length;
    list_push(bin_of(length), first);
}

static void free_run_remove(uint32_t first)
{
    struct span *spans = heap()->spans;
    uint32_t length = spans[first].run;
    list_remove(bin_of(length), first);
    spans[first].run = 0;
    spans[first + length - 1].run = 0;
}

static uint32_t resident_in(uint32_t first, uint32_t length)
{
    uint32_t count = 0;
    for (uint32_t i = first; i < first + length; i++) {
        count += heap()->spans[i].resident;
    }
    return count;
}

/* A free run of at least `length`, from the bins: its first span + 1. */
static uint32_t find_in_bins(uint32_t length)
{
    struct span *spans = heap()->spans;
    uint32_t *bin = bin_of(length);
    uint32_t at = *bin;
    for (int looks = 0; at != 0 && looks < BIN_LOOKS; looks++) {
        if (spans[at - 1].run >= length) {
            return at;
        }
        at = spans[at - 1].next;
    }
    for (bin++; bin < &heap()->bins[BINS]; bin++) {
        if (*bin != 0) {
            return *bin;
        }
    }
    return 0;
}

/* Take `length` spans out of the free ones, or from above the top. */
static bool take_run(uint32_t length, uint32_t *first)
{
    struct span *spans = heap()->spans;
    uint32_t found = find_in_bins(length);
    if (found != 0) {
        uint32_t all = spans[found - 1].run;
        *first = found - 1;
        free_run_remove(*first);
        if (all > length) {
            free_run_add(*first + length, all - length);
        }
        return true;
    }
    uint32_t top = atomic_load(&heap()->top);
    uint32_t tail = top > 0 ? spans[top - 1].run : 0;
    if (length > heap()->limit - (top - tail)) {
        return false;
    }
    *first = top - tail;
    if (tail > 0) {
        free_run_remove(*first);
    }
    atomic_store(&heap()->top, *first + length);
    return true;
}

/*
 * Pages for a run that is ours: at once for short ones, so that they are not
 * faulted in one by one (nor refused by a SIGBUS); as touched for long ones.
 */
static int give_pages(uint32_t first, uint32_t length, bool zeroed)
{
    struct span *spans = heap()->spans;
    for (uint32_t i = first; i < first + length; i++) {
        if (spans[i].resident) {
            if (zeroed) {
                memset(address_of(i), 0, MPR_SPAN_SIZE);
            }
            continue;
        }
        if (length <= EAGER_SPANS &&
            mpr_os_populate(address_of(i), MPR_SPAN_SIZE) < 0) {
            return MPROC_ENOMEM;
        }
        spans[i].resident = 1;
    }
    return 0;
}

static void free_empty_spans(struct mpr_thread *self);

static bool take_run_in_hand(struct mpr_thread *self, enum mpr_hand hand,
                             uint32_t length, uint32_t *first)
{
    mpr_guard_lock(&heap()->guard, self, self);
    bool taken = take_run(length, first);
    if (taken) {
        mpr_hand_set(self, hand, address_of(*first));
        store_word(&heap()->spans[*first], span_word(SPAN_LARGE, 0, length));
        atomic_fetch_sub(&heap()->kept, resident_in(*first, length));
    }
    mpr_guard_unlock(&heap()->guard, self);
    return taken;
}

static void *run_alloc(struct mpr_thread *self, size_t size, bool zeroed,
                       enum mpr_hand hand)
{
    if (size > (size_t)heap()->limit * MPR_SPAN_SIZE) {
        return NULL;
    }
    uint32_t length = (uint32_t)((size + MPR_SPAN_SIZE - 1) / MPR_SPAN_SIZE);
    uint32_t first;
    if (!take_run_in_hand(self, hand, length, &first)) {
        free_empty_spans(self);
        if (!take_run_in_hand(self, hand, length, &first)) {
            return NULL;
        }
    }
    if (give_pages(first, length, zeroed) < 0) {
        mpr_heap_free_hand(self, self, hand);
        return NULL;
    }
    return address_of(first);
}

/* The run in the hand of `whose` becomes free, joined with its neighbours. */
static void put_run_back(uint32_t first, uint32_t length)
{
    struct span *spans = heap()->spans;
    atomic_fetch_add(&heap()->kept, resident_in(first, length));
    uint32_t end = first + length;
    if (end < atomic_load(&heap()->top) && spans[end].run != 0) {
        uint32_t behind = spans[end].run;
        free_run_remove(end);
        length += behind;
    }
    if (first > 0 && spans[first - 1].run != 0) {
        uint32_t before = spans[first - 1].run;
        first -= before;
        length += before;
        free_run_remove(first);
    }
    free_run_add(first, length);
}

static void run_free(struct mpr_thread *self, struct mpr_thread *whose,
                     enum mpr_hand hand, uint32_t first)
{
    struct span *span = &heap()->spans[first];
    uint32_t length = (uint32_t)load_word(span);
    if (atomic_load(&heap()->kept) + length > KEPT_SPANS) {
        mpr_os_give_back(address_of(first), length * MPR_SPAN_SIZE);
        for (uint32_t i = first; i < first + length; i++) {
            heap()->spans[i].resident = 0;
        }
    }
    mpr_guard_lock(&heap()->guard, self, whose);
    if (mpr_hand(whose, hand) == address_of(first)) {
        store_word(span, 0);
        mpr_hand_set(whose, hand, NULL);
        put_run_back(first, length);
    }
    mpr_guard_unlock(&heap()->guard, self);
}

/* The runs as their words tell them; a hand on a free one is empty. */
static void repair_runs(struct mpr_guard *guard, struct mpr_thread *hands)
{
    (void)guard;
    struct span *spans = heap()->spans;
    uint32_t top = atomic_load(&heap()->top), kept = 0, length;
    memset(heap()->bins, 0, sizeof heap()->bins);
    for (uint32_t i = 0; i < top; i++) {
        spans[i].run = 0;
    }
    for (uint32_t i = 0; i < top; i += length) {
        uint64_t word = load_word(&spans[i]);
        length = 1;
        if (kind_of(word) == SPAN_LARGE) {
            length = (uint32_t)word;
        } else if (kind_of(word) == SPAN_FREE) {
            while (i + length < top && load_word(&spans[i + length]) == 0) {
                length++;
            }
            free_run_add(i, length);
            kept += resident_in(i, length);
        }
    }
    atomic_store(&heap()->kept, kept);
    for (int hand = 0; hands != NULL && hand < MPR_HAND_COUNT; hand++) {
        void *p = mpr_hand(hands, (enum mpr_hand)hand);
        uint32_t span;
        if (p != NULL && span_of(p, &span) && load_word(&spans[span]) == 0 &&
            p == address_of(span)) {
            mpr_hand_set(hands, (enum mpr_hand)hand, NULL);
        }
    }
}

/* ---- spans for others -------------------------------------------------- */

void *mpr_heap_span(struct mpr_thread *self)
{
    return run_alloc(self, MPR_SPAN_SIZE, false, MPR_HAND_SPAN);
}

void mpr_heap_span_adopt(void *span, uint32_t type)
{
    uint32_t number;
    MPR_CHECK(span_of(span, &number));
    store_word(&heap()->spans[number], span_word(SPAN_OBJECTS, type, 1));
}

void mpr_heap_span_settle(struct mpr_thread *hands)
{
    uint32_t span;
    void *p = hands != NULL ? mpr_hand(hands, MPR_HAND_SPAN) : NULL;
    if (p != NULL && span_of(p, &span) &&
        kind_of(load_word(&heap()->spans[span])) != SPAN_LARGE) {
        mpr_hand_set(hands, MPR_HAND_SPAN, NULL);
    }
}

void mpr_heap_spans_of(uint32_t type, void (*fn)(void *span, void *user),
                       void *user)
{
    uint32_t top = atomic_load(&heap()->top);
    for (uint32_t i = 0; i < top; i++) {
        if (load_word(&heap()->spans[i]) == span_word(SPAN_OBJECTS, type, 1)) {
            fn(address_of(i), user);
        }
    }
}

/* ---- classes ---------------------------------------------------------- */

static uint32_t free_block_in(const struct span *span)
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
    struct class *c = &heap()->classes[class];
    uint32_t number = c->partial - 1;
    struct span *span = &heap()->spans[number];
    uint32_t block = free_block_in(span);
    void *p = address_of(number) + (size_t)block * class_size[class];
    mpr_hand_set(self, hand, p);
    flip_bit(span, block);
    c->empty -= span->used == 0;
    if (++span->used == blocks_in(class)) {
        list_remove(&c->partial, number);
    }
    return p;
}

/* With the guard of the class locked: the span in hand is the class's. */
static void adopt_span(struct mpr_thread *self, uint32_t class)
{
    struct class *c = &heap()->classes[class];
    uint32_t number;
    MPR_CHECK(span_of(mpr_hand(self, MPR_HAND_SPAN), &number));
    struct span *span = &heap()->spans[number];
    for (uint32_t i = 0; i < MAP_WORDS; i++) {
        atomic_store_explicit(&span->bits[i], 0, memory_order_relaxed);
    }
    store_word(span, span_word(SPAN_CLASS, class, 1));
    mpr_hand_set(self, MPR_HAND_SPAN, NULL);
    span->used = 0;
    list_push(&c->partial, number);
    c->empty++;
}

static void *class_alloc(struct mpr_thread *self, uint32_t class,
                         enum mpr_hand hand)
{
    struct class *c = &heap()->classes[class];
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
    struct class *c = &heap()->classes[class];
    list_remove(&c->partial, number);
    c->empty--;
    mpr_hand_set(self, MPR_HAND_SPAN, address_of(number));
    store_word(&heap()->spans[number], span_word(SPAN_LARGE, 0, 1));
}

/*
 * One empty span stays with its class. A second one goes back to the runs, by
 * way of the hand of the thread itself: a dead one's may be taken.
 */
static bool spare_span(struct mpr_thread *self, struct mpr_thread *whose,
                       uint32_t class, uint32_t number)
{
    if (heap()->classes[class].empty++ == 0 || whose != self) {
        return false;
    }
    take_span(self, class, number);
    return true;
}

/* The heap is full: what stayed with the classes goes back. */
static void free_empty_spans(struct mpr_thread *self)
{
    struct span *spans = heap()->spans;
    for (uint32_t class = 0; class < CLASSES;) {
        struct class *c = &heap()->classes[class];
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
            run_free(self, self, MPR_HAND_SPAN, at - 1);
        } else {
            class ++;
        }
    }
}

/* `hand`: MPR_HAND_COUNT when the block is in none. False: not in use. */
static bool class_free(struct mpr_thread *self, struct mpr_thread *whose,
                       enum mpr_hand hand, void *p, uint32_t number)
{
    struct span *span = &heap()->spans[number];
    uint32_t class = what_of(load_word(span)), block;
    struct class *c = &heap()->classes[class];
    bool held = hand != MPR_HAND_COUNT, spare = false;
    mpr_guard_lock(&c->guard, self, whose);
    bool ours = load_word(span) == span_word(SPAN_CLASS, class, 1) &&
                block_of(p, number, class, &block) && bit_is_set(span, block) &&
                (!held || mpr_hand(whose, hand) == p);
    if (ours) {
        flip_bit(span, block);
        if (held) {
            mpr_hand_set(whose, hand, NULL);
        }
        if (span->used-- == blocks_in(class)) {
            list_push(&c->partial, number);
        }
        spare = span->used == 0 && spare_span(self, whose, class, number);
    }
    mpr_guard_unlock(&c->guard, self);
    if (spare) {
        run_free(self, self, MPR_HAND_SPAN, number);
    }
    return ours;
}

static uint32_t bits_in_use(const struct span *span)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < MAP_WORDS; i++) {
        used += (uint32_t)__builtin_popcountll(
            atomic_load_explicit(&span->bits[i], memory_order_relaxed));
    }
    return used;
}

/* A hand on a block that is not in use is empty, as is one on the span. */
static void settle_blocks(struct mpr_thread *hands, uint32_t class)
{
    struct span *spans = heap()->spans;
    for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
        void *p = mpr_hand(hands, (enum mpr_hand)hand);
        uint32_t span, block;
        if (hand != MPR_HAND_SPAN && p != NULL && span_of(p, &span) &&
            load_word(&spans[span]) == span_word(SPAN_CLASS, class, 1) &&
            block_of(p, span, class, &block) &&
            !bit_is_set(&spans[span], block)) {
            mpr_hand_set(hands, (enum mpr_hand)hand, NULL);
        }
    }
    mpr_heap_span_settle(hands);
}

static void repair_class(struct mpr_guard *guard, struct mpr_thread *hands)
{
    struct class *c = (struct class *)guard;
    uint32_t class = (uint32_t)(c - heap()->classes);
    struct span *spans = heap()->spans;
    uint32_t top = atomic_load(&heap()->top);
    c->partial = 0;
    c->empty = 0;
    for (uint32_t i = top; i-- > 0;) {
        if (load_word(&spans[i]) != span_word(SPAN_CLASS, class, 1)) {
            continue;
        }
        spans[i].used = bits_in_use(&spans[i]);
        c->empty += spans[i].used == 0;
        if (spans[i].used < blocks_in(class)) {
            list_push(&c->partial, i);
        }
    }
    if (hands != NULL) {
        settle_blocks(hands, class);
    }
}

/* ---- the heap as a whole ---------------------------------------------- */

size_t mpr_heap_tables_size(size_t spans)
{
    return sizeof(struct mpr_heap) + spans * sizeof(struct span);
}

void mpr_heap_init(struct mpr_heap *h, char *first_span, size_t spans)
{
    h->first = first_span;
    h->spans = (struct span *)(h + 1);
    h->limit = (uint32_t)spans;
    mpr_guard_init(&h->guard, MPR_GUARD_RUNS);
    for (uint32_t class = 0; class < CLASSES; class ++) {
        mpr_guard_init(&h->classes[class].guard, MPR_GUARD_CLASS);
    }
}

__attribute__((constructor)) static void register_repairs(void)
{
    mpr_guard_on_repair(MPR_GUARD_RUNS, repair_runs);
    mpr_guard_on_repair(MPR_GUARD_CLASS, repair_class);
}

static void *heap_alloc(struct mpr_thread *self, size_t size, bool zeroed,
                        enum mpr_hand hand)
{
    if (size > SMALL_MAX) {
        return run_alloc(self, size, zeroed, hand);
    }
    void *p = class_alloc(self, class_of(size), hand);
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
    MPR_CHECK(span_of(p, &span));
    switch (kind_of(load_word(&heap()->spans[span]))) {
    case SPAN_LARGE:
        run_free(self, whose, hand, span);
        break;
    case SPAN_CLASS:
        class_free(self, whose, hand, p, span);
        break;
    default:
        /* freed by one who was killed before it emptied the hand: the repair
         * empties it */
        mpr_guard_lock(&heap()->guard, self, NULL);
        mpr_guard_unlock(&heap()->guard, self);
    }
}

bool mpr_heap_free(struct mpr_thread *self, void *block)
{
    uint32_t span;
    if (mpr_heap_block_size(block) == 0 || !span_of(block, &span)) {
        return false;
    }
    if (kind_of(load_word(&heap()->spans[span])) == SPAN_LARGE) {
        mpr_hand_set(self, MPR_HAND_RETURN, block);
        run_free(self, self, MPR_HAND_RETURN, span);
        return true;
    }
    return class_free(self, self, MPR_HAND_COUNT, block, span);
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
    const struct span *spans = heap()->spans;
    uint32_t top = atomic_load(&heap()->top), length, resident = 0;
    *info = (mproc_heap_info){
        .high_water = top * MPR_SPAN_SIZE,
        .limit = heap()->limit * MPR_SPAN_SIZE,
    };
    for (uint32_t i = 0; i < top; i += length) {
        uint64_t word = load_word(&spans[i]);
        length = 1;
        if (kind_of(word) == SPAN_LARGE) {
            length = (uint32_t)word;
            info->in_use += length * MPR_SPAN_SIZE;
            info->blocks++;
        } else if (kind_of(word) == SPAN_CLASS) {
            size_t used = bits_in_use(&spans[i]);
            info->in_use += used * class_size[what_of(word)];
            info->blocks += used;
        }
        resident += resident_in(i, length);
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
