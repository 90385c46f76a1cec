/* SPDX-License-Identifier: MIT */
/*
 * What every worker needs is made once in each, by an initializer, and not once
 * a task. And workers that are replaced after three tasks, as where tasks leak:
 * each fresh one runs the initializer again.
 */
#include <mproc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { WORKERS = 2, TASKS = 12, TASKS_PER_CHILD = 3 };

/* A worker's own: costly to make, say. */
static pid_t dictionary_of;

static int load_dictionary(void *arg)
{
    atomic_int *loaded = arg; /* in shared memory */
    dictionary_of = getpid();
    atomic_fetch_add(loaded, 1);
    return 0;
}

/* Replies with the worker's pid, if it has the dictionary. */
static int look_up(const void *arg, size_t size, mproc_reply *reply)
{
    pid_t pid = getpid();
    (void)arg;
    (void)size;
    if (dictionary_of != pid) {
        return mproc_reply_fail(reply, 1, "no dictionary");
    }
    return mproc_reply_set(reply, &pid, sizeof pid);
}

static int different(const pid_t *pids, int count)
{
    int found = 0;
    for (int i = 0; i < count; i++) {
        int before = 0;
        while (before < i && pids[before] != pids[i]) {
            before++;
        }
        found += before == i;
    }
    return found;
}

/* True: the initializer ran once for each worker that did a task. */
static bool show(size_t per_child, atomic_int *loaded)
{
    char in[TASKS] = {0};
    pid_t by[TASKS] = {0};
    mproc_pool *pool;
    const mproc_pool_opts opts = {.workers = WORKERS,
                                  .max_tasks_per_child = per_child,
                                  .initializer = load_dictionary,
                                  .initializer_arg = loaded};
    const mproc_batch batch = {.fn = look_up,
                               .in = in,
                               .in_size = 1,
                               .count = TASKS,
                               .out = by,
                               .out_size = sizeof by[0]};
    atomic_store(loaded, 0);
    if (mproc_pool_new(&pool, &opts) < 0) {
        return false;
    }
    int err = mproc_pool_map(pool, &batch, MPROC_FOREVER);
    mproc_pool_free(pool);
    int pids = different(by, TASKS), times = atomic_load(loaded);
    printf("%d tasks, by %d workers; the initializer ran %d times\n", TASKS,
           pids, times);
    return err == 0 && times >= pids &&
           (per_child == 0 ? times == WORKERS : pids >= TASKS / (int)per_child);
}

int main(void)
{
    atomic_int *loaded = mproc_calloc(1, sizeof *loaded);
    bool good =
        loaded != NULL && show(0, loaded) && show(TASKS_PER_CHILD, loaded);
    mproc_free(loaded);
    return good ? 0 : 1;
}
