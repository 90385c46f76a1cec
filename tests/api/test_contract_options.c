/* SPDX-License-Identifier: MIT */
/* Options may be older or newer than the library. */
#include "contract_support.h"

#include <stddef.h>
#include <string.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configuration_comes_before_the_first_use),
        cmocka_unit_test(options_of_processes_and_locks_age),
        cmocka_unit_test(options_of_queues_and_pipes_age),
        cmocka_unit_test(options_of_pools_and_tasks_age),
        cmocka_unit_test(heap_infos_of_any_age_are_filled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
