/* SPDX-License-Identifier: MIT */
/*
 * What a caller does wrong is told, outputs are as they were: calls by who may
 * not, calls at the wrong time.
 */
#include "contract_support.h"

#include <limits.h>

/* ---- strangers -------------------------------------------------------- */

/* In a child of which none of the handles is. */
static int use_as_a_stranger(void *user)
{
    const struct all *all = user;
    void *const *h = all->handle;
    int code = 1234, out = 5;
    pid_t pid = 6;
    mproc_pool_info info;
    mproc_result *result = NULL;
    mproc_iter *iter = NULL;
    const mproc_call call = {.fn = reply_seven};
    const mproc_batch batch = {.fn = reply_seven};
    const mproc_waitable waitables[] = {mproc_waitable_process(h[PROCESS]),
                                        mproc_waitable_result(h[RESULT])};
    for (int i = 0; i < 2; i++) {
        assert_err(mproc_wait(&waitables[i], 1, NULL, MPROC_FOREVER),
                   MPROC_EPERM);
    }
    assert_err(mproc_process_start(h[PROCESS]), MPROC_EPERM);
    assert_err(mproc_process_join(h[PROCESS], MPROC_FOREVER), MPROC_EPERM);
    assert_err(mproc_process_exitcode(h[PROCESS], &code), MPROC_EPERM);
    assert_err(mproc_process_kill(h[PROCESS]), MPROC_EPERM);
    assert_err(mproc_process_terminate(h[PROCESS]), MPROC_EPERM);
    assert_err(mproc_process_interrupt(h[PROCESS]), MPROC_EPERM);
    assert_err(mproc_process_fd(h[PROCESS]), MPROC_EPERM);
    assert_err(mproc_pool_apply(h[POOL], &call, NULL, 0, MPROC_FOREVER),
               MPROC_EPERM);
    assert_err(mproc_pool_apply_async(h[POOL], &call, &result, MPROC_FOREVER),
               MPROC_EPERM);
    assert_err(mproc_pool_map(h[POOL], &batch, MPROC_FOREVER), MPROC_EPERM);
    assert_err(mproc_pool_map_async(h[POOL], &batch, &result), MPROC_EPERM);
    assert_err(mproc_pool_imap(h[POOL], &batch, &iter), MPROC_EPERM);
    assert_err(mproc_pool_imap_unordered(h[POOL], &batch, &iter), MPROC_EPERM);
    assert_err(mproc_iter_next(h[ITER], NULL, MPROC_FOREVER), MPROC_EPERM);
    assert_err(mproc_pool_close(h[POOL]), MPROC_EPERM);
    assert_err(mproc_pool_resize(h[POOL], 2), MPROC_EPERM);
    assert_err(mproc_pool_stats(h[POOL], &info), MPROC_EPERM);
    assert_int_equal(mproc_pool_worker_stats(h[POOL], NULL, 0), 0);
    assert_err(mproc_pool_terminate(h[POOL]), MPROC_EPERM);
    assert_err(mproc_pool_join(h[POOL], MPROC_FOREVER), MPROC_EPERM);
    assert_int_equal(mproc_pool_worker_pids(h[POOL], &pid, 1), 0);
    assert_err(mproc_result_wait(h[RESULT], MPROC_FOREVER), MPROC_EPERM);
    assert_err(mproc_result_cancel(h[RESULT]), MPROC_EPERM);
    assert_err(mproc_result_get(h[RESULT], &out, 4, NULL, MPROC_FOREVER),
               MPROC_EPERM);
    assert_false(mproc_result_ready(h[RESULT]));
    assert_false(mproc_result_successful(h[RESULT]));
    assert_null(mproc_result_outcome(h[RESULT]));
    assert_true(code == 1234 && out == 5 && pid == 6 && result == NULL &&
                iter == NULL);
    mproc_process_free(h[PROCESS]);
    mproc_pool_free(h[POOL]);
    mproc_result_free(h[RESULT]);
    mproc_iter_free(h[ITER]);
    return 0;
}

static void strangers_to_a_handle_are_refused(void **state)
{
    (void)state;
    struct all all;
    make_all(&all);
    assert_int_equal(test_wait_exit(test_fork(use_as_a_stranger, &all)), 0);
    expect_all_live(&all);
    free_all(&all);
}

/* ---- slips ------------------------------------------------------------ */

static void absurd_enums_are_refused(void **state)
{
    (void)state;
    mproc_process *p = NULL;
    static const int odd[] = {-1, INT_MIN, MPROC_START_SPAWN + 1, INT_MAX};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        mproc_process_opts opts = {.start = odd[i]};
        assert_err(mproc_process_new(&p, say_nothing, NULL, &opts),
                   MPROC_EINVAL);
    }
    assert_null(p);
}

static void slips_with_processes_are_told(void **state)
{
    (void)state;
    mproc_process *p;
    int code = 1234;
    assert_ok(mproc_process_new(&p, say_nothing, NULL, NULL));
    assert_err(mproc_process_join(p, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_process_exitcode(p, &code), MPROC_EINVAL);
    assert_int_equal(code, 1234);
    assert_ok(mproc_process_start(p));
    assert_err(mproc_process_start(p), MPROC_EINVAL);
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_err(mproc_process_start(p), MPROC_EINVAL);
    assert_err(mproc_process_exitcode(p, NULL), MPROC_EINVAL);
    assert_ok(mproc_process_exitcode(p, &code));
    assert_int_equal(code, 0);
    mproc_process_free(p);
    mproc_process *me = mproc_process_current();
    assert_err(mproc_process_join(me, MPROC_FOREVER), MPROC_EDEADLK);
    assert_err(mproc_process_start(me), MPROC_EPERM);
    mproc_process_free(me);
    assert_ptr_equal(mproc_process_current(), me);
    assert_string_equal(mproc_process_name(me), "MainProcess");
    assert_int_equal(mproc_process_parent_pid(), 0);
    assert_int_equal(mproc_active_children(NULL, SIZE_MAX), 0);
}

static void slips_with_locks_are_told(void **state)
{
    (void)state;
    mproc_lock *lock;
    mproc_rlock *rlock;
    mproc_semaphore *bounded;
    mproc_condition *c;
    mproc_barrier *none = NULL;
    assert_err(mproc_barrier_new(&none, 0, NULL), MPROC_EINVAL);
    assert_null(none);
    assert_ok(mproc_lock_new(&lock));
    assert_ok(mproc_rlock_new(&rlock));
    assert_ok(mproc_condition_new(&c, NULL));
    assert_ok(mproc_semaphore_new(&bounded, 0,
                                  &(mproc_semaphore_opts){.bounded = 1}));
    assert_err(mproc_lock_release(lock), MPROC_EINVAL);
    assert_err(mproc_rlock_release(rlock), MPROC_EPERM);
    assert_err(mproc_semaphore_release(bounded), MPROC_EINVAL);
    assert_err(mproc_semaphore_acquire(bounded, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_err(mproc_condition_release(c), MPROC_EPERM);
    assert_err(mproc_condition_wait(c, MPROC_FOREVER), MPROC_EPERM);
    assert_err(mproc_condition_wait_for(c, never_asked, NULL, MPROC_FOREVER),
               MPROC_EPERM);
    assert_err(mproc_condition_wait_for(c, NULL, NULL, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_condition_notify(c, 1), MPROC_EPERM);
    assert_err(mproc_condition_notify_all(c), MPROC_EPERM);
    int ran = 0;
    MPROC_WITH(c) {
        ran += mproc_condition_notify(c, 0) == 0;
        ran += mproc_condition_notify(c, UINT_MAX) == 0;
    }
    assert_int_equal(ran, 2);
    mproc_lock_free(lock);
    MPROC_WITH(lock) {
        ran++;
    }
    assert_int_equal(ran, 2); /* skipped */
    mproc_rlock_free(rlock);
    mproc_condition_free(c);
    mproc_semaphore_free(bounded);
}

static void slips_with_queues_and_pipes_are_told(void **state)
{
    (void)state;
    mproc_queue *q;
    mproc_connection *in, *out;
    char buf[8] = "abc";
    size_t size = 77;
    assert_ok(mproc_queue_new(&q, &(mproc_queue_opts){.joinable = 1}));
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    assert_ok(mproc_queue_put(q, NULL, 0, MPROC_NOWAIT));
    assert_ok(mproc_queue_get(q, NULL, 0, &size, MPROC_NOWAIT));
    assert_int_equal(size, 0);
    assert_ok(mproc_queue_task_done(q));
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    assert_err(mproc_queue_put_priority(q, 0, "x", 1, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_queue_get_malloc(q, NULL, &size, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_ok(mproc_queue_shutdown(q, false));
    assert_ok(mproc_queue_shutdown(q, false));
    size = 77;
    assert_err(mproc_queue_get(q, buf, 8, &size, MPROC_FOREVER),
               MPROC_ESHUTDOWN);
    assert_err(MPROC_PUT(q, int, 1), MPROC_ESHUTDOWN);
    mproc_queue_free(q);
    assert_ok(mproc_pipe_new(&in, &out, &(mproc_pipe_opts){.simplex = 1}));
    assert_err(mproc_connection_send(in, "x", 1, MPROC_FOREVER), MPROC_EPERM);
    assert_err(mproc_connection_recv(out, buf, 8, &size, MPROC_FOREVER),
               MPROC_EPERM);
    assert_err(mproc_connection_poll(out, MPROC_FOREVER), MPROC_EPERM);
    assert_ok(mproc_connection_close(out));
    assert_err(mproc_connection_recv(in, buf, 8, &size, MPROC_FOREVER),
               MPROC_EOF);
    assert_ok(mproc_connection_poll(in, MPROC_FOREVER));
    assert_err(mproc_connection_send(out, "x", 1, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_connection_close(out), MPROC_EINVAL);
    assert_ok(mproc_connection_close(in));
    assert_string_equal(buf, "abc");
    assert_int_equal(size, 77);
}

static void slips_with_results_are_told(void **state)
{
    (void)state;
    mproc_pool *p;
    mproc_result *r;
    int in[2] = {4, 5}, out = 1234;
    size_t size = 77;
    assert_ok(mproc_pool_new(&p, &(mproc_pool_opts){.workers = 1}));
    assert_err(mproc_pool_join(p, MPROC_FOREVER), MPROC_EINVAL);
    const mproc_call call = {.fn = reply_seven};
    assert_ok(mproc_pool_apply_async(p, &call, &r, TEST_BOUND));
    assert_err(mproc_result_get(r, NULL, 4, NULL, TEST_BOUND), MPROC_EINVAL);
    assert_err(mproc_result_get(r, &out, 3, NULL, TEST_BOUND), MPROC_EMSGSIZE);
    assert_err(mproc_result_get(r, &out, 3, &size, TEST_BOUND), MPROC_EMSGSIZE);
    assert_int_equal(size, 4);
    assert_int_equal(out, 1234);
    mproc_result_free(r);
    const mproc_batch batch = {
        .fn = get_four, .in = in, .in_size = sizeof *in, .count = 2};
    assert_ok(mproc_pool_map_async(p, &batch, &r));
    size = 77;
    assert_ok(mproc_result_get(r, &out, 4, &size, TEST_BOUND));
    assert_int_equal(size, 0); /* a batch has its replies elsewhere */
    assert_int_equal(out, 1234);
    mproc_result_free(r);
    assert_err(mproc_pool_apply(p, &call, &out, 5, TEST_BOUND), MPROC_EMSGSIZE);
    assert_int_equal(out, 1234);
    assert_ok(mproc_pool_close(p));
    assert_ok(mproc_pool_close(p));
    r = NULL;
    assert_err(mproc_pool_apply(p, &call, &out, 4, TEST_BOUND),
               MPROC_ESHUTDOWN);
    assert_err(mproc_pool_apply_async(p, &call, &r, TEST_BOUND),
               MPROC_ESHUTDOWN);
    assert_err(mproc_pool_map(p, &batch, TEST_BOUND), MPROC_ESHUTDOWN);
    assert_null(r);
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    mproc_pool_free(p);
}

static void outside_of_a_task_there_is_none(void **state)
{
    (void)state;
    assert_false(mproc_task_canceled());
    assert_null(mproc_reply_reserve(NULL, 1));
    assert_err(mproc_reply_set(NULL, "x", 1), MPROC_EINVAL);
    assert_int_equal(mproc_reply_fail(NULL, 42, "%d", 1), 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_to_a_handle_are_refused),
        cmocka_unit_test(absurd_enums_are_refused),
        cmocka_unit_test(slips_with_processes_are_told),
        cmocka_unit_test(slips_with_locks_are_told),
        cmocka_unit_test(slips_with_queues_and_pipes_are_told),
        cmocka_unit_test(slips_with_results_are_told),
        cmocka_unit_test(outside_of_a_task_there_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
