/* SPDX-License-Identifier: MIT */
/*
 * A first benchmark: each row measures libmproc beside what one would use
 * without it, both in every round and in turn first, so that a noisy moment of
 * the machine meets both. All times are nanoseconds for one operation, by the
 * clock on the wall. The ratio is the peer's time by libmproc's, so above 1
 * where libmproc is faster: the median of what the rounds say.
 *
 * usage: bench_quick [--json] [--smoke]
 *
 *   --json   the same for machines
 *   --smoke  a thousandth of the work: shows that it runs, measures nothing
 */
#include "bench.h"

#include <mproc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ROUNDS = 7, SMOKE = 1000, SMOKE_MIN = 4 };

/* Locks that nobody else wants. */

static double lock_ns(const struct row *row, long n)
{
    mproc_lock *lock;
    (void)row;
    must(mproc_lock_new(&lock) == 0, "mproc_lock_new");
    double begin = now_ns();
    for (long i = 0; i < n; i++) {
        must(mproc_lock_acquire(lock, MPROC_FOREVER) == 0, "acquire");
        must(mproc_lock_release(lock) == 0, "release");
    }
    double ns = (now_ns() - begin) / (double)n;
    mproc_lock_free(lock);
    return ns;
}

static double mutex_ns(const struct row *row, long n)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t *mutex = mmap(NULL, sizeof *mutex, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(mutex != MAP_FAILED, "mmap");
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (row->robust) {
        pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    }
    must(pthread_mutex_init(mutex, &attr) == 0, "pthread_mutex_init");
    double begin = now_ns();
    for (long i = 0; i < n; i++) {
        must(pthread_mutex_lock(mutex) == 0, "lock");
        must(pthread_mutex_unlock(mutex) == 0, "unlock");
    }
    double ns = (now_ns() - begin) / (double)n;
    pthread_mutex_destroy(mutex);
    munmap(mutex, sizeof *mutex);
    return ns;
}

/* clang-format off */
static const struct row rows[] = {
    {.name = "64 B, 1 to 1, no limit", .peer = "pipe", .n = 500000,
     .ours_ns = bench_queue_ns, .peer_ns = bench_pipe_ns,
     .size = 64, .pairs = 1},
    {.name = "64 B, 1 to 1, maxsize 1000", .peer = "pipe", .n = 500000,
     .ours_ns = bench_queue_ns, .peer_ns = bench_pipe_ns,
     .size = 64, .pairs = 1, .maxsize = 1000},
    {.name = "64 B, 4 to 4, maxsize 1000", .peer = "pipe", .n = 500000,
     .ours_ns = bench_queue_ns, .peer_ns = bench_pipe_ns,
     .size = 64, .pairs = 4, .maxsize = 1000},
    {.name = "64 B, 64 in a call", .peer = "one by one", .n = 2000000,
     .ours_ns = bench_queue_ns, .peer_ns = bench_one_by_one_ns,
     .size = 64, .pairs = 1, .many = 64},
    {.name = "loan to release, 64 B", .peer = "put, get", .n = 500000,
     .ours_ns = bench_loan_ns, .peer_ns = bench_copy_ns, .size = 64},
    {.name = "loan to release, 16 MiB", .peer = "put, get", .n = 100,
     .ours_ns = bench_loan_ns, .peer_ns = bench_copy_ns, .size = 16 << 20},
    {.name = "lock and unlock", .peer = "robust mutex", .n = 5000000,
     .ours_ns = lock_ns, .peer_ns = mutex_ns,
     .robust = 1},
    {.name = "lock and unlock", .peer = "plain mutex", .n = 5000000,
     .ours_ns = lock_ns, .peer_ns = mutex_ns},
    {.name = "lock and unlock, 2 want it", .peer = "plain mutex", .n = 4000000,
     .ours_ns = bench_contended_lock_ns, .peer_ns = bench_contended_mutex_ns},
    {.name = "start and join a process", .peer = "fork, waitpid", .n = 1000,
     .ours_ns = bench_start_ns, .peer_ns = bench_fork_ns},
    {.name = "by forkserver, small", .peer = "fork, waitpid", .n = 500,
     .ours_ns = bench_start_ns, .peer_ns = bench_fork_ns,
     .start = MPROC_START_FORKSERVER},
    {.name = "by forkserver, 1 GiB", .peer = "fork, waitpid", .n = 40,
     .ours_ns = bench_start_ns, .peer_ns = bench_fork_ns,
     .size = 1 << 30, .start = MPROC_START_FORKSERVER},
    {.name = "by spawn, 1 GiB", .peer = "fork, waitpid", .n = 40,
     .ours_ns = bench_start_ns, .peer_ns = bench_fork_ns,
     .size = 1 << 30, .start = MPROC_START_SPAWN},
    {.name = "pool task, 2 workers", .peer = "prefork on pipes", .n = 200000,
     .ours_ns = bench_pool_ns, .peer_ns = bench_prefork_ns},
    {.name = "1 MiB message, 1 to 1", .peer = "memcpy of 1 MiB", .n = 1000,
     .ours_ns = bench_queue_ns, .peer_ns = bench_memcpy_ns,
     .size = 1 << 20, .pairs = 1, .maxsize = 4},
};
/* clang-format on */

enum { ROWS = sizeof rows / sizeof *rows };

static struct times {
    double ours[ROUNDS], peer[ROUNDS], ratio[ROUNDS];
} times[ROWS];

static void play(const struct row *row, struct times *t, int round, bool smoke)
{
    long n = smoke ? row->n / SMOKE : row->n;
    n = n < SMOKE_MIN ? SMOKE_MIN : n;
    if (round % 2 == 0) {
        t->ours[round] = row->ours_ns(row, n);
        t->peer[round] = row->peer_ns(row, n);
    } else {
        t->peer[round] = row->peer_ns(row, n);
        t->ours[round] = row->ours_ns(row, n);
    }
    t->ratio[round] = t->peer[round] / t->ours[round];
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* From here on the median is in the middle, the extremes at the ends. */
static void sort(struct times *t)
{
    qsort(t->ours, ROUNDS, sizeof *t->ours, compare);
    qsort(t->peer, ROUNDS, sizeof *t->peer, compare);
    qsort(t->ratio, ROUNDS, sizeof *t->ratio, compare);
}

static void print_cell(const double ns[ROUNDS])
{
    char text[80];
    int digits = ns[ROUNDS / 2] < 100 ? 1 : 0;
    snprintf(text, sizeof text, "%.*f (%.*f to %.*f)", digits, ns[ROUNDS / 2],
             digits, ns[0], digits, ns[ROUNDS - 1]);
    printf(" %-26s |", text);
}

static void print_table(void)
{
    printf("| %-26s | %-26s | %-16s | %-26s | ratio |\n", "ns for one",
           "libmproc", "beside", "its time");
    printf("|---|---|---|---|---|\n");
    for (int i = 0; i < ROWS; i++) {
        printf("| %-26s |", rows[i].name);
        print_cell(times[i].ours);
        printf(" %-16s |", rows[i].peer);
        print_cell(times[i].peer);
        printf(" %5.2f |\n", times[i].ratio[ROUNDS / 2]);
    }
}

static void print_side(const char *name, const double ns[ROUNDS])
{
    printf("\"%s\": {\"median\": %.1f, \"min\": %.1f, \"max\": %.1f}, ", name,
           ns[ROUNDS / 2], ns[0], ns[ROUNDS - 1]);
}

static void print_json(void)
{
    printf("{\"rounds\": %d, \"rows\": [\n", ROUNDS);
    for (int i = 0; i < ROWS; i++) {
        printf("  {\"row\": \"%s\", \"peer\": \"%s\", ", rows[i].name,
               rows[i].peer);
        print_side("libmproc_ns", times[i].ours);
        print_side("peer_ns", times[i].peer);
        printf("\"ratio\": %.3f}%s\n", times[i].ratio[ROUNDS / 2],
               i + 1 < ROWS ? "," : "");
    }
    printf("]}\n");
}

int main(int argc, char **argv)
{
    bool json = false, smoke = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (strcmp(argv[i], "--smoke") == 0) {
            smoke = true;
        } else {
            fprintf(stderr, "usage: bench_quick [--json] [--smoke]\n");
            return 2;
        }
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < ROWS; i++) {
            play(&rows[i], &times[i], round, smoke);
        }
    }
    for (int i = 0; i < ROWS; i++) {
        sort(&times[i]);
    }
    (json ? print_json : print_table)();
    return 0;
}
