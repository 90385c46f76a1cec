/* SPDX-License-Identifier: MIT */
#include "sync/units.h"

#include "shm/heap.h"

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

static uint64_t meaning_of(const struct mpr_units_view *view, uint32_t index)
{
    return atomic_load_explicit(&view->array[index].word,
                                memory_order_acquire) ^
           view->salt;
}

static bool change(const struct mpr_units_view *view, uint32_t index,
                   uint64_t from, uint64_t to)
{
    from ^= view->salt;
    return atomic_compare_exchange_strong(&view->array[index].word, &from,
                                          to ^ view->salt);
}

/* Of a semaphore that ended meanwhile, words may mean anything. */
static bool is_id(uint64_t meaning)
{
    uint32_t number = (uint32_t)meaning >> 1;
    return !(meaning & 1) && number - 1 < mpr_family->slots_max;
}

static bool is_dead(uint64_t meaning)
{
    return is_id(meaning) && mpr_id_is_dead(meaning);
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
        uint64_t meaning = meaning_of(view, at);
        if (meaning == MPR_UNIT_FREE && take(view, at, meaning)) {
            return true;
        }
        held |= meaning > MPR_UNIT_ABSENT;
        at = at + 1 < view->capacity ? at + 1 : 0;
    }
    for (uint32_t i = 0; held && i < view->capacity; i++) {
        uint64_t meaning = meaning_of(view, i);
        bool loose = meaning == MPR_UNIT_FREE || is_dead(meaning);
        if (loose && take(view, i, meaning)) {
            return true;
        }
    }
    return false;
}

/*
 * While others take and give, a walk over the words may meet each free one too
 * late and yet have been wrong: only one without a release beside it counts.
 */
bool mpr_units_take(struct mpr_thread *self, const struct mpr_units_view *view)
{
    _Atomic uint32_t *releases = &view->units->releases;
    uint32_t before;
    mpr_held_add(self, 1);
    do {
        before = atomic_load(releases);
        if (mpr_likely(take_any(view))) {
            return true;
        }
    } while (atomic_load(releases) != before);
    mpr_held_add(self, -1);
    return false;
}

/* ---- giving ----------------------------------------------------------- */

static bool give_own(const struct mpr_units_view *view, mpr_id id)
{
    uint32_t at = first_look(view);
    for (uint32_t i = 0; i < view->capacity; i++) {
        if (meaning_of(view, at) == id && change(view, at, id, MPR_UNIT_FREE)) {
            remember(view, at);
            return true;
        }
        at = at + 1 < view->capacity ? at + 1 : 0;
    }
    return false;
}

/* The index of the unit that a living process has held longest. */
static bool find_oldest(const struct mpr_units_view *view, uint32_t *index,
                        uint64_t *holder)
{
    uint64_t oldest = UINT64_MAX;
    bool found = false;
    for (uint32_t i = 0; i < view->capacity; i++) {
        uint64_t meaning = meaning_of(view, i);
        uint64_t since = atomic_load(&view->array[i].since) ^ view->salt;
        if (is_id(meaning) && (!found || since < oldest) &&
            !mpr_id_is_dead(meaning)) {
            found = true;
            oldest = since;
            *index = i;
            *holder = meaning;
        }
    }
    return found;
}

static bool give_oldest(const struct mpr_units_view *view)
{
    uint32_t index;
    uint64_t holder;
    while (find_oldest(view, &index, &holder)) {
        if (change(view, index, holder, MPR_UNIT_FREE)) {
            return true;
        }
    }
    return false;
}

static bool give_new(const struct mpr_units_view *view)
{
    for (uint32_t i = 0; i < view->capacity; i++) {
        if (meaning_of(view, i) == MPR_UNIT_ABSENT &&
            change(view, i, MPR_UNIT_ABSENT, MPR_UNIT_FREE)) {
            return true;
        }
    }
    return false;
}

int mpr_units_give(const struct mpr_units_view *view, mpr_id id, bool grow,
                   bool *own)
{
    _Atomic uint32_t *releases = &view->units->releases;
    uint32_t before;
    bool given = false;
    *own = id != 0 && give_own(view, id);
    if (!*own) {
        do {
            before = atomic_load(releases);
            given = give_oldest(view);
        } while (!given && atomic_load(releases) != before);
        if (!given && !(grow && give_new(view))) {
            return grow ? MPROC_EOVERFLOW : MPROC_EINVAL;
        }
    }
    atomic_fetch_add(releases, 1);
    return 0;
}

uint32_t mpr_units_value(const struct mpr_units_view *view)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < view->capacity; i++) {
        uint64_t meaning = meaning_of(view, i);
        value += meaning == MPR_UNIT_FREE || is_dead(meaning);
    }
    return value;
}
