/* SPDX-License-Identifier: MIT */
/* Batches, iterations and results of pools whose callbacks are dispatched. */
#include "pool_loop.h"
#include "pool_tasks.h"

#include <stdlib.h>
#include <string.h>

static void items_of_a_batch_are_dispatched(void **state)
{
    (void)state;
    enum { ITEMS = 200 };
    mproc_pool *p = manual_pool(2);
    struct seen seen = nothing_seen();
    int in[ITEMS], ran = 0;
    mproc_result *r, *plain;
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
    }
    mproc_batch b = {.fn = squares,
                     .in = in,
                     .in_size = sizeof(int),
                     .count = ITEMS,
                     .on_item = see,
                     .user = &seen};
    assert_ok(mproc_pool_map_async(p, &b, &r));
    b.on_item = NULL;
    assert_ok(mproc_pool_map_async(p, &b, &plain));
    assert_ok(mproc_result_get(plain, NULL, 0, NULL, TEST_BOUND));
    assert_false(mproc_result_ready(r));
    assert_int_equal(seen.good, 0);
    while (!mproc_result_ready(r)) {
        int n = mproc_pool_dispatch(p, TEST_BOUND);
        assert_true(n > 0);
        ran += n;
    }
    assert_int_equal(ran, ITEMS);
    assert_int_equal(seen.good, ITEMS);
    mproc_result_free(plain);
    mproc_result_free(r);
    /* one that is freed early is told to its end */
    b.on_item = see;
    assert_ok(mproc_pool_map_async(p, &b, &r));
    mproc_result_free(r);
    assert_int_equal(seen.good + seen.bad, 2 * ITEMS);
    end_of(p);
}

/* Most of it is not sent when it is cancelled, or its pool terminated. */
static void items_that_never_ran_are_dispatched(void **state)
{
    (void)state;
    enum { ITEMS = 200 };
    for (int way = 0; way < 4; way++) {
        mproc_pool *p = manual_pool(2);
        mproc_queue *gate = queue(), *in[ITEMS];
        struct seen seen = nothing_seen();
        mproc_result *r;
        for (int i = 0; i < ITEMS; i++) {
            in[i] = gate;
        }
        mproc_batch b = {.fn = waits_for,
                         .in = in,
                         .in_size = sizeof *in,
                         .count = ITEMS,
                         .chunk = 3,
                         .window = 9,
                         .on_item = see,
                         .user = &seen};
        assert_ok(mproc_pool_map_async(p, &b, &r));
        assert_ok(way % 2 ? mproc_pool_terminate(p) : mproc_result_cancel(r));
        assert_err(mproc_result_wait(r, mproc_in_ms(100)), MPROC_ETIMEDOUT);
        assert_int_equal(seen.bad, 0);
        assert_ok(mproc_pool_close(p));
        if (way < 2) {
            assert_int_equal(dispatch_to_the_end(p), ITEMS);
        } else {
            assert_ok(mproc_pool_join(p, TEST_BOUND));
        }
        assert_int_equal(seen.bad, ITEMS);
        assert_int_equal(seen.elsewhere, 0);
        assert_ok(mproc_result_wait(r, MPROC_NOWAIT));
        mproc_result_free(r);
        mproc_pool_free(p);
        mproc_queue_free(gate);
    }
}

/* Nor does its flag stay up. */
static void a_cancelled_batch_is_forgotten_once_it_is_told(void **state)
{
    (void)state;
    enum { ITEMS = 100 };
    mproc_pool *p = manual_pool(1);
    mproc_queue *gate = queue(), *in[ITEMS];
    struct seen seen = nothing_seen();
    mproc_result *r;
    for (int i = 0; i < ITEMS; i++) {
        in[i] = gate;
    }
    mproc_batch b = {.fn = waits_for,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = ITEMS,
                     .chunk = 1,
                     .window = 2,
                     .on_item = see,
                     .user = &seen};
    assert_ok(mproc_pool_map_async(p, &b, &r));
    assert_ok(mproc_result_cancel(r));
    while (!mproc_result_ready(r)) {
        assert_true(readable(p, 30000));
        mproc_pool_dispatch(p, MPROC_NOWAIT);
    }
    assert_int_equal(seen.bad, ITEMS);
    mproc_result_free(r);
    expect_quiet(p);
    end_of(p);
    mproc_queue_free(gate);
}

/* Nobody is to be told of these. */
static void a_batch_without_callbacks_ends_without_dispatch(void **state)
{
    (void)state;
    enum { ITEMS = 200 };
    mproc_pool *p = manual_pool(2);
    mproc_queue *gate = queue(), *in[ITEMS];
    int status[ITEMS];
    mproc_result *r;
    for (int i = 0; i < ITEMS; i++) {
        in[i] = gate;
    }
    mproc_batch b = {.fn = waits_for,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = ITEMS,
                     .chunk = 3,
                     .window = 9,
                     .status = status};
    assert_ok(mproc_pool_map_async(p, &b, &r));
    assert_ok(mproc_result_cancel(r));
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    for (int i = 0; i < ITEMS; i++) {
        assert_err(status[i], MPROC_ECANCELED);
    }
    mproc_result_free(r);
    end_of(p);
    mproc_queue_free(gate);
}

static void iterations_need_no_dispatch(void **state)
{
    (void)state;
    enum { ITEMS = 300 };
    mproc_pool *p = manual_pool(2);
    struct seen seen = nothing_seen();
    int in[ITEMS];
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
    }
    for (int with = 0; with < 2; with++) {
        mproc_iter *it;
        const mproc_outcome *o;
        mproc_batch b = {.fn = squares,
                         .in = in,
                         .in_size = sizeof(int),
                         .count = ITEMS,
                         .on_item = with ? see : NULL,
                         .user = &seen};
        assert_ok(mproc_pool_imap(p, &b, &it));
        for (int i = 0; i < ITEMS; i++) {
            assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
            assert_int_equal(*(const int *)o->data, i * i);
        }
        assert_err(mproc_iter_next(it, &o, TEST_BOUND), MPROC_EOF);
        mproc_iter_free(it);
        assert_int_equal(seen.good, with ? ITEMS : 0);
        assert_ok(mproc_pool_imap_unordered(p, &b, &it));
        assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
        mproc_iter_free(it); /* what runs is cancelled */
        seen.good = 0;
    }
    end_of(p);
}

enum { LARGE = 256 << 10, MANY = 40 };

static int replies_much(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    char *bytes = mproc_reply_reserve(reply, LARGE);
    return bytes != NULL ? (memset(bytes, 1, LARGE), 0) : -1;
}

struct large {
    mproc_pool *p;
    mproc_result *batch;
    char *out;
    _Atomic bool over;
};

/* Without its own callbacks. */
static void *works_for_the_pool(void *user)
{
    struct large *large = user;
    mproc_queue *gate = queue();
    mproc_result *r =
        sent(large->p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
    while (!large->over) {
        mproc_result_wait(r, mproc_in_ms(1));
    }
    mproc_result_cancel(r);
    mproc_result_free(r);
    mproc_queue_free(gate);
    return NULL;
}

/* It looks at what the other thread is writing, which is a race on purpose. */
__attribute__((no_sanitize("thread"))) static bool is_written(const char *out)
{
    return *(const volatile char *)out != 0;
}

static void free_batch(const mproc_outcome *o, void *user)
{
    struct large *large = user;
    (void)o;
    while (!is_written(large->out)) {
    }
    mproc_result_free(large->batch);
    memset(large->out, 2, (size_t)LARGE * MANY);
}

static void a_freed_batch_is_touched_by_no_thread(void **state)
{
    (void)state;
    struct large large = {.p = manual_pool(2), .out = calloc(LARGE, MANY)};
    pthread_t thread;
    int in[MANY] = {0};
    mproc_call call = {.fn = squares,
                       MPROC_ARG(in[0]),
                       .callback = free_batch,
                       .user = &large};
    mproc_batch b = {.fn = replies_much,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = MANY,
                     .out = large.out,
                     .out_size = LARGE,
                     .chunk = 1};
    pthread_create(&thread, NULL, works_for_the_pool, &large);
    for (int i = 0; i < 60; i++) {
        mproc_result *r = sent(large.p, call);
        assert_ok(mproc_result_wait(r, TEST_BOUND));
        mproc_result_free(r);
        memset(large.out, 0, (size_t)LARGE * MANY);
        assert_ok(mproc_pool_map_async(large.p, &b, &large.batch));
        assert_int_equal(mproc_pool_dispatch(large.p, TEST_BOUND), 1);
        for (size_t k = 0; k < (size_t)LARGE * MANY; k++) {
            assert_true(large.out[k] == 2);
        }
    }
    large.over = true;
    pthread_join(thread, NULL);
    end_of(large.p);
    free(large.out);
}

static void *opens_gate_soon(void *gate)
{
    usleep(50000); /* most likely somebody sleeps by then */
    open_gate(gate, 1);
    return NULL;
}

/* Nobody dies, so that is all who waits can hear. */
static void waiting_for_many_hears_of_an_end(void **state)
{
    (void)state;
    mproc_pool *p = manual_pool(1);
    mproc_queue *gate = queue();
    for (int i = 0; i < 5; i++) {
        size_t ready;
        pthread_t thread;
        mproc_result *r =
            sent(p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
        mproc_waitable what = mproc_waitable_result(r);
        assert_int_equal(pthread_create(&thread, NULL, opens_gate_soon, gate),
                         0);
        assert_ok(mproc_wait(&what, 1, &ready, TEST_BOUND));
        pthread_join(thread, NULL);
        assert_true(mproc_result_successful(r));
        mproc_result_free(r);
    }
    end_of(p);
    mproc_queue_free(gate);
}

static void *waits_for_many(void *user)
{
    mproc_waitable what = mproc_waitable_result(*(mproc_result **)user);
    static int err;
    err = mproc_wait(&what, 1, NULL, TEST_BOUND);
    return &err;
}

static void waiting_for_many_hears_that_one_is_freed(void **state)
{
    (void)state;
    for (int manual = 0; manual < 2; manual++) {
        mproc_pool *p = pool_with(
            (mproc_pool_opts){.workers = 1, .manual_dispatch = manual});
        mproc_queue *gate = queue();
        mproc_result *r =
            sent(p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
        pthread_t thread;
        void *err;
        mproc_deadline until = TEST_BOUND;
        assert_int_equal(pthread_create(&thread, NULL, waits_for_many, &r), 0);
        usleep(50000); /* most likely it sleeps by then */
        mproc_result_free(r);
        assert_int_equal(pthread_join(thread, &err), 0);
        assert_err(*(int *)err, MPROC_EINVAL);
        assert_true(mproc_in_s(0).at_ns < until.at_ns); /* it was told */
        open_gate(gate, 1);
        end_of(p);
        mproc_queue_free(gate);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(items_of_a_batch_are_dispatched),
        CLEAN(items_that_never_ran_are_dispatched),
        CLEAN(a_cancelled_batch_is_forgotten_once_it_is_told),
        CLEAN(a_batch_without_callbacks_ends_without_dispatch),
        CLEAN(iterations_need_no_dispatch),
        CLEAN(a_freed_batch_is_touched_by_no_thread),
        CLEAN(waiting_for_many_hears_of_an_end),
        CLEAN(waiting_for_many_hears_that_one_is_freed),
    };
    return cmocka_run_group_tests_name("pool_loop", tests, NULL, NULL);
}
