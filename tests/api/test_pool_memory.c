/* SPDX-License-Identifier: MIT */
/* Pools where the shared heap is small, or full. */
#include "pool_tasks.h"

#include <stdlib.h>
#include <string.h>

enum { HEAP = 32 << 20, ITEM = 1 << 20, ITEMS = 60 };

/* ---- tasks and items -------------------------------------------------- */

/* Replies with the first and the last byte of what it is given. */
static int tells_ends(const void *arg, size_t size, mproc_reply *reply)
{
    const char *bytes = arg;
    char ends[2] = {bytes[0], bytes[size - 1]};
    return mproc_reply_set(reply, ends, sizeof ends);
}

static int echoes(const void *arg, size_t size, mproc_reply *reply)
{
    return mproc_reply_set(reply, arg, size);
}

static char *items_of(size_t size, size_t count)
{
    char *items = malloc(size * count);
    assert_non_null(items);
    for (size_t i = 0; i < count; i++) {
        memset(items + i * size, 'a' + (int)i % 26, size);
    }
    return items;
}

struct source {
    char *items;
    size_t size, given, count;
};

static int next_item(void *user, const void **item, size_t *size)
{
    struct source *source = user;
    if (source->given == source->count) {
        return MPROC_EOF;
    }
    *item = source->items + source->given++ * source->size;
    *size = source->size;
    return 0;
}

static void expect_works(mproc_pool *p)
{
    int n = 12, out;
    mproc_call call = {.fn = squares, MPROC_ARG(n)};
    mproc_pool_info info;
    assert_ok(mproc_pool_apply(p, &call, &out, sizeof out, TEST_BOUND));
    assert_int_equal(out, 144);
    assert_ok(mproc_pool_stats(p, &info));
    assert_int_equal(info.queued + info.running, 0);
}

/* ---- batches that do not fit at once ----------------------------------- */

static void a_map_waits_for_memory(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    char *in = items_of(ITEM, ITEMS), out[ITEMS][2];
    for (size_t chunk = 0; chunk < 4; chunk++) {
        mproc_batch b = {.fn = tells_ends,
                         .in = in,
                         .in_size = ITEM,
                         .count = ITEMS,
                         .out = out,
                         .out_size = sizeof out[0],
                         .chunk = chunk};
        memset(out, 0, sizeof out);
        assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
        for (int i = 0; i < ITEMS; i++) {
            assert_int_equal(out[i][0], 'a' + i % 26);
            assert_int_equal(out[i][1], 'a' + i % 26);
        }
        expect_works(p);
    }
    free(in);
    end_of(p);
}

static void an_iteration_waits_for_memory(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    char *in = items_of(ITEM, ITEMS);
    for (int i = 0; i < 8; i++) {
        struct source source = {in, ITEM, 0, ITEMS};
        mproc_batch b = {.fn = tells_ends,
                         .next = next_item,
                         .user = &source,
                         .chunk = i / 4 ? SIZE_MAX : 1,
                         .window = i / 2 % 2 ? ITEMS : 0};
        mproc_iter *it;
        const mproc_outcome *o;
        assert_ok(i % 2 ? mproc_pool_imap(p, &b, &it)
                        : mproc_pool_imap_unordered(p, &b, &it));
        for (int k = 0; k < ITEMS; k++) {
            assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
            assert_ok(o->status);
            assert_int_equal(*(const char *)o->data, 'a' + (int)o->index % 26);
        }
        assert_err(mproc_iter_next(it, &o, TEST_BOUND), MPROC_EOF);
        mproc_iter_free(it);
        expect_works(p);
    }
    free(in);
    end_of(p);
}

/* The last outcome is the caller's until the next call, and no longer. */
static void the_outcome_before_gives_its_memory_to_the_next(void **state)
{
    (void)state;
    enum { LARGE = 12 << 20, COUNT = 3 };
    mproc_pool *p = pool_of(1);
    struct source source = {items_of(LARGE, COUNT), LARGE, 0, COUNT};
    mproc_batch b = {
        .fn = echoes, .next = next_item, .user = &source, .window = 1};
    mproc_iter *it;
    const mproc_outcome *o;
    assert_ok(mproc_pool_imap(p, &b, &it));
    for (int i = 0; i < COUNT; i++) {
        assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
        assert_ok(o->status);
        assert_int_equal(o->size, LARGE);
        assert_int_equal(((const char *)o->data)[LARGE - 1], 'a' + i);
    }
    assert_err(mproc_iter_next(it, &o, TEST_BOUND), MPROC_EOF);
    mproc_iter_free(it);
    free(source.items);
    expect_works(p);
    end_of(p);
}

/* ---- what never fits --------------------------------------------------- */

static void what_never_fits_is_refused(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    struct source source = {items_of(HEAP, 2), HEAP, 0, 2};
    mproc_call call = {.fn = tells_ends, .arg = source.items, .arg_size = HEAP};
    mproc_batch b = {.fn = tells_ends,
                     .in = source.items,
                     .in_size = HEAP,
                     .count = 2,
                     .chunk = 2};
    mproc_result *r = NULL;
    mproc_iter *it;
    assert_err(mproc_pool_apply_async(p, &call, &r, TEST_BOUND), MPROC_ENOMEM);
    assert_err(mproc_pool_map_async(p, &b, &r), MPROC_ENOMEM);
    assert_null(r);
    assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_ENOMEM);
    expect_works(p);
    for (int i = 0; i < 2; i++) {
        assert_ok(mproc_pool_imap(p, &b, &it));
        assert_err(mproc_iter_next(it, NULL, TEST_BOUND), MPROC_ENOMEM);
        assert_err(mproc_iter_next(it, NULL, TEST_BOUND), MPROC_ENOMEM);
        mproc_iter_free(it);
        b.in = NULL;
        b.next = next_item;
        b.user = &source;
    }
    free(source.items);
    expect_works(p);
    end_of(p);
}

/* ---- hardly any memory ------------------------------------------------ */

enum { MOST = HEAP / 64 };
static void *hoard[MOST];

/* All there is, the largest first. */
static int take_all(void)
{
    int count = 0;
    for (size_t size = 64 << 10; size >= 64; size -= size > 2048 ? 1024 : 64) {
        while (count < MOST && (hoard[count] = mproc_alloc(size)) != NULL) {
            count++;
        }
    }
    return count;
}

static bool good_or_full(int err)
{
    assert_true(err == 0 || err == MPROC_ENOMEM);
    return err == 0;
}

/* Each call works or is refused; true when all went well. */
static bool use(mproc_pool *p)
{
    int in[4] = {1, 2, 3, 4};
    mproc_call call = {.fn = squares, MPROC_ARG(in)};
    mproc_batch b = {
        .fn = squares, .in = in, .in_size = sizeof *in, .count = 4};
    mproc_iter *it;
    mproc_result *r;
    bool iterates = good_or_full(mproc_pool_imap(p, &b, &it));
    if (iterates) {
        int err;
        do {
            err = mproc_iter_next(it, NULL, TEST_BOUND);
        } while (err == 0);
        iterates = good_or_full(err == MPROC_EOF ? 0 : err);
        mproc_iter_free(it);
    }
    bool maps = good_or_full(mproc_pool_map(p, &b, TEST_BOUND));
    bool runs = good_or_full(mproc_pool_apply_async(p, &call, &r, TEST_BOUND));
    if (runs) {
        assert_ok(mproc_result_get(r, in, sizeof *in, NULL, TEST_BOUND));
        mproc_result_free(r);
    }
    return iterates && maps && runs;
}

/* From none to enough, a little more each time. */
static void a_full_heap_breaks_nothing(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    int count = take_all(), freed = 0;
    assert_true(count > 100);
    assert_false(use(p));
    do {
        mproc_free(hoard[freed++]);
        assert_true(freed < count);
    } while (!use(p));
    assert_in_range(freed, 2, 20);
    for (; freed < count; freed++) {
        mproc_free(hoard[freed]);
    }
    expect_works(p);
    end_of(p);
}

static int waits_for_event(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    return mproc_event_wait(*(mproc_event *const *)arg, MPROC_FOREVER);
}

/* Tasks that wait for each other's end. Returns how many there was room for. */
static int send_until_full(mproc_pool *p, mproc_event *gate, int most)
{
    mproc_call call = {.fn = waits_for_event, MPROC_ARG(gate)};
    int err = 0, count = 0;
    for (; count < most && err == 0; count += err == 0) {
        err = mproc_pool_apply_async(p, &call, NULL, TEST_BOUND);
    }
    assert_true(err == 0 || err == MPROC_ENOMEM);
    return count;
}

static void await_tasks(mproc_pool *p, size_t done)
{
    mproc_pool_info info = {.done = 0};
    for (int i = 0; i < 30000 && info.done < done; i++) {
        usleep(1000);
        assert_ok(mproc_pool_stats(p, &info));
    }
    assert_int_equal(info.done, done);
    assert_int_equal(info.queued + info.running, 0);
}

/* There is room for so many tasks, but for their places in the queue. */
static void make_records(mproc_pool *p, mproc_event *gate, int tasks)
{
    assert_int_equal(send_until_full(p, gate, tasks), tasks);
    assert_ok(mproc_event_set(gate));
    await_tasks(p, (size_t)tasks);
    assert_ok(mproc_event_clear(gate));
}

/* There are records for the tasks, from before, but no room to queue them. */
static void what_cannot_be_queued_is_refused(void **state)
{
    (void)state;
    enum { TASKS = 3000, SMALL = 64 };
    mproc_pool *p = pool_of(1);
    mproc_event *gate;
    char in = 0;
    mproc_batch b = {
        .fn = squares, .in = &in, .in_size = 1, .count = 1, .chunk = 1};
    mproc_iter *it;
    mproc_result *r = NULL;
    assert_ok(mproc_event_new(&gate));
    make_records(p, gate, TASKS);
    void *reserve[SMALL];
    for (int i = 0; i < SMALL; i++) {
        reserve[i] = mproc_alloc(64 * (size_t)(i % 16 + 1));
        assert_non_null(reserve[i]);
    }
    int count = take_all(), sent = send_until_full(p, gate, TASKS);
    assert_in_range(sent, 1, TASKS - 1);
    for (int i = 0; i < SMALL; i++) {
        mproc_free(reserve[i]); /* nothing large comes of these */
    }
    assert_err(mproc_pool_map_async(p, &b, &r), MPROC_ENOMEM);
    assert_null(r);
    assert_ok(mproc_pool_imap(p, &b, &it));
    assert_err(mproc_iter_next(it, NULL, TEST_BOUND), MPROC_ENOMEM);
    mproc_iter_free(it);
    for (int i = 0; i < count; i++) {
        mproc_free(hoard[i]);
    }
    assert_ok(mproc_event_set(gate));
    await_tasks(p, (size_t)(TASKS + sent));
    expect_works(p);
    end_of(p);
    mproc_event_free(gate);
}

/* Chosen chunks do not grow beyond what a small heap can hold. */
struct gated {
    mproc_event *gate;
    int n;
};

static int squares_behind(const void *arg, size_t size, mproc_reply *reply)
{
    const struct gated *in = arg;
    (void)size;
    if (mproc_event_wait(in->gate, MPROC_FOREVER) != 0) {
        return 1;
    }
    int square = in->n * in->n;
    return mproc_reply_set(reply, &square, sizeof square);
}

/*
 * Its first items fill the queue up. Those that come for them are sent once
 * some of it has been given back; if it never is, the rest ends.
 */
static void a_map_loses_nothing_where_the_queue_is_full(void **state)
{
    (void)state;
    enum { TASKS = 3000, COUNT = 20000 };
    static struct gated in[COUNT];
    static int out[COUNT], status[COUNT];
    mproc_pool *p = pool_of(1);
    mproc_event *gate;
    mproc_result *r = NULL;
    mproc_batch b = {.fn = squares_behind,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = COUNT,
                     .out = out,
                     .out_size = sizeof out[0],
                     .status = status,
                     .chunk = 1};
    assert_ok(mproc_event_new(&gate));
    for (int i = 0; i < COUNT; i++) {
        in[i] = (struct gated){gate, i};
    }
    make_records(p, gate, TASKS);
    assert_ok(mproc_pool_map_async(p, &b, &r));
    int count = take_all(), sent = send_until_full(p, gate, TASKS);
    assert_in_range(sent, 0, TASKS - 1);
    assert_ok(mproc_event_set(gate));
    int err = mproc_result_get(r, NULL, 0, NULL, TEST_BOUND), good = 0;
    for (int i = 0; i < COUNT; i++) {
        bool is_good = status[i] == MPROC_OK;
        assert_int_equal(status[i], is_good ? MPROC_OK : MPROC_ENOMEM);
        assert_int_equal(out[i], is_good ? i * i : 0);
        good += is_good;
    }
    assert_int_equal(err, good == COUNT ? MPROC_OK : MPROC_ENOMEM);
    mproc_result_free(r);
    await_tasks(p, (size_t)(TASKS + good + sent));
    for (int i = 0; i < count; i++) {
        mproc_free(hoard[i]);
    }
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    assert_int_equal(out[COUNT - 1], (COUNT - 1) * (COUNT - 1));
    end_of(p);
    mproc_event_free(gate);
}

static void chosen_chunks_stay_small(void **state)
{
    (void)state;
    enum { FREE = 10 << 20, SIZE = 64 << 10, COUNT = 2000 };
    mproc_pool *p = pool_of(1);
    char *in = calloc(COUNT, SIZE);
    int count = take_all(), freed = 0;
    while (freed < count && freed < FREE / SIZE) {
        mproc_free(hoard[freed++]);
    }
    mproc_batch b = {
        .fn = does_nothing, .in = in, .in_size = SIZE, .count = COUNT};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    while (freed < count) {
        mproc_free(hoard[freed++]);
    }
    free(in);
    expect_works(p);
    end_of(p);
}

static _Atomic int come, leave;

static int waits(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    come++;
    while (!leave) {
        usleep(1000);
    }
    come--;
    return 0;
}

/* A thread is abandoned once there is memory for it. */
static void a_thread_over_its_time_is_abandoned_later(void **state)
{
    (void)state;
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 1, .start = MPROC_START_THREAD});
    char in = 0;
    mproc_batch b = {
        .fn = waits, .in = &in, .in_size = 1, .count = 1, .timeout_s = 0.5};
    mproc_result *r;
    assert_ok(mproc_pool_map_async(p, &b, &r));
    for (int i = 0; i < 30000 && come == 0; i++) {
        usleep(1000);
    }
    int count = take_all();
    assert_err(mproc_result_wait(r, mproc_in_ms(800)), MPROC_ETIMEDOUT);
    for (int i = 0; i < count; i++) {
        mproc_free(hoard[i]);
    }
    assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND), MPROC_EOVERTIME);
    mproc_result_free(r);
    leave = 1;
    for (int i = 0; i < 30000 && come > 0; i++) {
        usleep(1000);
    }
    expect_works(p);
    end_of(p);
    usleep(20000); /* they give back what they had */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(a_full_heap_breaks_nothing), /* first: what is made is kept */
        CLEAN(a_map_waits_for_memory),
        CLEAN(an_iteration_waits_for_memory),
        CLEAN(the_outcome_before_gives_its_memory_to_the_next),
        CLEAN(what_never_fits_is_refused),
        CLEAN(what_cannot_be_queued_is_refused),
        CLEAN(a_map_loses_nothing_where_the_queue_is_full),
        CLEAN(chosen_chunks_stay_small),
        CLEAN(a_thread_over_its_time_is_abandoned_later),
    };
    mproc_configure(&(mproc_config){.heap_max = HEAP});
    return cmocka_run_group_tests_name("pool_memory", tests, NULL, NULL);
}
