/* SPDX-License-Identifier: MIT */
/*
 * Two workers add one to numbers, and the parent sums up what they reply. Many
 * tasks are outstanding: with libmproc as many as there are, with the peer as
 * many as its pipes hold. Starting and ending the workers does not count.
 *
 * The peer is the usual prefork pool on one pipe for requests and one for
 * replies. A peer's code is normally its own project's; this one is written
 * here because libc has none, and it does nothing about deaths.
 */
#include "bench.h"

#include <mproc.h>

enum { WORKERS = 2, WINDOW = 4096 };

struct sum {
    mproc_event *complete;
    long long total;
    long missing;
};

static int add_one(const void *arg, size_t size, mproc_reply *reply)
{
    int x = *(const int *)arg + 1;
    (void)size;
    return mproc_reply_set(reply, &x, sizeof x);
}

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

static void must_add_up(long long total, long n)
{
    must(total == (long long)n * (n + 1) / 2, "the sum of the replies");
}

double bench_pool_ns(const struct row *row, long n)
{
    mproc_pool *pool;
    struct sum sum = {.missing = n};
    (void)row;
    must(mproc_event_new(&sum.complete) == 0, "mproc_event_new");
    mproc_pool_opts opts = {.workers = WORKERS};
    must(mproc_pool_new(&pool, &opts) == 0, "mproc_pool_new");
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
    must_add_up(sum.total, n);
    return ns;
}

struct message { /* of the peer, there and back */
    int task;
    int x;
};

static void serve(const int requests[2], const int replies[2])
{
    struct message m;
    close(requests[1]);
    while (read(requests[0], &m, sizeof m) == sizeof m) {
        m.x++;
        must(write(replies[1], &m, sizeof m) == sizeof m, "write");
    }
    _exit(0);
}

/* Keep the pipes filled, and take whatever replies there are at once. */
static long long converse(int requests, int replies, long n)
{
    static struct message got[512];
    long long total = 0;
    for (long sent = 0, received = 0; received < n;) {
        for (; sent < n && sent - received < WINDOW; sent++) {
            struct message m = {.task = (int)sent, .x = (int)sent};
            must(write(requests, &m, sizeof m) == sizeof m, "write");
        }
        ssize_t bytes = read(replies, got, sizeof got);
        must(bytes > 0 && bytes % (ssize_t)sizeof *got == 0, "read");
        for (long i = 0; i < bytes / (ssize_t)sizeof *got; i++) {
            total += got[i].x;
            received++;
        }
    }
    return total;
}

double bench_prefork_ns(const struct row *row, long n)
{
    int requests[2], replies[2];
    pid_t pids[WORKERS];
    (void)row;
    must(pipe(requests) == 0 && pipe(replies) == 0, "pipe");
    for (int i = 0; i < WORKERS; i++) {
        pids[i] = fork();
        must(pids[i] >= 0, "fork");
        if (pids[i] == 0) {
            serve(requests, replies);
        }
    }
    double begin = now_ns();
    long long total = converse(requests[1], replies[0], n);
    double ns = (now_ns() - begin) / (double)n;
    close(requests[1]);
    for (int i = 0; i < WORKERS; i++) {
        wait_for(pids[i]);
    }
    close(requests[0]);
    close(replies[0]);
    close(replies[1]);
    must_add_up(total, n);
    return ns;
}
