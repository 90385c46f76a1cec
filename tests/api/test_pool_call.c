/* SPDX-License-Identifier: MIT */
/* One call of a pool: its argument, its callbacks, what it leaves. */
#include "pool_tasks.h"

#include <pthread.h>
#include <string.h>

/* ---- callbacks of apply ----------------------------------------------- */

static int answers(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    return *(const int *)arg;
}

static void note(const mproc_outcome *outcome, void *user)
{
    *(int *)user = outcome->status;
}

enum { NOT_CALLED = 1 };

static int called_with(mproc_call call, int code, int start)
{
    int status = NOT_CALLED;
    mproc_pool *p = pool_with((mproc_pool_opts){.workers = 1, .start = start});
    call.fn = answers;
    call.arg = &code;
    call.arg_size = sizeof code;
    call.user = &status;
    assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND),
               code == 0 ? MPROC_OK : MPROC_ETASK);
    end_of(p);
    return status;
}

/* Whichever of the two it has. */
static void who_applies_is_called_back(void **state)
{
    (void)state;
    const int starts[] = {MPROC_START_FORK, MPROC_START_THREAD};
    mproc_call good = {.callback = note}, bad = {.error_callback = note};
    for (int i = 0; i < 2; i++) {
        assert_err(called_with(good, 0, starts[i]), MPROC_OK);
        assert_err(called_with(bad, 1, starts[i]), MPROC_ETASK);
        assert_int_equal(called_with(good, 1, starts[i]), NOT_CALLED);
        assert_int_equal(called_with(bad, 0, starts[i]), NOT_CALLED);
    }
}

/* ---- deadlines of apply ----------------------------------------------- */

struct meeting {
    mproc_queue *here, *gate;
};

static int comes_and_waits(const void *arg, size_t size, mproc_reply *reply)
{
    const struct meeting *m = arg;
    (void)size;
    (void)reply;
    mproc_queue_put(m->here, NULL, 0, MPROC_FOREVER);
    return mproc_queue_get(m->gate, NULL, 0, NULL, MPROC_FOREVER);
}

struct caller {
    mproc_pool *p;
    struct meeting m;
    int err;
};

static void *applies(void *user)
{
    struct caller *c = user;
    mproc_call call = {.fn = comes_and_waits, MPROC_ARG(c->m)};
    c->err = mproc_pool_apply(c->p, &call, NULL, 0, mproc_in_ms(300));
    return NULL;
}

/* A thread goes on when it is told to stop: its record is not free yet. */
static void a_cancelled_task_has_not_ended(void **state)
{
    (void)state;
    pthread_t thread;
    struct caller c = {.m = {queue(), queue()}};
    c.p =
        pool_with((mproc_pool_opts){.workers = 1, .start = MPROC_START_THREAD});
    assert_int_equal(pthread_create(&thread, NULL, applies, &c), 0);
    assert_ok(mproc_queue_get(c.m.here, NULL, 0, NULL, TEST_BOUND));
    assert_ok(mproc_pool_terminate(c.p));
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_err(c.err, MPROC_ETIMEDOUT);
    assert_err(mproc_pool_join(c.p, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    open_gate(c.m.gate, 1);
    end_of(c.p);
    mproc_queue_free(c.m.here);
    mproc_queue_free(c.m.gate);
}

/* ---- arguments -------------------------------------------------------- */

/* All of it is `x`, up to its NUL. */
static int is_whole(const void *arg, size_t size, mproc_reply *reply)
{
    (void)reply;
    return strlen(arg) == size && strspn(arg, "x") == size ? 0 : -1;
}

enum { ITEM = 16 };

/* Where such arguments were: each has its own NUL. */
static void expect_whole_items(mproc_pool *p, const char *in, size_t count)
{
    mproc_batch b = {.fn = is_whole,
                     .in = in,
                     .in_size = ITEM,
                     .count = count,
                     .chunk = count};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
}

/* Whatever lies behind it, which is there before or comes after. */
static void arguments_lie_apart(void **state)
{
    enum { CALLS = 64, MOST = 2048 };
    static char arg[MOST];
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_queue *gate = queue();
    memset(arg, 'x', sizeof arg);
    for (size_t size = ITEM; size <= MOST; size += ITEM) {
        mproc_result *first =
            sent(p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
        mproc_result *r[CALLS];
        for (int i = 0; i < CALLS; i++) {
            r[i] = sent(
                p, (mproc_call){.fn = is_whole, .arg = arg, .arg_size = size});
        }
        open_gate(gate, 1);
        for (int i = 0; i < CALLS; i++) {
            assert_ok(mproc_result_get(r[i], NULL, 0, NULL, TEST_BOUND));
            mproc_result_free(r[i]);
        }
        mproc_result_free(first);
        expect_whole_items(p, arg, size / ITEM);
    }
    end_of(p);
    mproc_queue_free(gate);
}

/* ---- replies ---------------------------------------------------------- */

/* An odd number has a square. */
static int squares_odd(const void *arg, size_t size, mproc_reply *reply)
{
    return *(const int *)arg % 2 != 0 ? squares(arg, size, reply) : 0;
}

/* What the same worker has said before is not its reply. */
static void who_says_nothing_has_no_reply(void **state)
{
    (void)state;
    const int in[] = {1, 2, 3};
    int out[3], status[3];
    mproc_pool *p = pool_of(1);
    for (int i = 0; i < 3; i++) {
        mproc_result *r =
            sent(p, (mproc_call){.fn = squares_odd, MPROC_ARG(in[i])});
        assert_ok(mproc_result_wait(r, TEST_BOUND));
        const mproc_outcome *o = mproc_result_outcome(r);
        assert_ok(o->status);
        assert_int_equal(o->size, in[i] % 2 != 0 ? sizeof(int) : 0);
        assert_non_null(o->data);
        mproc_result_free(r);
    }
    mproc_batch b = {.fn = squares_odd,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = 3,
                     .out = out,
                     .out_size = sizeof *out,
                     .status = status,
                     .chunk = 3};
    assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EMSGSIZE);
    for (int i = 0; i < 3; i++) {
        assert_err(status[i], in[i] % 2 != 0 ? MPROC_OK : MPROC_EMSGSIZE);
    }
    mproc_iter *it;
    const mproc_outcome *o;
    b.out = NULL;
    b.status = NULL;
    assert_ok(mproc_pool_imap(p, &b, &it));
    for (int i = 0; i < 3; i++) {
        assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
        assert_ok(o->status);
        assert_int_equal(o->size, in[i] % 2 != 0 ? sizeof(int) : 0);
        assert_memory_equal(o->data, &(int){in[i] * in[i]}, o->size);
    }
    mproc_iter_free(it);
    end_of(p);
}

/* As many bytes as its argument says. */
static int says_many(const void *arg, size_t size, mproc_reply *reply)
{
    size_t many = *(const size_t *)arg;
    (void)size;
    char *bytes = mproc_reply_reserve(reply, many);
    if (bytes == NULL || bytes[many] != '\0') {
        return -1;
    }
    memset(bytes, '7', many);
    return 0;
}

/* Also none, and as many as there was room for up to the NUL. */
static void replies_grow_from_nothing(void **state)
{
    (void)state;
    const size_t in[] = {0, 1, 64, 65, 128, 129, 193};
    enum { COUNT = sizeof in / sizeof *in };
    char out[COUNT];
    int status[COUNT];
    mproc_pool *p = pool_of(1);
    mproc_batch b = {.fn = says_many,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = COUNT,
                     .out = out,
                     .out_size = 1,
                     .status = status,
                     .chunk = COUNT};
    assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EMSGSIZE);
    for (int i = 0; i < COUNT; i++) {
        assert_err(status[i], in[i] == 1 ? MPROC_OK : MPROC_EMSGSIZE);
    }
    assert_int_equal(out[1], '7');
    end_of(p);
}

/* Each has its own NUL, whatever lies behind it. */
static void replies_lie_apart(void **state)
{
    enum { CALLS = 64, MOST = 2048 };
    static char whole[MOST];
    (void)state;
    mproc_pool *p = pool_of(1);
    memset(whole, '7', sizeof whole);
    for (size_t size = ITEM; size <= MOST; size += ITEM) {
        mproc_result *r[CALLS];
        for (int i = 0; i < CALLS; i++) {
            r[i] = sent(p, (mproc_call){.fn = says_many, MPROC_ARG(size)});
        }
        for (int i = 0; i < CALLS; i++) {
            assert_ok(mproc_result_wait(r[i], TEST_BOUND));
        }
        for (int i = 0; i < CALLS; i++) {
            const mproc_outcome *o = mproc_result_outcome(r[i]);
            assert_ok(o->status);
            assert_int_equal(o->size, size);
            assert_int_equal(strlen(o->data), size);
            assert_memory_equal(o->data, whole, size);
            mproc_result_free(r[i]);
        }
    }
    end_of(p);
}

/* ---- refusals --------------------------------------------------------- */

static void what_is_refused_leaves_nothing(void **state)
{
    (void)state;
    mproc_result *r;
    mproc_pool *p = pool_of(1);
    mproc_call call = {.fn = does_nothing};
    assert_ok(mproc_pool_close(p));
    assert_err(mproc_pool_apply_async(p, &call, &r, TEST_BOUND),
               MPROC_ESHUTDOWN);
    end_of(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(who_applies_is_called_back),
        CLEAN(a_cancelled_task_has_not_ended),
        CLEAN(arguments_lie_apart),
        CLEAN(who_says_nothing_has_no_reply),
        CLEAN(replies_grow_from_nothing),
        CLEAN(replies_lie_apart),
        CLEAN(what_is_refused_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
