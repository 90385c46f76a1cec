/* SPDX-License-Identifier: MIT */
/* A value of each thread's own, next to one that all threads share. */
#include <mproc.h>
#include <stdatomic.h>
#include <stdio.h>

enum { THREADS = 4, STEPS = 1000 };

static _Thread_local int mine;
static _Atomic int ours;

static int count(void *number)
{
    mine = *(int *)number * STEPS;
    for (int i = 0; i < STEPS; i++) {
        mine++;
        ours++;
    }
    printf("thread %d: mine went from %d to %d\n", *(int *)number,
           *(int *)number * STEPS, mine);
    return mine != (*(int *)number + 1) * STEPS;
}

int main(void)
{
    mproc_process *p[THREADS];
    int bad = 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    mine = -1;
    for (int i = 0; i < THREADS; i++) {
        int number = i + 1;
        mproc_process_opts opts = {.start = MPROC_START_THREAD,
                                   .arg_size = sizeof number};
        if (mproc_process_new(&p[i], count, &number, &opts) < 0 ||
            mproc_process_start(p[i]) < 0) {
            return 1;
        }
    }
    for (int i = 0; i < THREADS; i++) {
        int code = 1;
        bad |= mproc_process_join(p[i], MPROC_FOREVER) < 0 ||
               mproc_process_exitcode(p[i], &code) < 0 || code != 0;
        mproc_process_free(p[i]);
    }
    printf("main: mine is %d, ours is %d\n", mine, ours);
    return bad || mine != -1 || ours != THREADS * STEPS;
}
