/* SPDX-License-Identifier: MIT */
/* Pools that grow and shrink. */
#include "pool_tasks.h"

/* So many tasks that wait for each other to run. */
static void expect_at_once(mproc_pool *p, int tasks)
{
    mproc_queue *here = queue();
    mproc_result *r[16];
    for (int i = 0; i < tasks; i++) {
        r[i] = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
    }
    for (int i = 0; i < tasks; i++) {
        heard(here);
    }
    for (int i = 0; i < tasks; i++) {
        assert_ok(mproc_result_cancel(r[i]));
        expect_ends(r[i], MPROC_ECANCELED);
        mproc_result_free(r[i]);
    }
    mproc_queue_free(here);
}

static void a_pool_grows_and_shrinks(void **state)
{
    (void)state;
    const size_t sizes[] = {2, 5, 1, 12, 12, 3, 16, 1};
    mproc_pool *p = pool_of(1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_ok(mproc_pool_resize(p, sizes[i]));
        assert_true(mproc_pool_worker_pids(p, NULL, 0) >= sizes[i]);
        expect_workers(p, sizes[i]);
        expect_at_once(p, (int)sizes[i]);
        expect_workers(p, sizes[i]);
    }
    assert_err(mproc_pool_resize(p, 0), MPROC_EINVAL);
    assert_err(mproc_pool_resize(NULL, 1), MPROC_EINVAL);
    assert_err(mproc_pool_resize(p, 10000), MPROC_EAGAIN);
    assert_err(mproc_pool_resize(p, SIZE_MAX), MPROC_EAGAIN);
    expect_workers(p, 1);
    assert_ok(mproc_pool_close(p));
    assert_err(mproc_pool_resize(p, 2), MPROC_ESHUTDOWN);
    end_of(p);
}

/* Those that are left run on, and no task is lost by it. */
static void shrinking_lets_tasks_end(void **state)
{
    (void)state;
    enum { WORKERS = 4, ITEMS = 400 };
    mproc_pool *p = pool_of(WORKERS);
    mproc_queue *here = queue();
    mproc_result *stays_on =
        sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
    pid_t busy = heard(here), left[WORKERS];
    assert_ok(mproc_pool_resize(p, 1));
    expect_workers(p, 1); /* the idle ones went */
    mproc_pool_worker_pids(p, left, 1);
    assert_int_equal(left[0], busy);
    assert_ok(mproc_pool_resize(p, WORKERS));
    assert_ok(mproc_result_cancel(stays_on));
    expect_ends(stays_on, MPROC_ECANCELED);
    mproc_result_free(stays_on);
    int in[ITEMS], out[ITEMS];
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
    }
    mproc_batch b = {.fn = squares,
                     .in = in,
                     .in_size = sizeof(int),
                     .count = ITEMS,
                     .out = out,
                     .out_size = sizeof(int),
                     .chunk = 7};
    for (size_t n = 1; n < 40; n++) {
        mproc_result *r;
        assert_ok(mproc_pool_map_async(p, &b, &r));
        assert_ok(mproc_pool_resize(p, 1 + n * 7 % 5));
        assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
        for (int i = 0; i < ITEMS; i++) {
            assert_int_equal(out[i], i * i);
        }
        mproc_result_free(r);
    }
    end_of(p);
    mproc_queue_free(here);
}

/* A worker that runs is told to leave, and then that it may stay. */
static void a_shrinking_pool_may_grow_again(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_queue *here = queue();
    mproc_result *r[2];
    for (int i = 0; i < 2; i++) {
        r[i] = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
        heard(here);
    }
    assert_ok(mproc_pool_resize(p, 1));
    assert_int_equal(mproc_pool_worker_pids(p, NULL, 0), 2);
    assert_ok(mproc_pool_resize(p, 3));
    assert_int_equal(mproc_pool_worker_pids(p, NULL, 0), 3);
    worker_of(p);
    for (int i = 0; i < 2; i++) {
        assert_ok(mproc_result_cancel(r[i]));
        expect_ends(r[i], MPROC_ECANCELED);
        mproc_result_free(r[i]);
    }
    expect_at_once(p, 3);
    end_of(p);
    mproc_queue_free(here);
}

static void resize_it(const mproc_outcome *o, void *user)
{
    (void)o;
    assert_ok(mproc_pool_resize(user, 3));
    assert_ok(mproc_pool_resize(user, 1));
    assert_ok(mproc_pool_resize(user, 4));
}

static void a_callback_may_resize(void **state)
{
    (void)state;
    int n = 1;
    mproc_pool *p = pool_of(1);
    mproc_call call = {
        .fn = squares, MPROC_ARG(n), .callback = resize_it, .user = p};
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    expect_workers(p, 4);
    expect_at_once(p, 4);
    end_of(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(a_pool_grows_and_shrinks),
        CLEAN(shrinking_lets_tasks_end),
        CLEAN(a_shrinking_pool_may_grow_again),
        CLEAN(a_callback_may_resize),
    };
    return cmocka_run_group_tests_name("pool_resize", tests, NULL, NULL);
}
