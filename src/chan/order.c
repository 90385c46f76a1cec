/* SPDX-License-Identifier: MIT */
#include "chan/order.h"

#include <string.h>

#include "shm/heap.h"

enum {
    FIRST_POWER = 4,
    CHUNK_POWER = 11,
    CHUNK = 1 << CHUNK_POWER, /* places of the largest: three spans of them */
    CHILDREN = 4
};

static_assert(1 << FIRST_POWER == MPR_ORDER_FIRST, "where the levels begin");
static_assert(sizeof(struct mpr_element) * CHUNK % MPR_SPAN_SIZE == 0,
              "chunks leave nothing of their spans");

/* ---- places ----------------------------------------------------------- */

typedef void *_Atomic chunk_word;

static uint64_t capacity_of(const struct mpr_order *order)
{
    return atomic_load_explicit(&order->capacity, memory_order_relaxed);
}

static void *load(const chunk_word *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* What is behind these words is told by them: they come last. */
static void store(chunk_word *word, void *block)
{
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(word, block, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

static void set_capacity(struct mpr_order *order, uint64_t capacity)
{
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&order->capacity, capacity, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

static unsigned power_of(uint64_t place)
{
    return 63u - (unsigned)__builtin_clzll(place);
}

static bool has_table(unsigned power)
{
    return power > CHUNK_POWER;
}

/* The word that names the chunk which holds the place. */
static chunk_word *chunk_of(struct mpr_order *order, uint64_t place)
{
    unsigned power = power_of(place);
    chunk_word *level = &order->level[power - FIRST_POWER];
    if (!has_table(power)) {
        return level;
    }
    uint64_t offset = place - (UINT64_C(1) << power);
    return (chunk_word *)load(level) + offset / CHUNK;
}

/* Chunks begin at multiples of their length. */
static struct mpr_element *at(struct mpr_order *order, uint64_t place)
{
    if (place < MPR_ORDER_FIRST) {
        return &order->first[place];
    }
    uint64_t length = UINT64_C(1) << power_of(place);
    uint64_t offset = place & (length < CHUNK ? length - 1 : CHUNK - 1);
    return (struct mpr_element *)load(chunk_of(order, place)) + offset;
}

/* ---- growing and shrinking -------------------------------------------- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool begins_level(uint64_t place)
{
    return (place & (place - 1)) == 0;
}

/* The table of the level that begins where the chunks end; NULL: none there. */
static chunk_word *spare_table(struct mpr_order *order, uint64_t capacity)
{
    unsigned power = power_of(capacity);
    return has_table(power) && begins_level(capacity)
               ? &order->level[power - FIRST_POWER]
               : NULL;
}

size_t mpr_order_need(struct mpr_order *order)
{
    uint64_t capacity = capacity_of(order);
    chunk_word *table = spare_table(order, capacity);
    return table != NULL && load(table) == NULL
               ? capacity / CHUNK * sizeof(chunk_word)
               : least(capacity, CHUNK) * sizeof(struct mpr_element);
}

/* The block in hand becomes what is needed next: a table, or a chunk. */
static void grow(struct mpr_order *order, void *block)
{
    uint64_t capacity = capacity_of(order);
    chunk_word *table = spare_table(order, capacity);
    if (table != NULL && load(table) == NULL) {
        store(table, block);
    } else {
        store(chunk_of(order, capacity), block);
        set_capacity(order, capacity + least(capacity, CHUNK));
    }
}

bool mpr_order_has_room(struct mpr_order *order, struct mpr_thread *self,
                        uint64_t count)
{
    while (mpr_unlikely(count == capacity_of(order))) {
        void *block = mpr_hand(self, MPR_HAND_SEGMENT);
        if (block == NULL ||
            mpr_heap_block_size(block) < mpr_order_need(order)) {
            return false;
        }
        grow(order, block);
        mpr_hand_set(self, MPR_HAND_SEGMENT, NULL);
    }
    return true;
}

/* Places of the last chunk; they are more than those in the object. */
static uint64_t last_chunk(uint64_t capacity)
{
    return least(begins_level(capacity) ? capacity / 2 : CHUNK, CHUNK);
}

/* Some places stay, so that one more and one less costs nothing. */
static bool is_spare(uint64_t from, uint64_t count)
{
    return count + least(from / 2, CHUNK) <= from;
}

bool mpr_order_shrink(struct mpr_order *order, struct mpr_thread *whose,
                      uint64_t count)
{
    uint64_t capacity = capacity_of(order);
    if (mpr_likely(capacity == MPR_ORDER_FIRST) ||
        mpr_hand(whose, MPR_HAND_SEGMENT) != NULL) {
        return false;
    }
    chunk_word *table = spare_table(order, capacity);
    if (table != NULL && load(table) != NULL && is_spare(capacity, count)) {
        mpr_hand_set(whose, MPR_HAND_SEGMENT, load(table));
        store(table, NULL);
        return true;
    }
    uint64_t before = capacity - last_chunk(capacity);
    if (!is_spare(before, count)) {
        return false;
    }
    mpr_hand_set(whose, MPR_HAND_SEGMENT, load(chunk_of(order, before)));
    set_capacity(order, before);
    return true;
}

/* ---- the heap --------------------------------------------------------- */

static bool before(const struct mpr_element *a, const struct mpr_element *b)
{
    return a->priority != b->priority ? a->priority < b->priority
                                      : a->seq < b->seq;
}

static void copy(struct mpr_element *to, const struct mpr_element *from)
{
    memcpy(to, from, sizeof *to);
}

static void begin_move(struct mpr_order *order, uint64_t from, uint64_t hole,
                       enum mpr_order_move move)
{
    copy(&order->element, at(order, from));
    atomic_store_explicit(&order->hole, hole, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&order->moving, move, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

/* First the copy, then the hole: in between the two places hold the same. */
static void move_hole(struct mpr_order *order, uint64_t hole, uint64_t to)
{
    copy(at(order, hole), at(order, to));
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&order->hole, to, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

static void end_move(struct mpr_order *order, uint64_t hole)
{
    copy(at(order, hole), &order->element);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&order->moving, MPR_ORDER_RESTS,
                          memory_order_relaxed);
}

static uint64_t parent_of(uint64_t place)
{
    return (place - 1) / CHILDREN;
}

static void rise(struct mpr_order *order)
{
    uint64_t hole = atomic_load_explicit(&order->hole, memory_order_relaxed);
    while (hole > 0 && before(&order->element, at(order, parent_of(hole)))) {
        move_hole(order, hole, parent_of(hole));
        hole = parent_of(hole);
    }
    end_move(order, hole);
}

/* The child to come first, `count` when there is none. */
static uint64_t first_child(struct mpr_order *order, uint64_t place,
                            uint64_t count)
{
    uint64_t first = CHILDREN * place + 1;
    uint64_t end = least(first + CHILDREN, count);
    if (first >= count) {
        return count;
    }
    for (uint64_t child = first + 1; child < end; child++) {
        if (before(at(order, child), at(order, first))) {
            first = child;
        }
    }
    return first;
}

static void sink(struct mpr_order *order, uint64_t count)
{
    uint64_t hole = atomic_load_explicit(&order->hole, memory_order_relaxed);
    uint64_t child = first_child(order, hole, count);
    while (child < count && before(at(order, child), &order->element)) {
        move_hole(order, hole, child);
        hole = child;
        child = first_child(order, hole, count);
    }
    end_move(order, hole);
}

/* ---- putting and taking ----------------------------------------------- */

void *mpr_order_next(struct mpr_order *order, uint64_t count, int64_t priority,
                     uint64_t seq)
{
    struct mpr_element *element = at(order, count);
    element->priority = priority;
    element->seq = seq;
    return element->record;
}

void mpr_order_put(struct mpr_order *order, uint64_t count)
{
    if (order->kind == MPROC_LIFO || count < 2) {
        return;
    }
    uint64_t last = count - 1;
    if (before(at(order, last), at(order, parent_of(last)))) {
        begin_move(order, last, last, MPR_ORDER_RISES);
        rise(order);
    }
}

void *mpr_order_last(struct mpr_order *order, uint64_t count)
{
    return at(order, count - 1)->record;
}

void *mpr_order_first(struct mpr_order *order, uint64_t count)
{
    return order->kind == MPROC_LIFO ? mpr_order_last(order, count)
                                     : at(order, 0)->record;
}

void mpr_order_take(struct mpr_order *order, uint64_t count, uint64_t taken)
{
    if (order->kind == MPROC_PRIORITY && count > 1) {
        atomic_store_explicit(&order->taken, taken, memory_order_relaxed);
        begin_move(order, count - 1, 0, MPR_ORDER_SINKS);
    }
}

void mpr_order_taken(struct mpr_order *order, uint64_t count)
{
    if (order->kind == MPROC_PRIORITY && count > 0) {
        sink(order, count);
    }
}

/* ---- beginning and repair --------------------------------------------- */

void mpr_order_init(struct mpr_order *order, int kind)
{
    set_capacity(order, MPR_ORDER_FIRST);
    for (int i = 0; i < MPR_ORDER_LEVELS; i++) {
        store(&order->level[i], NULL);
    }
    order->kind = kind;
    atomic_store(&order->moving, MPR_ORDER_RESTS);
}

static void settle_block(struct mpr_order *order, struct mpr_thread *hands)
{
    uint64_t capacity = capacity_of(order);
    void *block = mpr_hand(hands, MPR_HAND_SEGMENT);
    if (block == NULL || (capacity == MPR_ORDER_FIRST)) {
        return;
    }
    uint64_t last = capacity - 1;
    chunk_word *table = spare_table(order, capacity);
    if (block == load(chunk_of(order, last)) ||
        (table != NULL && block == load(table))) {
        mpr_hand_set(hands, MPR_HAND_SEGMENT, NULL);
    }
}

void mpr_order_resume(struct mpr_order *order, struct mpr_thread *hands,
                      uint64_t count, uint64_t taken)
{
    uint64_t due = atomic_load_explicit(&order->taken, memory_order_relaxed);
    switch (atomic_load_explicit(&order->moving, memory_order_relaxed)) {
    case MPR_ORDER_RISES:
        rise(order);
        break;
    case MPR_ORDER_SINKS:
        if (due == taken) {
            sink(order, count);
        }
        break;
    default:
        break;
    }
    atomic_store_explicit(&order->moving, MPR_ORDER_RESTS,
                          memory_order_relaxed);
    if (hands != NULL) {
        settle_block(order, hands);
    }
}
