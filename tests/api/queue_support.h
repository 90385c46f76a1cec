/* SPDX-License-Identifier: MIT */
/* What the tests of queues share. */
#ifndef MPROC_TEST_QUEUE_SUPPORT_H
#define MPROC_TEST_QUEUE_SUPPORT_H

#include "live_objects.h"
#include "test.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KIB = 1024, MIB = 1024 * KIB };

static inline mproc_heap_info heap_now(void)
{
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    return info;
}

static const char *const order_name[] = {"fifo", "lifo", "priority"};
static int order = MPROC_FIFO;

static inline double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Asleep in a call of the library, which it makes at once. */
static inline pid_t fork_asleep(int (*fn)(void *), void *arg)
{
    pid_t pid = test_fork(fn, arg);
    test_await_state(pid, 'S');
    return pid;
}

static inline void end_by_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(test_wait_exit(pid), -SIGKILL);
}

static inline void fill(char *data, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        data[i] = (char)(i * 7 + i / 251 + seed);
    }
}

/* What a child returns: 0, or a small number that stands for an outcome. */
static inline int as_status(int err)
{
    return err == 0                 ? 0
           : err == MPROC_EINVAL    ? 11
           : err == MPROC_ESHUTDOWN ? 12
           : err == MPROC_EMSGSIZE  ? 13
           : err == MPROC_EFULL     ? 14
           : err == MPROC_EEMPTY    ? 15
                                    : 99;
}

enum { WAS_INVALID = 11, WAS_SHUT_DOWN = 12, WAS_TOO_LARGE = 13 };

static inline mproc_queue *new_queue(const mproc_queue_opts *opts)
{
    mproc_queue_opts ours = opts != NULL ? *opts : (mproc_queue_opts){0};
    mproc_queue *q = NULL;
    ours.order = order;
    assert_ok(mproc_queue_new(&q, &ours));
    assert_non_null(q);
    return q;
}

static inline mproc_queue *bounded(size_t maxsize)
{
    return new_queue(&(mproc_queue_opts){.maxsize = maxsize});
}

static inline mproc_queue *joinable(void)
{
    return new_queue(&(mproc_queue_opts){.joinable = 1});
}

static inline void put_int(mproc_queue *q, int value)
{
    assert_ok(mproc_queue_put(q, &value, sizeof value, TEST_BOUND));
}

static inline int get_int(mproc_queue *q)
{
    int value = 0;
    assert_ok(mproc_queue_get(q, &value, sizeof value, NULL, TEST_BOUND));
    return value;
}

static inline int blocked_get(void *arg)
{
    char data[16];
    size_t size;
    return as_status(
        mproc_queue_get(arg, data, sizeof data, &size, MPROC_FOREVER));
}

static inline int blocked_put(void *arg)
{
    int value = 7;
    return as_status(mproc_queue_put(arg, &value, sizeof value, MPROC_FOREVER));
}

static inline int blocked_join(void *arg)
{
    return as_status(mproc_queue_join(arg, MPROC_FOREVER));
}

/* For who never took it. */
static inline int acknowledge_anothers(void *arg)
{
    return as_status(mproc_queue_task_done(arg));
}

/* ---- crowds ----------------------------------------------------------- */

enum { PRODUCERS = 3, CONSUMERS = 3 };

/* Each producer, one of which is `me`, puts the numbers below `each`. */
struct crowd {
    mproc_queue *q;
    int me, each;
    _Atomic int *taken; /* [PRODUCERS][each] */
};

static inline void take_note(const struct crowd *crowd, int producer,
                             int number)
{
    atomic_fetch_add(&crowd->taken[producer * crowd->each + number], 1);
}

/* Consumers run until the queue is shut down; all is taken once by then. */
static inline void run_a_crowd(mproc_queue *q, int each, int (*produce)(void *),
                               int (*consume)(void *))
{
    pid_t producer[PRODUCERS], consumer[CONSUMERS];
    const size_t all = (size_t)each * PRODUCERS;
    struct crowd crowd = {
        .q = q, .each = each, .taken = mproc_calloc(all, sizeof(_Atomic int))};
    assert_non_null((void *)crowd.taken);
    for (int i = 0; i < CONSUMERS; i++) {
        consumer[i] = test_fork(consume, &crowd);
    }
    for (crowd.me = 0; crowd.me < PRODUCERS; crowd.me++) {
        producer[crowd.me] = test_fork(produce, &crowd);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(test_wait_exit(producer[i]), 0);
    }
    assert_ok(mproc_queue_shutdown(q, false));
    for (int i = 0; i < CONSUMERS; i++) {
        assert_int_equal(test_wait_exit(consumer[i]), 0);
    }
    for (size_t i = 0; i < all; i++) {
        assert_int_equal(crowd.taken[i], 1);
    }
    mproc_free((void *)crowd.taken);
    mproc_queue_free(q);
}

/* ---- memory ----------------------------------------------------------- */

static mproc_heap_info at_start;
static int objects_at_start;

/* Once, before the first test. */
static inline int remember_heap(void **state)
{
    (void)state;
    if (at_start.limit > 0) {
        return 0;
    }
    mproc_queue_free(new_queue(NULL));
    at_start = heap_now();
    objects_at_start = live_objects();
    return 0;
}

/*
 * A sleep of more than 50 ms gives back what the dead had, unless this process
 * is kept from running for so long: so until what is waited for.
 */
static inline void notice_deaths(void)
{
    mproc_queue *empty = new_queue(NULL);
    char byte;
    assert_err(mproc_queue_get(empty, &byte, 1, NULL, mproc_in_ms(200)),
               MPROC_EEMPTY);
    mproc_queue_free(empty);
}

static inline void nothing_is_left_of_it_all(void **state)
{
    (void)state;
    double until = seconds() + 30;
    do {
        notice_deaths();
    } while (heap_now().blocks != at_start.blocks && seconds() < until);
    mproc_heap_info now = heap_now();
    assert_int_equal(now.blocks, at_start.blocks);
    assert_int_equal(now.in_use, at_start.in_use);
    assert_int_equal(live_objects(), objects_at_start);
}

/* ---- main ------------------------------------------------------------- */

static inline int read_order(const char *name)
{
    for (int i = MPROC_FIFO; i <= MPROC_PRIORITY; i++) {
        if (strcmp(name, order_name[i]) == 0) {
            return i;
        }
    }
    return -1;
}

/* False: the arguments name something else than an order. */
static inline bool order_is_read(int argc, char **argv)
{
    order = argc > 1 ? read_order(argv[1]) : MPROC_FIFO;
    return order >= 0;
}

/* Those of `lines` hold where the first to come is the first to go. */
#define run_in_order(lines, all)                                  \
    ((order == MPROC_LIFO                                         \
          ? 0                                                     \
          : cmocka_run_group_tests(lines, remember_heap, NULL)) + \
     cmocka_run_group_tests(all, remember_heap, NULL))

/* ---- a program of its own with a small heap --------------------------- */

/* The limit must be set before the first use. main asks is_small_heap(). */
static inline int run_small_heap(void *unused)
{
    (void)unused;
    execl("/proc/self/exe", "small-heap", order_name[order], "small-heap",
          (char *)NULL);
    return 98;
}

static inline void expect_good_with_a_small_heap(void)
{
    assert_int_equal(test_wait_exit(test_fork(run_small_heap, NULL)), 0);
}

static inline bool is_small_heap(int argc, char **argv)
{
    return argc > 2 && strcmp(argv[2], "small-heap") == 0;
}

#endif
