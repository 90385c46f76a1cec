/* SPDX-License-Identifier: MIT */
/* Iterating over replies: imap, and items that come one by one. */
#include "pool_support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tasks and items -------------------------------------------------- */

enum { ITEMS = 100, MANY = 2000 };

/* Item n is n bytes more than its number. */
struct item {
    int n;
    char more[ITEMS];
};

static size_t size_of_item(int n)
{
    return offsetof(struct item, more) + (size_t)n;
}

static bool fails(int n)
{
    return n % 10 == 7;
}

static bool dies(int n)
{
    return n % 25 == 3;
}

/* Replies with the item, if it lies as it should. */
static int echoes(const void *arg, size_t size, mproc_reply *reply)
{
    const struct item *item = arg;
    if ((uintptr_t)arg % _Alignof(max_align_t) != 0 ||
        ((const char *)arg)[size] != '\0') {
        return mproc_reply_fail(reply, -1, "misplaced");
    }
    if (dies(item->n)) {
        raise(SIGKILL);
    }
    return fails(item->n)
               ? mproc_reply_fail(reply, 40 + item->n, "bun %d", item->n)
               : mproc_reply_set(reply, arg, size);
}

struct source {
    struct item item;
    int given, count;
    int end; /* what it says after the last one */
    int asked_after_end;
};

static int next_item(void *user, const void **item, size_t *size)
{
    struct source *source = user;
    source->asked_after_end += source->given > source->count;
    if (source->given >= source->count) {
        source->given++;
        return source->end;
    }
    source->item.n = source->given++;
    memset(source->item.more, 'a' + source->item.n % 26, ITEMS);
    *item = &source->item;
    *size = size_of_item(source->item.n);
    return 0;
}

static void expect_outcome(const mproc_outcome *o, int n)
{
    char error[64];
    const struct item *item = o->data;
    assert_int_equal(o->index, n);
    assert_true(o->worker > 0);
    if (dies(n)) {
        snprintf(error, sizeof error, "worker %d killed by signal 9 (SIGKILL)",
                 (int)o->worker);
        assert_err(o->status, MPROC_EWORKERLOST);
        assert_int_equal(o->code, -SIGKILL);
        assert_string_equal(o->error, error);
    } else if (fails(n)) {
        snprintf(error, sizeof error, "bun %d", n);
        assert_err(o->status, MPROC_ETASK);
        assert_int_equal(o->code, 40 + n);
        assert_string_equal(o->error, error);
    } else {
        assert_ok(o->status);
        assert_string_equal(o->error, "");
        assert_int_equal(o->size, size_of_item(n));
        assert_int_equal((uintptr_t)o->data % _Alignof(max_align_t), 0);
        assert_int_equal(((const char *)o->data)[o->size], '\0');
        assert_int_equal(item->n, n);
        for (int i = 0; i < n; i++) {
            assert_int_equal(item->more[i], 'a' + n % 26);
        }
    }
}

static mproc_iter *iterate(mproc_pool *p, bool ordered, mproc_batch b)
{
    mproc_iter *it = NULL;
    int err = ordered ? mproc_pool_imap(p, &b, &it)
                      : mproc_pool_imap_unordered(p, &b, &it);
    assert_ok(err);
    assert_non_null(it);
    return it;
}

static const mproc_outcome *next_of(mproc_iter *it)
{
    const mproc_outcome *o = NULL;
    assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
    return o;
}

/* Each item once, and in order if so wanted. */
static void expect_items(mproc_iter *it, bool ordered)
{
    bool seen[ITEMS] = {false};
    for (int i = 0; i < ITEMS; i++) {
        const mproc_outcome *o = next_of(it);
        assert_true(o->index < ITEMS);
        assert_false(seen[o->index]);
        assert_true(!ordered || o->index == (size_t)i);
        seen[o->index] = true;
        expect_outcome(o, (int)o->index);
    }
}

static void expect_end(mproc_iter *it, int err)
{
    const mproc_outcome *o = NULL;
    for (int i = 0; i < 3; i++) {
        assert_err(mproc_iter_next(it, &o, TEST_BOUND), err);
        assert_null(o);
    }
}

static const size_t sizes[] = {0, 1, 2, 7, ITEMS, SIZE_MAX};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* ---- what comes out --------------------------------------------------- */

static void items_of_any_size_come_back(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(3);
    for (int i = 0; i < 2 * SIZES * SIZES; i++) {
        bool ordered = i % 2;
        struct source source = {.count = ITEMS, .end = MPROC_EOF};
        mproc_iter *it = iterate(p, ordered,
                                 (mproc_batch){.fn = echoes,
                                               .next = next_item,
                                               .user = &source,
                                               .chunk = sizes[i / 2 % SIZES],
                                               .window = sizes[i / 2 / SIZES]});
        expect_items(it, ordered);
        expect_end(it, MPROC_EOF);
        assert_int_equal(source.given, ITEMS + 1);
        assert_int_equal(source.asked_after_end, 0);
        mproc_iter_free(it);
    }
    end_of(p);
}

/* As a map fills them; each item's is there when it is handed out. */
static void expect_squares(mproc_pool *p, bool shared, mproc_batch b)
{
    void *(*alloc)(size_t, size_t) = shared ? mproc_calloc : calloc;
    void (*end)(void *) = shared ? mproc_free : free;
    int *in = alloc(ITEMS, sizeof *in), *out = alloc(ITEMS, sizeof *out);
    int *status = alloc(ITEMS, sizeof *status);
    b.in = in;
    b.out = b.out_size > 0 ? out : NULL;
    b.status = status;
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
        status[i] = 1;
    }
    mproc_iter *it = iterate(p, true, b);
    for (int i = 0; i < ITEMS; i++) {
        const mproc_outcome *o = next_of(it);
        assert_int_equal(o->index, i);
        assert_ok(o->status);
        assert_int_equal(o->size, sizeof(int));
        assert_int_equal(*(const int *)o->data, i * i);
        assert_int_equal((uintptr_t)o->data % _Alignof(max_align_t), 0);
        assert_int_equal(out[i], b.out != NULL ? i * i : 0);
        assert_ok(status[i]);
    }
    expect_end(it, MPROC_EOF);
    mproc_iter_free(it);
    end(in);
    end(out);
    end(status);
}

static void arrays_may_be_iterated_over(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < 4 * SIZES; i++) {
        expect_squares(p, i % 2,
                       (mproc_batch){.fn = squares,
                                     .in_size = sizeof(int),
                                     .count = ITEMS,
                                     .out_size = i / 2 % 2 ? sizeof(int) : 0,
                                     .chunk = sizes[i / 4]});
    }
    end_of(p);
}

static int waits_for(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_event *event = *(mproc_event *const *)arg;
    (void)size;
    (void)reply;
    return event != NULL ? mproc_event_wait(event, MPROC_FOREVER) : 0;
}

static mproc_event *event(void)
{
    mproc_event *e;
    assert_ok(mproc_event_new(&e));
    return e;
}

static void unordered_items_come_as_they_end(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_event *in[ITEMS] = {event()};
    mproc_batch b = {
        .fn = waits_for, .in = in, .in_size = sizeof in[0], .count = ITEMS};
    mproc_iter *it = iterate(p, false, b);
    for (int i = 1; i < ITEMS; i++) {
        assert_int_not_equal(next_of(it)->index, 0);
    }
    assert_ok(mproc_event_set(in[0]));
    assert_int_equal(next_of(it)->index, 0);
    expect_end(it, MPROC_EOF);
    mproc_iter_free(it);
    end_of(p);
    mproc_event_free(in[0]);
}

static void waiting_for_an_item_may_be_repeated(void **state)
{
    (void)state;
    for (int ordered = 0; ordered < 2; ordered++) {
        mproc_pool *p = pool_of(1);
        mproc_event *in[2] = {NULL, event()};
        const mproc_outcome *o = NULL;
        mproc_batch b = {.fn = waits_for,
                         .in = in,
                         .in_size = sizeof in[0],
                         .count = 2,
                         .chunk = 1};
        mproc_iter *it = iterate(p, ordered, b);
        assert_int_equal(next_of(it)->index, 0);
        assert_err(mproc_iter_next(it, &o, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        assert_err(mproc_iter_next(it, &o, mproc_in_ms(20)), MPROC_ETIMEDOUT);
        assert_null(o);
        assert_ok(mproc_event_set(in[1]));
        assert_int_equal(next_of(it)->index, 1);
        expect_end(it, MPROC_EOF);
        mproc_iter_free(it);
        end_of(p);
        mproc_event_free(in[1]);
    }
}

static void nothing_to_iterate_over(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    struct source source = {.count = 0, .end = MPROC_EOF};
    mproc_batch b = {.fn = squares};
    mproc_iter *it = iterate(p, true, b);
    expect_end(it, MPROC_EOF);
    mproc_iter_free(it);
    b.next = next_item;
    b.user = &source;
    it = iterate(p, false, b);
    expect_end(it, MPROC_EOF);
    mproc_iter_free(it);
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    end_of(p);
    mproc_iter_free(NULL);
    assert_err(mproc_iter_next(NULL, NULL, MPROC_NOWAIT), MPROC_EINVAL);
}

/* ---- how much is asked for -------------------------------------------- */

static int next_number(void *user, const void **item, size_t *size)
{
    int *given = user;
    ++*given;
    *item = given;
    *size = sizeof *given;
    return 0;
}

static void no_more_is_asked_for_than_the_window(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < 2 * SIZES * (SIZES - 2); i++) {
        int given = 0;
        size_t window = sizes[1 + i / 2 / SIZES];
        mproc_iter *it = iterate(p, i % 2,
                                 (mproc_batch){.fn = squares,
                                               .next = next_number,
                                               .user = &given,
                                               .chunk = sizes[i / 2 % SIZES],
                                               .window = window});
        assert_in_range(given, 1, window);
        for (size_t k = 0; k < 50; k++) {
            next_of(it);
            assert_in_range(given, k + 1, k + window);
        }
        mproc_iter_free(it);
    }
    end_of(p);
}

/* Chosen: enough for the workers, and not all there is. */
static void without_a_window_it_does_not_run_away(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(4);
    int given = 0;
    mproc_batch b = {.fn = squares, .next = next_number, .user = &given};
    mproc_iter *it = iterate(p, true, b);
    assert_in_range(given, 4, 1000);
    for (int i = 0; i < 10000; i++) {
        next_of(it);
    }
    assert_in_range(given, 10000, 200000);
    mproc_iter_free(it);
    end_of(p);
}

/* Others' tasks leave it no room at first. */
static void an_iteration_waits_for_room(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * SIZES; i++) {
        mproc_pool *p =
            pool_with((mproc_pool_opts){.workers = 2, .max_pending = 3});
        mproc_event *gate = event();
        mproc_call call = {.fn = waits_for, MPROC_ARG(gate)};
        struct source source = {.count = ITEMS, .end = MPROC_EOF};
        const mproc_outcome *o;
        for (int k = 0; k < 3; k++) {
            assert_ok(mproc_pool_apply_async(p, &call, NULL, TEST_BOUND));
        }
        mproc_iter *it = iterate(p, i % 2,
                                 (mproc_batch){.fn = echoes,
                                               .next = next_item,
                                               .user = &source,
                                               .chunk = sizes[i / 2]});
        assert_int_equal(source.given, 0);
        assert_err(mproc_iter_next(it, &o, mproc_in_ms(5)), MPROC_ETIMEDOUT);
        assert_ok(mproc_event_set(gate));
        for (int k = 0; k < ITEMS; k++) {
            o = next_of(it);
            expect_outcome(o, (int)o->index);
        }
        expect_end(it, MPROC_EOF);
        mproc_iter_free(it);
        end_of(p);
        mproc_event_free(gate);
    }
}

static void a_count_bounds_what_is_asked_for(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    int given = 0, out[20], status[20];
    mproc_batch b = {.fn = squares,
                     .next = next_number,
                     .user = &given,
                     .count = 20,
                     .out = out,
                     .out_size = sizeof out[0],
                     .status = status};
    mproc_iter *it = iterate(p, true, b);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(*(const int *)next_of(it)->data, (i + 1) * (i + 1));
    }
    expect_end(it, MPROC_EOF);
    assert_int_equal(given, 20);
    mproc_iter_free(it);
    given = 0;
    memset(out, 0, sizeof out);
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    assert_int_equal(given, 20);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(out[i], (i + 1) * (i + 1));
        assert_ok(status[i]);
    }
    end_of(p);
}

static void the_error_of_next_comes_last(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    const int ends[] = {MPROC_EPIPE, -12345, 3};
    for (int i = 0; i < 3 * SIZES; i++) {
        struct source source = {.count = ITEMS, .end = ends[i / SIZES]};
        mproc_iter *it = iterate(p, true,
                                 (mproc_batch){.fn = echoes,
                                               .next = next_item,
                                               .user = &source,
                                               .chunk = sizes[i % SIZES]});
        expect_items(it, true);
        expect_end(it, ends[i / SIZES] < 0 ? ends[i / SIZES] : MPROC_EINVAL);
        assert_int_equal(source.asked_after_end, 0);
        mproc_iter_free(it);
    }
    end_of(p);
}

static int no_item(void *user, const void **item, size_t *size)
{
    (void)user;
    (void)item;
    *size = 5;
    return 0;
}

static void an_item_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_batch b = {.fn = squares, .next = no_item};
    mproc_iter *it = iterate(p, true, b);
    expect_end(it, MPROC_EINVAL);
    mproc_iter_free(it);
    assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EINVAL);
    end_of(p);
}

struct told {
    struct source source; /* first: next_item is given this */
    pthread_t asked_in;
    atomic_int times[ITEMS];
};

static void count_item(const mproc_outcome *o, void *user)
{
    struct told *told = user;
    assert_true(o->index < ITEMS);
    expect_outcome(o, (int)o->index);
    atomic_fetch_add(&told->times[o->index], 1);
}

static int next_in_thread(void *user, const void **item, size_t *size)
{
    struct told *told = user;
    assert_true(pthread_equal(told->asked_in, pthread_self()));
    return next_item(&told->source, item, size);
}

static void map_takes_items_one_by_one(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(3);
    for (int i = 0; i < 2 * SIZES; i++) {
        struct told told = {.source = {.count = ITEMS, .end = MPROC_EOF},
                            .asked_in = pthread_self()};
        int status[ITEMS + 5];
        mproc_batch b = {.fn = echoes,
                         .next = next_in_thread,
                         .user = &told,
                         .count = ITEMS + 5,
                         .status = status,
                         .chunk = sizes[i % SIZES],
                         .on_item = count_item};
        if (i >= SIZES) {
            told.source.end = MPROC_EPIPE;
        }
        memset(status, 0x11, sizeof status);
        assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EWORKERLOST);
        for (int k = 0; k < ITEMS; k++) {
            assert_int_equal(told.times[k], 1);
            assert_err(status[k], dies(k)    ? MPROC_EWORKERLOST
                                  : fails(k) ? MPROC_ETASK
                                             : MPROC_OK);
        }
        assert_int_equal(status[ITEMS], 0x11111111);
        told.source = (struct source){.count = 3, .end = MPROC_EPIPE};
        assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EPIPE);
    }
    end_of(p);
}

static int next_event(void *user, const void **item, size_t *size)
{
    *item = user;
    *size = sizeof(mproc_event *);
    return 0;
}

static void a_lazy_map_ends_at_its_deadline(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_event *gate = event();
    int status[8] = {0};
    mproc_batch b = {.fn = waits_for,
                     .next = next_event,
                     .user = &gate,
                     .count = 8,
                     .status = status};
    assert_err(mproc_pool_map(p, &b, mproc_in_ms(50)), MPROC_ETIMEDOUT);
    for (int i = 0; i < 8; i++) {
        assert_err(status[i], MPROC_ECANCELED);
    }
    end_of(p);
    mproc_event_free(gate);
}

/* ---- ends ------------------------------------------------------------- */

static void an_iterator_freed_early_touches_nothing_more(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < 40; i++) {
        int *array[3];
        for (int k = 0; k < 3; k++) {
            array[k] = i % 2 ? mproc_calloc(MANY, sizeof(int))
                             : calloc(MANY, sizeof(int));
        }
        mproc_batch b = {.fn = squares,
                         .in = array[0],
                         .in_size = sizeof(int),
                         .count = MANY,
                         .out = array[1],
                         .out_size = sizeof(int),
                         .status = array[2],
                         .chunk = (size_t)(i / 4 % 3) * 10};
        mproc_iter *it = iterate(p, i / 2 % 2, b);
        for (int k = 0; k < i * 40; k++) {
            next_of(it);
        }
        mproc_iter_free(it);
        assert_err(mproc_iter_next(it, NULL, TEST_BOUND), MPROC_EINVAL);
        for (int k = 0; k < 3; k++) {
            memset(array[k], 0x55, MANY * sizeof(int));
        }
        int n = 3, out;
        assert_ok(mproc_pool_apply(p, &(mproc_call){squares, MPROC_ARG(n)},
                                   &out, sizeof out, TEST_BOUND));
        for (int k = 0; k < 3 * MANY; k++) {
            assert_int_equal(array[k / MANY][k % MANY], 0x55555555);
        }
        for (int k = 0; k < 3; k++) {
            (i % 2 ? mproc_free : free)(array[k]);
        }
    }
    end_of(p);
}

static void what_runs_for_a_freed_iterator_is_ended(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_event *gate = event();
    mproc_event *in[6] = {gate, NULL, gate, gate, gate, gate};
    mproc_iter *it = iterate(p, false,
                             (mproc_batch){.fn = waits_for,
                                           .in = in,
                                           .in_size = sizeof in[0],
                                           .count = 6,
                                           .chunk = 1});
    next_of(it);
    mproc_iter_free(it);
    end_of(p); /* with gate shut it would not end */
    mproc_event_free(gate);
}

static void a_closed_pool_is_iterated_to_the_end(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        mproc_pool *p = pool_of(2);
        struct source source = {.count = ITEMS, .end = MPROC_EOF};
        mproc_batch b = {.fn = echoes,
                         .next = next_item,
                         .user = &source,
                         .chunk = (size_t)i % 2,
                         .window = sizes[1 + i / 2]};
        mproc_iter *it = iterate(p, true, b);
        assert_ok(mproc_pool_close(p));
        assert_err(mproc_pool_join(p, TEST_BOUND), MPROC_EDEADLK);
        expect_items(it, true);
        expect_end(it, MPROC_EOF);
        assert_ok(mproc_pool_join(p, TEST_BOUND));
        assert_err(mproc_pool_imap(p, &b, &it), MPROC_ESHUTDOWN);
        mproc_pool_free(p);
        expect_end(it, MPROC_EOF);
        mproc_iter_free(it);
    }
}

/* All of it lies in the window. */
static void a_small_batch_may_be_iterated_over_after_a_join(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    int in[20];
    for (int i = 0; i < 20; i++) {
        in[i] = i;
    }
    mproc_iter *it = iterate(p, true,
                             (mproc_batch){.fn = squares,
                                           .in = in,
                                           .in_size = sizeof in[0],
                                           .count = 20,
                                           .window = 20});
    end_of(p);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(*(const int *)next_of(it)->data, i * i);
    }
    expect_end(it, MPROC_EOF);
    mproc_iter_free(it);
}

static void *joins(void *user)
{
    assert_ok(mproc_pool_join(user, TEST_BOUND));
    return NULL;
}

static void another_threads_join_waits_for_the_iterator(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    struct source source = {.count = ITEMS, .end = MPROC_EOF};
    pthread_t thread;
    mproc_iter *it = iterate(
        p, true,
        (mproc_batch){.fn = echoes, .next = next_item, .user = &source});
    assert_ok(mproc_pool_close(p));
    assert_int_equal(pthread_create(&thread, NULL, joins, p), 0);
    expect_items(it, true);
    expect_end(it, MPROC_EOF);
    mproc_iter_free(it);
    pthread_join(thread, NULL);
    mproc_pool_free(p);
}

static void freeing_an_iterator_lets_its_pool_end(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    int given = 0;
    mproc_iter *it = iterate(
        p, true,
        (mproc_batch){.fn = squares, .next = next_number, .user = &given});
    assert_ok(mproc_pool_close(p));
    mproc_iter_free(it);
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    mproc_pool_free(p);
}

/* Good ones first or between, then those that were under way. */
static void expect_cancelled(mproc_iter *it, int window)
{
    const mproc_outcome *o;
    int err, count = 0;
    while ((err = mproc_iter_next(it, &o, TEST_BOUND)) == 0) {
        assert_true(o->status == MPROC_OK || o->status == MPROC_ECANCELED);
        count++;
    }
    assert_err(err, MPROC_ECANCELED);
    assert_int_equal(count, window);
    expect_end(it, MPROC_ECANCELED);
}

static void a_terminated_pool_ends_its_iterators(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        mproc_pool *p = pool_of(2);
        mproc_event *in[ITEMS] = {NULL};
        in[2] = event();
        mproc_iter *it = iterate(p, i % 2,
                                 (mproc_batch){.fn = waits_for,
                                               .in = in,
                                               .in_size = sizeof in[0],
                                               .count = ITEMS,
                                               .chunk = 1,
                                               .window = 6});
        assert_ok(mproc_pool_terminate(p));
        if (i / 2) {
            mproc_pool_free(p);
        } else {
            assert_ok(mproc_pool_join(p, TEST_BOUND));
        }
        expect_cancelled(it, 6);
        mproc_iter_free(it);
        if (!(i / 2)) {
            mproc_pool_free(p);
        }
        mproc_event_free(in[2]);
    }
}

static void *frees_pool(void *user)
{
    usleep(2000);
    mproc_pool_free(user);
    return NULL;
}

static void a_pool_may_go_while_it_is_iterated_over(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        mproc_pool *p = pool_of(2);
        pthread_t thread;
        const mproc_outcome *o;
        int given = 0, err;
        mproc_iter *it = iterate(p, i % 2,
                                 (mproc_batch){.fn = squares,
                                               .next = next_number,
                                               .user = &given,
                                               .chunk = (size_t)i % 3});
        assert_int_equal(pthread_create(&thread, NULL, frees_pool, p), 0);
        while ((err = mproc_iter_next(it, &o, TEST_BOUND)) == 0) {
            assert_true(o->status == MPROC_OK || o->status == MPROC_ECANCELED);
        }
        assert_err(err, MPROC_ECANCELED);
        pthread_join(thread, NULL);
        mproc_iter_free(it);
    }
}

/* ---- who may what ----------------------------------------------------- */

static int may_do_nothing(void *arg)
{
    mproc_iter *it = arg;
    const mproc_outcome *o;
    mproc_iter_free(it);
    return mproc_iter_next(it, &o, MPROC_NOWAIT) == MPROC_EPERM ? 0 : 1;
}

static void another_process_may_not_iterate(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    struct source source = {.count = ITEMS, .end = MPROC_EOF};
    mproc_iter *it = iterate(
        p, true,
        (mproc_batch){.fn = echoes, .next = next_item, .user = &source});
    assert_int_equal(test_wait_exit(test_fork(may_do_nothing, it)), 0);
    expect_items(it, true);
    mproc_iter_free(it);
    end_of(p);
}

struct own {
    mproc_iter *it;
    int given;
};

/* Its fourth item tries to go on and frees the iterator. */
static int next_frees(void *user, const void **item, size_t *size)
{
    struct own *own = user;
    const mproc_outcome *o;
    if (own->given == 3) {
        assert_err(mproc_iter_next(own->it, &o, MPROC_NOWAIT), MPROC_EBUSY);
        mproc_iter_free(own->it);
    }
    return next_number(&own->given, item, size);
}

static void next_may_free_its_iterator(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    struct own own = {NULL, 0};
    own.it = iterate(
        p, true,
        (mproc_batch){
            .fn = squares, .next = next_frees, .user = &own, .window = 2});
    next_of(own.it);
    next_of(own.it);
    assert_err(mproc_iter_next(own.it, NULL, TEST_BOUND), MPROC_EINVAL);
    assert_err(mproc_iter_next(own.it, NULL, TEST_BOUND), MPROC_EINVAL);
    end_of(p);
}

struct acts {
    mproc_pool *p;
    mproc_iter *it;
    mproc_event *gate, *done;
    mproc_event *in[3];
};

static void iterates_in_callback(const mproc_outcome *outcome, void *user)
{
    struct acts *acts = user;
    const mproc_outcome *o;
    (void)outcome;
    assert_err(mproc_iter_next(acts->it, &o, TEST_BOUND), MPROC_EDEADLK);
    assert_err(mproc_iter_next(acts->it, &o, MPROC_NOWAIT), MPROC_EDEADLK);
    mproc_iter_free(acts->it);
    memset(acts->in, 0x55, sizeof acts->in);
    mproc_event_set(acts->done);
}

static int nothing(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    return 0;
}

static void a_callback_may_not_wait_for_an_item(void **state)
{
    (void)state;
    struct acts acts = {.p = pool_of(2), .gate = event(), .done = event()};
    acts.in[0] = acts.in[1] = acts.gate;
    acts.it = iterate(acts.p, true,
                      (mproc_batch){.fn = waits_for,
                                    .in = acts.in,
                                    .in_size = sizeof acts.in[0],
                                    .count = 1});
    mproc_call call = {
        .fn = nothing, .callback = iterates_in_callback, .user = &acts};
    assert_ok(mproc_pool_apply_async(acts.p, &call, NULL, MPROC_FOREVER));
    assert_ok(mproc_event_wait(acts.done, TEST_BOUND));
    end_of(acts.p);
    mproc_event_free(acts.gate);
    mproc_event_free(acts.done);
}

/* What it finds while it asks may be new work. */
static int next_makes_things(void *user, const void **item, size_t *size)
{
    mproc_queue *q = queue();
    mproc_queue_free(q);
    return next_item(user, item, size);
}

static void next_may_use_the_library(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    struct source source = {.count = ITEMS, .end = MPROC_EOF};
    mproc_iter *it =
        iterate(p, true,
                (mproc_batch){
                    .fn = echoes, .next = next_makes_things, .user = &source});
    expect_items(it, true);
    mproc_iter_free(it);
    end_of(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(items_of_any_size_come_back),
        CLEAN(arrays_may_be_iterated_over),
        CLEAN(unordered_items_come_as_they_end),
        CLEAN(waiting_for_an_item_may_be_repeated),
        CLEAN(nothing_to_iterate_over),
        CLEAN(no_more_is_asked_for_than_the_window),
        CLEAN(without_a_window_it_does_not_run_away),
        CLEAN(an_iteration_waits_for_room),
        CLEAN(a_count_bounds_what_is_asked_for),
        CLEAN(the_error_of_next_comes_last),
        CLEAN(an_item_that_is_not_there_is_an_error),
        CLEAN(map_takes_items_one_by_one),
        CLEAN(a_lazy_map_ends_at_its_deadline),
        CLEAN(an_iterator_freed_early_touches_nothing_more),
        CLEAN(what_runs_for_a_freed_iterator_is_ended),
        CLEAN(a_closed_pool_is_iterated_to_the_end),
        CLEAN(a_small_batch_may_be_iterated_over_after_a_join),
        CLEAN(another_threads_join_waits_for_the_iterator),
        CLEAN(freeing_an_iterator_lets_its_pool_end),
        CLEAN(a_terminated_pool_ends_its_iterators),
        CLEAN(a_pool_may_go_while_it_is_iterated_over),
        CLEAN(another_process_may_not_iterate),
        CLEAN(next_may_free_its_iterator),
        CLEAN(a_callback_may_not_wait_for_an_item),
        CLEAN(next_may_use_the_library),
    };
    return cmocka_run_group_tests_name("pool_iter", tests, NULL, NULL);
}
