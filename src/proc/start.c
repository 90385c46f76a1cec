/* SPDX-License-Identifier: MIT */
/* mproc_process_start, by each of its methods. */
#include <string.h>

#include "proc/child.h"
#include "proc/children.h"
#include "proc/server.h"
#include "proc/spawn.h"
#include "proc/thread.h"
#include "proc/who.h"

/* ---- by fork ---------------------------------------------------------- */

/* Whoever does not call the library has no use for a slot. */
_Noreturn static void run(const struct mpr_role *role,
                          const struct mpr_child *child)
{
    mpr_who_become(role);
    if (mpr_own_id() != 0) {
        mpr_process_begins(role->handle, role->tag, mpr_own_id());
    }
    mpr_child_ready(child);
    mpr_child_run(role->fn, role->arg);
}

static int by_fork(const struct mpr_role *role, struct mpr_born *out)
{
    struct mpr_child child;
    int err = mpr_child_fork(
        role->daemon ? MPR_CHILD_ENDS_WITH_PARENT : MPR_CHILD_OUTLIVES, &child);
    if (err == 0 && child.pid == 0) {
        run(role, &child);
    }
    if (err == 0) {
        *out = (struct mpr_born){
            .pid = child.pid, .pidfd = child.pidfd, .channel = -1};
    }
    return err;
}

/* ---- by errand --------------------------------------------------------- */

static int by_errand(const struct mpr_role *role, size_t arg_size, bool serve,
                     struct mpr_born *out)
{
    struct mpr_errand errand;
    int err = mpr_errand_fill(&errand, role, arg_size);
    if (err < 0) {
        return err;
    }
    errand.parent.fostered = serve;
    return serve ? mpr_server_fork(&errand, out) : mpr_spawn(&errand, out);
}

/* ---- by any ----------------------------------------------------------- */

struct start {
    struct mpr_role role;
    struct mpr_child_record *record; /* with this thread as user: it stays */
    uint32_t how;
};

static int try_process(const struct start *start, struct mpr_born *out)
{
    struct mpr_thread *self;
    int err = mpr_self(&self);
    if (err < 0) {
        return err;
    }
    if (!mpr_children_room(self, 1)) {
        return MPROC_EAGAIN;
    }
    return start->how == MPROC_START_FORK
               ? by_fork(&start->role, out)
               : by_errand(&start->role, start->record->arg_size,
                           start->how == MPROC_START_FORKSERVER, out);
}

/* Refused for want of processes or descriptors: ended children have some. */
static int make_process(const struct start *start, struct mpr_born *out)
{
    int err = try_process(start, out);
    if (err == MPROC_EAGAIN || err == MPROC_EMFILE || err == MPROC_ENFILE) {
        mpr_children_enter();
        bool again = mpr_children_collect_all(false);
        mpr_children_leave();
        if (again) {
            err = try_process(start, out);
        }
    }
    return err;
}

/* Returns with the children locked. */
static int start_process(const struct start *start)
{
    struct mpr_born born;
    int err = make_process(start, &born);
    mpr_children_enter();
    if (err == 0) {
        mpr_children_runs(start->record, &born);
        mpr_errand_go(born.channel);
    }
    return err;
}

static int perform(const struct start *start)
{
    struct mpr_child_record *record = start->record;
    int err = start->how == MPROC_START_THREAD
                  ? mpr_thread_start(&start->role, record)
                  : start_process(start);
    struct mproc_process *p = record->handle;
    if (err == 0 && p != NULL) {
        mpr_process_runs(p, record->pid);
    } else if (p != NULL) {
        mpr_process_not_started(p);
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
    struct start start;
    int err = mpr_process_enter(p);
    if (err < 0) {
        return err;
    }
    mpr_children_collect_all(true);
    err = begin_start(p);
    start.record = p->record;
    start.how = p->start;
    learn_role(p, &start.role);
    mpr_children_leave();
    return err < 0 ? err : perform(&start);
}
