/* SPDX-License-Identifier: MIT */
/* Pipes: threads that share an end. */
#include "pipe_support.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct sleeper {
    mproc_connection *c;
    pthread_t thread;
    _Atomic pid_t tid;
    int err;
    const char *data; /* of a sender */
    size_t size;
};

static void *sleep_in_poll(void *arg)
{
    struct sleeper *me = arg;
    atomic_store(&me->tid, (pid_t)syscall(SYS_gettid));
    me->err = mproc_connection_poll(me->c, MPROC_FOREVER);
    return NULL;
}

static void *sleep_in_recv(void *arg)
{
    struct sleeper *me = arg;
    char byte;
    atomic_store(&me->tid, (pid_t)syscall(SYS_gettid));
    me->err = mproc_connection_recv(me->c, &byte, 1, NULL, MPROC_FOREVER);
    return NULL;
}

/*
 * Until the thread sleeps on several words, where that can be seen: then it
 * does not watch those who are born from now on.
 */
static void await_deep_sleep(struct sleeper *sleeper)
{
    enum { FUTEX_WAITV = 449 };
    mproc_deadline patience = mproc_in_ms(500);
    char path[64], text[64] = "";
    pid_t tid;
    while ((tid = atomic_load(&sleeper->tid)) == 0) {
        sched_yield();
    }
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)tid);
    do {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            ssize_t size = read(fd, text, sizeof text - 1);
            text[size > 0 ? size : 0] = '\0';
            close(fd);
        }
        sched_yield();
    } while (strtol(text, NULL, 10) != FUTEX_WAITV &&
             mproc_in_ms(0).at_ns < patience.at_ns);
}

static void *sleep_in_send(void *arg)
{
    struct sleeper *me = arg;
    atomic_store(&me->tid, (pid_t)syscall(SYS_gettid));
    me->err = mproc_connection_send(me->c, me->data, me->size, MPROC_FOREVER);
    return NULL;
}

/* Who is woken first needs more than there is. */
static void room_is_for_whoever_it_suffices(void **state)
{
    (void)state;
    struct ends p = make(0);
    char *data = pattern(HOLDS), got[1024];
    struct sleeper large = {.c = p.a, .data = data, .size = HOLDS / 2};
    struct sleeper small = {.c = p.a, .data = data, .size = 1};
    for (int i = 0; i < HOLDS / 1024; i++) {
        assert_ok(mproc_connection_send(p.a, data, 1024, MPROC_NOWAIT));
    }
    pthread_create(&large.thread, NULL, sleep_in_send, &large);
    await_deep_sleep(&large);
    pthread_create(&small.thread, NULL, sleep_in_send, &small);
    await_deep_sleep(&small);
    assert_ok(mproc_connection_recv(p.b, got, sizeof got, NULL, TEST_BOUND));
    pthread_join(small.thread, NULL);
    assert_ok(small.err);
    for (int i = 1; i < HOLDS / 1024; i++) {
        assert_ok(
            mproc_connection_recv(p.b, got, sizeof got, NULL, TEST_BOUND));
    }
    pthread_join(large.thread, NULL);
    assert_ok(large.err);
    free(data);
    close_both(p);
}

static void a_sleeper_is_told_of_deaths_of_the_later_born(void **state)
{
    (void)state;
    struct ends p = make(0);
    struct sleeper sleeper = {.c = p.a};
    pthread_create(&sleeper.thread, NULL, sleep_in_recv, &sleeper);
    await_deep_sleep(&sleeper);
    pid_t child = test_fork(live_until_killed, NULL);
    assert_ok(mproc_connection_close(p.b));
    await_deep_sleep(&sleeper);
    kill_and_reap(child);
    pthread_join(sleeper.thread, NULL);
    assert_err(sleeper.err, MPROC_EOF);
    assert_ok(mproc_connection_close(p.a));
}

static void a_close_ends_the_calls_of_other_threads(void **state)
{
    (void)state;
    struct ends p = make(0);
    struct sleeper sleeper = {.c = p.a};
    pthread_create(&sleeper.thread, NULL, sleep_in_recv, &sleeper);
    await_deep_sleep(&sleeper);
    assert_ok(mproc_connection_close(p.a));
    pthread_join(sleeper.thread, NULL);
    assert_err(sleeper.err, MPROC_EINVAL);
    assert_ok(mproc_connection_close(p.b));
}

enum { THREADS = 3, EACH = 2000 };

static void *send_many(void *arg)
{
    for (int i = 1; i <= EACH; i++) {
        send_number(arg, i);
    }
    return NULL;
}

static void *receive_many(void *arg)
{
    long sum = 0;
    for (int i = 0, got; i < EACH; i++) {
        assert_ok(
            mproc_connection_recv(arg, &got, sizeof got, NULL, TEST_BOUND));
        sum += got;
    }
    return (void *)sum;
}

static void threads_share_an_end(void **state)
{
    (void)state;
    struct ends p = make(0);
    pthread_t sender[THREADS], receiver[THREADS];
    long sum = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&sender[i], NULL, send_many, p.b);
        pthread_create(&receiver[i], NULL, receive_many, p.a);
    }
    for (int i = 0; i < THREADS; i++) {
        void *one;
        pthread_join(sender[i], NULL);
        pthread_join(receiver[i], &one);
        sum += (long)one;
    }
    assert_int_equal(sum, (long)THREADS * EACH * (EACH + 1) / 2);
    close_both(p);
}

/* The first to fall asleep is the first to be woken. */
static void a_poll_does_not_eat_the_wake_of_a_receiver(void **state)
{
    (void)state;
    struct ends p = make(0);
    struct sleeper poller = {.c = p.a}, receiver = {.c = p.a};
    pthread_create(&poller.thread, NULL, sleep_in_poll, &poller);
    await_deep_sleep(&poller);
    pthread_create(&receiver.thread, NULL, sleep_in_recv, &receiver);
    await_deep_sleep(&receiver);
    assert_ok(mproc_connection_send(p.b, "1", 1, TEST_BOUND));
    pthread_join(receiver.thread, NULL);
    assert_ok(receiver.err);
    assert_ok(mproc_connection_send(p.b, "2", 1, TEST_BOUND));
    pthread_join(poller.thread, NULL);
    assert_ok(poller.err);
    close_both(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(room_is_for_whoever_it_suffices),
        cmocka_unit_test(a_sleeper_is_told_of_deaths_of_the_later_born),
        cmocka_unit_test(a_close_ends_the_calls_of_other_threads),
        cmocka_unit_test(threads_share_an_end),
        cmocka_unit_test(a_poll_does_not_eat_the_wake_of_a_receiver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
