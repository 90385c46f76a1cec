/* SPDX-License-Identifier: MIT */
/*
 * Processes that do nothing, started by a process that has touched much memory.
 * The peer forks from the same process.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <mproc.h>

#include "bench.h"

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

struct memory {
    void *start;
    size_t size;
};

/* In small pages, as an allocator's memory grows; little where n is little. */
static struct memory touch(const struct row *row, long n)
{
    size_t size = n < row->n ? row->size / 1000 : row->size;
    if (size == 0) {
        return (struct memory){NULL, 0};
    }
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED, "memory");
    madvise(memory, size, MADV_NOHUGEPAGE);
    memset(memory, 1, size);
    return (struct memory){memory, size};
}

static void give_back(struct memory memory)
{
    if (memory.size > 0) {
        munmap(memory.start, memory.size);
    }
}

static double each(double begin, long n)
{
    return (now_ns() - begin) / (double)n;
}

double bench_start(const struct row *row, long n)
{
    mproc_process_opts opts = {.start = row->start};
    if (row->start == MPROC_START_FORKSERVER) {
        must(mproc_forkserver_start() == 0, "mproc_forkserver_start");
    }
    struct memory memory = touch(row, n);
    double begin = now_ns();
    for (long i = 0; i < n; i++) {
        mproc_process *p;
        must(mproc_process_new(&p, nothing, NULL, &opts) == 0, "process");
        must(mproc_process_start(p) == 0, "mproc_process_start");
        must(mproc_process_join(p, MPROC_FOREVER) == 0, "join");
        mproc_process_free(p);
    }
    double ns = each(begin, n);
    give_back(memory);
    return ns;
}

double bench_fork(const struct row *row, long n)
{
    struct memory memory = touch(row, n);
    double begin = now_ns();
    for (long i = 0; i < n; i++) {
        pid_t pid = fork();
        must(pid >= 0, "fork");
        if (pid == 0) {
            _exit(0);
        }
        wait_for(pid);
    }
    double ns = each(begin, n);
    give_back(memory);
    return ns;
}
