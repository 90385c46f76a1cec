/* SPDX-License-Identifier: MIT */
/*
 * Pipes: how they are made, settled and ended. What users do with the ends is
 * in connection.c and connection_hold.c; what a fork does, in inherit.c.
 *
 * A pipe ends by itself, since nobody frees it: the one who closes its second
 * end settles it and so ends it; where he is killed before, or where the last
 * holders all die, that is left to reapers. A chunk of holders' words on its
 * way between the heap and an end is in a hand as well, so that a death there
 * leaves it to exactly one of them: to the end, if it is among its chunks, else
 * to who reaps the hand.
 */
#include "chan/pipe.h"

#include "base/options.h"
#include "chan/connection.h"

/* ---- settling --------------------------------------------------------- */

void mpr_pipe_ring(struct mpr_pipe *pipe)
{
    for (int i = 0; i < 2; i++) {
        mpr_bell_ring(&pipe->log[i].items, INT_MAX);
        mpr_bell_ring(&pipe->log[i].space, INT_MAX);
    }
}

/* Closes the ends that nobody holds. How many of them are closed. */
static int close_unheld(struct mpr_pipe *pipe)
{
    int closed = 0;
    for (int i = 0; i < 2; i++) {
        struct mproc_connection *end = &pipe->end[i];
        if (!atomic_load(&end->closed) && !mpr_end_is_held(end)) {
            atomic_store(&end->closed, 1);
        }
        closed += atomic_load(&end->closed) != 0;
    }
    return closed;
}

bool mpr_pipe_settle(struct mpr_pipe *pipe, struct mpr_thread *self,
                     uint64_t tag, mproc_deadline until)
{
    if (mpr_guard_lock_until(&pipe->guard, self, self, until) < 0) {
        return false;
    }
    int closed = mpr_object_unchanged(pipe, tag) ? close_unheld(pipe) : 0;
    mpr_guard_unlock(&pipe->guard, self);
    if (closed > 0) {
        mpr_pipe_ring(pipe);
    }
    if (closed == 2) {
        mpr_object_end_if(self, pipe, tag);
    }
    return true;
}

/*
 * Somebody died. Who has the guard for long, being stopped, holds an end: when
 * he closes it or ends, this is done again; and who waits at the pipe, being
 * told of the death, tries it himself.
 */
static void settle_any(struct mpr_object *object, void *user)
{
    struct mpr_pipe *pipe = (struct mpr_pipe *)object;
    uint64_t tag = mpr_object_tag(pipe, MPR_PIPE);
    if (tag != 0 && !(mpr_end_surely_held(&pipe->end[0]) &&
                      mpr_end_surely_held(&pipe->end[1]))) {
        mpr_pipe_settle(pipe, user, tag, MPROC_NOWAIT);
    }
}

static void reap_holds(struct mpr_thread *self, mpr_id dead)
{
    (void)dead;
    mpr_object_each(MPR_PIPE, settle_any, self);
}

/* What was linked, or is not yet unlinked, is the end's. */
static void repair(struct mpr_guard *guard, struct mpr_thread *hands)
{
    const struct mpr_pipe *pipe =
        (struct mpr_pipe *)((char *)guard - offsetof(struct mpr_pipe, guard));
    const void *in_hand = hands ? mpr_hand(hands, MPR_HAND_SECOND) : NULL;
    if (in_hand != NULL && (mpr_end_has_chunk(&pipe->end[0], in_hand) ||
                            mpr_end_has_chunk(&pipe->end[1], in_hand))) {
        mpr_hand_set(hands, MPR_HAND_SECOND, NULL);
    }
}

/* ---- making and ending ------------------------------------------------ */

static void end_pipe(struct mpr_thread *self, struct mpr_thread *whose,
                     struct mpr_object *object)
{
    struct mpr_pipe *pipe = (struct mpr_pipe *)object;
    if (!object->prepared) {
        return;
    }
    mpr_log_end(&pipe->log[0], self, whose);
    mpr_log_end(&pipe->log[1], self, whose);
    bool dropped;
    do {
        mpr_heap_free_hand(self, whose, MPR_HAND_SECOND);
        mpr_guard_lock(&pipe->guard, self, whose);
        dropped = mpr_end_drop_chunk(&pipe->end[0], whose) ||
                  mpr_end_drop_chunk(&pipe->end[1], whose);
        mpr_guard_unlock(&pipe->guard, self);
    } while (dropped);
}

__attribute__((constructor)) static void register_pipes(void)
{
    static const struct mpr_object_class class = {.type = MPR_PIPE,
                                                  .size =
                                                      sizeof(struct mpr_pipe),
                                                  .end = end_pipe,
                                                  .wait = &mpr_connection_wait};
    mpr_object_register(&class);
    mpr_guard_on_repair(MPR_GUARD_PIPES, repair);
    mpr_slots_on_reap(reap_holds);
    mpr_slots_on_fork(mpr_pipes_inherit);
}

/* Nobody looks at a pipe that is not live. */
static void begin_pipe(struct mpr_pipe *pipe, const mproc_pipe_opts *opts)
{
    bool prepared = pipe->object.prepared;
    if (!prepared) {
        mpr_guard_init(&pipe->guard, MPR_GUARD_PIPES);
    }
    for (unsigned i = 0; i < 2; i++) {
        mpr_end_init(&pipe->end[i], i, mpr_self_id());
        mpr_log_init(&pipe->log[i], prepared);
        pipe->log[i].max_bytes = MPR_PIPE_BYTES;
        pipe->log[i].max_items = MPR_PIPE_ITEMS;
    }
    pipe->simplex = opts->simplex != 0;
    pipe->object.prepared = 1;
}

/* What the dead have left may be what is lacking. */
static struct mpr_pipe *new_object(struct mpr_thread *self)
{
    struct mpr_pipe *pipe = mpr_object_new(self, MPR_PIPE);
    if (pipe == NULL && mpr_slots_reap(self).reaped > 0) {
        pipe = mpr_object_new(self, MPR_PIPE);
    }
    return pipe;
}

int mproc_pipe_new_sized(mproc_connection **a, mproc_connection **b,
                         const mproc_pipe_opts *theirs, size_t opts_size)
{
    mproc_pipe_opts opts;
    struct mpr_thread *self;
    if (a == NULL || b == NULL) {
        return MPROC_EINVAL;
    }
    int err = mpr_options_read(&opts, sizeof opts, theirs, opts_size);
    if (err < 0) {
        return err;
    }
    if (opts.reserved != 0) {
        return MPROC_ENOTSUP;
    }
    if ((err = mpr_self(&self)) < 0) {
        return err;
    }
    struct mpr_pipe *pipe = new_object(self);
    if (pipe == NULL) {
        return MPROC_ENOMEM;
    }
    begin_pipe(pipe, &opts);
    mpr_heritage_begin();
    mpr_held_add(self, 2);
    mpr_object_publish(self, pipe);
    mpr_heritage_end(2);
    *a = &pipe->end[0];
    *b = &pipe->end[1];
    return 0;
}
