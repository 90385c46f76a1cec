/* SPDX-License-Identifier: MIT */
/* A process that would never end is terminated. */
#include <mproc.h>
#include <signal.h>
#include <stdio.h>

static int wait_for_ever(void *event)
{
    return mproc_event_wait(event, MPROC_FOREVER);
}

static const char *alive(mproc_process *p)
{
    return mproc_process_is_alive(p) ? "alive" : "not alive";
}

int main(void)
{
    mproc_event *never;
    mproc_process *p;
    int code = 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_event_new(&never) < 0 ||
        mproc_process_new(&p, wait_for_ever, never, NULL) < 0 ||
        mproc_process_start(p) < 0) {
        return 1;
    }
    printf("started: %s\n", alive(p));
    if (mproc_process_terminate(p) < 0) {
        return 1;
    }
    printf("terminated: %s\n", alive(p)); /* perhaps still: it takes a while */
    if (mproc_process_join(p, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(p, &code) < 0) {
        return 1;
    }
    printf("joined: %s, exit code %d\n", alive(p), code);
    mproc_process_free(p);
    mproc_event_free(never);
    return code != -SIGTERM;
}
