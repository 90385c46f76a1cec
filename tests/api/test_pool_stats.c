/* SPDX-License-Identifier: MIT */
/* What a pool tells of its tasks and workers. */
#include "pool_tasks.h"

#include <stdlib.h>
#include <unistd.h>

static int exits(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    exit(3);
}

static void expect_ended(mproc_pool *p, size_t done)
{
    mproc_pool_info info;
    assert_ok(mproc_pool_stats(p, &info));
    assert_int_equal(info.done, done);
    assert_int_equal(info.queued + info.running, 0);
}

/* Who knows that a task has ended, sees it counted once. */
static void what_has_ended_is_counted_once(void **state)
{
    (void)state;
    enum { ROUNDS = 500, ITEMS = 20 };
    int in[ITEMS] = {0}, out;
    for (int manual = 0; manual < 2; manual++) {
        mproc_pool *p = pool_with(
            (mproc_pool_opts){.workers = 2, .manual_dispatch = manual});
        mproc_call call = {.fn = squares, MPROC_ARG(in[0])};
        mproc_batch b = {
            .fn = squares, .in = in, .in_size = sizeof(int), .count = ITEMS};
        for (size_t i = 0; i < ROUNDS; i++) {
            assert_ok(mproc_pool_apply(p, &call, &out, sizeof out, TEST_BOUND));
            expect_ended(p, i * (1 + ITEMS) + 1);
            assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
            expect_ended(p, (i + 1) * (1 + ITEMS));
        }
        end_of(p);
    }
}

static void a_pool_counts(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_queue *here = queue();
    mproc_pool_info info;
    mproc_result *r[5];
    assert_ok(mproc_pool_stats(p, &info));
    assert_int_equal(info.workers, 2);
    assert_int_equal(info.queued + info.running + info.done + info.failed +
                         info.lost + info.respawned,
                     0);
    for (int i = 0; i < 5; i++) {
        r[i] = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
    }
    heard(here);
    heard(here);
    assert_ok(mproc_pool_stats(p, &info));
    assert_int_equal(info.running, 2);
    assert_int_equal(info.queued, 3);
    for (int i = 4; i >= 0; i--) {
        assert_ok(mproc_result_cancel(r[i]));
        expect_ends(r[i], MPROC_ECANCELED);
        mproc_result_free(r[i]);
    }
    int in[4] = {1, 2, 3, 4};
    mproc_batch b = {
        .fn = squares, .in = in, .in_size = sizeof(int), .count = 4};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    b.fn = exits;
    assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EWORKERLOST);
    assert_err(
        mproc_pool_apply(p, &(mproc_call){.fn = exits}, NULL, 0, TEST_BOUND),
        MPROC_EWORKERLOST);
    worker_of(p);
    for (int i = 0; i < 3000 && info.respawned < 7; i++) {
        usleep(10000); /* the last one may yet be to come */
        assert_ok(mproc_pool_stats(p, &info));
    }
    assert_int_equal(info.workers, 2);
    assert_int_equal(info.queued + info.running, 0);
    assert_int_equal(info.done, 5);
    assert_int_equal(info.failed, 5);
    assert_int_equal(info.lost, 5);
    assert_int_equal(info.respawned, 7);
    assert_err(mproc_pool_stats(p, NULL), MPROC_EINVAL);
    assert_err(mproc_pool_stats(NULL, &info), MPROC_EINVAL);
    end_of(p);
    mproc_queue_free(here);
}

static void workers_know_their_time(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_queue *here = queue();
    mproc_worker_info info[3] = {{.pid = 0}};
    mproc_result *r = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
    pid_t pid = heard(here);
    usleep(200000);
    assert_int_equal(mproc_pool_worker_stats(p, info, 3), 2);
    int i = info[1].pid == pid;
    assert_int_equal(info[i].pid, pid);
    assert_int_equal(info[i].busy, 1);
    assert_true(info[i].busy_s >= 0.19 && info[i].busy_s < 60);
    assert_int_equal(info[1 - i].busy, 0);
    assert_true(info[1 - i].idle_s >= 0.19 && info[1 - i].idle_s < 60);
    assert_true(info[1 - i].busy_s < 0.1);
    assert_int_equal(info[2].pid, 0);
    assert_int_equal(mproc_pool_worker_stats(p, NULL, 0), 2);
    assert_ok(mproc_result_cancel(r));
    expect_ends(r, MPROC_ECANCELED);
    mproc_result_free(r);
    end_of(p);
    assert_int_equal(mproc_pool_worker_stats(p, info, 3), 0);
    mproc_queue_free(here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(what_has_ended_is_counted_once),
        CLEAN(a_pool_counts),
        CLEAN(workers_know_their_time),
    };
    return cmocka_run_group_tests_name("pool_stats", tests, NULL, NULL);
}
