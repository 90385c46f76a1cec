/* SPDX-License-Identifier: MIT */
/*
 * Queue: mproc_queue_put_many and mproc_queue_get_many.
 *
 * usage: test_queue_many [fifo | lifo | priority]
 */
#include "queue_support.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>

enum { SOME = 500 };

/* What number i of a series looks like. */
static void compose(char *item, size_t size, int i)
{
    fill(item, size, (unsigned)i * 13);
}

static char *compose_all(size_t size, int count)
{
    char *items = malloc(size * (size_t)count + 1);
    assert_non_null(items);
    for (int i = 0; i < count; i++) {
        compose(items + (size_t)i * size, size, i);
    }
    return items;
}

/* Which of `count` comes as the nth. */
static int nth(int n, int count)
{
    return order == MPROC_LIFO ? count - 1 - n : n;
}

static void expect_in_order(const char *got, size_t size, int first, int n)
{
    char *expected = malloc(size + 1);
    for (int i = 0; i < n; i++) {
        compose(expected, size, nth(first + i, SOME));
        assert_memory_equal(got + (size_t)i * size, expected, size);
    }
    free(expected);
}

/* ---- going through ---------------------------------------------------- */

static const size_t sizes[] = {1, 8, 64, 1000, 1024, 1025, 5000};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void many_go_in_one_call_and_come_in_order(void **state)
{
    (void)state;
    static const size_t calls[] = {1, 7, 64, SOME, 3 * SOME};
    for (int s = 0; s < SIZES; s++) {
        for (int c = 0; c < 5; c++) {
            mproc_queue *q = new_queue(NULL);
            char *items = compose_all(sizes[s], SOME);
            assert_int_equal(
                mproc_queue_put_many(q, items, sizes[s], SOME, MPROC_NOWAIT),
                SOME);
            assert_int_equal(mproc_queue_qsize(q), SOME);
            memset(items, 0, sizes[s] * SOME);
            for (int had = 0; had < SOME;) {
                size_t most = calls[c];
                char *got = malloc(sizes[s] * most);
                int n =
                    mproc_queue_get_many(q, got, sizes[s], most, MPROC_NOWAIT);
                int left = SOME - had;
                assert_int_equal(n, left < (int)most ? left : (int)most);
                expect_in_order(got, sizes[s], had, n);
                had += n;
                free(got);
            }
            assert_true(mproc_queue_empty(q));
            free(items);
            mproc_queue_free(q);
        }
    }
}

static void one_by_one_and_many_may_be_mixed(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    int put = 0, got = 0;
    for (int round = 0; round < 300; round++) {
        int items[40], n = round % 40 + 1;
        for (int i = 0; i < n; i++) {
            items[i] = put++;
        }
        assert_int_equal(mproc_queue_put_many(q, items, sizeof *items,
                                              (size_t)n, MPROC_NOWAIT),
                         n);
        put_int(q, put++);
        if (order == MPROC_LIFO) {
            assert_int_equal(get_int(q), put - 1);
            n = mproc_queue_get_many(q, items, sizeof *items, 40, MPROC_NOWAIT);
            for (int i = 0; i < n; i++) {
                assert_int_equal(items[i], put - 2 - i);
            }
            put = 0;
            continue;
        }
        assert_int_equal(get_int(q), got++);
        n = mproc_queue_get_many(q, items, sizeof *items, 15, MPROC_NOWAIT);
        for (int i = 0; i < n; i++) {
            assert_int_equal(items[i], got++);
        }
    }
    mproc_queue_free(q);
}

static void empty_messages_go_as_well(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    assert_int_equal(mproc_queue_put_many(q, NULL, 0, 100, MPROC_NOWAIT), 100);
    assert_int_equal(mproc_queue_qsize(q), 100);
    assert_int_equal(mproc_queue_get_many(q, NULL, 0, 70, MPROC_NOWAIT), 70);
    assert_int_equal(mproc_queue_get_many(q, NULL, 0, 70, MPROC_NOWAIT), 30);
    assert_int_equal(mproc_queue_put_many(q, NULL, 8, 0, MPROC_NOWAIT), 0);
    assert_int_equal(mproc_queue_get_many(q, NULL, 8, 0, MPROC_FOREVER), 0);
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
}

static void get_many_takes_what_is_there(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    int items[10] = {1, 2, 3};
    assert_err(mproc_queue_get_many(q, items, sizeof *items, 10, MPROC_NOWAIT),
               MPROC_EEMPTY);
    double begin = seconds();
    assert_err(
        mproc_queue_get_many(q, items, sizeof *items, 10, mproc_in_ms(30)),
        MPROC_EEMPTY);
    assert_true(seconds() - begin >= 0.03);
    assert_int_equal(
        mproc_queue_put_many(q, items, sizeof *items, 3, MPROC_NOWAIT), 3);
    assert_int_equal(
        mproc_queue_get_many(q, items, sizeof *items, 10, MPROC_FOREVER), 3);
    mproc_queue_free(q);
}

static void a_message_of_another_size_is_where_get_many_stops(void **state)
{
    (void)state;
    if (order == MPROC_LIFO) {
        return;
    }
    static const size_t other[] = {4, 16, 0, 2000};
    for (int i = 0; i < 4; i++) {
        mproc_queue *q = new_queue(NULL);
        int64_t items[8] = {0, 1, 2, 3};
        char odd[2000] = "";
        assert_int_equal(mproc_queue_put_many(q, items, 8, 2, MPROC_NOWAIT), 2);
        assert_ok(mproc_queue_put(q, odd, other[i], MPROC_NOWAIT));
        assert_int_equal(mproc_queue_put_many(q, items + 2, 8, 2, MPROC_NOWAIT),
                         2);
        memset(items, 0, sizeof items);
        assert_int_equal(mproc_queue_get_many(q, items, 8, 8, MPROC_FOREVER),
                         2);
        assert_int_equal(items[1], 1);
        assert_err(mproc_queue_get_many(q, items, 8, 8, MPROC_FOREVER),
                   MPROC_EMSGSIZE);
        assert_int_equal(mproc_queue_qsize(q), 3);
        assert_ok(mproc_queue_get(q, odd, other[i], NULL, MPROC_NOWAIT));
        assert_int_equal(mproc_queue_get_many(q, items, 8, 8, MPROC_FOREVER),
                         2);
        assert_int_equal(items[1], 3);
        mproc_queue_free(q);
    }
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    char item[8] = "";
    assert_err(mproc_queue_put_many(q, item, SIZE_MAX / 2, 3, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_queue_get_many(q, item, SIZE_MAX / 2, 3, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_queue_put_many(q, item, 2, SIZE_MAX, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_queue_put_many(q, NULL, 1, 1, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_queue_get_many(q, NULL, 1, 1, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_queue_put_many(q, item, SIZE_MAX / 4, 2, MPROC_FOREVER),
               MPROC_ENOMEM);
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
}

/* ---- room ------------------------------------------------------------- */

static void put_many_puts_what_there_is_room_for(void **state)
{
    (void)state;
    mproc_queue *q = bounded(5);
    int items[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    put_int(q, 100);
    double begin = seconds();
    assert_int_equal(
        mproc_queue_put_many(q, items, sizeof *items, 10, mproc_in_ms(30)), 4);
    assert_true(seconds() - begin >= 0.03);
    assert_true(mproc_queue_full(q));
    assert_err(
        mproc_queue_put_many(q, items + 4, sizeof *items, 6, MPROC_NOWAIT),
        MPROC_EFULL);
    int got[5];
    assert_int_equal(mproc_queue_get_many(q, got, sizeof *got, 5, MPROC_NOWAIT),
                     5);
    assert_int_equal(got[nth(4, 5)], 3);
    assert_int_equal(
        mproc_queue_put_many(q, items + 4, sizeof *items, 6, MPROC_NOWAIT), 5);
    mproc_queue_free(q);
}

enum { LONG = 5000 };

static int put_a_long_series(void *arg)
{
    static int items[LONG];
    for (int i = 0; i < LONG; i++) {
        items[i] = i;
    }
    return mproc_queue_put_many(arg, items, sizeof *items, LONG,
                                MPROC_FOREVER) == LONG
               ? 0
               : 1;
}

static void put_many_waits_until_all_have_gone(void **state)
{
    (void)state;
    mproc_queue *q = bounded(3);
    static bool had[LONG];
    memset(had, 0, sizeof had);
    pid_t pid = fork_asleep(put_a_long_series, q);
    for (int count = 0; count < LONG;) {
        int got[2], n = mproc_queue_get_many(q, got, sizeof *got,
                                             (size_t)count % 2 + 1, TEST_BOUND);
        assert_true(n > 0);
        for (int i = 0; i < n; i++) {
            assert_true(got[i] >= 0 && got[i] < LONG && !had[got[i]]);
            had[got[i]] = true;
        }
        count += n;
    }
    assert_int_equal(test_wait_exit(pid), 0);
    mproc_queue_free(q);
}

static int put_five_into_three_places(void *arg)
{
    int items[5] = {0};
    return mproc_queue_put_many(arg, items, sizeof *items, 5, MPROC_FOREVER);
}

static void a_shutdown_ends_it_after_those_that_went(void **state)
{
    (void)state;
    mproc_queue *q = bounded(3);
    pid_t pid = fork_asleep(put_five_into_three_places, q);
    assert_ok(mproc_queue_shutdown(q, false));
    assert_int_equal(test_wait_exit(pid), 3);
    int items[5] = {0};
    assert_err(mproc_queue_put_many(q, items, sizeof *items, 5, MPROC_FOREVER),
               MPROC_ESHUTDOWN);
    assert_int_equal(
        mproc_queue_get_many(q, items, sizeof *items, 5, MPROC_FOREVER), 3);
    assert_err(mproc_queue_get_many(q, items, sizeof *items, 5, MPROC_FOREVER),
               MPROC_ESHUTDOWN);
    mproc_queue_free(q);
}

static void a_batch_wakes_as_many_as_it_has_messages(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    pid_t pid[4];
    for (int i = 0; i < 4; i++) {
        pid[i] = fork_asleep(blocked_get, q);
    }
    char items[4 * 16] = "";
    assert_int_equal(mproc_queue_put_many(q, items, 16, 4, MPROC_NOWAIT), 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(test_wait_exit(pid[i]), 0);
    }
    assert_true(mproc_queue_empty(q));

    mproc_queue *full = bounded(4);
    int got[4] = {0};
    assert_int_equal(
        mproc_queue_put_many(full, got, sizeof *got, 4, MPROC_NOWAIT), 4);
    for (int i = 0; i < 4; i++) {
        pid[i] = fork_asleep(blocked_put, full);
    }
    assert_int_equal(
        mproc_queue_get_many(full, got, sizeof *got, 4, MPROC_NOWAIT), 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(test_wait_exit(pid[i]), 0);
    }
    mproc_queue_free(full);
    mproc_queue_free(q);
}

/* ---- joining ---------------------------------------------------------- */

static void each_of_many_is_acknowledged_by_itself(void **state)
{
    (void)state;
    for (int redeliver = 0; redeliver < 2; redeliver++) {
        mproc_queue *q = new_queue(
            &(mproc_queue_opts){.joinable = 1, .redeliver = redeliver});
        int items[200] = {0};
        for (int round = 0; round < 5; round++) {
            assert_int_equal(mproc_queue_put_many(q, items, sizeof *items, 200,
                                                  MPROC_NOWAIT),
                             200);
            assert_int_equal(mproc_queue_get_many(q, items, sizeof *items, 200,
                                                  MPROC_NOWAIT),
                             200);
            for (int i = 0; i < 200; i++) {
                assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
                assert_ok(mproc_queue_task_done(q));
            }
            assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
            assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
        }
        mproc_queue_free(q);
    }
}

/* ---- a crowd ---------------------------------------------------------- */

enum { BATCH = 100 };

struct item {
    int producer, number;
    char filling[52];
};

static int produce(void *arg)
{
    const struct crowd *crowd = arg;
    static struct item items[BATCH];
    for (int number = 0, n = 1; number < crowd->each; n = n * 7 % BATCH + 1) {
        n = n < crowd->each - number ? n : crowd->each - number;
        for (int i = 0; i < n; i++) {
            items[i].producer = crowd->me;
            items[i].number = number++;
        }
        assert_int_equal(mproc_queue_put_many(crowd->q, items, sizeof *items,
                                              (size_t)n, TEST_BOUND),
                         n);
    }
    return 0;
}

static int consume(void *arg)
{
    const struct crowd *crowd = arg;
    static struct item items[BATCH];
    int last[PRODUCERS] = {-1, -1, -1}, n;
    while ((n = mproc_queue_get_many(crowd->q, items, sizeof *items,
                                     (size_t)(last[0] % (BATCH - 2) + 2),
                                     TEST_BOUND)) > 0) {
        for (int i = 0; i < n; i++) {
            int from = items[i].producer, number = items[i].number;
            assert_true(order == MPROC_LIFO || number > last[from]);
            last[from] = number;
            take_note(crowd, from, number);
        }
    }
    assert_err(n, MPROC_ESHUTDOWN);
    return 0;
}

static void a_crowd_gets_each_once_and_in_order(void **state)
{
    (void)state;
    run_a_crowd(new_queue(NULL), 9000, produce, consume);
    run_a_crowd(bounded(150), 9000, produce, consume);
}

/* ---- memory ----------------------------------------------------------- */

/* Run as a program of its own: the limit must be set before the first use. */
static int with_a_small_heap(void)
{
    enum { LARGE = 5000, COUNT = 1000 };
    const mproc_config config = {.heap_max = 2 * MIB};
    assert_ok(mproc_configure(&config));
    mproc_queue_free(new_queue(NULL));
    mproc_heap_info before = heap_now();
    mproc_queue *q = new_queue(NULL);
    char *items = compose_all(LARGE, COUNT);
    int n = mproc_queue_put_many(q, items, LARGE, COUNT, MPROC_FOREVER);
    assert_true(n > 100 && n < COUNT);
    assert_int_equal(mproc_queue_qsize(q), n);
    assert_err(mproc_queue_put_many(q, items, LARGE, COUNT, MPROC_FOREVER),
               MPROC_ENOMEM);
    assert_int_equal(
        mproc_queue_get_many(q, items, LARGE, COUNT, MPROC_FOREVER), n);
    mproc_queue_free(q);
    assert_int_equal(heap_now().blocks, before.blocks);
    free(items);
    return 0;
}

static void without_memory_it_says_how_many_went(void **state)
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(many_go_in_one_call_and_come_in_order,
                               remember_heap),
        cmocka_unit_test(one_by_one_and_many_may_be_mixed),
        cmocka_unit_test(empty_messages_go_as_well),
        cmocka_unit_test(get_many_takes_what_is_there),
        cmocka_unit_test(a_message_of_another_size_is_where_get_many_stops),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(put_many_puts_what_there_is_room_for),
        cmocka_unit_test(put_many_waits_until_all_have_gone),
        cmocka_unit_test(a_shutdown_ends_it_after_those_that_went),
        cmocka_unit_test(a_batch_wakes_as_many_as_it_has_messages),
        cmocka_unit_test(each_of_many_is_acknowledged_by_itself),
        cmocka_unit_test(a_crowd_gets_each_once_and_in_order),
        cmocka_unit_test(without_memory_it_says_how_many_went),
        cmocka_unit_test(nothing_is_left_of_it_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
