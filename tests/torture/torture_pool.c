/* SPDX-License-Identifier: MIT */
/*
 * torture_pool [seconds [kills per second [nursery]]]: many small tasks on four
 * workers, of which one is killed at random again and again; with `nursery`
 * now and then the process that keeps them. Every task is accounted for: it
 * ends once, with its reply or lost, and only what a kill can have cost is
 * lost.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

enum { WORKERS = 4, PENDING = 2000, ITEMS = 64, NURSERY_EACH = 50 };

static double seconds = 2, kills_a_second = 200;
static bool nursery_too;

static mproc_pool *pool;
static _Atomic bool over;
static _Atomic unsigned long kills, nursery_kills, submitted, collected, lost,
    wrong, items, items_lost;
static mproc_queue *room; /* a message for each task that may be pending */

/* One reply in eight lies in a block of the heap. */
static int squares(const void *arg, size_t size, mproc_reply *reply)
{
    unsigned long n;
    (void)size;
    memcpy(&n, arg, sizeof n);
    unsigned long square = n * n;
    if (n % 8 != 0) {
        return mproc_reply_set(reply, &square, sizeof square);
    }
    char *large = mproc_reply_reserve(reply, 500);
    if (large == NULL) {
        return 1;
    }
    memset(large, 0, 500);
    memcpy(large, &square, sizeof square);
    return 0;
}

static int squares_item(const void *arg, size_t size, mproc_reply *reply)
{
    unsigned long n = *(const unsigned long *)arg, square = n * n;
    (void)size;
    return mproc_reply_set(reply, &square, sizeof square);
}

static void collect_good(const mproc_outcome *o, void *user)
{
    unsigned long n = (unsigned long)(uintptr_t)user, square = 0;
    if (o->size >= sizeof square) {
        memcpy(&square, o->data, sizeof square);
    }
    wrong += square != n * n;
    collected++;
    mproc_queue_put(room, NULL, 0, MPROC_FOREVER);
}

static void collect_bad(const mproc_outcome *o, void *user)
{
    (void)user;
    if (o->status != MPROC_EWORKERLOST) {
        fprintf(stderr, "a task ended with %s\n", mproc_error_name(o->status));
        wrong++;
    }
    lost++;
    collected++;
    mproc_queue_put(room, NULL, 0, MPROC_FOREVER);
}

static bool submit(unsigned long n)
{
    mproc_call call = {.fn = squares,
                       MPROC_ARG(n),
                       .callback = collect_good,
                       .error_callback = collect_bad,
                       .user = (void *)(uintptr_t)n};
    int err = mproc_queue_get(room, NULL, 0, NULL, mproc_in_s(60));
    if (err == 0) {
        err = mproc_pool_apply_async(pool, &call, NULL, MPROC_FOREVER);
    }
    if (err < 0) {
        fprintf(stderr, "task %lu: %s\n", n, mproc_error_name(err));
        return false;
    }
    submitted++;
    return true;
}

static bool map_some(unsigned long from)
{
    unsigned long in[ITEMS], out[ITEMS];
    int status[ITEMS];
    for (int i = 0; i < ITEMS; i++) {
        in[i] = from + (unsigned long)i;
    }
    mproc_batch batch = {.fn = squares_item,
                         .in = in,
                         .in_size = sizeof *in,
                         .count = ITEMS,
                         .out = out,
                         .out_size = sizeof *out,
                         .status = status,
                         .chunk = 1 + from % 11};
    int err = mproc_pool_map(pool, &batch, mproc_in_s(60));
    for (int i = 0; i < ITEMS; i++) {
        bool is_lost = status[i] == MPROC_EWORKERLOST;
        items_lost += is_lost;
        wrong += !is_lost && (status[i] != 0 || out[i] != in[i] * in[i]);
    }
    items += ITEMS;
    if (err != 0 && err != MPROC_EWORKERLOST) {
        fprintf(stderr, "map: %s\n", mproc_error_name(err));
    }
    return err == 0 || err == MPROC_EWORKERLOST;
}

/* The parent of a worker, unless it is this process or nobody any more. */
static pid_t parent_of(pid_t pid)
{
    pid_t parent = test_stat_of(pid).parent;
    return parent > 1 && parent != getpid() ? parent : 0;
}

static void kill_one(unsigned *seed)
{
    pid_t worker[WORKERS];
    size_t count = mproc_pool_worker_pids(pool, worker, WORKERS);
    if (count == 0 || count > WORKERS) {
        return;
    }
    pid_t victim = worker[(size_t)rand_r(seed) % count];
    if (nursery_too && rand_r(seed) % NURSERY_EACH == 0) {
        pid_t nursery = parent_of(victim);
        nursery_kills += nursery != 0 && parent_of(nursery) == 0 &&
                         kill(nursery, SIGKILL) == 0;
        return;
    }
    /* Named by the pool an instant ago: its pid is not given away so soon. */
    kills += kill(victim, SIGKILL) == 0;
}

static void *kill_some(void *unused)
{
    unsigned seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    while (!over) {
        useconds_t pause = (useconds_t)(2e6 / kills_a_second);
        usleep((useconds_t)rand_r(&seed) % (pause + 1));
        kill_one(&seed);
    }
    return unused;
}

static int report(void)
{
    unsigned long tasks = submitted, ended = collected;
    unsigned long most = kills + WORKERS * nursery_kills;
    printf("%lu workers and %lu nurseries killed; %lu tasks, %lu lost; "
           "%lu items, %lu lost\n",
           kills, nursery_kills, tasks, lost, items, items_lost);
    bool good = tasks == ended && wrong == 0 && lost + items_lost <= most &&
                kills + nursery_kills > 0 && tasks > lost;
    if (!good) {
        printf("WRONG: %lu of the tasks ended, %lu ended wrong\n", ended,
               wrong);
    }
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    pthread_t killer;
    mproc_heap_info before, now;
    seconds = argc > 1 ? strtod(argv[1], NULL) : seconds;
    kills_a_second = argc > 2 ? strtod(argv[2], NULL) : kills_a_second;
    nursery_too = argc > 3;
    mproc_pool_opts opts = {.workers = WORKERS, .max_tasks_per_child = 5000};
    if (mproc_heap_stats(&before) < 0 || mproc_queue_new(&room, NULL) < 0 ||
        mproc_pool_new(&pool, &opts) < 0) {
        return 1;
    }
    for (int i = 0; i < PENDING; i++) {
        mproc_queue_put(room, NULL, 0, MPROC_FOREVER);
    }
    bool good = pthread_create(&killer, NULL, kill_some, NULL) == 0;
    mproc_deadline end = mproc_in_s(seconds);
    for (unsigned long n = 0; good && mproc_in_s(0).at_ns < end.at_ns; n++) {
        good = submit(n) && (n % 1000 != 999 || map_some(n));
    }
    good &= mproc_pool_close(pool) == 0 &&
            mproc_pool_join(pool, mproc_in_s(60)) == 0;
    over = true;
    pthread_join(killer, NULL);
    good &= report() == 0;
    mproc_pool_free(pool);
    mproc_queue_free(room);
    if (mproc_heap_stats(&now) < 0 || now.blocks != before.blocks) {
        printf("WRONG: %zu blocks before, %zu after\n", before.blocks,
               now.blocks);
        return 1;
    }
    return good ? 0 : 1;
}
