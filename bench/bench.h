/* SPDX-License-Identifier: MIT */
/* Shared by the files of the benchmark. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { WORKERS = 2, PEERS_MAX = 4, NOT_THERE = -1 };

struct row;

/*
 * Do n operations: nanoseconds for one of them, or whatever else the row tells.
 * Below zero: the peer is not there.
 */
typedef double measure_fn(const struct row *row, long n);

/* Something else that does the same work. */
struct peer {
    const char *name;
    const char *needs;   /* what has to be installed for it, if anything */
    measure_fn *measure; /* NULL: it is not built */
    double target; /* how many times as good libmproc is to be; 0: told only */
    long n;        /* operations in a round; 0: as many as libmproc does */
    double limit;  /* no peer but this number */
};

struct row {
    const char *name;
    long n; /* operations in a round */
    measure_fn *measure;
    struct peer peers[PEERS_MAX]; /* up to the first without a name */
    /* Messages: bytes of one, limit of the queue, pairs of processes. */
    size_t size;
    size_t maxsize;
    int pairs;
    int many; /* in a call; 0: one, by the calls for one */
    /* Processes: MPROC_START_…, and `size` bytes that their maker touched. */
    int start;
    /* The pool: its arrays are in the shared heap; items that travel
     * together. */
    int shared;
    size_t chunk;
};

extern const struct row rows[];
extern const int rows_count;

/* What was measured of a row, sorted when it is printed. */
enum { ROUNDS_MAX = 7 };

typedef double series[ROUNDS_MAX];

struct times {
    bool wanted;
    bool missing[PEERS_MAX];
    series ours, peer[PEERS_MAX], ratio[PEERS_MAX];
};

/* table.c: the rows that are wanted. */
void bench_print_table(const struct times *times, int rounds);
void bench_print_json(const struct times *times, int rounds);

/* messages.c */

/* Send or receive n messages of the row's size, in a child of its own. */
typedef void side_fn(void *channel, bool sends, const struct row *row, long n);

/* Nanoseconds for one of n messages, of which each pair of sides has its part.
 */
double bench_flow(const struct row *row, side_fn *side, void *channel, long n);

measure_fn bench_queue, bench_one_by_one, bench_one_pair, bench_loan,
    bench_copy, bench_pipe, bench_memcpy;

/* locks.c */
measure_fn bench_lock, bench_robust_mutex, bench_plain_mutex,
    bench_contended_lock, bench_contended_mutex;

/* starts.c */
measure_fn bench_start, bench_fork;

/* pools.c */
measure_fn bench_tasks, bench_results, bench_apply, bench_apply_asleep,
    bench_map, bench_map_calls, bench_pending, bench_pending_results;

/* What every task does: one more, and the compiler does not see it. */
int bench_add_one(int x);

/* The sum of what bench_add_one made of 0 to n - 1. */
long long bench_sum(long n);

/*
 * `--pending n`, `--pending-results n`: the bytes of each of n tasks that wait,
 * in a process of its own.
 */
void bench_print_pending(long n, bool with_results);

/* prefork.c */
measure_fn bench_prefork, bench_prefork_call, bench_prefork_asleep;

/* openmp.c; NULL where the compiler has no OpenMP */
__attribute__((weak)) measure_fn bench_omp_tasks, bench_omp_outstanding,
    bench_omp_dynamic, bench_omp_static, bench_omp_calls;

/* boost.cc; NULL where it is not installed */
__attribute__((weak)) measure_fn bench_boost;

/* python.c */
measure_fn bench_py_queue, bench_py_map_by_one, bench_py_map,
    bench_py_map_calls, bench_py_async, bench_py_apply, bench_py_pending;

/* measure.c */

/*
 * The number that `run` prints on standard output, in a child, before it
 * returns; or that the program prints which it executes. Exit status NOT_FOUND
 * means that there is no such program: NOT_THERE.
 */
enum { NOT_FOUND = 127 }; /* as shells say it */
typedef void child_fn(const void *arg);
double bench_in_child(child_fn *run, const void *arg);

/*
 * How long one call takes, the median of n of them, with pauses between them in
 * which everybody goes to sleep.
 */
typedef void call_fn(void *user, int i);
double bench_asleep(call_fn *call, void *user, long n);

/* Then the median is in the middle, the extremes are at the ends. */
void bench_sort(double *values, long n);

static inline void must(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench: failed: %s\n", what);
        _exit(1);
    }
}

static inline double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Wait for this very child: others may be a pool's. */
static inline void wait_for(pid_t pid)
{
    int status = -1;
    must(waitpid(pid, &status, 0) == pid && status == 0, "a child");
}

#ifdef __cplusplus
}
#endif

#endif
