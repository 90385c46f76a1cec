/* SPDX-License-Identifier: MIT */
/* Other orders, from inside: the array, and a log that is no queue's. */
#include "test.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "chan/record.h"
#include "shm/heap.h"

/* Beyond the first table, whose places begin at 4096. */
enum { MANY = 9000 };

/* In memory that is never used for anything else, because of its guards. */
static struct mpr_log *new_log(int order)
{
    struct mpr_log *log = mproc_calloc(1, sizeof *log);
    assert_non_null(log);
    mpr_log_init(log, false);
    mpr_log_set_order(log, order);
    return log;
}

static struct mpr_thread *self(void)
{
    struct mpr_thread *thread;
    assert_ok(mpr_self(&thread));
    return thread;
}

static void end_log(struct mpr_log *log)
{
    mpr_log_end(log, self(), self());
}

static void put(struct mpr_log *log, int64_t priority, uint64_t value)
{
    const struct mpr_log_put put = {.log = log,
                                    .self = self(),
                                    .data = &value,
                                    .size = sizeof value,
                                    .priority = priority,
                                    .until = MPROC_NOWAIT};
    assert_ok(mpr_log_put(&put));
    mpr_log_put_done(&put);
}

static uint64_t get(struct mpr_log *log)
{
    uint64_t value = 0;
    const struct mpr_log_get get = {.log = log,
                                    .self = self(),
                                    .data = &value,
                                    .capacity = sizeof value,
                                    .until = MPROC_NOWAIT};
    assert_ok(mpr_log_get(&get));
    return value;
}

static size_t heap_in_use(void)
{
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    return info.in_use;
}

/* The element that holds the record `last` finds when so many are there. */
static struct mpr_element *element(struct mpr_log *log, uint64_t place)
{
    char *record = mpr_order_last(&log->array, place + 1);
    return (struct mpr_element *)(record -
                                  offsetof(struct mpr_element, record));
}

static bool precedes(const struct mpr_element *a, const struct mpr_element *b)
{
    return a->priority < b->priority ||
           (a->priority == b->priority && a->seq < b->seq);
}

static void expect_heap(struct mpr_log *log)
{
    uint64_t count = mpr_log_count(log);
    for (uint64_t i = 1; i < count; i++) {
        assert_true(precedes(element(log, (i - 1) / 4), element(log, i)));
    }
}

static void a_log_with_priorities_needs_no_queue(void **state)
{
    (void)state;
    struct mpr_log *log = new_log(MPROC_PRIORITY);
    put(log, 5, 1);
    put(log, -5, 2);
    put(log, 5, 3);
    assert_int_equal(mpr_log_count(log), 3);
    assert_int_equal(get(log), 2);
    assert_int_equal(get(log), 1);
    assert_int_equal(get(log), 3);
    assert_true(mpr_log_close(log, self()));
    assert_false(mpr_log_close(log, self()));
    end_log(log);
}

static void no_child_comes_before_its_parent(void **state)
{
    (void)state;
    struct mpr_log *log = new_log(MPROC_PRIORITY);
    uint64_t number = 1;
    for (int i = 0; i < MANY; i++) {
        number = number * 6364136223846793005u + 1442695040888963407u;
        put(log, (int64_t)(number >> 40) % 1000, number);
        if (number >> 33 & 1) {
            put(log, (int64_t)(number >> 20) % 1000, number);
            get(log);
        }
        if (i % 500 == 0) {
            expect_heap(log);
        }
    }
    while (mpr_log_count(log) > 0) {
        get(log);
        if (mpr_log_count(log) % 500 == 0) {
            expect_heap(log);
        }
    }
    end_log(log);
}

/* At each depth: what is there stays, and memory follows the depth. */
static void it_grows_and_shrinks_by_chunks(void **state)
{
    (void)state;
    struct mpr_log *log = new_log(MPROC_LIFO);
    size_t empty = heap_in_use(), deep[MANY];
    struct mpr_element *first = element(log, 0), *later = NULL;
    for (uint64_t i = 0; i < MANY; i++) {
        put(log, 0, i);
        deep[i] = heap_in_use();
        later = i == 5000 ? element(log, i) : later;
    }
    assert_ptr_equal(element(log, 0), first);
    assert_ptr_equal(element(log, 5000), later);
    for (uint64_t i = MANY; i-- > 0;) {
        assert_int_equal(get(log), i);
        /* two chunks more than when it grew, at most */
        assert_true(heap_in_use() <= deep[i] + (size_t)2 * 192 * 1024);
    }
    assert_int_equal(heap_in_use(), empty);
    assert_int_equal(atomic_load(&log->array.capacity), MPR_ORDER_FIRST);
    for (int i = 0; i < MPR_ORDER_LEVELS; i++) {
        bool table = i > 7;
        assert_true(!table || atomic_load(&log->array.level[i]) == NULL);
    }
    end_log(log);
}

/* One more and one less, over and over, neither takes nor frees memory. */
static void at_the_edge_of_a_chunk_it_rests(void **state)
{
    (void)state;
    static const uint64_t edges[] = {16, 32, 2048, 4096, 6144};
    struct mpr_log *log = new_log(MPROC_LIFO);
    for (int i = 0; i < 5; i++) {
        while (mpr_log_count(log) <= edges[i]) {
            put(log, 0, 0);
        }
        size_t in_use = heap_in_use();
        for (int k = 0; k < 5; k++) {
            get(log);
            assert_int_equal(heap_in_use(), in_use);
            put(log, 0, 0);
        }
    }
    end_log(log);
}

static void an_end_gives_all_back(void **state)
{
    (void)state;
    for (int order = MPROC_LIFO; order <= MPROC_PRIORITY; order++) {
        struct mpr_log *log = new_log(order);
        size_t before = heap_in_use();
        for (int i = 0; i < MANY; i++) {
            put(log, -i, 0);
        }
        end_log(log);
        assert_int_equal(heap_in_use(), before);
        end_log(log); /* as by another who goes on with it */
        assert_int_equal(heap_in_use(), before);
    }
}

/* Each of them killed when it had taken, and before it gave a chunk back. */
static void an_end_gives_back_what_killed_takers_left(void **state)
{
    (void)state;
    struct mpr_log *log = new_log(MPROC_LIFO);
    size_t before = heap_in_use();
    for (int i = 0; i < MANY; i++) {
        put(log, 0, 0);
    }
    atomic_store(&log->head.seq, mpr_log_tail(log));
    assert_true(heap_in_use() > before);
    end_log(log);
    assert_int_equal(heap_in_use(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_with_priorities_needs_no_queue),
        cmocka_unit_test(no_child_comes_before_its_parent),
        cmocka_unit_test(it_grows_and_shrinks_by_chunks),
        cmocka_unit_test(at_the_edge_of_a_chunk_it_rests),
        cmocka_unit_test(an_end_gives_all_back),
        cmocka_unit_test(an_end_gives_back_what_killed_takers_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
