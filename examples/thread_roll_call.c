/* SPDX-License-Identifier: MIT */
/* Threads take names from a queue: each name goes to one of them only. */
#include <mproc.h>
#include <stdio.h>

enum { CALLERS = 3 };

static mproc_queue *names;

static int call(void *number)
{
    char name[32];
    size_t size;
    int err;
    while ((err = mproc_queue_get(names, name, sizeof name, &size,
                                  MPROC_FOREVER)) >= 0) {
        printf("caller %d: %s\n", *(int *)number, name);
    }
    return err != MPROC_ESHUTDOWN;
}

int main(void)
{
    const char *const pupils[] = {"Ada",   "Barbara", "Edsger", "Frances",
                                  "Grace", "Ken",     "Leslie", "Tony"};
    const size_t count = sizeof pupils / sizeof pupils[0];
    mproc_process *p[CALLERS];
    int bad = 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_queue_new(&names, NULL) < 0) {
        return 1;
    }
    for (int i = 0; i < CALLERS; i++) {
        mproc_process_opts opts = {.start = MPROC_START_THREAD,
                                   .arg_size = sizeof i};
        if (mproc_process_new(&p[i], call, &i, &opts) < 0 ||
            mproc_process_start(p[i]) < 0) {
            return 1;
        }
    }
    for (size_t i = 0; i < count; i++) {
        bad |= mproc_queue_putf(names, MPROC_FOREVER, "%s", pupils[i]) < 0;
    }
    mproc_queue_shutdown(names, false); /* once it is empty they end */
    for (int i = 0; i < CALLERS; i++) {
        int code = 1;
        bad |= mproc_process_join(p[i], MPROC_FOREVER) < 0 ||
               mproc_process_exitcode(p[i], &code) < 0 || code != 0;
        mproc_process_free(p[i]);
    }
    mproc_queue_free(names);
    return bad;
}
