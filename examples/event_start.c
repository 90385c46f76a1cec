/* SPDX-License-Identifier: MIT */
/* Four runners wait for one event; once it is set all of them go. */
#include <mproc.h>
#include <stdio.h>

enum { RUNNERS = 4 };

static mproc_event *start;
static mproc_semaphore *ready;

static int runner(void *number)
{
    printf("runner %d is ready\n", *(int *)number);
    if (mproc_semaphore_release(ready) < 0 ||
        mproc_event_wait(start, MPROC_FOREVER) < 0) {
        return 1;
    }
    printf("runner %d runs\n", *(int *)number);
    return 0;
}

int main(void)
{
    mproc_process *p[RUNNERS];
    int bad = 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_event_new(&start) < 0 ||
        mproc_semaphore_new(&ready, 0, NULL) < 0) {
        return 1;
    }
    for (int i = 0; i < RUNNERS; i++) {
        mproc_process_opts opts = {.daemon = 1, .arg_size = sizeof i};
        if (mproc_process_new(&p[i], runner, &i, &opts) < 0 ||
            mproc_process_start(p[i]) < 0) {
            return 1;
        }
    }
    for (int i = 0; i < RUNNERS; i++) {
        bad |= mproc_semaphore_acquire(ready, MPROC_FOREVER) < 0;
    }
    printf("go!\n");
    mproc_event_set(start);
    for (int i = 0; i < RUNNERS; i++) {
        int code = 1;
        bad |= mproc_process_join(p[i], MPROC_FOREVER) < 0 ||
               mproc_process_exitcode(p[i], &code) < 0 || code != 0;
        mproc_process_free(p[i]);
    }
    mproc_semaphore_free(ready);
    mproc_event_free(start);
    return bad;
}
