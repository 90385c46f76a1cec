/* SPDX-License-Identifier: MIT */
/*
 * test_pool_storm [more rounds]: thousands of cancels at random moments, and
 * of tasks whose workers are killed. Each task is accounted for once:
 * by its outcome, and by what it left in shared memory itself.
 */
#include "pool_killer.h"

#include <sched.h>

static unsigned rounds; /* 0: one, and shorter */

/* What a task leaves, and what is told of it. */
struct trace {
    _Atomic int begun;
    _Atomic int finished;
    int told;   /* how often a callback was called for it */
    int status; /* that it was called with */
};

struct order {
    struct trace *trace;
    int number;
    int us, more_us; /* that it takes, until it has finished and after */
};

static void take_time(int us)
{
    int64_t until = mproc_in_s(0).at_ns + us * INT64_C(1000);
    while (mproc_in_s(0).at_ns < until && !mproc_task_canceled()) {
    }
}

static int leaves_a_trace(const void *arg, size_t size, mproc_reply *reply)
{
    const struct order *order = arg;
    (void)size;
    order->trace->begun++;
    take_time(order->us);
    order->trace->finished++;
    take_time(order->more_us);
    return mproc_reply_set(reply, &order->number, sizeof order->number);
}

static void note(const mproc_outcome *o, void *user)
{
    struct trace *trace = user;
    trace->told++;
    trace->status = o->status;
}

static mproc_call call_of(const struct order *order)
{
    return (mproc_call){.fn = leaves_a_trace,
                        .arg = order,
                        .arg_size = sizeof *order,
                        .callback = note,
                        .error_callback = note,
                        .user = order->trace};
}

static void expect_stats(mproc_pool *p, size_t done, size_t failed, size_t lost)
{
    mproc_pool_info info;
    assert_ok(mproc_pool_stats(p, &info));
    assert_int_equal(info.done, done);
    assert_int_equal(info.failed, failed);
    assert_int_equal(info.lost, lost);
    assert_int_equal(info.queued + info.running, 0);
}

static void end_pool_with(mproc_pool *p, size_t done, size_t failed,
                          size_t lost)
{
    assert_ok(mproc_pool_close(p));
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    expect_stats(p, done, failed, lost);
    mproc_pool_free(p);
}

/* ---- cancels of tasks that wait --------------------------------------- */

static int waits_for(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    return mproc_queue_get(*(mproc_queue *const *)arg, NULL, 0, NULL,
                           MPROC_FOREVER);
}

/* While no worker is free: they certainly have not begun. */
static void what_waits_and_is_cancelled_never_begins(void **state)
{
    (void)state;
    enum { WORKERS = 2, TASKS = 10000 };
    mproc_pool *p = pool_of(WORKERS);
    mproc_queue *gate = queue();
    struct trace *trace = mproc_calloc(TASKS, sizeof *trace);
    mproc_result **r = calloc(TASKS, sizeof *r);
    unsigned seed = 1;
    size_t cancelled = 0;
    mproc_call wait = {.fn = waits_for, MPROC_ARG(gate), .priority = -1};
    for (int i = 0; i < WORKERS; i++) {
        assert_ok(mproc_pool_apply_async(p, &wait, NULL, MPROC_FOREVER));
    }
    for (int i = 0; i < TASKS; i++) {
        struct order order = {&trace[i], i, 0, 0};
        r[i] = sent(p, call_of(&order));
    }
    for (int i = 0; i < TASKS; i++) {
        int k = (int)((unsigned)rand_r(&seed) % TASKS);
        if (r[k] != NULL) {
            assert_ok(mproc_result_cancel(r[k]));
            assert_err(mproc_result_get(r[k], NULL, 0, NULL, TEST_BOUND),
                       MPROC_ECANCELED);
            mproc_result_free(r[k]);
            r[k] = NULL;
            cancelled++;
        }
    }
    for (int i = 0; i < WORKERS; i++) {
        assert_ok(mproc_queue_put(gate, NULL, 0, MPROC_FOREVER));
    }
    end_pool_with(p, TASKS + WORKERS - cancelled, cancelled, 0);
    for (int i = 0; i < TASKS; i++) {
        assert_int_equal(trace[i].begun, r[i] != NULL);
        assert_int_equal(trace[i].told, 1);
        assert_err(trace[i].status, r[i] ? MPROC_OK : MPROC_ECANCELED);
        mproc_result_free(r[i]);
    }
    free(r);
    mproc_free(trace);
    mproc_queue_free(gate);
}

/* ---- cancels at random moments ---------------------------------------- */

enum moment { AT_ONCE, ANY_TIME, ONCE_BEGUN, ONCE_FINISHED, NEVER, MOMENTS };

struct storm {
    mproc_pool *p;
    int tasks;
    struct trace *trace; /* in the shared heap */
    mproc_result **r;
    enum moment *moment;
    bool *cancelled;
    int *begun_then; /* when its result was there */
    _Atomic int next;
    _Atomic unsigned seed, tried;
};

static bool has_come(const struct storm *s, int i)
{
    switch (s->moment[i]) {
    case ONCE_BEGUN:
        return s->trace[i].begun > 0;
    case ONCE_FINISHED:
        return s->trace[i].finished > 0;
    default:
        return true;
    }
}

static void cancel_in_time(struct storm *s, int i)
{
    while (!has_come(s, i) && !mproc_result_ready(s->r[i])) {
        sched_yield();
    }
    s->cancelled[i] = mproc_result_cancel(s->r[i]) == 0;
    s->tried++;
}

/* What is cancelled while it runs takes long enough for that. */
static void send_one(struct storm *s, int i, unsigned *seed)
{
    struct order order = {&s->trace[i], i, rand_r(seed) % 40, 0};
    s->moment[i] = (enum moment)((unsigned)rand_r(seed) % MOMENTS);
    order.us += s->moment[i] == ONCE_BEGUN ? 5000 : 0;
    order.more_us = s->moment[i] == ONCE_FINISHED ? rand_r(seed) % 200 : 0;
    s->r[i] = sent(s->p, call_of(&order));
    if (s->moment[i] == AT_ONCE) {
        cancel_in_time(s, i);
    }
}

/* One of several threads; each sends some ahead of those that it cancels. */
static void *send_and_cancel(void *user)
{
    enum { AHEAD = 8 };
    struct storm *s = user;
    int mine[AHEAD], count = 0, i;
    unsigned seed = (unsigned)atomic_fetch_add(&s->seed, 1);
    do {
        i = s->next++;
        if (i < s->tasks) {
            send_one(s, i, &seed);
            mine[count++] = i;
        }
        if (count == AHEAD || (count > 0 && i >= s->tasks)) {
            int k = rand_r(&seed) % count, victim = mine[k];
            mine[k] = mine[--count];
            if (s->moment[victim] != NEVER && s->moment[victim] != AT_ONCE) {
                cancel_in_time(s, victim);
            }
        }
    } while (i < s->tasks || count > 0);
    return NULL;
}

static void expect_end(struct storm *s, int i)
{
    int out = -1;
    int err = mproc_result_get(s->r[i], &out, sizeof out, NULL, TEST_BOUND);
    assert_err(err, s->cancelled[i] ? MPROC_ECANCELED : MPROC_OK);
    assert_int_equal(out, s->cancelled[i] ? -1 : i);
    s->begun_then[i] = s->trace[i].begun;
    assert_true(s->begun_then[i] <= 1);
    assert_true(s->cancelled[i] || s->trace[i].finished == 1);
    if (mproc_result_outcome(s->r[i])->worker == 0) {
        assert_int_equal(s->begun_then[i], 0); /* it was never taken */
    }
}

/* Nothing has run since its end was told, and that was told once. */
static void expect_nothing_since(const struct storm *s, int i)
{
    assert_int_equal(s->trace[i].begun, s->begun_then[i]);
    assert_int_equal(s->trace[i].told, 1);
    assert_err(s->trace[i].status,
               s->cancelled[i] ? MPROC_ECANCELED : MPROC_OK);
}

static void end_storm(struct storm *s)
{
    size_t cancelled = 0, begun = 0;
    for (int i = 0; i < s->tasks; i++) {
        expect_end(s, i);
        cancelled += s->cancelled[i];
        begun += s->cancelled[i] && s->begun_then[i];
    }
    end_pool_with(s->p, (size_t)s->tasks - cancelled, cancelled, 0);
    for (int i = 0; i < s->tasks; i++) {
        expect_nothing_since(s, i);
        mproc_result_free(s->r[i]);
    }
    print_message("%u cancels: of %zu tasks, %zu of them running\n", s->tried,
                  cancelled, begun);
    assert_true(cancelled < (size_t)s->tasks);
    assert_true(begun > 0 && begun < cancelled);
}

static void cancel_a_storm(int tasks, double grace_s)
{
    size_t n = (size_t)tasks;
    enum { THREADS = 2 };
    pthread_t thread[THREADS];
    struct storm s = {
        .p = pool_with((mproc_pool_opts){.workers = 3, .grace_s = grace_s}),
        .tasks = tasks,
        .trace = mproc_calloc(n, sizeof *s.trace),
        .r = calloc(n, sizeof *s.r),
        .moment = calloc(n, sizeof *s.moment),
        .cancelled = calloc(n, sizeof *s.cancelled),
        .begun_then = calloc(n, sizeof *s.begun_then)};
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, send_and_cancel, &s),
                         0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    end_storm(&s);
    mproc_free(s.trace);
    free(s.r);
    free(s.moment);
    free(s.cancelled);
    free(s.begun_then);
}

static void cancels_at_random_moments_lose_nothing(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= rounds; i++) {
        int tasks = (rounds > 0 ? 12500 : 2500) / SLOWER;
        cancel_a_storm(tasks, 0);
        cancel_a_storm(tasks, 0.001);
    }
}

/* ---- cancels of batches ----------------------------------------------- */

enum { ITEMS = 9 };

static void note_item(const mproc_outcome *o, void *user)
{
    note(o, (struct trace *)user + o->index);
}

/* Each item is told once, and then over. True: some were cancelled. */
static bool cancel_a_batch(mproc_pool *p, unsigned *seed)
{
    struct trace *trace = mproc_calloc(ITEMS, sizeof *trace);
    struct order order[ITEMS];
    int status[ITEMS], longest = rand_r(seed) % 4 == 0 ? 2000 : 60;
    mproc_result *r;
    for (int i = 0; i < ITEMS; i++) {
        order[i] = (struct order){&trace[i], i, rand_r(seed) % longest, 0};
    }
    mproc_batch b = {.fn = leaves_a_trace,
                     .in = order,
                     .in_size = sizeof *order,
                     .count = ITEMS,
                     .status = status,
                     .chunk = (unsigned)rand_r(seed) % 4,
                     .on_item = note_item,
                     .user = trace};
    assert_ok(mproc_pool_map_async(p, &b, &r));
    usleep((useconds_t)rand_r(seed) % 150);
    bool cancelled = mproc_result_cancel(r) == 0, all_well = true;
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    for (int i = 0; i < ITEMS; i++) {
        bool well = status[i] == MPROC_OK;
        assert_true(well || (cancelled && status[i] == MPROC_ECANCELED));
        assert_err(trace[i].status, status[i]);
        assert_int_equal(trace[i].told, 1);
        assert_true(trace[i].begun <= 1 && trace[i].finished >= well);
        all_well &= well;
    }
    assert_err(mproc_result_outcome(r)->status,
               all_well ? MPROC_OK : MPROC_ECANCELED);
    mproc_result_free(r);
    mproc_free(trace); /* an item that ran on would write there */
    return !all_well;
}

static void cancelled_batches_account_for_each_item(void **state)
{
    (void)state;
    enum { BATCHES = 500 / SLOWER };
    for (unsigned i = 0; i <= rounds; i++) {
        mproc_pool *p = pool_of(3);
        unsigned seed = i + 1, cancelled = 0;
        for (int k = 0; k < BATCHES; k++) {
            cancelled += cancel_a_batch(p, &seed);
        }
        print_message("%d batches, %u cancelled\n", BATCHES, cancelled);
        assert_true(cancelled > 0);
        end_of(p);
    }
}

/* ---- kills ------------------------------------------------------------ */

enum { SMALL_TASKS = 100000 / SLOWER, TASK_US = 5 };

/* Starved, it makes way slowly: each worker dies soon after its start. */
static mproc_deadline storm_bound(void)
{
    return rounds > 0 ? mproc_in_s(120) : TEST_BOUND;
}

static void send_small_tasks(mproc_pool *p, struct trace *trace)
{
    for (int i = 0; i < SMALL_TASKS; i++) {
        struct order order = {&trace[i], i, TASK_US, 0};
        mproc_call call = call_of(&order);
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
}

/* Returns how many ended lost. */
static size_t expect_accounts(struct trace *trace, int retries,
                              unsigned long kills)
{
    unsigned long lost = 0, losses = 0;
    for (int i = 0; i < SMALL_TASKS; i++) {
        int begun = trace[i].begun;
        bool is_lost = trace[i].status == MPROC_EWORKERLOST;
        assert_int_equal(trace[i].told, 1);
        assert_true(is_lost || trace[i].status == MPROC_OK);
        assert_true(begun <= 1 + retries);
        assert_true(is_lost || trace[i].finished >= 1);
        lost += is_lost;
        losses += (unsigned long)(is_lost ? 1 + retries : begun - 1);
    }
    assert_true(losses <= kills);
    return lost;
}

/* The same, as items of a batch. */
static void map_small_tasks(mproc_pool *p, struct trace *trace)
{
    struct order *order = calloc(SMALL_TASKS, sizeof *order);
    int *status = calloc(SMALL_TASKS, sizeof *status);
    for (int i = 0; i < SMALL_TASKS; i++) {
        order[i] = (struct order){&trace[i], i, TASK_US, 0};
    }
    mproc_batch b = {.fn = leaves_a_trace,
                     .in = order,
                     .in_size = sizeof *order,
                     .count = SMALL_TASKS,
                     .status = status};
    int err = mproc_pool_map(p, &b, storm_bound());
    assert_true(err == MPROC_OK || err == MPROC_EWORKERLOST);
    for (int i = 0; i < SMALL_TASKS; i++) {
        trace[i].status = status[i];
        trace[i].told = 1;
    }
    free(order);
    free(status);
}

static void kill_under_small_tasks(int retries, bool map)
{
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 4, .retries = (size_t)retries});
    struct trace *trace = mproc_calloc(SMALL_TASKS, sizeof *trace);
    struct killer killer = {.pool = p, .pause_us = 4000, .seed = 5};
    begin_to_kill(&killer);
    (map ? map_small_tasks : send_small_tasks)(p, trace);
    assert_ok(mproc_pool_close(p));
    assert_ok(mproc_pool_join(p, storm_bound()));
    end_to_kill(&killer);
    size_t lost = expect_accounts(trace, retries, killer.kills);
    print_message("%d %s, %d retries: %lu kills, %zu lost\n", SMALL_TASKS,
                  map ? "items" : "tasks", retries, killer.kills, lost);
    expect_stats(p, SMALL_TASKS - lost, 0, lost);
    assert_true(killer.kills > 0);
    mproc_pool_free(p);
    mproc_free(trace);
}

static void each_small_task_is_accounted_for_though_workers_die(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= rounds; i++) {
        for (int map = 0; map < 2; map++) {
            kill_under_small_tasks(0, map);
            kill_under_small_tasks(3, map);
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        CLEAN(what_waits_and_is_cancelled_never_begins),
        CLEAN(cancels_at_random_moments_lose_nothing),
        CLEAN(cancelled_batches_account_for_each_item),
        CLEAN(each_small_task_is_accounted_for_though_workers_die),
    };
    rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    return cmocka_run_group_tests_name("pool_storm", tests, NULL, NULL);
}
