/* SPDX-License-Identifier: MIT */
/*
 * Cells of one type come from spans of their own. The tag of a cell is the
 * truth; the list of free cells is a cache, rebuilt from the tags when a thread
 * was killed in the type's guard.
 */
#include "shm/object.h"

#include <string.h>

#include "shm/span.h"

static const struct mpr_object_class *classes[MPR_OBJECT_TYPES];

void mpr_object_register(const struct mpr_object_class *class)
{
    MPR_CHECK(class->size <= MPR_SPAN_SIZE);
    classes[class->type] = class;
}

const struct mpr_object_wait *mpr_object_wait_of(enum mpr_object_type type)
{
    return classes[type] != NULL ? classes[type]->wait : NULL;
}

static struct mpr_object_shelf *shelf_of(enum mpr_object_type type)
{
    return &mpr_family->shelves[type];
}

static enum mpr_object_type type_of(uint64_t tag)
{
    return (enum mpr_object_type)(tag >> 8 & 0xff);
}

static enum mpr_object_state state_of(uint64_t tag)
{
    return (enum mpr_object_state)(tag & 0xff);
}

static uint64_t tag_of(uint64_t generation, enum mpr_object_type type,
                       enum mpr_object_state state)
{
    return generation << 32 | mpr_object_word(type, state);
}

static void set_state(struct mpr_object *object, enum mpr_object_state state)
{
    uint64_t tag = atomic_load_explicit(&object->tag, memory_order_relaxed);
    atomic_store_explicit(&object->tag, (tag & ~UINT64_C(0xff)) | state,
                          memory_order_release);
}

static size_t cell_size(enum mpr_object_type type)
{
    size_t size = classes[type]->size;
    return (size + MPR_LINE - 1) / MPR_LINE * MPR_LINE;
}

/* ---- shelves ---------------------------------------------------------- */

static void put_on_shelf(struct mpr_object_shelf *shelf,
                         struct mpr_object *object)
{
    object->next_free = shelf->first;
    shelf->first = object;
}

/*
 * The bit of a cell that is in use: set before it has a tag that says so, and
 * cleared after, so that who looks for objects finds each by its bit.
 */
static void mark(const struct mpr_object *cell, enum mpr_object_type type,
                 bool used)
{
    uint32_t span;
    MPR_CHECK(mpr_span_of(cell, &span));
    uint32_t offset = (uint32_t)((const char *)cell - mpr_span_address(span));
    uint32_t i = offset / (uint32_t)cell_size(type);
    _Atomic uint64_t *bits = &mpr_heap()->spans[span].bits[i / 64];
    uint64_t bit = UINT64_C(1) << i % 64, all = atomic_load(bits);
    atomic_store(bits, used ? all | bit : all & ~bit);
}

/* All free cells of a span; those never used have no tag yet. */
static void shelve_span(struct mpr_object_shelf *shelf, void *span)
{
    enum mpr_object_type type =
        (enum mpr_object_type)(shelf - mpr_family->shelves);
    size_t size = cell_size(type);
    for (size_t i = MPR_SPAN_SIZE / size; i-- > 0;) {
        struct mpr_object *cell =
            (struct mpr_object *)((char *)span + i * size);
        uint64_t tag = atomic_load_explicit(&cell->tag, memory_order_relaxed);
        bool is_free = state_of(tag) == MPR_OBJECT_FREE;
        mark(cell, type, !is_free);
        if (is_free) {
            put_on_shelf(shelf, cell);
        }
    }
}

/* A hand on a free cell is empty, and one that was to end a live object. */
static void settle_hand(struct mpr_thread *hands, enum mpr_hand hand,
                        enum mpr_object_type type)
{
    struct mpr_object *object = mpr_hand(hands, hand);
    if (object == NULL) {
        return;
    }
    uint64_t tag = atomic_load(&object->tag);
    bool empty =
        state_of(tag) == MPR_OBJECT_FREE ||
        (hand == MPR_HAND_OBJECT_END && state_of(tag) == MPR_OBJECT_LIVE);
    if (empty && (tag == 0 || type_of(tag) == type)) {
        mpr_hand_set(hands, hand, NULL);
    }
}

static void repair_shelf(struct mpr_guard *guard, struct mpr_thread *hands)
{
    struct mpr_object_shelf *shelf = (struct mpr_object_shelf *)guard;
    enum mpr_object_type type =
        (enum mpr_object_type)(shelf - mpr_family->shelves);
    mpr_heap_span_settle(hands, &shelf->spans);
    shelf->first = NULL;
    for (uint32_t at = atomic_load(&shelf->spans); at != 0;
         at = mpr_heap()->spans[at - 1].next) {
        shelve_span(shelf, mpr_span_address(at - 1));
    }
    if (hands != NULL) {
        settle_hand(hands, MPR_HAND_OBJECT_NEW, type);
        settle_hand(hands, MPR_HAND_OBJECT_END, type);
    }
}

__attribute__((constructor)) static void register_repair(void)
{
    mpr_guard_on_repair(MPR_GUARD_OBJECTS, repair_shelf);
}

void mpr_object_shelves_init(struct mpr_object_shelf *shelves)
{
    for (int type = 0; type < MPR_OBJECT_TYPES; type++) {
        mpr_guard_init(&shelves[type].guard, MPR_GUARD_OBJECTS);
    }
}

/*
 * A span may come with what was in it before: its cells are wiped while it is
 * in hand still, since a tag of zero is what tells that a cell is new.
 */
static void fill_shelf(struct mpr_thread *self, enum mpr_object_type type)
{
    struct mpr_object_shelf *shelf = shelf_of(type);
    mpr_guard_unlock(&shelf->guard, self);
    void *span = mpr_heap_span(self);
    if (span != NULL) {
        memset(span, 0, MPR_SPAN_SIZE);
    }
    mpr_guard_lock(&shelf->guard, self, self);
    if (span != NULL) {
        mpr_heap_span_adopt(span, type, &shelf->spans);
        mpr_hand_set(self, MPR_HAND_SPAN, NULL);
        shelve_span(shelf, span);
    }
}

/* ---- making ----------------------------------------------------------- */

void *mpr_object_new(struct mpr_thread *self, enum mpr_object_type type)
{
    struct mpr_object_shelf *shelf = shelf_of(type);
    mpr_guard_lock(&shelf->guard, self, self);
    if (shelf->first == NULL) {
        fill_shelf(self, type);
    }
    struct mpr_object *object = shelf->first;
    if (object == NULL) {
        mpr_guard_unlock(&shelf->guard, self);
        return NULL;
    }
    uint64_t generation = atomic_load(&object->tag) >> 32;
    mpr_hand_set(self, MPR_HAND_OBJECT_NEW, object);
    shelf->first = object->next_free;
    mark(object, type, true);
    atomic_store(&object->tag, tag_of(generation + 1, type, MPR_OBJECT_MAKING));
    mpr_guard_unlock(&shelf->guard, self);
    return object;
}

int mpr_object_make(struct mpr_thread **self, enum mpr_object_type type,
                    void **made)
{
    int err = mpr_self(self);
    if (err < 0) {
        return err;
    }
    *made = mpr_object_new(*self, type);
    return *made == NULL ? MPROC_ENOMEM : 0;
}

void mpr_object_publish(struct mpr_thread *self, void *object)
{
    set_state(object, MPR_OBJECT_LIVE);
    mpr_hand_set(self, MPR_HAND_OBJECT_NEW, NULL);
}

/* ---- ending ----------------------------------------------------------- */

/* Ends what is MAKING or ENDING in a hand; each step may be repeated. */
static void finish(struct mpr_thread *self, struct mpr_thread *whose,
                   enum mpr_hand hand)
{
    struct mpr_object *object = mpr_hand(whose, hand);
    enum mpr_object_type type = type_of(atomic_load(&object->tag));
    struct mpr_object_shelf *shelf = shelf_of(type);
    if (classes[type]->end != NULL) {
        classes[type]->end(self, whose, object);
    }
    mpr_guard_lock(&shelf->guard, self, whose);
    if (mpr_hand(whose, hand) == object) {
        set_state(object, MPR_OBJECT_FREE);
        mpr_hand_set(whose, hand, NULL);
        mark(object, type, false);
        put_on_shelf(shelf, object);
    }
    mpr_guard_unlock(&shelf->guard, self);
}

void mpr_object_drop(struct mpr_thread *self, void *object)
{
    MPR_CHECK(mpr_hand(self, MPR_HAND_OBJECT_NEW) == object);
    finish(self, self, MPR_HAND_OBJECT_NEW);
}

/*
 * Under the guard, so that a hand on an object that is ENDING tells who ends
 * it, also when two tried and one was killed.
 */
static bool take_to_end(struct mpr_thread *self, struct mpr_object *object,
                        uint64_t live)
{
    struct mpr_object_shelf *shelf = shelf_of(type_of(live));
    mpr_guard_lock(&shelf->guard, self, self);
    bool ours = atomic_load(&object->tag) == live;
    if (ours) {
        mpr_hand_set(self, MPR_HAND_OBJECT_END, object);
        set_state(object, MPR_OBJECT_ENDING);
    }
    mpr_guard_unlock(&shelf->guard, self);
    return ours;
}

bool mpr_object_end_if(struct mpr_thread *self, void *handle, uint64_t live)
{
    struct mpr_object *object = handle;
    uintptr_t outer = mpr_op_begin(self, object);
    bool ours = take_to_end(self, object, live);
    if (ours) {
        finish(self, self, MPR_HAND_OBJECT_END);
    }
    mpr_op_end(self, outer);
    return ours;
}

bool mpr_object_end(struct mpr_thread *self, void *handle,
                    enum mpr_object_type type)
{
    uint64_t live = mpr_object_tag(handle, type);
    return live != 0 && mpr_object_end_if(self, handle, live);
}

void mpr_object_free(void *handle, enum mpr_object_type type)
{
    struct mpr_thread *self;
    if (mpr_object_tag(handle, type) != 0 && mpr_self(&self) == 0) {
        (void)mpr_object_end(self, handle, type);
    }
}

void mpr_object_settle_hands(struct mpr_thread *self, struct mpr_thread *dead)
{
    if (mpr_hand(dead, MPR_HAND_OBJECT_NEW) != NULL) {
        finish(self, dead, MPR_HAND_OBJECT_NEW);
    }
    if (mpr_hand(dead, MPR_HAND_OBJECT_END) != NULL) {
        finish(self, dead, MPR_HAND_OBJECT_END);
    }
}

/* ---- all of a type ---------------------------------------------------- */

struct visit {
    enum mpr_object_type type;
    void (*fn)(struct mpr_object *object, void *user);
    void *user;
};

static void visit_cell(const struct visit *visit, uint32_t span, uint32_t i)
{
    char *cell = mpr_span_address(span) + i * cell_size(visit->type);
    if (mpr_object_is(cell, visit->type)) {
        visit->fn((struct mpr_object *)cell, visit->user);
    }
}

static void visit_span(const struct visit *visit, uint32_t number)
{
    const struct mpr_span *span = &mpr_heap()->spans[number];
    for (uint32_t i = 0; i < MPR_MAP_WORDS; i++) {
        uint64_t bits = atomic_load(&span->bits[i]);
        for (; bits != 0; bits &= bits - 1) {
            uint32_t bit = (uint32_t)__builtin_ctzll(bits);
            visit_cell(visit, number, i * 64 + bit);
        }
    }
}

void mpr_object_each(enum mpr_object_type type,
                     void (*fn)(struct mpr_object *object, void *user),
                     void *user)
{
    const struct visit visit = {type, fn, user};
    for (uint32_t at = atomic_load(&shelf_of(type)->spans); at != 0;
         at = mpr_heap()->spans[at - 1].next) {
        visit_span(&visit, at - 1);
    }
}

void mpr_object_holders(const void *handle, mpr_holder_fn *fn, void *user)
{
    enum mpr_object_type type = mpr_object_type_of(handle);
    if (type < MPR_OBJECT_TYPES && classes[type]->holders != NULL) {
        classes[type]->holders((struct mpr_object *)handle, fn, user);
    }
}
