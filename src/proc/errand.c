/* SPDX-License-Identifier: MIT */
#include "proc/errand.h"

#include <stdlib.h>

#include "chan/pipe.h"
#include "proc/child.h"
#include "proc/server.h"
#include "proc/who.h"

struct hello {
    int32_t err;
    int32_t pid;
    uint64_t namespace; /* of the pid */
};

/* ---- in the parent ---------------------------------------------------- */

int mpr_errand_fill(struct mpr_errand *errand, const struct mpr_role *role,
                    size_t arg_size)
{
    *errand = (struct mpr_errand){.role = *role, .arg_size = arg_size};
    errand->parent.pid = mpr_os_pid();
    errand->parent.main_thread = mpr_os_pid() == mpr_os_tid();
    errand->parent.since_boot_ns = mpr_os_boot_now();
    pthread_sigmask(SIG_SETMASK, NULL, &errand->mask);
    bool found = mpr_os_place_of((mpr_os_fn *)role->fn, &errand->fn);
    return found ? 0 : MPROC_ENOENT;
}

int mpr_errand_give(const struct mpr_errand *errand, int channel, int death,
                    pid_t *pid)
{
    struct hello hello = {0};
    int err = mpr_os_channel_send(channel, death, errand, sizeof *errand);
    if (err == 0) {
        err = mpr_os_channel_send(channel, death, errand->role.arg,
                                  errand->arg_size);
    }
    /* What kept it may have been told before all was sent. */
    if (err == 0 || err == MPROC_EOF) {
        err = mpr_os_channel_receive(channel, death, &hello, sizeof hello);
    }
    if (err < 0) {
        return err == MPROC_EOF ? MPROC_EWORKERLOST : err;
    }
    *pid = hello.pid;
    bool known = hello.namespace == mpr_os_pid_namespace();
    return hello.err < 0 || known ? hello.err : MPROC_ENOTSUP;
}

void mpr_errand_go(int channel)
{
    const char go = 1;
    if (channel >= 0) {
        mpr_os_channel_try_send(channel, &go, sizeof go);
        mpr_os_close(channel);
    }
}

void mpr_errand_withdraw(int channel)
{
    mpr_os_close(channel);
}

/* ---- in the child ----------------------------------------------------- */

void mpr_errand_refuse(int channel, int err)
{
    const struct hello hello = {.err = err};
    mpr_os_channel_send(channel, -1, &hello, sizeof hello);
    mpr_os_close(channel);
}

void mpr_errand_hello(int channel)
{
    const struct hello hello = {.pid = mpr_os_pid(),
                                .namespace = mpr_os_pid_namespace()};
    mpr_os_channel_send(channel, -1, &hello, sizeof hello);
}

_Noreturn static void refuse(int channel, int err)
{
    mpr_errand_refuse(channel, err);
    mpr_os_end(1);
}

/* Who sent it has gone: nobody wants it any more. */
static void receive(int channel, void *data, size_t size)
{
    if (mpr_os_channel_receive(channel, -1, data, size) < 0) {
        mpr_os_end(1);
    }
}

static void receive_argument(int channel, struct mpr_errand *errand)
{
    errand->role.arg = NULL;
    if (errand->arg_size > 0) {
        errand->role.arg = malloc(errand->arg_size);
        if (errand->role.arg == NULL) {
            refuse(channel, MPROC_ENOMEM);
        }
        receive(channel, errand->role.arg, errand->arg_size);
    }
}

static void find_function(int channel, struct mpr_errand *errand)
{
    errand->role.fn = (mproc_main_fn *)mpr_os_fn_at(&errand->fn);
    if (errand->role.fn == NULL) {
        refuse(channel, MPROC_ENOENT);
    }
}

/* From here on it is the process that its maker's handle shows. */
static void take_role(int channel, const struct mpr_errand *errand)
{
    struct mpr_thread *self;
    mpr_who_become(&errand->role);
    mpr_who_set_parent(errand->parent.pid);
    int err = mpr_self(&self);
    if (err < 0) {
        refuse(channel, err);
    }
    mpr_pipe_hold_in(errand->role.arg, errand->arg_size);
    mpr_process_begins(errand->role.handle, errand->role.tag, mpr_self_id());
    mpr_errand_hello(channel);
}

static void await_go(int channel)
{
    char go;
    receive(channel, &go, sizeof go);
    mpr_os_close(channel);
}

void mpr_errand_obey(int channel, int parent_pidfd)
{
    struct mpr_errand errand;
    int err = mpr_family_joined();
    mpr_os_signals_block();
    if (err < 0) {
        refuse(channel, err);
    }
    receive(channel, &errand, sizeof errand);
    errand.parent.pidfd = parent_pidfd;
    if (errand.server) {
        mpr_server_run(channel, &errand.parent);
    }
    receive_argument(channel, &errand);
    find_function(channel, &errand);
    if (mpr_os_on_exit(mpr_child_leave) < 0) {
        refuse(channel, MPROC_ENOMEM);
    }
    if (errand.role.daemon) {
        mpr_os_end_with_parent(&errand.parent);
    } else {
        mpr_os_close(parent_pidfd);
    }
    take_role(channel, &errand);
    await_go(channel);
    const struct mpr_child ready = {.mask = errand.mask};
    mpr_child_ready(&ready);
    mpr_child_run(errand.role.fn, errand.role.arg);
}
