/* SPDX-License-Identifier: MIT */
/* Five processes, one after the other; each has a thread that prints. */
#include <mproc.h>
#include <stdio.h>

enum { PROCESSES = 5 };

/* Runs `fn` in a process or a thread, and waits for it. 0: it ended well. */
static int run(mproc_main_fn *fn, int number, int start)
{
    mproc_process_opts opts = {.start = start, .arg_size = sizeof number};
    mproc_process *p;
    int code = 1;
    if (mproc_process_new(&p, fn, &number, &opts) < 0) {
        return 1;
    }
    if (mproc_process_start(p) == 0 &&
        mproc_process_join(p, MPROC_FOREVER) == 0) {
        mproc_process_exitcode(p, &code);
    }
    mproc_process_free(p);
    return code;
}

static int in_thread(void *number)
{
    printf("  thread of process %d\n", *(int *)number);
    return 0;
}

static int in_process(void *number)
{
    printf("process %d begins\n", *(int *)number);
    int bad = run(in_thread, *(int *)number, MPROC_START_THREAD);
    printf("process %d ends\n", *(int *)number);
    return bad;
}

int main(void)
{
    int bad = 0;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    for (int i = 1; i <= PROCESSES; i++) {
        bad |= run(in_process, i, MPROC_START_FORK);
    }
    return bad;
}
