/* SPDX-License-Identifier: MIT */
/*
 * Where the arrays of a batch lie: those in the shared heap are used in place.
 * So its tasks see items at their very addresses, replies are in the caller's
 * array as they come, and the heap holds nothing twice.
 */
#include "pool_support.h"

#include <stdlib.h>
#include <string.h>

enum { ITEMS = 60, MIB = 1 << 20 };

/* ---- addresses -------------------------------------------------------- */

struct item {
    int number;
    char odd[3]; /* so that items do not lie where any type may */
};

static int tells_where(const void *arg, size_t size, mproc_reply *reply)
{
    return size == sizeof(struct item)
               ? mproc_reply_set(reply, &arg, sizeof arg)
               : 1;
}

/* Where the items were, when each of the four calls was asked. */
static void collect_places(mproc_pool *p, mproc_batch *b, int way,
                           const void **place)
{
    const mproc_outcome *o;
    mproc_result *r;
    mproc_iter *it;
    if (way < 2) {
        b->out = place;
        b->out_size = sizeof *place;
    }
    switch (way) {
    case 0:
        assert_ok(mproc_pool_map(p, b, TEST_BOUND));
        return;
    case 1:
        assert_ok(mproc_pool_map_async(p, b, &r));
        assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
        mproc_result_free(r);
        return;
    case 2:
        assert_ok(mproc_pool_imap(p, b, &it));
        break;
    default:
        assert_ok(mproc_pool_imap_unordered(p, b, &it));
        break;
    }
    while (mproc_iter_next(it, &o, TEST_BOUND) == 0) {
        assert_ok(o->status);
        memcpy(&place[o->index], o->data, sizeof *place);
    }
    mproc_iter_free(it);
}

static void expect_places(bool shared, int way, size_t chunk)
{
    mproc_pool *p = pool_of(2);
    struct item *in =
        shared ? mproc_calloc(ITEMS, sizeof *in) : calloc(ITEMS, sizeof *in);
    const void *place[ITEMS] = {NULL};
    mproc_batch b = {.fn = tells_where,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = ITEMS,
                     .chunk = chunk};
    collect_places(p, &b, way, place);
    for (int i = 0; i < ITEMS; i++) {
        assert_int_equal(place[i] == &in[i], shared);
        assert_non_null(place[i]);
    }
    (shared ? mproc_free : free)(in);
    end_of(p);
}

static void items_in_the_shared_heap_are_used_where_they_are(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        for (size_t chunk = 0; chunk <= ITEMS; chunk += ITEMS / 4) {
            expect_places(true, way, chunk);
            expect_places(false, way, chunk);
        }
    }
}

/* A part of a block is as good, and what lies around it is left alone. */
static void so_are_parts_of_a_block(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    struct item *block = mproc_calloc(3 * ITEMS, sizeof *block);
    const void **place = mproc_calloc(3 * ITEMS, sizeof *place);
    mproc_batch b = {.fn = tells_where,
                     .in = &block[ITEMS],
                     .in_size = sizeof *block,
                     .count = ITEMS,
                     .out = &place[ITEMS],
                     .out_size = sizeof *place,
                     .chunk = 7};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    for (int i = 0; i < 3 * ITEMS; i++) {
        bool ours = i >= ITEMS && i < 2 * ITEMS;
        assert_ptr_equal(place[i], ours ? &block[i] : NULL);
    }
    mproc_free(block);
    mproc_free(place);
    end_of(p);
}

/* ---- replies ---------------------------------------------------------- */

struct step {
    const int *out; /* of the batch, all of it */
    mproc_queue *here, *gate;
    int number, waits;
};

/* The one that waits has seen the replies of those before, in their array. */
static int steps(const void *arg, size_t size, mproc_reply *reply)
{
    const struct step *step = arg;
    int number = step->number + 1000;
    (void)size;
    for (int i = 0; step->waits && i < step->number; i++) {
        if (step->out[i] != i + 1000) {
            return mproc_reply_fail(reply, 1, "%d is not there", i);
        }
    }
    if (step->waits) {
        mproc_queue_put(step->here, NULL, 0, MPROC_FOREVER);
        mproc_queue_get(step->gate, NULL, 0, NULL, MPROC_FOREVER);
    }
    return mproc_reply_set(reply, &number, sizeof number);
}

/* Another task, which has nothing to do with the batch. */
static int looks_at(const void *arg, size_t size, mproc_reply *reply)
{
    const int *out = *(const int *const *)arg;
    (void)size;
    return mproc_reply_set(reply, out, ITEMS * sizeof *out);
}

static void replies_are_in_the_array_as_they_come(void **state)
{
    (void)state;
    enum { WAITS = 40 };
    mproc_pool *p = pool_of(2);
    struct step in[ITEMS] = {{.number = 0}};
    int *out = mproc_calloc(ITEMS, sizeof *out), seen[ITEMS];
    int *status = mproc_calloc(ITEMS, sizeof *status);
    mproc_queue *here = queue(), *gate = queue();
    mproc_result *r;
    for (int i = 0; i < ITEMS; i++) {
        in[i] = (struct step){out, here, gate, i, i == WAITS};
        status[i] = 12345;
    }
    mproc_batch b = {.fn = steps,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = ITEMS,
                     .out = out,
                     .out_size = sizeof *out,
                     .status = status,
                     .chunk = ITEMS};
    assert_ok(mproc_pool_map_async(p, &b, &r));
    assert_ok(mproc_queue_get(here, NULL, 0, NULL, TEST_BOUND));
    mproc_call look = {.fn = looks_at, MPROC_ARG(out)};
    assert_ok(mproc_pool_apply(p, &look, seen, sizeof seen, TEST_BOUND));
    for (int i = 0; i < ITEMS; i++) {
        assert_int_equal(out[i], i < WAITS ? i + 1000 : 0);
        assert_int_equal(seen[i], out[i]);
        assert_int_equal(status[i] == MPROC_OK, i < WAITS);
    }
    assert_false(mproc_result_ready(r));
    assert_ok(mproc_queue_put(gate, NULL, 0, MPROC_FOREVER));
    assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
    for (int i = 0; i < ITEMS; i++) {
        assert_int_equal(out[i], i + 1000);
        assert_ok(status[i]);
    }
    mproc_result_free(r);
    end_of(p);
    mproc_free(out);
    mproc_free(status);
    mproc_queue_free(here);
    mproc_queue_free(gate);
}

/* ---- memory ----------------------------------------------------------- */

struct page {
    mproc_queue *here, *gate; /* NULL: it does not wait */
    char data[MIB - 2 * sizeof(mproc_queue *)];
};

static int copies(const void *arg, size_t size, mproc_reply *reply)
{
    const struct page *page = arg;
    char *copy = mproc_reply_reserve(reply, size);
    if (copy == NULL) {
        return 1;
    }
    memcpy(copy, page, size);
    if (page->here != NULL) {
        mproc_queue_put(page->here, NULL, 0, MPROC_FOREVER);
        mproc_queue_get(page->gate, NULL, 0, NULL, MPROC_FOREVER);
    }
    return 0;
}

static size_t heap_in_use(void)
{
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    return info.in_use;
}

/* How much the heap holds more when the last item runs than before. */
static size_t grown_by(bool shared, bool tell)
{
    enum { PAGES = 16 };
    void *(*alloc)(size_t) = shared ? mproc_alloc : malloc;
    mproc_pool *p = pool_of(1);
    mproc_queue *here = queue(), *gate = queue();
    struct page *in = alloc(PAGES * sizeof *in);
    struct page *out = alloc(PAGES * sizeof *out);
    int *status = alloc(PAGES * sizeof *status);
    mproc_result *r;
    memset(in, 0, PAGES * sizeof *in);
    memset(out, 1, PAGES * sizeof *out);
    for (int i = 0; i < PAGES; i++) {
        in[i].data[i] = (char)(i + 1);
    }
    in[PAGES - 1].here = here;
    in[PAGES - 1].gate = gate;
    mproc_progress line = {.total = PAGES};
    mproc_batch b = {.fn = copies,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = PAGES,
                     .out = out,
                     .out_size = sizeof *out,
                     .status = status,
                     .chunk = PAGES,
                     .on_item = tell ? mproc_progress_line : NULL,
                     .user = &line};
    size_t before = heap_in_use();
    assert_ok(mproc_pool_map_async(p, &b, &r));
    assert_ok(mproc_queue_get(here, NULL, 0, NULL, TEST_BOUND));
    size_t grown = heap_in_use() - before;
    assert_ok(mproc_queue_put(gate, NULL, 0, MPROC_FOREVER));
    assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
    assert_memory_equal(in, out, PAGES * sizeof *in);
    mproc_result_free(r);
    end_of(p);
    void (*release)(void *) = shared ? mproc_free : free;
    release(in);
    release(out);
    release(status);
    mproc_queue_free(here);
    mproc_queue_free(gate);
    return grown;
}

static void the_heap_does_not_hold_arrays_twice(void **state)
{
    (void)state;
    for (int tell = 0; tell < 2; tell++) {
        assert_in_range(grown_by(true, tell), 0, MIB / 2);
        assert_in_range(grown_by(false, tell), 32 * MIB, 34 * MIB);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(items_in_the_shared_heap_are_used_where_they_are),
        CLEAN(so_are_parts_of_a_block),
        CLEAN(replies_are_in_the_array_as_they_come),
        CLEAN(the_heap_does_not_hold_arrays_twice),
    };
    return cmocka_run_group_tests_name("pool_places", tests, NULL, NULL);
}
