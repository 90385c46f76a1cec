/* SPDX-License-Identifier: MIT */
/* The server's side of the forkserver. */
#include <signal.h>
#include <stdlib.h>

#include "base/deadline.h"
#include "proc/child.h"
#include "proc/private.h"
#include "proc/server.h"

enum { LOOK_MS = 100 }; /* for a parent's end that no descriptor tells */

/* A child that its parent has not been told the end of. */
struct ward {
    pid_t pid; /* 0: it has ended */
    struct mpr_server_word word;
};

static struct {
    int channel;
    int news;
    struct mpr_os_parent parent;
    struct mpr_os_disposition child_end; /* of its children's SIGCHLD */
    struct ward *wards;
    size_t count, room;
} serving;

/* Perhaps of one that a constructor of the program has made. */
static void bury(pid_t pid, int code)
{
    for (size_t i = 0; i < serving.count; i++) {
        if (serving.wards[i].pid == pid) {
            serving.wards[i].pid = 0;
            serving.wards[i].word.code = code;
        }
    }
}

static void bury_the_dead(void)
{
    pid_t pid;
    int code;
    mpr_os_child_news_read(serving.news);
    while (mpr_os_child_reap_any(&pid, &code) == 0) {
        bury(pid, code);
    }
}

/* What the channel has no room for is told later. */
static bool tell(void)
{
    for (size_t i = 0; i < serving.count;) {
        struct ward *ward = &serving.wards[i];
        if (ward->pid != 0) {
            i++;
            continue;
        }
        if (mpr_os_channel_try_send(serving.channel, &ward->word,
                                    sizeof ward->word) < 0) {
            return false;
        }
        *ward = serving.wards[--serving.count];
    }
    return true;
}

static bool reserve(void)
{
    if (serving.count < serving.room) {
        return true;
    }
    size_t room = serving.room * 2 + 16;
    struct ward *more = realloc(serving.wards, room * sizeof *more);
    if (more == NULL) {
        return false;
    }
    serving.wards = more;
    serving.room = room;
    return true;
}

_Noreturn static void be_ward(int channel)
{
    mpr_os_close(serving.channel);
    mpr_os_close(serving.news);
    mpr_os_signal_put_back(SIGCHLD, &serving.child_end);
    free(serving.wards);
    mpr_errand_obey(channel, serving.parent.pidfd);
}

static int fork_ward(int channel, uint64_t serial)
{
    struct mpr_child child;
    if (!reserve()) {
        return MPROC_ENOMEM;
    }
    int err = mpr_child_fork(MPR_CHILD_OUTLIVES, &child);
    if (err < 0) {
        return err;
    }
    if (child.pid == 0) {
        be_ward(channel);
    }
    mpr_os_close(child.pidfd);
    serving.wards[serving.count++] =
        (struct ward){.pid = child.pid, .word = {.serial = serial}};
    return 0;
}

static void serve(int channel, uint64_t serial)
{
    int err = fork_ward(channel, serial);
    if (err < 0) {
        mpr_errand_refuse(channel, err);
    } else {
        mpr_os_close(channel);
    }
}

/* A descriptor that did not arrive is told to who waits by its end. */
static void serve_all(void)
{
    int channel, err;
    uint64_t serial;
    while ((err = mpr_os_channel_take(serving.channel, &channel, &serial)) ==
           0) {
        if (channel >= 0) {
            serve(channel, serial);
        }
    }
    if (err != MPROC_EAGAIN) {
        mpr_os_end(0);
    }
}

static void await_news(bool all_told)
{
    const int fds[] = {serving.channel, serving.news, serving.parent.pidfd};
    mproc_deadline until = MPROC_FOREVER;
    if (serving.parent.pidfd < 0) {
        until = mpr_deadline_after(mpr_os_now(), LOOK_MS, 1e6);
    }
    mpr_os_await_any(fds, 3, !all_told, until);
}

/* With all signals blocked: they are meant for its parent. */
void mpr_server_run(int channel, const struct mpr_os_parent *parent)
{
    serving.channel = channel;
    serving.parent = *parent;
    mpr_os_signal_keep(SIGCHLD, &serving.child_end);
    serving.news = mpr_os_child_news();
    if (serving.news < 0) {
        mpr_errand_refuse(channel, serving.news);
        mpr_os_end(1);
    }
    mpr_errand_hello(channel);
    while (!mpr_os_parent_gone(&serving.parent)) {
        bury_the_dead();
        bool all_told = tell();
        serve_all();
        await_news(all_told);
    }
    mpr_os_end(0);
}
