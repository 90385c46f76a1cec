/* SPDX-License-Identifier: MIT */
/*
 * What a pool refuses in whatever phase it is: nothing runs, nothing is stored,
 * nobody is called. And functions that its workers do not have.
 */
#include "pool_tasks.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- every call in every phase ---------------------------------------- */

struct seen {
    _Atomic int *ran; /* in the shared heap */
    int told;         /* of how many ends */
    int asked;        /* how often for an item */
};

static int runs(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    (**(_Atomic int *const *)arg)++;
    return 0;
}

static void note(const mproc_outcome *o, void *user)
{
    (void)o;
    ((struct seen *)user)->told++;
}

static int give_none(void *user, const void **item, size_t *size)
{
    (void)item;
    (void)size;
    ((struct seen *)user)->asked++;
    return MPROC_EOF;
}

static mproc_batch batch_of(struct seen *seen)
{
    return (mproc_batch){.fn = runs,
                         .in = &seen->ran,
                         .in_size = sizeof seen->ran,
                         .count = 1,
                         .on_item = note,
                         .user = seen};
}

/* All but join and those that end the pool; none may store or call anything. */
static void expect_refused(mproc_pool *p, int err)
{
    struct seen seen = {.ran = mproc_calloc(1, sizeof *seen.ran)};
    mproc_call call = {.fn = runs,
                       MPROC_ARG(seen.ran),
                       .callback = note,
                       .error_callback = note,
                       .user = &seen};
    mproc_batch b = batch_of(&seen), lazy = batch_of(&seen);
    mproc_result *const no_result = (mproc_result *)&seen, *r = no_result;
    mproc_iter *const no_iter = (mproc_iter *)&seen, *it = no_iter;
    char out = 'x';
    lazy.in = NULL;
    lazy.next = give_none;
    assert_err(mproc_pool_apply(p, &call, &out, 1, TEST_BOUND), err);
    assert_err(mproc_pool_apply_async(p, &call, &r, TEST_BOUND), err);
    assert_err(mproc_pool_apply_async(p, &call, NULL, TEST_BOUND), err);
    assert_err(mproc_pool_map(p, &b, TEST_BOUND), err);
    assert_err(mproc_pool_map(p, &lazy, TEST_BOUND), err);
    assert_err(mproc_pool_map_async(p, &b, &r), err);
    assert_err(mproc_pool_imap(p, &b, &it), err);
    assert_err(mproc_pool_imap(p, &lazy, &it), err);
    assert_err(mproc_pool_imap_unordered(p, &b, &it), err);
    assert_err(mproc_pool_imap_unordered(p, &lazy, &it), err);
    assert_err(mproc_pool_resize(p, 3), err);
    assert_ptr_equal(r, no_result);
    assert_ptr_equal(it, no_iter);
    assert_int_equal(out, 'x');
    assert_int_equal(*seen.ran, 0);
    assert_int_equal(seen.told + seen.asked, 0);
    mproc_free((void *)seen.ran);
}

static void expect_ended(mproc_pool_opts opts, int (*end)(mproc_pool *p))
{
    mproc_pool *p = pool_with(opts);
    mproc_queue *gate = queue();
    mproc_result *r = sent(p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
    assert_err(mproc_pool_join(p, TEST_BOUND), MPROC_EINVAL);
    assert_ok(end(p));
    expect_refused(p, MPROC_ESHUTDOWN); /* while a task runs */
    assert_ok(mproc_queue_put(gate, NULL, 0, MPROC_FOREVER));
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    expect_refused(p, MPROC_ESHUTDOWN);
    assert_ok(end(p));
    assert_ok(mproc_pool_join(p, MPROC_NOWAIT));
    mproc_result_free(r);
    mproc_pool_free(p);
    expect_refused(p, MPROC_EINVAL);
    assert_err(end(p), MPROC_EINVAL);
    assert_err(mproc_pool_join(p, TEST_BOUND), MPROC_EINVAL);
    mproc_queue_free(gate);
}

static void who_has_ended_takes_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        mproc_pool_opts opts = {.workers = 2,
                                .manual_dispatch = i == 1,
                                .start = i == 2 ? MPROC_START_THREAD
                                                : MPROC_START_FORK};
        expect_ended(opts, mproc_pool_close);
        expect_ended(opts, mproc_pool_terminate);
    }
}

/* ---- sizes ------------------------------------------------------------ */

/* Some products are small again when their carry is lost. */
static void no_array_is_larger_than_memory(void **state)
{
    (void)state;
    const size_t huge = SIZE_MAX / 8 + 2; /* 8 * huge is 8 */
    const struct {
        size_t count, in_size, out_size;
    } sizes[] = {
        {huge, 8, 0},     {8, huge, 0},     {huge, 0, 8},
        {8, 0, huge},     {huge, 8, 8},     {SIZE_MAX, 8, 0},
        {SIZE_MAX, 0, 8}, {SIZE_MAX, 0, 0}, {huge, 0, 0},
        {2, SIZE_MAX, 0}, {2, 0, SIZE_MAX}, {SIZE_MAX, SIZE_MAX, SIZE_MAX},
        {1, SIZE_MAX, 0}, {1, 0, SIZE_MAX},
    };
    mproc_pool *p = pool_of(1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct seen seen = {.ran = mproc_calloc(8, sizeof *seen.ran)};
        mproc_batch b = batch_of(&seen);
        mproc_result *r = NULL;
        mproc_iter *it = NULL;
        b.count = sizes[i].count;
        b.in_size = sizes[i].in_size;
        b.out_size = sizes[i].out_size;
        b.out = b.out_size > 0 ? (void *)seen.ran : NULL;
        assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EINVAL);
        assert_err(mproc_pool_map_async(p, &b, &r), MPROC_EINVAL);
        assert_err(mproc_pool_imap(p, &b, &it), MPROC_EINVAL);
        assert_err(mproc_pool_imap_unordered(p, &b, &it), MPROC_EINVAL);
        assert_null(r);
        assert_null(it);
        assert_int_equal(*seen.ran + seen.told + seen.asked, 0);
        mproc_free((void *)seen.ran);
    }
    end_of(p);
}

/* ---- functions that were not there ------------------------------------ */

enum { PLUGIN_SAYS = 42 };

static mproc_task_fn *load(void **plugin)
{
    union { /* what dlsym returns is a function */
        void *data;
        mproc_task_fn *fn;
    } loaded;
    *plugin = dlopen(TEST_PLUGIN, RTLD_NOW);
    assert_non_null(*plugin);
    loaded.data = dlsym(*plugin, "plugin_task");
    assert_non_null(loaded.data);
    return loaded.fn;
}

/* The pool is as before. */
static void expect_lost(mproc_pool *p, mproc_task_fn *fn)
{
    int n = 6, out;
    mproc_result *r = sent(p, (mproc_call){.fn = fn, MPROC_ARG(n)});
    assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND),
               MPROC_EWORKERLOST);
    const mproc_outcome *o = mproc_result_outcome(r);
    char text[80];
    snprintf(text, sizeof text, "worker %d killed by signal 11 (SIGSEGV)",
             (int)o->worker);
    assert_int_equal(o->code, -SIGSEGV);
    assert_string_equal(o->error, text);
    mproc_result_free(r);
    mproc_call call = {.fn = squares, MPROC_ARG(n)};
    assert_ok(mproc_pool_apply(p, &call, &out, sizeof out, TEST_BOUND));
    assert_int_equal(out, 36);
}

static void expect_found(mproc_pool *p, mproc_task_fn *fn)
{
    int n = 0;
    mproc_result *r = sent(p, (mproc_call){.fn = fn, MPROC_ARG(n)});
    assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND), MPROC_ETASK);
    assert_int_equal(mproc_result_outcome(r)->code, PLUGIN_SAYS);
    mproc_result_free(r);
}

static void a_function_loaded_later_is_not_in_the_workers(void **state)
{
    (void)state;
    void *plugin;
    void (*handler)(int) = signal(SIGSEGV, SIG_DFL); /* the test runner's */
    mproc_pool *early = pool_of(2), *threads;
    threads =
        pool_with((mproc_pool_opts){.workers = 1, .start = MPROC_START_THREAD});
    mproc_task_fn *fn = load(&plugin);
    mproc_pool *late = pool_of(2);
    for (int i = 0; i < 3; i++) {
        expect_lost(early, fn);
        expect_found(late, fn);
        expect_found(threads, fn);
    }
    end_of(early);
    end_of(late);
    end_of(threads);
    dlclose(plugin);
    signal(SIGSEGV, handler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(who_has_ended_takes_nothing),
        CLEAN(no_array_is_larger_than_memory),
        CLEAN(a_function_loaded_later_is_not_in_the_workers),
    };
    return cmocka_run_group_tests_name("pool_refusals", tests, NULL, NULL);
}
