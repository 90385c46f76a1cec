/* SPDX-License-Identifier: MIT */
/* Pools whose workers do what they should: tasks, outcomes, results. */
#include "pool_meeting.h"
#include "pool_tasks.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- tasks ------------------------------------------------------------ */

/* Fails when its argument is not as it must be. */
static int echoes(const void *arg, size_t size, mproc_reply *reply)
{
    if ((uintptr_t)arg % _Alignof(max_align_t) != 0 ||
        ((const char *)arg)[size] != '\0') {
        return mproc_reply_fail(reply, 1, "misplaced %p", arg);
    }
    return mproc_reply_set(reply, arg, size);
}

static int returns_arg(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    return *(const int *)arg;
}

/* Fails, though it returns 0, and its reply is dropped. */
static int fails_silently(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_reply_set(reply, arg, size);
    mproc_reply_fail(reply, 3, NULL);
    return 0;
}

/* ---- apply ------------------------------------------------------------ */

static void *pattern(size_t size)
{
    char *bytes = malloc(size + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (char)(i * 7 + i / 251 + 1);
    }
    return bytes;
}

static void expect_echo(mproc_pool *p, size_t size)
{
    char *arg = pattern(size), *out = calloc(1, size + 1);
    mproc_call call = {.fn = echoes, .arg = arg, .arg_size = size};
    assert_ok(mproc_pool_apply(p, &call, out, size, TEST_BOUND));
    assert_memory_equal(arg, out, size);
    mproc_result *r = sent(p, call);
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    const mproc_outcome *o = mproc_result_outcome(r);
    assert_int_equal(o->status, MPROC_OK);
    assert_int_equal(o->size, size);
    assert_memory_equal(o->data, arg, size);
    assert_int_equal(((const char *)o->data)[size], '\0');
    assert_int_equal((uintptr_t)o->data % _Alignof(max_align_t), 0);
    assert_string_equal(o->error, "");
    mproc_result_free(r);
    free(out);
    free(arg);
}

static void arguments_and_replies_have_any_size(void **state)
{
    (void)state;
    const size_t sizes[] = {0,  1,    15,   16,         22,     23, 24,
                            25, 46,   47,   48,         49,     63, 64,
                            65, 1024, 1025, 100 * 1024, 5 << 20};
    mproc_pool *p = pool_of(2);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        expect_echo(p, sizes[i]);
    }
    end_of(p);
}

static void apply_keeps_to_the_size(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    int n = 9, out[2] = {1, 2};
    mproc_call call = {.fn = squares, MPROC_ARG(n)};
    assert_ok(mproc_pool_apply(p, &call, out, sizeof n, TEST_BOUND));
    assert_int_equal(out[0], 81);
    out[0] = 1;
    assert_err(mproc_pool_apply(p, &call, out, 3, TEST_BOUND), MPROC_EMSGSIZE);
    assert_err(mproc_pool_apply(p, &call, out, 8, TEST_BOUND), MPROC_EMSGSIZE);
    assert_err(mproc_pool_apply(p, &call, out, 0, TEST_BOUND), MPROC_EMSGSIZE);
    assert_int_equal(out[0], 1);
    assert_int_equal(out[1], 2);
    assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    assert_err(mproc_pool_apply(p, &call, NULL, 4, TEST_BOUND), MPROC_EINVAL);
    end_of(p);
}

static void tasks_begin_in_order(void **state)
{
    (void)state;
    enum { TASKS = 500 };
    mproc_pool *p = pool_of(1);
    struct turn turn = {queue(), 0};
    for (; turn.number < TASKS; turn.number++) {
        mproc_call call = {.fn = takes_its_turn, MPROC_ARG(turn)};
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    for (int i = 0, n; i < TASKS; i++) {
        assert_ok(mproc_queue_get(turn.order, &n, sizeof n, NULL, TEST_BOUND));
        assert_int_equal(n, i);
    }
    end_of(p);
    mproc_queue_free(turn.order);
}

static void apply_gives_up_and_ends_the_worker(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    struct meeting m = meeting();
    pid_t before, after;
    mproc_call tell = {.fn = tells_pid};
    mproc_call wait = {.fn = comes_and_waits, MPROC_ARG(m)};
    do { /* until it had begun: at once, but on a machine that has no time */
        assert_ok(
            mproc_pool_apply(p, &tell, &before, sizeof before, TEST_BOUND));
        assert_err(mproc_pool_apply(p, &wait, NULL, 0, mproc_in_ms(100)),
                   MPROC_ETIMEDOUT);
        assert_ok(mproc_pool_apply(p, &tell, &after, sizeof after, TEST_BOUND));
    } while (mproc_queue_empty(m.here));
    assert_int_not_equal(before, after);
    assert_err(mproc_pool_apply(p, &wait, NULL, 0, MPROC_NOWAIT),
               MPROC_ETIMEDOUT);
    assert_ok(mproc_pool_apply(p, &tell, &after, sizeof after, TEST_BOUND));
    end_of(p);
    free_meeting(&m);
}

static void bad_calls_are_refused(void **state)
{
    (void)state;
    int n = 1, out;
    const struct {
        mproc_call call;
        int err;
    } bad[] = {
        {{.fn = NULL}, MPROC_EINVAL},
        {{.fn = squares, .arg_size = 4}, MPROC_EINVAL},
        {{.fn = squares, .arg = &n, .arg_size = SIZE_MAX}, MPROC_EINVAL},
        {{.fn = squares, MPROC_ARG(n), .timeout_s = -1}, MPROC_EINVAL},
        {{.fn = squares, MPROC_ARG(n), .timeout_s = NAN}, MPROC_EINVAL},
    };
    mproc_pool *p = pool_of(1);
    mproc_result *r = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const mproc_call *call = &bad[i].call;
        assert_err(mproc_pool_apply(p, call, &out, sizeof out, TEST_BOUND),
                   bad[i].err);
        assert_err(mproc_pool_apply_async(p, call, &r, TEST_BOUND), bad[i].err);
    }
    mproc_call good = {.fn = squares, MPROC_ARG(n)};
    assert_err(mproc_pool_apply(p, NULL, &out, sizeof out, TEST_BOUND),
               MPROC_EINVAL);
    assert_err(mproc_pool_apply(NULL, &good, &out, sizeof out, TEST_BOUND),
               MPROC_EINVAL);
    assert_err(mproc_pool_apply_async(NULL, &good, &r, TEST_BOUND),
               MPROC_EINVAL);
    assert_null(r);
    end_of(p);
    assert_err(mproc_pool_apply(p, &good, &out, sizeof out, TEST_BOUND),
               MPROC_EINVAL);
    assert_err(mproc_pool_close(p), MPROC_EINVAL);
    assert_err(mproc_pool_terminate(NULL), MPROC_EINVAL);
    assert_err(mproc_pool_join(p, TEST_BOUND), MPROC_EINVAL);
    assert_int_equal(mproc_pool_worker_pids(p, NULL, 0), 0);
    mproc_pool_free(p);
    mproc_pool_free(NULL);
}

static int bad_initializer(void *arg)
{
    (void)arg;
    return 0;
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    const struct {
        mproc_pool_opts opts;
        int err;
    } bad[] = {
        {{.grace_s = -1}, MPROC_EINVAL},
        {{.grace_s = NAN}, MPROC_EINVAL},
        {{.start = MPROC_START_FORKSERVER}, MPROC_ENOTSUP},
        {{.start = MPROC_START_SPAWN}, MPROC_ENOTSUP},
        {{.start = -1}, MPROC_EINVAL},
        {{.start = 99}, MPROC_EINVAL},
        {{.initializer = bad_initializer, .initializer_arg_size = 1},
         MPROC_EINVAL},
        {{.workers = SIZE_MAX}, MPROC_EAGAIN},
        {{.workers = 4095}, MPROC_EAGAIN}, /* and two more, of 4096 */
    };
    mproc_pool *p = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_err(mproc_pool_new(&p, &bad[i].opts), bad[i].err);
    }
    struct {
        mproc_pool_opts known;
        int unknown;
    } newer = {.unknown = 1};
    assert_err(mproc_pool_new_sized(&p, &newer.known, sizeof newer),
               MPROC_ENOTSUP);
    assert_err(mproc_pool_new(NULL, NULL), MPROC_EINVAL);
    assert_null(p);
    newer.unknown = 0;
    newer.known.workers = 1;
    assert_ok(mproc_pool_new_sized(&p, &newer.known, sizeof newer));
    end_of(p);
}

static void a_default_pool_has_a_worker_a_cpu(void **state)
{
    (void)state;
    mproc_pool *p;
    pid_t pids[2] = {0, 0};
    assert_ok(mproc_pool_new(&p, NULL));
    assert_int_equal(mproc_pool_worker_pids(p, NULL, 0), mproc_cpu_count());
    assert_int_equal(mproc_pool_worker_pids(p, pids, 1), mproc_cpu_count());
    assert_true(pids[0] > 0);
    assert_int_equal(pids[1], 0);
    end_of(p);
}

/* ---- outcomes --------------------------------------------------------- */

static void a_task_may_fail(void **state)
{
    (void)state;
    const struct {
        mproc_task_fn *fn;
        int arg;
        int code;
        const char *error;
    } tasks[] = {
        {returns_arg, 7, 7, ""},
        {returns_arg, -1, -1, ""},
        {returns_arg, MPROC_EAGAIN, MPROC_EAGAIN, ""},
        {says_why, 4, -12, "bun of 4"},
        {fails_silently, 4, 3, ""},
    };
    mproc_pool *p = pool_of(1);
    pid_t worker;
    assert_int_equal(mproc_pool_worker_pids(p, &worker, 1), 1);
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        int n = tasks[i].arg;
        mproc_result *r = sent(p, (mproc_call){tasks[i].fn, MPROC_ARG(n)});
        assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND), MPROC_ETASK);
        const mproc_outcome *o = mproc_result_outcome(r);
        assert_int_equal(o->status, MPROC_ETASK);
        assert_int_equal(o->code, tasks[i].code);
        assert_string_equal(o->error, tasks[i].error);
        assert_int_equal(o->size, 0);
        assert_int_equal(o->index, 0);
        assert_int_equal(o->worker, worker);
        assert_false(mproc_result_successful(r));
        mproc_result_free(r);
        assert_err(mproc_pool_apply(p, &(mproc_call){tasks[i].fn, MPROC_ARG(n)},
                                    NULL, 0, TEST_BOUND),
                   MPROC_ETASK);
    }
    end_of(p);
}

/* A reply that grows, shrinks, and is set again. */
static int changes_its_mind(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    char *small = mproc_reply_reserve(reply, 5);
    memcpy(small, "small", 5);
    mproc_reply_set(reply, "", 0);
    if (mproc_reply_set(reply, NULL, 0) != 0 ||
        mproc_reply_set(reply, NULL, 1) != MPROC_EINVAL ||
        mproc_reply_set(NULL, "x", 1) != MPROC_EINVAL ||
        mproc_reply_reserve(NULL, 1) != NULL ||
        mproc_reply_reserve(reply, SIZE_MAX) != NULL) {
        return 1;
    }
    memset(mproc_reply_reserve(reply, 100000), 'x', 100000);
    memset(mproc_reply_reserve(reply, 200000), 'y', 200000);
    return mproc_reply_reserve(reply, 6) == NULL;
}

static void a_reply_may_be_set_again(void **state)
{
    (void)state;
    char out[6];
    mproc_pool *p = pool_of(1);
    assert_ok(mproc_pool_apply(p, &(mproc_call){.fn = changes_its_mind}, out,
                               sizeof out, TEST_BOUND));
    assert_memory_equal(out, "yyyyyy", 6);
    end_of(p);
}

/* ---- results ---------------------------------------------------------- */

static void get_keeps_a_reply_that_does_not_fit(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    char buf[16] = "";
    size_t size = 99;
    mproc_result *r =
        sent(p, (mproc_call){.fn = echoes, .arg = "bunny", .arg_size = 5});
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    assert_err(mproc_result_get(r, buf, 4, &size, TEST_BOUND), MPROC_EMSGSIZE);
    assert_int_equal(size, 5);
    assert_err(mproc_result_get(r, buf, 4, NULL, TEST_BOUND), MPROC_EMSGSIZE);
    assert_err(mproc_result_get(r, buf, 6, NULL, TEST_BOUND), MPROC_EMSGSIZE);
    assert_err(mproc_result_get(r, NULL, 5, NULL, TEST_BOUND), MPROC_EINVAL);
    assert_string_equal(buf, "");
    assert_ok(mproc_result_get(r, buf, sizeof buf, &size, TEST_BOUND));
    assert_string_equal(buf, "bunny");
    assert_int_equal(size, 5);
    assert_ok(mproc_result_get(r, buf, 5, NULL, MPROC_NOWAIT));
    assert_true(mproc_result_ready(r) && mproc_result_successful(r));
    mproc_result_free(r);
    assert_err(mproc_result_wait(r, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_result_get(r, buf, 5, NULL, TEST_BOUND), MPROC_EINVAL);
    assert_err(mproc_result_get(NULL, buf, 5, NULL, TEST_BOUND), MPROC_EINVAL);
    assert_false(mproc_result_ready(r) || mproc_result_successful(NULL));
    assert_null(mproc_result_outcome(r));
    mproc_result_free(r);
    mproc_result_free(NULL);
    end_of(p);
}

static void a_result_is_pending_until_it_is_ready(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_queue *gate = queue();
    mproc_result *r = sent(p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
    assert_err(mproc_result_wait(r, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_err(mproc_result_wait(r, mproc_in_ms(60)), MPROC_ETIMEDOUT);
    assert_err(mproc_result_get(r, NULL, 0, NULL, mproc_in_ms(1)),
               MPROC_ETIMEDOUT);
    assert_false(mproc_result_ready(r) || mproc_result_successful(r));
    assert_null(mproc_result_outcome(r));
    open_gate(gate, 1);
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    assert_true(mproc_result_ready(r) && mproc_result_successful(r));
    assert_ok(mproc_result_get(r, NULL, 0, NULL, MPROC_NOWAIT));
    mproc_result_free(r);
    end_of(p);
    mproc_queue_free(gate);
}

static void results_outlive_their_pool(void **state)
{
    (void)state;
    enum { SIZE = 100000 };
    char *arg = pattern(SIZE), *out = malloc(SIZE);
    int n = 3, square;
    mproc_pool *p = pool_of(2);
    mproc_result *large =
        sent(p, (mproc_call){.fn = echoes, .arg = arg, .arg_size = SIZE});
    mproc_result *small = sent(p, (mproc_call){.fn = squares, MPROC_ARG(n)});
    mproc_result *bad = sent(p, (mproc_call){.fn = says_why, MPROC_ARG(n)});
    end_of(p);
    assert_ok(mproc_result_get(small, &square, 4, NULL, MPROC_NOWAIT));
    assert_int_equal(square, 9);
    assert_ok(mproc_result_get(large, out, SIZE, NULL, MPROC_NOWAIT));
    assert_memory_equal(out, arg, SIZE);
    assert_string_equal(mproc_result_outcome(bad)->error, "bun of 3");
    mproc_result_free(small);
    mproc_result_free(large);
    mproc_result_free(bad);
    free(arg);
    free(out);
}

/* ---- the end of a pool ------------------------------------------------ */

static void close_lets_tasks_end(void **state)
{
    (void)state;
    enum { TASKS = 20 };
    mproc_pool *p = pool_of(2);
    mproc_queue *gate = queue();
    mproc_result *r[TASKS];
    mproc_call call = {.fn = waits_for, MPROC_ARG(gate)};
    mproc_batch b = {.fn = squares, .count = 0};
    for (int i = 0; i < TASKS; i++) {
        r[i] = sent(p, call);
    }
    assert_err(mproc_pool_join(p, TEST_BOUND), MPROC_EINVAL);
    assert_ok(mproc_pool_close(p));
    assert_ok(mproc_pool_close(p));
    assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND),
               MPROC_ESHUTDOWN);
    assert_err(mproc_pool_apply_async(p, &call, NULL, TEST_BOUND),
               MPROC_ESHUTDOWN);
    assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_ESHUTDOWN);
    assert_err(mproc_pool_join(p, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_err(mproc_pool_join(p, mproc_in_ms(70)), MPROC_ETIMEDOUT);
    open_gate(gate, TASKS);
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    assert_ok(mproc_pool_join(p, MPROC_NOWAIT));
    assert_int_equal(mproc_pool_worker_pids(p, NULL, 0), 0);
    for (int i = 0; i < TASKS; i++) {
        assert_true(mproc_result_successful(r[i]));
        mproc_result_free(r[i]);
    }
    mproc_pool_free(p);
    mproc_queue_free(gate);
}

static void unused_pools_end(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        mproc_pool *p = pool_of(1 + (size_t)i % 3);
        if (i % 2) {
            end_of(p);
        } else {
            mproc_pool_free(p);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(arguments_and_replies_have_any_size),
        CLEAN(apply_keeps_to_the_size),
        CLEAN(tasks_begin_in_order),
        CLEAN(apply_gives_up_and_ends_the_worker),
        CLEAN(bad_calls_are_refused),
        CLEAN(bad_options_are_refused),
        CLEAN(a_default_pool_has_a_worker_a_cpu),
        CLEAN(a_task_may_fail),
        CLEAN(a_reply_may_be_set_again),
        CLEAN(get_keeps_a_reply_that_does_not_fit),
        CLEAN(a_result_is_pending_until_it_is_ready),
        CLEAN(results_outlive_their_pool),
        CLEAN(close_lets_tasks_end),
        CLEAN(unused_pools_end),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
