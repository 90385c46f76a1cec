/* SPDX-License-Identifier: MIT */
#include <mproc/lock.h>

#include "base/options.h"
#include "shm/object.h"
#include "shm/sleep.h"
#include "sync/units.h"

/*
 * `kind` is written by the maker. A plain semaphore is `value`: a unit taken is
 * nobody's. The others are `units`. Who waits sleeps on `bell`.
 * Locks: none. Publishes: a change of `value` or of a unit's word, before the
 * ring of the bell.
 * Survives: a releaser has `op` set from before it gives until it has rung, and
 * a waiter from before it may take a wake-up, so that the death of either is
 * told to all who wait. What the dead held: see struct mpr_unit.
 */
struct mproc_semaphore {
    struct mpr_object object;
    _Atomic uint32_t kind;
    _Atomic uint32_t value;
    _Atomic uint32_t bell;
    struct mpr_units units;
};

static_assert(sizeof(struct mproc_semaphore) <= MPR_LINE,
              "one line a semaphore");

enum { PLAIN, BOUNDED, RECOVER };

enum {
    VALUE_MAX = INT32_MAX, /* of a plain one */
    UNITS_MAX = 65536,     /* that others start with */
    UNITS_MORE = 1024,     /* that recover can have beyond */
};

/* A semaphore as it was when its handle was checked. */
struct view {
    mproc_semaphore *s;
    uint64_t tag;
    uint32_t kind;
    struct mpr_units_view units;
};

/* The finalizer of splitmix64: differs for all tags and places. */
static uint64_t salt_of(const mproc_semaphore *s, uint64_t tag)
{
    uint64_t x = (uint64_t)(uintptr_t)s * UINT64_C(0x9e3779b97f4a7c15) ^
                 (tag & ~UINT64_C(0xff));
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static bool view_of(const mproc_semaphore *handle, struct view *view)
{
    mproc_semaphore *s = (mproc_semaphore *)handle;
    view->tag = mpr_object_tag(s, MPR_SEMAPHORE);
    if (mpr_unlikely(view->tag == 0)) {
        return false;
    }
    view->s = s;
    view->kind = atomic_load_explicit(&s->kind, memory_order_acquire);
    if (view->kind != PLAIN) {
        view->units = mpr_units_view(&s->units, salt_of(s, view->tag));
    }
    return mpr_object_unchanged(s, view->tag);
}

/* ---- making and ending ------------------------------------------------ */

static void end_semaphore(struct mpr_thread *self, struct mpr_thread *whose,
                          struct mpr_object *object)
{
    mproc_semaphore *s = (mproc_semaphore *)object;
    mpr_units_end(self, whose, &s->units);
    mpr_bell_ring(&s->bell, INT_MAX);
}

/* Of a plain one nobody: its units are no one's. */
static void holders_of_units(struct mpr_object *object, mpr_holder_fn *fn,
                             void *user)
{
    struct view view;
    if (view_of((mproc_semaphore *)object, &view) && view.kind != PLAIN) {
        mpr_units_holders(&view.units, fn, user);
    }
}

__attribute__((constructor)) static void register_class(void)
{
    static const struct mpr_object_class class = {.type = MPR_SEMAPHORE,
                                                  .size =
                                                      sizeof(mproc_semaphore),
                                                  .end = end_semaphore,
                                                  .holders = holders_of_units};
    mpr_object_register(&class);
}

static int make(mproc_semaphore **out, unsigned value, uint32_t kind)
{
    struct mpr_thread *self;
    void *made;
    int err = mpr_object_make(&self, MPR_SEMAPHORE, &made);
    if (err < 0) {
        return err;
    }
    mproc_semaphore *s = made;
    atomic_store_explicit(&s->kind, kind, memory_order_relaxed);
    atomic_store_explicit(&s->value, value, memory_order_relaxed);
    if (kind != PLAIN) {
        uint64_t tag = atomic_load(&s->object.tag);
        uint32_t more = kind == RECOVER ? UNITS_MORE : 0;
        err = mpr_units_make(self, &s->units, salt_of(s, tag), value,
                             value + more);
        if (err < 0) {
            mpr_object_drop(self, s);
            return err;
        }
    }
    mpr_object_publish(self, s);
    *out = s;
    return 0;
}

int mproc_semaphore_new_sized(mproc_semaphore **out, unsigned value,
                              const mproc_semaphore_opts *opts,
                              size_t opts_size)
{
    mproc_semaphore_opts wanted;
    if (out == NULL) {
        return MPROC_EINVAL;
    }
    int err = mpr_options_read(&wanted, sizeof wanted, opts, opts_size);
    if (err < 0) {
        return err;
    }
    uint32_t kind = wanted.bounded ? BOUNDED : wanted.recover ? RECOVER : PLAIN;
    if (value > (kind == PLAIN ? VALUE_MAX : UNITS_MAX)) {
        return MPROC_EINVAL;
    }
    return make(out, value, kind);
}

void mproc_semaphore_free(mproc_semaphore *s)
{
    mpr_object_free(s, MPR_SEMAPHORE);
}

/* ---- giving ----------------------------------------------------------- */

static int give_plain(mproc_semaphore *s)
{
    uint32_t value = atomic_load_explicit(&s->value, memory_order_relaxed);
    do {
        if (value == VALUE_MAX) {
            return MPROC_EOVERFLOW;
        }
    } while (!atomic_compare_exchange_weak(&s->value, &value, value + 1));
    return 0;
}

/* `self` may be NULL: in a thread that never made another call. */
static int give(struct mpr_thread *self, const struct view *view)
{
    int err;
    if (view->kind == PLAIN) {
        err = give_plain(view->s);
    } else {
        bool own;
        mpr_id id = self != NULL ? mpr_self_id() : mpr_process_page_->id;
        err = mpr_units_give(&view->units, id, view->kind == RECOVER, &own);
        if (err == 0 && own && self != NULL) {
            mpr_held_add(self, -1);
        }
    }
    if (err == 0) {
        mpr_bell_ring(&view->s->bell, 1);
    }
    return err;
}

/* Nothing here claims or locks. */
static int give_nameless(const struct view *view)
{
    struct mpr_slot *slot = mpr_nameless_begin();
    int err = give(NULL, view);
    mpr_nameless_end(slot);
    return err;
}

/* Of a plain one perhaps in a signal handler; other calls may claim. */
int mproc_semaphore_release(mproc_semaphore *s)
{
    struct view view;
    if (mpr_unlikely(!view_of(s, &view))) {
        return MPROC_EINVAL;
    }
    struct mpr_thread *self = mpr_self_if_any();
    if (mpr_unlikely(self == NULL) &&
        (view.kind == PLAIN || mpr_self(&self) < 0)) {
        return give_nameless(&view);
    }
    uintptr_t outer = mpr_op_begin(self, s);
    int err = give(self, &view);
    mpr_op_end(self, outer);
    return err;
}

/* ---- taking ----------------------------------------------------------- */

static bool take_plain(mproc_semaphore *s)
{
    uint32_t value = atomic_load(&s->value);
    while (value > 0) {
        if (mpr_likely(
                atomic_compare_exchange_weak(&s->value, &value, value - 1))) {
            return true;
        }
    }
    return false;
}

static bool take(struct mpr_thread *self, const struct view *view)
{
    return view->kind == PLAIN ? take_plain(view->s)
                               : mpr_units_take(self, &view->units);
}

/*
 * The memory of an ended semaphore may be another one by now: what this took
 * of it, a unit or a ring, it gives back.
 */
static int leave_ended(struct mpr_thread *self, const struct view *view,
                       bool took)
{
    if (took) {
        (void)give(self, view);
    }
    mpr_bell_ring(&view->s->bell, INT_MAX);
    return MPROC_EINVAL;
}

static void note_holders(const struct view *view)
{
    if (view->kind != PLAIN) {
        mpr_units_note(&view->units);
    }
}

static int wait_for(struct mpr_thread *self, const struct view *view,
                    mproc_deadline until)
{
    _Atomic uint32_t *bell = &view->s->bell;
    struct mpr_sleep sleep;
    mpr_sleep_begin(&sleep, until);
    bool took = false;
    while (!took && mpr_sleep_spin(&sleep)) {
        took = take(self, view);
    }
    while (!took) {
        uint32_t seen = mpr_bell_watch(bell);
        if (!mpr_object_unchanged(view->s, view->tag)) {
            break;
        }
        took = take(self, view);
        if (!took && sleep.expired) {
            return MPROC_ETIMEDOUT;
        }
        if (!took) {
            note_holders(view);
            mpr_sleep_on(&sleep, bell, seen);
        }
    }
    bool ended = !mpr_object_unchanged(view->s, view->tag);
    return ended ? leave_ended(self, view, took) : 0;
}

int mproc_semaphore_acquire(mproc_semaphore *s, mproc_deadline until)
{
    struct view view;
    struct mpr_thread *self;
    if (mpr_unlikely(!view_of(s, &view))) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(&self);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (mpr_likely(take(self, &view))) {
        return 0;
    }
    if (mpr_deadline_is_nowait(until)) {
        return MPROC_ETIMEDOUT;
    }
    uintptr_t outer = mpr_op_begin(self, s);
    mpr_op_waits(self, outer);
    err = wait_for(self, &view, until);
    mpr_op_end(self, outer);
    return err;
}

unsigned mproc_semaphore_value(const mproc_semaphore *s)
{
    struct view view;
    if (!view_of(s, &view)) {
        return 0;
    }
    return view.kind == PLAIN ? atomic_load(&s->value)
                              : mpr_units_value(&view.units);
}
