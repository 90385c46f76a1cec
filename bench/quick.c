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
#include <sched.h>
#include <stdatomic.h>
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

/*
 * A lock that two processes want again and again, each for an addition. By the
 * clock from when both are there until both are done.
 */

struct contest {
    pthread_mutex_t mutex;
    mproc_lock *lock; /* NULL: the mutex */
    atomic_int there;
    atomic_long count;
};

static void add_n(struct contest *c, long n)
{
    for (long i = 0; i < n; i++) {
        must((c->lock != NULL ? mproc_lock_acquire(c->lock, MPROC_FOREVER)
                              : pthread_mutex_lock(&c->mutex)) == 0,
             "acquire");
        long count = atomic_load_explicit(&c->count, memory_order_relaxed);
        atomic_store_explicit(&c->count, count + 1, memory_order_relaxed);
        must((c->lock != NULL ? mproc_lock_release(c->lock)
                              : pthread_mutex_unlock(&c->mutex)) == 0,
             "release");
    }
}

static double contest_ns(mproc_lock *lock, long n)
{
    pthread_mutexattr_t attr;
    struct contest *c = mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(c != MAP_FAILED, "mmap");
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    must(pthread_mutex_init(&c->mutex, &attr) == 0, "pthread_mutex_init");
    c->lock = lock;
    pid_t pid = fork();
    must(pid >= 0, "fork");
    add_n(c, 1);
    atomic_fetch_add(&c->there, 1);
    while (atomic_load(&c->there) < 2) {
        sched_yield();
    }
    double begin = now_ns();
    add_n(c, n / 2);
    if (pid == 0) {
        _exit(0);
    }
    wait_for(pid);
    double ns = (now_ns() - begin) / (double)(n / 2 * 2);
    must(atomic_load(&c->count) == n / 2 * 2 + 2, "exclusion");
    munmap(c, sizeof *c);
    return ns;
}

static double contended_lock_ns(const struct row *row, long n)
{
    mproc_lock *lock;
    (void)row;
    must(mproc_lock_new(&lock) == 0, "mproc_lock_new");
    double ns = contest_ns(lock, n);
    mproc_lock_free(lock);
    return ns;
}

static double contended_mutex_ns(const struct row *row, long n)
{
    (void)row;
    return contest_ns(NULL, n);
}

/*
 * Processes that do nothing. The peer forks from a process that uses libmproc,
 * so the library's fork handlers run there too.
 */

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static double process_ns(const struct row *row, long n)
{
    (void)row;
    double begin = now_ns();
    for (long i = 0; i < n; i++) {
        mproc_process *p;
        must(mproc_process_new(&p, nothing, NULL, NULL) == 0, "process");
        must(mproc_process_start(p) == 0, "mproc_process_start");
        must(mproc_process_join(p, MPROC_FOREVER) == 0, "join");
        mproc_process_free(p);
    }
    return (now_ns() - begin) / (double)n;
}

static double fork_ns(const struct row *row, long n)
{
    (void)row;
    double begin = now_ns();
    for (long i = 0; i < n; i++) {
        pid_t pid = fork();
        must(pid >= 0, "fork");
        if (pid == 0) {
            _exit(0);
        }
        wait_for(pid);
    }
    return (now_ns() - begin) / (double)n;
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
    {.name = "lock and unlock", .peer = "robust mutex", .n = 5000000,
     .ours_ns = lock_ns, .peer_ns = mutex_ns,
     .robust = 1},
    {.name = "lock and unlock", .peer = "plain mutex", .n = 5000000,
     .ours_ns = lock_ns, .peer_ns = mutex_ns},
    {.name = "lock and unlock, 2 want it", .peer = "plain mutex", .n = 4000000,
     .ours_ns = contended_lock_ns, .peer_ns = contended_mutex_ns},
    {.name = "start and join a process", .peer = "fork, waitpid", .n = 1000,
     .ours_ns = process_ns, .peer_ns = fork_ns},
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
