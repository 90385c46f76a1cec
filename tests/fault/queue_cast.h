/* SPDX-License-Identifier: MIT */
/* Those who take part in the sweeps of queues: see queue_scene.h. */
#ifndef FAULT_QUEUE_CAST_H
#define FAULT_QUEUE_CAST_H

#include "queue_scene.h"

/* ---- the sleepers ----------------------------------------------------- */

static inline int end_sleep(struct journal *j, int outcome)
{
    atomic_store(&j->outcome, outcome);
    atomic_store(&j->sleeper_done, 1);
    return outcome;
}

static inline int asleep_in_get(void *ctx)
{
    struct journal *j = ctx;
    int err = get(j, SLEEPER, MPROC_FOREVER);
    return end_sleep(j, err < 0 || intact(j->is.size) ? err : 1);
}

static inline int asleep_in_put(void *ctx)
{
    struct journal *j = ctx;
    return end_sleep(j, put(j, SLEEPER, j->is.size, MPROC_FOREVER));
}

static inline int asleep_in_join(void *ctx)
{
    struct journal *j = ctx;
    return end_sleep(j, mproc_queue_join(j->q, MPROC_FOREVER));
}

/* Of a queue that is freed or shut down. */
static inline int asleep_until_refused(void *ctx)
{
    struct journal *j = ctx;
    int err = get(j, SLEEPER, MPROC_FOREVER);
    end_sleep(j, err);
    return err != MPROC_EINVAL && err != MPROC_ESHUTDOWN;
}

static inline int asleep_until_no_room_will_be(void *ctx)
{
    struct journal *j = ctx;
    int err = put(j, SLEEPER, j->is.size, MPROC_FOREVER);
    end_sleep(j, err);
    return err != MPROC_EINVAL;
}

/*
 * What was not done by the killed one cannot end the sleep: then somebody else
 * does it. To tell, nothing is touched, so as not to wake anybody.
 */
static inline bool is_done(struct journal *j)
{
    return atomic_load(&j->sleeper_done) != 0;
}

static inline const char *put_if_empty(void *ctx)
{
    struct journal *j = ctx;
    if (mproc_queue_empty(j->q) && !is_done(j) &&
        put(j, ROUND, j->is.size, SOON) < 0) {
        return "nothing can be put";
    }
    return NULL;
}

static inline const char *get_if_full(void *ctx)
{
    struct journal *j = ctx;
    if (mproc_queue_full(j->q) && !is_done(j) && get(j, ROUND, SOON) < 0) {
        return "nothing can be got";
    }
    return NULL;
}

static inline const char *finish_if_unfinished(void *ctx)
{
    struct journal *j = ctx;
    if (!mproc_queue_empty(j->q) && !is_done(j)) {
        if (get(j, ROUND, SOON) < 0 || mproc_queue_task_done(j->q) < 0) {
            return "nothing can be got and acknowledged";
        }
    }
    return NULL;
}

/* What comes again is there once somebody has noticed the death. */
static inline const char *finish_what_comes(void *ctx)
{
    struct journal *j = ctx;
    while (!is_done(j)) {
        if (mpr_os_now() > round_end.at_ns) {
            return "join does not end";
        }
        int err = get(j, ROUND, MPROC_NOWAIT);
        if (err == 0 && mproc_queue_task_done(j->q) < 0) {
            return "what came again cannot be acknowledged";
        }
        usleep(500);
    }
    return NULL;
}

/* What is freed too early is no longer what it was. */
static inline const char *reap_and_scribble(void *ctx)
{
    static const size_t sizes[] = {SMALL + 1, 16 * 96, 64 * 1024, 192 * 1024,
                                   LARGE + 1};
    (void)ctx;
    mpr_slots_reap(mpr_self_.thread);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *block[3];
        for (int k = 0; k < 3; k++) {
            block[k] = mproc_alloc(sizes[i]);
            if (block[k] == NULL) {
                return "no memory";
            }
            memset(block[k], 0xee, sizes[i]);
        }
        for (int k = 0; k < 3; k++) {
            mproc_free(block[k]);
        }
    }
    return NULL;
}

/* ---- the victims ------------------------------------------------------ */

static inline void claim(void)
{
    struct mpr_thread *self;
    if (mpr_self(&self) < 0) {
        _exit(1);
    }
}

/* Also for a second victim, after the first. */
static inline void be_ready(void *ctx)
{
    struct journal *j = ctx;
    bool first = atomic_fetch_add(&j->prepared, 1) == 0;
    claim();
    compose(j->is.size, first ? VICTIM : SECOND, 0);
}

static inline int free_queue(void *ctx)
{
    struct journal *j = ctx;
    mproc_queue_free(j->q);
    return 0;
}

/* ---- bystanders and second victims ------------------------------------ */

/* A stopped one keeps what it has locked: then nothing goes on, as it may. */
static inline void give_up(int signal)
{
    (void)signal;
    _exit(SWEEP_WOULD_BLOCK);
}

static inline void allow_ms(int ms)
{
    const struct itimerval after = {.it_value = {ms / 1000, ms % 1000 * 1000}};
    signal(SIGALRM, give_up);
    setitimer(ITIMER_REAL, &after, NULL);
}

static inline bool may_be(int err)
{
    return err == 0 || err == MPROC_EFULL || err == MPROC_EEMPTY;
}

static inline int bad(const char *what, int err)
{
    fprintf(stderr, "%s: %s\n", what, mproc_error_name(err));
    return 1;
}

static inline int get_intact(struct journal *j, enum who who)
{
    int err = get(j, who, MPROC_NOWAIT);
    if (!may_be(err) || (err == 0 && !intact(j->is.size))) {
        return bad("get", err);
    }
    return err == 0 ? 0 : SWEEP_WOULD_BLOCK;
}

static inline int put_and_get(struct journal *j, enum who who)
{
    int err = put(j, who, j->is.size, MPROC_NOWAIT);
    if (!may_be(err)) {
        return bad("put", err);
    }
    int got = get_intact(j, who);
    return err == 0 ? got : SWEEP_WOULD_BLOCK;
}

static inline int put_and_get_beside(void *ctx)
{
    allow_ms(10);
    return put_and_get(ctx, BYSTANDER);
}

/* As far as a full queue allows. */
static inline int get_and_put_beside(void *ctx)
{
    struct journal *j = ctx;
    allow_ms(10);
    int got = get_intact(j, BYSTANDER);
    int err = put(j, BYSTANDER, j->is.size, MPROC_NOWAIT);
    return may_be(err) ? got : bad("put", err);
}

/* It is never full, and never empty where two messages are in it, meanwhile. */
static inline int move_on_beside(void *ctx)
{
    struct journal *j = ctx;
    int err = 0;
    allow_ms(10);
    for (int i = 0; err == 0 && i < 4; i++) {
        if (mproc_queue_qsize(j->q) == 2) {
            err = get_intact(j, BYSTANDER);
        }
        err = err == 0 ? put(j, BYSTANDER, j->is.size, MPROC_NOWAIT) : err;
        if (mproc_queue_qsize(j->q) == 1) {
            err = err == 0 ? get_intact(j, BYSTANDER) : err;
        }
    }
    return err == 0 ? 0 : may_be(err) ? SWEEP_WOULD_BLOCK : err;
}

/* A queue that has nothing to do with the one that is made or ended. */
static inline int use_another(void *ctx)
{
    struct journal j = {.is = ((struct journal *)ctx)->is};
    allow_ms(10);
    int err = mproc_queue_new(&j.q, &(mproc_queue_opts){.order = order});
    for (int i = 0; err == 0 && i < 3; i++) {
        err = put_and_get(&j, BYSTANDER);
    }
    bool empty = err == 0 && mproc_queue_empty(j.q);
    mproc_queue_free(j.q);
    return empty ? 0 : bad("use of another queue", err);
}

/* Repairs what it locks, then reaps. */
static inline int use_and_reap(void *ctx)
{
    struct journal *j = ctx;
    bool good = may_be(put_composed(j, SECOND, j->is.size, MPROC_NOWAIT)) &&
                may_be(get(j, SECOND, MPROC_NOWAIT));
    mpr_slots_reap(mpr_self_.thread);
    return good ? 0 : 1;
}

static inline int reap(void *ctx)
{
    (void)ctx;
    mpr_slots_reap(mpr_self_.thread);
    return 0;
}

#endif
