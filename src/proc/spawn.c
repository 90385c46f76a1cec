/* SPDX-License-Identifier: MIT */
#include "proc/spawn.h"

#include <signal.h>

#include "proc/child.h"
#include "proc/children.h"

/* ---- in the parent ---------------------------------------------------- */

/*
 * Without the library's constructor the new process would run the user's main:
 * a program that has loaded the library itself must not be run.
 */
static bool may_start_anew(void)
{
    static _Atomic int known; /* 1: yes, -1: no */
    int may = atomic_load(&known);
    if (may == 0) {
        bool linked = mpr_os_is_linked((mpr_os_fn *)may_start_anew);
        may = linked && mpr_os_may_start_anew() ? 1 : -1;
        atomic_store(&known, may);
    }
    return may > 0;
}

/* Is there a way for another process to be of the family? */
static int look_for_ways(struct mpr_os_seed *seed)
{
    struct mpr_os_place here;
    bool known = mpr_os_place_of((mpr_os_fn *)mpr_spawn, &here);
    if (!known || !may_start_anew() ||
        !mpr_os_region_fd_valid(&mpr_family->region)) {
        return MPROC_ENOTSUP;
    }
    seed->region = mpr_family->region.fd;
    seed->library = here.module;
    return 0;
}

static int open_parent_pidfd(struct mpr_os_seed *seed)
{
    int pidfd = mpr_os_pidfd(mpr_os_pid());
    if (pidfd < 0 && pidfd != MPROC_ENOTSUP) {
        return pidfd;
    }
    seed->parent_pidfd = pidfd >= 0 ? pidfd : -1;
    return 0;
}

/*
 * With the children locked, so that no fork beside this one takes the child's
 * end of the channel along: it is closed when the child has ended.
 */
static int start_anew(struct mpr_os_seed *seed, struct mpr_born *out)
{
    int ends[2];
    int err = mpr_os_channel(ends);
    if (err < 0) {
        return err;
    }
    seed->channel = ends[1];
    err = mpr_os_start_anew(seed, &out->pid);
    mpr_os_close(ends[1]);
    if (err < 0) {
        mpr_os_close(ends[0]);
        return err;
    }
    int pidfd = mpr_os_pidfd(out->pid);
    out->pidfd = pidfd >= 0 ? pidfd : -1;
    out->channel = ends[0];
    return 0;
}

static int start_locked(struct mpr_os_seed *seed, struct mpr_born *out)
{
    int err = open_parent_pidfd(seed);
    if (err < 0) {
        return err;
    }
    mpr_children_enter();
    err = start_anew(seed, out);
    mpr_children_leave();
    mpr_os_close(seed->parent_pidfd);
    return err;
}

void mpr_spawn_undo(const struct mpr_born *born)
{
    int code;
    mpr_os_child_signal(born->pid, born->pidfd, SIGKILL);
    while (mpr_os_child_reap(born->pid, born->pidfd, &code) == MPROC_EAGAIN) {
        mpr_os_child_wait(born->pidfd, MPROC_FOREVER);
    }
    mpr_os_close(born->channel);
    mpr_os_close(born->pidfd);
}

int mpr_spawn(const struct mpr_errand *errand, struct mpr_born *out)
{
    struct mpr_os_seed seed = {0};
    struct mpr_born born = {0};
    pid_t pid;
    int err = look_for_ways(&seed);
    if (err == 0) {
        err = mpr_child_end_at_exit();
    }
    if (err < 0) {
        return err;
    }
    mpr_os_stdio_flush();
    err = start_locked(&seed, &born);
    if (err < 0) {
        return err;
    }
    err = mpr_errand_give(errand, born.channel, born.pidfd, &pid);
    if (err < 0) {
        mpr_spawn_undo(&born);
        return err;
    }
    *out = born;
    return 0;
}

/* ---- in the child ----------------------------------------------------- */

static void live(void)
{
    struct mpr_os_seed seed;
    mpr_os_seed(&seed);
    mpr_errand_obey(seed.channel, seed.parent_pidfd);
}

__attribute__((constructor(101))) static void begin(void)
{
    struct mpr_os_seed seed;
    if (mpr_os_seed(&seed) && !mpr_os_instead_of_main(live)) {
        mpr_errand_refuse(seed.channel, MPROC_ENOTSUP);
        mpr_os_end(1);
    }
}
