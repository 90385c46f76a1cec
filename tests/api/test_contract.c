/* SPDX-License-Identifier: MIT */
/*
 * What holds for every call alike: what is no handle is told, outputs are as
 * they were after a failure, durations and sizes may be absurd, options may be
 * older or newer than the library.
 */
#include "test.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The sanitizers must let memory be refused, and a fork beside threads be. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1:die_after_fork=0";
}

/* ---- one handle of each type ------------------------------------------ */

enum kind {
    LOCK,
    RLOCK,
    SEMAPHORE,
    EVENT,
    CONDITION,
    BARRIER,
    QUEUE,
    CONNECTION,
    PROCESS,
    POOL,
    RESULT,
    ITER,
    KINDS
};

struct all {
    void *handle[KINDS];
    mproc_connection *peer;
};

static int say_nothing(void *arg)
{
    (void)arg;
    return 0;
}

static int reply_seven(const void *arg, size_t size, mproc_reply *reply)
{
    int seven = 7;
    (void)arg;
    (void)size;
    return mproc_reply_set(reply, &seven, sizeof seven);
}

static void make_all(struct all *all)
{
    mproc_lock *lock;
    mproc_rlock *rlock;
    mproc_semaphore *semaphore;
    mproc_event *event;
    mproc_condition *condition;
    mproc_barrier *barrier;
    mproc_queue *queue;
    mproc_connection *connection;
    mproc_process *process;
    mproc_pool *pool;
    mproc_result *result;
    mproc_iter *iter;
    const mproc_batch none = {.fn = reply_seven};
    const mproc_pool_opts one = {.workers = 1};
    const mproc_call call = {.fn = reply_seven};
    assert_ok(mproc_lock_new(&lock));
    assert_ok(mproc_rlock_new(&rlock));
    assert_ok(mproc_semaphore_new(&semaphore, 1, NULL));
    assert_ok(mproc_event_new(&event));
    assert_ok(mproc_condition_new(&condition, NULL));
    assert_ok(mproc_barrier_new(&barrier, 2, NULL));
    assert_ok(mproc_queue_new(&queue, &(mproc_queue_opts){.joinable = 1}));
    assert_ok(mproc_pipe_new(&connection, &all->peer, NULL));
    assert_ok(mproc_process_new(&process, say_nothing, NULL, NULL));
    assert_ok(mproc_pool_new(&pool, &one));
    assert_ok(mproc_pool_apply_async(pool, &call, &result, TEST_BOUND));
    assert_ok(mproc_pool_imap(pool, &none, &iter));
    void *handles[KINDS] = {lock,      rlock,   semaphore, event,
                            condition, barrier, queue,     connection,
                            process,   pool,    result,    iter};
    memcpy(all->handle, handles, sizeof handles);
}

/* Each is what it was: nothing harmed it. */
static void expect_all_live(const struct all *all)
{
    int seven = 0;
    void *const *h = all->handle;
    assert_ok(mproc_lock_acquire(h[LOCK], TEST_BOUND));
    assert_ok(mproc_lock_release(h[LOCK]));
    assert_ok(mproc_rlock_acquire(h[RLOCK], TEST_BOUND));
    assert_ok(mproc_rlock_release(h[RLOCK]));
    assert_int_equal(mproc_semaphore_value(h[SEMAPHORE]), 1);
    assert_ok(mproc_event_set(h[EVENT]));
    assert_ok(mproc_event_wait(h[EVENT], MPROC_NOWAIT));
    assert_ok(mproc_event_clear(h[EVENT]));
    assert_ok(mproc_condition_acquire(h[CONDITION], TEST_BOUND));
    assert_ok(mproc_condition_notify_all(h[CONDITION]));
    assert_ok(mproc_condition_release(h[CONDITION]));
    assert_int_equal(mproc_barrier_parties(h[BARRIER]), 2);
    assert_int_equal(mproc_barrier_n_waiting(h[BARRIER]), 0);
    assert_false(mproc_barrier_broken(h[BARRIER]));
    assert_int_equal(mproc_queue_qsize(h[QUEUE]), 0);
    assert_ok(mproc_queue_join(h[QUEUE], MPROC_NOWAIT));
    assert_err(mproc_connection_poll(h[CONNECTION], MPROC_NOWAIT),
               MPROC_ETIMEDOUT);
    assert_string_not_equal(mproc_process_name(h[PROCESS]), "");
    assert_false(mproc_process_is_alive(h[PROCESS]));
    assert_int_equal(mproc_pool_worker_pids(h[POOL], NULL, 0), 1);
    assert_ok(
        mproc_result_get(h[RESULT], &seven, sizeof seven, NULL, TEST_BOUND));
    assert_int_equal(seven, 7);
    assert_true(mproc_result_successful(h[RESULT]));
    assert_err(mproc_iter_next(h[ITER], NULL, TEST_BOUND), MPROC_EOF);
}

typedef void free_fn(void *handle);

static void free_lock(void *handle)
{
    mproc_lock_free(handle);
}

static void free_rlock(void *handle)
{
    mproc_rlock_free(handle);
}

static void free_semaphore(void *handle)
{
    mproc_semaphore_free(handle);
}

static void free_event(void *handle)
{
    mproc_event_free(handle);
}

static void free_condition(void *handle)
{
    mproc_condition_free(handle);
}

static void free_barrier(void *handle)
{
    mproc_barrier_free(handle);
}

static void free_queue(void *handle)
{
    mproc_queue_free(handle);
}

static void close_connection(void *handle)
{
    (void)mproc_connection_close(handle);
}

static void free_process(void *handle)
{
    mproc_process_free(handle);
}

static void free_pool(void *handle)
{
    mproc_pool_free(handle);
}

static void free_result(void *handle)
{
    mproc_result_free(handle);
}

static void free_iter(void *handle)
{
    mproc_iter_free(handle);
}

static free_fn *const frees[KINDS] = {
    free_lock,      free_rlock,   free_semaphore, free_event,
    free_condition, free_barrier, free_queue,     close_connection,
    free_process,   free_pool,    free_result,    free_iter,
};

static void free_all(struct all *all)
{
    for (int kind = 0; kind < KINDS; kind++) {
        frees[kind](all->handle[kind]);
    }
    assert_ok(mproc_connection_close(all->peer));
}

/* ---- every call of a type on what is no handle of it ------------------ */

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

static bool never_asked(void *user)
{
    (void)user;
    fail();
    return true;
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

/* ---- news and texts --------------------------------------------------- */

static void every_int_has_a_name_and_a_text(void **state)
{
    (void)state;
    static const int odd[] = {INT_MIN, INT_MIN + 1, INT_MAX, -20000, 2};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        assert_string_equal(mproc_error_name(odd[i]), "MPROC_E?");
        assert_string_equal(mproc_strerror(odd[i]), "unknown error");
    }
#define EXPECT(name, value, text)                       \
    assert_int_equal(name, value);                      \
    assert_string_equal(mproc_error_name(name), #name); \
    assert_string_equal(mproc_strerror(value), text);
    MPROC_ERROR_MAP(EXPECT)
#undef EXPECT
}

/* ---- deadlines -------------------------------------------------------- */

/* Every call that may wait, where it would have to, with this deadline. */
static void expect_all_time_out(mproc_deadline until)
{
    mproc_lock *lock;
    mproc_semaphore *semaphore;
    mproc_event *event;
    mproc_condition *condition;
    mproc_barrier *barrier;
    mproc_queue *queue;
    mproc_connection *a, *b;
    char byte;
    assert_ok(mproc_lock_new(&lock));
    assert_ok(mproc_semaphore_new(&semaphore, 0, NULL));
    assert_ok(mproc_event_new(&event));
    assert_ok(mproc_condition_new(&condition, lock));
    assert_ok(mproc_barrier_new(&barrier, 2, NULL));
    assert_ok(mproc_queue_new(
        &queue, &(mproc_queue_opts){.maxsize = 1, .joinable = 1}));
    assert_ok(mproc_pipe_new(&a, &b, NULL));
    assert_ok(mproc_lock_acquire(lock, until)); /* it is free */
    assert_err(mproc_lock_acquire(lock, until), MPROC_ETIMEDOUT);
    assert_err(mproc_condition_acquire(condition, until), MPROC_ETIMEDOUT);
    assert_err(mproc_condition_wait(condition, until), MPROC_ETIMEDOUT);
    assert_err(mproc_semaphore_acquire(semaphore, until), MPROC_ETIMEDOUT);
    assert_err(mproc_event_wait(event, until), MPROC_ETIMEDOUT);
    assert_err(mproc_barrier_wait(barrier, NULL, until), MPROC_ETIMEDOUT);
    assert_err(mproc_queue_get(queue, &byte, 1, NULL, until), MPROC_EEMPTY);
    assert_ok(mproc_queue_put(queue, "x", 1, until));
    assert_err(mproc_queue_put(queue, "x", 1, until), MPROC_EFULL);
    assert_err(mproc_queue_join(queue, until), MPROC_ETIMEDOUT);
    assert_ok(mproc_queue_get(queue, &byte, 1, NULL, until));
    assert_ok(mproc_queue_task_done(queue));
    assert_ok(mproc_queue_join(queue, until));
    const mproc_waitable waitables[] = {
        {{0}}, mproc_waitable_event(event), mproc_waitable_connection(a)};
    assert_err(mproc_wait(waitables, 3, NULL, until), MPROC_ETIMEDOUT);
    assert_err(mproc_wait(waitables, 1, NULL, until), MPROC_ETIMEDOUT);
    assert_err(mproc_wait(NULL, 0, NULL, until), MPROC_ETIMEDOUT);
    assert_err(mproc_connection_poll(a, until), MPROC_ETIMEDOUT);
    assert_err(mproc_connection_recv(a, &byte, 1, NULL, until), MPROC_EEMPTY);
    assert_ok(mproc_connection_send(b, "x", 1, until));
    assert_ok(mproc_connection_poll(a, until));
    assert_ok(mproc_wait(waitables, 3, NULL, until));
    mproc_condition_free(condition);
    mproc_lock_free(lock);
    mproc_semaphore_free(semaphore);
    mproc_event_free(event);
    mproc_barrier_free(barrier);
    mproc_queue_free(queue);
    assert_ok(mproc_connection_close(a));
    assert_ok(mproc_connection_close(b));
}

static void durations_that_are_none_mean_now(void **state)
{
    (void)state;
    expect_all_time_out(MPROC_NOWAIT);
    expect_all_time_out(mproc_in_s(0));
    expect_all_time_out(mproc_in_ms(-1));
    expect_all_time_out(mproc_in_s(-HUGE_VAL));
    expect_all_time_out(mproc_in_ms((double)NAN));
    expect_all_time_out(mproc_in_s(-1e300));
    expect_all_time_out(mproc_deadline_at_(0));
    expect_all_time_out(mproc_deadline_at_(-5));
}

static void one_budget_serves_many_calls(void **state)
{
    (void)state;
    mproc_deadline until = mproc_in_ms(20);
    int64_t at = until.at_ns;
    expect_all_time_out(until);
    assert_int_equal(until.at_ns, at);
    expect_all_time_out(until); /* it has passed: none of these waits */
}

static void durations_too_large_mean_for_ever(void **state)
{
    (void)state;
    assert_int_equal(mproc_in_s(HUGE_VAL).at_ns, MPROC_FOREVER.at_ns);
    assert_int_equal(mproc_in_ms(1e300).at_ns, MPROC_FOREVER.at_ns);
    assert_int_equal(mproc_in_s(1e12).at_ns, MPROC_FOREVER.at_ns);
}

/* ---- sizes ------------------------------------------------------------ */

static int get_four(const void *arg, size_t size, mproc_reply *reply)
{
    return mproc_reply_set(reply, arg, size);
}

static void absurd_sizes_of_processes_and_pools_are_refused(void **state)
{
    (void)state;
    char byte = 1;
    mproc_process *process = NULL;
    mproc_pool *pool = NULL;
    const mproc_process_opts copied = {.arg_size = SIZE_MAX};
    assert_err(mproc_process_new(&process, say_nothing, &byte, &copied),
               MPROC_ENOMEM);
    assert_null(process);
    mproc_pool_opts opts = {
        .workers = 1, .initializer = say_nothing, .initializer_arg = &byte};
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        opts.initializer_arg_size = sizes[i];
        assert_err(mproc_pool_new(&pool, &opts), MPROC_ENOMEM);
    }
    assert_null(pool);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody was forked */
}

static void absurd_sizes_of_batches_are_refused(void **state)
{
    (void)state;
    int in = 1, out = 1234;
    mproc_pool *pool;
    mproc_result *result = NULL;
    mproc_iter *iter = NULL;
    const size_t most = SIZE_MAX, half = SIZE_MAX / 2, part = SIZE_MAX / 16 + 1;
    const struct {
        size_t in_size, out_size, count, chunk;
    } odd[] = {
        {most, 4, 1, 0},        {most - 64, 4, 1, 0},    {half + 1, 4, 1, 0},
        {half, half, 1, 0},     {4, most, 1, 0},         {4, most - 100, 1, 0},
        {half, half + 2, 1, 0}, {0, 0, part, 1},         {0, 0, part, 0},
        {0, 0, part * 2, 1},    {0, 0, part * 4 - 1, 1}, {1, 1, part, most},
    };
    assert_ok(mproc_pool_new(&pool, &(mproc_pool_opts){.workers = 1}));
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        mproc_batch batch = {.fn = get_four,
                             .in = &in,
                             .in_size = odd[i].in_size,
                             .count = odd[i].count,
                             .out = &out,
                             .out_size = odd[i].out_size,
                             .chunk = odd[i].chunk};
        assert_true(mproc_pool_map_async(pool, &batch, &result) < 0);
        assert_true(mproc_pool_map(pool, &batch, TEST_BOUND) < 0);
        assert_true(mproc_pool_imap(pool, &batch, &iter) < 0);
    }
    assert_true(result == NULL && iter == NULL);
    assert_int_equal(out, 1234);
    mproc_batch good = {.fn = get_four,
                        .in = &in,
                        .in_size = sizeof in,
                        .count = 1,
                        .out = &out,
                        .out_size = sizeof out,
                        .chunk = SIZE_MAX,
                        .window = SIZE_MAX};
    assert_ok(mproc_pool_map(pool, &good, TEST_BOUND));
    assert_int_equal(out, 1);
    assert_ok(mproc_pool_imap(pool, &good, &iter));
    assert_ok(mproc_iter_next(iter, NULL, TEST_BOUND));
    assert_err(mproc_iter_next(iter, NULL, TEST_BOUND), MPROC_EOF);
    mproc_iter_free(iter);
    mproc_pool_free(pool);
}

static void absurd_sizes_of_memory_are_refused(void **state)
{
    (void)state;
    mproc_heap_info before, after;
    char *text = mproc_strdup("kept");
    assert_ok(mproc_heap_stats(&before));
    for (size_t less = 0; less < 200; less++) {
        assert_null(mproc_alloc(SIZE_MAX - less));
        assert_null(mproc_calloc(1, SIZE_MAX - less));
        assert_null(mproc_realloc(text, SIZE_MAX - less));
        assert_null(mproc_alloc(SIZE_MAX / 2 + 1 - less));
    }
    assert_null(mproc_calloc(SIZE_MAX, 2));
    assert_null(mproc_strdup(NULL));
    assert_null(mproc_realloc(text + 1, 10));
    assert_null(mproc_realloc(&before, 10));
    mproc_free(text + 1);
    mproc_free(&before);
    mproc_free(NULL);
    assert_string_equal(text, "kept");
    assert_ok(mproc_heap_stats(&after));
    assert_int_equal(after.blocks, before.blocks);
    mproc_free(text);
}

static void no_bytes_are_memory_too(void **state)
{
    (void)state;
    void *none = mproc_alloc(0), *zero = mproc_calloc(0, 8);
    assert_non_null(none);
    assert_non_null(zero);
    none = mproc_realloc(none, 100);
    assert_non_null(none);
    none = mproc_realloc(none, 0);
    assert_non_null(none);
    mproc_free(none);
    mproc_free(zero);
}

static void a_message_of_an_absurd_size_harms_nothing(void **state)
{
    (void)state;
    mproc_queue *queue;
    mproc_connection *a, *b;
    char byte = 'x';
    assert_ok(
        mproc_queue_new(&queue, &(mproc_queue_opts){.maxsize = SIZE_MAX}));
    assert_ok(mproc_pipe_new(&a, &b, NULL));
    for (int i = 0; i < 2; i++) { /* also when there is something in it */
        assert_err(mproc_queue_put(queue, &byte, SIZE_MAX, TEST_BOUND),
                   MPROC_ENOMEM);
        assert_err(mproc_queue_put(queue, &byte, SIZE_MAX / 2, TEST_BOUND),
                   MPROC_ENOMEM);
        assert_ok(mproc_queue_put(queue, &byte, 1, MPROC_NOWAIT));
    }
    assert_err(mproc_connection_send(a, &byte, SIZE_MAX, TEST_BOUND),
               MPROC_ENOMEM);
    assert_int_equal(mproc_queue_qsize(queue), 2);
    assert_false(mproc_queue_full(queue));
    byte = 0;
    assert_ok(
        mproc_queue_get(queue, &byte, SIZE_MAX, &(size_t){0}, MPROC_NOWAIT));
    assert_int_equal(byte, 'x');
    mproc_queue_free(queue);
    assert_ok(mproc_connection_close(a));
    assert_ok(mproc_connection_close(b));
}

/* ---- options of any age ----------------------------------------------- */

/* Options as a later version may have them: `set` is of the unknown. */
static void *later(const void *known, size_t size, char set)
{
    static _Alignas(16) char longer[512];
    assert_true(size + 64 <= sizeof longer);
    memset(longer, 0, sizeof longer);
    memcpy(longer, known, size);
    longer[size + 63] = set;
    return longer;
}

#define LATER(opts, set) later(&(opts), sizeof(opts), (set)), sizeof(opts) + 64

static void options_of_processes_and_locks_age(void **state)
{
    (void)state;
    mproc_process *p = NULL, *none = NULL;
    mproc_process_opts named = {.name = "Ada", .daemon = 1};
    const size_t old = offsetof(mproc_process_opts, daemon);
    assert_ok(mproc_process_new_sized(&p, say_nothing, NULL, &named, old));
    assert_string_equal(mproc_process_name(p), "Ada");
    assert_false(mproc_process_daemon(p));
    mproc_process_free(p);
    assert_ok(mproc_process_new_sized(&p, say_nothing, NULL, LATER(named, 0)));
    assert_true(mproc_process_daemon(p));
    mproc_process_free(p);
    assert_err(
        mproc_process_new_sized(&none, say_nothing, NULL, LATER(named, 1)),
        MPROC_ENOTSUP);
    assert_null(none);

    mproc_semaphore *s = NULL, *no = NULL;
    mproc_semaphore_opts bounded = {.bounded = 1};
    assert_ok(mproc_semaphore_new_sized(&s, 1, &bounded, 0));
    assert_ok(mproc_semaphore_release(s)); /* not bounded */
    mproc_semaphore_free(s);
    assert_ok(mproc_semaphore_new_sized(&s, 1, LATER(bounded, 0)));
    assert_err(mproc_semaphore_release(s), MPROC_EINVAL);
    mproc_semaphore_free(s);
    assert_err(mproc_semaphore_new_sized(&no, 1, LATER(bounded, 1)),
               MPROC_ENOTSUP);
    assert_null(no);

    mproc_barrier *b = NULL, *neither = NULL;
    mproc_barrier_opts acting = {.action = say_nothing, .user = no};
    assert_ok(mproc_barrier_new_sized(&b, 1, &acting, 0));
    assert_ok(mproc_barrier_wait(b, NULL, MPROC_NOWAIT));
    mproc_barrier_free(b);
    assert_ok(mproc_barrier_new_sized(&b, 1, LATER(acting, 0)));
    assert_ok(mproc_barrier_wait(b, NULL, MPROC_NOWAIT));
    mproc_barrier_free(b);
    assert_err(mproc_barrier_new_sized(&neither, 1, LATER(acting, 1)),
               MPROC_ENOTSUP);
    assert_null(neither);
}

static void options_of_queues_and_pipes_age(void **state)
{
    (void)state;
    mproc_queue *q = NULL, *none = NULL;
    mproc_queue_opts one = {.maxsize = 1, .order = 7, .joinable = 1};
    const size_t old = offsetof(mproc_queue_opts, order);
    assert_ok(mproc_queue_new_sized(&q, &one, old));
    assert_ok(mproc_queue_put(q, "", 0, MPROC_NOWAIT));
    assert_true(mproc_queue_full(q));
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_EINVAL);
    mproc_queue_free(q);
    one.order = MPROC_FIFO;
    assert_ok(mproc_queue_new_sized(&q, LATER(one, 0)));
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    mproc_queue_free(q);
    assert_err(mproc_queue_new_sized(&none, LATER(one, 1)), MPROC_ENOTSUP);
    one.order = MPROC_PRIORITY + 1;
    assert_err(mproc_queue_new(&none, &one), MPROC_EINVAL);
    one.order = MPROC_PRIORITY;
    one.reserved = 1; /* what a later version may use it for is not known */
    assert_err(mproc_queue_new(&none, &one), MPROC_ENOTSUP);
    assert_null(none);

    mproc_connection *a = NULL, *b = NULL, *no = NULL;
    mproc_pipe_opts simplex = {.simplex = 1};
    assert_ok(mproc_pipe_new_sized(&a, &b, &simplex, 0));
    assert_ok(mproc_connection_send(a, "", 0, MPROC_NOWAIT));
    assert_ok(mproc_connection_close(a));
    assert_ok(mproc_connection_close(b));
    assert_ok(mproc_pipe_new_sized(&a, &b, LATER(simplex, 0)));
    assert_err(mproc_connection_send(a, "", 0, MPROC_NOWAIT), MPROC_EPERM);
    assert_ok(mproc_connection_close(a));
    assert_ok(mproc_connection_close(b));
    assert_err(mproc_pipe_new_sized(&no, &no, LATER(simplex, 1)),
               MPROC_ENOTSUP);
    assert_null(no);
}

static void options_of_pools_and_tasks_age(void **state)
{
    (void)state;
    mproc_pool *p = NULL, *none = NULL;
    mproc_result *result = NULL;
    mproc_iter *iter = NULL;
    int seven = 0, in = 3;
    mproc_pool_opts one = {.workers = 1, .retries = 1};
    const size_t old = offsetof(mproc_pool_opts, retries);
    assert_ok(mproc_pool_new_sized(&p, &one, old));
    mproc_pool_free(p);
    one.retries = 0;
    assert_err(mproc_pool_new_sized(&none, LATER(one, 1)), MPROC_ENOTSUP);
    assert_null(none);
    assert_ok(mproc_pool_new_sized(&p, LATER(one, 0)));
    mproc_call call = {.fn = reply_seven, .timeout_s = 1};
    const size_t fn_only = offsetof(mproc_call, arg);
    assert_ok(mproc_pool_apply_sized(p, &call, fn_only, &seven, 4, TEST_BOUND));
    assert_int_equal(seven, 7);
    call.timeout_s = 0;
    assert_ok(mproc_pool_apply_sized(p, LATER(call, 0), &seven, 4, TEST_BOUND));
    assert_err(mproc_pool_apply_sized(p, LATER(call, 1), NULL, 0, TEST_BOUND),
               MPROC_ENOTSUP);
    assert_err(
        mproc_pool_apply_async_sized(p, LATER(call, 1), &result, TEST_BOUND),
        MPROC_ENOTSUP);
    mproc_batch batch = {.fn = get_four,
                         .in = &in,
                         .in_size = sizeof in,
                         .count = 1,
                         .timeout_s = 1};
    const size_t plain = offsetof(mproc_batch, next);
    assert_ok(mproc_pool_map_sized(p, &batch, plain, TEST_BOUND));
    batch.timeout_s = 0;
    assert_ok(mproc_pool_map_sized(p, LATER(batch, 0), TEST_BOUND));
    assert_err(mproc_pool_map_sized(p, LATER(batch, 1), TEST_BOUND),
               MPROC_ENOTSUP);
    assert_err(mproc_pool_map_async_sized(p, LATER(batch, 1), &result),
               MPROC_ENOTSUP);
    assert_err(mproc_pool_imap_sized(p, LATER(batch, 1), &iter), MPROC_ENOTSUP);
    assert_err(mproc_pool_imap_unordered_sized(p, LATER(batch, 1), &iter),
               MPROC_ENOTSUP);
    assert_true(result == NULL && iter == NULL);
    assert_ok(mproc_pool_imap_sized(p, &batch, plain, &iter));
    mproc_iter_free(iter);
    mproc_pool_free(p);
}

static void heap_infos_of_any_age_are_filled(void **state)
{
    (void)state;
    struct {
        mproc_heap_info known;
        size_t unknown;
    } info = {.unknown = 5};
    void *block = mproc_alloc(100);
    assert_ok(mproc_heap_stats_sized(&info.known, sizeof info));
    assert_true(info.known.in_use >= 100 && info.known.blocks >= 1);
    assert_true(info.known.high_water >= info.known.in_use);
    assert_true(info.known.resident > 0);
    assert_true(info.known.limit >= info.known.high_water);
    assert_int_equal(info.unknown, 0);
    memset(&info, 0xff, sizeof info);
    assert_ok(
        mproc_heap_stats_sized(&info.known, offsetof(mproc_heap_info, blocks)));
    assert_true(info.known.in_use >= 100 && info.known.in_use < SIZE_MAX);
    assert_int_equal(info.known.blocks, SIZE_MAX);
    assert_err(mproc_heap_stats(NULL), MPROC_EINVAL);
    mproc_free(block);
}

/* Before anything else: the first use is after it. */
static int configure_first(void *arg)
{
    (void)arg;
    mproc_heap_info info;
    mproc_config config = {.heap_max = 64 << 20, .reserved = 1};
    assert_err(mproc_configure(NULL), MPROC_EINVAL);
    assert_err(mproc_configure(&config), MPROC_ENOTSUP);
    config.reserved = 0;
    assert_err(mproc_configure_sized(LATER(config, 1)), MPROC_ENOTSUP);
    config.processes_max = 1;
    assert_err(mproc_configure(&config), MPROC_EINVAL);
    const size_t old = offsetof(mproc_config, processes_max);
    assert_ok(mproc_configure_sized(&config, old));
    assert_ok(mproc_heap_stats(&info));
    assert_int_equal(info.limit, 64 << 20);
    config.processes_max = 0;
    assert_err(mproc_configure(&config), MPROC_EINVAL);
    return 0;
}

static void configuration_comes_before_the_first_use(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(configure_first, NULL)), 0);
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
        /* first: nothing has used the library yet */
        cmocka_unit_test(configuration_comes_before_the_first_use),
        cmocka_unit_test(handles_of_another_type_are_refused),
        cmocka_unit_test(addresses_inside_of_objects_are_refused),
        cmocka_unit_test(memory_of_any_kind_is_refused),
        cmocka_unit_test(what_was_freed_is_refused),
        cmocka_unit_test(strangers_to_a_handle_are_refused),
        cmocka_unit_test(every_int_has_a_name_and_a_text),
        cmocka_unit_test(durations_that_are_none_mean_now),
        cmocka_unit_test(one_budget_serves_many_calls),
        cmocka_unit_test(durations_too_large_mean_for_ever),
        cmocka_unit_test(absurd_sizes_of_processes_and_pools_are_refused),
        cmocka_unit_test(absurd_sizes_of_batches_are_refused),
        cmocka_unit_test(absurd_sizes_of_memory_are_refused),
        cmocka_unit_test(no_bytes_are_memory_too),
        cmocka_unit_test(a_message_of_an_absurd_size_harms_nothing),
        cmocka_unit_test(options_of_processes_and_locks_age),
        cmocka_unit_test(options_of_queues_and_pipes_age),
        cmocka_unit_test(options_of_pools_and_tasks_age),
        cmocka_unit_test(heap_infos_of_any_age_are_filled),
        cmocka_unit_test(absurd_enums_are_refused),
        cmocka_unit_test(slips_with_processes_are_told),
        cmocka_unit_test(slips_with_locks_are_told),
        cmocka_unit_test(slips_with_queues_and_pipes_are_told),
        cmocka_unit_test(slips_with_results_are_told),
        cmocka_unit_test(outside_of_a_task_there_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
