/* SPDX-License-Identifier: MIT */
/* Pools whose callbacks run where the caller dispatches them. */
#include "pool_kin.h"
#include "pool_loop.h"
#include "pool_tasks.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- tasks and callbacks ---------------------------------------------- */

/* ---- dispatching ------------------------------------------------------ */

static void callbacks_wait_to_be_dispatched(void **state)
{
    (void)state;
    enum { TASKS = 40 };
    mproc_pool *p = manual_pool(2);
    struct seen seen = nothing_seen();
    mproc_result *r[TASKS];
    long sum = 0;
    for (int i = 0; i < TASKS; i++) {
        r[i] = sent(p, seen_call(&i, &seen));
        sum += i * i;
    }
    for (int i = 0; i < TASKS; i++) {
        int out;
        assert_ok(mproc_result_get(r[i], &out, sizeof out, NULL, TEST_BOUND));
        assert_int_equal(out, i * i);
        mproc_result_free(r[i]); /* its callback runs all the same */
    }
    assert_int_equal(seen.good, 0);
    assert_int_equal(mproc_pool_dispatch(p, TEST_BOUND), TASKS);
    assert_int_equal(seen.good, TASKS);
    assert_int_equal(seen.sum, sum);
    assert_int_equal(seen.elsewhere + seen.bad, 0);
    assert_err(mproc_pool_dispatch(p, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_err(mproc_pool_dispatch(p, mproc_in_ms(50)), MPROC_ETIMEDOUT);
    assert_ok(mproc_pool_close(p));
    assert_int_equal(dispatch_to_the_end(p), 0);
    end_of(p);
}

static void an_event_loop_runs_them(void **state)
{
    (void)state;
    mproc_pool *p = manual_pool(2);
    struct seen seen = nothing_seen();
    mproc_queue *gate = queue();
    int fd = mproc_pool_fd(p);
    assert_false(readable(p, 0));
    mproc_call call = {.fn = waits_for,
                       MPROC_ARG(gate),
                       .callback = see,
                       .error_callback = see,
                       .user = &seen};
    for (int round = 1; round <= 20; round++) {
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
        assert_false(readable(p, round < 3 ? 50 : 0));
        assert_ok(mproc_queue_put(gate, NULL, 0, MPROC_FOREVER));
        assert_true(readable(p, 30000));
        assert_int_equal(mproc_pool_dispatch(p, TEST_BOUND), 1);
        assert_int_equal(seen.good, round);
        expect_quiet(p);
        assert_int_equal(mproc_pool_fd(p), fd);
    }
    call.callback = NULL; /* tasks without callback are taken note of */
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    assert_ok(mproc_queue_put(gate, NULL, 0, MPROC_FOREVER));
    assert_true(readable(p, 30000));
    assert_err(mproc_pool_dispatch(p, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    expect_quiet(p);
    for (int i = 0; i < 500; i++) {
        mproc_call quick = seen_call(&i, &seen);
        assert_ok(mproc_pool_apply_async(p, &quick, NULL, MPROC_FOREVER));
    }
    assert_ok(mproc_pool_close(p));
    assert_int_equal(dispatch_to_the_end(p), 500);
    assert_true(readable(p, 0)); /* for ever */
    assert_err(mproc_pool_dispatch(p, MPROC_FOREVER), MPROC_EOF);
    assert_ok(mproc_pool_join(p, MPROC_NOWAIT));
    mproc_pool_free(p);
    mproc_queue_free(gate);
}

static int threads(void)
{
    char line[256];
    int count = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        sscanf(line, "Threads: %d", &count);
    }
    fclose(f);
    return count;
}

static void the_maker_has_no_thread_of_ours(void **state)
{
    (void)state;
    int before = threads(), n = 3;
    mproc_pool *p = manual_pool(2);
    struct seen seen = nothing_seen();
    mproc_call call = seen_call(&n, &seen);
    assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    assert_int_equal(threads(), before);
    end_of(p);
    assert_int_equal(threads(), before);
}

static void join_map_and_apply_dispatch_too(void **state)
{
    (void)state;
    enum { ITEMS = 100 };
    mproc_pool *p = manual_pool(2);
    struct seen seen = nothing_seen();
    int n = 3, out[ITEMS], in[ITEMS];
    mproc_call call = seen_call(&n, &seen);
    assert_ok(mproc_pool_apply(p, &call, out, sizeof n, TEST_BOUND));
    assert_int_equal(out[0], 9);
    assert_true(seen.good <= 1);
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
    }
    mproc_batch b = {.fn = squares,
                     .in = in,
                     .in_size = sizeof(int),
                     .count = ITEMS,
                     .out = out,
                     .out_size = sizeof(int),
                     .on_item = see,
                     .user = &seen};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    assert_int_equal(seen.good, 1 + ITEMS);
    for (int i = 0; i < ITEMS; i++) {
        assert_int_equal(out[i], i * i);
        call = seen_call(&i, &seen);
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    assert_ok(mproc_pool_close(p));
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    assert_int_equal(seen.good, 1 + 2 * ITEMS);
    assert_int_equal(seen.elsewhere, 0);
    mproc_pool_free(p);
}

static void room_comes_by_dispatching(void **state)
{
    (void)state;
    mproc_pool *p = pool_with((mproc_pool_opts){
        .workers = 2, .max_pending = 3, .manual_dispatch = 1});
    struct seen seen = nothing_seen();
    for (int i = 0; i < 100; i++) {
        mproc_call call = seen_call(&i, &seen);
        assert_ok(mproc_pool_apply_async(p, &call, NULL, TEST_BOUND));
        assert_true(seen.good >= i - 2);
    }
    end_of(p);
    assert_int_equal(seen.good, 100);
}

/* ---- what callbacks do ------------------------------------------------ */

struct acts {
    mproc_pool *p;
    mproc_result *cancel_it;
    struct seen later;
    int dispatch, apply, join, cancel, submit, close, calls;
};

static void act(const mproc_outcome *o, void *user)
{
    struct acts *a = user;
    int n = 2;
    mproc_call call = seen_call(&n, &a->later);
    (void)o;
    a->calls++;
    a->dispatch = mproc_pool_dispatch(a->p, TEST_BOUND);
    a->apply = mproc_pool_apply(a->p, &call, NULL, 0, TEST_BOUND);
    a->submit = mproc_pool_apply_async(a->p, &call, NULL, MPROC_FOREVER);
    a->cancel = mproc_result_cancel(a->cancel_it);
    a->close = mproc_pool_close(a->p);
    a->join = mproc_pool_join(a->p, TEST_BOUND);
}

static void a_callback_may_do_all_but_wait(void **state)
{
    (void)state;
    struct acts a = {.p = manual_pool(2), .later = nothing_seen()};
    mproc_queue *gate = queue();
    int n = 3;
    a.cancel_it = sent(a.p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
    mproc_call call = {
        .fn = squares, MPROC_ARG(n), .callback = act, .user = &a};
    assert_ok(mproc_pool_apply_async(a.p, &call, NULL, MPROC_FOREVER));
    assert_int_equal(dispatch_to_the_end(a.p), 2);
    assert_int_equal(a.calls, 1);
    assert_err(a.dispatch, MPROC_EDEADLK);
    assert_err(a.apply, MPROC_EDEADLK);
    assert_err(a.join, MPROC_EDEADLK);
    assert_ok(a.submit);
    assert_ok(a.cancel);
    assert_ok(a.close);
    assert_int_equal(a.later.good, 1);
    assert_err(mproc_result_outcome(a.cancel_it)->status, MPROC_ECANCELED);
    mproc_result_free(a.cancel_it);
    mproc_pool_free(a.p);
    mproc_queue_free(gate);
}

/* Nobody waits for the end of a pool that its callback has freed. */
static void expect_freed(mproc_pool *p)
{
    for (int i = 0; i < 3000 && mproc_pool_close(p) != MPROC_EINVAL; i++) {
        usleep(10000);
    }
    assert_err(mproc_pool_close(p), MPROC_EINVAL);
}

/* Two pools; a callback of one runs one of the other inside. */
struct nested {
    mproc_pool *outer, *inner;
    mproc_result *pending;
    int inside[3], after[3], dispatch;
};

static void try_to_wait(struct nested *n, int out[3])
{
    mproc_call call = {.fn = squares, MPROC_ARG(n->dispatch)};
    out[0] = mproc_result_wait(n->pending, TEST_BOUND);
    out[1] = mproc_pool_apply(n->outer, &call, NULL, 0, TEST_BOUND);
    out[2] = mproc_pool_join(n->outer, TEST_BOUND);
}

static void inner_act(const mproc_outcome *o, void *user)
{
    struct nested *n = user;
    (void)o;
    try_to_wait(n, n->inside);
}

static void outer_act(const mproc_outcome *o, void *user)
{
    struct nested *n = user;
    mproc_call call = {.fn = squares,
                       MPROC_ARG(n->dispatch),
                       .callback = inner_act,
                       .user = n};
    (void)o;
    mproc_pool_apply_async(n->inner, &call, NULL, TEST_BOUND);
    n->dispatch = mproc_pool_dispatch(n->inner, TEST_BOUND);
    try_to_wait(n, n->after);
    mproc_pool_free(n->outer);
}

static void a_callback_inside_another_is_of_both_pools(void **state)
{
    (void)state;
    struct nested n = {.outer = pool_of(2), .inner = manual_pool(1)};
    mproc_queue *gate = queue();
    int number = 3;
    n.pending = sent(n.outer, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
    mproc_call call = {
        .fn = squares, MPROC_ARG(number), .callback = outer_act, .user = &n};
    assert_ok(mproc_pool_apply_async(n.outer, &call, NULL, MPROC_FOREVER));
    assert_ok(mproc_result_wait(n.pending, TEST_BOUND));
    assert_err(mproc_result_outcome(n.pending)->status, MPROC_ECANCELED);
    assert_int_equal(n.dispatch, 1);
    for (int i = 0; i < 3; i++) {
        assert_err(n.inside[i], MPROC_EDEADLK);
        assert_err(n.after[i], MPROC_EDEADLK);
    }
    mproc_result_free(n.pending);
    end_of(n.inner);
    mproc_queue_free(gate);
    expect_freed(n.outer);
}

static void terminate_it(const mproc_outcome *o, void *user)
{
    (void)o;
    mproc_pool_terminate(user);
}

static void a_callback_may_end_its_pool(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        mproc_pool *p = manual_pool(2);
        struct seen seen = nothing_seen();
        mproc_queue *gate = queue();
        int n = 3;
        mproc_call waits = {.fn = waits_for,
                            MPROC_ARG(gate),
                            .error_callback = see,
                            .user = &seen};
        mproc_result *r = sent(p, waits);
        mproc_call call = {.fn = squares,
                           MPROC_ARG(n),
                           .callback = i % 2 ? terminate_it : free_it,
                           .user = p};
        if (i < 4) {
            assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
        }
        if (i < 2) {
            assert_int_equal(mproc_pool_dispatch(p, TEST_BOUND), 1);
        } else if (i < 4) {
            mproc_call other = {.fn = waits_for, MPROC_ARG(gate)};
            assert_err(mproc_pool_apply(p, &other, NULL, 0, TEST_BOUND),
                       MPROC_ECANCELED);
        } else {
            assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
        }
        if (i % 2) {
            end_of(p);
        } else if (i < 4) {
            assert_err(mproc_pool_close(p), MPROC_EINVAL);
        } else {
            mproc_pool_free(p); /* unless the callback came first */
        }
        assert_true(mproc_result_ready(r));
        assert_err(mproc_result_outcome(r)->status, MPROC_ECANCELED);
        mproc_result_free(r);
        mproc_queue_free(gate);
    }
}

/* Of those that have ended, wait or run then. */
static void after_a_callback_has_freed_its_pool_none_runs(void **state)
{
    (void)state;
    enum { TASKS = 50 };
    for (int manual = 0; manual < 2; manual++) {
        mproc_pool *p = pool_with(
            (mproc_pool_opts){.workers = 2, .manual_dispatch = manual});
        struct seen seen = nothing_seen();
        mproc_queue *gate = queue(), *never = queue();
        mproc_call waits = {.fn = waits_for, MPROC_ARG(never)};
        mproc_call frees = {
            .fn = waits_for, MPROC_ARG(gate), .callback = free_it, .user = p};
        mproc_result *r[TASKS];
        assert_ok(mproc_pool_apply_async(p, &frees, NULL, TEST_BOUND));
        assert_ok(mproc_pool_apply_async(p, &waits, NULL, TEST_BOUND));
        for (int i = 0; i < TASKS; i++) {
            r[i] = sent(p, seen_call(&i, &seen));
        }
        assert_ok(mproc_queue_put(gate, NULL, 0, MPROC_NOWAIT));
        if (manual) {
            mproc_pool_dispatch(p, TEST_BOUND);
        }
        for (int i = 0; i < TASKS; i++) {
            assert_ok(mproc_result_wait(r[i], TEST_BOUND));
            mproc_result_free(r[i]);
        }
        expect_freed(p);
        assert_int_equal(seen.good + seen.bad, 0);
        mproc_queue_free(gate);
        mproc_queue_free(never);
    }
}

static void what_is_not_dispatched_is_dropped(void **state)
{
    (void)state;
    mproc_pool *p = manual_pool(2);
    struct seen seen = nothing_seen();
    mproc_result *r = NULL;
    for (int i = 0; i < 20; i++) {
        mproc_call call = seen_call(&i, &seen);
        if (i < 19) {
            assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
        } else {
            r = sent(p, call);
        }
    }
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    mproc_pool_free(p);
    assert_int_equal(seen.good + seen.bad, 0);
    mproc_result_free(r);
}

/* ---- more threads ----------------------------------------------------- */

struct crowd {
    mproc_pool *p;
    struct seen seen;
    _Atomic int ran;
};

static void *dispatches(void *user)
{
    struct crowd *crowd = user;
    int n;
    while ((n = mproc_pool_dispatch(crowd->p, TEST_BOUND)) != MPROC_EOF) {
        assert_true(n > 0);
        atomic_fetch_add(&crowd->ran, n);
    }
    return NULL;
}

static void *waits_for_results(void *user)
{
    struct crowd *crowd = user;
    for (int i = 0; i < 200; i++) {
        int out;
        mproc_result *r = sent(crowd->p, seen_call(&i, &crowd->seen));
        assert_ok(mproc_result_get(r, &out, sizeof out, NULL, TEST_BOUND));
        assert_int_equal(out, i * i);
        mproc_result_free(r);
    }
    return NULL;
}

static void threads_may_share_the_work(void **state)
{
    (void)state;
    struct crowd crowd = {.p = manual_pool(2), .seen = nothing_seen()};
    pthread_t thread[5];
    for (int i = 0; i < 5; i++) {
        pthread_create(&thread[i], NULL, i < 2 ? dispatches : waits_for_results,
                       &crowd);
    }
    for (int i = 2; i < 5; i++) {
        pthread_join(thread[i], NULL);
    }
    assert_ok(mproc_pool_close(crowd.p));
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
    }
    assert_int_equal(crowd.seen.good, 600);
    assert_int_equal(crowd.ran, 600);
    assert_int_equal(crowd.seen.overlapping, 0);
    mproc_pool_free(crowd.p);
}

/* ---- deaths ----------------------------------------------------------- */

static void deaths_wake_an_event_loop(void **state)
{
    (void)state;
    mproc_pool *p = manual_pool(1);
    struct seen seen = nothing_seen();
    for (int round = 0; round < 3; round++) {
        int n = 5;
        pid_t worker;
        mproc_call call = seen_call(&n, &seen);
        call.fn = kills_itself;
        seen.bad = seen.good = 0;
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
        while (seen.bad == 0) {
            assert_true(readable(p, 30000));
            mproc_pool_dispatch(p, MPROC_NOWAIT);
        }
        mproc_queue *gate = queue();
        call = (mproc_call){.fn = waits_for,
                            MPROC_ARG(gate),
                            .error_callback = see,
                            .user = &seen};
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
        call = seen_call(&n, &seen);
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
        for (worker = 0; worker == 0; usleep(1000)) {
            mproc_pool_worker_pids(p, &worker, 1);
        }
        while (mproc_queue_qsize(gate) != 0) {
        }
        pid_t nursery = nursery_of(p);
        assert_true(nursery > 1);
        usleep(20000); /* the first task runs, or all but always */
        kill(nursery, SIGKILL);
        while (seen.good == 0) {
            assert_true(readable(p, 30000));
            mproc_pool_dispatch(p, MPROC_NOWAIT);
            if (seen.bad == 1) {
                mproc_queue_put(gate, NULL, 0, MPROC_NOWAIT);
            }
        }
        mproc_queue_free(gate);
    }
    assert_ok(mproc_pool_close(p));
    dispatch_to_the_end(p);
    end_of(p);
}

/* Nobody else looks after the pool meanwhile. */
static void waiting_for_many_looks_after_the_pool(void **state)
{
    (void)state;
    mproc_pool *p = manual_pool(1);
    mproc_queue *here = queue();
    pid_t worker;
    for (int i = 0; i < 3; i++) {
        size_t ready;
        mproc_result *r[] = {
            sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)}),
            sent(p, (mproc_call){.fn = tells_pid})};
        mproc_waitable what[] = {mproc_waitable_result(r[0]),
                                 mproc_waitable_result(r[1])};
        assert_err(mproc_wait(what, 2, &ready, mproc_in_ms(20)),
                   MPROC_ETIMEDOUT);
        assert_ok(
            mproc_queue_get(here, &worker, sizeof worker, NULL, TEST_BOUND));
        pid_t victim = i ? worker : nursery_of(p);
        assert_true(victim > 1);
        kill(victim, SIGKILL);
        assert_ok(mproc_wait(what, 1, &ready, TEST_BOUND));
        assert_ok(mproc_wait(what + 1, 1, &ready, TEST_BOUND));
        assert_err(mproc_result_outcome(r[0])->status, MPROC_EWORKERLOST);
        assert_true(mproc_result_successful(r[1]));
        mproc_result_free(r[0]);
        mproc_result_free(r[1]);
    }
    end_of(p);
    mproc_queue_free(here);
}

static void terminated_tasks_are_told_by_dispatch(void **state)
{
    (void)state;
    mproc_pool *p = manual_pool(2);
    struct seen seen = nothing_seen();
    mproc_queue *gate = queue();
    mproc_call call = {
        .fn = waits_for, MPROC_ARG(gate), .error_callback = see, .user = &seen};
    for (int i = 0; i < 10; i++) {
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    assert_ok(mproc_pool_terminate(p));
    assert_int_equal(dispatch_to_the_end(p), 10);
    assert_int_equal(seen.bad, 10);
    end_of(p);
    mproc_queue_free(gate);
}

/* ---- refusals --------------------------------------------------------- */

static int uses_it_elsewhere(void *arg)
{
    assert_err(mproc_pool_fd(arg), MPROC_EPERM);
    assert_err(mproc_pool_dispatch(arg, MPROC_FOREVER), MPROC_EPERM);
    return 0;
}

static int fails(void *arg)
{
    (void)arg;
    return 1;
}

static void refusals(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    assert_err(mproc_pool_fd(p), MPROC_EINVAL);
    assert_err(mproc_pool_dispatch(p, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_pool_fd(NULL), MPROC_EINVAL);
    assert_err(mproc_pool_dispatch(NULL, MPROC_NOWAIT), MPROC_EINVAL);
    end_of(p);
    p = manual_pool(1);
    assert_int_equal(test_wait_exit(test_fork(uses_it_elsewhere, p)), 0);
    end_of(p);
    assert_err(mproc_pool_new(&p, &(mproc_pool_opts){.workers = 2,
                                                     .initializer = fails,
                                                     .manual_dispatch = 1}),
               MPROC_ETASK);
}

/* ---- main ------------------------------------------------------------- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(callbacks_wait_to_be_dispatched),
        CLEAN(an_event_loop_runs_them),
        CLEAN(the_maker_has_no_thread_of_ours),
        CLEAN(join_map_and_apply_dispatch_too),
        CLEAN(room_comes_by_dispatching),
        CLEAN(a_callback_may_do_all_but_wait),
        CLEAN(a_callback_inside_another_is_of_both_pools),
        CLEAN(a_callback_may_end_its_pool),
        CLEAN(after_a_callback_has_freed_its_pool_none_runs),
        CLEAN(what_is_not_dispatched_is_dropped),
        CLEAN(threads_may_share_the_work),
        CLEAN(deaths_wake_an_event_loop),
        CLEAN(waiting_for_many_looks_after_the_pool),
        CLEAN(terminated_tasks_are_told_by_dispatch),
        CLEAN(refusals),
    };
    return cmocka_run_group_tests_name("pool_dispatch", tests, NULL, NULL);
}
