/* SPDX-License-Identifier: MIT */
/*
 * What a cancel says is so: after 0 something ends cancelled, after
 * MPROC_EINVAL nothing does.
 */
#include "pool_killer.h"
#include "pool_tasks.h"

enum { MOST = 64, ROUNDS = 80 };

/* Pools of every kind, with time for their tasks to return. */
static const mproc_pool_opts kinds[] = {
    {.workers = 2, .grace_s = 3600},
    {.workers = 2, .grace_s = 3600, .manual_dispatch = 1},
    {.workers = 2, .start = MPROC_START_THREAD},
    {.workers = 2, .start = MPROC_START_THREAD, .manual_dispatch = 1},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* Those in the shared heap are written where they lie. */
struct arrays {
    _Atomic int in[MOST];
    int status[MOST];
};

static struct arrays *new_arrays(void)
{
    struct arrays *a = mproc_calloc(1, sizeof *a);
    assert_non_null(a);
    return a;
}

static mproc_batch batch_over(struct arrays *a, mproc_task_fn *fn, size_t count)
{
    return (mproc_batch){.fn = fn,
                         .in = a->in,
                         .in_size = sizeof a->in[0],
                         .count = count,
                         .status = a->status};
}

static int cancelled_of(const struct arrays *a, size_t count)
{
    int cancelled = 0;
    for (size_t i = 0; i < count; i++) {
        cancelled += a->status[i] == MPROC_ECANCELED;
    }
    return cancelled;
}

/* ---- what returns in its grace ---------------------------------------- */

/* Says in its item that it runs; one below 0 returns at once. */
static int returns_when_told(const void *arg, size_t size, mproc_reply *reply)
{
    _Atomic int *in = (_Atomic int *)(uintptr_t)arg;
    (void)size;
    (void)reply;
    if (*in < 0) {
        return 0;
    }
    *in = 1;
    while (!mproc_task_canceled()) {
        usleep(1000);
    }
    return 0;
}

static int returns_when_told_by(const void *arg, size_t size,
                                mproc_reply *reply)
{
    struct arrays *a = *(struct arrays *const *)arg;
    return returns_when_told((const void *)&a->in[0], size, reply);
}

static void await_item(struct arrays *a, size_t i)
{
    mproc_deadline until = TEST_BOUND;
    while (a->in[i] != 1) {
        assert_true(mproc_in_s(0).at_ns < until.at_ns);
        usleep(1000);
    }
}

static void a_task_that_returns_in_its_grace_is_cancelled(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        mproc_pool *p = pool_with(kinds[k]);
        struct arrays *a = new_arrays();
        mproc_call call = {.fn = returns_when_told_by, MPROC_ARG(a)};
        mproc_result *r = sent(p, call);
        await_item(a, 0);
        assert_ok(mproc_result_cancel(r));
        assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND),
                   MPROC_ECANCELED);
        assert_err(mproc_result_cancel(r), MPROC_EINVAL);
        mproc_result_free(r);
        mproc_free(a);
        end_of(p);
    }
}

/* Also the last of a chunk, when all others have ended well. */
static void an_item_that_returns_in_its_grace_is_cancelled(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        mproc_pool *p = pool_with(kinds[k]);
        for (size_t at = 0; at < 3; at++) {
            struct arrays *a = new_arrays();
            mproc_batch b = batch_over(a, returns_when_told, 3);
            mproc_result *r;
            b.chunk = 3;
            for (size_t i = 0; i < at; i++) {
                a->in[i] = -1;
            }
            assert_ok(mproc_pool_map_async(p, &b, &r));
            await_item(a, at);
            assert_ok(mproc_result_cancel(r));
            if (kinds[k].manual_dispatch) { /* or it may have ended since */
                assert_ok(mproc_result_cancel(r));
            }
            assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND),
                       MPROC_ECANCELED);
            assert_int_equal(mproc_result_outcome(r)->index, at);
            assert_int_equal(cancelled_of(a, 3), 3 - at);
            assert_err(mproc_result_cancel(r), MPROC_EINVAL);
            mproc_result_free(r);
            mproc_free(a);
        }
        end_of(p);
    }
}

/* ---- what has ended, and is not taken note of ------------------------- */

static void await_end_of_items(mproc_pool *p, const struct arrays *a,
                               size_t count)
{
    mproc_worker_info info[2];
    mproc_deadline until = TEST_BOUND;
    bool ended = false;
    while (!ended) {
        assert_true(mproc_in_s(0).at_ns < until.at_ns);
        usleep(1000);
        assert_int_equal(mproc_pool_worker_stats(p, info, 2), 2);
        ended = !info[0].busy && !info[1].busy;
        for (size_t i = 0; i < count; i++) {
            ended &= atomic_load(&a->in[i]) == 1;
        }
    }
}

static int says_so(const void *arg, size_t size, mproc_reply *reply)
{
    *(_Atomic int *)(uintptr_t)arg = 1;
    (void)size;
    (void)reply;
    return 0;
}

static void count_it(const mproc_outcome *o, void *user)
{
    (void)o;
    ++*(int *)user;
}

/* To a maker that does not look, the batch is under way. */
static void expect_ended_well(mproc_pool *p, mproc_done_fn *on_item)
{
    int told = 0;
    mproc_result *r;
    struct arrays *a = new_arrays();
    mproc_batch b = batch_over(a, says_so, 4);
    b.on_item = on_item;
    b.user = &told;
    assert_ok(mproc_pool_map_async(p, &b, &r));
    await_end_of_items(p, a, 4);
    assert_err(mproc_result_cancel(r), MPROC_EINVAL);
    end_of(p);
    assert_ok(mproc_result_get(r, NULL, 0, NULL, MPROC_NOWAIT));
    assert_int_equal(cancelled_of(a, 4), 0);
    assert_int_equal(told, on_item != NULL ? 4 : 0);
    mproc_result_free(r);
    mproc_free(a);
}

static void a_batch_whose_items_have_ended_is_not_cancelled(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        expect_ended_well(pool_with(kinds[k]), NULL);
        expect_ended_well(pool_with(kinds[k]), count_it);
    }
}

/* ---- at any moment ---------------------------------------------------- */

static void take_time(int us)
{
    int64_t until = mproc_in_s(0).at_ns + us * INT64_C(1000);
    while (mproc_in_s(0).at_ns < until) {
    }
}

/* Says in its item that it returns. */
static int takes_time(const void *arg, size_t size, mproc_reply *reply)
{
    _Atomic int *us = (_Atomic int *)(uintptr_t)arg;
    (void)size;
    (void)reply;
    take_time(*us);
    *us = -1;
    return 0;
}

/* Some time, or until the last item has just ended, or its worker has. */
static void let_run(const struct arrays *a, size_t count, unsigned *seed)
{
    int us = rand_r(seed) % 2 ? rand_r(seed) % 50 : rand_r(seed) % 300;
    if (rand_r(seed) % 2) {
        take_time(us);
        return;
    }
    int64_t until = mproc_in_s(0.01).at_ns;
    while (atomic_load(&a->in[count - 1]) >= 0 && mproc_in_s(0).at_ns < until) {
    }
    for (volatile int i = 0; i < us; i++) {
    }
}

/* Returns whether it was cancelled. */
static bool cancel_at_some_moment(mproc_pool *p, struct arrays *a,
                                  unsigned *seed)
{
    static const size_t chunks[] = {0, 1, 3, MOST};
    size_t count = (size_t)rand_r(seed) % (rand_r(seed) % 2 ? MOST : 3) + 1;
    int us = rand_r(seed) % 8;
    mproc_result *r;
    mproc_batch b = batch_over(a, takes_time, count);
    b.chunk = chunks[rand_r(seed) % 4];
    b.window = rand_r(seed) % 4 == 0 ? 5 : 0;
    for (size_t i = 0; i < count; i++) {
        a->in[i] = us;
    }
    assert_ok(mproc_pool_map_async(p, &b, &r));
    let_run(a, count, seed);
    int err = mproc_result_cancel(r);
    int end = mproc_result_get(r, NULL, 0, NULL, TEST_BOUND);
    assert_err(err, cancelled_of(a, count) > 0 ? MPROC_OK : MPROC_EINVAL);
    if (end != MPROC_EWORKERLOST) {
        assert_err(end, err == 0 ? MPROC_ECANCELED : MPROC_OK);
    }
    mproc_result_free(r);
    return err == 0;
}

static void cancel_often(mproc_pool *p, int rounds)
{
    unsigned seed = 1;
    int cancelled = 0;
    struct arrays *a = new_arrays();
    for (int i = 0; i < rounds; i++) {
        cancelled += cancel_at_some_moment(p, a, &seed);
    }
    assert_in_range(cancelled, 1, rounds - 1);
    mproc_free(a);
}

/* Where a cancel costs no process there is time for more of them. */
static void whenever_it_comes_a_cancel_does_what_it_says(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        bool threads = kinds[k].start == MPROC_START_THREAD;
        mproc_pool *p = pool_with(kinds[k]);
        cancel_often(p, threads ? ROUNDS * 4 / SLOWER : ROUNDS / SLOWER);
        end_of(p);
    }
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 2, .max_pending = 10});
    cancel_often(p, ROUNDS / SLOWER);
    end_of(p);
}

static void it_does_so_while_workers_are_killed(void **state)
{
    (void)state;
    static const enum victim victims[] = {ONE_WORKER, NURSERY};
    for (int v = 0; v < 2; v++) {
        mproc_pool *p = pool_of(2);
        struct killer k = {.pool = p,
                           .victim = victims[v],
                           .pause_us = (v == 0 ? 10000 : 60000) * SLOWER,
                           .seed = 1};
        begin_to_kill(&k);
        struct arrays *a = new_arrays();
        unsigned seed = 1;
        mproc_deadline enough = mproc_in_s(1);
        while (mproc_in_s(0).at_ns < enough.at_ns || k.kills == 0) {
            cancel_at_some_moment(p, a, &seed);
        }
        mproc_free(a);
        end_to_kill(&k);
        end_of(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(a_task_that_returns_in_its_grace_is_cancelled),
        CLEAN(an_item_that_returns_in_its_grace_is_cancelled),
        CLEAN(a_batch_whose_items_have_ended_is_not_cancelled),
        CLEAN(whenever_it_comes_a_cancel_does_what_it_says),
        CLEAN(it_does_so_while_workers_are_killed),
    };
    return cmocka_run_group_tests_name("pool_cancel", tests, NULL, NULL);
}
