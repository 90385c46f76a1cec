/* SPDX-License-Identifier: MIT */
/* mproc_wait for a thousand things, and by many at once. */
#include "wait_support.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/*
 * The thread sanitizer lets nobody start threads after a fork beside threads;
 * who polls has the library start one.
 */
#ifdef __SANITIZE_THREAD__
enum { CHILDREN_MAY_POLL = 0 };
#else
enum { CHILDREN_MAY_POLL = 1 };
#endif

/* ---- a thousand ------------------------------------------------------- */

enum { THOUSAND = 1000 };

struct crowd {
    mproc_queue *queue[THOUSAND];
    mproc_waitable set[THOUSAND + 1];
};

static struct crowd *crowd;

static int put_to(int which)
{
    return mproc_queue_put(crowd->queue[which], "x", 1, TEST_BOUND);
}

static void wait_for_thousand(size_t count)
{
    for (int i = 0; i < THOUSAND; i += 111) {
        struct helper helper;
        size_t ready = 7777;
        char byte;
        begin_to_act(&helper, put_to, i);
        assert_ok(mproc_wait(crowd->set, count, &ready, MPROC_FOREVER));
        assert_int_equal(ready, i);
        end_to_act(&helper);
        assert_ok(
            mproc_queue_get(crowd->queue[i], &byte, 1, NULL, MPROC_NOWAIT));
    }
}

static void any_of_a_thousand_wakes(void **state)
{
    (void)state;
    int fds[2];
    crowd = mproc_calloc(1, sizeof *crowd);
    assert_non_null(crowd);
    make_queues(crowd->queue, crowd->set, THOUSAND);
    wait_for_thousand(THOUSAND);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    crowd->set[THOUSAND] = mproc_waitable_fd(fds[0]);
    wait_for_thousand(THOUSAND + 1);
    free_queues(crowd->queue, THOUSAND);
    mproc_free(crowd);
    close(fds[0]);
    close(fds[1]);
}

/* ---- many who wait ---------------------------------------------------- */

enum {
    QUEUES = 7,
    PRODUCERS = 2,
    CONSUMERS = 3,
    MESSAGES = SANITIZED ? 400 : 3000
};

struct market {
    mproc_queue *queue[QUEUES];
    mproc_waitable set[QUEUES + 1]; /* the last: a descriptor, or nothing */
    atomic_int taken[PRODUCERS * MESSAGES];
    atomic_int next_me, wrong;
};

static struct market *market;

static void *sell(void *unused)
{
    int me = atomic_fetch_add(&market->next_me, 1);
    for (int i = 0; i < MESSAGES; i++) {
        int number = me * MESSAGES + i;
        int err = mproc_queue_put(market->queue[number % QUEUES], &number,
                                  sizeof number, TEST_BOUND);
        atomic_fetch_add(&market->wrong, err != 0);
        if (i % 50 == 0) {
            look_again_soon(); /* let them fall asleep */
        }
    }
    return unused;
}

static int sell_as_process(void *unused)
{
    sell(unused);
    return 0;
}

/* Until all are shut down; `count` of things in the set. */
static void buy(size_t count)
{
    mproc_waitable set[QUEUES + 1];
    memcpy(set, market->set, sizeof set);
    for (int open = QUEUES; open > 0;) {
        size_t i = 0;
        int number, err = mproc_wait(set, count, &i, TEST_BOUND);
        if (err < 0) {
            atomic_fetch_add(&market->wrong, 1);
            return;
        }
        err = mproc_queue_get(market->queue[i], &number, sizeof number, NULL,
                              MPROC_NOWAIT);
        if (err == MPROC_ESHUTDOWN) {
            set[i] = (mproc_waitable){{0}};
            open--;
        } else if (err == 0) {
            atomic_fetch_add(&market->taken[number], 1);
        } else {
            atomic_fetch_add(&market->wrong, err != MPROC_EEMPTY);
        }
    }
}

static void *buy_by_bell(void *unused)
{
    buy(QUEUES);
    return unused;
}

static void *buy_by_poll(void *unused)
{
    buy(QUEUES + 1);
    return unused;
}

static int buy_by_bell_as_process(void *unused)
{
    buy(QUEUES);
    return unused != NULL;
}

static int buy_by_poll_as_process(void *unused)
{
    buy(CHILDREN_MAY_POLL ? QUEUES + 1 : QUEUES);
    return unused != NULL;
}

static void open_market(int fd)
{
    market = mproc_calloc(1, sizeof *market);
    assert_non_null(market);
    make_queues(market->queue, market->set, QUEUES);
    market->set[QUEUES] = mproc_waitable_fd(fd);
}

static void close_market(void)
{
    assert_int_equal(atomic_load(&market->wrong), 0);
    for (int i = 0; i < PRODUCERS * MESSAGES; i++) {
        assert_int_equal(atomic_load(&market->taken[i]), 1);
    }
    free_queues(market->queue, QUEUES);
    mproc_free(market);
}

static void shut_market(void)
{
    for (int i = 0; i < QUEUES; i++) {
        assert_ok(mproc_queue_shutdown(market->queue[i], false));
    }
}

static void many_threads_may_wait(void **state)
{
    (void)state;
    int fds[2];
    pthread_t sellers[PRODUCERS], buyers[2 * CONSUMERS];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    open_market(fds[0]);
    for (int i = 0; i < 2 * CONSUMERS; i++) {
        void *(*fn)(void *) = i % 2 ? buy_by_bell : buy_by_poll;
        assert_int_equal(pthread_create(&buyers[i], NULL, fn, NULL), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(pthread_create(&sellers[i], NULL, sell, NULL), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(sellers[i], NULL);
    }
    shut_market();
    for (int i = 0; i < 2 * CONSUMERS; i++) {
        pthread_join(buyers[i], NULL);
    }
    close_market();
    close(fds[0]);
    close(fds[1]);
}

static void many_processes_may_wait(void **state)
{
    (void)state;
    int fds[2];
    pid_t sellers[PRODUCERS], buyers[2 * CONSUMERS];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    open_market(fds[0]);
    for (int i = 0; i < 2 * CONSUMERS; i++) {
        buyers[i] = test_fork(
            i % 2 ? buy_by_bell_as_process : buy_by_poll_as_process, NULL);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        sellers[i] = test_fork(sell_as_process, NULL);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(test_wait_exit(sellers[i]), 0);
    }
    shut_market();
    for (int i = 0; i < 2 * CONSUMERS; i++) {
        assert_int_equal(test_wait_exit(buyers[i]), 0);
    }
    close_market();
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_of_a_thousand_wakes),
        cmocka_unit_test(many_threads_may_wait),
        cmocka_unit_test(many_processes_may_wait),
    };
    mpr_test_deep_sleep = true; /* a timed look would hide a lost wake-up */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
