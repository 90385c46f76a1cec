/* SPDX-License-Identifier: MIT */
/* Items of a batch are told, each as it ends. */
#include "pool_batches.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(every_item_is_told),
        CLEAN(items_are_told_with_replies_of_any_size),
        CLEAN(items_that_never_ran_are_told),
        CLEAN(a_callback_may_free_its_own_batch),
        CLEAN(a_callback_finds_the_batch_where_it_was_wanted),
    };
    return cmocka_run_group_tests_name("pool_on_item", tests, NULL, NULL);
}
