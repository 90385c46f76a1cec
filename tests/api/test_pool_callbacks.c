/* SPDX-License-Identifier: MIT */
/* What callbacks of a pool are told, also of its end, and what they may do. */
#include "pool_meeting.h"
#include "pool_tasks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

/* ---- callbacks -------------------------------------------------------- */

/* What callbacks saw. Read once the pool is joined. */
struct seen {
    int good, bad, status, code, worker_known;
    int overlapping;
    _Atomic int inside;
    size_t bytes;
    char error[64];
    mproc_result **result;
    int not_ready;
};

static void see(const mproc_outcome *o, struct seen *seen)
{
    seen->overlapping += atomic_fetch_add(&seen->inside, 1) != 0;
    seen->worker_known += o->worker > 0 && o->worker != getpid();
    seen->status = o->status;
    seen->code = o->code;
    seen->bytes += o->size;
    snprintf(seen->error, sizeof seen->error, "%s", o->error);
    if (seen->result != NULL) {
        seen->not_ready += !mproc_result_ready(*seen->result);
    }
    atomic_fetch_sub(&seen->inside, 1);
}

static void see_good(const mproc_outcome *o, void *user)
{
    struct seen *seen = user;
    seen->good++;
    see(o, seen);
}

static void see_bad(const mproc_outcome *o, void *user)
{
    struct seen *seen = user;
    seen->bad++;
    see(o, seen);
}

static mproc_call seen_call(mproc_task_fn *fn, int *n, struct seen *seen)
{
    return (mproc_call){.fn = fn,
                        .arg = n,
                        .arg_size = sizeof *n,
                        .callback = see_good,
                        .error_callback = see_bad,
                        .user = seen};
}

static void one_of_the_callbacks_runs(void **state)
{
    (void)state;
    struct seen good = {0}, bad = {0}, none = {0};
    int n = 5;
    mproc_pool *p = pool_of(2);
    mproc_call call = seen_call(squares, &n, &good);
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    call = seen_call(says_why, &n, &bad);
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    call.callback = see_good;
    call.error_callback = NULL;
    call.user = &none;
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    end_of(p);
    assert_int_equal(good.good, 1);
    assert_int_equal(good.bad, 0);
    assert_int_equal(good.status, MPROC_OK);
    assert_int_equal(good.bytes, sizeof n);
    assert_int_equal(good.worker_known, 1);
    assert_int_equal(bad.good, 0);
    assert_int_equal(bad.bad, 1);
    assert_int_equal(bad.status, MPROC_ETASK);
    assert_int_equal(bad.code, -12);
    assert_string_equal(bad.error, "bun of 5");
    assert_int_equal(none.good + none.bad, 0);
}

static pid_t maker;
static _Atomic int elsewhere;

static void note_where(const mproc_outcome *o, void *user)
{
    elsewhere += getpid() != maker || o->worker == maker;
    see_good(o, user);
}

static void callbacks_run_one_at_a_time_in_the_maker(void **state)
{
    (void)state;
    enum { TASKS = 2000 };
    struct seen seen = {0};
    mproc_pool *p = pool_of(4);
    maker = getpid();
    elsewhere = 0;
    for (int i = 0; i < TASKS; i++) {
        mproc_call call = seen_call(does_nothing, &i, &seen);
        call.callback = note_where;
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    end_of(p);
    assert_int_equal(seen.good, TASKS);
    assert_int_equal(seen.overlapping, 0);
    assert_int_equal(elsewhere, 0);
}

struct dispatchers {
    mproc_pool *p;
    int calls, err;
};

static void *dispatches_too(void *user)
{
    struct dispatchers *d = user;
    d->err = mproc_pool_dispatch(d->p, MPROC_NOWAIT);
    return NULL;
}

static void lets_another_dispatch(const mproc_outcome *o, void *user)
{
    struct dispatchers *d = user;
    pthread_t thread;
    (void)o;
    if (d->calls++ == 0) {
        assert_int_equal(pthread_create(&thread, NULL, dispatches_too, d), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
}

static void one_thread_at_a_time_runs_them(void **state)
{
    (void)state;
    struct dispatchers d = {.p = pool_with((mproc_pool_opts){
                                .workers = 1, .manual_dispatch = true})};
    mproc_call call = {
        .fn = does_nothing, .callback = lets_another_dispatch, .user = &d};
    mproc_result *r[] = {sent(d.p, call), sent(d.p, call)};
    for (int i = 0; i < 2; i++) {
        assert_ok(mproc_result_wait(r[i], TEST_BOUND));
        mproc_result_free(r[i]);
    }
    assert_int_equal(mproc_pool_dispatch(d.p, TEST_BOUND), 2);
    assert_err(d.err, MPROC_ETIMEDOUT);
    assert_int_equal(d.calls, 2);
    end_of(d.p);
}

static void a_result_is_ready_before_its_callback(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_queue *gate = queue();
    mproc_result *r;
    struct seen seen = {.result = &r};
    mproc_call call = {
        .fn = waits_for, MPROC_ARG(gate), .callback = see_good, .user = &seen};
    assert_ok(mproc_pool_apply_async(p, &call, &r, MPROC_FOREVER));
    open_gate(gate, 1);
    end_of(p);
    assert_int_equal(seen.good, 1);
    assert_int_equal(seen.not_ready, 0);
    mproc_result_free(r);
    mproc_queue_free(gate);
}

/* However soon the callback comes. */
static void a_callback_finds_the_result_where_it_was_wanted(void **state)
{
    (void)state;
    enum { TIMES = 300 };
    static mproc_result *r[TIMES];
    static struct seen seen[TIMES];
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < TIMES; i++) {
        seen[i] = (struct seen){.result = &r[i]};
        mproc_call call = {.fn = squares,
                           MPROC_ARG(i),
                           .callback = see_good,
                           .user = &seen[i]};
        assert_ok(mproc_pool_apply_async(p, &call, &r[i], MPROC_FOREVER));
    }
    end_of(p);
    for (int i = 0; i < TIMES; i++) {
        assert_int_equal(seen[i].good, 1);
        assert_int_equal(seen[i].not_ready, 0);
        mproc_result_free(r[i]);
    }
}

static void a_result_freed_early_ends_no_task(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_queue *gate = queue();
    struct seen seen = {0};
    mproc_call call = {
        .fn = waits_for, MPROC_ARG(gate), .callback = see_good, .user = &seen};
    mproc_result_free(sent(p, call));
    call.fn = tells_pid;
    mproc_result_free(sent(p, call));
    open_gate(gate, 1);
    end_of(p);
    assert_int_equal(seen.good, 2);
    assert_int_equal(seen.bytes, sizeof(pid_t));
    mproc_queue_free(gate);
}

/* What a callback may do, and what it may not. */
struct acts {
    mproc_pool *p;
    mproc_queue *acted;
    mproc_result *free_it;
    mproc_result *_Atomic pending; /* stored after the first was sent */
    struct seen later;
    int apply, map, open_join, join, wait, get, submit, close, closed;
    int terminate;
};

static void act(const mproc_outcome *o, void *user)
{
    struct acts *a = user;
    int n = 2, out;
    mproc_call call = seen_call(squares, &n, &a->later);
    mproc_batch batch = {.fn = squares, .in = &n, .in_size = 4, .count = 1};
    (void)o;
    a->apply = mproc_pool_apply(a->p, &call, &out, sizeof out, TEST_BOUND);
    a->map = mproc_pool_map(a->p, &batch, TEST_BOUND);
    a->wait = mproc_result_wait(a->pending, TEST_BOUND);
    a->get = mproc_result_get(a->pending, NULL, 0, NULL, MPROC_NOWAIT);
    a->submit = mproc_pool_apply_async(a->p, &call, NULL, MPROC_FOREVER);
    mproc_result_free(a->free_it);
    a->open_join = mproc_pool_join(a->p, TEST_BOUND);
    a->close = mproc_pool_close(a->p);
    a->join = mproc_pool_join(a->p, TEST_BOUND);
    a->closed = mproc_pool_apply_async(a->p, &call, NULL, MPROC_FOREVER);
    mproc_queue_put(a->acted, NULL, 0, MPROC_FOREVER);
}

static void a_callback_may_do_all_but_wait(void **state)
{
    (void)state;
    struct acts a = {.p = pool_of(1), .acted = queue()};
    mproc_queue *gate = queue();
    mproc_call first = {.fn = waits_for, MPROC_ARG(gate)};
    first.callback = act;
    first.user = &a;
    a.free_it = sent(a.p, first);
    first.callback = NULL;
    a.pending = sent(a.p, first);
    open_gate(gate, 1);
    assert_ok(mproc_queue_get(a.acted, NULL, 0, NULL, TEST_BOUND));
    open_gate(gate, 1);
    assert_ok(mproc_pool_join(a.p, TEST_BOUND));
    assert_err(a.apply, MPROC_EDEADLK);
    assert_err(a.map, MPROC_EDEADLK);
    assert_err(a.open_join, MPROC_EDEADLK);
    assert_err(a.join, MPROC_EDEADLK);
    assert_err(a.wait, MPROC_EDEADLK);
    assert_err(a.get, MPROC_EDEADLK);
    assert_ok(a.submit);
    assert_ok(a.close);
    assert_err(a.closed, MPROC_ESHUTDOWN);
    assert_int_equal(a.later.good, 1);
    mproc_result_free(a.pending);
    mproc_pool_free(a.p);
    mproc_queue_free(a.acted);
    mproc_queue_free(gate);
}

static void terminate_it(const mproc_outcome *o, void *user)
{
    struct acts *a = user;
    (void)o;
    a->terminate = mproc_pool_terminate(a->p);
}

static void a_callback_may_terminate(void **state)
{
    (void)state;
    struct acts a = {.p = pool_of(2), .terminate = 1};
    mproc_queue *gate = queue();
    mproc_result *r = sent(a.p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
    mproc_call call = {.fn = does_nothing, .callback = terminate_it};
    call.user = &a;
    assert_ok(mproc_pool_apply_async(a.p, &call, NULL, MPROC_FOREVER));
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    assert_int_equal(mproc_result_outcome(r)->status, MPROC_ECANCELED);
    assert_ok(mproc_pool_join(a.p, TEST_BOUND));
    assert_ok(a.terminate);
    mproc_result_free(r);
    mproc_pool_free(a.p);
    mproc_queue_free(gate);
}

static void a_callback_may_free_its_pool(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_queue *gate = queue();
    mproc_result *r = sent(p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
    mproc_call call = {.fn = does_nothing, .callback = free_it, .user = p};
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    assert_int_equal(mproc_result_outcome(r)->status, MPROC_ECANCELED);
    mproc_result_free(r);
    /* Nobody waits for the end of such a pool. */
    for (int i = 0; i < 3000 && mproc_pool_close(p) != MPROC_EINVAL; i++) {
        usleep(10000);
    }
    assert_err(mproc_pool_close(p), MPROC_EINVAL);
    mproc_queue_free(gate);
}

/* ---- the end of a pool ------------------------------------------------ */

static void terminate_cancels_all(void **state)
{
    (void)state;
    enum { TASKS = 20 };
    mproc_pool *p = pool_of(2);
    struct meeting m = meeting();
    struct seen seen = {0};
    mproc_result *r[TASKS];
    mproc_call call = {.fn = comes_and_waits, MPROC_ARG(m)};
    call.callback = see_good;
    call.error_callback = see_bad;
    call.user = &seen;
    for (int i = 0; i < TASKS; i++) {
        r[i] = sent(p, call);
    }
    met(&m);
    met(&m);
    assert_ok(mproc_pool_terminate(p));
    assert_ok(mproc_pool_terminate(p));
    assert_ok(mproc_pool_close(p));
    assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND),
               MPROC_ESHUTDOWN);
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    for (int i = 0; i < TASKS; i++) {
        assert_err(mproc_result_get(r[i], NULL, 0, NULL, MPROC_NOWAIT),
                   MPROC_ECANCELED);
        mproc_result_free(r[i]);
    }
    assert_int_equal(seen.bad, TASKS);
    assert_int_equal(seen.good, 0);
    assert_int_equal(seen.status, MPROC_ECANCELED);
    mproc_pool_free(p);
    free_meeting(&m);
}

static void free_ends_what_runs(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    struct meeting m = meeting();
    struct seen seen = {0};
    mproc_call call = {.fn = comes_and_waits, MPROC_ARG(m)};
    call.error_callback = see_bad;
    call.user = &seen;
    for (int i = 0; i < 10; i++) {
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    mproc_result *r = sent(p, call);
    met(&m);
    mproc_pool_free(p);
    assert_int_equal(seen.bad, 11); /* no callback runs any more */
    assert_err(mproc_result_get(r, NULL, 0, NULL, MPROC_NOWAIT),
               MPROC_ECANCELED);
    mproc_result_free(r);
    free_meeting(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(one_of_the_callbacks_runs),
        CLEAN(callbacks_run_one_at_a_time_in_the_maker),
        CLEAN(one_thread_at_a_time_runs_them),
        CLEAN(a_result_is_ready_before_its_callback),
        CLEAN(a_callback_finds_the_result_where_it_was_wanted),
        CLEAN(a_result_freed_early_ends_no_task),
        CLEAN(a_callback_may_do_all_but_wait),
        CLEAN(a_callback_may_terminate),
        CLEAN(terminate_cancels_all),
        CLEAN(free_ends_what_runs),
        /* last: nobody joins its thread, which ThreadSanitizer remembers */
        CLEAN(a_callback_may_free_its_pool),
    };
    return cmocka_run_group_tests_name("pool_callbacks", tests, NULL, NULL);
}
