/* SPDX-License-Identifier: MIT */
#include "sync/units.h"

#include "shm/heap.h"
#include "sync/since.h"

/* Where this thread found or left a unit last: where to look first. */
static _Thread_local struct {
    const struct mpr_unit *array;
    uint32_t index;
} last __attribute__((tls_model("initial-exec")));

static uint32_t first_look(const struct mpr_units_view *view)
{
    return last.array == view->array && last.index < view->capacity ? last.index
                                                                    : 0;
}

static void remember(const struct mpr_units_view *view, uint32_t index)
{
    last.array = view->array;
    last.index = index;
}

/*
 * {generation of the slot:32 | number of the change:15 | number of the slot:16
 * | 0 or 1: absent}.
 */
#define CHANGES UINT64_C(0xfffe0000)
#define ONE_CHANGE UINT64_C(0x00020000)

static uint64_t word_of(const struct mpr_units_view *view, uint32_t index)
{
    return atomic_load_explicit(&view->array[index].word,
                                memory_order_acquire) ^
           view->salt;
}

static uint64_t meaning_of(uint64_t word)
{
    return word & ~CHANGES;
}

static bool change(const struct mpr_units_view *view, uint32_t index,
                   uint64_t from, uint64_t meaning)
{
    uint64_t to = meaning | ((from + ONE_CHANGE) & CHANGES);
    from ^= view->salt;
    return atomic_compare_exchange_strong(&view->array[index].word, &from,
                                          to ^ view->salt);
}

/* Two that are equal: in between nothing has changed. */
static uint64_t print_of(const struct mpr_units_view *view)
{
    uint64_t print = 0;
    for (uint32_t i = 0; i < view->capacity; i++) {
        print = (print ^ word_of(view, i)) * UINT64_C(0x9e3779b97f4a7c15);
        print ^= print >> 32;
    }
    return print;
}

/* Of a semaphore that ended meanwhile, words may mean anything. */
static bool is_id(uint64_t word)
{
    uint32_t number = (uint32_t)meaning_of(word) >> 1;
    return !(word & 1) && number - 1 < mpr_family->slots_max;
}

static bool is_dead(uint64_t word)
{
    return is_id(word) && mpr_id_is_dead(meaning_of(word));
}

static bool is_free(uint64_t word)
{
    return meaning_of(word) == MPR_UNIT_FREE;
}

static bool is_loose(uint64_t word)
{
    return is_free(word) || is_dead(word);
}

/* ---- since when ------------------------------------------------------- */

static void note(const struct mpr_units_view *view, uint32_t index,
                 uint64_t since)
{
    _Atomic uint64_t *noted = &view->array[index].noted;
    uint64_t before = atomic_load_explicit(noted, memory_order_relaxed);
    if (before != (since ^ view->salt)) {
        atomic_compare_exchange_strong(noted, &before, since ^ view->salt);
    }
}

void mpr_units_note(const struct mpr_units_view *view)
{
    int64_t now = mpr_os_now();
    for (uint32_t i = 0; i < view->capacity; i++) {
        mpr_id holder = meaning_of(word_of(view, i));
        uint64_t noted = atomic_load(&view->array[i].noted) ^ view->salt;
        if (is_id(holder) && mpr_since_ns(noted, holder) == 0) {
            note(view, i, mpr_since_of(holder, now));
        }
    }
}

void mpr_units_holders(const struct mpr_units_view *view, mpr_holder_fn *fn,
                       void *user)
{
    for (uint32_t i = 0; i < view->capacity; i++) {
        uint64_t word = word_of(view, i);
        uint64_t noted = atomic_load(&view->array[i].noted) ^ view->salt;
        if (is_id(word) && !is_dead(word) && word_of(view, i) == word) {
            fn(meaning_of(word), mpr_since_ns(noted, meaning_of(word)), user);
        }
    }
}

/* ---- making and ending ------------------------------------------------ */

int mpr_units_make(struct mpr_thread *self, struct mpr_units *units,
                   uint64_t salt, uint32_t present, uint32_t capacity)
{
    struct mpr_unit *array = NULL;
    if (capacity > 0) {
        size_t size = capacity * sizeof *array;
        array = mpr_heap_alloc(self, size, MPR_HAND_BLOCK);
        if (array == NULL) {
            return MPROC_ENOMEM;
        }
    }
    for (uint32_t i = 0; i < capacity; i++) {
        uint64_t word = i < present ? MPR_UNIT_FREE : MPR_UNIT_ABSENT;
        atomic_init(&array[i].word, word ^ salt);
        atomic_init(&array[i].since, salt);
        atomic_init(&array[i].noted, salt);
    }
    atomic_store_explicit(&units->capacity, capacity, memory_order_relaxed);
    atomic_store_explicit(&units->array, array, memory_order_relaxed);
    mpr_hand_set(self, MPR_HAND_BLOCK, NULL);
    return 0;
}

/*
 * The same hand as it was made with, and the same block in it whenever the
 * array is there: killed anywhere, the block is freed once.
 */
void mpr_units_end(struct mpr_thread *self, struct mpr_thread *whose,
                   struct mpr_units *units)
{
    struct mpr_unit *array = atomic_load(&units->array);
    if (array == NULL) {
        return;
    }
    uint32_t capacity = atomic_load(&units->capacity);
    for (uint32_t i = 0; i < capacity; i++) {
        atomic_store(&array[i].word, 0);
        atomic_store(&array[i].since, 0);
        atomic_store(&array[i].noted, 0);
    }
    mpr_hand_set(whose, MPR_HAND_BLOCK, array);
    atomic_store(&units->array, NULL);
    mpr_heap_free_hand(self, whose, MPR_HAND_BLOCK);
}

/* ---- taking ----------------------------------------------------------- */

static bool take(const struct mpr_units_view *view, uint32_t index,
                 uint64_t from)
{
    struct mpr_unit *unit = &view->array[index];
    uint64_t since = atomic_load_explicit(&unit->since, memory_order_relaxed);
    if (!is_free(from)) {
        note(view, index, 0);
    }
    if (!change(view, index, from, mpr_self_id())) {
        return false;
    }
    uint64_t now =
        atomic_fetch_add_explicit(&view->units->stamp, 1, memory_order_relaxed);
    atomic_compare_exchange_strong(&unit->since, &since, now ^ view->salt);
    remember(view, index);
    return true;
}

static bool take_any(const struct mpr_units_view *view)
{
    uint32_t at = first_look(view);
    bool held = false;
    for (uint32_t i = 0; i < view->capacity; i++) {
        uint64_t word = word_of(view, at);
        if (is_free(word) && take(view, at, word)) {
            return true;
        }
        held |= meaning_of(word) > MPR_UNIT_ABSENT;
        at = at + 1 < view->capacity ? at + 1 : 0;
    }
    for (uint32_t i = 0; held && i < view->capacity; i++) {
        uint64_t word = word_of(view, i);
        if (is_loose(word) && take(view, i, word)) {
            return true;
        }
    }
    return false;
}

/*
 * While others take and give, a walk over the words may meet each free one too
 * late and yet have been wrong: only one during which nothing changed counts.
 */
bool mpr_units_take(struct mpr_thread *self, const struct mpr_units_view *view)
{
    uint64_t before;
    mpr_held_add(self, 1);
    if (mpr_likely(take_any(view))) {
        return true;
    }
    do {
        before = print_of(view);
        if (take_any(view)) {
            return true;
        }
    } while (print_of(view) != before);
    mpr_held_add(self, -1);
    return false;
}

/* ---- giving ----------------------------------------------------------- */

static bool give_one(const struct mpr_units_view *view, uint32_t index,
                     uint64_t word)
{
    note(view, index, 0);
    return change(view, index, word, MPR_UNIT_FREE);
}

static bool give_own(const struct mpr_units_view *view, mpr_id id)
{
    uint32_t at = first_look(view);
    for (uint32_t i = 0; i < view->capacity; i++) {
        uint64_t word = word_of(view, at);
        if (meaning_of(word) == id && give_one(view, at, word)) {
            remember(view, at);
            return true;
        }
        at = at + 1 < view->capacity ? at + 1 : 0;
    }
    return false;
}

/* The index of the unit that a living process has held longest. */
static bool find_oldest(const struct mpr_units_view *view, uint32_t *index,
                        uint64_t *word)
{
    uint64_t oldest = UINT64_MAX;
    bool found = false;
    for (uint32_t i = 0; i < view->capacity; i++) {
        uint64_t seen = word_of(view, i);
        uint64_t since = atomic_load(&view->array[i].since) ^ view->salt;
        if (is_id(seen) && (!found || since < oldest) && !is_dead(seen)) {
            found = true;
            oldest = since;
            *index = i;
            *word = seen;
        }
    }
    return found;
}

/* False: in one moment none was held. */
static bool give_oldest(const struct mpr_units_view *view)
{
    uint32_t index;
    uint64_t before, word;
    bool found;
    do {
        before = print_of(view);
        found = find_oldest(view, &index, &word);
        if (found && give_one(view, index, word)) {
            return true;
        }
    } while (found || print_of(view) != before);
    return false;
}

static bool give_new(const struct mpr_units_view *view)
{
    for (uint32_t i = 0; i < view->capacity; i++) {
        uint64_t word = word_of(view, i);
        if (meaning_of(word) == MPR_UNIT_ABSENT &&
            change(view, i, word, MPR_UNIT_FREE)) {
            return true;
        }
    }
    return false;
}

int mpr_units_give(const struct mpr_units_view *view, mpr_id id, bool grow,
                   bool *own)
{
    *own = id != 0 && give_own(view, id);
    if (*own || give_oldest(view) || (grow && give_new(view))) {
        return 0;
    }
    return grow ? MPROC_EOVERFLOW : MPROC_EINVAL;
}

uint32_t mpr_units_value(const struct mpr_units_view *view)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < view->capacity; i++) {
        value += is_loose(word_of(view, i));
    }
    return value;
}
