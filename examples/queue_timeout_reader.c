/* SPDX-License-Identifier: MIT */
/* A reader that ends by itself when nothing has come for a while. */
#include <mproc.h>
#include <stdio.h>

enum { NUMBERS = 5, PATIENCE_MS = 50 };

static mproc_queue *queue;

static int writer(void *unused)
{
    (void)unused;
    for (int i = 1; i <= NUMBERS; i++) {
        if (mproc_queue_put(queue, &i, sizeof i, MPROC_FOREVER) < 0) {
            return 1;
        }
    }
    return 0;
}

static int reader(void *unused)
{
    int number, err;
    (void)unused;
    while ((err = mproc_queue_get(queue, &number, sizeof number, NULL,
                                  mproc_in_ms(PATIENCE_MS))) == 0) {
        printf("got %d\n", number);
    }
    printf("nothing more: %s\n", mproc_error_name(err));
    return err == MPROC_EEMPTY ? 0 : 1;
}

int main(void)
{
    mproc_process *w, *r;
    int code = 1;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_queue_new(&queue, NULL) < 0 ||
        mproc_process_new(&w, writer, NULL, NULL) < 0 ||
        mproc_process_new(&r, reader, NULL, NULL) < 0 ||
        mproc_process_start(w) < 0 ||
        mproc_process_join(w, MPROC_FOREVER) < 0 || /* nothing is read yet */
        mproc_process_start(r) < 0 ||
        mproc_process_join(r, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(r, &code) < 0) {
        return 1;
    }
    printf("the reader ended with %d\n", code);
    mproc_process_free(w);
    mproc_process_free(r);
    mproc_queue_free(queue);
    return code;
}
