/* SPDX-License-Identifier: MIT */
/*
 * A peer of the pool: OpenMP's threads, as many as the pool has workers, the
 * maker of the tasks being one of them. Each measurement is in a child, for
 * they stay, and spin, once they are there. They are when the clock starts.
 *
 * gcc's OpenMP lets 64 tasks a thread wait. What is made beyond them is not a
 * task: it runs at once, where it is made, and does not wait for anybody. So
 * there are two figures: one where nearly all run so, and one where all tasks
 * wait, as the pool's do, since as many as may are made before a taskwait.
 */
#include "bench.h"

#include <stdlib.h>

enum { OUTSTANDING = 64 * WORKERS };

struct work {
    const struct row *row;
    long n;
};

static void start_threads(void)
{
#pragma omp parallel num_threads(WORKERS)
    {
    }
}

static int *ints(long n)
{
    int *array = malloc((size_t)n * sizeof *array);
    must(array != NULL, "malloc");
    for (long i = 0; i < n; i++) {
        array[i] = (int)i;
    }
    return array;
}

static void must_add_up(const int *array, long n)
{
    long long total = 0;
    for (long i = 0; i < n; i++) {
        total += array[i];
    }
    must(total == bench_sum(n), "the sum of the replies");
}

static void tasks(const void *arg)
{
    const struct work *work = arg;
    long n = work->n;
    int *out = ints(n);
    start_threads();
    double begin = now_ns();
#pragma omp parallel num_threads(WORKERS)
#pragma omp single
    for (int i = 0; i < n; i++) {
#pragma omp task firstprivate(i) shared(out)
        out[i] = bench_add_one(i);
    }
    must_add_up(out, n);
    printf("%f\n", (now_ns() - begin) / (double)n);
}

static void outstanding(const void *arg)
{
    const struct work *work = arg;
    long n = work->n;
    int *out = ints(n);
    start_threads();
    double begin = now_ns();
#pragma omp parallel num_threads(WORKERS)
#pragma omp single
    for (int i = 0; i < n; i++) {
#pragma omp task firstprivate(i) shared(out)
        out[i] = bench_add_one(i);
        if (i % OUTSTANDING == OUTSTANDING - 1) {
#pragma omp taskwait
        }
    }
    must_add_up(out, n);
    printf("%f\n", (now_ns() - begin) / (double)n);
}

static void map_dynamic(const int *in, int *out, long n)
{
#pragma omp parallel for schedule(dynamic) num_threads(WORKERS)
    for (long i = 0; i < n; i++) {
        out[i] = bench_add_one(in[i]);
    }
}

static void map_static(const int *in, int *out, long n)
{
#pragma omp parallel for schedule(static) num_threads(WORKERS)
    for (long i = 0; i < n; i++) {
        out[i] = bench_add_one(in[i]);
    }
}

typedef void map_fn(const int *in, int *out, long n);

/* How long `calls` maps of n items each take. */
static double map_ns(map_fn *map, long n, long calls)
{
    int *in = ints(n), *out = ints(n);
    start_threads();
    double begin = now_ns();
    for (long i = 0; i < calls; i++) {
        map(in, out, n);
    }
    double ns = now_ns() - begin;
    must_add_up(out, n);
    return ns;
}

static void dynamic(const void *arg)
{
    const struct work *work = arg;
    printf("%f\n", map_ns(map_dynamic, work->n, 1) / (double)work->n);
}

static void statically(const void *arg)
{
    const struct work *work = arg;
    printf("%f\n", map_ns(map_static, work->n, 1) / (double)work->n);
}

static void calls(const void *arg)
{
    const struct work *work = arg;
    double ns = map_ns(map_dynamic, work->row->many, work->n);
    printf("%f\n", ns / (double)work->n);
}

double bench_omp_tasks(const struct row *row, long n)
{
    return bench_in_child(tasks, &(struct work){row, n});
}

double bench_omp_outstanding(const struct row *row, long n)
{
    return bench_in_child(outstanding, &(struct work){row, n});
}

double bench_omp_dynamic(const struct row *row, long n)
{
    return bench_in_child(dynamic, &(struct work){row, n});
}

double bench_omp_static(const struct row *row, long n)
{
    return bench_in_child(statically, &(struct work){row, n});
}

double bench_omp_calls(const struct row *row, long n)
{
    return bench_in_child(calls, &(struct work){row, n});
}
