/* SPDX-License-Identifier: MIT */
/*
 * Conditions whose user is killed, or stopped for a while, after any
 * instruction.
 */
#include "sync_scene.h"

#include "sync/condition.h"
#include "sync/lock.h"

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
    return end_beside(notify_in(ctx, 1, HARDLY));
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

/* ---- the cases -------------------------------------------------------- */

static const struct sweep_case cases[] = {
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
