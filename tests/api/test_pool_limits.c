/* SPDX-License-Identifier: MIT */
/* What a pool does to its tasks and workers: cancels, limits, replacements. */
#include "pool_support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool_tasks.h"

/* ---- tasks ------------------------------------------------------------ */

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

static pid_t heard(mproc_queue *here)
{
    pid_t pid;
    assert_ok(mproc_queue_get(here, &pid, sizeof pid, NULL, TEST_BOUND));
    return pid;
}

static pid_t worker_of(mproc_pool *p)
{
    pid_t pid;
    mproc_call call = {.fn = tells_pid};
    assert_ok(mproc_pool_apply(p, &call, &pid, sizeof pid, TEST_BOUND));
    return pid;
}

static void expect_ends(mproc_result *r, int status)
{
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    const mproc_outcome *o = mproc_result_outcome(r);
    assert_err(o->status, status);
    assert_int_equal(o->size, 0);
    assert_int_equal(o->code, 0);
    assert_false(mproc_result_successful(r));
    assert_err(mproc_result_get(r, NULL, 0, NULL, MPROC_NOWAIT), status);
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
    int err, again;
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

/* ---- retries ---------------------------------------------------------- */

struct trial {
    _Atomic int *runs;
    int deaths; /* of its first runs; then it ends well */
    int way;
};

enum { SAYS_NOTHING = 4 };

/* What a lost run said is not told. */
static int dies_at_first(const void *arg, size_t size, mproc_reply *reply)
{
    const struct trial *t = arg;
    char large[100] = "lost";
    (void)size;
    if (atomic_fetch_add(t->runs, 1) < t->deaths) {
        mproc_reply_set(reply, large, t->way % 2 ? sizeof large : 5);
        mproc_reply_fail(reply, 5, "lost");
        raise(SIGKILL);
    }
    if (t->way >= SAYS_NOTHING) {
        return 0;
    }
    return t->way < 2 ? mproc_reply_set(reply, "bun", 4) : 7;
}

static void expect_trial(mproc_pool *p, int deaths, int way, int retries)
{
    struct trial t = {mproc_calloc(1, sizeof(int)), deaths, way};
    char out[8] = "";
    size_t size = 77;
    mproc_result *r = sent(p, (mproc_call){.fn = dies_at_first, MPROC_ARG(t)});
    int err = mproc_result_get(r, out, sizeof out, &size, TEST_BOUND);
    const mproc_outcome *o = mproc_result_outcome(r);
    if (deaths > retries) {
        assert_err(err, MPROC_EWORKERLOST);
        assert_int_equal(o->code, -SIGKILL);
        assert_non_null(strstr(o->error, "killed by signal 9 (SIGKILL)"));
    } else {
        bool fails = way == 2 || way == 3;
        assert_err(err, fails ? MPROC_ETASK : MPROC_OK);
        assert_int_equal(o->code, fails ? 7 : 0);
        assert_string_equal(o->error, "");
        assert_string_equal(o->data, way < 2 ? "bun" : "");
    }
    assert_int_equal(*t.runs, deaths > retries ? retries + 1 : deaths + 1);
    mproc_result_free(r);
    mproc_free((void *)t.runs);
}

static void a_lost_task_is_run_again(void **state)
{
    (void)state;
    enum { RETRIES = 3 };
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 2, .retries = RETRIES});
    for (int way = 0; way < 6; way++) {
        for (int deaths = 0; deaths <= RETRIES + 1; deaths++) {
            expect_trial(p, deaths, way, RETRIES);
        }
    }
    end_of(p);
}

static void each_item_has_its_retries(void **state)
{
    (void)state;
    enum { ITEMS = 12, RETRIES = 2 };
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 2, .retries = RETRIES});
    for (size_t chunk = 1; chunk <= ITEMS; chunk += 11) {
        _Atomic int *runs = mproc_calloc(ITEMS, sizeof *runs);
        struct trial in[ITEMS];
        char out[ITEMS][4];
        int status[ITEMS];
        for (int i = 0; i < ITEMS; i++) {
            in[i] = (struct trial){&runs[i], i % 4, 0};
        }
        mproc_batch b = {.fn = dies_at_first,
                         .in = in,
                         .in_size = sizeof *in,
                         .count = ITEMS,
                         .out = out,
                         .out_size = sizeof *out,
                         .status = status,
                         .chunk = chunk};
        assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EWORKERLOST);
        for (int i = 0; i < ITEMS; i++) {
            bool lost = i % 4 > RETRIES;
            assert_err(status[i], lost ? MPROC_EWORKERLOST : MPROC_OK);
            assert_int_equal(runs[i], 1 + (lost ? RETRIES : i % 4));
            assert_true(lost || strcmp(out[i], "bun") == 0);
        }
        mproc_free((void *)runs);
    }
    end_of(p);
}

/* A task that was cancelled, or is over its time, is not run again. */
static void only_lost_tasks_are_run_again(void **state)
{
    (void)state;
    mproc_pool *p = pool_with((mproc_pool_opts){.workers = 1, .retries = 5});
    mproc_queue *here = queue();
    mproc_call call = {.fn = stays, MPROC_ARG(here), .timeout_s = 0.1};
    mproc_result *r = sent(p, call);
    heard(here);
    expect_ends(r, MPROC_EOVERTIME);
    mproc_result_free(r);
    call.timeout_s = 0;
    r = sent(p, call);
    pid_t first = heard(here);
    kill(first, SIGKILL);
    pid_t second = heard(here);
    assert_int_not_equal(first, second);
    assert_ok(mproc_result_cancel(r));
    expect_ends(r, MPROC_ECANCELED);
    mproc_result_free(r);
    r = sent(p, call);
    kill(heard(here), SIGKILL);
    heard(here);
    assert_ok(mproc_pool_terminate(p));
    expect_ends(r, MPROC_ECANCELED);
    mproc_result_free(r);
    end_of(p);
    assert_true(mproc_queue_empty(here));
    mproc_queue_free(here);
}

/* ---- memory ----------------------------------------------------------- */

enum { MUCH = 32 << 20 };

/* Leaks some, and says who it was. */
static int leaks(const void *arg, size_t size, mproc_reply *reply)
{
    bool leak = *(const int *)arg == 1;
    (void)size;
    char *memory = leak ? malloc(MUCH) : NULL;
    if (memory != NULL) {
        memset(memory, 1, MUCH);
        memory[MUCH - 1] = *(volatile char *)memory;
    }
    return tells_pid(arg, size, reply);
}

static void a_worker_with_much_memory_is_replaced(void **state)
{
    (void)state;
    /* what it holds from the start is its maker's, under a sanitizer much */
    size_t limit = (size_t)1 << 40;
    const int in[6] = {0, 1, 0, 0, 1, 0};
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 1, .max_rss_per_child = limit});
    pid_t first = worker_of(p);
    assert_int_equal(worker_of(p), first);
    end_of(p);
    p = pool_with((mproc_pool_opts){.workers = 1, .max_rss_per_child = MUCH});
    pid_t last = 0, pid;
    for (int i = 0; i < 6; i++) {
        mproc_call call = {.fn = leaks, MPROC_ARG(in[i])};
        assert_ok(mproc_pool_apply(p, &call, &pid, sizeof pid, TEST_BOUND));
        assert_true(i == 0 || in[i - 1] == 0 || pid != last);
        last = pid;
    }
    pid_t out[6];
    for (size_t chunk = 1; chunk <= 6; chunk += 5) {
        mproc_batch b = {.fn = leaks,
                         .in = in,
                         .in_size = sizeof(int),
                         .count = 6,
                         .out = out,
                         .out_size = sizeof(pid_t),
                         .chunk = chunk};
        assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
        for (int i = 1; i < 6; i++) {
            assert_true(in[i - 1] == 0 || out[i] != out[i - 1]);
        }
    }
    end_of(p);
}

/* ---- room ------------------------------------------------------------- */

static void submitting_waits_for_room(void **state)
{
    (void)state;
    enum { MOST = 3 };
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 1, .max_pending = MOST});
    mproc_queue *gate = queue();
    mproc_call call = {.fn = waits_for, MPROC_ARG(gate)};
    mproc_result *r[MOST], *more = NULL;
    for (int i = 0; i < MOST; i++) {
        assert_ok(mproc_pool_apply_async(p, &call, &r[i], MPROC_NOWAIT));
    }
    assert_err(mproc_pool_apply_async(p, &call, &more, MPROC_NOWAIT),
               MPROC_EFULL);
    assert_err(mproc_pool_apply_async(p, &call, &more, mproc_in_ms(80)),
               MPROC_EFULL);
    assert_null(more);
    assert_err(mproc_pool_apply(p, &call, NULL, 0, mproc_in_ms(80)),
               MPROC_ETIMEDOUT);
    open_gate(gate, 1);
    assert_ok(mproc_pool_apply_async(p, &call, &more, TEST_BOUND));
    assert_true(mproc_result_ready(r[0]));
    assert_ok(mproc_result_cancel(r[MOST - 1])); /* makes room as well */
    assert_ok(mproc_pool_apply_async(p, &call, NULL, TEST_BOUND));
    open_gate(gate, 3);
    assert_ok(mproc_result_wait(more, TEST_BOUND));
    for (int i = 0; i < MOST; i++) {
        mproc_result_free(r[i]);
    }
    mproc_result_free(more);
    end_of(p);
    mproc_queue_free(gate);
}

/* A batch, and single tasks beside it: never more than the limit. */
static void batches_are_fed_as_room_comes(void **state)
{
    (void)state;
    enum { ITEMS = 300, MOST = 5 };
    int in[ITEMS], out[ITEMS];
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 2, .max_pending = MOST});
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
    }
    for (size_t chunk = 0; chunk < 2 * MOST; chunk += 3) {
        mproc_result *r[2];
        mproc_batch b = {.fn = squares,
                         .in = in,
                         .in_size = sizeof(int),
                         .count = ITEMS,
                         .out = out,
                         .out_size = sizeof(int),
                         .chunk = chunk};
        assert_ok(mproc_pool_map_async(p, &b, &r[0]));
        b.out = NULL;
        b.out_size = 0;
        assert_ok(mproc_pool_map_async(p, &b, &r[1]));
        for (int i = 0; i < 50; i++) {
            mproc_pool_info info;
            mproc_call call = {.fn = squares, MPROC_ARG(i)};
            int err = mproc_pool_apply_async(p, &call, NULL, MPROC_NOWAIT);
            assert_true(err == 0 || err == MPROC_EFULL);
            assert_ok(mproc_pool_stats(p, &info));
            assert_true(info.queued + info.running <= MOST);
        }
        for (int i = 0; i < 2; i++) {
            assert_ok(mproc_result_get(r[i], NULL, 0, NULL, TEST_BOUND));
            mproc_result_free(r[i]);
        }
        for (int i = 0; i < ITEMS; i++) {
            assert_int_equal(out[i], i * i);
        }
    }
    end_of(p);
}

/* All room is taken by a task that is none of the batch's. */
static void a_batch_waits_for_the_room_of_others(void **state)
{
    (void)state;
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 2, .max_pending = 1});
    mproc_queue *gate = queue();
    int in[3] = {1, 2, 3}, out[3] = {0};
    mproc_batch b = {.fn = squares,
                     .in = in,
                     .in_size = sizeof(int),
                     .count = 3,
                     .out = out,
                     .out_size = sizeof(int)};
    mproc_result *r,
        *first = sent(p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
    assert_ok(mproc_pool_map_async(p, &b, &r));
    assert_ok(mproc_pool_close(p));
    assert_err(mproc_result_wait(r, mproc_in_ms(80)), MPROC_ETIMEDOUT);
    open_gate(gate, 1);
    assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
    assert_int_equal(out[2], 9);
    end_of(p);
    mproc_result_free(r);
    mproc_result_free(first);
    mproc_queue_free(gate);
}

static void *submits_when_there_is_room(void *user)
{
    mproc_call call = {.fn = squares, .arg = "\1\2\3\4", .arg_size = 4};
    return (void *)(intptr_t)mproc_pool_apply_async(user, &call, NULL,
                                                    MPROC_FOREVER);
}

static void who_waits_for_room_hears_of_the_end(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        mproc_pool *p =
            pool_with((mproc_pool_opts){.workers = 1, .max_pending = 1});
        mproc_queue *here = queue();
        mproc_result *r = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
        pthread_t thread;
        void *err;
        heard(here);
        pthread_create(&thread, NULL, submits_when_there_is_room, p);
        usleep(100000); /* it waits, or will */
        if (i == 0) {
            assert_ok(mproc_pool_close(p));
        } else {
            assert_ok(mproc_pool_terminate(p));
        }
        pthread_join(thread, &err);
        assert_err((int)(intptr_t)err, MPROC_ESHUTDOWN);
        mproc_result_cancel(r);
        end_of(p);
        mproc_result_free(r);
        mproc_queue_free(here);
    }
}

/* Threads that submit, and a limit below their number. */
struct senders {
    mproc_pool *p;
    _Atomic int under_way, most, done;
};

static void count_down(const mproc_outcome *o, void *user)
{
    struct senders *s = user;
    s->done += o->status == MPROC_OK;
    atomic_fetch_sub(&s->under_way, 1);
}

static void *sends_many(void *user)
{
    struct senders *s = user;
    for (int i = 0; i < 500; i++) {
        mproc_call call = {.fn = squares,
                           MPROC_ARG(i),
                           .callback = count_down,
                           .error_callback = count_down,
                           .user = s};
        assert_ok(mproc_pool_apply_async(s->p, &call, NULL, TEST_BOUND));
        int now = atomic_fetch_add(&s->under_way, 1) + 1;
        int most = atomic_load(&s->most);
        while (now > most &&
               !atomic_compare_exchange_weak(&s->most, &most, now)) {
        }
    }
    return NULL;
}

static void no_more_than_max_pending_are_under_way(void **state)
{
    (void)state;
    enum { MOST = 2, THREADS = 4 };
    struct senders s = {
        .p = pool_with((mproc_pool_opts){.workers = 2, .max_pending = MOST})};
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&thread[i], NULL, sends_many, &s);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    end_of(s.p);
    assert_int_equal(s.done, THREADS * 500);
    assert_in_range(s.most, 1, MOST);
}

static void send_two_more(const mproc_outcome *o, void *user)
{
    struct senders *s = user;
    int n = 4;
    mproc_call call = {
        .fn = squares, MPROC_ARG(n), .callback = count_down, .user = s};
    (void)o;
    for (int i = 0; i < 2; i++) {
        s->most += mproc_pool_apply_async(s->p, &call, NULL, MPROC_NOWAIT) == 0;
    }
}

static void a_callback_never_waits_for_room(void **state)
{
    (void)state;
    struct senders s = {
        .p = pool_with((mproc_pool_opts){.workers = 1, .max_pending = 1})};
    int n = 3;
    mproc_call call = {
        .fn = squares, MPROC_ARG(n), .callback = send_two_more, .user = &s};
    assert_ok(mproc_pool_apply_async(s.p, &call, NULL, MPROC_NOWAIT));
    call.callback = NULL;
    assert_ok(mproc_pool_apply(s.p, &call, NULL, 0, TEST_BOUND));
    end_of(s.p);
    assert_int_equal(s.most, 2);
    assert_int_equal(s.done, 2);
}

/* ---- how many workers ------------------------------------------------- */

static void expect_workers(mproc_pool *p, size_t count)
{
    for (int i = 0; i < 3000 && mproc_pool_worker_pids(p, NULL, 0) != count;
         i++) {
        usleep(10000);
    }
    assert_int_equal(mproc_pool_worker_pids(p, NULL, 0), count);
}

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
    mproc_queue *here = queue(), *gate = queue();
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
    mproc_queue_free(gate);
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

/* ---- numbers ---------------------------------------------------------- */

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

/* ---- priorities ------------------------------------------------------- */

static int dies_once(const void *arg, size_t size, mproc_reply *reply)
{
    const struct turn *turn = arg;
    static _Atomic int *died;
    (void)reply;
    died = *(_Atomic int *const *)((const char *)arg + sizeof *turn);
    if (atomic_exchange(died, 1) == 0) {
        raise(SIGKILL);
    }
    return takes_its_turn(arg, size, reply);
}

static void lower_priorities_begin_first(void **state)
{
    (void)state;
    enum { TASKS = 60 };
    const int64_t priorities[] = {0, 5,  -5,        INT64_MAX, 0, -1,
                                  1, -5, INT64_MIN, 0,         5, 7};
    enum { KINDS = sizeof priorities / sizeof *priorities };
    mproc_pool *p = pool_of(1);
    mproc_queue *gate = queue();
    struct turn turn = {queue(), 0};
    mproc_call first = {
        .fn = waits_for, MPROC_ARG(gate), .priority = INT64_MIN};
    assert_ok(mproc_pool_apply_async(p, &first, NULL, MPROC_FOREVER));
    usleep(1000);
    for (; turn.number < TASKS; turn.number++) {
        mproc_call call = {.fn = takes_its_turn, MPROC_ARG(turn)};
        call.priority = priorities[turn.number % KINDS];
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    open_gate(gate, 1);
    int64_t before = INT64_MIN;
    int number, number_before = -1;
    for (int i = 0; i < TASKS; i++) {
        assert_ok(mproc_queue_get(turn.order, &number, sizeof number, NULL,
                                  TEST_BOUND));
        int64_t now = priorities[number % KINDS];
        assert_true(now > before || (now == before && number > number_before));
        before = now;
        number_before = number;
    }
    end_of(p);
    mproc_queue_free(turn.order);
    mproc_queue_free(gate);
}

/* A task that is run again keeps its priority. */
static void a_lost_task_keeps_its_priority(void **state)
{
    (void)state;
    mproc_pool *p = pool_with((mproc_pool_opts){.workers = 1, .retries = 1});
    mproc_queue *gate = queue();
    struct {
        struct turn turn;
        _Atomic int *died;
    } arg = {{queue(), 0}, mproc_calloc(1, sizeof(int))};
    mproc_call call = {.fn = waits_for, MPROC_ARG(gate), .priority = -2};
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    for (; arg.turn.number < 3; arg.turn.number++) {
        call = (mproc_call){.fn = arg.turn.number ? takes_its_turn : dies_once,
                            MPROC_ARG(arg),
                            .priority = arg.turn.number ? 0 : -1};
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    open_gate(gate, 1);
    for (int i = 0, number; i < 3; i++) {
        assert_ok(mproc_queue_get(arg.turn.order, &number, sizeof number, NULL,
                                  TEST_BOUND));
        assert_int_equal(number, i);
    }
    end_of(p);
    mproc_free((void *)arg.died);
    mproc_queue_free(arg.turn.order);
    mproc_queue_free(gate);
}

/* ---- main ------------------------------------------------------------- */

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
        CLEAN(a_lost_task_is_run_again),
        CLEAN(each_item_has_its_retries),
        CLEAN(only_lost_tasks_are_run_again),
        CLEAN(a_worker_with_much_memory_is_replaced),
        CLEAN(submitting_waits_for_room),
        CLEAN(batches_are_fed_as_room_comes),
        CLEAN(a_batch_waits_for_the_room_of_others),
        CLEAN(who_waits_for_room_hears_of_the_end),
        CLEAN(no_more_than_max_pending_are_under_way),
        CLEAN(a_callback_never_waits_for_room),
        CLEAN(lower_priorities_begin_first),
        CLEAN(a_lost_task_keeps_its_priority),
        CLEAN(a_pool_grows_and_shrinks),
        CLEAN(shrinking_lets_tasks_end),
        CLEAN(a_shrinking_pool_may_grow_again),
        CLEAN(a_callback_may_resize),
        CLEAN(what_has_ended_is_counted_once),
        CLEAN(a_pool_counts),
        CLEAN(workers_know_their_time),
    };
    return cmocka_run_group_tests_name("pool_limits", tests, NULL, NULL);
}
