/* SPDX-License-Identifier: MIT */
/* A thread that kills processes of a pool, again and again. */
#ifndef MPROC_POOL_KILLER_H
#define MPROC_POOL_KILLER_H

#include "pool_kin.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 10 /* so many times, above all the forks */
#else
#define SLOWER 1
#endif

enum victim { ONE_WORKER, IDLE_WORKERS, ALL_WORKERS, NURSERY };

struct killer {
    mproc_pool *pool;
    enum victim victim;
    unsigned pause_us; /* at most, between two times */
    unsigned seed;
    _Atomic bool over;
    _Atomic unsigned long kills; /* of workers, also by way of their nursery */
    unsigned long times;
    pthread_t thread;
};

enum { KILLER_WORKERS_MAX = 16 };

/* One that never began to work would be taken for one that cannot. */
static inline size_t killer_finds(mproc_pool *p, bool idle, pid_t *out)
{
    mproc_worker_info info[KILLER_WORKERS_MAX] = {{.pid = 0}};
    size_t count = mproc_pool_worker_stats(p, info, KILLER_WORKERS_MAX);
    size_t found = 0;
    for (size_t i = 0; i < count && i < KILLER_WORKERS_MAX; i++) {
        bool began = info[i].busy_s + info[i].idle_s > 0;
        if (began && !(idle && info[i].busy)) {
            out[found++] = info[i].pid;
        }
    }
    return found;
}

/* Who was named an instant ago: a pid is not given away so soon. */
static inline unsigned long kill_workers(struct killer *k)
{
    pid_t pid[KILLER_WORKERS_MAX];
    unsigned long kills = 0;
    size_t found = killer_finds(k->pool, k->victim == IDLE_WORKERS, pid);
    size_t first = 0;
    if (k->victim == ONE_WORKER && found > 0) {
        first = (size_t)rand_r(&k->seed) % found;
        found = first + 1;
    }
    for (size_t i = first; i < found; i++) {
        kills += kill(pid[i], SIGKILL) == 0;
    }
    return kills;
}

static inline unsigned long kill_nursery(struct killer *k)
{
    size_t workers = mproc_pool_worker_pids(k->pool, NULL, 0);
    pid_t pid = nursery_of(k->pool);
    return pid > 1 && kill(pid, SIGKILL) == 0 ? workers : 0;
}

static inline void *kill_again_and_again(void *user)
{
    struct killer *k = user;
    while (!k->over) {
        usleep((useconds_t)rand_r(&k->seed) % (k->pause_us + 1));
        unsigned long kills =
            k->victim == NURSERY ? kill_nursery(k) : kill_workers(k);
        k->kills += kills;
        k->times += kills > 0;
    }
    return NULL;
}

static inline void begin_to_kill(struct killer *k)
{
    assert_int_equal(pthread_create(&k->thread, NULL, kill_again_and_again, k),
                     0);
}

static inline void end_to_kill(struct killer *k)
{
    k->over = true;
    pthread_join(k->thread, NULL);
}

#endif
