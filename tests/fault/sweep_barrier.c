/* SPDX-License-Identifier: MIT */
/*
 * Barriers whose user is killed, or stopped for a while, after any instruction.
 * Whatever happens, a generation is passed by all its parties or by none.
 */
#include "sync_scene.h"

#include "sync/barrier.h"
#include "sync/wait.h"

/* ---- scenes ----------------------------------------------------------- */

static int act(void *user)
{
    struct scene *s = user;
    atomic_fetch_add(&s->inside, 1);
    return 0;
}

static void *barrier_scene(unsigned parties, bool acting)
{
    const mproc_barrier_opts opts = {acting ? act : NULL, new_scene()};
    if (opts.user == NULL ||
        mproc_barrier_new(&scene->barrier, parties, &opts) < 0) {
        return NULL;
    }
    mproc_barrier_free(scene->barrier);
    return mproc_heap_stats(&scene->before) < 0 ||
                   mproc_barrier_new(&scene->barrier, parties, &opts) < 0
               ? NULL
               : scene;
}

static void *scene_of_two(void)
{
    return barrier_scene(2, false);
}

static void *watched_scene_of_two(void)
{
    return with_one_beside(scene_of_two());
}

static void *watched_acting_scene(void)
{
    return with_one_beside(barrier_scene(2, true));
}

static void *watched_scene_of_three(void)
{
    return with_one_beside(barrier_scene(3, false));
}

static int wait_as(enum who who, mproc_deadline until)
{
    int err = mproc_barrier_wait(scene->barrier, NULL, until);
    finish(who, err);
    return 0;
}

static int wait_there(void *ctx)
{
    (void)ctx;
    return wait_as(VICTIM, MPROC_FOREVER);
}

static int wait_not(void *ctx)
{
    (void)ctx;
    return wait_as(VICTIM, MPROC_NOWAIT);
}

static int abort_it(void *ctx)
{
    struct scene *s = ctx;
    return finish(VICTIM, mproc_barrier_abort(s->barrier));
}

static int reset_it(void *ctx)
{
    struct scene *s = ctx;
    return finish(VICTIM, mproc_barrier_reset(s->barrier));
}

static int sleeper(void *ctx)
{
    (void)ctx;
    await_go(SLEEPER);
    return wait_as(SLEEPER, MPROC_FOREVER);
}

/* ---- bystanders ------------------------------------------------------- */

static void stand_by(void)
{
    appear(BYSTANDER);
    atomic_store(&scene->paused, true);
}

static int arrive_as_well(void *ctx)
{
    (void)ctx;
    stand_by();
    return wait_as(BYSTANDER, HARDLY);
}

static int abort_as_well(void *ctx)
{
    struct scene *s = ctx;
    stand_by();
    return finish(BYSTANDER, mproc_barrier_abort(s->barrier));
}

static int reset_as_well(void *ctx)
{
    struct scene *s = ctx;
    stand_by();
    return finish(BYSTANDER, mproc_barrier_reset(s->barrier));
}

/* ---- afterwards ------------------------------------------------------- */

static int partner(void *ctx)
{
    struct scene *s = ctx;
    return mproc_barrier_wait(s->barrier, NULL, SOON);
}

/* As good as new once it is reset, also if a reset was killed. */
static const char *goes_on(struct scene *s, bool needs_reset)
{
    unsigned others = mproc_barrier_parties(s->barrier) - 1;
    pid_t pid[2];
    if (needs_reset && mproc_barrier_reset(s->barrier) != 0) {
        return "it cannot be reset";
    }
    for (unsigned i = 0; i < others; i++) {
        pid[i] = start(partner, s);
    }
    while (mproc_barrier_n_waiting(s->barrier) < others && !past(SOON)) {
        nap();
    }
    if (mproc_barrier_wait(s->barrier, NULL, SOON) != 0) {
        return "the barrier is not as good as new";
    }
    for (unsigned i = 0; i < others; i++) {
        if (!await_end(pid[i])) {
            return "one did not pass the barrier";
        }
    }
    if (mproc_barrier_broken(s->barrier) ||
        mproc_barrier_n_waiting(s->barrier) != 0) {
        return "the barrier is not empty";
    }
    mproc_barrier_free(s->barrier);
    return nothing_left(s);
}

/*
 * Once it is plain that the sleeper waits for good reason, join it: not when it
 * was let go and has not come to run yet.
 */
static const char *arrive_if_awaited(void *ctx)
{
    struct scene *s = ctx;
    for (mproc_deadline until = SOON; !past(until); nap()) {
        if (atomic_load(&s->part[SLEEPER].done)) {
            return NULL;
        }
        if (rests(SLEEPER) && mproc_barrier_n_waiting(s->barrier) > 0) {
            atomic_store(&s->part[ROUND].done, true);
            mproc_barrier_wait(s->barrier, NULL,
                               s->paused ? MPROC_NOWAIT : SOON);
            return await_done(SLEEPER) ? NULL : "the sleeper sleeps on";
        }
    }
    return "the sleeper sleeps, and the barrier has nobody";
}

static bool passed(enum who who)
{
    return outcome_of(who) == 0;
}

static bool refused(enum who who)
{
    return outcome_of(who) == MPROC_EBROKEN ||
           outcome_of(who) == MPROC_ETIMEDOUT;
}

/* ---- one arrives, first ----------------------------------------------- */

/* From where it is known to wait, its death breaks the barrier. */
static const char *check_first(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    if (s->paused) {
        bool together = passed(VICTIM) && passed(BYSTANDER);
        bool apart = refused(VICTIM) && refused(BYSTANDER);
        return together || apart ? goes_on(s, true) : "one passed alone";
    }
    bool broken = mproc_barrier_broken(s->barrier);
    if (at->asleep && !broken) {
        return "the death of a waiter did not break it";
    }
    const char *wrong = on_its_side(at, broken);
    return wrong != NULL ? wrong : goes_on(s, broken);
}

/* ---- one arrives, last ------------------------------------------------ */

static const char *check_last(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    if (s->paused) {
        bool together = passed(VICTIM) && passed(SLEEPER);
        bool apart = refused(VICTIM) && refused(SLEEPER);
        return together || apart ? goes_on(s, true) : "one passed alone";
    }
    bool helped = atomic_load(&s->part[ROUND].done);
    bool done = passed(SLEEPER) && !helped;
    if (helped && !passed(SLEEPER)) {
        return "the sleeper was sent away though nobody had come";
    }
    bool broken = mproc_barrier_broken(s->barrier);
    if (broken == passed(SLEEPER)) {
        return broken ? "broken after all had passed" : "broken, and it is not";
    }
    const char *wrong = on_its_side(at, done);
    return wrong != NULL ? wrong : goes_on(s, broken);
}

/* ---- one arrives and gives up ----------------------------------------- */

static const char *check_gave_up(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    if (s->paused) {
        bool together = passed(VICTIM) && passed(SLEEPER) && passed(BYSTANDER);
        bool apart = refused(VICTIM) && refused(SLEEPER) && refused(BYSTANDER);
        return together || apart ? goes_on(s, true) : "some passed alone";
    }
    bool helped = atomic_load(&s->part[ROUND].done);
    if (!refused(SLEEPER)) {
        return "the sleeper passed alone";
    }
    const char *wrong = on_its_side(at, !helped);
    return wrong != NULL ? wrong : goes_on(s, true);
}

/* In a barrier of three: that alone helps nobody. */
static const char *abort_if_awaited(void *ctx)
{
    struct scene *s = ctx;
    for (mproc_deadline until = SOON; !past(until); nap()) {
        if (atomic_load(&s->part[SLEEPER].done)) {
            return NULL;
        }
        if (rests(SLEEPER) && !mproc_barrier_broken(s->barrier)) {
            atomic_store(&s->part[ROUND].done, true);
            return mproc_barrier_abort(s->barrier) == 0 ? NULL : "no abort";
        }
    }
    return "the sleeper sleeps, and the barrier has nobody";
}

/* ---- abort and reset -------------------------------------------------- */

static const char *check_ended(struct scene *s, const struct sweep_point *at,
                               bool broken_then)
{
    if (s->paused) {
        return passed(BYSTANDER) == passed(SLEEPER) ? goes_on(s, true)
                                                    : "one passed alone";
    }
    bool helped = atomic_load(&s->part[ROUND].done);
    if (passed(SLEEPER) != helped) {
        return "the sleeper passed alone, or came in vain";
    }
    if (mproc_barrier_broken(s->barrier) != (broken_then && !helped)) {
        return "broken, and should not be, or the other way round";
    }
    const char *wrong = on_its_side(at, !helped);
    return wrong != NULL ? wrong : goes_on(s, broken_then && !helped);
}

static const char *check_aborted(void *ctx, const struct sweep_point *at)
{
    return check_ended(ctx, at, true);
}

static const char *check_reset(void *ctx, const struct sweep_point *at)
{
    return check_ended(ctx, at, false);
}

/* ---- a reset that is killed, with one who helps ----------------------- */

/* Of both: the sleeper may have been told by the first before it was killed. */
static void let_sleeper_sleep_once(void *ctx)
{
    if (atomic_load(&scene->go) < turn_of(SLEEPER)) {
        let_sleeper_sleep(ctx);
    }
}

static int arrive_late(void *ctx)
{
    (void)ctx;
    appear(NOTIFIER);
    return wait_as(NOTIFIER, MPROC_NOWAIT);
}

/* What the one who came broke, by its deadline or its death, is reset. */
static const char *check_helped(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    bool helped = atomic_load(&s->part[ROUND].done);
    if (at->second_step == 0 && passed(SLEEPER) != helped) {
        return "the sleeper passed alone, or came in vain";
    }
    if (passed(NOTIFIER) && !passed(SLEEPER)) {
        return "who came passed alone";
    }
    return goes_on(s, true);
}

/* Broken already, so that nothing but the reset is to be seen. */
static void *broken_scene(void)
{
    struct scene *s = watched_scene_of_two();
    return s != NULL && mproc_barrier_abort(s->barrier) == 0 ? s : NULL;
}

static const char *check_broken_reset(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    bool broken = mproc_barrier_broken(s->barrier);
    const char *wrong = NULL;
    if (at->second_step == 0) {
        wrong = on_its_side(at, !broken);
    }
    return wrong != NULL ? wrong : goes_on(s, broken);
}

/* ---- a waiter is reaped ----------------------------------------------- */

static int die_waiting(void *ctx)
{
    (void)ctx;
    await_go(OTHER);
    return wait_as(OTHER, MPROC_FOREVER);
}

/* Two wait; one of them is dead, and nobody has noticed. */
static void *dead_waiter_scene(void)
{
    struct scene *s = barrier_scene(3, false);
    pid_t pid = s == NULL ? -1 : start(die_waiting, s);
    int status;
    if (pid < 0 || !let_go(OTHER)) {
        return NULL;
    }
    kill(pid, SIGKILL);
    return waitpid(pid, &status, 0) == pid ? s : NULL;
}

static const char *check_reaped(void *ctx, const struct sweep_point *at)
{
    struct scene *s = ctx;
    (void)at;
    return mproc_barrier_broken(s->barrier)
               ? goes_on(s, true)
               : "the death of a waiter did not break it";
}

/* ---- all of them ------------------------------------------------------ */

static const struct sweep_case cases[] = {
    {.name = "wait, first of two",
     COMMON,
     .setup = scene_of_two,
     .prepare = victim_appears,
     .operation = wait_there,
     .bystander = arrive_as_well,
     .check = check_first},
    {.name = "wait, last of two",
     COMMON,
     .setup = watched_scene_of_two,
     .prepare = let_sleeper_sleep,
     .operation = wait_there,
     .sleeper = sleeper,
     .bystander = abort_as_well,
     .follow_up = arrive_if_awaited,
     .check = check_last},
    {.name = "wait, last of two, and act",
     COMMON,
     .setup = watched_acting_scene,
     .prepare = let_sleeper_sleep,
     .operation = wait_there,
     .sleeper = sleeper,
     .bystander = abort_as_well,
     .follow_up = arrive_if_awaited,
     .check = check_last},
    {.name = "wait, given up",
     COMMON,
     .setup = watched_scene_of_three,
     .prepare = let_sleeper_sleep,
     .operation = wait_not,
     .sleeper = sleeper,
     .bystander = arrive_as_well,
     .follow_up = abort_if_awaited,
     .check = check_gave_up},
    {.name = "abort",
     COMMON,
     .setup = watched_scene_of_two,
     .prepare = let_sleeper_sleep,
     .operation = abort_it,
     .sleeper = sleeper,
     .bystander = arrive_as_well,
     .follow_up = arrive_if_awaited,
     .check = check_aborted},
    {.name = "reset",
     COMMON,
     .setup = watched_scene_of_two,
     .prepare = let_sleeper_sleep,
     .operation = reset_it,
     .sleeper = sleeper,
     .bystander = arrive_as_well,
     .follow_up = arrive_if_awaited,
     .check = check_reset},
    {.name = "reset, and one who comes",
     COMMON,
     .setup = watched_scene_of_two,
     .prepare = let_sleeper_sleep_once,
     .operation = reset_it,
     .sleeper = sleeper,
     .second = arrive_late,
     .follow_up = arrive_if_awaited,
     .check = check_helped},
    {.name = "reset of a broken one",
     COMMON,
     .setup = broken_scene,
     .prepare = victim_appears,
     .operation = reset_it,
     .bystander = reset_as_well,
     .second = reset_it,
     .check = check_broken_reset},
    {.name = "reap of a waiter",
     COMMON,
     .setup = dead_waiter_scene,
     .prepare = victim_appears,
     .operation = reap_all,
     .second = reap_all,
     .check = check_reaped},
};

int main(int argc, char **argv)
{
    return play(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
