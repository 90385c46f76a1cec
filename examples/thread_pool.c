/* SPDX-License-Identifier: MIT */
/* The interface of a pool, on five threads of this process: a hundred tasks. */
#include <mproc.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { WORKERS = 5, TASKS = 100 };

struct answer {
    int square;
    pid_t process;
    pthread_t thread;
};

static mproc_barrier *all_there; /* or fewer threads might do it all */

static int square(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    int n = *(const int *)arg;
    if (n < WORKERS && mproc_barrier_wait(all_there, NULL, MPROC_FOREVER) < 0) {
        return 1;
    }
    struct answer answer = {n * n, getpid(), pthread_self()};
    return mproc_reply_set(reply, &answer, sizeof answer);
}

/* Returns how many threads there were among the answers. */
static int count_threads(const struct answer *answers)
{
    int count = 0;
    for (int i = 0; i < TASKS; i++) {
        int first = 0;
        while (!pthread_equal(answers[first].thread, answers[i].thread)) {
            first++;
        }
        count += first == i;
    }
    return count;
}

int main(void)
{
    mproc_pool *pool;
    int numbers[TASKS], right = 0, here = 0;
    struct answer answers[TASKS];
    for (int i = 0; i < TASKS; i++) {
        numbers[i] = i;
    }
    mproc_pool_opts opts = {.workers = WORKERS, .start = MPROC_START_THREAD};
    mproc_batch batch = {.fn = square,
                         .in = numbers,
                         .in_size = sizeof numbers[0],
                         .count = TASKS,
                         .out = answers,
                         .out_size = sizeof answers[0],
                         .chunk = 1};
    if (mproc_barrier_new(&all_there, WORKERS, NULL) < 0 ||
        mproc_pool_new(&pool, &opts) < 0 ||
        mproc_pool_map(pool, &batch, MPROC_FOREVER) < 0) {
        return 1;
    }
    for (int i = 0; i < TASKS; i++) {
        right += answers[i].square == i * i;
        here += answers[i].process == getpid();
    }
    int threads = count_threads(answers);
    printf("%d results, %d of them right, all of this process: %s\n", TASKS,
           right, here == TASKS ? "yes" : "no");
    printf("%d threads\n", threads);
    mproc_pool_close(pool);
    mproc_pool_join(pool, MPROC_FOREVER);
    mproc_pool_free(pool);
    mproc_barrier_free(all_there);
    return right != TASKS || here != TASKS || threads != WORKERS;
}
