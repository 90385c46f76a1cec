/* SPDX-License-Identifier: MIT */
#include <mproc.h>
#include <stdio.h>

static int child(void *queue)
{
    return MPROC_PUT(queue, int, 6 * 7);
}

int main(void)
{
    mproc_queue *q;
    mproc_process *p;
    int n;
    if (mproc_queue_new(&q, NULL) < 0 ||
        mproc_process_new(&p, child, q, NULL) < 0 ||
        mproc_process_start(p) < 0 || MPROC_GET(q, int, &n) < 0) {
        return 1;
    }
    printf("%s sent %d\n", mproc_process_name(p), n);
    mproc_process_free(p);
}
