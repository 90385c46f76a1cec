/* SPDX-License-Identifier: MIT */
/*
 * Locks, semaphores, events and conditions whose user is killed, or stopped for
 * a while, after any instruction.
 */
#include "sync_scene.h"

#include "sync/condition.h"
#include "sync/lock.h"
#include "sync/units.h"

/* ---- lock ------------------------------------------------------------- */

static void *lock_scene(void)
{
    if (new_scene() == NULL || mproc_lock_new(&scene->lock) < 0) {
        return NULL;
    }
    mproc_lock_free(scene->lock); /* its span is there to stay */
    return mproc_heap_stats(&scene->before) < 0 ||
                   mproc_lock_new(&scene->lock) < 0
               ? NULL
               : scene;
}

static void *watched_lock_scene(void)
{
    return with_one_beside(lock_scene());
}

static int lock_acquire(void *ctx)
{
    struct scene *s = ctx;
    int err = mproc_lock_acquire(s->lock, SOON);
    if (err >= 0) {
        enter(VICTIM, err);
    }
    return finish(VICTIM, err);
}

static void hold_lock(void *ctx)
{
    struct scene *s = ctx;
    appear(VICTIM);
    if (mproc_lock_acquire(s->lock, SOON) != 0) {
        abort();
    }
    enter(VICTIM, 0);
}

static void hold_lock_awaited(void *ctx)
{
    hold_lock(ctx);
    if (!let_go(SLEEPER)) {
        abort();
    }
}

static int lock_release(void *ctx)
{
    struct scene *s = ctx;
    leave();
    return finish(VICTIM, mproc_lock_release(s->lock));
}

static int use_lock(struct scene *s, enum who who, mproc_deadline until)
{
    int err = mproc_lock_acquire(s->lock, until);
    if (err < 0) {
        return err;
    }
    enter(who, err);
    leave();
    int released = mproc_lock_release(s->lock);
    return released < 0 ? released : err;
}

static int lock_sleeper(void *ctx)
{
    await_go(SLEEPER);
    return finish(SLEEPER, use_lock(ctx, SLEEPER, MPROC_FOREVER));
}

static int stand_by(int err)
{
    if (err == MPROC_ETIMEDOUT) {
        return SWEEP_WOULD_BLOCK;
    }
    return finish(BYSTANDER, err);
}

static int lock_bystander(void *ctx)
{
    appear(BYSTANDER);
    atomic_store(&scene->paused, true);
    return stand_by(use_lock(ctx, BYSTANDER, HARDLY));
}

/* The next one gets it, told of a death if the victim held it. */
static const char *lock_goes_on(struct scene *s, bool dead_holds)
{
    uint64_t word = atomic_load(&s->lock->hold.word) & ~MPR_HOLD_WAITERS;
    bool names_dead = word != 0 && word != atomic_load(&s->part[ROUND].id);
    if (dead_holds && !names_dead) {
        return "what the victim acquired is not its own";
    }
    int err = mproc_lock_acquire(s->lock, SOON);
    if (err != (names_dead ? MPROC_RECOVERED : 0)) {
        return err == 0   ? "a death was not told"
               : err == 1 ? "a death was told that was none"
                          : "the next one did not get the lock";
    }
    enter(ROUND, err);
    if (!mproc_lock_locked(s->lock) || mproc_lock_release(s->lock) != 0 ||
        mproc_lock_locked(s->lock) ||
        mproc_lock_release(s->lock) != MPROC_EINVAL) {
        return "the lock is not as good as new";
    }
    mproc_lock_free(s->lock);
    return atomic_load(&s->overlaps) > 0 ? "two held the lock"
                                         : nothing_left(s);
}

static const char *check_acquired(void *ctx, const struct sweep_point *at)
{
    return lock_goes_on(ctx, at->finished || outcome_of(VICTIM) != NOTHING_YET);
}

static const char *check_released(void *ctx, const struct sweep_point *at)
{
    const char *wrong = on_its_side(at, outcome_of(SLEEPER) == 0);
    return wrong != NULL ? wrong : lock_goes_on(ctx, false);
}

/* Held by the round, released by the victim. */
static void *held_lock_scene(void)
{
    struct scene *s = watched_lock_scene();
    return s != NULL && mproc_lock_acquire(s->lock, SOON) == 0 ? s : NULL;
}

/* Once it is plain that the sleeper sleeps for a good reason, end that. */
static const char *release_if_held(void *ctx)
{
    struct scene *s = ctx;
    for (mproc_deadline until = SOON; !past(until); nap()) {
        uint64_t word = atomic_load(&s->lock->hold.word) & ~MPR_HOLD_WAITERS;
        if (word != atomic_load(&s->part[ROUND].id)) {
            return NULL;
        }
        if (rests(SLEEPER)) {
            atomic_store(&s->part[ROUND].done, true);
            return mproc_lock_release(s->lock) == 0 ? NULL : "no release";
        }
    }
    return "the sleeper does not come to rest";
}

static const char *check_released_by_other(void *ctx,
                                           const struct sweep_point *at)
{
    struct scene *s = ctx;
    const char *wrong = on_its_side(at, !atomic_load(&s->part[ROUND].done));
    if (wrong == NULL && outcome_of(SLEEPER) != 0) {
        wrong = "a death was told that was none";
    }
    return wrong != NULL ? wrong : lock_goes_on(s, false);
}

static int die_holding(void *ctx)
{
    struct scene *s = ctx;
    if (mproc_lock_acquire(s->lock, SOON) == 0) {
        kill(getpid(), SIGKILL);
    }
    return 1;
}

static void *orphan_scene(void)
{
    struct scene *s = lock_scene();
    int status;
    pid_t pid = s == NULL ? -1 : start(die_holding, s);
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status)
               ? s
               : NULL;
}

/* Whichever of victim and bystander came first. */
static const char *check_stolen(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    int told = (outcome_of(VICTIM) == MPROC_RECOVERED) +
               (outcome_of(BYSTANDER) == MPROC_RECOVERED);
    if ((at->finished || atomic_load(&s->paused)) && told != 1) {
        return "the first death was told not once";
    }
    if (!atomic_load(&s->paused)) {
        return lock_goes_on(s, true);
    }
    return lock_goes_on(s, outcome_of(VICTIM) != NOTHING_YET);
}

static int acquire_or_be_refused(void *ctx)
{
    (void)lock_acquire(ctx);
    return 0;
}

/* Another lock in its place, whose holder is dead as well. */
static int reuse(void *ctx)
{
    struct scene *s = ctx;
    mproc_lock *old = s->lock, *new;
    int status;
    appear(BYSTANDER);
    atomic_store(&s->paused, true);
    mproc_lock_free(old);
    if (mproc_lock_new(&new) < 0 || new != old) {
        return 1;
    }
    pid_t pid = start(die_holding, s);
    return waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status);
}

/* To the victim, who has ended holding it, or else to the round. */
static const char *check_reused(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    (void)at;
    if (mproc_lock_acquire(s->lock, SOON) != MPROC_RECOVERED) {
        return "who took part in another lock's end swallowed a death";
    }
    if (mproc_lock_release(s->lock) < 0) {
        return "the lock is not as good as new";
    }
    mproc_lock_free(s->lock);
    return nothing_left(s);
}

/* ---- rlock ------------------------------------------------------------ */

static void *rlock_scene(void)
{
    if (new_scene() == NULL || mproc_rlock_new(&scene->rlock) < 0) {
        return NULL;
    }
    mproc_rlock_free(scene->rlock);
    return mproc_heap_stats(&scene->before) < 0 ||
                   mproc_rlock_new(&scene->rlock) < 0
               ? NULL
               : scene;
}

static void *watched_rlock_scene(void)
{
    return with_one_beside(rlock_scene());
}

static int rlock_acquire_thrice(void *ctx)
{
    struct scene *s = ctx;
    int err = mproc_rlock_acquire(s->rlock, SOON);
    if (err >= 0) {
        enter(VICTIM, err);
        err = mproc_rlock_acquire(s->rlock, MPROC_NOWAIT);
    }
    return finish(VICTIM,
                  err < 0 ? err : mproc_rlock_acquire(s->rlock, MPROC_NOWAIT));
}

static void hold_rlock_awaited(void *ctx)
{
    appear(VICTIM);
    if (rlock_acquire_thrice(ctx) != 0 || !let_go(SLEEPER)) {
        abort();
    }
    atomic_store(&scene->part[VICTIM].done, false);
    atomic_store(&scene->part[VICTIM].outcome, NOTHING_YET);
}

static int rlock_release_thrice(void *ctx)
{
    struct scene *s = ctx;
    int err = mproc_rlock_release(s->rlock);
    err = err < 0 ? err : mproc_rlock_release(s->rlock);
    leave();
    return finish(VICTIM, err < 0 ? err : mproc_rlock_release(s->rlock));
}

static int use_rlock(struct scene *s, enum who who, mproc_deadline until)
{
    int err = mproc_rlock_acquire(s->rlock, until);
    if (err < 0) {
        return err;
    }
    enter(who, err);
    leave();
    int released = mproc_rlock_release(s->rlock);
    if (released == 0 && mproc_rlock_release(s->rlock) != MPROC_EPERM) {
        return MPROC_EINVAL; /* it had more levels than were acquired */
    }
    return released < 0 ? released : err;
}

static int rlock_sleeper(void *ctx)
{
    await_go(SLEEPER);
    return finish(SLEEPER, use_rlock(ctx, SLEEPER, MPROC_FOREVER));
}

/* Beside a victim that goes on: what it still does must not touch this. */
static int rlock_holder(void *ctx)
{
    struct scene *s = ctx;
    appear(NOTIFIER);
    int err = mproc_rlock_acquire(s->rlock, HARDLY);
    atomic_store(&s->part[NOTIFIER].calling, true);
    if (err == MPROC_ETIMEDOUT) {
        return finish(NOTIFIER, 0);
    }
    enter(NOTIFIER, err);
    bool ended = await_done(VICTIM);
    nap();
    leave();
    int released = mproc_rlock_release(s->rlock);
    return finish(NOTIFIER, err < 0 ? err : ended ? released : -1);
}

static int rlock_bystander(void *ctx)
{
    struct scene *s = ctx;
    appear(BYSTANDER);
    atomic_store(&s->paused, true);
    int err = use_rlock(s, BYSTANDER, HARDLY);
    if (err >= 0 && outcome_of(VICTIM) == NOTHING_YET && s->watched) {
        pid_t pid = fork();
        if (pid == 0) {
            _exit(rlock_holder(s));
        }
        while (!atomic_load(&s->part[NOTIFIER].calling)) {
            nap();
        }
    }
    return stand_by(err);
}

/* Nobody holds it, and no death is left to tell. */
static const char *rlock_goes_on(struct scene *s)
{
    if (mproc_rlock_locked(s->rlock) ||
        use_rlock(s, NOTIFIER, MPROC_NOWAIT) != 0) {
        return "the rlock is not as good as new";
    }
    mproc_rlock_free(s->rlock);
    return atomic_load(&s->overlaps) > 0 ? "two held the rlock"
                                         : nothing_left(s);
}

static const char *check_rlock_acquired(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    bool holds = atomic_load(&s->inside) == VICTIM;
    int err = use_rlock(s, NOTIFIER, SOON);
    if (err < 0) {
        return "the next one did not get the rlock, at depth 1";
    }
    if (holds && err != MPROC_RECOVERED) {
        return "a death was not told";
    }
    const char *wrong = on_its_side(at, err == MPROC_RECOVERED);
    return wrong != NULL ? wrong : rlock_goes_on(s);
}

static const char *check_rlock_released(void *ctx, const struct sweep_point *at)
{
    const struct scene *s = ctx;
    const char *wrong = on_its_side(at, outcome_of(SLEEPER) == 0);
    if (atomic_load(&s->part[NOTIFIER].calling) &&
        (!await_done(NOTIFIER) || outcome_of(NOTIFIER) != 0)) {
        wrong = "somebody's rlock is no longer his";
    }
    return wrong != NULL ? wrong : rlock_goes_on(ctx);
}

/* ---- semaphore -------------------------------------------------------- */

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
    return stand_by(use_unit(ctx, BYSTANDER, HARDLY));
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

static void be_new(void *ctx)
{
    (void)ctx;
    atomic_store(&scene->strays, true);
    if (!let_go(SLEEPER)) {
        abort();
    }
}

static void *claim_and_stay(void *unused)
{
    (void)unused;
    appear(VICTIM);
    for (;;) {
        pause();
    }
    return NULL;
}

/*
 * The victim's thread has no record, but its process lives for the family; it
 * blocks a signal as a handler does, and so claims none.
 */
static void be_new_thread(void *ctx)
{
    pthread_t thread;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    if (pthread_create(&thread, NULL, claim_and_stay, NULL) != 0) {
        abort();
    }
    while (atomic_load(&scene->part[VICTIM].pid) == 0) {
        nap();
    }
    be_new(ctx);
    atomic_store(&scene->strays, false);
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

/* ---- event ------------------------------------------------------------ */

static void *event_scene(void)
{
    if (new_scene() == NULL || mproc_event_new(&scene->event) < 0) {
        return NULL;
    }
    mproc_event_free(scene->event);
    return mproc_heap_stats(&scene->before) < 0 ||
                   mproc_event_new(&scene->event) < 0
               ? NULL
               : scene;
}

static void *watched_event_scene(void)
{
    return with_one_beside(event_scene());
}

static int event_set(void *ctx)
{
    struct scene *s = ctx;
    return finish(VICTIM, mproc_event_set(s->event));
}

static int event_sleeper(void *ctx)
{
    struct scene *s = ctx;
    await_go(SLEEPER);
    return finish(SLEEPER, mproc_event_wait(s->event, MPROC_FOREVER));
}

/* Clears it, too: who waited when it was set reports it set all the same. */
static int event_bystander(void *ctx)
{
    struct scene *s = ctx;
    appear(BYSTANDER);
    atomic_store(&scene->paused, true);
    int err = mproc_event_set(s->event);
    return finish(BYSTANDER, err < 0 ? err : mproc_event_clear(s->event));
}

static const char *set_if_clear(void *ctx)
{
    struct scene *s = ctx;
    bool set = mproc_event_is_set(s->event);
    atomic_store(&s->part[ROUND].done, !set);
    if (!s->paused && !set && !comes_to_rest(SLEEPER)) {
        return "the sleeper returned without a set";
    }
    return set || s->paused || mproc_event_set(s->event) == 0 ? NULL : "no set";
}

static const char *check_set(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    const char *wrong = on_its_side(at, !atomic_load(&s->part[ROUND].done));
    mproc_event_free(s->event);
    return wrong != NULL ? wrong : nothing_left(s);
}

/* ---- condition -------------------------------------------------------- */

/* What the word of the only thread of a process says. */
static enum mpr_wait_state wait_state(enum who who)
{
    mpr_id id = atomic_load(&scene->part[who].id);
    for (uint32_t i = 1; i < atomic_load(&mpr_family->threads_top); i++) {
        struct mpr_thread *thread = &mpr_family->threads[i];
        if (id != 0 && atomic_load(&thread->owner) == id) {
            return mpr_wait_heard(thread);
        }
    }
    return MPR_WAIT_OVER;
}

static bool await_waiting(enum who who)
{
    mproc_deadline until = SOON;
    while (wait_state(who) != MPR_WAIT_ON && !past(until)) {
        nap();
    }
    return wait_state(who) == MPR_WAIT_ON;
}

/* Over a lock of the user's, or of its own. */
static void *new_condition_scene(bool over_lock)
{
    if (new_scene() == NULL || mproc_condition_new(&scene->condition, NULL)) {
        return NULL;
    }
    mproc_condition_free(scene->condition);
    if (over_lock && mproc_lock_new(&scene->lock) < 0) {
        return NULL;
    }
    return mproc_heap_stats(&scene->before) < 0 ||
                   mproc_condition_new(&scene->condition, scene->lock) < 0
               ? NULL
               : scene;
}

static void *condition_scene(void)
{
    return new_condition_scene(false);
}

static void *watched_condition_scene(void)
{
    return with_one_beside(condition_scene());
}

static int wait_in(struct scene *s, enum who who)
{
    int err = mproc_condition_acquire(s->condition, SOON);
    if (err < 0) {
        return finish(who, err);
    }
    err = mproc_condition_wait(s->condition, MPROC_FOREVER);
    int released = mproc_condition_release(s->condition);
    return finish(who, err < 0 ? err : released < 0 ? released : err);
}

static int condition_sleeper(void *ctx)
{
    await_go(SLEEPER);
    return wait_in(ctx, SLEEPER);
}

static int condition_other(void *ctx)
{
    await_go(OTHER);
    return wait_in(ctx, OTHER);
}

static int notify_in(struct scene *s, unsigned n, mproc_deadline until)
{
    int err = mproc_condition_acquire(s->condition, until);
    if (err < 0) {
        return err;
    }
    int told = mproc_condition_notify(s->condition, n);
    int released = mproc_condition_release(s->condition);
    return told < 0 ? told : released < 0 ? released : err;
}

/* At two levels, so that the wait has some to give up. */
static void hold_condition(void *ctx)
{
    struct scene *s = ctx;
    appear(VICTIM);
    if (mproc_condition_acquire(s->condition, SOON) != 0 ||
        mproc_condition_acquire(s->condition, SOON) != 0) {
        abort();
    }
}

static void hold_condition_awaited(void *ctx)
{
    let_sleeper_sleep(ctx);
    if (!await_waiting(SLEEPER) || !comes_to_rest(SLEEPER)) {
        abort();
    }
    hold_condition(ctx);
}

static int condition_wait(void *ctx)
{
    struct scene *s = ctx;
    int err = mproc_condition_wait(s->condition, MPROC_FOREVER);
    finish(VICTIM, err);
    return err < 0 || mproc_condition_release(s->condition) < 0 ||
           mproc_condition_release(s->condition) < 0;
}

static int condition_bystander(void *ctx)
{
    appear(BYSTANDER);
    atomic_store(&scene->paused, true);
    return stand_by(notify_in(ctx, 1, HARDLY));
}

/* A later notify of one must reach the living. */
static const char *notify_living(void *ctx)
{
    struct scene *s = ctx;
    if (s->paused) {
        return NULL;
    }
    pid_t pid = 0;
    if (atomic_load(&s->part[SLEEPER].pid) == 0) {
        pid = start(condition_sleeper, s);
        if (!let_go(SLEEPER) || !await_waiting(SLEEPER)) {
            return "nobody can wait any more";
        }
    }
    if (!comes_to_rest(SLEEPER)) {
        return "a waiter returned without a notify";
    }
    if (notify_in(s, 1, SOON) < 0) {
        return "the next one did not get the condition's lock";
    }
    if (!await_done(SLEEPER)) {
        return "a notify did not reach the living waiter";
    }
    return pid == 0 || await_end(pid) ? NULL : "the living waiter ended badly";
}

static const char *condition_goes_on(struct scene *s)
{
    int err = mproc_condition_acquire(s->condition, SOON);
    if (err < 0 || mproc_condition_release(s->condition) < 0) {
        return "the next one did not get the condition's lock";
    }
    if (mproc_condition_acquire(s->condition, SOON) != 0 ||
        mproc_condition_wait(s->condition, mproc_in_ms(1)) != MPROC_ETIMEDOUT ||
        mproc_condition_release(s->condition) != 0 ||
        mproc_condition_release(s->condition) != MPROC_EPERM) {
        return "the condition is not as good as new";
    }
    mproc_condition_free(s->condition);
    return nothing_left(s);
}

static const char *check_waited(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    bool told = s->paused && !at->would_block;
    if (told && outcome_of(VICTIM) != 0) {
        return "a notify was lost";
    }
    if (!told && outcome_of(VICTIM) != NOTHING_YET) {
        return "the victim returned without a notify";
    }
    return condition_goes_on(s);
}

/* ---- condition: killed when told -------------------------------------- */

/*
 * Tells the victim, who waits longest, once the sleeper waits as well. Takes no
 * lock before that, so that the victim goes the same way in all rounds.
 */
static int tell_one(void *ctx)
{
    struct scene *s = ctx;
    bool ready = false;
    appear(NOTIFIER);
    for (mproc_deadline until = SOON; !ready && !past(until); nap()) {
        mpr_id victim = atomic_load(&s->part[VICTIM].id);
        bool waits = wait_state(VICTIM) == MPR_WAIT_ON;
        ready = victim != 0 && !mproc_lock_locked(s->lock) &&
                (waits || mpr_id_is_dead(victim));
    }
    atomic_store(&s->go, turn_of(SLEEPER));
    mpr_os_wake(&s->go, INT_MAX);
    bool waits = await_waiting(SLEEPER);
    return finish(NOTIFIER, !ready || !waits ? -1 : notify_in(s, 1, SOON));
}

static void *told_scene(void)
{
    struct scene *s = new_condition_scene(true);
    if (s == NULL) {
        return NULL;
    }
    atomic_store(&s->part[NOTIFIER].pid, start(tell_one, s));
    return s;
}

/* Exactly one of the two is told. */
static const char *tell_who_is_left(void *ctx)
{
    struct scene *s = ctx;
    if (!await_end(atomic_load(&s->part[NOTIFIER].pid))) {
        return "the notifier did not come through";
    }
    for (mproc_deadline until = SOON; !past(until); nap()) {
        if (atomic_load(&s->part[SLEEPER].done)) {
            return NULL;
        }
        if (rests(SLEEPER) && wait_state(SLEEPER) == MPR_WAIT_ON &&
            wait_state(VICTIM) == MPR_WAIT_OVER) {
            atomic_store(&s->part[ROUND].done, true);
            int err = notify_in(s, 1, SOON);
            atomic_store(&s->part[ROUND].outcome, err);
            return err < 0 ? "the lock is lost" : NULL;
        }
    }
    return "one who was told sleeps on";
}

/* Used up only by who had the lock again. */
static const char *check_told(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    bool used_up = atomic_load(&s->part[ROUND].done);
    bool returned = at->finished || outcome_of(VICTIM) != NOTHING_YET;
    if (returned && !used_up) {
        return "a notify was doubled";
    }
    if (!returned && used_up && outcome_of(ROUND) != MPROC_RECOVERED) {
        return "a notify was lost";
    }
    const char *wrong = condition_goes_on(s);
    mproc_lock_free(s->lock);
    return wrong;
}

static void hold_condition_once(void *ctx)
{
    struct scene *s = ctx;
    appear(VICTIM);
    if (mproc_condition_acquire(s->condition, SOON) != 0) {
        abort();
    }
}

static int condition_wait_once(void *ctx)
{
    struct scene *s = ctx;
    int err = mproc_condition_wait(s->condition, MPROC_FOREVER);
    finish(VICTIM, err);
    return err < 0 || mproc_condition_release(s->condition) < 0;
}

/* ---- condition: its lock released by another -------------------------- */

static void *disowned_scene(void)
{
    return new_condition_scene(true);
}

static int wait_or_be_refused(void *ctx)
{
    struct scene *s = ctx;
    finish(VICTIM, mproc_condition_wait(s->condition, MPROC_FOREVER));
    return 0;
}

/* Takes the victim's lock away, has somebody else wait, and tells one. */
static int disowner(void *ctx)
{
    struct scene *s = ctx;
    appear(BYSTANDER);
    atomic_store(&scene->paused, true);
    (void)mproc_lock_release(s->lock);
    atomic_store(&s->go, turn_of(SLEEPER));
    pid_t pid = fork();
    if (pid == 0) {
        _exit(condition_sleeper(s));
    }
    return !await_waiting(SLEEPER) || notify_in(s, 1, SOON) < 0;
}

static const char *check_disowned(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    (void)at;
    if (outcome_of(VICTIM) == MPROC_EPERM && !await_done(SLEEPER)) {
        return "one who was refused took a notify with it";
    }
    if (notify_in(s, 1, SOON) < 0 || !await_done(SLEEPER)) {
        return "a notify did not reach the waiter";
    }
    const char *wrong = condition_goes_on(s);
    mproc_lock_free(s->lock);
    return wrong;
}

/* ---- condition: reaper killed ----------------------------------------- */

/*
 * A waiter is dead, and the round waits as well, after it, without sleeping.
 * `seen` is the dead one's word as when it lived.
 */
static struct {
    struct mpr_thread *dead;
    struct mpr_waiters *waiters;
    uint64_t seen;
    uint64_t mine;
} mourned;

static struct mpr_thread *record_of(enum who who)
{
    mpr_id id = atomic_load(&scene->part[who].id);
    for (uint32_t i = 1; i < atomic_load(&mpr_family->threads_top); i++) {
        if (atomic_load(&mpr_family->threads[i].owner) == id) {
            return &mpr_family->threads[i];
        }
    }
    return NULL;
}

/* As a notifier does that has just seen it alive. */
static bool tell_mourned(void)
{
    uint64_t wait = mourned.seen;
    atomic_store(&mourned.waiters->notified,
                 atomic_load(&mourned.waiters->tickets));
    return atomic_compare_exchange_strong(&mourned.dead->wait, &wait,
                                          wait - MPR_WAIT_ON + MPR_WAIT_TOLD);
}

static void *dead_waiter_scene(void)
{
    struct scene *s = condition_scene();
    pid_t pid = s == NULL ? -1 : start(condition_other, s);
    struct mpr_thread *self;
    int status;
    if (pid < 0 || mpr_self(&self) < 0 || !let_go(OTHER) ||
        !await_waiting(OTHER)) {
        return NULL;
    }
    mourned.dead = record_of(OTHER);
    mourned.waiters = &s->condition->waiters;
    mourned.seen = atomic_load(&mourned.dead->wait);
    mourned.mine = mpr_waiters_join(self, mourned.waiters);
    kill(pid, SIGKILL);
    return waitpid(pid, &status, 0) == pid ? s : NULL;
}

static void *told_dead_waiter_scene(void)
{
    struct scene *s = dead_waiter_scene();
    return s != NULL && tell_mourned() ? s : NULL;
}

static int late_notifier(void *ctx)
{
    (void)ctx;
    atomic_store(&scene->paused, true);
    atomic_store(&scene->part[BYSTANDER].calling, tell_mourned());
    return 0;
}

static const char *leave_and_go_on(struct scene *s, bool told)
{
    struct mpr_thread *self;
    if (mpr_self(&self) < 0) {
        return "no record";
    }
    (void)mpr_slots_reap(self);
    if ((mpr_wait_heard(self) == MPR_WAIT_TOLD) != told) {
        return told ? "a notify died with its waiter"
                    : "a waiter was told of nothing";
    }
    mpr_wait_end(self, mourned.mine);
    return condition_goes_on(s);
}

static const char *check_reaped(void *ctx, const struct sweep_point *at)
{
    (void)at;
    return leave_and_go_on(ctx, atomic_load(&scene->part[BYSTANDER].calling));
}

static const char *check_told_reaped(void *ctx, const struct sweep_point *at)
{
    (void)at;
    return leave_and_go_on(ctx, true);
}

/* ---- condition: notifier killed --------------------------------------- */

static void *two_waiters_scene(void)
{
    struct scene *s = condition_scene();
    if (s == NULL || start(condition_other, s) < 0) {
        return NULL;
    }
    return let_go(OTHER) && await_waiting(OTHER) ? s : NULL;
}

static void hold_condition_of_two(void *ctx)
{
    let_sleeper_sleep(ctx);
    struct scene *s = ctx;
    if (!await_waiting(SLEEPER) || !comes_to_rest(SLEEPER) ||
        !comes_to_rest(OTHER) ||
        mproc_condition_acquire(s->condition, SOON) != 0) {
        abort();
    }
}

static int notify(struct scene *s, unsigned n)
{
    int err = mproc_condition_notify(s->condition, n);
    finish(VICTIM, err);
    return err < 0 || mproc_condition_release(s->condition) < 0;
}

static int notify_one(void *ctx)
{
    return notify(ctx, 1);
}

static int notify_all(void *ctx)
{
    struct scene *s = ctx;
    int err = mproc_condition_notify_all(s->condition);
    finish(VICTIM, err);
    return err < 0 || mproc_condition_release(s->condition) < 0;
}

static int count_done(struct scene *s)
{
    return atomic_load(&s->part[SLEEPER].done) +
           atomic_load(&s->part[OTHER].done);
}

/* Each of the two has returned, or was not told and sleeps. */
static const char *settle_two(void *ctx)
{
    struct scene *s = ctx;
    for (mproc_deadline until = SOON; !past(until); nap()) {
        bool settled = true;
        for (enum who who = SLEEPER; who <= OTHER; who++) {
            settled &= atomic_load(&s->part[who].done) ||
                       (wait_state(who) == MPR_WAIT_ON && rests(who));
        }
        if (settled) {
            atomic_store(&s->part[ROUND].outcome, count_done(s));
            return notify_in(s, UINT_MAX, SOON) < 0 ? "the lock is lost" : NULL;
        }
    }
    return "one who was told sleeps on";
}

static const char *both_returned(struct scene *s)
{
    return await_done(OTHER) && await_done(SLEEPER) && outcome_of(OTHER) >= 0 &&
                   outcome_of(SLEEPER) >= 0
               ? condition_goes_on(s)
               : "a notify of all did not reach both";
}

static const char *check_one_told(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    int told = outcome_of(ROUND);
    if (told > 1 + (s->paused && outcome_of(BYSTANDER) == 0)) {
        return "a notify of one reached two";
    }
    const char *wrong = on_its_side(at, told > 0);
    return wrong != NULL ? wrong : both_returned(s);
}

static const char *check_all_told(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    const char *wrong = on_its_side(at, outcome_of(ROUND) == 2);
    return wrong != NULL ? wrong : both_returned(s);
}

/* ---- all of them ------------------------------------------------------ */

static const struct sweep_case cases[] = {
    {.name = "lock acquire",
     COMMON,
     .setup = lock_scene,
     .prepare = victim_appears,
     .operation = lock_acquire,
     .bystander = lock_bystander,
     .check = check_acquired},
    {.name = "lock release",
     COMMON,
     .setup = watched_lock_scene,
     .prepare = hold_lock_awaited,
     .operation = lock_release,
     .sleeper = lock_sleeper,
     .bystander = lock_bystander,
     .check = check_released},
    {.name = "lock release by another",
     COMMON,
     .setup = held_lock_scene,
     .prepare = let_sleeper_sleep,
     .operation = lock_release,
     .sleeper = lock_sleeper,
     .bystander = lock_bystander,
     .follow_up = release_if_held,
     .check = check_released_by_other},
    {.name = "lock of a dead one",
     COMMON,
     .setup = orphan_scene,
     .prepare = victim_appears,
     .operation = lock_acquire,
     .bystander = lock_bystander,
     .check = check_stolen},
    {.name = "lock of a dead one, reused",
     COMMON,
     .setup = orphan_scene,
     .prepare = victim_appears,
     .operation = acquire_or_be_refused,
     .bystander = reuse,
     .check = check_reused,
     .pause_only = true},
    {.name = "rlock acquire x 3",
     COMMON,
     .setup = rlock_scene,
     .prepare = victim_appears,
     .operation = rlock_acquire_thrice,
     .bystander = rlock_bystander,
     .check = check_rlock_acquired},
    {.name = "rlock release x 3",
     COMMON,
     .setup = watched_rlock_scene,
     .prepare = hold_rlock_awaited,
     .operation = rlock_release_thrice,
     .sleeper = rlock_sleeper,
     .bystander = rlock_bystander,
     .check = check_rlock_released},
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
    {.name = "event set, first call",
     COMMON,
     .setup = watched_event_scene,
     .prepare = be_new,
     .operation = event_set,
     .sleeper = event_sleeper,
     .follow_up = set_if_clear,
     .check = check_set},
    {.name = "event set, new thread",
     COMMON,
     .setup = watched_event_scene,
     .prepare = be_new_thread,
     .operation = event_set,
     .sleeper = event_sleeper,
     .follow_up = set_if_clear,
     .check = check_set},
    {.name = "event set",
     COMMON,
     .setup = watched_event_scene,
     .prepare = let_sleeper_sleep,
     .operation = event_set,
     .sleeper = event_sleeper,
     .bystander = event_bystander,
     .follow_up = set_if_clear,
     .check = check_set},
    {.name = "condition wait, first",
     COMMON,
     .setup = condition_scene,
     .prepare = hold_condition,
     .operation = condition_wait,
     .bystander = condition_bystander,
     .follow_up = notify_living,
     .check = check_waited},
    {.name = "condition wait, second",
     COMMON,
     .setup = watched_condition_scene,
     .prepare = hold_condition_awaited,
     .operation = condition_wait,
     .sleeper = condition_sleeper,
     .follow_up = notify_living,
     .check = check_waited},
    {.name = "condition wait, told",
     COMMON,
     .setup = told_scene,
     .prepare = hold_condition_once,
     .operation = condition_wait_once,
     .sleeper = condition_sleeper,
     .follow_up = tell_who_is_left,
     .check = check_told,
     .wake_comes = true},
    {.name = "condition wait, disowned",
     COMMON,
     .setup = disowned_scene,
     .prepare = hold_condition_once,
     .operation = wait_or_be_refused,
     .bystander = disowner,
     .check = check_disowned,
     .pause_only = true},
    {.name = "reap of a waiter",
     COMMON,
     .setup = dead_waiter_scene,
     .prepare = victim_appears,
     .operation = reap_all,
     .bystander = late_notifier,
     .check = check_reaped},
    {.name = "reap of a waiter told",
     COMMON,
     .setup = told_dead_waiter_scene,
     .prepare = victim_appears,
     .operation = reap_all,
     .second = reap_all,
     .check = check_told_reaped},
    {.name = "notify one",
     COMMON,
     .setup = two_waiters_scene,
     .prepare = hold_condition_of_two,
     .operation = notify_one,
     .sleeper = condition_sleeper,
     .bystander = condition_bystander,
     .follow_up = settle_two,
     .check = check_one_told},
    {.name = "notify all",
     COMMON,
     .setup = two_waiters_scene,
     .prepare = hold_condition_of_two,
     .operation = notify_all,
     .sleeper = condition_sleeper,
     .bystander = condition_bystander,
     .follow_up = settle_two,
     .check = check_all_told},
};

int main(int argc, char **argv)
{
    return play(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
