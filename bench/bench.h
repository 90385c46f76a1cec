/* SPDX-License-Identifier: MIT */
/* Shared by the files of the benchmark. */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* libmproc beside a peer that does the same work. */
struct row {
    const char *name;
    const char *peer;
    long n; /* operations in a round */
    /* Do n operations: nanoseconds for one of them. */
    double (*ours_ns)(const struct row *row, long n);
    double (*peer_ns)(const struct row *row, long n);
    /* Messages: bytes of one, limit of the queue, pairs of processes. */
    size_t size;
    size_t maxsize;
    int pairs;
    int many;   /* in a call; 0: one, by the calls for one */
    int robust; /* the mutex */
    /* Processes: MPROC_START_…, and `size` bytes that their maker touched. */
    int start;
};

double bench_queue_ns(const struct row *row, long n);
double bench_one_by_one_ns(const struct row *row, long n);
double bench_loan_ns(const struct row *row, long n);
double bench_copy_ns(const struct row *row, long n);
double bench_pipe_ns(const struct row *row, long n);
double bench_memcpy_ns(const struct row *row, long n);
double bench_contended_lock_ns(const struct row *row, long n);
double bench_contended_mutex_ns(const struct row *row, long n);
double bench_pool_ns(const struct row *row, long n);
double bench_start_ns(const struct row *row, long n);
double bench_fork_ns(const struct row *row, long n);
double bench_prefork_ns(const struct row *row, long n);

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

#endif
