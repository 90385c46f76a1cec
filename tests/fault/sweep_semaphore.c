/* SPDX-License-Identifier: MIT */
/*
 * Semaphores whose user is killed, or stopped for a while, after any
 * instruction.
 */
#include "sync_scene.h"

#include "sync/units.h"

static void *semaphore_scene(unsigned value, bool bounded)
{
    const mproc_semaphore_opts opts = {.bounded = bounded};
    if (new_scene() == NULL ||
        mproc_semaphore_new(&scene->semaphore, value, &opts) < 0) {
        return NULL;
    }
    mproc_semaphore_free(scene->semaphore);
    return mproc_heap_stats(&scene->before) < 0 ||
                   mproc_semaphore_new(&scene->semaphore, value, &opts) < 0
               ? NULL
               : scene;
}

static void *plain_scene(void)
{
    return semaphore_scene(0, false);
}

static void *watched_plain_scene(void)
{
    return with_one_beside(plain_scene());
}

static void *bounded_scene(void)
{
    return semaphore_scene(1, true);
}

static void *watched_bounded_scene(void)
{
    return with_one_beside(bounded_scene());
}

static int semaphore_release(void *ctx)
{
    struct scene *s = ctx;
    leave();
    return finish(VICTIM, mproc_semaphore_release(s->semaphore));
}

static int semaphore_acquire(void *ctx)
{
    struct scene *s = ctx;
    int err = mproc_semaphore_acquire(s->semaphore, SOON);
    if (err == 0) {
        enter(VICTIM, err);
    }
    return finish(VICTIM, err);
}

static void hold_unit_awaited(void *ctx)
{
    struct scene *s = ctx;
    appear(VICTIM);
    if (mproc_semaphore_acquire(s->semaphore, SOON) != 0 || !let_go(SLEEPER)) {
        abort();
    }
    enter(VICTIM, 0);
}

static int plain_sleeper(void *ctx)
{
    struct scene *s = ctx;
    await_go(SLEEPER);
    int err = mproc_semaphore_acquire(s->semaphore, MPROC_FOREVER);
    return finish(SLEEPER, err);
}

static int use_unit(struct scene *s, enum who who, mproc_deadline until)
{
    int err = mproc_semaphore_acquire(s->semaphore, until);
    if (err < 0) {
        return err;
    }
    enter(who, err);
    leave();
    return mproc_semaphore_release(s->semaphore);
}

static int bounded_sleeper(void *ctx)
{
    await_go(SLEEPER);
    return finish(SLEEPER, use_unit(ctx, SLEEPER, MPROC_FOREVER));
}

static int bounded_bystander(void *ctx)
{
    appear(BYSTANDER);
    atomic_store(&scene->paused, true);
    return end_beside(use_unit(ctx, BYSTANDER, HARDLY));
}

static int plain_bystander(void *ctx)
{
    struct scene *s = ctx;
    appear(BYSTANDER);
    atomic_store(&scene->paused, true);
    return finish(BYSTANDER, mproc_semaphore_release(s->semaphore));
}

/* Held by the round, released by the victim as its first call. */
static void *held_bounded_scene(void)
{
    struct scene *s = watched_bounded_scene();
    return s != NULL && mproc_semaphore_acquire(s->semaphore, SOON) == 0 ? s
                                                                         : NULL;
}

/* Once it is plain that the sleeper sleeps for a good reason, end that. */
static const char *give_unit_if_none(void *ctx)
{
    struct scene *s = ctx;
    for (mproc_deadline until = SOON; !past(until); nap()) {
        if (atomic_load(&s->part[SLEEPER].done)) {
            return NULL;
        }
        if (mproc_semaphore_value(s->semaphore) == 0 && rests(SLEEPER) &&
            mproc_semaphore_value(s->semaphore) == 0) {
            atomic_store(&s->part[ROUND].done, true);
            return mproc_semaphore_release(s->semaphore) == 0
                       ? NULL
                       : "no unit can be given";
        }
    }
    return "a unit is there and the sleeper sleeps";
}

/* The victim sleeps, or has been killed before. */
static bool victim_is_ready(void)
{
    mpr_id victim = atomic_load(&scene->part[VICTIM].id);
    struct mpr_thread *thread =
        victim != 0 ? mpr_id_thread_after(victim, NULL) : NULL;
    bool sleeps = thread != NULL && atomic_load(&thread->asleep_on) != NULL &&
                  in_futex(atomic_load(&scene->part[VICTIM].pid));
    return victim != 0 && (sleeps || mpr_id_is_dead(victim));
}

/* One unit, when two sleep: the wake-up goes to the victim, the first. */
static int give_one(void *ctx)
{
    struct scene *s = ctx;
    appear(NOTIFIER);
    for (mproc_deadline until = SOON; !victim_is_ready(); nap()) {
        if (past(until)) {
            return finish(NOTIFIER, -1);
        }
    }
    bool rests = let_go(SLEEPER);
    int err = mproc_semaphore_release(s->semaphore);
    return finish(NOTIFIER, rests ? err : -1);
}

static void *given_scene(void)
{
    struct scene *s = watched_plain_scene();
    if (s == NULL || start(give_one, s) <= 0) {
        return NULL;
    }
    while (atomic_load(&s->part[NOTIFIER].pid) == 0) {
        nap();
    }
    return s;
}

static const char *give_to_who_is_left(void *ctx)
{
    if (!await_done(NOTIFIER) || outcome_of(NOTIFIER) != 0) {
        return "the giver did not come through";
    }
    return give_unit_if_none(ctx);
}

/* It is the sleeper's, or was the victim's and died with it. */
static const char *check_taken(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    (void)at;
    bool lost = mproc_semaphore_value(s->semaphore) != 0;
    mproc_semaphore_free(s->semaphore);
    return lost ? "a unit was lost or doubled" : nothing_left(s);
}

static const char *check_given(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    bool helped = atomic_load(&s->part[ROUND].done);
    const char *wrong = on_its_side(at, !helped);
    unsigned left = s->paused ? 1 : 0;
    if (s->paused && helped) {
        wrong = "the sleeper was not woken by two units";
    }
    if (wrong == NULL && mproc_semaphore_value(s->semaphore) != left) {
        wrong = "a unit was lost or doubled";
    }
    mproc_semaphore_free(s->semaphore);
    return wrong != NULL ? wrong : nothing_left(s);
}

static const char *check_bounded(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    (void)at;
    if (mproc_semaphore_value(s->semaphore) != 1 ||
        mproc_semaphore_acquire(s->semaphore, SOON) != 0) {
        return "the unit was lost";
    }
    if (mproc_semaphore_value(s->semaphore) != 0 ||
        mproc_semaphore_acquire(s->semaphore, MPROC_NOWAIT) !=
            MPROC_ETIMEDOUT) {
        return "the unit was doubled";
    }
    if (mproc_semaphore_release(s->semaphore) != 0 ||
        mproc_semaphore_release(s->semaphore) != MPROC_EINVAL) {
        return "the bound is lost";
    }
    mproc_semaphore_free(s->semaphore);
    return nothing_left(s);
}

/* ---- units that move -------------------------------------------------- */

enum { SALT = 0x5a5a0000 };

static struct mpr_units *units;

static struct mpr_units_view units_view(void)
{
    return mpr_units_view(units, SALT);
}

static bool is_held(uint32_t index)
{
    uint64_t word = atomic_load(&units->array[index].word) ^ SALT;
    return word >> 32 != 0;
}

/* As somebody does who is stopped before the next step, or killed. */
static void give_by_hand(uint32_t index)
{
    uint64_t word = atomic_load(&units->array[index].word) ^ SALT;
    uint64_t changes = (word + 0x20000) & 0xfffe0000;
    atomic_store(&units->array[index].word, changes ^ SALT);
}

static void take_by_hand(uint32_t index)
{
    uint64_t word = atomic_load(&units->array[index].word) ^ SALT;
    uint64_t changes = (word + 0x20000) & 0xfffe0000;
    mpr_id id = atomic_load(&scene->part[ROUND].id);
    atomic_store(&units->array[index].word, (id | changes) ^ SALT);
}

/* At no moment is none held. */
static int take_then_give(void *ctx)
{
    uint32_t held = is_held(0) ? 0 : 1;
    (void)ctx;
    atomic_store(&scene->paused, true);
    if (!is_held(held)) {
        return SWEEP_WOULD_BLOCK; /* the victim has given it */
    }
    take_by_hand(1 - held);
    give_by_hand(held);
    return 0;
}

/*
 * Of two units the round holds the second, so that who looks for it looks at
 * the free one first.
 */
static void *units_scene(void)
{
    struct scene *s = new_scene();
    struct mpr_thread *self;
    units = shared_memory(sizeof *units);
    if (s == NULL || units == NULL || mpr_self(&self) < 0 ||
        mproc_heap_stats(&s->before) < 0 ||
        mpr_units_make(self, units, SALT, 2, 2) < 0) {
        return NULL;
    }
    take_by_hand(1);
    return s;
}

static int give_unit(void *ctx)
{
    struct mpr_units_view view = units_view();
    bool own;
    (void)ctx;
    int err = mpr_units_give(&view, mpr_self_id(), false, &own);
    return finish(VICTIM, err);
}

static const char *check_units(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    struct mpr_thread *self;
    (void)at;
    if (outcome_of(VICTIM) != 0) {
        return "there was one all the time, and it was not found";
    }
    if (mpr_self(&self) == 0) {
        mpr_units_end(self, self, units);
    }
    return nothing_left(s);
}

/* ---- the cases -------------------------------------------------------- */

static const struct sweep_case cases[] = {
    {.name = "semaphore release",
     COMMON,
     .setup = watched_plain_scene,
     .prepare = let_sleeper_sleep,
     .operation = semaphore_release,
     .sleeper = plain_sleeper,
     .bystander = plain_bystander,
     .follow_up = give_unit_if_none,
     .check = check_given},
    {.name = "semaphore acquire, given",
     COMMON,
     .setup = given_scene,
     .prepare = victim_appears,
     .operation = semaphore_acquire,
     .sleeper = plain_sleeper,
     .follow_up = give_to_who_is_left,
     .check = check_taken,
     .wake_comes = true},
    {.name = "bounded acquire",
     COMMON,
     .setup = bounded_scene,
     .prepare = victim_appears,
     .operation = semaphore_acquire,
     .bystander = bounded_bystander,
     .check = check_bounded},
    {.name = "bounded release",
     COMMON,
     .setup = watched_bounded_scene,
     .prepare = hold_unit_awaited,
     .operation = semaphore_release,
     .sleeper = bounded_sleeper,
     .bystander = bounded_bystander,
     .check = check_bounded},
    {.name = "bounded release, first call",
     COMMON,
     .setup = held_bounded_scene,
     .prepare = be_new,
     .operation = semaphore_release,
     .sleeper = bounded_sleeper,
     .follow_up = give_unit_if_none,
     .check = check_bounded},
    {.name = "semaphore release, first call",
     COMMON,
     .setup = watched_plain_scene,
     .prepare = be_new,
     .operation = semaphore_release,
     .sleeper = plain_sleeper,
     .follow_up = give_unit_if_none,
     .check = check_given},
    {.name = "semaphore release, new thread",
     COMMON,
     .setup = watched_plain_scene,
     .prepare = be_new_thread,
     .operation = semaphore_release,
     .sleeper = plain_sleeper,
     .follow_up = give_unit_if_none,
     .check = check_given},
    {.name = "unit given, they move",
     COMMON,
     .setup = units_scene,
     .prepare = victim_appears,
     .operation = give_unit,
     .bystander = take_then_give,
     .check = check_units,
     .pause_only = true},
};

int main(int argc, char **argv)
{
    return play(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
