/* SPDX-License-Identifier: MIT */
/* Items of batches that are sent as there is room for them. */
#include "pool_support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- tasks and items -------------------------------------------------- */

static int waits_for(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_event *event = *(mproc_event *const *)arg;
    (void)size;
    (void)reply;
    return event != NULL ? mproc_event_wait(event, MPROC_FOREVER) : 0;
}

static int nothing(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    return 0;
}

static mproc_event *event(void)
{
    mproc_event *e;
    assert_ok(mproc_event_new(&e));
    return e;
}

static mproc_pool *pool_with_room(size_t max_pending)
{
    return pool_with(
        (mproc_pool_opts){.workers = 2, .max_pending = max_pending});
}

static void send_waiting(mproc_pool *p, mproc_event *gate, int count)
{
    for (int i = 0; i < count; i++) {
        mproc_call call = {.fn = waits_for, MPROC_ARG(gate)};
        assert_ok(mproc_pool_apply_async(p, &call, NULL, TEST_BOUND));
    }
}

/* Numbers, up to `count`; when asked for item `busy_at` it sends tasks. */
struct numbers {
    mproc_pool *p;
    mproc_event *gate;
    int tasks, busy_at;
    int given, count;
};

static int next_number(void *user, const void **item, size_t *size)
{
    struct numbers *n = user;
    if (n->p != NULL && n->given == n->busy_at) {
        send_waiting(n->p, n->gate, n->tasks);
        n->tasks = 0;
    }
    if (n->given == n->count) {
        return MPROC_EOF;
    }
    n->given++;
    *item = &n->given;
    *size = sizeof n->given;
    return 0;
}

static mproc_iter *iterate(mproc_pool *p, bool ordered, mproc_batch b)
{
    mproc_iter *it = NULL;
    assert_ok(ordered ? mproc_pool_imap(p, &b, &it)
                      : mproc_pool_imap_unordered(p, &b, &it));
    return it;
}

static void expect_squares(mproc_iter *it, int count)
{
    for (int i = 1; i <= count; i++) {
        const mproc_outcome *o;
        assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
        assert_int_equal(o->index, i - 1);
        assert_int_equal(*(const int *)o->data, i * i);
    }
    assert_err(mproc_iter_next(it, NULL, TEST_BOUND), MPROC_EOF);
}

/* ---- room ------------------------------------------------------------- */

/* The last item is there, and so is the end, when the room for it is gone. */
static void next_may_take_the_room_of_its_items(void **state)
{
    (void)state;
    for (int busy_at = 1; busy_at <= 5; busy_at++) {
        mproc_pool *p = pool_with_room(3);
        struct numbers numbers = {p, event(), 3, busy_at, 0, 5};
        mproc_batch b = {
            .fn = squares, .next = next_number, .user = &numbers, .chunk = 5};
        mproc_iter *it = iterate(p, true, b);
        assert_ok(mproc_event_set(numbers.gate));
        expect_squares(it, 5);
        mproc_iter_free(it);
        end_of(p);
        mproc_event_free(numbers.gate);
    }
}

static int64_t own_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* There is room for one of two items that travel together. */
static void who_waits_for_more_room_sleeps(void **state)
{
    (void)state;
    mproc_pool *p = pool_with_room(3);
    struct numbers numbers = {p, event(), 2, 1, 0, 2};
    mproc_batch b = {
        .fn = squares, .next = next_number, .user = &numbers, .chunk = 2};
    mproc_iter *it = iterate(p, true, b);
    int64_t before = own_ns();
    assert_err(mproc_iter_next(it, NULL, mproc_in_ms(300)), MPROC_ETIMEDOUT);
    assert_true(own_ns() - before < 50000000);
    assert_ok(mproc_event_set(numbers.gate));
    expect_squares(it, 2);
    mproc_iter_free(it);
    end_of(p);
    mproc_event_free(numbers.gate);
}

struct wait {
    pthread_t thread;
    mproc_pool *p;
    mproc_iter *it;
    mproc_event *gate, *begun;
    int delay_us;
};

enum { LARGE = 4 << 20 };

static void *sends_one(void *user)
{
    struct wait *wait = user;
    send_waiting(wait->p, wait->gate, 1);
    return NULL;
}

static void begin(struct wait *wait, void *(*fn)(void *))
{
    assert_int_equal(pthread_create(&wait->thread, NULL, fn, wait), 0);
}

static void end(struct wait *wait)
{
    pthread_join(wait->thread, NULL);
}

/* Items that end together make room for as many. */
static void all_hear_of_the_room_of_a_chunk(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    for (int ordered = 0; ordered < 2; ordered++) {
        mproc_pool *p = pool_with_room(THREADS);
        mproc_event *gate = event(), *in[THREADS] = {gate, gate, gate, gate};
        mproc_batch b = {.fn = waits_for,
                         .in = in,
                         .in_size = sizeof *in,
                         .count = THREADS,
                         .chunk = THREADS};
        mproc_iter *it = iterate(p, ordered, b);
        struct wait wait[THREADS];
        for (int i = 0; i < THREADS; i++) {
            wait[i] = (struct wait){.p = p};
            begin(&wait[i], sends_one);
        }
        usleep(20000);
        assert_ok(mproc_event_set(gate));
        for (int i = 0; i < THREADS; i++) {
            end(&wait[i]);
            assert_ok(mproc_iter_next(it, NULL, TEST_BOUND));
        }
        mproc_iter_free(it);
        end_of(p);
        mproc_event_free(gate);
    }
}

static atomic_bool over;

static void *takes_room(void *user)
{
    struct wait *wait = user;
    mproc_call call = {.fn = nothing};
    while (!over) {
        assert_ok(mproc_pool_apply_async(wait->p, &call, NULL, TEST_BOUND));
    }
    return NULL;
}

/* Others take it between the look and the step. */
static void a_map_shares_the_room_with_tasks(void **state)
{
    (void)state;
    enum { THREADS = 3, COUNT = 2000 };
    mproc_pool *p = pool_with_room(3);
    struct wait wait[THREADS];
    int *in = calloc(COUNT, sizeof *in), *out = calloc(COUNT, sizeof *out);
    mproc_batch b = {.fn = squares,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = COUNT,
                     .out = out,
                     .out_size = sizeof *out,
                     .chunk = 2};
    over = false;
    for (int i = 0; i < THREADS; i++) {
        wait[i] = (struct wait){.p = p};
        begin(&wait[i], takes_room);
    }
    for (int i = 0; i < COUNT; i++) {
        in[i] = i;
    }
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    over = true;
    for (int i = 0; i < THREADS; i++) {
        end(&wait[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(out[i], i * i);
    }
    end_of(p);
    free(in);
    free(out);
}

/* ---- how much at a time ----------------------------------------------- */

/* Without a window there is work for each worker, however large its chunks. */
static void the_chosen_window_has_room_for_chunks(void **state)
{
    (void)state;
    const size_t chunks[] = {1, 1000, SIZE_MAX / 12 + 1, SIZE_MAX};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        mproc_pool *p = pool_of(3);
        struct numbers numbers = {.count = 10000};
        mproc_batch b = {.fn = squares,
                         .next = next_number,
                         .user = &numbers,
                         .chunk = chunks[i]};
        mproc_iter *it = iterate(p, true, b);
        assert_true(numbers.given >= 10000 ||
                    (size_t)numbers.given >= 3 * chunks[i]);
        expect_squares(it, 10000);
        mproc_iter_free(it);
        end_of(p);
    }
}

/* ---- ends ------------------------------------------------------------- */

static void *iterates(void *user)
{
    struct wait *wait = user;
    const mproc_outcome *o;
    assert_ok(mproc_event_set(wait->begun));
    assert_err(mproc_iter_next(wait->it, &o, TEST_BOUND), MPROC_ECANCELED);
    return NULL;
}

/* Nothing of it was sent, so no item's end tells it. */
static void who_waits_for_room_hears_that_the_pool_ends(void **state)
{
    (void)state;
    for (int ordered = 0; ordered < 2; ordered++) {
        mproc_pool *p = pool_with_room(2);
        struct numbers numbers = {.count = 5};
        struct wait wait = {.p = p, .gate = event(), .begun = event()};
        mproc_batch b = {.fn = squares, .next = next_number, .user = &numbers};
        send_waiting(p, wait.gate, 2);
        wait.it = iterate(p, ordered, b);
        assert_int_equal(numbers.given, 0);
        begin(&wait, iterates);
        assert_ok(mproc_event_wait(wait.begun, TEST_BOUND));
        usleep(20000);
        assert_ok(mproc_pool_terminate(p));
        end(&wait);
        assert_ok(mproc_pool_join(p, TEST_BOUND));
        mproc_iter_free(wait.it);
        mproc_pool_free(p);
        mproc_event_free(wait.gate);
        mproc_event_free(wait.begun);
    }
}

static void *joins(void *user)
{
    struct wait *wait = user;
    assert_err(mproc_pool_join(wait->p, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_ok(mproc_event_set(wait->begun));
    assert_ok(mproc_pool_join(wait->p, TEST_BOUND));
    return NULL;
}

/* Most of its items are still to be taken. */
static void a_join_waits_for_another_threads_iterator(void **state)
{
    (void)state;
    struct wait wait = {.p = pool_of(2), .begun = event()};
    struct numbers numbers = {.count = 20};
    mproc_batch b = {
        .fn = squares, .next = next_number, .user = &numbers, .window = 2};
    mproc_iter *it = iterate(wait.p, true, b);
    assert_ok(mproc_pool_close(wait.p));
    begin(&wait, joins);
    assert_ok(mproc_event_wait(wait.begun, TEST_BOUND));
    assert_err(mproc_pool_join(wait.p, TEST_BOUND), MPROC_EDEADLK);
    expect_squares(it, 20);
    end(&wait);
    mproc_iter_free(it);
    mproc_pool_free(wait.p);
    mproc_event_free(wait.begun);
}

/* In the first worker that it makes, and in no later one. */
static int works_once(void *arg)
{
    _Atomic int *calls = *(_Atomic int *const *)arg;
    return atomic_fetch_add(calls, 1) == 0 ? 0 : -1;
}

static mproc_event *to_leave; /* from before there are workers */

static int leaves(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    mproc_event_wait(to_leave, MPROC_FOREVER);
    _exit(1);
}

/* What was under way ends, what was not yet taken is not. */
static void a_broken_pool_ends_its_iterators(void **state)
{
    (void)state;
    for (int joins_first = 0; joins_first < 2; joins_first++) {
        _Atomic int *calls = mproc_calloc(1, sizeof *calls);
        to_leave = event();
        mproc_pool *p = pool_with((mproc_pool_opts){.workers = 1,
                                                    .initializer = works_once,
                                                    .initializer_arg = &calls});
        struct numbers numbers = {.count = 20};
        mproc_call call = {.fn = squares, MPROC_ARG(numbers)};
        mproc_batch b = {.fn = leaves,
                         .next = next_number,
                         .user = &numbers,
                         .chunk = 1,
                         .window = 3};
        const mproc_outcome *o;
        int err, count = 0;
        mproc_iter *it = iterate(p, true, b);
        assert_ok(mproc_event_set(to_leave)); /* the window is full */
        while (mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND) !=
               MPROC_EBROKEN) {
        }
        if (joins_first) {
            end_of(p);
        }
        while ((err = mproc_iter_next(it, &o, TEST_BOUND)) == 0) {
            assert_err(o->status,
                       count == 0 ? MPROC_EWORKERLOST : MPROC_EBROKEN);
            count++;
        }
        assert_err(err, MPROC_EBROKEN);
        assert_int_equal(count, 3);
        assert_in_range(numbers.given, 3, joins_first ? 3 : 4);
        mproc_iter_free(it);
        if (!joins_first) {
            end_of(p);
        }
        mproc_free((void *)calls);
        mproc_event_free(to_leave);
    }
}

/* Large: most of the time the thread that iterates is about to send one. */
static int next_large(void *user, const void **item, size_t *size)
{
    *item = user;
    *size = LARGE;
    return 0;
}

static void *frees(void *user)
{
    struct wait *wait = user;
    assert_ok(mproc_event_wait(wait->begun, TEST_BOUND));
    usleep((useconds_t)wait->delay_us);
    mproc_pool_free(wait->p);
    return NULL;
}

static void a_pool_may_go_while_an_item_is_sent(void **state)
{
    (void)state;
    char *item = calloc(LARGE, 1);
    for (int i = 0; i < 40; i++) {
        struct wait wait = {
            .p = pool_of(1), .begun = event(), .delay_us = i % 8 * 300};
        mproc_batch b = {
            .fn = nothing, .next = next_large, .user = item, .window = 2};
        mproc_iter *it = iterate(wait.p, i % 2, b);
        int err;
        begin(&wait, frees);
        assert_ok(mproc_event_set(wait.begun));
        do {
            err = mproc_iter_next(it, NULL, TEST_BOUND);
        } while (err == 0);
        assert_err(err, MPROC_ECANCELED);
        end(&wait);
        assert_err(mproc_iter_next(it, NULL, TEST_BOUND), MPROC_ECANCELED);
        mproc_iter_free(it);
        mproc_event_free(wait.begun);
    }
    free(item);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(next_may_take_the_room_of_its_items),
        CLEAN(who_waits_for_more_room_sleeps),
        CLEAN(all_hear_of_the_room_of_a_chunk),
        CLEAN(a_map_shares_the_room_with_tasks),
        CLEAN(the_chosen_window_has_room_for_chunks),
        CLEAN(who_waits_for_room_hears_that_the_pool_ends),
        CLEAN(a_join_waits_for_another_threads_iterator),
        CLEAN(a_broken_pool_ends_its_iterators),
        CLEAN(a_pool_may_go_while_an_item_is_sent),
    };
    return cmocka_run_group_tests_name("pool_feed", tests, NULL, NULL);
}
