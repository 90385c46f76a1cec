/* SPDX-License-Identifier: MIT */
/*
 * The same ten tasks twice, on three workers: with apply, which waits for each,
 * and with apply_async, which hands all of them out before it asks for the
 * first result. A counter in shared memory says how many ran at once.
 */
#include <mproc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

enum { WORKERS = 3, TASKS = 10, TASK_MS = 20 };

struct counter {
    atomic_int now, most;
};

struct job {
    int n;
    struct counter *counter; /* in shared memory: the same for all */
};

/* Takes a while, and replies with the square of n. */
static int work(const void *arg, size_t size, mproc_reply *reply)
{
    const struct job *job = arg;
    const struct timespec while_ = {.tv_nsec = TASK_MS * 1000000L};
    int now = atomic_fetch_add(&job->counter->now, 1) + 1;
    int most = atomic_load(&job->counter->most);
    (void)size;
    while (now > most &&
           !atomic_compare_exchange_weak(&job->counter->most, &most, now)) {
    }
    nanosleep(&while_, NULL);
    atomic_fetch_sub(&job->counter->now, 1);
    int square = job->n * job->n;
    return mproc_reply_set(reply, &square, sizeof square);
}

/* True: the results are right. */
static bool one_after_another(mproc_pool *pool, struct counter *counter)
{
    bool good = true;
    for (int i = 0; i < TASKS; i++) {
        int square = -1;
        struct job job = {i, counter};
        mproc_call call = {.fn = work, MPROC_ARG(job)};
        int err = mproc_pool_apply(pool, &call, &square, sizeof square,
                                   MPROC_FOREVER);
        good &= err == 0 && square == i * i;
        printf("%d ", square);
    }
    return good;
}

static bool all_at_once(mproc_pool *pool, struct counter *counter)
{
    mproc_result *results[TASKS] = {NULL};
    bool good = true;
    for (int i = 0; i < TASKS; i++) {
        struct job job = {i, counter};
        mproc_call call = {.fn = work, MPROC_ARG(job)};
        mproc_pool_apply_async(pool, &call, &results[i], MPROC_FOREVER);
    }
    for (int i = 0; i < TASKS; i++) {
        int square = -1;
        int err = mproc_result_get(results[i], &square, sizeof square, NULL,
                                   MPROC_FOREVER);
        good &= err == 0 && square == i * i;
        printf("%d ", square);
        mproc_result_free(results[i]);
    }
    return good;
}

static double now_ms(void)
{
    return (double)mproc_in_s(0).at_ns / 1e6;
}

typedef bool way_fn(mproc_pool *pool, struct counter *counter);

/* True: right, and never more at once than `most`. */
static bool show(const char *name, way_fn *way, mproc_pool *pool, int most)
{
    struct counter *counter = mproc_calloc(1, sizeof *counter);
    double start = now_ms();
    if (counter == NULL) {
        return false;
    }
    printf("%s: ", name);
    bool good = way(pool, counter);
    int at_once = atomic_load(&counter->most);
    printf("- at most %d at once, %.0f ms\n", at_once, now_ms() - start);
    mproc_free(counter);
    return good && at_once <= most;
}

int main(void)
{
    mproc_pool *pool;
    if (mproc_pool_new(&pool, &(mproc_pool_opts){.workers = WORKERS}) < 0) {
        return 1;
    }
    bool good = show("apply", one_after_another, pool, 1) &
                show("apply_async", all_at_once, pool, WORKERS);
    mproc_pool_free(pool);
    return good ? 0 : 1;
}
