/* SPDX-License-Identifier: MIT */
/*
 * A daemonic process ends with its parent, whether that returns or is killed,
 * and may not have children. Its end is seen here by the end of a pipe that it
 * and its parent hold.
 */
#include <mproc.h>
#include <signal.h>
#include <stdio.h>

enum { RETURNS, IS_KILLED };

static mproc_connection *far_end;
static mproc_event *never;
static mproc_event *spoken;

static int wait_for_ever(void *arg)
{
    (void)arg;
    return mproc_event_wait(never, MPROC_FOREVER);
}

static int serve(void *arg)
{
    mproc_process *child;
    int err = mproc_process_new(&child, wait_for_ever, arg, NULL);
    if (err == 0) {
        err = mproc_process_start(child);
    }
    printf("daemon: a child of mine: %s\n", mproc_error_name(err));
    mproc_process_free(child);
    mproc_event_set(spoken);
    return wait_for_ever(arg);
}

/* Starts the daemon; ends by returning, or waits to be killed. */
static int parent(void *how)
{
    mproc_process_opts opts = {.name = "daemon", .daemon = 1};
    mproc_process *daemon;
    if (mproc_process_new(&daemon, serve, NULL, &opts) < 0 ||
        mproc_process_start(daemon) < 0) {
        return 1;
    }
    int err = mproc_process_join(daemon, mproc_in_s(0.0001));
    printf("parent: join for 0.0001 s: %s\n", mproc_error_name(err));
    if (mproc_event_wait(spoken, MPROC_FOREVER) < 0 ||
        mproc_connection_send(far_end, "", 0, MPROC_FOREVER) < 0) {
        return 1;
    }
    return *(int *)how == RETURNS ? 0 : wait_for_ever(NULL);
}

/* Returns 0 when the daemon ended with its parent, as `code` says. */
static int watch(int how, int code)
{
    mproc_process *p;
    mproc_connection *near_end;
    int ended = 0;
    mproc_event_clear(spoken);
    if (mproc_pipe_new(&near_end, &far_end, NULL) < 0 ||
        mproc_process_new(&p, parent, &how, NULL) < 0 ||
        mproc_process_start(p) < 0 || mproc_connection_close(far_end) < 0 ||
        mproc_connection_recv(near_end, NULL, 0, NULL, MPROC_FOREVER) < 0) {
        return 1;
    }
    if (how == IS_KILLED) {
        mproc_process_kill(p);
    }
    if (mproc_connection_recv(near_end, NULL, 0, NULL, MPROC_FOREVER) !=
            MPROC_EOF ||
        mproc_process_join(p, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(p, &ended) < 0) {
        return 1;
    }
    printf("the parent %s, the daemon is gone\n",
           how == RETURNS ? "returned" : "was killed");
    mproc_process_free(p);
    mproc_connection_close(near_end);
    return ended != code;
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    return mproc_event_new(&never) < 0 || mproc_event_new(&spoken) < 0 ||
           watch(RETURNS, 0) || watch(IS_KILLED, -SIGKILL);
}
