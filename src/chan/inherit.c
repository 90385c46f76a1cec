/* SPDX-License-Identifier: MIT */
/*
 * What a fork does to pipes: whatever end the parent holds, its child holds
 * from before the fork on, so that no end is without a holder in between.
 * It is added by the parent, in fork(), in the name of a child to be (slot.h);
 * should that one not come, it is a dead process as any other, and its words
 * are free.
 *
 * A fork does not wait for a process that is stopped, which may be one that has
 * the pipe's guard. So the child gets one of the end's first words, without the
 * guard. That is no race with who settles the pipe: he closes an end that he
 * finds nobody to hold, and all the time the parent holds this one. The guard
 * is needed only where the first words are taken, or the parent's own is not
 * among them.
 */
#include "chan/pipe.h"

struct heir {
    struct mpr_thread *self;
    mpr_id parent;
    mpr_id child;
    int32_t count;
};

static int add_heir(struct mpr_pipe *pipe, struct mproc_connection *end,
                    uint64_t tag, const struct heir *heir)
{
    int err = MPROC_EINVAL;
    mpr_guard_lock(&pipe->guard, heir->self, heir->self);
    if (mpr_object_unchanged(pipe, tag)) {
        const _Atomic mpr_id *parent = mpr_end_find(end, heir->parent);
        if (parent != NULL && mpr_end_load(parent) == heir->parent) {
            err = mpr_end_add(end, heir->self, heir->child);
        }
    }
    mpr_guard_unlock(&pipe->guard, heir->self);
    return err;
}

/* Without memory for its word the child has no part in it until it uses it. */
static bool inherit_end(struct mpr_pipe *pipe, struct mproc_connection *end,
                        uint64_t tag, const struct heir *heir)
{
    bool among_first = mpr_end_names_first(end, heir->parent);
    if (among_first && mpr_end_add_first(end, heir->child)) {
        return true;
    }
    if (!among_first && atomic_load(&end->more) == NULL) {
        return false;
    }
    int err = add_heir(pipe, end, tag, heir);
    if (err == MPROC_EAGAIN && mpr_end_fetch_chunk(heir->self) == 0) {
        err = add_heir(pipe, end, tag, heir);
        mpr_heap_free_hand(heir->self, heir->self, MPR_HAND_SECOND);
    }
    return err == 0;
}

/*
 * Who sleeps until nobody holds the end does not watch the new holder yet. It
 * will: the old one closes the end or dies, and either wakes it.
 */
static void inherit_pipe(struct mpr_object *object, void *user)
{
    struct mpr_pipe *pipe = (struct mpr_pipe *)object;
    struct heir *heir = user;
    uint64_t tag = mpr_object_tag(pipe, MPR_PIPE);
    for (int i = 0; i < 2 && tag != 0; i++) {
        if (inherit_end(pipe, &pipe->end[i], tag, heir)) {
            heir->count++;
        }
    }
}

int32_t mpr_pipes_inherit(struct mpr_thread *self, mpr_id parent, mpr_id child)
{
    struct heir heir = {self, parent, child, 0};
    mpr_object_each(MPR_PIPE, inherit_pipe, &heir);
    return heir.count;
}
