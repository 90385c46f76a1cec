/* SPDX-License-Identifier: MIT */
/*
 * Queue: every promise of <mproc/queue.h>, seen from outside. In a queue of
 * MPROC_PRIORITY all of them hold as they are while nobody gives a priority, in
 * one of MPROC_LIFO all but those about the order.
 *
 * usage: test_queue [fifo | lifo | priority]
 */
#include "queue_support.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- messages --------------------------------------------------------- */

static const size_t some_sizes[] = {0,    1,    63,    64,        1023,   1024,
                                    1025, 4096, 65535, 100 * KIB, 5 * MIB};
enum { SOME_SIZES = sizeof some_sizes / sizeof *some_sizes };

static int put_some_sizes(void *arg)
{
    char *data = malloc(5 * MIB);
    for (unsigned i = 0; i < SOME_SIZES; i++) {
        fill(data, some_sizes[i], i);
        assert_ok(mproc_queue_put(arg, data, some_sizes[i], TEST_BOUND));
    }
    free(data);
    return 0;
}

static void any_size_comes_through_whole(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    char *got = malloc(5 * MIB), *expected = malloc(5 * MIB);
    for (int round = 0; round < 3; round++) {
        pid_t pid = test_fork(put_some_sizes, q);
        for (unsigned i = 0; i < SOME_SIZES; i++) {
            size_t size = 1;
            assert_ok(mproc_queue_get(q, got, 5 * MIB, &size, TEST_BOUND));
            assert_int_equal(size, some_sizes[i]);
            fill(expected, size, i);
            assert_memory_equal(got, expected, size);
        }
        assert_int_equal(test_wait_exit(pid), 0);
    }
    free(got);
    free(expected);
    mproc_queue_free(q);
}

struct crowd_message {
    int producer, number;
    char filling[1500];
};

static int produce(void *arg)
{
    const struct crowd *crowd = arg;
    struct crowd_message m = {.producer = crowd->me};
    for (m.number = 0; m.number < crowd->each; m.number++) {
        size_t size =
            m.number % 3 ? offsetof(struct crowd_message, filling) : sizeof m;
        assert_ok(mproc_queue_put(crowd->q, &m, size, TEST_BOUND));
    }
    return 0;
}

static int consume(void *arg)
{
    const struct crowd *crowd = arg;
    int last[PRODUCERS] = {-1, -1, -1};
    struct crowd_message m;
    size_t size;
    int err;
    while ((err = mproc_queue_get(crowd->q, &m, sizeof m, &size, TEST_BOUND)) ==
           0) {
        assert_true(m.number > last[m.producer] || order == MPROC_LIFO);
        last[m.producer] = m.number;
        take_note(crowd, m.producer, m.number);
    }
    assert_err(err, MPROC_ESHUTDOWN);
    return 0;
}

static void a_crowd_gets_each_message_once_and_in_order(void **state)
{
    (void)state;
    run_a_crowd(bounded(100), 2000, produce, consume);
}

static void a_message_that_does_not_fit_stays_and_tells_its_size(void **state)
{
    (void)state;
    static const size_t sizes[] = {10, 1024, 5000, 100 * KIB};
    mproc_queue *q = new_queue(NULL);
    static char data[100 * KIB], got[100 * KIB];
    for (int i = 0; i < 4; i++) {
        size_t size = 77;
        fill(data, sizes[i], 3);
        assert_ok(mproc_queue_put(q, data, sizes[i], MPROC_NOWAIT));
        assert_err(mproc_queue_get(q, got, sizes[i] - 1, &size, TEST_BOUND),
                   MPROC_EMSGSIZE);
        assert_int_equal(size, sizes[i]);
        assert_err(mproc_queue_get(q, NULL, 0, &size, MPROC_NOWAIT),
                   MPROC_EMSGSIZE);
        assert_int_equal(mproc_queue_qsize(q), 1);
        assert_ok(mproc_queue_get(q, got, size, &size, MPROC_NOWAIT));
        assert_memory_equal(got, data, sizes[i]);
    }
    mproc_queue_free(q);
}

static void without_a_size_the_message_must_be_exactly_as_large(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    char got[16];
    assert_ok(mproc_queue_put(q, "12345678", 8, MPROC_NOWAIT));
    assert_err(mproc_queue_get(q, got, 7, NULL, MPROC_NOWAIT), MPROC_EMSGSIZE);
    assert_err(mproc_queue_get(q, got, 9, NULL, MPROC_NOWAIT), MPROC_EMSGSIZE);
    assert_ok(mproc_queue_get(q, got, 8, NULL, MPROC_NOWAIT));
    assert_memory_equal(got, "12345678", 8);
    assert_ok(mproc_queue_put(q, NULL, 0, MPROC_NOWAIT));
    assert_err(mproc_queue_get(q, got, 1, NULL, MPROC_NOWAIT), MPROC_EMSGSIZE);
    assert_ok(mproc_queue_get(q, NULL, 0, NULL, MPROC_NOWAIT));
    mproc_queue_free(q);
}

static void get_malloc_gives_memory_with_a_nul_behind(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    void *data = NULL;
    size_t size = 9;
    assert_ok(mproc_queue_put(q, NULL, 0, MPROC_NOWAIT));
    assert_ok(mproc_queue_get_malloc(q, &data, &size, TEST_BOUND));
    assert_int_equal(size, 0);
    assert_string_equal(data, "");
    free(data);

    assert_ok(mproc_queue_put(q, "bun", 3, MPROC_NOWAIT));
    assert_ok(mproc_queue_get_malloc(q, &data, NULL, TEST_BOUND));
    assert_string_equal(data, "bun");
    free(data);

    static char large[200 * KIB];
    memset(large, 'x', sizeof large);
    assert_ok(mproc_queue_put(q, large, sizeof large, MPROC_NOWAIT));
    assert_ok(mproc_queue_get_malloc(q, &data, &size, TEST_BOUND));
    assert_int_equal(size, sizeof large);
    assert_memory_equal(data, large, size);
    assert_int_equal(((char *)data)[size], 0);
    free(data);

    void *untouched = large;
    assert_err(mproc_queue_get_malloc(q, &untouched, &size, MPROC_NOWAIT),
               MPROC_EEMPTY);
    assert_ptr_equal(untouched, large);
    assert_err(mproc_queue_get_malloc(q, NULL, &size, MPROC_NOWAIT),
               MPROC_EINVAL);
    mproc_queue_free(q);
}

static void putf_puts_what_printf_would_print(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    static char longest[70000];
    void *got;
    size_t size;
    memset(longest, 'y', sizeof longest - 1);
    assert_ok(mproc_queue_putf(q, TEST_BOUND, "%d buns for %s", 3, "me"));
    assert_ok(mproc_queue_putf(q, TEST_BOUND, "%s", ""));
    assert_ok(mproc_queue_putf(q, TEST_BOUND, "%s!", longest));
    assert_ok(mproc_queue_get_malloc(q, &got, &size, TEST_BOUND));
    assert_string_equal(got, "3 buns for me");
    assert_int_equal(size, sizeof "3 buns for me");
    free(got);
    assert_ok(mproc_queue_get_malloc(q, &got, &size, TEST_BOUND));
    assert_int_equal(size, 1);
    free(got);
    assert_ok(mproc_queue_get_malloc(q, &got, &size, TEST_BOUND));
    assert_int_equal(size, sizeof longest + 1);
    assert_memory_equal(got, longest, sizeof longest - 1);
    assert_string_equal((char *)got + sizeof longest - 1, "!");
    free(got);
    mproc_queue_free(q);
}

struct item {
    int x;
    double y;
};

static void values_of_a_type_are_put_and_got(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    struct item it = {0};
    assert_ok(MPROC_PUT(q, struct item, .x = 2, .y = 0.5));
    assert_ok(MPROC_GET(q, struct item, &it));
    assert_int_equal(it.x, 2);
    assert_true(it.y == 0.5);
    assert_ok(MPROC_PUT(q, int, 3));
    assert_err(MPROC_GET(q, struct item, &it), MPROC_EMSGSIZE);
    mproc_queue_free(q);
}

/* ---- room ------------------------------------------------------------- */

static void a_full_queue_refuses_at_once_or_after_the_time(void **state)
{
    (void)state;
    mproc_queue *q = bounded(2);
    put_int(q, 1);
    assert_false(mproc_queue_full(q));
    put_int(q, 2);
    assert_true(mproc_queue_full(q));
    int third = 3;
    assert_err(mproc_queue_put(q, &third, sizeof third, MPROC_NOWAIT),
               MPROC_EFULL);
    double begin = seconds();
    assert_err(mproc_queue_put(q, &third, sizeof third, mproc_in_ms(30)),
               MPROC_EFULL);
    assert_true(seconds() - begin >= 0.03);
    assert_err(mproc_queue_putf(q, MPROC_NOWAIT, "three"), MPROC_EFULL);
    assert_int_equal(mproc_queue_qsize(q), 2);
    assert_int_equal(get_int(q), 1);
    assert_ok(mproc_queue_put(q, &third, sizeof third, MPROC_NOWAIT));
    assert_int_equal(get_int(q), 2);
    assert_int_equal(get_int(q), 3);
    mproc_queue_free(q);
}

static void an_empty_queue_refuses_at_once_or_after_the_time(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    int value = 5;
    size_t size = 6;
    assert_err(mproc_queue_get(q, &value, sizeof value, &size, MPROC_NOWAIT),
               MPROC_EEMPTY);
    double begin = seconds();
    assert_err(mproc_queue_get(q, &value, sizeof value, &size, mproc_in_ms(30)),
               MPROC_EEMPTY);
    assert_true(seconds() - begin >= 0.03);
    assert_int_equal(value, 5);
    assert_int_equal(size, 6);
    mproc_queue_free(q);
}

static void a_blocked_put_goes_on_after_a_get(void **state)
{
    (void)state;
    mproc_queue *q = bounded(1);
    put_int(q, 1);
    pid_t pid = fork_asleep(blocked_put, q);
    assert_int_equal(get_int(q), 1);
    assert_int_equal(test_wait_exit(pid), 0);
    assert_int_equal(get_int(q), 7);
    mproc_queue_free(q);
}

static void a_blocked_get_goes_on_after_a_put(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    pid_t first = fork_asleep(blocked_get, q);
    pid_t second = fork_asleep(blocked_get, q);
    put_int(q, 1);
    put_int(q, 2);
    assert_int_equal(test_wait_exit(first), 0);
    assert_int_equal(test_wait_exit(second), 0);
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
}

static void without_a_limit_it_is_never_full(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    for (int i = 0; i < 20000; i++) {
        assert_ok(mproc_queue_put(q, &i, sizeof i, MPROC_NOWAIT));
        assert_false(mproc_queue_full(q));
    }
    assert_int_equal(mproc_queue_qsize(q), 20000);
    for (int i = 0; i < 20000; i++) {
        assert_int_equal(get_int(q), i);
    }
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
}

static void it_tells_how_much_is_in_it_at_each_step(void **state)
{
    (void)state;
    mproc_queue *q = bounded(3);
    for (int round = 0; round < 300; round++) {
        for (size_t n = 0; n <= 3; n++) {
            assert_int_equal(mproc_queue_qsize(q), n);
            assert_int_equal(mproc_queue_empty(q), n == 0);
            assert_int_equal(mproc_queue_full(q), n == 3);
            if (n < 3) {
                put_int(q, (int)n);
            }
        }
        for (size_t n = 3; n > 0; n--) {
            assert_int_equal(mproc_queue_qsize(q), n);
            get_int(q);
        }
    }
    mproc_queue_free(q);
}

static void after_a_put_of_ones_own_it_is_not_empty(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    int not_empty = 0;
    for (int i = 0; i < 500; i++) {
        put_int(q, i);
        not_empty += !mproc_queue_empty(q);
        assert_int_equal(get_int(q), i);
    }
    assert_int_equal(not_empty, 500);
    mproc_queue_free(q);
}

/*
 * Who holds what it locks may be off the processor for long; only then a call
 * without waiting may take as long as that and say no.
 */
static void expect_at_once(int err, double begin)
{
    if (seconds() - begin < 0.09) {
        assert_ok(err);
    }
}

/*
 * Each has at most one message in it: there is always room for one's own, and
 * always something to take after it.
 */
static int put_and_get_at_once(void *arg)
{
    for (int i = 0; i < 30000; i++) {
        double begin = seconds();
        int err = mproc_queue_put(arg, &i, sizeof i, MPROC_NOWAIT), got;
        expect_at_once(err, begin);
        begin = seconds();
        if (err == 0) {
            err = mproc_queue_get(arg, &got, sizeof got, NULL, MPROC_NOWAIT);
            expect_at_once(err, begin);
            if (err < 0) {
                get_int(arg);
            }
        }
    }
    return 0;
}

static void it_is_full_or_empty_only_when_it_is(void **state)
{
    (void)state;
    mproc_queue *q = bounded(3);
    pid_t pid[3];
    for (int i = 0; i < 3; i++) {
        pid[i] = test_fork(put_and_get_at_once, q);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(test_wait_exit(pid[i]), 0);
    }
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
}

/* The put wakes the first of them, who cannot take it and passes it on. */
static int get_one_byte(void *arg)
{
    char byte;
    return as_status(mproc_queue_get(arg, &byte, 1, NULL, MPROC_FOREVER));
}

static void a_getter_it_does_not_fit_wakes_the_next(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    pid_t small = fork_asleep(get_one_byte, q);
    pid_t large = fork_asleep(blocked_get, q);
    assert_ok(mproc_queue_put(q, "0123456789", 10, MPROC_NOWAIT));
    assert_int_equal(test_wait_exit(large), 0);
    /* it was asleep all the time, or woken and told the size */
    assert_ok(mproc_queue_put(q, "0123456789", 10, MPROC_NOWAIT));
    assert_int_equal(test_wait_exit(small), WAS_TOO_LARGE);
    mproc_queue_free(q);
}

/* ---- who uses it ------------------------------------------------------ */

static int make_and_send(void *arg)
{
    mproc_queue *q = new_queue(NULL);
    put_int(q, 42);
    assert_ok(MPROC_PUT(arg, mproc_queue *, q));
    return 0;
}

static int receive_and_use(void *arg)
{
    mproc_queue *q;
    assert_ok(MPROC_GET(arg, mproc_queue *, &q));
    assert_int_equal(get_int(q), 42);
    put_int(q, 43);
    assert_ok(MPROC_PUT(arg, mproc_queue *, q));
    return 0;
}

static void a_queue_made_in_a_child_serves_a_cousin(void **state)
{
    (void)state;
    mproc_queue *way = new_queue(NULL), *q;
    assert_int_equal(test_wait_exit(test_fork(make_and_send, way)), 0);
    assert_int_equal(test_wait_exit(test_fork(receive_and_use, way)), 0);
    assert_ok(MPROC_GET(way, mproc_queue *, &q));
    assert_int_equal(get_int(q), 43);
    mproc_queue_free(q);
    mproc_queue_free(way);
}

static int put_large_and_leave(void *arg)
{
    static char data[3 * MIB];
    fill(data, sizeof data, 5);
    assert_ok(mproc_queue_put(arg, data, sizeof data, MPROC_NOWAIT));
    put_int(arg, 6);
    _exit(0);
}

static void messages_outlive_their_sender(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    char *expected = malloc(3 * MIB);
    void *got;
    assert_int_equal(test_wait_exit(test_fork(put_large_and_leave, q)), 0);
    fill(expected, 3 * MIB, 5);
    assert_ok(mproc_queue_get_malloc(q, &got, NULL, TEST_BOUND));
    assert_memory_equal(got, expected, 3 * MIB);
    assert_int_equal(get_int(q), 6);
    free(got);
    free(expected);
    mproc_queue_free(q);
}

enum { MANY = 10000 };

static int put_many(void *arg)
{
    char data[4000];
    for (int i = 0; i < MANY; i++) {
        memset(data, i, sizeof data);
        memcpy(data, &i, sizeof i);
        assert_ok(mproc_queue_put(arg, data, sizeof data, TEST_BOUND));
    }
    return 0;
}

static void a_process_may_be_joined_before_its_queue_is_drained(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    mproc_process *p = NULL;
    char data[4000];
    assert_ok(mproc_process_new(&p, put_many, q, NULL));
    assert_ok(mproc_process_start(p));
    assert_ok(mproc_process_join(p, TEST_BOUND));
    mproc_process_free(p);
    assert_int_equal(mproc_queue_qsize(q), MANY);
    for (int i = 0; i < MANY; i++) {
        int number;
        assert_ok(mproc_queue_get(q, data, sizeof data, NULL, MPROC_NOWAIT));
        memcpy(&number, data, sizeof number);
        assert_int_equal(number, i);
        assert_int_equal(data[3999], (char)i);
    }
    mproc_queue_free(q);
}

/* ---- shutting down ---------------------------------------------------- */

static void a_shutdown_lets_the_rest_be_got(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    put_int(q, 1);
    put_int(q, 2);
    assert_ok(mproc_queue_shutdown(q, false));
    assert_ok(mproc_queue_shutdown(q, false));
    assert_err(mproc_queue_put(q, "", 1, MPROC_FOREVER), MPROC_ESHUTDOWN);
    assert_err(mproc_queue_putf(q, MPROC_FOREVER, "x"), MPROC_ESHUTDOWN);
    assert_int_equal(mproc_queue_qsize(q), 2);
    assert_int_equal(get_int(q), 1);
    assert_int_equal(get_int(q), 2);
    int value;
    void *data;
    assert_err(mproc_queue_get(q, &value, sizeof value, NULL, MPROC_FOREVER),
               MPROC_ESHUTDOWN);
    assert_err(mproc_queue_get_malloc(q, &data, NULL, MPROC_FOREVER),
               MPROC_ESHUTDOWN);
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_ok(mproc_queue_task_done(q));
    assert_ok(mproc_queue_task_done(q));
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    mproc_queue_free(q);
}

static void a_shutdown_at_once_drops_the_rest(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    put_int(q, 1);
    put_int(q, 2);
    put_int(q, 3);
    assert_int_equal(get_int(q), 1);
    pid_t joiner = fork_asleep(blocked_join, q);
    assert_ok(mproc_queue_shutdown(q, true));
    assert_int_equal(mproc_queue_qsize(q), 0);
    int value;
    assert_err(mproc_queue_get(q, &value, sizeof value, NULL, MPROC_FOREVER),
               MPROC_ESHUTDOWN);
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_ok(mproc_queue_task_done(q));
    assert_int_equal(test_wait_exit(joiner), 0);
    mproc_queue_free(q);
}

static void a_shutdown_ends_the_waits(void **state)
{
    (void)state;
    for (int immediate = 0; immediate < 2; immediate++) {
        mproc_queue *empty = new_queue(NULL), *full = bounded(1);
        mproc_queue *unfinished = joinable();
        pid_t child[5];
        put_int(full, 1);
        put_int(unfinished, 1);
        child[0] = fork_asleep(blocked_get, empty);
        child[1] = fork_asleep(blocked_get, empty);
        child[2] = fork_asleep(blocked_put, full);
        child[3] = fork_asleep(blocked_put, full);
        child[4] = fork_asleep(blocked_join, unfinished);
        assert_ok(mproc_queue_shutdown(empty, immediate));
        assert_ok(mproc_queue_shutdown(full, immediate));
        assert_ok(mproc_queue_shutdown(unfinished, true));
        for (int i = 0; i < 4; i++) {
            assert_int_equal(test_wait_exit(child[i]), WAS_SHUT_DOWN);
        }
        assert_int_equal(test_wait_exit(child[4]), 0);
        assert_int_equal(mproc_queue_qsize(full), immediate ? 0 : 1);
        mproc_queue_free(empty);
        mproc_queue_free(full);
        mproc_queue_free(unfinished);
    }
}

/* ---- joining ---------------------------------------------------------- */

static void join_waits_until_all_is_acknowledged(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    for (int i = 0; i < 200; i++) {
        put_int(q, i);
    }
    pid_t joiner = fork_asleep(blocked_join, q);
    for (int i = 0; i < 200; i++) {
        assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        assert_int_equal(get_int(q), i);
    }
    assert_err(mproc_queue_join(q, mproc_in_ms(5)), MPROC_ETIMEDOUT);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(waitpid(joiner, NULL, WNOHANG), 0);
        assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        assert_ok(mproc_queue_task_done(q));
    }
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    assert_ok(mproc_queue_join(q, MPROC_FOREVER));
    assert_int_equal(test_wait_exit(joiner), 0);
    mproc_queue_free(q);
}

static void more_task_done_than_messages_is_refused(void **state)
{
    (void)state;
    mproc_queue *q = joinable(), *plain = new_queue(NULL);
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    put_int(q, 1);
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    get_int(q);
    assert_ok(mproc_queue_task_done(q));
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));

    put_int(plain, 1);
    get_int(plain);
    assert_err(mproc_queue_task_done(plain), MPROC_EINVAL);
    assert_err(mproc_queue_join(plain, MPROC_FOREVER), MPROC_EINVAL);
    mproc_queue_free(plain);
    mproc_queue_free(q);
}

static void anyone_may_acknowledge(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    put_int(q, 1);
    get_int(q);
    assert_int_equal(test_wait_exit(test_fork(acknowledge_anothers, q)), 0);
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    mproc_queue_free(q);
}

static int take_and_wait_for_the_end(void *arg)
{
    get_int(arg);
    return pause();
}

static int take_and_leave(void *arg)
{
    get_int(arg);
    return 0;
}

static void what_a_dead_consumer_had_counts_as_done(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    put_int(q, 1);
    pid_t consumer = test_fork(take_and_wait_for_the_end, q);
    while (!mproc_queue_empty(q)) {
        usleep(200);
    }
    pid_t joiner = fork_asleep(blocked_join, q);
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    end_by_kill(consumer);
    assert_ok(mproc_queue_join(q, TEST_BOUND));
    assert_int_equal(test_wait_exit(joiner), 0);

    put_int(q, 2);
    assert_int_equal(test_wait_exit(test_fork(take_and_leave, q)), 0);
    assert_ok(mproc_queue_join(q, TEST_BOUND));
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    mproc_queue_free(q);
}

static void notes_of_who_took_what_do_not_pile_up(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    put_int(q, 0);
    assert_int_equal(test_wait_exit(test_fork(take_and_leave, q)), 0);
    put_int(q, 0);
    pid_t slow = test_fork(take_and_wait_for_the_end, q);
    while (!mproc_queue_empty(q)) {
        usleep(200);
    }
    size_t before = heap_now().in_use;
    for (int i = 0; i < 20000; i++) {
        put_int(q, i);
        get_int(q);
        assert_ok(mproc_queue_task_done(q));
    }
    assert_true(heap_now().in_use < before + 100 * KIB);
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    end_by_kill(slow);
    assert_ok(mproc_queue_join(q, TEST_BOUND));
    mproc_queue_free(q);
}

/* ---- deaths ----------------------------------------------------------- */

static int put_without_end(void *arg)
{
    static char data[3000];
    int err = 0;
    for (int i = 0; err == 0; i++) {
        memcpy(data, &i, sizeof i);
        err =
            mproc_queue_put(arg, data, i % 2 ? 4 : sizeof data, MPROC_FOREVER);
    }
    return as_status(err);
}

static int get_without_end(void *arg)
{
    static char data[3000];
    size_t size;
    int err = 0;
    while (err == 0) {
        err = mproc_queue_get(arg, data, sizeof data, &size, MPROC_FOREVER);
    }
    return as_status(err);
}

static void killed_users_leave_it_good(void **state)
{
    (void)state;
    mproc_queue *q = bounded(10);
    static char data[3000];
    for (int round = 0; round < 30; round++) {
        pid_t putter = test_fork(put_without_end, q);
        pid_t getter = test_fork(get_without_end, q);
        size_t size;
        for (int i = 0; i < 20 + round; i++) {
            assert_ok(mproc_queue_get(q, data, sizeof data, &size, TEST_BOUND));
        }
        end_by_kill(putter);
        end_by_kill(getter);
        while (mproc_queue_get(q, data, sizeof data, &size, MPROC_NOWAIT) ==
               0) {
        }
        assert_true(mproc_queue_empty(q));
        put_int(q, round);
        assert_int_equal(get_int(q), round);
    }
    mproc_queue_free(q);
}

/* ---- ends ------------------------------------------------------------- */

static void who_waits_for_a_freed_queue_is_told(void **state)
{
    (void)state;
    mproc_queue *q =
        new_queue(&(mproc_queue_opts){.maxsize = 1, .joinable = 1});
    mproc_queue *empty = new_queue(NULL);
    put_int(q, 1);
    pid_t child[] = {fork_asleep(blocked_put, q), fork_asleep(blocked_join, q),
                     fork_asleep(blocked_get, empty)};
    mproc_queue_free(q);
    mproc_queue_free(empty);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(test_wait_exit(child[i]), WAS_INVALID);
    }
}

/* Stopped while the queue is freed, they wake when another has its place. */
static void who_waited_for_a_freed_queue_does_not_use_the_next(void **state)
{
    (void)state;
    const mproc_queue_opts opts = {.maxsize = 1, .joinable = 1};
    mproc_queue *full = new_queue(&opts), *empty = new_queue(&opts);
    mproc_queue *unfinished = new_queue(&opts);
    put_int(full, 1);
    put_int(unfinished, 1);
    pid_t child[] = {fork_asleep(blocked_put, full),
                     fork_asleep(blocked_get, empty),
                     fork_asleep(blocked_join, unfinished)};
    for (int i = 0; i < 3; i++) {
        kill(child[i], SIGSTOP);
        await_state(child[i], 'T');
    }
    mproc_queue_free(unfinished);
    mproc_queue_free(empty);
    mproc_queue_free(full);
    mproc_queue *next[3];
    for (int i = 0; i < 3; i++) {
        next[i] = new_queue(&opts);
    }
    assert_ptr_equal(next[0], full); /* or nothing is tested */
    assert_ptr_equal(next[1], empty);
    put_int(next[1], 5);
    for (int i = 0; i < 3; i++) {
        kill(child[i], SIGCONT);
        assert_int_equal(test_wait_exit(child[i]), WAS_INVALID);
    }
    assert_int_equal(mproc_queue_qsize(next[0]), 0);
    assert_int_equal(mproc_queue_qsize(next[1]), 1);
    for (int i = 0; i < 3; i++) {
        mproc_queue_free(next[i]);
    }
}

static void expect_no_queue(mproc_queue *q)
{
    char byte = 1;
    size_t size;
    void *data;
    assert_err(mproc_queue_put(q, &byte, 1, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_queue_putf(q, MPROC_FOREVER, "x"), MPROC_EINVAL);
    assert_err(mproc_queue_get(q, &byte, 1, &size, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_queue_get_malloc(q, &data, &size, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_int_equal(mproc_queue_qsize(q), 0);
    assert_false(mproc_queue_empty(q));
    assert_false(mproc_queue_full(q));
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    assert_err(mproc_queue_join(q, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_queue_shutdown(q, true), MPROC_EINVAL);
    mproc_queue_free(q);
}

static void what_is_no_queue_is_refused(void **state)
{
    (void)state;
    mproc_queue *freed = new_queue(NULL);
    mproc_lock *lock = NULL;
    char *block = mproc_calloc(1, 4 * KIB);
    static char own[256];
    mproc_queue_free(freed);
    assert_ok(mproc_lock_new(&lock));
    expect_no_queue(NULL);
    expect_no_queue(freed);
    expect_no_queue((mproc_queue *)lock);
    expect_no_queue((mproc_queue *)block);
    expect_no_queue((mproc_queue *)own);
    expect_no_queue((mproc_queue *)(own + 1));
    expect_no_queue((mproc_queue *)UINTPTR_MAX);
    mproc_lock_free(lock);
    mproc_free(block);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL), *none = NULL;
    char byte;
    assert_err(mproc_queue_put(q, NULL, 1, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_queue_get(q, NULL, 1, NULL, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_queue_put(q, &byte, SIZE_MAX, MPROC_FOREVER),
               MPROC_ENOMEM);
    assert_err(mproc_queue_put(q, &byte, SIZE_MAX / 4, MPROC_FOREVER),
               MPROC_ENOMEM);
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
    assert_err(mproc_queue_new(NULL, NULL), MPROC_EINVAL);
    const struct {
        mproc_queue_opts opts;
        int outcome;
    } refused[] = {
        {{.order = 3}, MPROC_EINVAL},
        {{.order = -1}, MPROC_EINVAL},
        {{.reserved = 1}, MPROC_ENOTSUP},
        {{.redeliver = 1}, MPROC_EINVAL},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_err(mproc_queue_new(&none, &refused[i].opts),
                   refused[i].outcome);
        assert_null(none);
    }
}

/* ---- waits ------------------------------------------------------------ */

static _Atomic int *signals;

static void count_signal(int signal)
{
    (void)signal;
    atomic_fetch_add(signals, 1);
}

static void storm(void)
{
    const struct sigaction action = {.sa_handler = count_signal};
    const struct itimerval each_ms = {{0, 1000}, {0, 1000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &each_ms, NULL);
}

static int get_in_a_storm(void *arg)
{
    storm();
    return blocked_get(arg);
}

static int put_in_a_storm(void *arg)
{
    storm();
    return blocked_put(arg);
}

static int join_in_a_storm(void *arg)
{
    storm();
    return blocked_join(arg);
}

static void await_signals(pid_t pid)
{
    double until = seconds() + 30;
    int seen = atomic_load(signals);
    while (atomic_load(signals) < seen + 100) { /* over the first 50 ms */
        assert_true(seconds() < until);
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        usleep(1000);
    }
}

static void signals_do_not_end_a_wait(void **state)
{
    (void)state;
    mproc_queue *q =
        new_queue(&(mproc_queue_opts){.maxsize = 1, .joinable = 1});
    signals = mproc_calloc(1, sizeof *signals);
    pid_t getter = test_fork(get_in_a_storm, q);
    await_signals(getter);
    put_int(q, 1);
    assert_int_equal(test_wait_exit(getter), 0);

    put_int(q, 1);
    pid_t putter = test_fork(put_in_a_storm, q);
    await_signals(putter);
    get_int(q);
    assert_int_equal(test_wait_exit(putter), 0);
    get_int(q);

    pid_t joiner = test_fork(join_in_a_storm, q);
    await_signals(joiner);
    assert_ok(mproc_queue_task_done(q));
    assert_ok(mproc_queue_task_done(q));
    assert_int_equal(test_wait_exit(joiner), 0);
    mproc_free(signals);
    mproc_queue_free(q);
}

static void a_deadline_that_is_no_time_is_now(void **state)
{
    (void)state;
    mproc_queue *q =
        new_queue(&(mproc_queue_opts){.maxsize = 1, .joinable = 1});
    const mproc_deadline now[] = {mproc_in_ms(-1),       mproc_in_ms(NAN),
                                  mproc_in_s(-INFINITY), mproc_in_s(0),
                                  mproc_deadline_at_(0), MPROC_NOWAIT,
                                  mproc_deadline_at_(-5)};
    int value = 1;
    for (size_t i = 0; i < sizeof now / sizeof *now; i++) {
        assert_err(mproc_queue_get(q, &value, sizeof value, NULL, now[i]),
                   MPROC_EEMPTY);
        assert_ok(mproc_queue_put(q, &value, sizeof value, now[i]));
        assert_err(mproc_queue_put(q, &value, sizeof value, now[i]),
                   MPROC_EFULL);
        assert_err(mproc_queue_join(q, now[i]), MPROC_ETIMEDOUT);
        assert_ok(mproc_queue_get(q, &value, sizeof value, NULL, now[i]));
        assert_ok(mproc_queue_task_done(q));
        assert_ok(mproc_queue_join(q, now[i]));
    }
    mproc_queue_free(q);
}

/* ---- memory ----------------------------------------------------------- */

static void a_thousand_queues_leave_the_heap_as_it_was(void **state)
{
    (void)state;
    enum { QUEUES = 1000 };
    static mproc_queue *q[QUEUES];
    static char large[3000];
    size_t high_water = 0;
    for (int round = 0; round < 3; round++) {
        mproc_heap_info before = heap_now();
        for (int i = 0; i < QUEUES; i++) {
            q[i] = new_queue(&(mproc_queue_opts){.joinable = i % 2});
            assert_ok(mproc_queue_put(q[i], large, i % 3 ? sizeof large : 3,
                                      MPROC_NOWAIT));
        }
        for (int i = 0; i < QUEUES; i++) {
            mproc_queue_free(q[i]);
        }
        mproc_heap_info after = heap_now();
        assert_int_equal(after.in_use, before.in_use);
        assert_int_equal(after.blocks, before.blocks);
        assert_true(round == 0 || after.high_water == high_water);
        high_water = after.high_water;
    }
}

/* Run as a program of its own: the limit must be set before the first use. */
static int with_a_small_heap(void)
{
    const mproc_config config = {.heap_max = 2 * MIB};
    static char data[60 * KIB];
    assert_ok(mproc_configure(&config));
    mproc_queue *q = joinable();
    mproc_heap_info before = heap_now();
    for (int round = 0; round < 3; round++) {
        int count = 0, err;
        while ((err = mproc_queue_put(q, data, sizeof data, MPROC_FOREVER)) ==
               0) {
            count++;
        }
        assert_err(err, MPROC_ENOMEM);
        assert_true(count >= 20);
        assert_int_equal(mproc_queue_qsize(q), count);
        put_int(q, 5); /* which takes no memory */
        for (int i = 0; i <= count; i++) {
            size_t size, last = order == MPROC_LIFO ? 0 : (size_t)count;
            assert_ok(
                mproc_queue_get(q, data, sizeof data, &size, MPROC_NOWAIT));
            assert_int_equal(size,
                             (size_t)i == last ? sizeof(int) : sizeof data);
            assert_ok(mproc_queue_task_done(q));
        }
        assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
        mproc_heap_info after = heap_now();
        assert_int_equal(after.blocks, before.blocks);
        assert_int_equal(after.in_use, before.in_use);
    }
    assert_err(mproc_queue_put(q, data, 100 * MIB, MPROC_FOREVER),
               MPROC_ENOMEM);
    mproc_queue_free(q);
    int queues = 0, err;
    mproc_queue *another;
    while ((err = mproc_queue_new(&another, NULL)) == 0) {
        queues++;
    }
    assert_err(err, MPROC_ENOMEM);
    assert_true(queues > 100);
    return 0;
}

static void without_memory_put_says_so_and_nothing_is_lost(void **state)
{
    (void)state;
    expect_good_with_a_small_heap();
}

int main(int argc, char **argv)
{
    if (!order_is_read(argc, argv)) {
        return 2;
    }
    if (is_small_heap(argc, argv)) {
        return with_a_small_heap();
    }
    const struct CMUnitTest first_come_first_served[] = {
        cmocka_unit_test(any_size_comes_through_whole),
        cmocka_unit_test(putf_puts_what_printf_would_print),
        cmocka_unit_test(a_full_queue_refuses_at_once_or_after_the_time),
        cmocka_unit_test(without_a_limit_it_is_never_full),
        cmocka_unit_test(messages_outlive_their_sender),
        cmocka_unit_test(a_process_may_be_joined_before_its_queue_is_drained),
        cmocka_unit_test(a_shutdown_lets_the_rest_be_got),
        cmocka_unit_test(a_shutdown_at_once_drops_the_rest),
        cmocka_unit_test(join_waits_until_all_is_acknowledged),
    };
    const struct CMUnitTest in_any_order[] = {
        cmocka_unit_test(a_crowd_gets_each_message_once_and_in_order),
        cmocka_unit_test(a_message_that_does_not_fit_stays_and_tells_its_size),
        cmocka_unit_test(without_a_size_the_message_must_be_exactly_as_large),
        cmocka_unit_test(get_malloc_gives_memory_with_a_nul_behind),
        cmocka_unit_test(values_of_a_type_are_put_and_got),
        cmocka_unit_test(an_empty_queue_refuses_at_once_or_after_the_time),
        cmocka_unit_test(a_blocked_put_goes_on_after_a_get),
        cmocka_unit_test(a_blocked_get_goes_on_after_a_put),
        cmocka_unit_test(it_tells_how_much_is_in_it_at_each_step),
        cmocka_unit_test(after_a_put_of_ones_own_it_is_not_empty),
        cmocka_unit_test(it_is_full_or_empty_only_when_it_is),
        cmocka_unit_test(a_getter_it_does_not_fit_wakes_the_next),
        cmocka_unit_test(a_queue_made_in_a_child_serves_a_cousin),
        cmocka_unit_test(a_shutdown_ends_the_waits),
        cmocka_unit_test(more_task_done_than_messages_is_refused),
        cmocka_unit_test(anyone_may_acknowledge),
        cmocka_unit_test(what_a_dead_consumer_had_counts_as_done),
        cmocka_unit_test(notes_of_who_took_what_do_not_pile_up),
        cmocka_unit_test(killed_users_leave_it_good),
        cmocka_unit_test(who_waits_for_a_freed_queue_is_told),
        cmocka_unit_test(who_waited_for_a_freed_queue_does_not_use_the_next),
        cmocka_unit_test(what_is_no_queue_is_refused),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(signals_do_not_end_a_wait),
        cmocka_unit_test(a_deadline_that_is_no_time_is_now),
        cmocka_unit_test(a_thousand_queues_leave_the_heap_as_it_was),
        cmocka_unit_test(without_memory_put_says_so_and_nothing_is_lost),
        cmocka_unit_test(nothing_is_left_of_it_all),
    };
    int failed = order == MPROC_LIFO
                     ? 0
                     : cmocka_run_group_tests(first_come_first_served,
                                              remember_heap, NULL);
    return failed + cmocka_run_group_tests(in_any_order, remember_heap, NULL);
}
