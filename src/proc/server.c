/* SPDX-License-Identifier: MIT */
/* The parent's side of the forkserver. */
#include "proc/server.h"

#include <mproc/process.h>

#include "base/deadline.h"
#include "proc/children.h"
#include "proc/private.h"
#include "proc/spawn.h"
#include "proc/who.h"

/* A server that does not tell of an end for that long is taken for stopped. */
enum { PATIENCE_S = 2, TRIES = 3 };

static struct {
    pid_t owner; /* of whom it is the server; 0: there is none */
    struct mpr_born born;
    uint64_t first; /* the first serial that it got */
} server;

static uint64_t serials; /* given so far, to all servers of this process */

static bool have_server(void)
{
    return server.owner == mpr_os_pid();
}

/* ---- what it tells ---------------------------------------------------- */

static void tell(const struct mpr_server_word *word)
{
    struct mpr_child_record *c = mpr_children_first();
    while (c != NULL && c->serial != word->serial) {
        c = c->next;
    }
    if (c != NULL) { /* else of one whose start has failed */
        c->told = true;
        c->code = word->code;
    }
}

/* False: it has told all that it ever will. */
static bool hear(void)
{
    struct mpr_server_word word;
    int err;
    while ((err = mpr_os_channel_try_receive(server.born.channel, &word,
                                             sizeof word)) == 0) {
        tell(&word);
    }
    return err == MPROC_EAGAIN;
}

static void let_go(void)
{
    mpr_os_close(server.born.channel);
    mpr_os_close(server.born.pidfd);
    server.owner = 0;
}

/*
 * A process that dies closes its descriptors some time before it can be reaped.
 * One that can be reaped may have left its end of the channel to a process that
 * the program's constructors have forked.
 */
static bool lives(void)
{
    int code;
    if (!have_server()) {
        return false;
    }
    bool runs = mpr_os_child_reap(server.born.pid, server.born.pidfd, &code) ==
                MPROC_EAGAIN;
    bool tells = hear();
    if (!runs) {
        let_go();
    } else if (!tells) {
        mpr_server_end();
    }
    return runs && tells;
}

static bool has_ended(const struct mpr_child_record *child)
{
    return mpr_os_has_ended(child->pid, child->pidfd, child->since_boot_ns);
}

static void await_word(void)
{
    const int fds[] = {server.born.channel, server.born.pidfd};
    mproc_deadline patience = mpr_deadline_after(mpr_os_now(), PATIENCE_S, 1e9);
    mpr_os_await_any(fds, 2, false, patience);
}

int mpr_server_reap(struct mpr_child_record *child, int *code)
{
    bool ended = false;
    bool served = lives() && child->serial >= server.first;
    if (!child->told && (ended = has_ended(child)) && served) {
        mproc_deadline patience =
            mpr_deadline_after(mpr_os_now(), PATIENCE_S, 1e9);
        do {
            await_word();
            served = lives() && child->serial >= server.first;
        } while (!child->told && served && mpr_os_now() < patience.at_ns);
    }
    if (child->told) {
        *code = child->code;
        return 0;
    }
    return ended && !served ? MPROC_ECHILD : MPROC_EAGAIN;
}

/* ---- having one ------------------------------------------------------- */

static int start_server(struct mpr_born *born)
{
    struct mpr_role nobody = {.fn = NULL};
    struct mpr_errand errand;
    mpr_errand_fill(&errand, &nobody, 0);
    errand.server = 1;
    return mpr_spawn(&errand, born);
}

/* Two threads may start one each: the second stays unused. */
int mpr_server_ensure(void)
{
    struct mpr_born born;
    mpr_children_enter();
    bool have = lives();
    mpr_children_leave();
    int err = have ? 0 : start_server(&born);
    if (have || err < 0) {
        return err;
    }
    mpr_children_enter();
    have = lives();
    if (!have) {
        server.owner = mpr_os_pid();
        server.born = born;
        server.first = serials + 1;
    }
    mpr_children_leave();
    if (have) {
        mpr_spawn_undo(&born);
    }
    return 0;
}

int mproc_forkserver_start(void)
{
    struct mpr_thread *self;
    int err = mpr_self(&self);
    if (err < 0) {
        return err;
    }
    return mpr_who_is_daemonic() ? MPROC_EPERM : mpr_server_ensure();
}

void mpr_server_end(void)
{
    if (have_server()) {
        struct mpr_born born = server.born;
        server.owner = 0;
        mpr_spawn_undo(&born);
    }
}

void mpr_server_forget(void)
{
    if (server.owner != 0 && !have_server()) {
        let_go();
    }
}

/* ---- asking it -------------------------------------------------------- */

/*
 * With the children locked, so that no fork beside this one takes the child's
 * end of the channel along.
 */
static int ask(struct mpr_born *out)
{
    int ends[2];
    if (!lives()) {
        return MPROC_EOF;
    }
    int err = mpr_os_channel(ends);
    if (err < 0) {
        return err;
    }
    out->serial = ++serials;
    out->channel = ends[0];
    err = mpr_os_channel_hand(server.born.channel, ends[1], out->serial);
    mpr_os_close(ends[1]);
    if (err < 0) {
        mpr_os_close(ends[0]);
    }
    return err;
}

static bool died_since(uint64_t serial)
{
    mpr_children_enter();
    bool died = !lives() || serial < server.first;
    mpr_children_leave();
    return died;
}

/* MPROC_EOF: the server died, and nothing was begun. */
static int fork_once(const struct mpr_errand *errand, struct mpr_born *out)
{
    int err = mpr_server_ensure();
    if (err < 0) {
        return err;
    }
    mpr_children_enter();
    err = ask(out);
    mpr_children_leave();
    if (err < 0) {
        return err;
    }
    err = mpr_errand_give(errand, out->channel, -1, &out->pid);
    if (err < 0) {
        mpr_errand_withdraw(out->channel);
        bool died = err == MPROC_EWORKERLOST && died_since(out->serial);
        return died ? MPROC_EOF : err;
    }
    int pidfd = mpr_os_pidfd(out->pid);
    out->pidfd = pidfd >= 0 ? pidfd : -1;
    return 0;
}

int mpr_server_fork(const struct mpr_errand *errand, struct mpr_born *out)
{
    int err = MPROC_EOF;
    mpr_os_stdio_flush();
    for (int i = 0; i < TRIES && err == MPROC_EOF; i++) {
        err = fork_once(errand, out);
    }
    return err == MPROC_EOF ? MPROC_EWORKERLOST : err;
}
