/* SPDX-License-Identifier: MIT */
/* Four processes at once: a barrier shows that all run before any ends. */
#include <mproc.h>
#include <stdio.h>

enum { PROCESSES = 4 };

static mproc_barrier *all_run;

static int run(void *number)
{
    printf("process %d starts\n", *(int *)number);
    if (mproc_barrier_wait(all_run, NULL, MPROC_FOREVER) < 0) {
        return 1;
    }
    printf("process %d ends\n", *(int *)number);
    return 0;
}

int main(void)
{
    mproc_process *p[PROCESSES];
    int bad = 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_barrier_new(&all_run, PROCESSES, NULL) < 0) {
        return 1;
    }
    printf("the parent starts %d processes\n", PROCESSES);
    for (int i = 0; i < PROCESSES; i++) {
        mproc_process_opts opts = {.daemon = 1, .arg_size = sizeof i};
        if (mproc_process_new(&p[i], run, &i, &opts) < 0 ||
            mproc_process_start(p[i]) < 0) {
            return 1; /* those that wait are daemonic */
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int code = 1;
        bad |= mproc_process_join(p[i], MPROC_FOREVER) < 0 ||
               mproc_process_exitcode(p[i], &code) < 0 || code != 0;
        mproc_process_free(p[i]);
    }
    printf("the parent has joined them\n");
    mproc_barrier_free(all_run);
    return bad;
}
