/* SPDX-License-Identifier: MIT */
/* Runs of spans: large blocks, and spans on their way to classes and types. */
#include <string.h>

#include "shm/span.h"

enum {
    EAGER_SPANS = 16,  /* runs up to 1 MiB get their pages at once */
    KEPT_SPANS = 1024, /* free spans that keep their pages: 64 MiB */
    BIN_LOOKS = 16,
    WARM_SPANS = 16,
};

/* ---- lists ------------------------------------------------------------ */

void mpr_span_push(uint32_t *head, uint32_t span)
{
    struct mpr_span *spans = mpr_heap()->spans;
    spans[span].prev = 0;
    spans[span].next = *head;
    if (*head != 0) {
        spans[*head - 1].prev = span + 1;
    }
    *head = span + 1;
}

void mpr_span_remove(uint32_t *head, uint32_t span)
{
    struct mpr_span *spans = mpr_heap()->spans;
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

/* ---- free runs -------------------------------------------------------- */

static uint32_t *bin_of(uint32_t length)
{
    return &mpr_heap()->bins[31 - __builtin_clz(length)];
}

static void free_run_add(uint32_t first, uint32_t length)
{
    struct mpr_span *spans = mpr_heap()->spans;
    spans[first].run = length;
    spans[first + length - 1].run = length;
    mpr_span_push(bin_of(length), first);
}

static void free_run_remove(uint32_t first)
{
    struct mpr_span *spans = mpr_heap()->spans;
    uint32_t length = spans[first].run;
    mpr_span_remove(bin_of(length), first);
    spans[first].run = 0;
    spans[first + length - 1].run = 0;
}

/* A free run of at least `length`, from the bins: its first span + 1. */
static uint32_t find_in_bins(uint32_t length)
{
    struct mpr_span *spans = mpr_heap()->spans;
    uint32_t *bin = bin_of(length);
    uint32_t at = *bin;
    for (int looks = 0; at != 0 && looks < BIN_LOOKS; looks++) {
        if (spans[at - 1].run >= length) {
            return at;
        }
        at = spans[at - 1].next;
    }
    for (bin++; bin < &mpr_heap()->bins[MPR_BINS]; bin++) {
        if (*bin != 0) {
            return *bin;
        }
    }
    return 0;
}

/* A run is free, and joined with its neighbours. */
static void join_run(uint32_t first, uint32_t length)
{
    struct mpr_span *spans = mpr_heap()->spans;
    uint32_t end = first + length;
    if (end < atomic_load(&mpr_heap()->top) && spans[end].run != 0) {
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

/* ---- warm spans ------------------------------------------------------- */

/*
 * The single spans that were freed last, with their pages, are joined with no
 * neighbours: who takes and frees one in turn has the same one time and again,
 * also when all the pages that may be kept are those of others.
 */

static bool is_warm(uint32_t first, uint32_t length)
{
    return length == 1 && mpr_heap()->spans[first].resident &&
           atomic_load(&mpr_heap()->warm_count) < WARM_SPANS;
}

static void put_warm(uint32_t first)
{
    mpr_span_push(&mpr_heap()->warm, first);
    atomic_fetch_add(&mpr_heap()->warm_count, 1);
}

/* False: there is none. */
static bool take_warm(uint32_t *first)
{
    if (mpr_heap()->warm == 0) {
        return false;
    }
    *first = mpr_heap()->warm - 1;
    mpr_span_remove(&mpr_heap()->warm, *first);
    atomic_fetch_sub(&mpr_heap()->warm_count, 1);
    return true;
}

/* For who wants more than one in a row. */
static void join_warm_ones(void)
{
    for (uint32_t first; take_warm(&first);) {
        join_run(first, 1);
    }
}

/* Take `length` spans out of the free ones, or from above the top. */
static bool take_run(uint32_t length, uint32_t *first)
{
    struct mpr_span *spans = mpr_heap()->spans;
    if (length == 1 && take_warm(first)) {
        return true;
    }
    join_warm_ones();
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
    uint32_t top = atomic_load(&mpr_heap()->top);
    uint32_t tail = top > 0 ? spans[top - 1].run : 0;
    if (length > mpr_heap()->limit - (top - tail)) {
        return false;
    }
    *first = top - tail;
    if (tail > 0) {
        free_run_remove(*first);
    }
    atomic_store(&mpr_heap()->top, *first + length);
    return true;
}

/*
 * Pages for a run that is ours: at once for short ones, so that they are not
 * faulted in one by one (nor refused by a SIGBUS); as touched for long ones.
 */
static int give_pages(uint32_t first, uint32_t length, bool zeroed)
{
    struct mpr_span *spans = mpr_heap()->spans;
    for (uint32_t i = first; i < first + length; i++) {
        if (spans[i].resident && zeroed) {
            memset(mpr_span_address(i), 0, MPR_SPAN_SIZE);
        }
        if (!spans[i].resident && length <= EAGER_SPANS &&
            mpr_os_populate(mpr_span_address(i), MPR_SPAN_SIZE) < 0) {
            return MPROC_ENOMEM;
        }
        atomic_store_explicit(&spans[i].resident, 1, memory_order_relaxed);
    }
    return 0;
}

static bool take_run_in_hand(struct mpr_thread *self, enum mpr_hand hand,
                             uint32_t length, uint32_t *first)
{
    mpr_guard_lock(&mpr_heap()->guard, self, self);
    bool taken = take_run(length, first);
    if (taken) {
        mpr_hand_set(self, hand, mpr_span_address(*first));
        mpr_span_store(&mpr_heap()->spans[*first],
                       mpr_span_word(MPR_SPAN_LARGE, 0, length));
        atomic_fetch_sub(&mpr_heap()->kept, mpr_span_resident(*first, length));
    }
    mpr_guard_unlock(&mpr_heap()->guard, self);
    return taken;
}

void *mpr_run_alloc(struct mpr_thread *self, size_t size, bool zeroed,
                    enum mpr_hand hand)
{
    if (size > (size_t)mpr_heap()->limit * MPR_SPAN_SIZE) {
        return NULL;
    }
    uint32_t length = (uint32_t)((size + MPR_SPAN_SIZE - 1) / MPR_SPAN_SIZE);
    uint32_t first;
    if (!take_run_in_hand(self, hand, length, &first)) {
        mpr_class_free_empty_spans(self);
        if (!take_run_in_hand(self, hand, length, &first)) {
            return NULL;
        }
    }
    if (give_pages(first, length, zeroed) < 0) {
        mpr_heap_free_hand(self, self, hand);
        return NULL;
    }
    return mpr_span_address(first);
}

/* The run in hand becomes free. */
static void put_run_back(uint32_t first, uint32_t length)
{
    atomic_fetch_add(&mpr_heap()->kept, mpr_span_resident(first, length));
    if (is_warm(first, length)) {
        put_warm(first);
    } else {
        join_run(first, length);
    }
}

void mpr_run_free(struct mpr_thread *self, struct mpr_thread *whose,
                  enum mpr_hand hand, uint32_t first)
{
    struct mpr_span *span = &mpr_heap()->spans[first];
    uint32_t length = (uint32_t)mpr_span_load(span);
    if (!is_warm(first, length) &&
        atomic_load(&mpr_heap()->kept) + length > KEPT_SPANS) {
        mpr_os_give_back(mpr_span_address(first), length * MPR_SPAN_SIZE);
        for (uint32_t i = first; i < first + length; i++) {
            atomic_store_explicit(&mpr_heap()->spans[i].resident, 0,
                                  memory_order_relaxed);
        }
    }
    mpr_guard_lock(&mpr_heap()->guard, self, whose);
    if (mpr_hand(whose, hand) == mpr_span_address(first)) {
        mpr_span_store(span, 0);
        mpr_hand_set(whose, hand, NULL);
        put_run_back(first, length);
    }
    mpr_guard_unlock(&mpr_heap()->guard, self);
}

/* How many spans from `first` on are one thing: in use, or free. */
static uint32_t length_at(uint32_t first, uint32_t top)
{
    const struct mpr_span *spans = mpr_heap()->spans;
    uint64_t word = mpr_span_load(&spans[first]);
    uint32_t length = 1;
    if (mpr_span_kind(word) == MPR_SPAN_LARGE) {
        return (uint32_t)word;
    }
    while (word == 0 && first + length < top &&
           mpr_span_load(&spans[first + length]) == 0) {
        length++;
    }
    return length;
}

/* The runs as their words tell them; a hand on a free one is empty. */
static void repair_runs(struct mpr_guard *guard, struct mpr_thread *hands)
{
    (void)guard;
    struct mpr_span *spans = mpr_heap()->spans;
    uint32_t top = atomic_load(&mpr_heap()->top), kept = 0, length;
    memset(mpr_heap()->bins, 0, sizeof mpr_heap()->bins);
    mpr_heap()->warm = 0;
    atomic_store(&mpr_heap()->warm_count, 0);
    for (uint32_t i = 0; i < top; i++) {
        spans[i].run = 0;
    }
    for (uint32_t i = 0; i < top; i += length) {
        length = length_at(i, top);
        if (mpr_span_load(&spans[i]) == 0) {
            free_run_add(i, length);
            kept += mpr_span_resident(i, length);
        }
    }
    atomic_store(&mpr_heap()->kept, kept);
    for (int hand = 0; hands != NULL && hand < MPR_HAND_COUNT; hand++) {
        void *p = mpr_hand(hands, (enum mpr_hand)hand);
        uint32_t span;
        if (p != NULL && mpr_span_of(p, &span) &&
            mpr_span_load(&spans[span]) == 0 && p == mpr_span_address(span)) {
            mpr_hand_set(hands, (enum mpr_hand)hand, NULL);
        }
    }
}

__attribute__((constructor)) static void register_repair(void)
{
    mpr_guard_on_repair(MPR_GUARD_RUNS, repair_runs);
}

/* ---- spans for others -------------------------------------------------- */

void *mpr_heap_span(struct mpr_thread *self)
{
    return mpr_run_alloc(self, MPR_SPAN_SIZE, false, MPR_HAND_SPAN);
}

static void list_span(_Atomic uint32_t *list, uint32_t number)
{
    mpr_heap()->spans[number].next = atomic_load(list);
    atomic_store(list, number + 1);
}

void mpr_heap_span_adopt(void *p, uint32_t type, _Atomic uint32_t *list)
{
    uint32_t number;
    MPR_CHECK(mpr_span_of(p, &number));
    struct mpr_span *span = &mpr_heap()->spans[number];
    for (uint32_t i = 0; i < MPR_MAP_WORDS; i++) {
        atomic_store_explicit(&span->bits[i], 0, memory_order_relaxed);
    }
    mpr_span_store(span, mpr_span_word(MPR_SPAN_OBJECTS, type, 1));
    list_span(list, number);
}

/* One that was adopted is the head of the list, or was to become it. */
void mpr_heap_span_settle(struct mpr_thread *hands, _Atomic uint32_t *list)
{
    uint32_t span;
    void *p = hands != NULL ? mpr_hand(hands, MPR_HAND_SPAN) : NULL;
    if (p != NULL && mpr_span_of(p, &span) &&
        mpr_span_kind(mpr_span_load(&mpr_heap()->spans[span])) !=
            MPR_SPAN_LARGE) {
        if (list != NULL && atomic_load(list) != span + 1) {
            list_span(list, span);
        }
        mpr_hand_set(hands, MPR_HAND_SPAN, NULL);
    }
}
