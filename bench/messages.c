/* SPDX-License-Identifier: MIT */
/*
 * Messages of one size from processes to as many others: one pair has a CPU for
 * each side, more go where the system puts them. The forks count in the time,
 * for both.
 */
#include "bench.h"

#include <mproc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAIRS_MAX = 4 };

/* To the nth CPU that this process may use, if there are that many. */
static void pin(int nth)
{
    cpu_set_t may, one;
    must(sched_getaffinity(0, sizeof may, &may) == 0, "sched_getaffinity");
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &may) && nth-- == 0) {
            CPU_SET(cpu, &one);
            must(sched_setaffinity(0, sizeof one, &one) == 0, "pin");
        }
    }
}

static char *new_buffer(size_t size)
{
    char *buf = malloc(size);
    must(buf != NULL, "malloc");
    memset(buf, 'x', size);
    return buf;
}

static void queue_side(void *q, bool sends, const struct row *row, long n)
{
    char *buf = new_buffer(row->size);
    for (long i = 0; i < n; i++) {
        int err = sends
                      ? mproc_queue_put(q, buf, row->size, MPROC_FOREVER)
                      : mproc_queue_get(q, buf, row->size, NULL, MPROC_FOREVER);
        must(err == 0, "a message");
    }
}

/* Up to `many` in a call. */
static void many_side(void *q, bool sends, const struct row *row, long n)
{
    size_t most = (size_t)row->many;
    char *buf = new_buffer(row->size * most);
    for (long left = n; left > 0;) {
        size_t count = (size_t)left < most ? (size_t)left : most;
        int done =
            sends
                ? mproc_queue_put_many(q, buf, row->size, count, MPROC_FOREVER)
                : mproc_queue_get_many(q, buf, row->size, count, MPROC_FOREVER);
        must(done > 0, "messages");
        left -= done;
    }
}

static void pipe_side(void *user, bool sends, const struct row *row, long n)
{
    const int *fds = user;
    char *buf = new_buffer(row->size);
    for (long i = 0; i < n; i++) {
        ssize_t done = sends ? write(fds[1], buf, row->size)
                             : read(fds[0], buf, row->size);
        must(done == (ssize_t)row->size, "a message");
    }
}

double bench_flow(const struct row *row, side_fn *side, void *channel, long n)
{
    pid_t pids[2 * PAIRS_MAX];
    double begin = now_ns();
    for (int i = 0; i < 2 * row->pairs; i++) {
        pids[i] = fork();
        must(pids[i] >= 0, "fork");
        if (pids[i] == 0) {
            if (row->pairs == 1) {
                pin(i);
            }
            side(channel, i % 2 == 0, row, n / row->pairs);
            _exit(0);
        }
    }
    for (int i = 0; i < 2 * row->pairs; i++) {
        wait_for(pids[i]);
    }
    return (now_ns() - begin) / (double)(n / row->pairs * row->pairs);
}

double bench_queue(const struct row *row, long n)
{
    mproc_queue *q;
    mproc_queue_opts opts = {.maxsize = row->maxsize};
    must(mproc_queue_new(&q, &opts) == 0, "mproc_queue_new");
    double ns = bench_flow(row, row->many > 0 ? many_side : queue_side, q, n);
    mproc_queue_free(q);
    return ns;
}

double bench_one_by_one(const struct row *row, long n)
{
    struct row one = *row;
    one.many = 0;
    return bench_queue(&one, n);
}

double bench_one_pair(const struct row *row, long n)
{
    struct row one = *row;
    one.pairs = 1;
    return bench_queue(&one, n);
}

/* There and back in one process: what it costs beside the writing of it. */
double bench_loan(const struct row *row, long n)
{
    mproc_queue *q;
    mproc_message m;
    must(mproc_queue_new(&q, NULL) == 0, "mproc_queue_new");
    double begin = now_ns();
    for (long i = 0; i < n; i++) {
        must(mproc_queue_loan(q, &m, row->size, MPROC_NOWAIT) == 0, "loan");
        must(mproc_queue_send(q, &m) == 0, "send");
        must(mproc_queue_take(q, &m, MPROC_NOWAIT) == 0, "take");
        mproc_message_release(&m);
    }
    double ns = (now_ns() - begin) / (double)n;
    mproc_queue_free(q);
    return ns;
}

double bench_copy(const struct row *row, long n)
{
    mproc_queue *q;
    char *buf = new_buffer(row->size);
    must(mproc_queue_new(&q, NULL) == 0, "mproc_queue_new");
    double begin = now_ns();
    for (long i = 0; i < n; i++) {
        must(mproc_queue_put(q, buf, row->size, MPROC_NOWAIT) == 0, "put");
        must(mproc_queue_get(q, buf, row->size, NULL, MPROC_NOWAIT) == 0,
             "get");
    }
    double ns = (now_ns() - begin) / (double)n;
    mproc_queue_free(q);
    free(buf);
    return ns;
}

double bench_pipe(const struct row *row, long n)
{
    int fds[2];
    must(pipe(fds) == 0, "pipe");
    double ns = bench_flow(row, pipe_side, fds, n);
    close(fds[0]);
    close(fds[1]);
    return ns;
}

double bench_memcpy(const struct row *row, long n)
{
    char *from = malloc(row->size), *to = malloc(row->size);
    must(from && to, "malloc");
    memset(from, 'x', row->size);
    memset(to, 'y', row->size);
    double begin = now_ns();
    for (long i = 0; i < n; i++) {
        memcpy(to, from, row->size);
        __asm__ volatile("" : : "r"(to), "r"(from) : "memory");
    }
    double ns = (now_ns() - begin) / (double)n;
    free(from);
    free(to);
    return ns;
}
