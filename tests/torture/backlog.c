/* SPDX-License-Identifier: MIT */
/*
 * The memory of a backlog: many small messages wait in a queue and are drained.
 * While they wait they take not much more than their bytes, afterwards nothing;
 * of the pages a bounded part is kept. The times that it prints are those of
 * this process, of nothing but its own work.
 *
 * usage: backlog [messages [fifo | lifo | priority]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mproc.h>

#ifdef __SANITIZE_THREAD__
enum { SIZE = 64, DEFAULT = 10000, PAIRS = 10000 };
#else
enum { SIZE = 64, DEFAULT = 300000, PAIRS = 200000 };
#endif

static const size_t kept_most = 72u << 20; /* pages, once all is freed */

static mproc_queue *q;
static char message[SIZE];

static void must(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "backlog: %s\n", what);
        exit(1);
    }
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static mproc_heap_info heap_now(void)
{
    mproc_heap_info info;
    must(mproc_heap_stats(&info) == 0, "no stats");
    return info;
}

static void put(void)
{
    must(mproc_queue_put(q, message, SIZE, MPROC_NOWAIT) == 0, "put");
}

static void get(void)
{
    must(mproc_queue_get(q, message, SIZE, NULL, MPROC_NOWAIT) == 0, "get");
}

static double pair_ns(void)
{
    double begin = cpu_ns();
    for (int i = 0; i < PAIRS; i++) {
        put();
        get();
    }
    return (cpu_ns() - begin) / PAIRS;
}

/* What a put and a get take when so many wait: alike at each depth. */
static void compare_depths(long most)
{
    long have = 0;
    for (long depth = 1; depth <= most; depth *= 10) {
        for (; have < depth; have++) {
            put();
        }
        double least = pair_ns();
        for (int i = 0; i < 4; i++) {
            double ns = pair_ns();
            least = ns < least ? ns : least;
        }
        printf("a put and a get at %ld: %.1f ns\n", depth, least);
    }
    for (; have > 0; have--) {
        get();
    }
}

static int read_order(const char *name)
{
    return strcmp(name, "fifo") == 0       ? MPROC_FIFO
           : strcmp(name, "lifo") == 0     ? MPROC_LIFO
           : strcmp(name, "priority") == 0 ? MPROC_PRIORITY
                                           : -1;
}

int main(int argc, char **argv)
{
    long n = argc > 1 ? atol(argv[1]) : DEFAULT;
    mproc_queue_opts opts = {.order = read_order(argc > 2 ? argv[2] : "fifo")};
    must(n > 0 && opts.order >= 0, "not so many, or no such order");
    must(mproc_queue_new(&q, &opts) == 0, "no queue");
    mproc_heap_info before = heap_now(), now;
    double payload = (double)n * SIZE, begin = cpu_ns();
    for (long i = 0; i < n; i++) {
        put();
    }
    double fill_ns = (cpu_ns() - begin) / (double)n;
    now = heap_now();
    double use = (double)(now.in_use - before.in_use) / payload;
    double resident = (double)(now.resident - before.resident) / payload;
    printf("%ld messages: %.3f x their bytes, %.3f x in pages\n", n, use,
           resident);
    begin = cpu_ns();
    for (long i = 0; i < n; i++) {
        get();
    }
    double drain_ns = (cpu_ns() - begin) / (double)n;
    now = heap_now();
    printf("filled at %.1f ns each, drained at %.1f; then %zu bytes in use, "
           "%zu in pages\n",
           fill_ns, drain_ns, now.in_use - before.in_use, now.resident);
    double limit = opts.order == MPROC_FIFO ? 1.6 : 2.0;
    must(use <= limit && resident <= limit, "it takes too much");
    must(now.in_use <= before.in_use + (256u << 10), "it is not given back");
    must(now.resident <= before.resident + kept_most, "pages are kept");
    compare_depths(n);
    mproc_queue_free(q);
    must(heap_now().in_use <= before.in_use, "the queue leaves something");
    return 0;
}
