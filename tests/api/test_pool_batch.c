/* SPDX-License-Identifier: MIT */
/* Batches: many items of one function. */
#include "pool_support.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool_tasks.h"

/* ---- map -------------------------------------------------------------- */

enum { ITEMS = 50, BAD_SIZE = -100, KILLED = -101, CODED = -102 };

static int squares_or_not(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    switch (n) {
    case BAD_SIZE:
        return mproc_reply_set(reply, "12345678", 8);
    case KILLED:
        raise(SIGKILL);
        return 0;
    case CODED:
        return mproc_reply_fail(reply, 42, "item %d", n);
    default:
        return squares(arg, size, reply);
    }
}

struct arrays {
    int *in, *out, *status;
};

static struct arrays arrays(bool shared)
{
    struct arrays a;
    int **array[] = {&a.in, &a.out, &a.status};
    for (int i = 0; i < 3; i++) {
        *array[i] = shared ? mproc_calloc(ITEMS, sizeof(int))
                           : calloc(ITEMS, sizeof(int));
    }
    for (int i = 0; i < ITEMS; i++) {
        a.in[i] = i;
        a.out[i] = -5;
        a.status[i] = 5;
    }
    return a;
}

static void free_arrays(struct arrays *a, bool shared)
{
    void (*end)(void *) = shared ? mproc_free : free;
    end(a->in);
    end(a->out);
    end(a->status);
}

static mproc_batch batch_of(const struct arrays *a, size_t chunk)
{
    return (mproc_batch){.fn = squares_or_not,
                         .in = a->in,
                         .in_size = sizeof(int),
                         .count = ITEMS,
                         .out = a->out,
                         .out_size = sizeof(int),
                         .status = a->status,
                         .chunk = chunk};
}

static int expected_status(int n)
{
    switch (n) {
    case BAD_SIZE:
        return MPROC_EMSGSIZE;
    case KILLED:
        return MPROC_EWORKERLOST;
    case CODED:
        return MPROC_ETASK;
    default:
        return MPROC_OK;
    }
}

static void expect_arrays(const struct arrays *a)
{
    for (int i = 0; i < ITEMS; i++) {
        int status = expected_status(a->in[i]);
        assert_err(a->status[i], status);
        if (status == MPROC_OK) {
            assert_int_equal(a->out[i], a->in[i] * a->in[i]);
        } else {
            assert_int_equal(a->out[i], -5);
        }
    }
}

static const size_t chunks[] = {0,     1,          3,       ITEMS - 1,
                                ITEMS, 10 * ITEMS, SIZE_MAX};
enum { CHUNKS = sizeof chunks / sizeof *chunks };

static void map_fills_its_arrays_in_order(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(3);
    for (int i = 0; i < 2 * CHUNKS; i++) {
        struct arrays a = arrays(i % 2);
        mproc_batch b = batch_of(&a, chunks[i / 2]);
        assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
        expect_arrays(&a);
        b.out = NULL;
        b.out_size = 0;
        assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
        b.status = NULL;
        assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
        free_arrays(&a, i % 2);
    }
    end_of(p);
}

static void a_bad_item_costs_no_other(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < 2 * CHUNKS; i++) {
        struct arrays a = arrays(i % 2);
        a.in[0] = i % 3 == 0 ? KILLED : 0;
        a.in[7] = a.in[8] = KILLED;
        a.in[5] = i % 3 == 1 ? BAD_SIZE : 5;
        a.in[20] = BAD_SIZE;
        a.in[21] = a.in[31] = CODED;
        a.in[ITEMS - 1] = KILLED;
        mproc_batch b = batch_of(&a, chunks[i / 2]);
        assert_err(mproc_pool_map(p, &b, TEST_BOUND),
                   i % 3 == 1 ? MPROC_EMSGSIZE : MPROC_EWORKERLOST);
        expect_arrays(&a);
        free_arrays(&a, i % 2);
    }
    end_of(p);
}

static void expect_first_bad(mproc_pool *p, size_t chunk, int what, int code)
{
    struct arrays a = arrays(false);
    mproc_result *r;
    a.in[11] = what;
    a.in[12] = a.in[30] = KILLED;
    a.in[40] = CODED;
    mproc_batch b = batch_of(&a, chunk);
    assert_ok(mproc_pool_map_async(p, &b, &r));
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    const mproc_outcome *o = mproc_result_outcome(r);
    assert_int_equal(o->index, 11);
    assert_err(o->status, expected_status(what));
    assert_int_equal(o->code, code);
    assert_true(o->worker > 0);
    assert_int_equal(o->size, 0);
    if (what == CODED) {
        assert_string_equal(o->error, "item -102");
    } else if (what == KILLED) {
        assert_non_null(strstr(o->error, "killed by signal 9 (SIGKILL)"));
    }
    assert_err(mproc_result_get(r, NULL, 0, NULL, MPROC_NOWAIT), o->status);
    assert_false(mproc_result_successful(r));
    expect_arrays(&a);
    mproc_result_free(r);
    free_arrays(&a, false);
}

static void the_outcome_of_a_batch_is_its_first_bad_item(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(3);
    for (int i = 0; i < CHUNKS; i++) {
        expect_first_bad(p, chunks[i], CODED, 42);
        expect_first_bad(p, chunks[i], KILLED, -SIGKILL);
        expect_first_bad(p, chunks[i], BAD_SIZE, 0);
    }
    end_of(p);
}

static void an_empty_batch_is_done_at_once(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_result *r;
    mproc_batch b = {.fn = squares};
    assert_ok(mproc_pool_map(p, &b, MPROC_NOWAIT));
    assert_ok(mproc_pool_map_async(p, &b, &r));
    assert_true(mproc_result_successful(r));
    size_t size = 77;
    assert_ok(mproc_result_get(r, NULL, 0, NULL, MPROC_NOWAIT));
    assert_ok(mproc_result_get(r, NULL, 0, &size, MPROC_NOWAIT));
    assert_int_equal(size, 0);
    mproc_result_free(r);
    end_of(p);
    assert_err(mproc_pool_map(p, &b, MPROC_NOWAIT), MPROC_EINVAL);
}

static int next_none(void *user, const void **item, size_t *size)
{
    (void)user;
    (void)item;
    (void)size;
    return MPROC_EOF;
}

static void bad_batches_are_refused(void **state)
{
    (void)state;
    int n[2] = {1, 2};
    const struct {
        mproc_batch batch;
        int err;
    } bad[] = {
        {{.fn = NULL}, MPROC_EINVAL},
        {{.fn = squares, .count = 1, .in_size = 4}, MPROC_EINVAL},
        {{.fn = squares, .in = n, .in_size = SIZE_MAX, .count = 2},
         MPROC_EINVAL},
        {{.fn = squares, .in = n, .in_size = SIZE_MAX, .count = 1},
         MPROC_EINVAL},
        {{.fn = squares, .in = n, .count = 1, .out_size = SIZE_MAX},
         MPROC_EINVAL},
        {{.fn = squares, .in = n, .count = SIZE_MAX / 16 + 1, .chunk = 1},
         MPROC_EINVAL},
        {{.fn = squares, .next = next_none, .in = n, .in_size = 4, .count = 2},
         MPROC_EINVAL},
        {{.fn = squares, .next = next_none, .out = n, .out_size = 4},
         MPROC_EINVAL},
        {{.fn = squares, .next = next_none, .status = n}, MPROC_EINVAL},
        {{.fn = squares, .timeout_s = -1}, MPROC_EINVAL},
    };
    mproc_pool *p = pool_of(1);
    mproc_result *r = NULL;
    mproc_iter *it = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_err(mproc_pool_map(p, &bad[i].batch, TEST_BOUND), bad[i].err);
        assert_err(mproc_pool_map_async(p, &bad[i].batch, &r), bad[i].err);
        assert_err(mproc_pool_imap(p, &bad[i].batch, &it), bad[i].err);
        assert_err(mproc_pool_imap_unordered(p, &bad[i].batch, &it),
                   bad[i].err);
    }
    mproc_batch lazy = {.fn = squares, .next = next_none};
    assert_err(mproc_pool_map_async(p, &lazy, &r), MPROC_EINVAL);
    assert_err(mproc_pool_imap(p, NULL, &it), MPROC_EINVAL);
    assert_err(mproc_pool_imap(p, &lazy, NULL), MPROC_EINVAL);
    assert_err(mproc_pool_imap(NULL, &lazy, &it), MPROC_EINVAL);
    assert_null(it);
    mproc_batch good = {.fn = squares, .in = n, .in_size = 4, .count = 2};
    assert_err(mproc_pool_map(p, NULL, TEST_BOUND), MPROC_EINVAL);
    assert_err(mproc_pool_map(NULL, &good, TEST_BOUND), MPROC_EINVAL);
    assert_err(mproc_pool_map_async(p, &good, NULL), MPROC_EINVAL);
    assert_null(r);
    end_of(p);
}

/* Item 0 waits; of its chunk the others are never reached. */
static int first_waits(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    mproc_queue *gate = *(mproc_queue *const *)arg;
    return gate != NULL ? mproc_queue_get(gate, NULL, 0, NULL, MPROC_FOREVER)
                        : 0;
}

static void a_batch_ends_at_its_deadline(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        mproc_pool *p = pool_of(1);
        mproc_queue *gate = queue();
        mproc_queue *in[6] = {NULL, NULL, gate, NULL, NULL, NULL};
        int *status =
            shared ? mproc_alloc(6 * sizeof(int)) : malloc(6 * sizeof(int));
        mproc_batch b = {.fn = first_waits,
                         .in = in,
                         .in_size = sizeof in[0],
                         .count = 6,
                         .status = status,
                         .chunk = 4};
        assert_err(mproc_pool_map(p, &b, mproc_in_ms(200)), MPROC_ETIMEDOUT);
        for (int i = 2; i < 6; i++) {
            assert_err(status[i], MPROC_ECANCELED);
        }
        in[2] = NULL;
        assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
        end_of(p);
        mproc_queue_free(gate);
        (shared ? mproc_free : free)(status);
    }
}

static void a_batch_freed_early_is_cancelled(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_queue *gate = queue();
    mproc_queue *in[4] = {gate, gate, gate, NULL};
    mproc_result *r;
    mproc_batch b = {
        .fn = first_waits, .in = in, .in_size = sizeof in[0], .count = 4};
    assert_ok(mproc_pool_map_async(p, &b, &r));
    mproc_result_free(r);
    in[0] = in[1] = in[2] = NULL;
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    end_of(p);
    mproc_queue_free(gate);
}

struct batch_acts {
    mproc_result *r;
    char *out;
};

static void free_batch(const mproc_outcome *o, void *user)
{
    struct batch_acts *a = user;
    (void)o;
    mproc_result_free(a->r);
    memset(a->out, 'x', 4);
    free(a->out); /* not to be touched again */
}

static void a_callback_may_free_a_batch(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_queue *gate = queue();
    struct batch_acts a = {.out = calloc(4, 1)};
    mproc_queue *in[4] = {NULL, NULL, NULL, gate};
    mproc_batch b = {.fn = first_waits,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = 4,
                     .status = malloc(4 * sizeof(int)),
                     .chunk = 4};
    int *status = b.status;
    assert_ok(mproc_pool_map_async(p, &b, &a.r));
    mproc_call call = {.fn = does_nothing, .callback = free_batch, .user = &a};
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    end_of(p); /* the batch is cancelled, or this would not end */
    free(status);
    mproc_queue_free(gate);
}

/* ---- on_item ---------------------------------------------------------- */

struct told {
    atomic_int running, total;
    pid_t pid;
    struct {
        int times, status, code, value;
        size_t size;
        pid_t worker;
        char error[64];
    } item[ITEMS];
};

/* Never two at once, and the data as a reply lies. */
static void hear(const mproc_outcome *o, void *user)
{
    struct told *told = user;
    assert_int_equal(atomic_fetch_add(&told->running, 1), 0);
    assert_int_equal(getpid(), told->pid);
    assert_true(o->index < ITEMS);
    told->item[o->index].times++;
    told->item[o->index].status = o->status;
    told->item[o->index].code = o->code;
    told->item[o->index].size = o->size;
    told->item[o->index].worker = o->worker;
    if (o->status == MPROC_OK) {
        assert_int_equal((uintptr_t)o->data % _Alignof(max_align_t), 0);
        assert_int_equal(((const char *)o->data)[o->size], '\0');
        memcpy(&told->item[o->index].value, o->data, sizeof(int));
    }
    snprintf(told->item[o->index].error, sizeof told->item[0].error, "%s",
             o->error);
    atomic_fetch_add(&told->total, 1);
    atomic_fetch_sub(&told->running, 1);
}

static const char *expected_error(int n, pid_t worker)
{
    static char text[64];
    switch (n) {
    case KILLED:
        snprintf(text, sizeof text, "worker %d killed by signal 9 (SIGKILL)",
                 (int)worker);
        return text;
    case CODED:
        return "item -102";
    case BAD_SIZE:
        return mproc_strerror(MPROC_EMSGSIZE);
    default:
        return "";
    }
}

static int expected_code(int n)
{
    return n == KILLED ? -SIGKILL : n == CODED ? 42 : 0;
}

static void expect_told(const struct told *told, const struct arrays *a)
{
    assert_int_equal(told->total, ITEMS);
    for (int i = 0; i < ITEMS; i++) {
        int n = a->in[i];
        assert_int_equal(told->item[i].times, 1);
        assert_err(told->item[i].status, expected_status(n));
        assert_int_equal(told->item[i].code, expected_code(n));
        assert_true(told->item[i].worker > 0);
        assert_string_equal(told->item[i].error,
                            expected_error(n, told->item[i].worker));
        if (told->item[i].status == MPROC_OK) {
            assert_int_equal(told->item[i].size, sizeof(int));
            assert_int_equal(told->item[i].value, n * n);
        }
    }
}

static void every_item_is_told(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(3);
    for (int i = 0; i < 2 * CHUNKS; i++) {
        struct arrays a = arrays(i % 2);
        struct told told = {.pid = getpid()};
        a.in[3] = a.in[4] = a.in[ITEMS - 1] = KILLED;
        a.in[0] = a.in[7] = a.in[30] = CODED;
        a.in[12] = BAD_SIZE;
        mproc_batch b = batch_of(&a, chunks[i / 2]);
        b.on_item = hear;
        b.user = &told;
        assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_ETASK);
        expect_told(&told, &a);
        expect_arrays(&a);
        free_arrays(&a, i % 2);
    }
    end_of(p);
}

/* Item n is of n * n bytes. */
static int replies_with_bytes(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    (void)size;
    if (n % 5 == 4) {
        mproc_reply_reserve(reply, 20000);
        return mproc_reply_fail(reply, n, "%0*d", n * 30, n);
    }
    mproc_reply_reserve(reply, 10);
    char *bytes = mproc_reply_reserve(reply, (size_t)n * (size_t)n);
    memset(bytes, 'a' + n % 26, (size_t)n * (size_t)n);
    return 0;
}

static void hear_bytes(const mproc_outcome *o, void *user)
{
    atomic_int *told = user;
    const char *bytes = o->data;
    int n = (int)o->index;
    atomic_fetch_add(told, 1);
    if (n % 5 == 4) {
        assert_err(o->status, MPROC_ETASK);
        assert_int_equal(o->code, n);
        assert_int_equal(strlen(o->error), n * 30);
        assert_int_equal(atoi(o->error), n);
        return;
    }
    assert_ok(o->status);
    assert_int_equal(o->size, n * n);
    assert_int_equal((uintptr_t)bytes % _Alignof(max_align_t), 0);
    assert_int_equal(bytes[o->size], '\0');
    for (size_t i = 0; i < o->size; i++) {
        assert_int_equal(bytes[i], 'a' + n % 26);
    }
}

static void items_are_told_with_replies_of_any_size(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < CHUNKS; i++) {
        struct arrays a = arrays(false);
        atomic_int told = 0;
        mproc_batch b = batch_of(&a, chunks[i]);
        b.fn = replies_with_bytes;
        b.out = NULL;
        b.out_size = 0;
        b.on_item = hear_bytes;
        b.user = &told;
        assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_ETASK);
        assert_int_equal(told, ITEMS);
        free_arrays(&a, false);
    }
    end_of(p);
}

static void count_canceled(const mproc_outcome *o, void *user)
{
    atomic_int *counts = user;
    assert_true(o->status == MPROC_OK || o->status == MPROC_ECANCELED);
    atomic_fetch_add(&counts[o->status == MPROC_ECANCELED], 1);
}

static void items_that_never_ran_are_told(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    mproc_pool *p = pool_of(1);
    mproc_queue *gate = queue();
    mproc_queue **in = calloc(COUNT, sizeof *in);
    int *status = calloc(COUNT, sizeof *status);
    in[1] = gate;
    mproc_batch b = {.fn = first_waits,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = COUNT,
                     .status = status,
                     .chunk = 1};
    atomic_int counts[2] = {0, 0};
    b.on_item = count_canceled;
    b.user = counts;
    assert_err(mproc_pool_map(p, &b, mproc_in_ms(200)), MPROC_ETIMEDOUT);
    assert_int_equal(counts[0] + counts[1], COUNT);
    assert_true(counts[1] >= COUNT - 1);
    for (int i = 1; i < COUNT; i++) {
        assert_err(status[i], MPROC_ECANCELED);
    }
    end_of(p);
    free(status);
    free(in);
    mproc_queue_free(gate);
}

struct own {
    mproc_result *r;
    int *array[3];
    int told;
    bool shared;
    mproc_event *freed;
};

/* At its third item the batch is freed, and what it used is poisoned. */
static void free_own_batch(const mproc_outcome *o, void *user)
{
    struct own *own = user;
    (void)o;
    if (++own->told != 3) {
        return;
    }
    mproc_result_free(own->r);
    for (int i = 0; i < 3; i++) {
        memset(own->array[i], 0x55, ITEMS * sizeof(int));
    }
    mproc_event_set(own->freed);
}

static int squares_slowly(const void *arg, size_t size, mproc_reply *reply)
{
    usleep(1000);
    return squares(arg, size, reply);
}

static void expect_poison(const struct own *own)
{
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < ITEMS; k++) {
            assert_int_equal(own->array[i][k], 0x55555555);
        }
    }
}

static void a_callback_may_free_its_own_batch(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * CHUNKS; i++) {
        mproc_pool *p = pool_of(2);
        struct arrays a = arrays(i % 2);
        struct own own = {.array = {a.in, a.out, a.status}};
        assert_ok(mproc_event_new(&own.freed));
        mproc_batch b = batch_of(&a, chunks[i / 2]);
        b.fn = squares_slowly;
        b.on_item = free_own_batch;
        b.user = &own;
        assert_ok(mproc_pool_map_async(p, &b, &own.r));
        assert_ok(mproc_event_wait(own.freed, TEST_BOUND));
        end_of(p);
        assert_int_equal(own.told, 3);
        expect_poison(&own);
        free_arrays(&a, i % 2);
        mproc_event_free(own.freed);
    }
}

static void look_for_result(const mproc_outcome *o, void *user)
{
    mproc_result **place = user;
    (void)o;
    assert_non_null(*place);
    mproc_result_free(*place);
}

static void a_callback_finds_the_batch_where_it_was_wanted(void **state)
{
    (void)state;
    enum { TIMES = 200 };
    static mproc_result *r[TIMES]; /* callbacks may come late */
    static int in[TIMES];
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < TIMES; i++) {
        mproc_batch b = {.fn = squares,
                         .in = &in[i],
                         .in_size = sizeof in[i],
                         .count = 1,
                         .on_item = look_for_result,
                         .user = &r[i]};
        assert_ok(mproc_pool_map_async(p, &b, &r[i]));
        mproc_call call = {.fn = does_nothing};
        assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    }
    end_of(p);
}

static void close_lets_a_batch_end(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    int *in = calloc(COUNT, sizeof *in), *out = calloc(COUNT, sizeof *out);
    for (size_t chunk = 0; chunk < 2; chunk++) {
        mproc_pool *p = pool_of(2);
        mproc_result *r;
        mproc_batch b = {.fn = squares,
                         .in = in,
                         .in_size = sizeof *in,
                         .count = COUNT,
                         .out = out,
                         .out_size = sizeof *out,
                         .chunk = chunk};
        for (int i = 0; i < COUNT; i++) {
            in[i] = i;
            out[i] = -1;
        }
        assert_ok(mproc_pool_map_async(p, &b, &r));
        end_of(p);
        assert_true(mproc_result_successful(r));
        for (int i = 0; i < COUNT; i++) {
            assert_int_equal(out[i], i * i);
        }
        mproc_result_free(r);
    }
    free(in);
    free(out);
}

/* ---- how much at a time ----------------------------------------------- */

enum { LONG_TASKS = 60 };

/* Some wait for the end of all others. */
static bool waits_for_others(size_t i)
{
    return i == 0 || i == LONG_TASKS / 2;
}

static int takes_long(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_event *others = *(mproc_event *const *)arg;
    (void)size;
    (void)reply;
    usleep(5000);
    return others != NULL ? mproc_event_wait(others, TEST_BOUND) : 0;
}

struct others {
    mproc_event *ended;
    int missing;
};

static void count_others(const mproc_outcome *o, void *user)
{
    struct others *others = user;
    if (!waits_for_others(o->index) && --others->missing == 0) {
        mproc_event_set(others->ended);
    }
}

static void no_item_waits_behind_a_long_one(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(4);
    struct others others = {.missing = LONG_TASKS - 2};
    mproc_event *in[LONG_TASKS] = {NULL};
    assert_ok(mproc_event_new(&others.ended));
    in[0] = in[LONG_TASKS / 2] = others.ended;
    mproc_batch b = {.fn = takes_long,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = LONG_TASKS,
                     .on_item = count_others,
                     .user = &others};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    end_of(p);
    mproc_event_free(others.ended);
}

/* How many items run, or have ended and were not yet told, at most. */
struct crowd {
    _Atomic int now, most;
};

static int joins_crowd(const void *arg, size_t size, mproc_reply *reply)
{
    struct crowd *crowd = *(struct crowd *const *)arg;
    int now = atomic_fetch_add(&crowd->now, 1) + 1, most = crowd->most;
    (void)size;
    (void)reply;
    while (now > most &&
           !atomic_compare_exchange_weak(&crowd->most, &most, now)) {
    }
    return 0;
}

static void leave_crowd(const mproc_outcome *o, void *user)
{
    struct crowd *crowd = user;
    (void)o;
    usleep(1000);
    atomic_fetch_sub(&crowd->now, 1);
}

static void no_more_items_are_under_way_than_the_window(void **state)
{
    (void)state;
    const size_t windows[] = {1, 2, 7, 8, 50};
    struct crowd *crowd = mproc_calloc(1, sizeof *crowd);
    struct crowd *in[200];
    mproc_pool *p = pool_of(4);
    for (int i = 0; i < 200; i++) {
        in[i] = crowd;
    }
    for (int i = 0; i < 15; i++) {
        size_t window = windows[i / 3];
        mproc_batch b = {.fn = joins_crowd,
                         .in = in,
                         .in_size = sizeof in[0],
                         .count = 200,
                         .window = window,
                         .chunk = (size_t)(i % 3) * 3,
                         .on_item = leave_crowd,
                         .user = crowd};
        crowd->most = 0;
        assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
        assert_int_equal(crowd->now, 0);
        assert_in_range(crowd->most, 1, window);
    }
    end_of(p);
    mproc_free(crowd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(map_fills_its_arrays_in_order),
        CLEAN(a_bad_item_costs_no_other),
        CLEAN(the_outcome_of_a_batch_is_its_first_bad_item),
        CLEAN(an_empty_batch_is_done_at_once),
        CLEAN(bad_batches_are_refused),
        CLEAN(a_batch_ends_at_its_deadline),
        CLEAN(a_batch_freed_early_is_cancelled),
        CLEAN(a_callback_may_free_a_batch),
        CLEAN(every_item_is_told),
        CLEAN(items_are_told_with_replies_of_any_size),
        CLEAN(items_that_never_ran_are_told),
        CLEAN(a_callback_may_free_its_own_batch),
        CLEAN(a_callback_finds_the_batch_where_it_was_wanted),
        CLEAN(close_lets_a_batch_end),
        CLEAN(no_item_waits_behind_a_long_one),
        CLEAN(no_more_items_are_under_way_than_the_window),
    };
    return cmocka_run_group_tests_name("pool_batch", tests, NULL, NULL);
}
