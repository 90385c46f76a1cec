/* SPDX-License-Identifier: MIT */
/* Tasks that are stopped: cancelled, or over their time. */
#include "pool_tasks.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* As stays, until it is told to stop, which it says. */
static int stays_until_told(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_queue *here = *(mproc_queue *const *)arg;
    pid_t pid = getpid();
    (void)size;
    mproc_queue_put(here, &pid, sizeof pid, MPROC_FOREVER);
    while (!mproc_task_canceled()) {
        usleep(1000);
    }
    mproc_queue_put(here, &pid, sizeof pid, MPROC_FOREVER);
    return mproc_reply_set(reply, "never seen", 10);
}

/* ---- cancelling ------------------------------------------------------- */

static void a_waiting_task_that_is_cancelled_never_runs(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_queue *here = queue(), *not_here = queue();
    mproc_result *runs = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
    mproc_result *waits =
        sent(p, (mproc_call){.fn = stays, MPROC_ARG(not_here)});
    heard(here);
    assert_ok(mproc_result_cancel(waits));
    expect_ends(waits, MPROC_ECANCELED);
    assert_int_equal(mproc_result_outcome(waits)->worker, 0);
    assert_err(mproc_result_cancel(waits), MPROC_EINVAL);
    assert_false(mproc_result_ready(runs));
    assert_ok(mproc_result_cancel(runs));
    expect_ends(runs, MPROC_ECANCELED);
    mproc_result_free(waits);
    mproc_result_free(runs);
    assert_err(mproc_result_cancel(runs), MPROC_EINVAL);
    assert_err(mproc_result_cancel(NULL), MPROC_EINVAL);
    end_of(p);
    assert_true(mproc_queue_empty(not_here));
    mproc_queue_free(here);
    mproc_queue_free(not_here);
}

static void a_running_task_is_ended_with_its_worker(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_queue *here = queue();
    mproc_result *r = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
    pid_t pid = heard(here);
    assert_ok(mproc_result_cancel(r));
    expect_ends(r, MPROC_ECANCELED);
    assert_int_equal(mproc_result_outcome(r)->worker, pid);
    assert_int_not_equal(worker_of(p), pid);
    mproc_result_free(r);
    end_of(p);
    mproc_queue_free(here);
}

static void an_ended_task_is_not_cancelled(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    int n = 7, out;
    pid_t before = worker_of(p);
    mproc_result *r = sent(p, (mproc_call){.fn = squares, MPROC_ARG(n)});
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    assert_err(mproc_result_cancel(r), MPROC_EINVAL);
    assert_ok(mproc_result_get(r, &out, sizeof out, NULL, MPROC_NOWAIT));
    assert_int_equal(out, 49);
    assert_int_equal(worker_of(p), before);
    end_of(p);
    assert_err(mproc_result_cancel(r), MPROC_EINVAL);
    mproc_result_free(r);
}

static void a_task_has_its_grace(void **state)
{
    (void)state;
    mproc_pool *p = pool_with((mproc_pool_opts){.workers = 2, .grace_s = 3600});
    mproc_queue *here = queue();
    mproc_call call = {.fn = stays_until_told, MPROC_ARG(here)};
    mproc_result *r = sent(p, call);
    pid_t pid = heard(here);
    assert_ok(mproc_result_cancel(r));
    assert_int_equal(heard(here), pid); /* it was told, and lives */
    expect_ends(r, MPROC_ECANCELED);
    mproc_result_free(r);
    /* and apply does not wait for the grace */
    call.fn = stays;
    assert_err(mproc_pool_apply(p, &call, NULL, 0, mproc_in_ms(100)),
               MPROC_ETIMEDOUT);
    worker_of(p);
    assert_ok(mproc_pool_terminate(p)); /* nor does terminate */
    end_of(p);
    mproc_queue_free(here);
}

static void the_grace_ends(void **state)
{
    (void)state;
    mproc_pool *p = pool_with((mproc_pool_opts){.workers = 1, .grace_s = 0.3});
    mproc_queue *here = queue();
    mproc_result *r = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
    pid_t pid = heard(here);
    mproc_deadline not_before = mproc_in_ms(290);
    assert_ok(mproc_result_cancel(r));
    expect_ends(r, MPROC_ECANCELED);
    assert_true(mproc_in_s(0).at_ns >= not_before.at_ns);
    assert_int_not_equal(worker_of(p), pid);
    mproc_result_free(r);
    end_of(p);
    mproc_queue_free(here);
}

static void a_batch_is_cancelled_as_a_whole(void **state)
{
    (void)state;
    enum { ITEMS = 40 };
    mproc_pool *p = pool_of(2);
    mproc_queue *here = queue(), *in[ITEMS];
    int status[ITEMS];
    for (int i = 0; i < ITEMS; i++) {
        in[i] = here;
    }
    mproc_batch b = {.fn = stays,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = ITEMS,
                     .status = status,
                     .chunk = 3};
    mproc_result *r;
    assert_ok(mproc_pool_map_async(p, &b, &r));
    heard(here);
    heard(here);
    assert_ok(mproc_result_cancel(r));
    assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND), MPROC_ECANCELED);
    for (int i = 0; i < ITEMS; i++) {
        assert_err(status[i], MPROC_ECANCELED);
    }
    assert_err(mproc_result_cancel(r), MPROC_EINVAL);
    mproc_result_free(r);
    worker_of(p);
    end_of(p);
    assert_true(mproc_queue_empty(here));
    mproc_queue_free(here);
}

struct cancels {
    mproc_result *victim;
    int err;
};

static void cancel_it(const mproc_outcome *o, void *user)
{
    struct cancels *c = user;
    (void)o;
    c->err = mproc_result_cancel(c->victim);
}

static void a_callback_may_cancel(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_queue *here = queue();
    int n = 1;
    struct cancels c = {.err = 1};
    c.victim = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
    heard(here);
    mproc_call call = {
        .fn = squares, MPROC_ARG(n), .callback = cancel_it, .user = &c};
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    end_of(p);
    assert_ok(c.err);
    expect_ends(c.victim, MPROC_ECANCELED);
    mproc_result_free(c.victim);
    mproc_queue_free(here);
}

/* ---- time ------------------------------------------------------------- */

static int stops_itself(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    raise(SIGSTOP);
    return mproc_reply_set(reply, "never seen", 10);
}

static void a_task_over_its_time_is_ended(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_queue *here = queue();
    mproc_task_fn *fns[] = {stays, stops_itself};
    mproc_result *other = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
    pid_t other_pid = heard(here);
    for (int i = 0; i < 2; i++) {
        char error[80];
        pid_t pid = worker_of(p);
        mproc_deadline not_before = mproc_in_ms(200);
        mproc_call call = {.fn = fns[i], MPROC_ARG(here), .timeout_s = 0.2};
        mproc_result *r = sent(p, call);
        expect_ends(r, MPROC_EOVERTIME);
        assert_true(mproc_in_s(0).at_ns >= not_before.at_ns);
        const mproc_outcome *o = mproc_result_outcome(r);
        snprintf(error, sizeof error, "worker %d ended: its task ran too long",
                 (int)pid);
        assert_string_equal(o->error, error);
        assert_int_equal(o->worker, pid);
        assert_int_not_equal(worker_of(p), pid);
        mproc_result_free(r);
        assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND),
                   MPROC_EOVERTIME);
    }
    assert_false(mproc_result_ready(other));
    assert_ok(mproc_result_cancel(other));
    expect_ends(other, MPROC_ECANCELED);
    assert_int_equal(mproc_result_outcome(other)->worker, other_pid);
    mproc_result_free(other);
    end_of(p);
    mproc_queue_free(here);
}

/* Time that a task waits for a worker does not count. */
static void only_running_time_counts(void **state)
{
    (void)state;
    enum { TASKS = 8 };
    mproc_pool *p = pool_of(1);
    mproc_result *r[TASKS];
    mproc_queue *here = queue();
    mproc_result *first =
        sent(p, (mproc_call){.fn = stays, MPROC_ARG(here), .timeout_s = 2.2});
    for (int i = 0; i < TASKS; i++) {
        r[i] =
            sent(p, (mproc_call){.fn = squares, MPROC_ARG(i), .timeout_s = 2});
    }
    expect_ends(first, MPROC_EOVERTIME);
    mproc_result_free(first);
    for (int i = 0; i < TASKS; i++) {
        int out;
        assert_ok(mproc_result_get(r[i], &out, sizeof out, NULL, TEST_BOUND));
        assert_int_equal(out, i * i);
        mproc_result_free(r[i]);
    }
    end_of(p);
    mproc_queue_free(here);
}

/* The nursery sleeps until a late limit when an early one is set. */
static void an_early_limit_comes_first(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_queue *here = queue();
    mproc_call call = {.fn = stays, MPROC_ARG(here), .timeout_s = 3600};
    mproc_result *late = sent(p, call);
    heard(here);
    for (int i = 0; i < 5; i++) {
        call.timeout_s = 0.05;
        mproc_result *early = sent(p, call);
        expect_ends(early, MPROC_EOVERTIME);
        mproc_result_free(early);
        assert_false(mproc_result_ready(late));
    }
    assert_ok(mproc_result_cancel(late));
    expect_ends(late, MPROC_ECANCELED);
    mproc_result_free(late);
    end_of(p);
    mproc_queue_free(here);
}

static void who_returns_in_its_grace_is_over_its_time_all_the_same(void **state)
{
    (void)state;
    mproc_pool *p = pool_with((mproc_pool_opts){.workers = 1, .grace_s = 3600});
    mproc_queue *here = queue();
    mproc_call call = {
        .fn = stays_until_told, MPROC_ARG(here), .timeout_s = 0.1};
    mproc_result *r = sent(p, call);
    pid_t pid = heard(here);
    assert_int_equal(heard(here), pid);
    expect_ends(r, MPROC_EOVERTIME);
    mproc_result_free(r);
    r = sent(p, call);
    heard(here);
    heard(here);
    mproc_result_cancel(r);
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    int status = mproc_result_outcome(r)->status;
    assert_true(status == MPROC_EOVERTIME || status == MPROC_ECANCELED);
    mproc_result_free(r);
    end_of(p);
    mproc_queue_free(here);
}

enum { SLOW = -1, STOPPED = -2 };

static int squares_or_dallies(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    if (n == STOPPED) {
        raise(SIGSTOP);
    }
    while (n == SLOW) {
        pause();
    }
    return squares(arg, size, reply);
}

static void an_item_over_its_time_costs_no_other(void **state)
{
    (void)state;
    enum { ITEMS = 60 };
    mproc_pool *p = pool_of(2);
    for (size_t chunk = 1; chunk <= ITEMS; chunk += 29) {
        int in[ITEMS], out[ITEMS], status[ITEMS];
        for (int i = 0; i < ITEMS; i++) {
            in[i] = i == 3 || i == 58 ? SLOW : i == 4 ? STOPPED : i;
        }
        mproc_batch b = {.fn = squares_or_dallies,
                         .in = in,
                         .in_size = sizeof(int),
                         .count = ITEMS,
                         .out = out,
                         .out_size = sizeof(int),
                         .status = status,
                         .chunk = chunk,
                         .timeout_s = 0.8};
        mproc_result *r;
        assert_ok(mproc_pool_map_async(p, &b, &r));
        assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND),
                   MPROC_EOVERTIME);
        assert_int_equal(mproc_result_outcome(r)->index, 3);
        assert_non_null(strstr(mproc_result_outcome(r)->error, "ran too long"));
        for (int i = 0; i < ITEMS; i++) {
            assert_err(status[i], in[i] < 0 ? MPROC_EOVERTIME : MPROC_OK);
            assert_true(in[i] < 0 || out[i] == i * i);
        }
        mproc_result_free(r);
    }
    end_of(p);
}

/* Ends now a little before, now a little after its time. */
static int sleeps_and_squares(const void *arg, size_t size, mproc_reply *reply)
{
    usleep(4500 + (useconds_t)(*(const int *)arg * 37 % 1000));
    return squares(arg, size, reply);
}

static void the_limit_decides_once(void **state)
{
    (void)state;
    enum { ITEMS = 100 };
    mproc_pool *p = pool_of(2);
    int in[ITEMS], out[ITEMS], status[ITEMS];
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
        out[i] = -1;
    }
    mproc_batch b = {.fn = sleeps_and_squares,
                     .in = in,
                     .in_size = sizeof(int),
                     .count = ITEMS,
                     .out = out,
                     .out_size = sizeof(int),
                     .status = status,
                     .timeout_s = 0.005};
    int err = mproc_pool_map(p, &b, TEST_BOUND);
    assert_true(err == 0 || err == MPROC_EOVERTIME);
    for (int i = 0; i < ITEMS; i++) {
        bool well = status[i] == MPROC_OK;
        assert_int_equal(out[i], well ? i * i : -1);
        assert_true(well || status[i] == MPROC_EOVERTIME);
    }
    end_of(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(a_waiting_task_that_is_cancelled_never_runs),
        CLEAN(a_running_task_is_ended_with_its_worker),
        CLEAN(an_ended_task_is_not_cancelled),
        CLEAN(a_task_has_its_grace),
        CLEAN(the_grace_ends),
        CLEAN(a_batch_is_cancelled_as_a_whole),
        CLEAN(a_callback_may_cancel),
        CLEAN(a_task_over_its_time_is_ended),
        CLEAN(only_running_time_counts),
        CLEAN(an_early_limit_comes_first),
        CLEAN(who_returns_in_its_grace_is_over_its_time_all_the_same),
        CLEAN(an_item_over_its_time_costs_no_other),
        CLEAN(the_limit_decides_once),
    };
    return cmocka_run_group_tests_name("pool_stops", tests, NULL, NULL);
}
