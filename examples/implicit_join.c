/* SPDX-License-Identifier: MIT */
/* main returns without a join; the program ends when its child has. */
#include <mproc.h>
#include <stdio.h>
#include <time.h>

enum { WORK_MS = 30 };

static int work(void *arg)
{
    const struct timespec working = {.tv_nsec = WORK_MS * 1000000L};
    (void)arg;
    nanosleep(&working, NULL);
    printf("the child is done\n");
    return 0;
}

int main(void)
{
    mproc_process *p;
    if (mproc_process_new(&p, work, NULL, NULL) < 0 ||
        mproc_process_start(p) < 0) {
        return 1;
    }
    mproc_process_free(p); /* it runs on */
    printf("main returns\n");
    fflush(stdout);
    return 0;
}
