/* SPDX-License-Identifier: MIT */
/*
 * A peer of the pool: OpenMP's threads, as many as the pool has workers, the
 * maker of the tasks being one of them. Each measurement is in a child, for
 * they stay, and spin, once they are there. They are when the clock starts.
 *
 * gcc's OpenMP runs a task at once, in the thread that makes it, while some
 * hundred tasks wait; where the other thread does not get a CPU in time that is
 * nearly all, and then the figure is that of a loop. So there is another one,
 * for tasks that are handed over as the pool's are: two threads beside their
 * maker, which makes no more while LIMIT tasks wait.
 */
#include "bench.h"

#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { THREADS = WORKERS + 1, LIMIT = 128, LINE = 64 };

struct work {
    const struct row *row;
    long n;
};

static void start_threads(int count)
{
#pragma omp parallel num_threads(count)
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
    start_threads(WORKERS);
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

static struct {
    _Alignas(LINE) atomic_long count;
} done[THREADS]; /* each counted by its thread */

static long waiting(long made)
{
    for (int i = 0; i < THREADS; i++) {
        made -= atomic_load_explicit(&done[i].count, memory_order_relaxed);
    }
    return made;
}

static void add_one_there(int *x)
{
    atomic_long *count = &done[omp_get_thread_num()].count;
    *x = bench_add_one(*x);
    atomic_store_explicit(count,
                          atomic_load_explicit(count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static void handed(const void *arg)
{
    const struct work *work = arg;
    long n = work->n, made = 0;
    int maker = 0;
    int *x = ints(n);
    start_threads(THREADS);
    double begin = now_ns();
#pragma omp parallel num_threads(THREADS)
#pragma omp single
    for (maker = omp_get_thread_num(); made < n; made++) {
        while (waiting(made) >= LIMIT) {
            sched_yield();
        }
#pragma omp task firstprivate(made) shared(x)
        add_one_there(&x[made]);
    }
    must_add_up(x, n);
    double ns = (now_ns() - begin) / (double)n;
    must(atomic_load(&done[maker].count) <= LIMIT, "tasks handed over");
    printf("%f\n", ns);
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
    start_threads(WORKERS);
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

double bench_omp_handed(const struct row *row, long n)
{
    return bench_in_child(handed, &(struct work){row, n});
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
