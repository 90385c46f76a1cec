/* SPDX-License-Identifier: MIT */
/*
 * A peer of the pool: the usual prefork pool on one pipe for requests and one
 * for replies. A peer's code is normally its own project's; this one is written
 * here because libc has none, and it does nothing about deaths. It has at most
 * WINDOW tasks outstanding, so that no pipe ever is full.
 */
#include "bench.h"

enum { WINDOW = 4096, PIPE_BYTES = 65536 };

struct message { /* there and back */
    int task;
    int x;
};

_Static_assert(WINDOW * sizeof(struct message) <= PIPE_BYTES, "none is full");

struct prefork {
    int requests[2], replies[2];
    pid_t pids[WORKERS];
};

static void serve(const struct prefork *p)
{
    struct message m;
    close(p->requests[1]);
    while (read(p->requests[0], &m, sizeof m) == sizeof m) {
        m.x = bench_add_one(m.x);
        must(write(p->replies[1], &m, sizeof m) == sizeof m, "write");
    }
    _exit(0);
}

/* Keep the pipes filled, and take whatever replies there are at once. */
static long long converse(const struct prefork *p, long n)
{
    static struct message got[512];
    long long total = 0;
    for (long sent = 0, received = 0; received < n;) {
        for (; sent < n && sent - received < WINDOW; sent++) {
            struct message m = {.task = (int)sent, .x = (int)sent};
            must(write(p->requests[1], &m, sizeof m) == sizeof m, "write");
        }
        ssize_t bytes = read(p->replies[0], got, sizeof got);
        must(bytes > 0 && bytes % (ssize_t)sizeof *got == 0, "read");
        for (long i = 0; i < bytes / (ssize_t)sizeof *got; i++) {
            total += got[i].x;
            received++;
        }
    }
    return total;
}

/* The workers are there and have worked when this returns. */
static void begin(struct prefork *p)
{
    must(pipe(p->requests) == 0 && pipe(p->replies) == 0, "pipe");
    for (int i = 0; i < WORKERS; i++) {
        p->pids[i] = fork();
        must(p->pids[i] >= 0, "fork");
        if (p->pids[i] == 0) {
            serve(p);
        }
    }
    must(converse(p, WINDOW) == bench_sum(WINDOW), "the replies");
}

static void end(struct prefork *p)
{
    close(p->requests[1]);
    for (int i = 0; i < WORKERS; i++) {
        wait_for(p->pids[i]);
    }
    close(p->requests[0]);
    close(p->replies[0]);
    close(p->replies[1]);
}

double bench_prefork(const struct row *row, long n)
{
    struct prefork p;
    (void)row;
    begin(&p);
    double since = now_ns();
    long long total = converse(&p, n);
    double ns = (now_ns() - since) / (double)n;
    end(&p);
    must(total == bench_sum(n), "the sum of the replies");
    return ns;
}

static void call(void *user, int i)
{
    struct prefork *p = user;
    struct message m = {.task = i, .x = i};
    must(write(p->requests[1], &m, sizeof m) == sizeof m, "write");
    must(read(p->replies[0], &m, sizeof m) == sizeof m, "read");
    must(m.x == i + 1, "a reply");
}

double bench_prefork_call(const struct row *row, long n)
{
    struct prefork p;
    (void)row;
    begin(&p);
    double since = now_ns();
    for (int i = 0; i < n; i++) {
        call(&p, i);
    }
    double ns = (now_ns() - since) / (double)n;
    end(&p);
    return ns;
}

double bench_prefork_asleep(const struct row *row, long n)
{
    struct prefork p;
    (void)row;
    begin(&p);
    double ns = bench_asleep(call, &p, n);
    end(&p);
    return ns;
}
