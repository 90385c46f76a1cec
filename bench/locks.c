/* SPDX-License-Identifier: MIT */
/*
 * Locks that nobody else wants; and one that two processes want again and
 * again, each for an addition, by the clock from when both are there until both
 * are done.
 */
#include "bench.h"

#include <mproc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

double bench_lock(const struct row *row, long n)
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

static double mutex_ns(int robust, long n)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t *mutex = mmap(NULL, sizeof *mutex, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(mutex != MAP_FAILED, "mmap");
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, robust);
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

double bench_robust_mutex(const struct row *row, long n)
{
    (void)row;
    return mutex_ns(PTHREAD_MUTEX_ROBUST, n);
}

double bench_plain_mutex(const struct row *row, long n)
{
    (void)row;
    return mutex_ns(PTHREAD_MUTEX_STALLED, n);
}

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

double bench_contended_lock(const struct row *row, long n)
{
    mproc_lock *lock;
    (void)row;
    must(mproc_lock_new(&lock) == 0, "mproc_lock_new");
    double ns = contest_ns(lock, n);
    mproc_lock_free(lock);
    return ns;
}

double bench_contended_mutex(const struct row *row, long n)
{
    (void)row;
    return contest_ns(NULL, n);
}
