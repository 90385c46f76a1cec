/* SPDX-License-Identifier: MIT */
/*
 * A daemonic consumer says of each task when it is done; join waits for the
 * last of them, and the consumer ends with its parent.
 */
#include <mproc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

enum { TASKS = 4, TASK_MS = 10 };

static mproc_queue *queue;
static atomic_int *done; /* in shared memory */

static int consumer(void *unused)
{
    int task;
    (void)unused;
    const struct timespec working = {.tv_nsec = TASK_MS * 1000000L};
    while (mproc_queue_get(queue, &task, sizeof task, NULL, MPROC_FOREVER) ==
           0) {
        nanosleep(&working, NULL);
        printf("task %d is done\n", task);
        atomic_fetch_add(done, 1);
        mproc_queue_task_done(queue);
    }
    return 1;
}

int main(void)
{
    mproc_process *p;
    const mproc_process_opts daemon = {.daemon = 1};

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    done = mproc_calloc(1, sizeof *done);
    if (done == NULL ||
        mproc_queue_new(&queue, &(mproc_queue_opts){.joinable = 1}) < 0 ||
        mproc_process_new(&p, consumer, NULL, &daemon) < 0 ||
        mproc_process_start(p) < 0) {
        return 1;
    }
    for (int task = 1; task <= TASKS; task++) {
        if (mproc_queue_put(queue, &task, sizeof task, MPROC_FOREVER) < 0) {
            return 1;
        }
    }
    printf("all are put\n");
    if (mproc_queue_join(queue, MPROC_FOREVER) < 0) {
        return 1;
    }
    int finished = atomic_load(done);
    printf("joined: %d of %d are done\n", finished, TASKS);
    int err = mproc_queue_task_done(queue);
    printf("once too often: %s\n", mproc_error_name(err));
    return finished == TASKS && err == MPROC_EINVAL ? 0 : 1;
}
