/* SPDX-License-Identifier: MIT */
/* mproc_process_start, by each of its methods. */
#include <string.h>

#include "proc/child.h"
#include "proc/children.h"
#include "proc/thread.h"
#include "proc/who.h"

/* ---- by fork ---------------------------------------------------------- */

_Noreturn static void run(const struct mpr_role *role,
                          const struct mpr_child *child)
{
    struct mpr_thread *self;
    mpr_who_become(role);
    mpr_role_begins(role, mpr_self(&self) == 0 ? mpr_self_id() : 0);
    mpr_child_ready(child);
    mpr_child_leave(role->fn(role->arg));
}

static int try_fork(const struct mpr_role *role, struct mpr_child *child)
{
    int err = mpr_child_fork(
        role->daemon ? MPR_CHILD_ENDS_WITH_PARENT : MPR_CHILD_OUTLIVES, child);
    if (err == 0 && child->pid == 0) {
        run(role, child);
    }
    return err;
}

/* ---- by any ----------------------------------------------------------- */

static int try_process(const struct mpr_role *role, struct mpr_child *child)
{
    struct mpr_thread *self;
    int err = mpr_self(&self);
    if (err < 0) {
        return err;
    }
    return mpr_slots_room(self) ? try_fork(role, child) : MPROC_EAGAIN;
}

/* Refused for want of processes or descriptors: ended children have some. */
static int make_process(const struct mpr_role *role, struct mpr_child *child)
{
    int err = try_process(role, child);
    if (err == MPROC_EAGAIN || err == MPROC_EMFILE || err == MPROC_ENFILE) {
        mpr_children_enter();
        bool again = mpr_children_collect_all(false);
        mpr_children_leave();
        if (again) {
            err = try_process(role, child);
        }
    }
    return err;
}

/* The record has this thread as its user, so it stays. */
static int start_process(const struct mpr_role *role,
                         struct mpr_child_record *record)
{
    struct mpr_child child;
    int err = make_process(role, &child);
    mpr_children_enter();
    if (err == 0) {
        mpr_children_runs(record, child.pid, child.pidfd);
    }
    return err;
}

static int start(const struct mpr_role *role, struct mpr_child_record *record,
                 uint32_t how)
{
    int err;
    switch (how) {
    case MPROC_START_THREAD:
        err = mpr_thread_start(role, record);
        break;
    default:
        err = start_process(role, record);
        break;
    }
    struct mproc_process *p = record->handle;
    if (err == 0 && p != NULL) {
        mpr_process_runs(p, record->pid);
    } else if (p != NULL) {
        atomic_store(&p->state, MPR_PROCESS_MADE);
    }
    mpr_children_release(record);
    mpr_children_leave();
    return err;
}

/* Locked. From here on nobody else starts it. */
static int begin_start(struct mproc_process *p)
{
    if (mpr_process_phase(p) != MPR_PROCESS_MADE) {
        return MPROC_EINVAL;
    }
    if (mpr_who_is_daemonic()) {
        return MPROC_EPERM;
    }
    p->record->users++;
    atomic_store(&p->state, MPR_PROCESS_STARTING);
    return 0;
}

static void learn_role(struct mproc_process *p, struct mpr_role *role)
{
    *role = (struct mpr_role){.handle = p,
                              .tag = mpr_object_tag(p, MPR_PROCESS),
                              .fn = p->fn,
                              .arg = p->arg,
                              .daemon = p->daemon};
    memcpy(role->path, p->path, sizeof role->path);
    memcpy(role->name, p->name, sizeof role->name);
}

int mproc_process_start(mproc_process *p)
{
    struct mpr_role role;
    int err = mpr_process_enter(p);
    if (err < 0) {
        return err;
    }
    mpr_children_collect_all(true);
    err = begin_start(p);
    struct mpr_child_record *record = p->record;
    uint32_t how = p->start;
    learn_role(p, &role);
    mpr_children_leave();
    return err < 0 ? err : start(&role, record, how);
}
