/* SPDX-License-Identifier: MIT */
#include "sync/barrier.h"

#include "base/options.h"
#include "shm/sleep.h"
#include "sync/wait.h"

/*
 * `state` as one word, so that each step of a barrier is one compare-and-swap:
 *
 *   FILLING   `number` have arrived. → FILLING by the next, → ACTING by the
 *             last, or at once → FILLING of the next generation
 *   ACTING    `number` is the slot of the process that runs the action; then
 *             → FILLING of the next generation
 *   BROKEN    from either of them, by a deadline, an abort, a death, or a
 *             failed action
 *   CLEARING  from any, by reset; then → FILLING of the next generation
 *
 * Who arrives takes a wait (wait.h), with the generation as its ticket, before
 * it is counted. So of anyone counted it is known who it is, also if it dies,
 * except of who acts: its wait is free for what the action may wait on, and
 * `state` names it. Who dies between is taken for a party: it was in wait().
 *
 * A waiter finds out about its own generation late, perhaps many generations
 * later. One that broke is followed by CLEARING only: who clears, and anybody
 * who comes by can, first tells everyone who still waits how his generation
 * ended, and then begins the next. So a waiter that was told nothing, and finds
 * another generation, was let go.
 *
 * Locks: none. Publishes: the change of `state`, before the ring of the bell.
 * Survives: who changes `state` has `op` set until it has rung, so its death
 * is told to all; CLEARING is finished by others. Who reaps a party of the
 * generation breaks it first.
 */
enum phase { FILLING, ACTING, BROKEN, CLEARING, PHASES };

enum { NUMBER_MAX = UINT32_MAX / 8 };

static uint64_t state_of(uint32_t generation, uint32_t number, enum phase phase)
{
    return (uint64_t)generation << 32 | (uint64_t)number * 8 | phase;
}

static uint32_t generation_of(uint64_t state)
{
    return (uint32_t)(state >> 32);
}

static uint32_t number_of(uint64_t state)
{
    return (uint32_t)state / 8;
}

static enum phase phase_of(uint64_t state)
{
    return (enum phase)(state % 8);
}

static bool change(mproc_barrier *b, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong(&b->state, &from, to);
}

static uint64_t filling_next(uint64_t state)
{
    return state_of(generation_of(state) + 1, 0, FILLING);
}

static bool is_whole(uint64_t state)
{
    return phase_of(state) == FILLING || phase_of(state) == ACTING;
}

/* ---- breaking and clearing -------------------------------------------- */

/* False: it has changed meanwhile. */
static bool break_up(mproc_barrier *b, uint64_t state)
{
    bool broken = change(b, state, state_of(generation_of(state), 0, BROKEN));
    if (broken) {
        mpr_bell_ring(&b->bell, INT_MAX);
    }
    return broken;
}

/* Unless the generation is over. */
static void break_generation(mproc_barrier *b, uint32_t generation)
{
    uint64_t state;
    do {
        state = atomic_load(&b->state);
    } while (generation_of(state) == generation && is_whole(state) &&
             !break_up(b, state));
}

/*
 * What was CLEARING. Each step may be repeated, also by who is late: then the
 * waits that it tells of are over, and those of later generations it leaves
 * alone.
 */
static void clear(mproc_barrier *b, uint64_t clearing)
{
    struct mpr_wait seen;
    for (uint32_t at = 0; mpr_wait_next(&at, b, &seen);) {
        uint32_t ago = generation_of(clearing) - (uint32_t)seen.ticket;
        if (ago <= INT32_MAX) {
            (void)mpr_wait_tell(&seen,
                                ago == 0 ? MPR_WAIT_BROKEN : MPR_WAIT_TOLD);
        }
    }
    if (change(b, clearing, filling_next(clearing))) {
        mpr_bell_ring(&b->bell, INT_MAX);
    }
}

/* ---- deaths ----------------------------------------------------------- */

/*
 * Whoever has that slot now: should that be another, the death of the one who
 * acted has broken the barrier.
 */
static mpr_id actor_of(uint64_t state)
{
    mpr_id number = (mpr_id)number_of(state) << 1;
    uint64_t slot = atomic_load(&mpr_id_slot(number)->state);
    return slot >> 32 << 32 | number;
}

static bool any_is_dead(mproc_barrier *b, uint64_t state)
{
    struct mpr_wait seen;
    for (uint32_t at = 0; mpr_wait_next(&at, b, &seen);) {
        mpr_id owner = atomic_load(&seen.thread->owner);
        if ((uint32_t)seen.ticket == generation_of(state) && owner != 0 &&
            mpr_id_is_dead(owner)) {
            return true;
        }
    }
    return phase_of(state) == ACTING && mpr_id_is_dead(actor_of(state));
}

/* The state, once whoever in it is found dead has broken it. */
static uint64_t look(mproc_barrier *b)
{
    for (;;) {
        uint64_t state = atomic_load(&b->state);
        if (!is_whole(state) || !any_is_dead(b, state)) {
            return state;
        }
        (void)break_up(b, state);
    }
}

static void break_if_acting(struct mpr_object *object, void *user)
{
    mproc_barrier *b = (mproc_barrier *)object;
    const mpr_id *dead = user;
    uint64_t state = atomic_load(&b->state);
    if (phase_of(state) == ACTING && number_of(state) == (uint32_t)*dead >> 1) {
        break_generation(b, generation_of(state));
    }
}

static void reap(struct mpr_thread *self, mpr_id dead)
{
    struct mpr_wait seen;
    (void)self;
    mpr_object_each(MPR_BARRIER, break_if_acting, &dead);
    for (uint32_t at = 0; mpr_wait_next_dead(&at, dead, MPR_BARRIER, &seen);) {
        mproc_barrier *b = (mproc_barrier *)atomic_load(&seen.thread->wait_for);
        if (mpr_wait_state(seen.word) == MPR_WAIT_ON) {
            break_generation(b, (uint32_t)seen.ticket);
        }
        mpr_wait_end(seen.thread, seen.word);
    }
}

/* ---- making and ending ------------------------------------------------ */

/* A new generation, so that who is late changes nothing in the next one. */
static void end_barrier(struct mpr_thread *self, struct mpr_thread *whose,
                        struct mpr_object *object)
{
    (void)self;
    (void)whose;
    mproc_barrier *b = (mproc_barrier *)object;
    uint64_t state = atomic_load(&b->state);
    atomic_store(&b->state, state_of(generation_of(state) + 1, 0, BROKEN));
    mpr_bell_ring(&b->bell, INT_MAX);
}

/* Those who have arrived. */
static void parties_of(struct mpr_object *object, mpr_holder_fn *fn, void *user)
{
    mproc_barrier *b = (mproc_barrier *)object;
    uint64_t state = atomic_load(&b->state);
    struct mpr_wait seen;
    if (!is_whole(state)) {
        return;
    }
    for (uint32_t at = 0; mpr_wait_next(&at, b, &seen);) {
        mpr_id owner = atomic_load(&seen.thread->owner);
        if ((uint32_t)seen.ticket == generation_of(state) && owner != 0) {
            fn(owner, atomic_load(&seen.thread->asleep_since), user);
        }
    }
    if (phase_of(state) == ACTING) {
        fn(actor_of(state), 0, user);
    }
}

__attribute__((constructor)) static void register_class(void)
{
    static const struct mpr_object_class class = {.type = MPR_BARRIER,
                                                  .size = sizeof(mproc_barrier),
                                                  .end = end_barrier,
                                                  .holders = parties_of};
    mpr_object_register(&class);
    mpr_slots_on_reap(reap);
}

int mproc_barrier_new_sized(mproc_barrier **out, unsigned parties,
                            const mproc_barrier_opts *opts, size_t opts_size)
{
    mproc_barrier_opts wanted;
    struct mpr_thread *self;
    if (out == NULL || parties == 0 || parties > NUMBER_MAX) {
        return MPROC_EINVAL;
    }
    int err = mpr_options_read(&wanted, sizeof wanted, opts, opts_size);
    void *made;
    err = err < 0 ? err : mpr_object_make(&self, MPR_BARRIER, &made);
    if (err < 0) {
        return err;
    }
    mproc_barrier *b = made;
    atomic_store(&b->parties, parties);
    atomic_store(&b->action, wanted.action);
    atomic_store(&b->user, wanted.user);
    atomic_store(&b->state, filling_next(atomic_load(&b->state)));
    mpr_object_publish(self, b);
    *out = b;
    return 0;
}

void mproc_barrier_free(mproc_barrier *b)
{
    mpr_object_free(b, MPR_BARRIER);
}

/* ---- waiting ---------------------------------------------------------- */

/* One call of wait. */
struct party {
    struct mpr_thread *self;
    mproc_barrier *b;
    uint64_t tag;
    uint64_t wait;  /* 0: none begun */
    uint64_t state; /* of the barrier, as this has made it by arriving; or 0 */
    uint32_t index;
};

enum { LOOK_AGAIN = 1, ACT };

/* Before it is counted, it can be told. */
static void announce(struct party *p, uint64_t state)
{
    p->wait = mpr_wait_begin(p->self, p->b, generation_of(state));
}

static void withdraw(struct party *p)
{
    if (p->wait != 0) {
        mpr_wait_end(p->self, p->wait);
        p->wait = 0;
    }
}

/* 0: the last, and no action; ACT: the last. EBUSY: not the last, or not in. */
static int arrive_filling(struct party *p, uint64_t state)
{
    mproc_barrier *b = p->b;
    uint32_t generation = generation_of(state);
    uint32_t number = number_of(state);
    bool last = number + 1 == atomic_load(&b->parties);
    bool act = last && atomic_load(&b->action) != NULL;
    uint64_t next = state_of(generation, number + 1, FILLING);
    if (act) {
        uint32_t slot = (uint32_t)mpr_self_id() >> 1;
        next = state_of(generation, slot, ACTING);
    } else if (last) {
        next = filling_next(state);
    }
    if (last && look(b) != state) {
        return LOOK_AGAIN;
    }
    announce(p, state);
    if (!change(b, state, next)) {
        return LOOK_AGAIN;
    }
    p->state = next;
    p->index = number;
    if (last && !act) {
        mpr_bell_ring(&b->bell, INT_MAX);
    }
    return act ? ACT : last ? 0 : MPROC_EBUSY;
}

static int arrive(struct party *p, uint64_t state)
{
    switch (phase_of(state)) {
    case FILLING:
        return arrive_filling(p, state);
    case ACTING: /* for others: this is no party of theirs */
        withdraw(p);
        return MPROC_EBUSY;
    case CLEARING:
        clear(p->b, state);
        return LOOK_AGAIN;
    default:
        return MPROC_EBROKEN;
    }
}

/* Of who has arrived, and waits. The state was read before what was told. */
static int outcome(const struct party *p, uint64_t state)
{
    switch (mpr_wait_heard(p->self)) {
    case MPR_WAIT_TOLD:
        return 0;
    case MPR_WAIT_BROKEN:
        return MPROC_EBROKEN;
    default:
        break;
    }
    if (generation_of(state) != generation_of(p->state)) {
        return 0;
    }
    return is_whole(state) ? MPROC_EBUSY : MPROC_EBROKEN;
}

static int attempt(void *user)
{
    struct party *p = user;
    int err = LOOK_AGAIN;
    while (err == LOOK_AGAIN) {
        uint64_t state = atomic_load(&p->b->state);
        if (!mpr_object_unchanged(p->b, p->tag)) {
            return MPROC_EINVAL;
        }
        err = p->state != 0 ? outcome(p, state) : arrive(p, state);
    }
    return err;
}

/* The deadline has passed. */
static int give_up(struct party *p)
{
    for (;;) {
        uint64_t state = atomic_load(&p->b->state);
        if (!mpr_object_unchanged(p->b, p->tag)) {
            return MPROC_EINVAL;
        }
        int err = p->state != 0 ? outcome(p, state) : MPROC_ETIMEDOUT;
        if (err != MPROC_EBUSY) {
            return err;
        }
        if (break_up(p->b, state)) {
            return MPROC_ETIMEDOUT;
        }
    }
}

/* With no wait of its own: the action may wait for other things. */
static int act(struct party *p)
{
    mproc_barrier *b = p->b;
    int (*action)(void *user) = atomic_load(&b->action);
    void *user = atomic_load(&b->user);
    if (!mpr_object_unchanged(b, p->tag)) {
        return MPROC_EINVAL;
    }
    withdraw(p);
    bool good = action(user) == 0;
    bool done = good ? change(b, p->state, filling_next(p->state))
                     : break_up(b, p->state);
    if (done && good) {
        mpr_bell_ring(&b->bell, INT_MAX);
    }
    if (!mpr_object_unchanged(b, p->tag)) {
        return MPROC_EINVAL;
    }
    return done && good ? 0 : MPROC_EBROKEN;
}

int mproc_barrier_wait(mproc_barrier *b, unsigned *index, mproc_deadline until)
{
    struct party p = {.b = b, .tag = mpr_object_tag(b, MPR_BARRIER)};
    if (p.tag == 0) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(&p.self);
    if (err < 0) {
        return err;
    }
    uintptr_t outer = mpr_op_begin(p.self, b);
    err = mpr_sleep_until(&b->bell, until, MPROC_EBUSY, attempt, &p);
    if (err == MPROC_EBUSY) {
        err = give_up(&p);
    } else if (err == ACT) {
        err = act(&p);
    }
    withdraw(&p);
    mpr_op_end(p.self, outer);
    if (err == 0 && index != NULL) {
        *index = p.index;
    }
    return err;
}

/* ---- from outside ----------------------------------------------------- */

/* `step` is true once what is to be done is done. */
static int change_until(mproc_barrier *b,
                        bool (*step)(mproc_barrier *b, uint64_t state))
{
    struct mpr_thread *self;
    uint64_t tag = mpr_object_tag(b, MPR_BARRIER);
    int err = tag == 0 ? MPROC_EINVAL : mpr_self(&self);
    if (err < 0) {
        return err;
    }
    uintptr_t outer = mpr_op_begin(self, b);
    uint64_t state;
    do {
        state = atomic_load(&b->state);
        err = mpr_object_unchanged(b, tag) ? 0 : MPROC_EINVAL;
    } while (err == 0 && !step(b, state));
    mpr_op_end(self, outer);
    return err;
}

static bool step_to_broken(mproc_barrier *b, uint64_t state)
{
    if (phase_of(state) == CLEARING) {
        clear(b, state);
        return false;
    }
    return phase_of(state) == BROKEN || break_up(b, state);
}

/* One of nobody too: somebody may have died who was about to arrive. */
static bool step_to_empty(mproc_barrier *b, uint64_t state)
{
    uint64_t clearing = state_of(generation_of(state), 0, CLEARING);
    if (state != clearing && !change(b, state, clearing)) {
        return false;
    }
    clear(b, clearing);
    return true;
}

int mproc_barrier_abort(mproc_barrier *b)
{
    return change_until(b, step_to_broken);
}

int mproc_barrier_reset(mproc_barrier *b)
{
    return change_until(b, step_to_empty);
}

unsigned mproc_barrier_parties(const mproc_barrier *b)
{
    return mpr_object_is(b, MPR_BARRIER) ? atomic_load(&b->parties) : 0;
}

unsigned mproc_barrier_n_waiting(const mproc_barrier *b)
{
    if (!mpr_object_is(b, MPR_BARRIER)) {
        return 0;
    }
    uint64_t state = look((mproc_barrier *)b);
    switch (phase_of(state)) {
    case FILLING:
        return number_of(state);
    case ACTING:
        return atomic_load(&b->parties);
    default:
        return 0;
    }
}

bool mproc_barrier_broken(const mproc_barrier *b)
{
    return mpr_object_is(b, MPR_BARRIER) &&
           phase_of(look((mproc_barrier *)b)) == BROKEN;
}
