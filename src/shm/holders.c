/* SPDX-License-Identifier: MIT */
#include "shm/holders.h"

struct holders {
    struct mpr_holder *out;
    unsigned room, count;
};

static void count_holder(mpr_id holder, int64_t since_ns, void *user)
{
    struct holders *holders = user;
    pid_t pid = mpr_id_pid(holder);
    if (pid != 0 && holders->count < holders->room) {
        holders->out[holders->count] =
            (struct mpr_holder){holder, pid, since_ns};
    }
    holders->count += pid != 0;
}

unsigned mpr_holders_of(const void *object, struct mpr_holder *out,
                        unsigned room)
{
    struct holders holders = {out, room, 0};
    mpr_object_holders(object, count_holder, &holders);
    return holders.count;
}

bool mpr_sleeper_at(struct mpr_thread *thread, struct mpr_sleeper *out)
{
    mpr_id owner = atomic_load(&thread->owner);
    uintptr_t op = atomic_load(&thread->op);
    int64_t since = atomic_load(&thread->asleep_since);
    const void *object = mpr_op_object(op);
    pid_t pid = owner != 0 && since != 0 ? mpr_id_pid(owner) : 0;
    if (pid == 0 || mpr_object_type_of(object) == MPR_OBJECT_TYPES ||
        atomic_load(&thread->op) != op) {
        return false;
    }
    *out = (struct mpr_sleeper){owner, pid, thread->tid, object, since};
    return true;
}

unsigned mpr_sleepers_on(const void *object, struct mpr_sleeper *out,
                         unsigned room)
{
    uint32_t top =
        mpr_family != NULL ? atomic_load(&mpr_family->threads_top) : 0;
    struct mpr_sleeper sleeper;
    unsigned count = 0;
    for (uint32_t i = 1; i < top; i++) {
        struct mpr_thread *thread = &mpr_family->threads[i];
        if (mpr_op_object(atomic_load(&thread->op)) != object ||
            !mpr_sleeper_at(thread, &sleeper) || sleeper.object != object) {
            continue;
        }
        if (count++ < room) {
            out[count - 1] = sleeper;
        }
    }
    return count;
}
