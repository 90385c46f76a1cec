/* SPDX-License-Identifier: MIT */
/* Batches: many items of one function. */
#include "pool_batches.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

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
        CLEAN(close_lets_a_batch_end),
    };
    return cmocka_run_group_tests_name("pool_batch", tests, NULL, NULL);
}
