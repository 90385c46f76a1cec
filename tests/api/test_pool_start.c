/* SPDX-License-Identifier: MIT */
/* Workers that cannot begin: initializers that fail, at the start or later. */
#include "pool_kin.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { START_TRIES = 3 }; /* a worker, as the pool promises */

/* How an initializer ends in those calls that are to go wrong. */
enum way {
    FAILS,
    EXITS,
    EXITS_AT_ONCE,
    ABORTS,
    IS_KILLED,
#ifndef __SANITIZE_THREAD__ /* such a process never ends under it */
    ENDS_THREAD,
#endif
    WAYS
};

/* In the shared heap, so that all calls are counted. */
struct trouble {
    _Atomic int calls;
    int first, last; /* from which call to which it is there */
    enum way way;
};

static int makes_trouble(void *arg)
{
    struct trouble *t = *(struct trouble **)arg;
    int call = atomic_fetch_add(&t->calls, 1);
    if (call < t->first || call > t->last) {
        return 0;
    }
    switch (t->way) {
    case EXITS:
        exit(0);
    case EXITS_AT_ONCE:
        _exit(3);
    case ABORTS:
        abort();
    case IS_KILLED:
        return raise(SIGKILL);
#ifndef __SANITIZE_THREAD__
    case ENDS_THREAD:
        pthread_exit(NULL);
#endif
    default:
        return MPROC_EAGAIN; /* a code as any other */
    }
}

static struct trouble *trouble(enum way way, int first, int last)
{
    struct trouble *t = mproc_calloc(1, sizeof *t);
    assert_non_null(t);
    t->way = way;
    t->first = first;
    t->last = last;
    return t;
}

static mproc_pool_opts opts_of(struct trouble **t, size_t workers)
{
    return (mproc_pool_opts){
        .workers = workers, .initializer = makes_trouble, .initializer_arg = t};
}

/* ---- at the start ----------------------------------------------------- */

static void expect_no_start(mproc_pool_opts opts, enum way way, int first,
                            int last)
{
    mproc_pool *p = NULL;
    struct trouble *t = trouble(way, first, last);
    opts.initializer = makes_trouble;
    opts.initializer_arg = &t;
    assert_err(mproc_pool_new(&p, &opts),
               way == FAILS ? MPROC_ETASK : MPROC_EWORKERLOST);
    assert_null(p);
    await_nobody();
    assert_in_range(t->calls, first + 1, START_TRIES * opts.workers);
    mproc_free(t);
}

static void an_initializer_that_always_fails_fails_the_start(void **state)
{
    (void)state;
    for (int i = 0; i < WAYS; i++) {
        for (size_t workers = 1; workers <= 4; workers += 3) {
            mproc_pool_opts opts = {.workers = workers};
            expect_no_start(opts, (enum way)i, 0, INT_MAX);
            opts.manual_dispatch = 1;
            expect_no_start(opts, (enum way)i, 0, INT_MAX);
        }
    }
    mproc_pool_opts threads = {.workers = 4, .start = MPROC_START_THREAD};
    expect_no_start(threads, FAILS, 0, INT_MAX);
}

static void so_does_one_that_fails_once(void **state)
{
    (void)state;
    for (int i = 0; i < WAYS; i++) {
        for (int bad = 0; bad < 4; bad++) {
            expect_no_start((mproc_pool_opts){.workers = 4}, (enum way)i, bad,
                            bad);
        }
    }
}

/* ---- later ------------------------------------------------------------ */

static void await_calls(struct trouble *t, int calls)
{
    for (int i = 0; i < 3000 && t->calls < calls; i++) {
        usleep(10000);
    }
    assert_true(t->calls >= calls);
}

static void expect_squares(mproc_pool *p, int count)
{
    for (int i = 0; i < count; i++) {
        int out;
        assert_ok(mproc_pool_apply(p, &(mproc_call){squares, MPROC_ARG(i)},
                                   &out, sizeof out, TEST_BOUND));
        assert_int_equal(out, i * i);
    }
}

/*
 * What is asked for is tried again, but not for ever: some of the last tries
 * are at the same time.
 */
static void expect_lives_on(enum way way)
{
    enum { WORKERS = 2, LATER = 3, MORE = 5 };
    struct trouble *t = trouble(way, WORKERS, INT_MAX);
    mproc_pool *p = pool_with(opts_of(&t, WORKERS));
    pid_t pid[WORKERS];
    mproc_pool_worker_pids(p, pid, WORKERS);
    kill(pid[0], SIGKILL);
    int least = WORKERS + START_TRIES * WORKERS, most = least + WORKERS;
    await_calls(t, least);
    for (int wanted = WORKERS; wanted <= LATER; wanted++) {
        expect_workers(p, 1);
        expect_squares(p, 20);
        least = t->calls + 1;
        assert_ok(mproc_pool_resize(p, (size_t)wanted));
        most += START_TRIES * wanted + wanted;
        await_calls(t, least);
    }
    expect_workers(p, 1);
    expect_squares(p, 20);
    assert_in_range(t->calls, least, most);
    t->first = INT_MAX;
    assert_ok(mproc_pool_resize(p, MORE));
    expect_workers(p, MORE);
    expect_squares(p, 20);
    end_of(p);
    mproc_free(t);
}

static void one_that_fails_later_costs_workers(void **state)
{
    (void)state;
    for (int i = 0; i < WAYS; i++) {
        expect_lives_on((enum way)i);
    }
}

struct meeting {
    mproc_queue *here, *gate;
};

/* Says its pid before it waits. */
static int comes_and_waits(const void *arg, size_t size, mproc_reply *reply)
{
    const struct meeting *m = arg;
    pid_t pid = getpid();
    (void)size;
    (void)reply;
    mproc_queue_put(m->here, &pid, sizeof pid, MPROC_FOREVER);
    return mproc_queue_get(m->gate, NULL, 0, NULL, MPROC_FOREVER);
}

static void expect_breaks(enum way way, int workers)
{
    enum { TASKS = 9 };
    struct trouble *t = trouble(way, workers, INT_MAX);
    struct meeting m = {queue(), queue()};
    mproc_pool *p = pool_with(opts_of(&t, (size_t)workers));
    mproc_call call = {.fn = comes_and_waits, MPROC_ARG(m)};
    mproc_result *r[TASKS];
    int lost = 0, broken = 0;
    for (int i = 0; i < TASKS; i++) {
        r[i] = sent(p, call);
    }
    for (int i = 0; i < workers; i++) {
        pid_t pid;
        assert_ok(mproc_queue_get(m.here, &pid, sizeof pid, NULL, TEST_BOUND));
        kill(pid, SIGKILL);
    }
    for (int i = 0; i < TASKS; i++) {
        int err = mproc_result_get(r[i], NULL, 0, NULL, TEST_BOUND);
        lost += err == MPROC_EWORKERLOST;
        broken += err == MPROC_EBROKEN;
        mproc_result_free(r[i]);
    }
    assert_int_equal(lost, workers);
    assert_int_equal(broken, TASKS - workers);
    assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND), MPROC_EBROKEN);
    assert_err(mproc_pool_resize(p, 1), MPROC_EBROKEN);
    assert_in_range(t->calls, workers + 1, (2 + START_TRIES) * workers);
    end_of(p);
    mproc_free(t);
    mproc_queue_free(m.here);
    mproc_queue_free(m.gate);
}

static void without_any_worker_the_pool_is_broken(void **state)
{
    (void)state;
    for (int i = 0; i < WAYS; i++) {
        expect_breaks((enum way)i, 1 + i % 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(an_initializer_that_always_fails_fails_the_start),
        CLEAN(so_does_one_that_fails_once),
        CLEAN(one_that_fails_later_costs_workers),
        CLEAN(without_any_worker_the_pool_is_broken),
    };
    return cmocka_run_group_tests_name("pool_start", tests, adopt_orphans,
                                       NULL);
}
