/* SPDX-License-Identifier: MIT */
/* Queues of MPROC_LIFO and MPROC_PRIORITY: what their order adds to a queue. */
#include "queue_support.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static mproc_queue *queue_of(int its)
{
    order = its;
    return new_queue(NULL);
}

static void put_with(mproc_queue *q, int64_t priority, int value)
{
    assert_ok(mproc_queue_put_priority(q, priority, &value, sizeof value,
                                       TEST_BOUND));
}

static uint32_t random_state = 1;

/* The same numbers in each run. */
static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % limit;
}

/* ---- the order -------------------------------------------------------- */

static void the_newest_is_taken_first(void **state)
{
    (void)state;
    mproc_queue *q = queue_of(MPROC_LIFO);
    for (int i = 0; i < 5000; i++) {
        assert_ok(mproc_queue_put(q, &i, sizeof i, MPROC_NOWAIT));
        if (i % 3 == 2) {
            assert_int_equal(get_int(q), i);
        }
    }
    for (int i = 4999; i >= 0; i--) {
        if (i % 3 != 2) {
            assert_int_equal(get_int(q), i);
        }
    }
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
}

static void the_lowest_is_taken_first(void **state)
{
    (void)state;
    static const int64_t priority[] = {3, -7, INT64_MAX, 0, INT64_MIN, 1};
    static const int expected[] = {4, 1, 3, 5, 0, 2};
    mproc_queue *q = queue_of(MPROC_PRIORITY);
    for (int i = 0; i < 6; i++) {
        put_with(q, priority[i], i);
    }
    for (int i = 0; i < 6; i++) {
        assert_int_equal(mproc_queue_qsize(q), 6 - i);
        assert_int_equal(get_int(q), expected[i]);
    }
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(q);
}

static void equals_are_served_as_they_came(void **state)
{
    (void)state;
    enum { KINDS = 7, EACH = 3000 };
    mproc_queue *q = queue_of(MPROC_PRIORITY);
    for (int i = 0; i < KINDS * EACH; i++) {
        put_with(q, i * 5 % KINDS, i / KINDS);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        for (int i = 0; i < EACH; i++) {
            assert_int_equal(get_int(q), i);
        }
    }
    mproc_queue_free(q);
}

static void a_plain_put_has_the_priority_zero(void **state)
{
    (void)state;
    mproc_queue *q = queue_of(MPROC_PRIORITY);
    void *text;
    put_with(q, 1, 1);
    assert_ok(mproc_queue_put(q, &(int){2}, sizeof(int), MPROC_NOWAIT));
    put_with(q, 0, 3);
    assert_ok(mproc_queue_putf(q, MPROC_NOWAIT, "%d", 4));
    put_with(q, -1, 5);
    assert_int_equal(get_int(q), 5);
    assert_int_equal(get_int(q), 2);
    assert_int_equal(get_int(q), 3);
    assert_ok(mproc_queue_get_malloc(q, &text, NULL, MPROC_NOWAIT));
    assert_string_equal(text, "4");
    free(text);
    assert_int_equal(get_int(q), 1);
    mproc_queue_free(q);
}

static void a_priority_is_refused_where_it_means_nothing(void **state)
{
    (void)state;
    mproc_queue *fifo = queue_of(MPROC_FIFO), *lifo = queue_of(MPROC_LIFO);
    mproc_queue *gone = queue_of(MPROC_PRIORITY);
    mproc_queue *q = queue_of(MPROC_PRIORITY);
    mproc_queue_free(gone);
    mproc_queue *const refused[] = {fifo, lifo, gone, NULL};
    for (int i = 0; i < 4; i++) {
        assert_err(
            mproc_queue_put_priority(refused[i], 0, "x", 1, MPROC_FOREVER),
            MPROC_EINVAL);
        assert_int_equal(mproc_queue_qsize(refused[i]), 0);
    }
    assert_err(mproc_queue_put_priority(q, 1, NULL, 1, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_true(mproc_queue_empty(q));
    mproc_queue_free(fifo);
    mproc_queue_free(lifo);
    mproc_queue_free(q);
}

/* ---- any size, any depth, against a model ----------------------------- */

struct entry {
    int64_t priority;
    int number;
    uint32_t size;
};

struct model {
    struct entry *entries;
    size_t count;
    int order;
};

/* Which of the entries is the next one. */
static size_t next_of(const struct model *model)
{
    size_t next = model->order == MPROC_LIFO ? model->count - 1 : 0;
    for (size_t i = 0; model->order != MPROC_LIFO && i < model->count; i++) {
        const struct entry *a = &model->entries[i];
        const struct entry *b = &model->entries[next];
        if (a->priority < b->priority ||
            (a->priority == b->priority && a->number < b->number)) {
            next = i;
        }
    }
    return next;
}

static void compose(char *data, const struct entry *entry)
{
    memset(data, entry->number * 7 + 1, entry->size);
    memcpy(data, &entry->number,
           entry->size < sizeof(int) ? entry->size : sizeof(int));
}

static void put_entry(mproc_queue *q, struct model *model, int number)
{
    static const uint32_t sizes[] = {0, 1, 4, 8, 64, 71, 72, 73, 500, 3000};
    static char data[3000];
    struct entry entry = {(int64_t)random_below(50) - 25, number,
                          sizes[random_below(10)]};
    compose(data, &entry);
    assert_ok(model->order == MPROC_LIFO
                  ? mproc_queue_put(q, data, entry.size, MPROC_NOWAIT)
                  : mproc_queue_put_priority(q, entry.priority, data,
                                             entry.size, MPROC_NOWAIT));
    model->entries[model->count++] = entry;
}

/* First in too small a buffer, which changes nothing. */
static void get_entry(mproc_queue *q, struct model *model)
{
    static char expected[3000], got[3001];
    size_t next = next_of(model), size = 0;
    struct entry entry = model->entries[next];
    compose(expected, &entry);
    if (entry.size > 0) {
        assert_err(mproc_queue_get(q, got, entry.size - 1, &size, MPROC_NOWAIT),
                   MPROC_EMSGSIZE);
        assert_int_equal(size, entry.size);
    }
    assert_ok(mproc_queue_get(q, got, sizeof got, &size, MPROC_NOWAIT));
    assert_int_equal(size, entry.size);
    assert_memory_equal(got, expected, size);
    memmove(&model->entries[next], &model->entries[next + 1],
            (--model->count - next) * sizeof entry);
}

static void expect_as_the_model(int its, uint32_t most)
{
    mproc_queue *q = queue_of(its);
    struct model model = {.order = its};
    model.entries = calloc(most + 1, sizeof *model.entries);
    size_t before = heap_now().in_use;
    int number = 0;
    for (int round = 0; round < 3; round++) {
        uint32_t top = random_below(most) + 1;
        while (model.count < top) {
            put_entry(q, &model, number++);
            if (random_below(3) == 0) {
                get_entry(q, &model);
            }
            assert_int_equal(mproc_queue_qsize(q), model.count);
        }
        while (model.count > (round < 2 ? top / 4 : 0)) {
            get_entry(q, &model);
            assert_int_equal(mproc_queue_empty(q), model.count == 0);
        }
    }
    assert_int_equal(heap_now().in_use, before);
    free(model.entries);
    mproc_queue_free(q);
}

static void it_does_what_a_sorted_list_does(void **state)
{
    (void)state;
    static const uint32_t most[] = {1, 5, 17, 40, 300, 5000};
    for (int i = 0; i < 6; i++) {
        for (int repeat = 0; repeat < (i < 4 ? 30 : 1); repeat++) {
            expect_as_the_model(MPROC_PRIORITY, most[i]);
            expect_as_the_model(MPROC_LIFO, most[i]);
        }
    }
}

static void what_does_not_fit_keeps_its_place(void **state)
{
    (void)state;
    mproc_queue *q = queue_of(MPROC_PRIORITY);
    char got[8];
    size_t size = 0;
    assert_ok(mproc_queue_put_priority(q, 2, "12345678", 8, MPROC_NOWAIT));
    assert_ok(mproc_queue_put_priority(q, 3, "x", 1, MPROC_NOWAIT));
    assert_err(mproc_queue_get(q, got, 7, &size, MPROC_NOWAIT), MPROC_EMSGSIZE);
    assert_err(mproc_queue_get(q, got, 7, NULL, MPROC_NOWAIT), MPROC_EMSGSIZE);
    assert_int_equal(size, 8);
    assert_int_equal(mproc_queue_qsize(q), 2);
    assert_ok(mproc_queue_put_priority(q, 1, "y", 1, MPROC_NOWAIT));
    assert_ok(mproc_queue_get(q, got, 7, &size, MPROC_NOWAIT));
    assert_int_equal(size, 1);
    assert_int_equal(got[0], 'y');
    assert_ok(mproc_queue_get(q, got, 8, &size, MPROC_NOWAIT));
    assert_memory_equal(got, "12345678", 8);
    assert_ok(mproc_queue_get(q, got, 1, NULL, MPROC_NOWAIT));
    mproc_queue_free(q);
}

/* ---- many processes --------------------------------------------------- */

struct crowd_message {
    int producer, number;
    char filling[300];
};

static int produce(void *arg)
{
    const struct crowd *crowd = arg;
    struct crowd_message m = {.producer = crowd->me};
    for (m.number = 0; m.number < crowd->each; m.number++) {
        size_t size =
            m.number % 3 ? offsetof(struct crowd_message, filling) : sizeof m;
        assert_ok(mproc_queue_put_priority(crowd->q, m.number % 2, &m, size,
                                           TEST_BOUND));
    }
    return 0;
}

/* Of one producer and one priority they come in order. */
static int consume(void *arg)
{
    const struct crowd *crowd = arg;
    int last[PRODUCERS][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, err;
    struct crowd_message m;
    size_t size;
    while ((err = mproc_queue_get(crowd->q, &m, sizeof m, &size, TEST_BOUND)) ==
           0) {
        assert_true(m.number > last[m.producer][m.number % 2]);
        last[m.producer][m.number % 2] = m.number;
        take_note(crowd, m.producer, m.number);
    }
    assert_err(err, MPROC_ESHUTDOWN);
    return 0;
}

static void a_crowd_gets_each_once_and_equals_in_order(void **state)
{
    (void)state;
    run_a_crowd(queue_of(MPROC_PRIORITY), 3000, produce, consume);
}

/* Each message is its priority in all its bytes, so that half of one shows. */
static int use_without_end(void *arg)
{
    unsigned char data[72];
    size_t size;
    for (uint32_t n = (uint32_t)getpid();; n = n * 1664525u + 1013904223u) {
        memset(data, (int)(n >> 24), sizeof data);
        if ((n >> 16) % 2) {
            assert_ok(mproc_queue_put_priority(
                arg, n >> 22, data, n % sizeof data + 1, TEST_BOUND));
        } else if (mproc_queue_get(arg, data, sizeof data, &size,
                                   MPROC_NOWAIT) == 0) {
            assert_int_equal(data[0], data[size - 1]);
        }
    }
    return 0;
}

static void killed_users_leave_it_sorted(void **state)
{
    (void)state;
    mproc_queue *q = queue_of(MPROC_PRIORITY);
    for (int round = 0; round < 40; round++) {
        pid_t user[2] = {test_fork(use_without_end, q),
                         test_fork(use_without_end, q)};
        unsigned char data[72], last = 0;
        size_t size, left;
        usleep(1000 + random_below(4000)); /* what they do has no end */
        for (int i = 0; i < 2; i++) {
            kill(user[i], SIGKILL);
            assert_int_equal(test_wait_exit(user[i]), -SIGKILL);
        }
        for (left = mproc_queue_qsize(q); left > 0; left--) {
            assert_ok(mproc_queue_get(q, data, sizeof data, &size, TEST_BOUND));
            assert_int_equal(data[0], data[size - 1]);
            assert_true(data[0] >= last);
            last = data[0];
            assert_int_equal(mproc_queue_qsize(q), left - 1);
        }
        assert_err(mproc_queue_get(q, data, sizeof data, &size, MPROC_NOWAIT),
                   MPROC_EEMPTY);
    }
    mproc_queue_free(q);
}

/* ---- memory ----------------------------------------------------------- */

enum { BACKLOG = 200000, MESSAGE = 64 };

static void fill_up(mproc_queue *q)
{
    char data[MESSAGE];
    for (int i = 0; i < BACKLOG; i++) {
        memset(data, i, sizeof data);
        assert_ok(
            order == MPROC_LIFO
                ? mproc_queue_put(q, data, sizeof data, MPROC_NOWAIT)
                : mproc_queue_put_priority(q, (int64_t)random_below(1000000),
                                           data, sizeof data, MPROC_NOWAIT));
    }
}

static void a_backlog_costs_less_than_twice_its_payload(void **state)
{
    (void)state;
    for (int its = MPROC_LIFO; its <= MPROC_PRIORITY; its++) {
        mproc_queue *q = queue_of(its);
        char data[MESSAGE];
        size_t before = heap_now().in_use;
        fill_up(q);
        assert_true(heap_now().in_use - before < (size_t)2 * BACKLOG * MESSAGE);
        for (int i = 0; i < BACKLOG - 100; i++) {
            assert_ok(
                mproc_queue_get(q, data, sizeof data, NULL, MPROC_NOWAIT));
        }
        /* what is left keeps no more than it needs */
        assert_true(heap_now().in_use - before < 100 * KIB);
        for (int i = 0; i < 100; i++) {
            assert_ok(
                mproc_queue_get(q, data, sizeof data, NULL, MPROC_NOWAIT));
        }
        assert_int_equal(heap_now().in_use, before);
        mproc_queue_free(q);
    }
}

static void a_long_one_may_be_dropped_or_freed(void **state)
{
    (void)state;
    for (int its = MPROC_LIFO; its <= MPROC_PRIORITY; its++) {
        for (int dropped = 0; dropped < 2; dropped++) {
            size_t before = heap_now().in_use;
            mproc_queue *q = queue_of(its);
            fill_up(q);
            if (dropped) {
                assert_ok(mproc_queue_shutdown(q, true));
                assert_int_equal(mproc_queue_qsize(q), 0);
            }
            mproc_queue_free(q);
            assert_int_equal(heap_now().in_use, before);
        }
    }
}

/* The bytes of each tell its priority. */
static void expect_all_sorted(mproc_queue *q, int count)
{
    char data[MESSAGE];
    int last = -1;
    for (int i = 0; i < count; i++) {
        int priority;
        assert_ok(mproc_queue_get(q, data, sizeof data, NULL, MPROC_NOWAIT));
        memcpy(&priority, data, sizeof priority);
        assert_true(priority >= last);
        last = priority;
    }
    assert_true(mproc_queue_empty(q));
}

/* Run as a program of its own: the limit must be set before the first use. */
static int with_a_small_heap(void)
{
    const mproc_config config = {.heap_max = 2 * MIB};
    char data[MESSAGE] = "";
    assert_ok(mproc_configure(&config));
    mproc_queue *q = queue_of(MPROC_PRIORITY);
    mproc_heap_info before = heap_now();
    for (int round = 0; round < 3; round++) {
        int count = 0, err = 0;
        while (err == 0) {
            int priority = (int)random_below(1000);
            memcpy(data, &priority, sizeof priority);
            err = mproc_queue_put_priority(q, priority, data, sizeof data,
                                           MPROC_FOREVER);
            count += err == 0;
        }
        assert_err(err, MPROC_ENOMEM);
        assert_true(count >= 10000);
        assert_int_equal(mproc_queue_qsize(q), count);
        assert_err(
            mproc_queue_put_priority(q, -1, data, sizeof data, MPROC_FOREVER),
            MPROC_ENOMEM);
        expect_all_sorted(q, count);
        mproc_heap_info after = heap_now();
        assert_int_equal(after.blocks, before.blocks);
        assert_int_equal(after.in_use, before.in_use);
    }
    mproc_queue_free(q);
    return 0;
}

static void without_memory_put_says_so_and_nothing_is_lost(void **state)
{
    (void)state;
    expect_good_with_a_small_heap();
}

/* ---- joining ---------------------------------------------------------- */

static void what_is_taken_in_any_order_is_joined(void **state)
{
    (void)state;
    for (int its = MPROC_LIFO; its <= MPROC_PRIORITY; its++) {
        order = its;
        mproc_queue *q = joinable();
        for (int i = 0; i < 100; i++) {
            assert_ok(mproc_queue_put(q, &i, sizeof i, MPROC_NOWAIT));
        }
        for (int i = 0; i < 100; i++) {
            get_int(q);
            assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        }
        for (int i = 0; i < 100; i++) {
            assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
            assert_ok(mproc_queue_task_done(q));
        }
        assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
        assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
        mproc_queue_free(q);
    }
}

int main(int argc, char **argv)
{
    if (is_small_heap(argc, argv)) {
        return with_a_small_heap();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_is_taken_first),
        cmocka_unit_test(the_lowest_is_taken_first),
        cmocka_unit_test(equals_are_served_as_they_came),
        cmocka_unit_test(a_plain_put_has_the_priority_zero),
        cmocka_unit_test(a_priority_is_refused_where_it_means_nothing),
        cmocka_unit_test(it_does_what_a_sorted_list_does),
        cmocka_unit_test(what_does_not_fit_keeps_its_place),
        cmocka_unit_test(a_crowd_gets_each_once_and_equals_in_order),
        cmocka_unit_test(killed_users_leave_it_sorted),
        cmocka_unit_test(a_backlog_costs_less_than_twice_its_payload),
        cmocka_unit_test(a_long_one_may_be_dropped_or_freed),
        cmocka_unit_test(without_memory_put_says_so_and_nothing_is_lost),
        cmocka_unit_test(what_is_taken_in_any_order_is_joined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
