/* SPDX-License-Identifier: MIT */
/* Items of batches: where they lie, and what is told of them. */
#include "pool_tasks.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static mproc_event *event(void)
{
    mproc_event *e;
    assert_ok(mproc_event_new(&e));
    return e;
}

/* ---- where they lie --------------------------------------------------- */

/* What a task sees of its item. */
struct item {
    mproc_event *event; /* to wait for, if any */
    int number;
};

static int tells_where_its_item_is(const void *arg, size_t size,
                                   mproc_reply *reply)
{
    const struct item *item = arg;
    (void)size;
    if (item->event != NULL) {
        mproc_event_wait(item->event, MPROC_FOREVER);
    }
    return mproc_reply_set(reply, &arg, sizeof arg);
}

/* All three in the heap; they are looked at while the second item waits. */
static void shared_arrays_are_used_in_place(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    struct item *in = mproc_calloc(3, sizeof *in);
    const void *volatile *out = mproc_calloc(3, sizeof *out);
    volatile int *status = mproc_calloc(3, sizeof *status);
    mproc_result *r;
    mproc_batch b = {.fn = tells_where_its_item_is,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = 3,
                     .out = (void *)out,
                     .out_size = sizeof *out,
                     .status = (int *)status,
                     .chunk = 3};
    in[1].event = event();
    status[0] = 1;
    assert_ok(mproc_pool_map_async(p, &b, &r));
    for (int i = 0; i < 30000 && status[0] != MPROC_OK; i++) {
        usleep(1000);
    }
    assert_ok(status[0]);
    assert_ptr_equal(out[0], &in[0]);
    assert_int_not_equal(status[2], MPROC_OK);
    assert_ok(mproc_event_set(in[1].event));
    assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(out[i], &in[i]);
        assert_ok(status[i]);
    }
    mproc_result_free(r);
    mproc_event_free(in[1].event);
    mproc_free(in);
    mproc_free((void *)out);
    mproc_free((void *)status);
    end_of(p);
}

/* Fills a line of the cache, so nothing lies between items. */
struct line {
    char bytes[64];
};

static _Atomic int *deaths; /* shared */

static int dies_at_first(const void *arg, size_t size, mproc_reply *reply)
{
    const struct line *line = arg;
    if (line->bytes[63] == 'a' && atomic_fetch_add(deaths, 1) == 0) {
        raise(SIGKILL);
    }
    if (line->bytes[size] != '\0') {
        return mproc_reply_fail(reply, 1, "no NUL");
    }
    return mproc_reply_set(reply, line, sizeof *line);
}

/* Nor does what is put behind an item spoil one that is run again. */
static void items_run_again_are_as_they_were(void **state)
{
    (void)state;
    enum { ITEMS = 5 };
    deaths = mproc_calloc(1, sizeof *deaths);
    mproc_pool *p = pool_with((mproc_pool_opts){.workers = 1, .retries = 1});
    struct line in[ITEMS], out[ITEMS];
    for (int i = 0; i < ITEMS; i++) {
        memset(&in[i], 'a' + i, sizeof in[i]);
    }
    mproc_batch b = {.fn = dies_at_first,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = ITEMS,
                     .out = out,
                     .out_size = sizeof out[0],
                     .chunk = ITEMS};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    assert_memory_equal(in, out, sizeof in);
    assert_int_equal(*deaths, 2);
    mproc_free((void *)deaths);
    end_of(p);
}

/* The first dies whenever it runs, the others only at first. */
static int dies_in_turn(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    (void)size;
    (void)reply;
    if (atomic_fetch_add(&deaths[n], 1) == 0 || n == 0) {
        raise(SIGKILL);
    }
    return 0;
}

/* One that is lost for good costs the next one no retry. */
static void each_item_in_a_row_has_its_retries(void **state)
{
    (void)state;
    enum { ITEMS = 4 };
    deaths = mproc_calloc(ITEMS, sizeof *deaths);
    mproc_pool *p = pool_with((mproc_pool_opts){.workers = 1, .retries = 1});
    int in[ITEMS] = {0, 1, 2, 3}, status[ITEMS];
    mproc_batch b = {.fn = dies_in_turn,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = ITEMS,
                     .status = status,
                     .chunk = ITEMS};
    assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EWORKERLOST);
    for (int i = 0; i < ITEMS; i++) {
        assert_err(status[i], i == 0 ? MPROC_EWORKERLOST : MPROC_OK);
        assert_int_equal(deaths[i], 2);
    }
    mproc_free((void *)deaths);
    end_of(p);
}

/* A million items wait in the caller's array, not in the heap. */
static void a_large_batch_is_sent_by_and_by(void **state)
{
    (void)state;
    enum { ITEMS = 1000000 };
    mproc_pool *p = pool_of(1);
    int *in = calloc(ITEMS, sizeof *in);
    struct item first = {.event = event()};
    mproc_heap_info before, now;
    mproc_result *r;
    mproc_call call = {.fn = tells_where_its_item_is, MPROC_ARG(first)};
    mproc_batch b = {
        .fn = does_nothing, .in = in, .in_size = sizeof *in, .count = ITEMS};
    assert_ok(mproc_pool_apply_async(p, &call, NULL, TEST_BOUND));
    assert_ok(mproc_heap_stats(&before));
    assert_ok(mproc_pool_map_async(p, &b, &r));
    assert_ok(mproc_heap_stats(&now));
    assert_true(now.in_use - before.in_use < ITEMS);
    assert_ok(mproc_event_set(first.event));
    assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
    mproc_result_free(r);
    mproc_event_free(first.event);
    free(in);
    end_of(p);
}

/* ---- what is told of them --------------------------------------------- */

/* What the allocator hands out next is not zero. */
static void leave_garbage(size_t size)
{
    void *block[64];
    for (int i = 0; i < 64; i++) {
        block[i] = aligned_alloc(64, (size + 64) / 64 * 64);
        memset(block[i], 0x55, size);
    }
    for (int i = 0; i < 64; i++) {
        free(block[i]);
    }
}

static int tells_line(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    return mproc_reply_set(reply, arg, 40);
}

static void expect_line(const mproc_outcome *o, void *user)
{
    const char *bytes = o->data;
    assert_int_equal(o->size, 40);
    assert_int_equal(bytes[0], 'a');
    assert_int_equal(bytes[40], '\0');
    ++*(int *)user;
}

/* Also where they come from an array, in which the next one follows. */
static void replies_end_with_a_nul(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    char in[4][40], out[4][40];
    int told = 0;
    const mproc_outcome *o;
    mproc_iter *it;
    memset(in, 'a', sizeof in);
    memset(out, 'z', sizeof out);
    mproc_batch b = {.fn = tells_line,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = 4,
                     .out = out,
                     .out_size = sizeof out[0],
                     .on_item = expect_line,
                     .user = &told,
                     .chunk = 4};
    leave_garbage(63);
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    assert_int_equal(told, 4);
    leave_garbage(63);
    assert_ok(mproc_pool_imap(p, &b, &it));
    for (int i = 0; i < 4; i++) {
        assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
        expect_line(o, &told);
    }
    mproc_iter_free(it);
    end_of(p);
}

enum { MANY = 20 };

static int fails(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    return mproc_reply_fail(reply, 17, "bun %d", 17);
}

static void expect_failed(const mproc_outcome *o, void *user)
{
    (void)user;
    assert_err(o->status, MPROC_ETASK);
    assert_int_equal(o->code, 17);
}

/* Nothing but that it was cancelled; no worker but for those that had one. */
static void expect_cancelled(const mproc_outcome *o, void *user)
{
    assert_err(o->status, MPROC_ECANCELED);
    assert_int_equal(o->code, 0);
    assert_int_equal(o->size, 0);
    assert_string_equal(o->error, mproc_strerror(MPROC_ECANCELED));
    *(int *)user += o->worker != 0;
}

static void an_item_that_never_ran_has_no_worker_and_no_code(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_queue *here = queue(), *in[MANY];
    int workers = 0;
    for (int i = 0; i < MANY; i++) {
        in[i] = here;
    }
    mproc_batch b = {.fn = fails,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = MANY,
                     .chunk = MANY,
                     .on_item = expect_failed};
    mproc_result *r;
    for (int i = 0; i < 5; i++) { /* leaves such blocks behind */
        assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_ETASK);
    }
    b.fn = stays;
    b.on_item = expect_cancelled;
    b.user = &workers;
    assert_ok(mproc_pool_map_async(p, &b, &r));
    pid_t pid;
    assert_ok(mproc_queue_get(here, &pid, sizeof pid, NULL, TEST_BOUND));
    assert_ok(mproc_result_cancel(r));
    assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND), MPROC_ECANCELED);
    assert_int_equal(workers, 0);
    mproc_result_free(r);
    end_of(p);
    mproc_queue_free(here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(shared_arrays_are_used_in_place),
        CLEAN(items_run_again_are_as_they_were),
        CLEAN(each_item_in_a_row_has_its_retries),
        CLEAN(a_large_batch_is_sent_by_and_by),
        CLEAN(replies_end_with_a_nul),
        CLEAN(an_item_that_never_ran_has_no_worker_and_no_code),
    };
    return cmocka_run_group_tests_name("pool_items", tests, NULL, NULL);
}
