/* SPDX-License-Identifier: MIT */
/* Workers of a pool that are replaced: which, how often, in what state. */
#include "pool_kin.h"
#include "pool_tasks.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

static mproc_pool_info stats_of(mproc_pool *p)
{
    mproc_pool_info info;
    assert_ok(mproc_pool_stats(p, &info));
    return info;
}

static void await_workers(mproc_pool *p, size_t count, size_t respawned)
{
    mproc_pool_info info = stats_of(p);
    for (int i = 0;
         i < 3000 && (info.workers != count || info.respawned < respawned);
         i++) {
        usleep(10000);
        info = stats_of(p);
    }
    assert_int_equal(info.workers, count);
    assert_int_equal(info.respawned, respawned);
}

/* ---- how often -------------------------------------------------------- */

/* Neither those that a resize adds, nor those that it lets go. */
static void only_workers_that_ended_are_replaced(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(3);
    mproc_call call = {.fn = kills_itself};
    assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND),
               MPROC_EWORKERLOST);
    await_workers(p, 3, 1);
    assert_ok(mproc_pool_resize(p, 1));
    await_workers(p, 1, 1);
    assert_ok(mproc_pool_resize(p, 6));
    await_workers(p, 6, 1);
    assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND),
               MPROC_EWORKERLOST);
    await_workers(p, 6, 2);
    end_of(p);
}

static void nobody_replaces_what_terminate_ends(void **state)
{
    (void)state;
    enum { WORKERS = 3 };
    mproc_pool *p = pool_of(WORKERS);
    mproc_queue *here = queue();
    for (int i = 0; i < 10 * WORKERS; i++) {
        mproc_call call = {.fn = stays, MPROC_ARG(here)};
        assert_ok(mproc_pool_apply_async(p, &call, NULL, TEST_BOUND));
    }
    for (int i = 0; i < WORKERS; i++) {
        heard(here);
    }
    assert_ok(mproc_pool_terminate(p));
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    assert_int_equal(stats_of(p).respawned, 0);
    assert_int_equal(stats_of(p).failed, 10 * WORKERS);
    mproc_pool_free(p);
    mproc_queue_free(here);
}

static _Atomic int told;

static int returns_when_told(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    while (!mproc_task_canceled()) {
        usleep(1000);
    }
    told++;
    return 0;
}

static void a_thread_that_is_abandoned_is_replaced_once(void **state)
{
    (void)state;
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 2, .start = MPROC_START_THREAD});
    mproc_call call = {.fn = returns_when_told, .timeout_s = 0.05};
    for (size_t i = 1; i <= 3; i++) {
        assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND),
                   MPROC_EOVERTIME);
        await_workers(p, 2, i);
    }
    end_of(p);
    for (int i = 0; i < 3000 && told < 3; i++) {
        usleep(10000);
    }
    usleep(20000); /* it gives back what it had */
}

static void *resizes(void *user)
{
    for (size_t i = 0; i < 60; i++) {
        assert_ok(mproc_pool_resize(user, 1 + i % 4));
    }
    return NULL;
}

/* The last one counts; none waits for an answer to an earlier one. */
static void threads_may_resize_at_a_time(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    mproc_pool *p = pool_of(1);
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&thread[i], NULL, resizes, p);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    for (int i = 0; i < 3000 && stats_of(p).workers != 4; i++) {
        usleep(10000);
    }
    assert_int_equal(stats_of(p).workers, 4);
    end_of(p);
}

/* ---- starts that fail ------------------------------------------------- */

static _Atomic int *calls; /* shared */

/* Of three one works. */
static int fails_mostly(void *arg)
{
    (void)arg;
    return atomic_fetch_add(calls, 1) % 3 != 0;
}

/* As long as some begin to work, those that do not are no reason to give up. */
static void starts_may_fail_now_and_then(void **state)
{
    (void)state;
    for (int thread = 0; thread < 2; thread++) {
        calls = mproc_calloc(1, sizeof *calls);
        mproc_pool *p = pool_with((mproc_pool_opts){
            .workers = 1,
            .max_tasks_per_child = 1,
            .initializer = fails_mostly,
            .start = thread ? MPROC_START_THREAD : MPROC_START_FORK});
        for (int n = 1; n <= 10; n++) {
            int out;
            mproc_call call = {.fn = squares, MPROC_ARG(n)};
            assert_ok(mproc_pool_apply(p, &call, &out, sizeof out, TEST_BOUND));
            assert_int_equal(out, n * n);
        }
        end_of(p);
        mproc_free((void *)calls);
    }
}

static int counts(void *arg)
{
    (void)arg;
    atomic_fetch_add(calls, 1);
    return 0;
}

/* What the one before in its place was told is not for it. */
static void nobody_is_told_to_leave_before_it_begins(void **state)
{
    (void)state;
    calls = mproc_calloc(1, sizeof *calls);
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 3, .initializer = counts});
    assert_ok(mproc_pool_resize(p, 1));
    await_workers(p, 1, 0);
    assert_ok(mproc_pool_resize(p, 3));
    await_workers(p, 3, 0);
    end_of(p);
    assert_int_equal(atomic_load(calls), 5);
    mproc_free((void *)calls);
}

/* ---- in what state ---------------------------------------------------- */

/* Killed while it has nothing to do, as it had for a while. */
static void a_new_worker_was_not_idle_before(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_worker_info info;
    assert_ok(mproc_pool_apply(p, &(mproc_call){.fn = does_nothing}, NULL, 0,
                               TEST_BOUND));
    usleep(300000);
    assert_int_equal(mproc_pool_worker_stats(p, &info, 1), 1);
    assert_true(info.idle_s > 0.1);
    int64_t before = mproc_in_s(0).at_ns;
    assert_int_equal(kill(info.pid, SIGKILL), 0);
    await_workers(p, 1, 1);
    assert_ok(mproc_pool_apply(p, &(mproc_call){.fn = does_nothing}, NULL, 0,
                               TEST_BOUND));
    assert_int_equal(mproc_pool_worker_stats(p, &info, 1), 1);
    double since = (double)(mproc_in_s(0).at_ns - before) / 1e9;
    assert_true(info.idle_s + info.busy_s <= since);
    end_of(p);
}

/* The time of the one before is not its own. */
static void a_new_worker_has_done_nothing_yet(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_queue *here = queue();
    mproc_worker_info info;
    for (int busy = 0; busy < 2; busy++) {
        mproc_call call = {.fn = stays, MPROC_ARG(here)};
        assert_ok(mproc_pool_apply(p, &(mproc_call){.fn = does_nothing}, NULL,
                                   0, TEST_BOUND));
        usleep(300000);
        mproc_result *r = sent(p, call);
        pid_t pid = heard(here);
        usleep(busy ? 300000 : 0);
        assert_int_equal(mproc_pool_worker_stats(p, &info, 1), 1);
        assert_true(info.idle_s > 0.1 && (!busy || info.busy_s > 0.1));
        int64_t before = mproc_in_s(0).at_ns;
        assert_ok(mproc_result_cancel(r));
        assert_ok(mproc_result_wait(r, TEST_BOUND));
        mproc_result_free(r);
        r = sent(p, call);
        assert_int_not_equal(heard(here), pid);
        assert_int_equal(mproc_pool_worker_stats(p, &info, 1), 1);
        double since = (double)(mproc_in_s(0).at_ns - before) / 1e9;
        assert_int_equal(info.busy, 1);
        assert_true(info.idle_s + info.busy_s <= since);
        assert_ok(mproc_result_cancel(r));
        mproc_result_free(r);
    }
    end_of(p);
    mproc_queue_free(here);
}

static mproc_event *gate;

/* The second one waits at the gate. */
static int begins_late(void *arg)
{
    (void)arg;
    return atomic_fetch_add(calls, 1) == 0
               ? 0
               : mproc_event_wait(gate, MPROC_FOREVER);
}

/* It has no task, nor a time, while it is being initialized. */
static void a_worker_that_begins_is_not_busy(void **state)
{
    (void)state;
    calls = mproc_calloc(1, sizeof *calls);
    assert_ok(mproc_event_new(&gate));
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 1, .initializer = begins_late});
    mproc_worker_info info;
    usleep(100000);
    assert_err(mproc_pool_apply(p, &(mproc_call){.fn = kills_itself}, NULL, 0,
                                TEST_BOUND),
               MPROC_EWORKERLOST);
    for (int i = 0; i < 3000 && *calls < 2; i++) {
        usleep(10000);
    }
    assert_int_equal(mproc_pool_worker_stats(p, &info, 1), 1);
    assert_int_equal(info.busy, 0);
    assert_true(info.busy_s == 0 && info.idle_s == 0);
    assert_ok(mproc_event_set(gate));
    end_of(p);
    mproc_free((void *)calls);
    mproc_event_free(gate);
}

static int open_fds_of(pid_t pid)
{
    char path[32];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    while (dir != NULL && readdir(dir) != NULL) {
        count++;
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return count;
}

static void replacing_workers_uses_nothing_up(void **state)
{
    (void)state;
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 1, .max_tasks_per_child = 1});
    mproc_call call = {.fn = does_nothing};
    pid_t nursery = nursery_of(p); /* while there is a worker */
    assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    int before = open_fds_of(nursery);
    for (int i = 0; i < 50; i++) {
        assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    }
    assert_true(before > 0);
    assert_in_range(open_fds_of(nursery), 1, before + 2);
    end_of(p);
}

static int has_no_handler(const void *arg, size_t size, mproc_reply *reply)
{
    struct sigaction action;
    (void)arg;
    (void)size;
    (void)reply;
    return sigaction(SIGCHLD, NULL, &action) != 0 ||
           action.sa_handler != SIG_DFL;
}

/* Who keeps the workers hears of their ends; they are not to of others'. */
static void a_worker_has_no_handler_for_children(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_call call = {.fn = has_no_handler};
    assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    end_of(p);
}

/* Neither its workers nor who keeps them. */
static void a_pool_holds_no_pipe_open(void **state)
{
    (void)state;
    mproc_connection *a, *b;
    assert_ok(mproc_pipe_new(&a, &b, NULL));
    mproc_pool *p = pool_of(2);
    assert_ok(mproc_connection_close(b));
    assert_err(mproc_connection_recv(a, NULL, 0, NULL, TEST_BOUND), MPROC_EOF);
    assert_ok(mproc_connection_close(a));
    end_of(p);
}

struct maker {
    mproc_queue *here;
    bool manual;
};

/* Nobody in it sleeps in a call of the library, or works for the pool. */
static int makes_an_idle_pool(void *arg)
{
    enum { WORKERS = 3 };
    const struct maker *maker = arg;
    pid_t pids[WORKERS];
    mproc_pool *p = pool_with((mproc_pool_opts){
        .workers = WORKERS, .manual_dispatch = maker->manual});
    assert_ok(mproc_pool_apply(p, &(mproc_call){.fn = does_nothing}, NULL, 0,
                               TEST_BOUND));
    assert_int_equal(mproc_pool_worker_pids(p, pids, WORKERS), WORKERS);
    assert_ok(mproc_queue_put(maker->here, pids, sizeof pids, MPROC_FOREVER));
    while (pause() != 0) {
    }
    return 0;
}

/* It may be a worker whom the kernel wakes, and not who keeps them. */
static void idle_workers_end_with_an_idle_maker(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct maker maker = {queue(), i % 2};
        pid_t pids[3], pid = test_fork(makes_an_idle_pool, &maker);
        assert_ok(
            mproc_queue_get(maker.here, pids, sizeof pids, NULL, TEST_BOUND));
        usleep(20000);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(test_wait_exit(pid), -SIGKILL);
        for (int k = 0; k < 3; k++) {
            expect_gone(pids[k]);
        }
        mproc_queue_free(maker.here);
    }
}

/* ---- when they are ended ---------------------------------------------- */

/* As a terminal sends it to all of them. */
static void interrupts_end_nobody(void **state)
{
    (void)state;
    enum { WORKERS = 3 };
    mproc_pool *p = pool_of(WORKERS);
    pid_t before[WORKERS], now[WORKERS];
    assert_ok(mproc_pool_apply(p, &(mproc_call){.fn = does_nothing}, NULL, 0,
                               TEST_BOUND));
    assert_int_equal(mproc_pool_worker_pids(p, before, WORKERS), WORKERS);
    pid_t nursery = nursery_of(p);
    assert_true(nursery > 1);
    for (int i = 0; i < WORKERS; i++) {
        kill(before[i], SIGINT);
    }
    kill(nursery, SIGINT);
    for (int i = 0; i < 100; i++) {
        assert_ok(mproc_pool_apply(p, &(mproc_call){.fn = does_nothing}, NULL,
                                   0, TEST_BOUND));
    }
    assert_int_equal(nursery_of(p), nursery);
    assert_int_equal(mproc_pool_worker_pids(p, now, WORKERS), WORKERS);
    assert_memory_equal(before, now, sizeof now);
    assert_int_equal(stats_of(p).respawned, 0);
    end_of(p);
}

struct meeting {
    mproc_queue *here, *gate;
};

static int comes_and_waits(const void *arg, size_t size, mproc_reply *reply)
{
    const struct meeting *m = arg;
    pid_t pid = getpid();
    mproc_queue_put(m->here, &pid, sizeof pid, MPROC_FOREVER);
    return waits_for(&m->gate, size, reply);
}

/* Cancelled, it may take as long as it likes. */
static void the_grace_may_be_for_ever(void **state)
{
    (void)state;
    const double graces[] = {INFINITY, 1e300, 1e10};
    for (int i = 0; i < 3; i++) {
        mproc_pool *p =
            pool_with((mproc_pool_opts){.workers = 1, .grace_s = graces[i]});
        struct meeting m = {queue(), queue()};
        mproc_call call = {.fn = comes_and_waits, MPROC_ARG(m)};
        mproc_result *r = sent(p, call);
        pid_t pid = heard(m.here);
        assert_ok(mproc_result_cancel(r));
        assert_err(mproc_result_wait(r, mproc_in_ms(100)), MPROC_ETIMEDOUT);
        open_gate(m.gate, 1);
        assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND),
                   MPROC_ECANCELED);
        assert_int_equal(mproc_result_outcome(r)->worker, pid);
        assert_true(mproc_queue_empty(m.gate)); /* it lived to take this */
        mproc_result_free(r);
        end_of(p);
        mproc_queue_free(m.here);
        mproc_queue_free(m.gate);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(only_workers_that_ended_are_replaced),
        CLEAN(nobody_replaces_what_terminate_ends),
        CLEAN(a_thread_that_is_abandoned_is_replaced_once),
        CLEAN(threads_may_resize_at_a_time),
        CLEAN(starts_may_fail_now_and_then),
        CLEAN(nobody_is_told_to_leave_before_it_begins),
        CLEAN(a_new_worker_has_done_nothing_yet),
        CLEAN(a_new_worker_was_not_idle_before),
        CLEAN(a_worker_that_begins_is_not_busy),
        CLEAN(replacing_workers_uses_nothing_up),
        CLEAN(a_worker_has_no_handler_for_children),
        CLEAN(a_pool_holds_no_pipe_open),
        CLEAN(idle_workers_end_with_an_idle_maker),
        CLEAN(interrupts_end_nobody),
        CLEAN(the_grace_may_be_for_ever),
    };
    return cmocka_run_group_tests_name("pool_workers", tests, NULL, NULL);
}
