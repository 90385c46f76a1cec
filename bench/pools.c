/* SPDX-License-Identifier: MIT */
/*
 * Two workers add one to numbers, and the maker sums up what they reply.
 * Starting and ending the workers does not count, and they are there when the
 * clock starts, as those of the peers are.
 */
#include "bench.h"

#include <mproc.h>
#include <stdlib.h>
#include <string.h>

int bench_add_one(int x)
{
    return x + 1;
}

long long bench_sum(long n)
{
    return (long long)n * (n + 1) / 2;
}

static int add_one(const void *arg, size_t size, mproc_reply *reply)
{
    int x = bench_add_one(*(const int *)arg);
    (void)size;
    return mproc_reply_set(reply, &x, sizeof x);
}

static int ready(void *arg)
{
    (void)arg;
    return 0;
}

static mproc_pool *new_pool(void)
{
    mproc_pool *pool;
    mproc_pool_opts opts = {.workers = WORKERS, .initializer = ready};
    must(mproc_pool_new(&pool, &opts) == 0, "mproc_pool_new");
    return pool;
}

/* Many tasks are outstanding: as many as there are. */

struct sum {
    mproc_event *complete;
    long long total;
    long missing;
};

static void add_up(const mproc_outcome *outcome, void *user)
{
    struct sum *sum = user;
    must(outcome->size == sizeof(int), "a task");
    sum->total += *(const int *)outcome->data;
    if (--sum->missing == 0) {
        mproc_event_set(sum->complete);
    }
}

static void lost(const mproc_outcome *outcome, void *user)
{
    (void)user;
    must(0, outcome->error);
}

double bench_tasks(const struct row *row, long n)
{
    struct sum sum = {.missing = n};
    (void)row;
    must(mproc_event_new(&sum.complete) == 0, "mproc_event_new");
    mproc_pool *pool = new_pool();
    double begin = now_ns();
    for (int i = 0; i < n; i++) {
        mproc_call call = {.fn = add_one,
                           MPROC_ARG(i),
                           .callback = add_up,
                           .error_callback = lost,
                           .user = &sum};
        must(mproc_pool_apply_async(pool, &call, NULL, MPROC_FOREVER) == 0,
             "mproc_pool_apply_async");
    }
    must(mproc_event_wait(sum.complete, MPROC_FOREVER) == 0, "the tasks");
    double ns = (now_ns() - begin) / (double)n;
    mproc_pool_free(pool);
    mproc_event_free(sum.complete);
    must(sum.total == bench_sum(n), "the sum of the replies");
    return ns;
}

/* With a result of each task, asked in order. */
double bench_results(const struct row *row, long n)
{
    mproc_result **results = malloc((size_t)n * sizeof *results);
    long long total = 0;
    (void)row;
    must(results != NULL, "malloc");
    mproc_pool *pool = new_pool();
    double begin = now_ns();
    for (int i = 0; i < n; i++) {
        mproc_call call = {.fn = add_one, MPROC_ARG(i)};
        must(mproc_pool_apply_async(pool, &call, &results[i], MPROC_FOREVER) ==
                 0,
             "mproc_pool_apply_async");
    }
    for (int i = 0; i < n; i++) {
        int x;
        must(mproc_result_get(results[i], &x, sizeof x, NULL, MPROC_FOREVER) ==
                 0,
             "mproc_result_get");
        mproc_result_free(results[i]);
        total += x;
    }
    double ns = (now_ns() - begin) / (double)n;
    mproc_pool_free(pool);
    free(results);
    must(total == bench_sum(n), "the sum of the replies");
    return ns;
}

/* One at a time. */

static void call_add_one(void *pool, int i)
{
    mproc_call call = {.fn = add_one, MPROC_ARG(i)};
    int x;
    must(mproc_pool_apply(pool, &call, &x, sizeof x, MPROC_FOREVER) == 0,
         "mproc_pool_apply");
    must(x == i + 1, "a reply");
}

double bench_apply(const struct row *row, long n)
{
    mproc_pool *pool = new_pool();
    (void)row;
    double begin = now_ns();
    for (int i = 0; i < n; i++) {
        call_add_one(pool, i);
    }
    double ns = (now_ns() - begin) / (double)n;
    mproc_pool_free(pool);
    return ns;
}

double bench_apply_asleep(const struct row *row, long n)
{
    mproc_pool *pool = new_pool();
    (void)row;
    double ns = bench_asleep(call_add_one, pool, n);
    mproc_pool_free(pool);
    return ns;
}

/* All at a time: arrays that have been touched. */

static int *ints(const struct row *row, long n)
{
    size_t size = (size_t)n * sizeof(int);
    int *array = row->shared ? mproc_alloc(size) : malloc(size);
    must(array != NULL, "memory");
    for (long i = 0; i < n; i++) {
        array[i] = (int)i;
    }
    return array;
}

static void free_ints(const struct row *row, int *array)
{
    (row->shared ? mproc_free : free)(array);
}

/* How long `calls` maps of n items each take. */
static double map_ns(const struct row *row, long n, long calls)
{
    int *in = ints(row, n), *out = ints(row, n);
    mproc_batch batch = {.fn = add_one,
                         .in = in,
                         .in_size = sizeof *in,
                         .count = (size_t)n,
                         .out = out,
                         .out_size = sizeof *out,
                         .chunk = row->chunk};
    long long total = 0;
    mproc_pool *pool = new_pool();
    double begin = now_ns();
    for (long i = 0; i < calls; i++) {
        must(mproc_pool_map(pool, &batch, MPROC_FOREVER) == 0,
             "mproc_pool_map");
    }
    double ns = now_ns() - begin;
    mproc_pool_free(pool);
    for (long i = 0; i < n; i++) {
        total += out[i];
    }
    must(total == bench_sum(n), "the sum of the replies");
    free_ints(row, in);
    free_ints(row, out);
    return ns;
}

double bench_map(const struct row *row, long n)
{
    return map_ns(row, n, 1) / (double)n;
}

double bench_map_calls(const struct row *row, long n)
{
    return map_ns(row, row->many, n) / (double)n;
}

/* What waits. */

static int hold(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_event *go = *(mproc_event *const *)arg;
    (void)size;
    (void)reply;
    return mproc_event_wait(go, MPROC_FOREVER);
}

/* The bytes that this process holds, and others on its behalf. */
static double resident(void)
{
    long pages;
    FILE *statm = fopen("/proc/self/statm", "r");
    must(statm != NULL && fscanf(statm, "%*s %ld", &pages) == 1, "statm");
    fclose(statm);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

/*
 * In a fresh process, whose memory has not been used for anything before. All
 * that waits was written by this process, so it is resident here.
 */
void bench_print_pending(long n, bool with_results)
{
    mproc_event *go;
    mproc_result **results = malloc((size_t)n * sizeof(mproc_result *));
    mproc_pool *pool = new_pool();
    must(results != NULL, "malloc");
    memset(results, 0xff, (size_t)n * sizeof *results); /* so it is touched */
    must(mproc_event_new(&go) == 0, "mproc_event_new");
    mproc_call held = {.fn = hold, MPROC_ARG(go)};
    for (int i = 0; i < WORKERS; i++) {
        must(mproc_pool_apply_async(pool, &held, NULL, MPROC_FOREVER) == 0,
             "mproc_pool_apply_async");
    }
    double before = resident();
    for (int i = 0; i < n; i++) {
        mproc_call call = {.fn = add_one, MPROC_ARG(i)};
        must(mproc_pool_apply_async(pool, &call,
                                    with_results ? &results[i] : NULL,
                                    MPROC_FOREVER) == 0,
             "mproc_pool_apply_async");
    }
    printf("%f\n", (resident() - before) / (double)n);
    mproc_pool_free(pool);
    for (long i = 0; i < n && with_results; i++) {
        mproc_result_free(results[i]);
    }
    free(results);
    mproc_event_free(go);
}

struct pending {
    long n;
    bool with_results;
};

static void run_anew(const void *arg)
{
    const struct pending *pending = arg;
    char count[32];
    snprintf(count, sizeof count, "%ld", pending->n);
    execl("/proc/self/exe", "bench_quick",
          pending->with_results ? "--pending-results" : "--pending", count,
          (char *)NULL);
    must(0, "exec");
}

double bench_pending(const struct row *row, long n)
{
    (void)row;
    return bench_in_child(run_anew, &(struct pending){n, false});
}

double bench_pending_results(const struct row *row, long n)
{
    (void)row;
    return bench_in_child(run_anew, &(struct pending){n, true});
}
