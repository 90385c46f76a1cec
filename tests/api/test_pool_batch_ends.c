/* SPDX-License-Identifier: MIT */
/* Batches that are cancelled, by deadlines and callbacks too, or freed. */
#include "pool_tasks.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

enum { MANY = 20 };

struct told {
    mproc_pool *p;
    mproc_result *r;
    void *in;
    int good, bad, err;
};

/* The first one cancels the others, of which none was sent. */
static void cancel_the_rest(const mproc_outcome *o, void *user)
{
    struct told *told = user;
    if (told->good + told->bad == 0) {
        told->err = mproc_result_cancel(told->r);
    }
    told->good += o->status == MPROC_OK;
    told->bad += o->status == MPROC_ECANCELED;
}

static void the_first_bad_item_may_be_one_that_was_not_sent(void **state)
{
    (void)state;
    struct told told = {.p = pool_of(1), .err = 1};
    int in[MANY] = {0}, status[MANY];
    mproc_pool_info info;
    mproc_batch b = {.fn = squares,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = MANY,
                     .status = status,
                     .chunk = 1,
                     .window = 1,
                     .on_item = cancel_the_rest,
                     .user = &told};
    assert_ok(mproc_pool_map_async(told.p, &b, &told.r));
    assert_err(mproc_result_get(told.r, NULL, 0, NULL, TEST_BOUND),
               MPROC_ECANCELED);
    const mproc_outcome *o = mproc_result_outcome(told.r);
    assert_int_equal(o->index, 1);
    assert_string_equal(o->error, mproc_strerror(MPROC_ECANCELED));
    assert_ok(told.err);
    assert_int_equal(told.good, 1);
    assert_int_equal(told.bad, MANY - 1);
    for (int i = 0; i < MANY; i++) {
        assert_err(status[i], i == 0 ? MPROC_OK : MPROC_ECANCELED);
    }
    mproc_result_free(told.r);
    assert_ok(mproc_pool_stats(told.p, &info));
    assert_int_equal(info.done, 1);
    assert_int_equal(info.failed, MANY - 1);
    assert_int_equal(info.queued + info.running, 0);
    end_of(told.p);
}

/* What a deadline ends is told by it, also where items have failed. */
static int next_item(void *user, const void **item, size_t *size)
{
    mproc_queue ***in = user;
    *item = (*in)++;
    *size = sizeof **in;
    return 0;
}

static int fails_or_stays(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_queue *here = *(mproc_queue *const *)arg;
    return here == NULL ? 5 : stays(arg, size, reply);
}

static void a_deadline_is_told_before_bad_items(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    mproc_queue *here = queue(), *in[4] = {NULL, here, here, here}, **at = in;
    int status[4];
    mproc_batch b = {.fn = fails_or_stays,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = 4,
                     .status = status,
                     .chunk = 1};
    assert_err(mproc_pool_map(p, &b, mproc_in_ms(200)), MPROC_ETIMEDOUT);
    assert_err(status[0], MPROC_ETASK);
    assert_err(status[1], MPROC_ECANCELED);
    b.in = NULL;
    b.next = next_item;
    b.user = &at;
    assert_err(mproc_pool_map(p, &b, mproc_in_ms(200)), MPROC_ETIMEDOUT);
    end_of(p);
    mproc_queue_free(here);
}

/* ---- batches that callbacks free -------------------------------------- */

static void free_batch(const mproc_outcome *o, void *user)
{
    struct told *told = user;
    (void)o;
    mproc_result_free(told->r);
    told->r = NULL;
}

static void items_of_a_freed_batch_are_counted(void **state)
{
    (void)state;
    struct told told = {.p = pool_of(1)};
    int in[MANY] = {0};
    mproc_pool_info info;
    mproc_batch b = {.fn = squares,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = MANY,
                     .chunk = 4,
                     .on_item = free_batch,
                     .user = &told};
    assert_ok(mproc_pool_map_async(told.p, &b, &told.r));
    assert_ok(mproc_pool_close(told.p));
    assert_ok(mproc_pool_join(told.p, TEST_BOUND));
    assert_null(told.r);
    assert_ok(mproc_pool_stats(told.p, &info));
    assert_int_equal(info.queued + info.running, 0);
    assert_true(info.done + info.failed >= 4);
    mproc_pool_free(told.p);
}

enum { LARGE = 1 << 20, PAGES = 60 };

/* Its items are no longer the pool's: another may have the memory. */
static void free_batch_and_items(const mproc_outcome *o, void *user)
{
    struct told *told = user;
    free_batch(o, told);
    mprotect(told->in, (size_t)LARGE * PAGES, PROT_NONE);
}

/* The callback comes while the others are still being copied. */
static void a_batch_may_be_freed_while_it_is_sent(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct told told = {.p = pool_of(1)};
        told.in = mmap(NULL, (size_t)LARGE * PAGES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(told.in, MAP_FAILED);
        mproc_batch b = {.fn = does_nothing,
                         .in = told.in,
                         .in_size = LARGE,
                         .count = PAGES,
                         .chunk = 1,
                         .on_item = free_batch_and_items,
                         .user = &told};
        assert_ok(mproc_pool_map_async(told.p, &b, &told.r));
        end_of(told.p);
        assert_null(told.r);
        munmap(told.in, (size_t)LARGE * PAGES);
    }
}

/* Only the death of all workers tells that nobody touches its arrays. */
static void kill_nursery_and_free_batch(const mproc_outcome *o, void *user)
{
    struct told *told = user;
    assert_int_equal(kill((pid_t)o->code, SIGKILL), 0);
    free_batch(o, user);
    told->good++;
}

static int fails_with_nursery(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    return mproc_reply_fail(reply, getppid(), "so");
}

static void a_batch_may_be_freed_when_the_nursery_is_dead(void **state)
{
    (void)state;
    struct told told = {.p = pool_of(2)};
    mproc_queue *here = queue(), *in[2] = {here, here};
    pid_t pid;
    mproc_call call = {.fn = fails_with_nursery,
                       .error_callback = kill_nursery_and_free_batch,
                       .user = &told};
    mproc_batch b = {
        .fn = stays, .in = in, .in_size = sizeof in[0], .count = 1};
    assert_ok(mproc_pool_map_async(told.p, &b, &told.r));
    assert_ok(mproc_queue_get(here, &pid, sizeof pid, NULL, TEST_BOUND));
    assert_ok(mproc_pool_apply_async(told.p, &call, NULL, TEST_BOUND));
    end_of(told.p);
    assert_int_equal(told.good, 1);
    assert_null(told.r);
    mproc_queue_free(here);
}

/* A thread goes on with its item until it has returned. */
static _Atomic int come, gone;

static int returns_a_little_later(const void *arg, size_t size,
                                  mproc_reply *reply)
{
    (void)arg;
    (void)size;
    come = 1;
    while (!mproc_task_canceled()) {
        usleep(1000);
    }
    usleep(20000);
    gone = 1;
    return mproc_reply_set(reply, "late", 4);
}

static void free_batch_of_threads(const mproc_outcome *o, void *user)
{
    struct told *told = user;
    while (!come) {
        usleep(1000);
    }
    free_batch(o, user);
    told->good = gone;
}

static void a_batch_of_threads_may_be_freed_in_a_callback(void **state)
{
    (void)state;
    struct told told = {.p = pool_with((mproc_pool_opts){
                            .workers = 2, .start = MPROC_START_THREAD})};
    char in = 0, out[4];
    come = gone = 0;
    mproc_call call = {
        .fn = does_nothing, .callback = free_batch_of_threads, .user = &told};
    mproc_batch b = {.fn = returns_a_little_later,
                     .in = &in,
                     .in_size = 1,
                     .count = 1,
                     .out = out,
                     .out_size = sizeof out};
    assert_ok(mproc_pool_map_async(told.p, &b, &told.r));
    assert_ok(mproc_pool_apply_async(told.p, &call, NULL, TEST_BOUND));
    end_of(told.p);
    assert_int_equal(told.good, 1);
}

static void map_in_callback(const mproc_outcome *o, void *user)
{
    struct told *told = user;
    mproc_batch b = {.fn = does_nothing, .in = user, .in_size = 1, .count = 1};
    (void)o;
    told->err = mproc_pool_map(told->p, &b, TEST_BOUND);
    told->good++;
}

/* Nothing is run for it. */
static void a_callback_may_not_map(void **state)
{
    (void)state;
    struct told told = {.p = pool_of(1)};
    mproc_pool_info info;
    mproc_call call = {
        .fn = does_nothing, .callback = map_in_callback, .user = &told};
    assert_ok(mproc_pool_apply_async(told.p, &call, NULL, TEST_BOUND));
    assert_ok(mproc_pool_close(told.p));
    assert_ok(mproc_pool_join(told.p, TEST_BOUND));
    assert_int_equal(told.good, 1);
    assert_err(told.err, MPROC_EDEADLK);
    assert_ok(mproc_pool_stats(told.p, &info));
    assert_int_equal(info.done + info.failed, 1);
    mproc_pool_free(told.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(the_first_bad_item_may_be_one_that_was_not_sent),
        CLEAN(a_deadline_is_told_before_bad_items),
        CLEAN(items_of_a_freed_batch_are_counted),
        CLEAN(a_batch_may_be_freed_while_it_is_sent),
        CLEAN(a_batch_may_be_freed_when_the_nursery_is_dead),
        CLEAN(a_batch_of_threads_may_be_freed_in_a_callback),
        CLEAN(a_callback_may_not_map),
    };
    return cmocka_run_group_tests_name("pool_batch_ends", tests, NULL, NULL);
}
