/* SPDX-License-Identifier: MIT */
/* What is no handle of the type is told by every call, and not harmed. */
#include "contract_support.h"

#include <stdlib.h>
#include <string.h>

static void refuse_lock(void *h)
{
    assert_err(mproc_lock_acquire(h, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_lock_release(h), MPROC_EINVAL);
    assert_false(mproc_lock_locked(h));
    mproc_condition *out = NULL;
    if (h != NULL) {
        assert_err(mproc_condition_new(&out, h), MPROC_EINVAL);
    }
    assert_null(out);
}

static void refuse_rlock(void *h)
{
    assert_err(mproc_rlock_acquire(h, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_rlock_release(h), MPROC_EINVAL);
    assert_false(mproc_rlock_locked(h));
}

static void refuse_semaphore(void *h)
{
    assert_err(mproc_semaphore_acquire(h, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_semaphore_release(h), MPROC_EINVAL);
    assert_int_equal(mproc_semaphore_value(h), 0);
}

static void refuse_waiting(mproc_waitable what)
{
    size_t ready = 77;
    assert_err(mproc_wait(&what, 1, &ready, MPROC_FOREVER), MPROC_EINVAL);
    assert_int_equal(ready, 77);
}

static void refuse_event(void *h)
{
    refuse_waiting(mproc_waitable_event(h));
    assert_err(mproc_event_set(h), MPROC_EINVAL);
    assert_err(mproc_event_clear(h), MPROC_EINVAL);
    assert_err(mproc_event_wait(h, MPROC_FOREVER), MPROC_EINVAL);
    assert_false(mproc_event_is_set(h));
}

static void refuse_condition(void *h)
{
    assert_err(mproc_condition_acquire(h, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_condition_release(h), MPROC_EINVAL);
    assert_err(mproc_condition_wait(h, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_condition_wait_for(h, never_asked, NULL, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_condition_notify(h, 1), MPROC_EINVAL);
    assert_err(mproc_condition_notify_all(h), MPROC_EINVAL);
}

static void refuse_barrier(void *h)
{
    unsigned index = 77;
    assert_err(mproc_barrier_wait(h, &index, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_barrier_abort(h), MPROC_EINVAL);
    assert_err(mproc_barrier_reset(h), MPROC_EINVAL);
    assert_int_equal(mproc_barrier_parties(h), 0);
    assert_int_equal(mproc_barrier_n_waiting(h), 0);
    assert_false(mproc_barrier_broken(h));
    assert_int_equal(index, 77);
}

static void refuse_queue(void *h)
{
    char buf[4] = "abc";
    mproc_message m = {.data = buf, .size = 3};
    void *data = buf;
    size_t size = 77;
    assert_err(mproc_queue_put(h, "x", 1, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_queue_putf(h, MPROC_FOREVER, "%d", 1), MPROC_EINVAL);
    assert_err(mproc_queue_put_priority(h, 1, "x", 1, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_queue_put_many(h, "x", 1, 1, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_queue_get_many(h, buf, 1, 4, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_queue_loan(h, &m, 4, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_queue_send(h, &m), MPROC_EINVAL);
    assert_err(mproc_queue_take(h, &m, MPROC_FOREVER), MPROC_EINVAL);
    m.private_[0] = h;
    mproc_message_release(&m);
    assert_ptr_equal(m.data, buf);
    assert_err(mproc_queue_get(h, buf, 4, &size, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_queue_get_malloc(h, &data, &size, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_queue_task_done(h), MPROC_EINVAL);
    assert_err(mproc_queue_join(h, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_queue_shutdown(h, true), MPROC_EINVAL);
    assert_err(mproc_queue_fd(h), MPROC_EINVAL);
    refuse_waiting(mproc_waitable_queue(h));
    assert_int_equal(mproc_queue_qsize(h), 0);
    assert_false(mproc_queue_empty(h));
    assert_false(mproc_queue_full(h));
    assert_string_equal(buf, "abc");
    assert_ptr_equal(data, buf);
    assert_int_equal(size, 77);
}

static void refuse_connection(void *h)
{
    char buf[4] = "abc";
    void *data = buf;
    size_t size = 77;
    pid_t pid = 5;
    assert_err(mproc_connection_send(h, "x", 1, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_connection_recv(h, buf, 4, &size, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_connection_recv_malloc(h, &data, &size, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_connection_poll(h, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_connection_fd(h), MPROC_EINVAL);
    refuse_waiting(mproc_waitable_connection(h));
    assert_err(mproc_connection_close(h), MPROC_EINVAL);
    assert_err(mproc_connection_peer_pid(h, &pid), MPROC_EINVAL);
    assert_string_equal(buf, "abc");
    assert_ptr_equal(data, buf);
    assert_int_equal(size, 77);
    assert_int_equal(pid, 5);
}

static void refuse_process(void *h)
{
    int code = 1234;
    assert_err(mproc_process_start(h), MPROC_EINVAL);
    assert_err(mproc_process_join(h, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_process_exitcode(h, &code), MPROC_EINVAL);
    assert_err(mproc_process_terminate(h), MPROC_EINVAL);
    assert_err(mproc_process_kill(h), MPROC_EINVAL);
    assert_err(mproc_process_interrupt(h), MPROC_EINVAL);
    assert_err(mproc_process_fd(h), MPROC_EINVAL);
    refuse_waiting(mproc_waitable_process(h));
    assert_false(mproc_process_is_alive(h));
    assert_false(mproc_process_daemon(h));
    assert_int_equal(mproc_process_pid(h), 0);
    assert_string_equal(mproc_process_name(h), "");
    assert_int_equal(code, 1234);
}

static void refuse_pool(void *h)
{
    int out = 1234, in = 1, status = 5678;
    pid_t pid = 5;
    mproc_iter *iter = NULL;
    mproc_pool_info info;
    mproc_result *result = NULL;
    const mproc_call call = {.fn = reply_seven};
    const mproc_batch batch = {.fn = reply_seven,
                               .in = &in,
                               .in_size = sizeof in,
                               .count = 1,
                               .out = &out,
                               .out_size = sizeof out,
                               .status = &status};
    assert_err(mproc_pool_apply(h, &call, &out, sizeof out, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_pool_apply_async(h, &call, &result, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_pool_map(h, &batch, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_pool_map_async(h, &batch, &result), MPROC_EINVAL);
    assert_err(mproc_pool_imap(h, &batch, &iter), MPROC_EINVAL);
    assert_err(mproc_pool_imap_unordered(h, &batch, &iter), MPROC_EINVAL);
    assert_null(iter);
    assert_err(mproc_pool_close(h), MPROC_EINVAL);
    assert_err(mproc_pool_resize(h, 2), MPROC_EINVAL);
    assert_err(mproc_pool_stats(h, &info), MPROC_EINVAL);
    assert_int_equal(mproc_pool_worker_stats(h, NULL, 0), 0);
    assert_err(mproc_pool_terminate(h), MPROC_EINVAL);
    assert_err(mproc_pool_join(h, MPROC_FOREVER), MPROC_EINVAL);
    assert_int_equal(mproc_pool_worker_pids(h, &pid, 1), 0);
    assert_null(result);
    assert_int_equal(out, 1234);
    assert_int_equal(status, 5678);
    assert_int_equal(pid, 5);
}

static void refuse_result(void *h)
{
    int out = 1234;
    size_t size = 77;
    assert_err(mproc_result_get(h, &out, sizeof out, &size, MPROC_FOREVER),
               MPROC_EINVAL);
    assert_err(mproc_result_get(h, NULL, 0, NULL, MPROC_FOREVER), MPROC_EINVAL);
    assert_err(mproc_result_wait(h, MPROC_FOREVER), MPROC_EINVAL);
    refuse_waiting(mproc_waitable_result(h));
    assert_err(mproc_result_cancel(h), MPROC_EINVAL);
    assert_false(mproc_result_ready(h));
    assert_false(mproc_result_successful(h));
    assert_null(mproc_result_outcome(h));
    assert_int_equal(out, 1234);
    assert_int_equal(size, 77);
}

static void refuse_iter(void *h)
{
    const mproc_outcome *outcome = NULL;
    assert_err(mproc_iter_next(h, &outcome, MPROC_FOREVER), MPROC_EINVAL);
    assert_null(outcome);
}

static void (*const refusals[KINDS])(void *h) = {
    refuse_lock,      refuse_rlock,   refuse_semaphore, refuse_event,
    refuse_condition, refuse_barrier, refuse_queue,     refuse_connection,
    refuse_process,   refuse_pool,    refuse_result,    refuse_iter,
};

/* All calls of all kinds, the frees too; of `but` it may be a handle. */
static void refused_by_all(void *h, int but)
{
    for (int kind = 0; kind < KINDS; kind++) {
        if (kind != but) {
            refusals[kind](h);
            frees[kind](h);
        }
    }
}

static void handles_of_another_type_are_refused(void **state)
{
    (void)state;
    struct all all;
    make_all(&all);
    for (int kind = 0; kind < KINDS; kind++) {
        refused_by_all(all.handle[kind], kind);
    }
    refused_by_all(all.peer, CONNECTION);
    expect_all_live(&all);
    free_all(&all);
}

static void addresses_inside_of_objects_are_refused(void **state)
{
    (void)state;
    struct all all;
    make_all(&all);
    for (int kind = 0; kind < KINDS; kind++) {
        static const int offsets[] = {-1, 1, 8, 16, 32, 63};
        for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
            refused_by_all((char *)all.handle[kind] + offsets[i], KINDS);
        }
    }
    expect_all_live(&all);
    free_all(&all);
}

static void memory_of_any_kind_is_refused(void **state)
{
    (void)state;
    struct all all;
    _Alignas(64) char stack[1024] = "";
    void *heap = calloc(1, 4096), *aligned = NULL;
    assert_non_null(heap);
    assert_int_equal(posix_memalign(&aligned, 4096, 4096), 0);
    memset(aligned, 0x4d, 4096);
    char *shared[] = {mproc_calloc(1, 64), mproc_calloc(1, 4096),
                      mproc_calloc(1, 100000)};
    make_all(&all);
    refused_by_all(NULL, KINDS);
    refused_by_all(stack, KINDS);
    refused_by_all(stack + 1, KINDS);
    refused_by_all(heap, KINDS);
    refused_by_all(aligned, KINDS);
    refused_by_all((void *)(uintptr_t)refuse_lock, KINDS);
    refused_by_all((void *)(uintptr_t)64, KINDS);
    refused_by_all((void *)(UINTPTR_MAX - 63), KINDS);
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
        assert_non_null(shared[i]);
        refused_by_all(shared[i], KINDS);
        refused_by_all(shared[i] + 8, KINDS);
        memset(shared[i], 0xff, 64);
        refused_by_all(shared[i], KINDS);
        mproc_free(shared[i]);
        refused_by_all(shared[i], KINDS);
    }
    expect_all_live(&all);
    free_all(&all);
    free(aligned);
    free(heap);
}

static void what_was_freed_is_refused(void **state)
{
    (void)state;
    struct all all;
    make_all(&all);
    expect_all_live(&all);
    free_all(&all);
    for (int kind = 0; kind < KINDS; kind++) {
        refused_by_all(all.handle[kind], KINDS);
    }
    refused_by_all(all.peer, KINDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handles_of_another_type_are_refused),
        cmocka_unit_test(addresses_inside_of_objects_are_refused),
        cmocka_unit_test(memory_of_any_kind_is_refused),
        cmocka_unit_test(what_was_freed_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
