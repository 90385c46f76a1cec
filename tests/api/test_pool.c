/* SPDX-License-Identifier: MIT */
/* Pools whose workers do what they should: tasks, results, batches. */
#include "pool_kin.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool_tasks.h"

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

static int says_why(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    mproc_reply_fail(reply, 1, "not this");
    return mproc_reply_fail(reply, -12, "%s of %d", "bun", *(const int *)arg);
}

/* Fails, though it returns 0, and its reply is dropped. */
static int fails_silently(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_reply_set(reply, arg, size);
    mproc_reply_fail(reply, 3, NULL);
    return 0;
}

struct meeting {
    mproc_queue *here, *gate;
};

/* Says that it runs before it waits. */
static int comes_and_waits(const void *arg, size_t size, mproc_reply *reply)
{
    const struct meeting *m = arg;
    (void)size;
    (void)reply;
    mproc_queue_put(m->here, NULL, 0, MPROC_FOREVER);
    return mproc_queue_get(m->gate, NULL, 0, NULL, MPROC_FOREVER);
}

static void await(mproc_queue *here)
{
    assert_ok(mproc_queue_get(here, NULL, 0, NULL, TEST_BOUND));
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
    struct meeting m = {queue(), queue()};
    pid_t before, after;
    mproc_call tell = {.fn = tells_pid};
    mproc_call wait = {.fn = comes_and_waits, MPROC_ARG(m)};
    assert_ok(mproc_pool_apply(p, &tell, &before, sizeof before, TEST_BOUND));
    assert_err(mproc_pool_apply(p, &wait, NULL, 0, mproc_in_ms(100)),
               MPROC_ETIMEDOUT);
    assert_ok(mproc_pool_apply(p, &tell, &after, sizeof after, TEST_BOUND));
    if (!mproc_queue_empty(m.here)) { /* it had begun: all but always */
        assert_int_not_equal(before, after);
    }
    assert_err(mproc_pool_apply(p, &wait, NULL, 0, MPROC_NOWAIT),
               MPROC_ETIMEDOUT);
    assert_ok(mproc_pool_apply(p, &tell, &after, sizeof after, TEST_BOUND));
    end_of(p);
    mproc_queue_free(m.here);
    mproc_queue_free(m.gate);
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
    call.fn = echoes;
    mproc_result_free(sent(p, call));
    open_gate(gate, 1);
    end_of(p);
    assert_int_equal(seen.good, 2);
    assert_int_equal(seen.bytes, sizeof gate);
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
    await(a.acted);
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

static void terminate_cancels_all(void **state)
{
    (void)state;
    enum { TASKS = 20 };
    mproc_pool *p = pool_of(2);
    struct meeting m = {queue(), queue()};
    struct seen seen = {0};
    mproc_result *r[TASKS];
    mproc_call call = {.fn = comes_and_waits, MPROC_ARG(m)};
    call.callback = see_good;
    call.error_callback = see_bad;
    call.user = &seen;
    for (int i = 0; i < TASKS; i++) {
        r[i] = sent(p, call);
    }
    await(m.here);
    await(m.here);
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
    mproc_queue_free(m.here);
    mproc_queue_free(m.gate);
}

static void free_ends_what_runs(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    struct meeting m = {queue(), queue()};
    struct seen seen = {0};
    mproc_call call = {.fn = comes_and_waits, MPROC_ARG(m)};
    call.error_callback = see_bad;
    call.user = &seen;
    for (int i = 0; i < 10; i++) {
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    mproc_result *r = sent(p, call);
    await(m.here);
    mproc_pool_free(p);
    assert_int_equal(seen.bad, 11); /* no callback runs any more */
    assert_err(mproc_result_get(r, NULL, 0, NULL, MPROC_NOWAIT),
               MPROC_ECANCELED);
    mproc_result_free(r);
    mproc_queue_free(m.here);
    mproc_queue_free(m.gate);
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

/* ---- workers ---------------------------------------------------------- */

static _Atomic int *counter;

static int counts(void *arg)
{
    atomic_fetch_add(*(_Atomic int **)arg, 1);
    return 0;
}

static int initialized_with;

static int keeps(void *arg)
{
    initialized_with = *(const int *)arg;
    *(int *)arg = 0; /* its own copy */
    return 0;
}

static int tells_what_it_was_initialized_with(const void *arg, size_t size,
                                              mproc_reply *reply)
{
    (void)arg;
    (void)size;
    return mproc_reply_set(reply, &initialized_with, sizeof(int));
}

static void the_initializer_runs_once_a_worker(void **state)
{
    (void)state;
    counter = mproc_calloc(1, sizeof *counter);
    mproc_pool *p = pool_with((mproc_pool_opts){
        .workers = 3, .initializer = counts, .initializer_arg = &counter});
    assert_int_equal(*counter, 3);
    for (int i = 0; i < 30; i++) {
        mproc_call call = {.fn = does_nothing};
        assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    }
    assert_int_equal(*counter, 3);
    end_of(p);
    mproc_free((void *)counter);
    int arg = 77, told;
    p = pool_with((mproc_pool_opts){.workers = 2,
                                    .initializer = keeps,
                                    .initializer_arg = &arg,
                                    .initializer_arg_size = sizeof arg});
    arg = 1;
    mproc_call call = {.fn = tells_what_it_was_initialized_with};
    assert_ok(mproc_pool_apply(p, &call, &told, sizeof told, TEST_BOUND));
    assert_int_equal(told, 77);
    end_of(p);
}

static void workers_are_replaced_after_their_tasks(void **state)
{
    (void)state;
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 1, .max_tasks_per_child = 2});
    pid_t pid[8], items[8];
    mproc_call call = {.fn = tells_pid};
    for (int i = 0; i < 8; i++) {
        assert_ok(
            mproc_pool_apply(p, &call, &pid[i], sizeof(pid_t), TEST_BOUND));
    }
    mproc_batch b = {.fn = tells_pid,
                     .in = items,
                     .in_size = sizeof(pid_t),
                     .count = 8,
                     .out = items,
                     .out_size = sizeof(pid_t),
                     .chunk = 8};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    for (int i = 0; i < 8; i += 2) {
        assert_int_equal(pid[i], pid[i + 1]);
        assert_int_equal(items[i], items[i + 1]);
        assert_true(i == 0 || pid[i] != pid[i - 1]);
        assert_true(i == 0 || items[i] != items[i - 1]);
    }
    assert_int_not_equal(pid[7], items[0]);
    end_of(p);
}

static int prints(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    fputs(arg, stdout);
    return 0;
}

/* A program of its own, whose stdout is a file. */
static int prints_by_tasks(void *arg)
{
    if (freopen(arg, "w", stdout) == NULL) {
        return 1;
    }
    fputs("maker\n", stdout);
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < 10; i++) {
        mproc_call call = {.fn = prints, .arg = "task\n", .arg_size = 5};
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    end_of(p);
    return 0;
}

static void what_tasks_print_comes_out_once(void **state)
{
    (void)state;
    char path[] = "/tmp/test_pool.XXXXXX", line[64];
    int fd = mkstemp(path), makers = 0, tasks = 0;
    assert_true(fd >= 0);
    assert_int_equal(test_wait_exit(test_fork(prints_by_tasks, path)), 0);
    FILE *f = fdopen(fd, "r");
    while (fgets(line, sizeof line, f) != NULL) {
        makers += strcmp(line, "maker\n") == 0;
        tasks += strcmp(line, "task\n") == 0;
    }
    fclose(f);
    unlink(path);
    assert_int_equal(makers, 1);
    assert_int_equal(tasks, 10);
}

static int parent_is_maker(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    struct sigaction interrupt;
    sigaction(SIGINT, NULL, &interrupt);
    return mproc_process_parent_pid() != *(const pid_t *)arg ||
           interrupt.sa_handler != SIG_IGN ||
           mproc_process_daemon(mproc_process_current());
}

static void a_worker_is_a_child_of_the_maker(void **state)
{
    (void)state;
    pid_t self = getpid();
    mproc_pool *p = pool_of(1);
    assert_ok(mproc_pool_apply(p,
                               &(mproc_call){parent_is_maker, MPROC_ARG(self)},
                               NULL, 0, TEST_BOUND));
    end_of(p);
}

/* SIGUSR1 and SIGCHLD are blocked, SIGUSR2 is not. */
static int has_the_mask(const void *arg, size_t size, mproc_reply *reply)
{
    sigset_t mask;
    (void)arg;
    (void)size;
    (void)reply;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return !sigismember(&mask, SIGUSR1) || !sigismember(&mask, SIGCHLD) ||
           sigismember(&mask, SIGUSR2) || sigismember(&mask, SIGTERM);
}

static void workers_have_their_makers_mask(void **state)
{
    (void)state;
    sigset_t mask, before;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &mask, &before);
    mproc_pool *p = pool_of(1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    mproc_call call = {.fn = has_the_mask};
    assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    end_of(p);
}

static int makes_a_pool(const void *arg, size_t size, mproc_reply *reply)
{
    int sum = 0, out;
    mproc_pool *p;
    (void)size;
    int err = mproc_pool_new(&p, &(mproc_pool_opts){.workers = 2});
    for (int i = 1; err == 0 && i <= *(const int *)arg; i++) {
        err = mproc_pool_apply(p, &(mproc_call){squares, MPROC_ARG(i)}, &out,
                               sizeof out, TEST_BOUND);
        sum += out;
    }
    if (err == 0) {
        mproc_pool_free(p);
        err = mproc_reply_set(reply, &sum, sizeof sum);
    }
    return err;
}

static void workers_may_have_pools(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    int in[4] = {1, 2, 3, 4}, out[4];
    mproc_batch b = {.fn = makes_a_pool,
                     .in = in,
                     .in_size = sizeof(int),
                     .count = 4,
                     .out = out,
                     .out_size = sizeof(int)};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    assert_int_equal(out[3], 30);
    end_of(p);
}

static int leaves_a_pool(const void *arg, size_t size, mproc_reply *reply)
{
    pid_t pid;
    mproc_pool *p;
    mproc_queue *gate = *(mproc_queue *const *)arg;
    (void)size;
    int err = mproc_pool_new(&p, &(mproc_pool_opts){.workers = 1});
    mproc_call call = {.fn = waits_for, MPROC_ARG(gate)};
    err = err == 0 ? mproc_pool_apply_async(p, &call, NULL, MPROC_NOWAIT) : err;
    mproc_pool_worker_pids(p, &pid, 1);
    return err == 0 ? mproc_reply_set(reply, &pid, sizeof pid) : err;
}

static void a_pool_in_a_worker_ends_with_it(void **state)
{
    (void)state;
    pid_t pid;
    mproc_pool *p = pool_of(1);
    mproc_queue *gate = queue();
    assert_ok(
        mproc_pool_apply(p, &(mproc_call){.fn = leaves_a_pool, MPROC_ARG(gate)},
                         &pid, sizeof pid, TEST_BOUND));
    assert_true(runs(pid));
    end_of(p);
    expect_gone(pid);
    mproc_queue_free(gate);
}

/* A queue that the workers' fork did not see. */
static void a_later_queue_is_known_to_tasks(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_queue *here = queue(), *gate = queue();
    struct meeting m = {here, gate};
    mproc_result *r =
        sent(p, (mproc_call){.fn = comes_and_waits, MPROC_ARG(m)});
    await(here);
    open_gate(gate, 1);
    assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
    mproc_result_free(r);
    end_of(p);
    mproc_queue_free(here);
    mproc_queue_free(gate);
}

static int notices_its_cancelling(const void *arg, size_t size,
                                  mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    return mproc_task_canceled() ? 1 : 0;
}

static void a_task_that_counts_is_not_cancelled(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_call call = {.fn = notices_its_cancelling};
    assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    end_of(p);
    assert_false(mproc_task_canceled());
}

/* ---- others ----------------------------------------------------------- */

struct theirs {
    mproc_pool *p;
    mproc_result *r;
};

static int may_do_nothing(void *arg)
{
    const struct theirs *t = arg;
    int n = 1;
    mproc_result *r;
    mproc_call call = {.fn = squares, MPROC_ARG(n)};
    mproc_batch b = {.fn = squares, .in = &n, .in_size = 4, .count = 1};
    assert_err(mproc_pool_apply(t->p, &call, &n, 4, TEST_BOUND), MPROC_EPERM);
    assert_err(mproc_pool_apply_async(t->p, &call, &r, TEST_BOUND),
               MPROC_EPERM);
    assert_err(mproc_pool_map(t->p, &b, TEST_BOUND), MPROC_EPERM);
    assert_err(mproc_pool_map_async(t->p, &b, &r), MPROC_EPERM);
    assert_err(mproc_pool_close(t->p), MPROC_EPERM);
    assert_err(mproc_pool_terminate(t->p), MPROC_EPERM);
    assert_err(mproc_pool_join(t->p, TEST_BOUND), MPROC_EPERM);
    assert_err(mproc_result_wait(t->r, TEST_BOUND), MPROC_EPERM);
    assert_err(mproc_result_get(t->r, &n, 4, NULL, TEST_BOUND), MPROC_EPERM);
    assert_false(mproc_result_ready(t->r));
    assert_null(mproc_result_outcome(t->r));
    mproc_result_free(t->r);
    mproc_pool_free(t->p);
    return 17;
}

static void others_may_do_nothing(void **state)
{
    (void)state;
    int n = 6, out;
    struct theirs t = {.p = pool_of(1)};
    t.r = sent(t.p, (mproc_call){.fn = squares, MPROC_ARG(n)});
    assert_ok(mproc_result_wait(t.r, TEST_BOUND));
    assert_int_equal(test_wait_exit(test_fork(may_do_nothing, &t)), 17);
    assert_ok(mproc_result_get(t.r, &out, sizeof out, NULL, TEST_BOUND));
    assert_int_equal(out, 36);
    mproc_result_free(t.r);
    assert_ok(mproc_pool_apply(t.p, &(mproc_call){squares, MPROC_ARG(n)}, &out,
                               sizeof out, TEST_BOUND));
    end_of(t.p);
}

static int uses_a_pool(void *arg)
{
    mproc_pool *p;
    int n = 6, out = 0;
    const mproc_call call = {.fn = squares, MPROC_ARG(n)};
    (void)arg;
    assert_true(mproc_process_daemon(mproc_process_current()));
    assert_ok(mproc_pool_new(&p, &(mproc_pool_opts){.workers = 2}));
    assert_ok(mproc_pool_apply(p, &call, &out, sizeof out, TEST_BOUND));
    mproc_pool_free(p);
    return out == 36 ? 17 : 1;
}

/* Its workers end with it, so what it may not leave behind it does not. */
static void a_daemonic_process_may_make_a_pool(void **state)
{
    (void)state;
    int code;
    mproc_process *p;
    assert_ok(mproc_process_new(&p, uses_a_pool, NULL,
                                &(mproc_process_opts){.daemon = 1}));
    assert_ok(mproc_process_start(p));
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_ok(mproc_process_exitcode(p, &code));
    assert_int_equal(code, 17);
    mproc_process_free(p);
}

/* ---- several threads -------------------------------------------------- */

static void *submits(void *user)
{
    for (int i = 0; i < 300; i++) {
        int out = -1;
        mproc_call call = {.fn = squares, MPROC_ARG(i)};
        int err = mproc_pool_apply(user, &call, &out, sizeof out, TEST_BOUND);
        if (err == MPROC_ESHUTDOWN || err == MPROC_ECANCELED) {
            return NULL;
        }
        if (err != 0 || out != i * i) {
            return user;
        }
    }
    return NULL;
}

static void threads_of_the_maker_share_a_pool(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    for (int end_early = 0; end_early < 4; end_early++) {
        pthread_t thread[THREADS];
        mproc_pool *p = pool_of(3);
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_create(&thread[i], NULL, submits, p), 0);
        }
        if (end_early > 0) {
            usleep((useconds_t)end_early * 5000);
            assert_ok(end_early % 2 ? mproc_pool_terminate(p)
                                    : mproc_pool_close(p));
            assert_ok(mproc_pool_join(p, TEST_BOUND));
        }
        for (int i = 0; i < THREADS; i++) {
            void *wrong;
            pthread_join(thread[i], &wrong);
            assert_null(wrong);
        }
        end_of(p);
    }
}

/* ---- main ------------------------------------------------------------- */

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
        CLEAN(one_of_the_callbacks_runs),
        CLEAN(callbacks_run_one_at_a_time_in_the_maker),
        CLEAN(a_result_is_ready_before_its_callback),
        CLEAN(a_callback_finds_the_result_where_it_was_wanted),
        CLEAN(a_result_freed_early_ends_no_task),
        CLEAN(a_callback_may_do_all_but_wait),
        CLEAN(a_callback_may_terminate),
        CLEAN(close_lets_tasks_end),
        CLEAN(terminate_cancels_all),
        CLEAN(free_ends_what_runs),
        CLEAN(unused_pools_end),
        CLEAN(the_initializer_runs_once_a_worker),
        CLEAN(workers_are_replaced_after_their_tasks),
        CLEAN(what_tasks_print_comes_out_once),
        CLEAN(a_worker_is_a_child_of_the_maker),
        CLEAN(workers_have_their_makers_mask),
        CLEAN(workers_may_have_pools),
        CLEAN(a_pool_in_a_worker_ends_with_it),
        CLEAN(a_later_queue_is_known_to_tasks),
        CLEAN(a_task_that_counts_is_not_cancelled),
        CLEAN(others_may_do_nothing),
        CLEAN(a_daemonic_process_may_make_a_pool),
        CLEAN(threads_of_the_maker_share_a_pool),
        /* last: nobody joins its thread, which ThreadSanitizer remembers */
        CLEAN(a_callback_may_free_its_pool),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
