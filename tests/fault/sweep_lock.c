/* SPDX-License-Identifier: MIT */
/*
 * Locks, plain and recursive, whose user is killed, or stopped for a while,
 * after any instruction.
 */
#include "sync_scene.h"

#include "sync/lock.h"

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

static int lock_bystander(void *ctx)
{
    appear(BYSTANDER);
    atomic_store(&scene->paused, true);
    return end_beside(use_lock(ctx, BYSTANDER, HARDLY));
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
    return end_beside(err);
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

/* ---- the cases -------------------------------------------------------- */

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
};

int main(int argc, char **argv)
{
    return play(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
