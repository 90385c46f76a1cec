/* SPDX-License-Identifier: MIT */
/*
 * Who tells of a task that has ended, and who hears it: once, and in time,
 * wherever others stand just then.
 */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "test.h"

#include "shm/sleep.h"

#include "scene.h"

static int waits_for(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size, (void)reply;
    return mproc_queue_get(*(mproc_queue *const *)arg, NULL, 0, NULL,
                           MPROC_FOREVER);
}

/* ---- a worker that has not told yet ----------------------------------- */

/*
 * The first worker leaves after one item, the second goes on with the other
 * and has ended the task, but is stopped before it tells so. Now the first one
 * is found to have left.
 */
static void what_another_ended_is_not_in_doubt(void **state)
{
    (void)state;
    struct scene s;
    mproc_result *r;
    int in[2] = {1, 2}, out[2] = {0, 0};
    begin(&s, 0);
    assert_ok(mproc_pool_map_async(s.p,
                                   &(mproc_batch){.fn = add_one,
                                                  .in = in,
                                                  .in_size = sizeof *in,
                                                  .count = 2,
                                                  .out = out,
                                                  .out_size = sizeof *out,
                                                  .chunk = 2},
                                   &r));
    mpr_worker_work(s.p, s.self, row(&s, 0));
    mpr_worker_work(s.p, s.self, row(&s, 1));
    struct mpr_task *told = atomic_exchange(&s.p->told, NULL);
    assert_non_null(told);
    assert_ok(mpr_worker_settle(s.p, s.self, row(&s, 0), 0));
    collect(&s);
    assert_false(mproc_result_ready(r));
    atomic_store(&s.p->told, told);
    collect(&s);
    assert_true(mproc_result_successful(r));
    assert_int_equal(out[0], 2);
    assert_int_equal(out[1], 3);
    assert_int_equal(mpr_pool_pending(s.p->mine), 0);
    mproc_result_free(r);
    mpr_pool_end(s.p, s.self);
}

/* The second one is killed there. */
static void what_the_dead_ended_is_told(void **state)
{
    (void)state;
    struct scene s;
    mproc_result *r;
    static const int one = 1;
    int reply = 0;
    begin(&s, 0);
    mproc_call call = {.fn = add_one, .arg = &one, .arg_size = sizeof one};
    assert_ok(mproc_pool_apply_async(s.p, &call, &r, MPROC_NOWAIT));
    mpr_worker_work(s.p, s.self, row(&s, 1));
    assert_non_null(atomic_exchange(&s.p->told, NULL));
    assert_ok(mpr_worker_settle(s.p, s.self, row(&s, 1), -9));
    collect(&s);
    assert_ok(mproc_result_get(r, &reply, sizeof reply, NULL, MPROC_NOWAIT));
    assert_int_equal(reply, 2);
    assert_int_equal(mpr_pool_pending(s.p->mine), 0);
    mproc_result_free(r);
    mpr_pool_end(s.p, s.self);
}

/* ---- one who sleeps in a callback ------------------------------------- */

struct sleepers {
    mproc_pool *p;
    mproc_result *batch, *single;
    struct mpr_thread *_Atomic in_callback, *_Atomic waiting;
    int outcome;
    bool late;
};

/* It waits for the batch's worker, which goes on for long. */
static void free_the_batch(const mproc_outcome *outcome, void *user)
{
    struct sleepers *s = user;
    (void)outcome;
    s->in_callback = mpr_self_if_any();
    mproc_result_free(s->batch);
}

static void *dispatch(void *user)
{
    struct sleepers *s = user;
    mproc_pool_dispatch(s->p, TEST_BOUND);
    return NULL;
}

static void *wait_for_single(void *user)
{
    struct sleepers *s = user;
    struct mpr_thread *self;
    s->outcome = mpr_self(&self);
    s->waiting = self;
    mproc_deadline until = TEST_BOUND;
    s->outcome = mproc_result_wait(s->single, until);
    s->late = mproc_in_s(0).at_ns >= until.at_ns;
    return NULL;
}

static void await_sleep(struct mpr_thread *_Atomic *thread,
                        const _Atomic uint32_t *bell)
{
    for (int i = 0; i < 10000; i++) {
        struct mpr_thread *t = *thread;
        if (t != NULL && atomic_load(&t->asleep_on) == bell) {
            return;
        }
        usleep(1000);
    }
    fail_msg("it does not sleep");
}

static mproc_result *sent(mproc_pool *p, mproc_queue **gate)
{
    mproc_result *r;
    mproc_call call = {.fn = waits_for, .arg = gate, .arg_size = sizeof *gate};
    assert_ok(mproc_pool_apply_async(p, &call, &r, MPROC_NOWAIT));
    return r;
}

/* Another thread waits for a task meanwhile, of which a worker tells. */
static void wait_for_one(struct sleepers *s, mproc_queue *gate)
{
    pthread_t waiter;
    s->waiting = NULL;
    s->single = sent(s->p, &gate);
    assert_ok(pthread_create(&waiter, NULL, wait_for_single, s));
    await_sleep(&s->waiting, &s->p->to_collector);
    assert_ok(mproc_queue_put(gate, NULL, 0, MPROC_FOREVER));
    pthread_join(waiter, NULL);
    assert_ok(s->outcome);
    assert_false(s->late); /* it looks once more when its time is over */
    mproc_result_free(s->single);
}

/* Of two that sleep, who began first is woken first, and can do nothing. */
static void a_sleep_in_a_callback_keeps_nobody_asleep(void **state)
{
    (void)state;
    struct sleepers s = {.p = NULL};
    pthread_t dispatcher;
    mproc_queue *gate[2];
    mproc_pool_opts opts = {
        .workers = 2, .manual_dispatch = 1, .grace_s = 3600};
    assert_ok(mproc_queue_new(&gate[0], NULL));
    assert_ok(mproc_queue_new(&gate[1], NULL));
    assert_ok(mproc_pool_new(&s.p, &opts));
    mproc_batch batch = {
        .fn = waits_for, .in = gate, .in_size = sizeof *gate, .count = 1};
    mproc_call call = {.fn = add_one,
                       .arg = &(int){1},
                       .arg_size = sizeof(int),
                       .callback = free_the_batch,
                       .user = &s};
    assert_ok(mproc_pool_map_async(s.p, &batch, &s.batch));
    assert_ok(mproc_pool_apply_async(s.p, &call, NULL, MPROC_NOWAIT));
    assert_ok(pthread_create(&dispatcher, NULL, dispatch, &s));
    await_sleep(&s.in_callback, &s.p->to_collector);
    for (int i = 0; i < 30; i++) {
        wait_for_one(&s, gate[1]);
    }
    assert_ok(mproc_queue_put(gate[0], NULL, 0, MPROC_FOREVER));
    pthread_join(dispatcher, NULL);
    assert_ok(mproc_pool_close(s.p));
    assert_ok(mproc_pool_join(s.p, TEST_BOUND));
    mproc_pool_free(s.p);
    mproc_queue_free(gate[0]);
    mproc_queue_free(gate[1]);
}

/* ---- two who sleep, a third who is stopped while it looks out ---------- */

struct sleeping_worker {
    const struct scene *s;
    uint32_t row;
    struct mpr_thread *_Atomic self;
};

static void *works(void *user)
{
    struct sleeping_worker *w = user;
    struct mpr_thread *self;
    assert_ok(mpr_self(&self));
    w->self = self;
    mpr_worker_work(w->s->p, self, row(w->s, w->row));
    return NULL;
}

static _Atomic int come;

static int waits_for_another(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg, (void)size, (void)reply;
    atomic_fetch_add(&come, 1);
    for (int i = 0; i < 10000 && atomic_load(&come) < 2; i++) {
        usleep(1000);
    }
    return 0;
}

/* One of the two is woken since there are two tasks, and wakes the other. */
static void who_is_woken_wakes_another_if_there_is_more(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, 0);
    struct sleeping_worker w[2] = {{&s, 0, NULL}, {&s, 1, NULL}};
    pthread_t thread[2];
    atomic_store(&s.p->lookout, 3);
    for (int i = 0; i < 2; i++) {
        assert_ok(pthread_create(&thread[i], NULL, works, &w[i]));
        await_sleep(&w[i].self, &s.p->to_workers);
    }
    mproc_call call = {.fn = waits_for_another};
    for (int i = 0; i < 2; i++) {
        assert_ok(mproc_pool_apply_async(s.p, &call, NULL, MPROC_NOWAIT));
    }
    for (int i = 0; i < 5000 && atomic_load(&come) < 2; i++) {
        usleep(1000);
    }
    assert_int_equal(atomic_load(&come), 2);
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
    }
    collect(&s);
    assert_int_equal(mpr_pool_pending(s.p->mine), 0);
    mpr_pool_end(s.p, s.self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_another_ended_is_not_in_doubt),
        cmocka_unit_test(what_the_dead_ended_is_told),
        cmocka_unit_test(a_sleep_in_a_callback_keeps_nobody_asleep),
        cmocka_unit_test(who_is_woken_wakes_another_if_there_is_more),
    };
    mpr_test_deep_sleep = true; /* a timed look would hide a lost wake-up */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
