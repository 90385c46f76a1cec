/* SPDX-License-Identifier: MIT */
/*
 * A queue that is made after the pool was started is handed to its workers in
 * the argument of a task. (In Python this needs a Manager.)
 */
#include <mproc.h>
#include <stdio.h>

enum { WORKERS = 2, TASKS = 6 };

struct task {
    mproc_queue *results;
    int number;
};

struct result {
    int number, square;
};

static int put_square(const void *arg, size_t size, mproc_reply *reply)
{
    const struct task *task = arg;
    (void)size;
    (void)reply;
    return MPROC_PUT(task->results, struct result, .number = task->number,
                     .square = task->number * task->number);
}

int main(void)
{
    mproc_pool *pool;
    mproc_queue *results;
    struct result r;
    int bad = 0;

    if (mproc_pool_new(&pool, &(mproc_pool_opts){.workers = WORKERS}) < 0 ||
        mproc_queue_new(&results, NULL) < 0) { /* the workers run already */
        return 1;
    }
    for (int i = 1; i <= TASKS; i++) {
        struct task task = {results, i};
        const mproc_call call = {.fn = put_square, MPROC_ARG(task)};
        bad |= mproc_pool_apply_async(pool, &call, NULL, MPROC_FOREVER) < 0;
    }
    for (int i = 0; i < TASKS; i++) {
        bad |= MPROC_GET(results, struct result, &r) < 0;
        bad |= r.square != r.number * r.number;
        printf("the square of %d is %d\n", r.number, r.square);
    }
    bad |= mproc_pool_close(pool) < 0 ||
           mproc_pool_join(pool, MPROC_FOREVER) < 0 ||
           !mproc_queue_empty(results);
    mproc_pool_free(pool);
    mproc_queue_free(results);
    return bad;
}
