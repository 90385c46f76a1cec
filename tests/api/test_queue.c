/* SPDX-License-Identifier: MIT */
/*
 * Queue: messages, who uses it, and memory. What <mproc/queue.h> promises holds
 * in a queue of MPROC_PRIORITY as it does in others while nobody gives a
 * priority, and in one of MPROC_LIFO but for what is about the order.
 *
 * usage: test_queue [fifo | lifo | priority]
 */
#include "queue_support.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
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

/* ---- what is refused -------------------------------------------------- */

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
        cmocka_unit_test(messages_outlive_their_sender),
        cmocka_unit_test(a_process_may_be_joined_before_its_queue_is_drained),
    };
    const struct CMUnitTest in_any_order[] = {
        cmocka_unit_test(a_crowd_gets_each_message_once_and_in_order),
        cmocka_unit_test(a_message_that_does_not_fit_stays_and_tells_its_size),
        cmocka_unit_test(without_a_size_the_message_must_be_exactly_as_large),
        cmocka_unit_test(get_malloc_gives_memory_with_a_nul_behind),
        cmocka_unit_test(values_of_a_type_are_put_and_got),
        cmocka_unit_test(a_queue_made_in_a_child_serves_a_cousin),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(a_thousand_queues_leave_the_heap_as_it_was),
        cmocka_unit_test(without_memory_put_says_so_and_nothing_is_lost),
        cmocka_unit_test(nothing_is_left_of_it_all),
    };
    return run_in_order(first_come_first_served, in_any_order);
}
