/* SPDX-License-Identifier: MIT */
/*
 * A writer puts three letters; a reader reads for ever, and is terminated once
 * the writer has ended and all it wrote has been read.
 */
#include <mproc.h>
#include <stdio.h>
#include <time.h>

enum { WRITING_MS = 10 };

static mproc_queue *queue;

static int writer(void *unused)
{
    (void)unused;
    const struct timespec writing = {.tv_nsec = WRITING_MS * 1000000L};
    for (const char *letter = "ABC"; *letter != '\0'; letter++) {
        printf("put %c\n", *letter);
        if (mproc_queue_put(queue, letter, 1, MPROC_FOREVER) < 0) {
            return 1;
        }
        nanosleep(&writing, NULL);
    }
    return 0;
}

static int reader(void *unused)
{
    char letter;
    (void)unused;
    while (mproc_queue_get(queue, &letter, 1, NULL, MPROC_FOREVER) == 0) {
        printf("got %c\n", letter);
        mproc_queue_task_done(queue);
    }
    return 1;
}

int main(void)
{
    mproc_process *w, *r;
    int code = 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_queue_new(&queue, &(mproc_queue_opts){.joinable = 1}) < 0 ||
        mproc_process_new(&w, writer, NULL, NULL) < 0 ||
        mproc_process_new(&r, reader, NULL, NULL) < 0 ||
        mproc_process_start(w) < 0 || mproc_process_start(r) < 0 ||
        mproc_process_join(w, MPROC_FOREVER) < 0 ||
        mproc_queue_join(queue, MPROC_FOREVER) < 0 ||
        mproc_process_terminate(r) < 0 ||
        mproc_process_join(r, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(r, &code) < 0) {
        return 1;
    }
    printf("the reader was ended by signal %d\n", -code);
    mproc_process_free(w);
    mproc_process_free(r);
    mproc_queue_free(queue);
    return code < 0 ? 0 : 1;
}
