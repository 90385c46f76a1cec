/* SPDX-License-Identifier: MIT */
/*
 * What holds for every call alike: outcomes have names and texts, durations and
 * sizes may be absurd.
 */
#include "contract_support.h"

#include <limits.h>
#include <math.h>
#include <sys/wait.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_int_has_a_name_and_a_text),
        cmocka_unit_test(durations_that_are_none_mean_now),
        cmocka_unit_test(one_budget_serves_many_calls),
        cmocka_unit_test(durations_too_large_mean_for_ever),
        cmocka_unit_test(absurd_sizes_of_processes_and_pools_are_refused),
        cmocka_unit_test(absurd_sizes_of_batches_are_refused),
        cmocka_unit_test(absurd_sizes_of_memory_are_refused),
        cmocka_unit_test(no_bytes_are_memory_too),
        cmocka_unit_test(a_message_of_an_absurd_size_harms_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
