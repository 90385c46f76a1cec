/* SPDX-License-Identifier: MIT */
/*
 * What becomes of the shared heap over a long run: blocks of all sizes come and
 * go, each freed by whoever meets it, and the table tells how much memory the
 * system holds for what is in use.
 *
 * usage: bench_heap [--smoke] [operations]     one million, if not told
 *
 *   asked     bytes that the callers asked for
 *   in use    bytes of the blocks, as the heap rounds them
 *   resident  bytes that the system holds for the family
 *
 * Sizes are drawn so that each power of two from 16 bytes to 64 KiB is as
 * likely as the next, and one block in a thousand is larger, up to 4 MiB.
 */
#include "bench.h"

#include <mproc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PLACES = 20000, PROCESSES = 4, QUARTERS = 4 };

#define MIB 1048576.0

struct block {
    size_t asked;
    unsigned char bytes[];
};

static struct table {
    _Atomic(struct block *) place[PLACES];
    _Atomic size_t asked;
} * table;

static size_t any_size(unsigned *seed)
{
    unsigned bits = 4 + (unsigned)rand_r(seed) % 12;
    bits = rand_r(seed) % 1000 == 0 ? 21 : bits;
    return ((size_t)1 << bits) + (size_t)rand_r(seed) % ((size_t)1 << bits);
}

/* Each page of it is touched, and its end. */
static void fill(struct block *block)
{
    for (size_t at = 0; at < block->asked; at += 4096) {
        block->bytes[at] = 1;
    }
    block->bytes[block->asked - 1] = 1;
}

/* Into a place goes a block if there is none; else what is there goes. */
static void operate(unsigned *seed)
{
    size_t i = (size_t)rand_r(seed) % PLACES;
    struct block *old = atomic_exchange(&table->place[i], NULL);
    if (old != NULL) {
        atomic_fetch_sub(&table->asked, old->asked);
        mproc_free(old);
        return;
    }
    size_t asked = any_size(seed);
    struct block *block = mproc_alloc(sizeof *block + asked);
    must(block != NULL, "mproc_alloc");
    block->asked = asked;
    fill(block);
    atomic_fetch_add(&table->asked, asked);
    old = atomic_exchange(&table->place[i], block);
    if (old != NULL) { /* another was faster */
        atomic_fetch_sub(&table->asked, old->asked);
        mproc_free(old);
    }
}

struct work {
    long operations;
    unsigned seed;
};

static int work(void *arg)
{
    struct work *work = arg;
    for (long i = 0; i < work->operations; i++) {
        operate(&work->seed);
    }
    return 0;
}

static void print_state(const char *when, double ns)
{
    mproc_heap_info info;
    must(mproc_heap_stats(&info) == 0, "mproc_heap_stats");
    double asked = (double)atomic_load(&table->asked);
    double in_use = (double)info.in_use, resident = (double)info.resident;
    printf("| %-28s | %7zu | %9.1f | %9.1f | %9.1f |", when, info.blocks,
           asked / MIB, in_use / MIB, resident / MIB);
    if (asked > 0) {
        printf(" %5.2f | %5.2f |", in_use / asked, resident / in_use);
    } else {
        printf("       |       |");
    }
    printf(ns > 0 ? " %5.0f |\n" : "       |\n", ns);
    fflush(stdout);
}

static void by_one(long operations)
{
    struct work part = {operations / QUARTERS, 1};
    for (int quarter = 1; quarter <= QUARTERS; quarter++) {
        char when[64];
        double begin = now_ns();
        work(&part);
        snprintf(when, sizeof when, "one process, %d/%d", quarter, QUARTERS);
        print_state(when, (now_ns() - begin) / (double)part.operations);
    }
}

static void by_many(long operations)
{
    mproc_process *process[PROCESSES];
    double begin = now_ns();
    for (unsigned i = 0; i < PROCESSES; i++) {
        struct work part = {operations / PROCESSES, 2 + i};
        mproc_process_opts opts = {.arg_size = sizeof part};
        must(mproc_process_new(&process[i], work, &part, &opts) == 0 &&
                 mproc_process_start(process[i]) == 0,
             "a process");
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        int code = -1;
        must(mproc_process_join(process[i], MPROC_FOREVER) == 0 &&
                 mproc_process_exitcode(process[i], &code) == 0 && code == 0,
             "a process's end");
        mproc_process_free(process[i]);
    }
    double ns = (now_ns() - begin) / (double)operations;
    print_state("four processes on one table", ns);
}

static void free_all(void)
{
    for (int i = 0; i < PLACES; i++) {
        struct block *block = atomic_exchange(&table->place[i], NULL);
        if (block != NULL) {
            atomic_fetch_sub(&table->asked, block->asked);
            mproc_free(block);
        }
    }
}

int main(int argc, char **argv)
{
    bool smoke = argc > 1 && strcmp(argv[1], "--smoke") == 0;
    const char *count = argc > 1 + smoke ? argv[1 + smoke] : NULL;
    long operations = count != NULL ? strtol(count, NULL, 10) : 1000000;
    operations = smoke ? operations / 100 : operations;
    table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(table != MAP_FAILED, "mmap");
    printf("| %-28s | blocks  | asked MiB | in use    | resident  | in use/ | "
           "resident/ | ns    |\n|---|---|---|---|---|---|---|---|\n",
           "after");
    print_state("the first call", 0);
    by_one(operations);
    by_many(operations);
    free_all();
    print_state("all are freed", 0);
    return 0;
}
