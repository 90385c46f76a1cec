/* SPDX-License-Identifier: MIT */
/* Pools whose workers are threads of their maker. */
#include "pool_support.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pool_tasks.h"

static mproc_pool *threads_with(mproc_pool_opts opts)
{
    opts.start = MPROC_START_THREAD;
    return pool_with(opts);
}

static mproc_pool *threads_of(size_t workers)
{
    return threads_with((mproc_pool_opts){.workers = workers});
}

/* ---- tasks ------------------------------------------------------------ */

/* Where it runs: threads of one process share all. */
struct where {
    pid_t pid, tid;
    void *own; /* address of a thread's own */
};

static _Thread_local int mine;
static _Atomic int runs;

static int tells_where(const void *arg, size_t size, mproc_reply *reply)
{
    struct where where = {getpid(), (pid_t)syscall(SYS_gettid), &mine};
    (void)arg;
    (void)size;
    runs++;
    return mproc_reply_set(reply, &where, sizeof where);
}

struct gate {
    _Atomic int come, open, told, gone;
};

/* Until the gate is open, whatever it is told. */
static int waits(const void *arg, size_t size, mproc_reply *reply)
{
    struct gate *gate = *(struct gate *const *)arg;
    (void)size;
    gate->come++;
    while (!gate->open) {
        usleep(1000);
        gate->told |= mproc_task_canceled();
    }
    mproc_reply_set(reply, "never seen, and too long for the record", 40);
    mproc_reply_fail(reply, 3, "never %s", "seen");
    mproc_reply_set(reply, "late", 5);
    gate->gone++;
    return 0;
}

static int waits_until_told(const void *arg, size_t size, mproc_reply *reply)
{
    struct gate *gate = *(struct gate *const *)arg;
    (void)size;
    gate->come++;
    while (!mproc_task_canceled()) {
        usleep(1000);
    }
    gate->gone++;
    return mproc_reply_set(reply, "late", 5);
}

static void await(_Atomic int *what, int count)
{
    for (int i = 0; i < 30000 && *what < count; i++) {
        usleep(1000);
    }
    assert_true(*what >= count);
}

static int ends_its_thread(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    pthread_exit(NULL);
}

static void expect_works(mproc_pool *p)
{
    for (int i = 0; i < 10; i++) {
        int out;
        mproc_call call = {.fn = squares, MPROC_ARG(i)};
        assert_ok(mproc_pool_apply(p, &call, &out, sizeof out, TEST_BOUND));
        assert_int_equal(out, i * i);
    }
}

static void ends_and_is_freed(mproc_result *r, int status)
{
    expect_ends(r, status);
    mproc_result_free(r);
}

/* ---- what is as ever -------------------------------------------------- */

static void tasks_run_in_threads_of_the_maker(void **state)
{
    (void)state;
    mproc_pool *p = threads_of(3);
    struct where where;
    pid_t tids[4];
    mproc_call call = {.fn = tells_where};
    runs = 0;
    assert_int_equal(mproc_pool_worker_pids(p, tids, 4), 3);
    for (int i = 0; i < 20; i++) {
        assert_ok(mproc_pool_apply(p, &call, &where, sizeof where, TEST_BOUND));
        assert_int_equal(where.pid, getpid());
        assert_int_not_equal(where.tid, getpid());
        assert_ptr_not_equal(where.own, &mine);
    }
    assert_int_equal(runs, 20);
    mproc_result *r = sent(p, call);
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    const mproc_outcome *o = mproc_result_outcome(r);
    assert_int_equal(((const struct where *)o->data)->tid, o->worker);
    mproc_result_free(r);
    end_of(p);
}

static void count_good(const mproc_outcome *o, void *user)
{
    *(int *)user += o->status == MPROC_OK;
}

static void map_and_imap_work(void **state)
{
    (void)state;
    enum { ITEMS = 1000 };
    mproc_pool *p = threads_of(3);
    int in[ITEMS], out[ITEMS], status[ITEMS], good = 0;
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
    }
    mproc_batch b = {.fn = squares,
                     .in = in,
                     .in_size = sizeof(int),
                     .count = ITEMS,
                     .out = out,
                     .out_size = sizeof(int),
                     .status = status,
                     .on_item = count_good,
                     .user = &good};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    assert_int_equal(good, ITEMS);
    for (int i = 0; i < ITEMS; i++) {
        assert_int_equal(out[i], i * i);
        assert_ok(status[i]);
    }
    mproc_iter *it;
    const mproc_outcome *o;
    b = (mproc_batch){
        .fn = squares, .in = in, .in_size = sizeof(int), .count = ITEMS};
    assert_ok(mproc_pool_imap(p, &b, &it));
    for (int i = 0; i < ITEMS; i++) {
        assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
        assert_int_equal(*(const int *)o->data, i * i);
    }
    assert_err(mproc_iter_next(it, &o, TEST_BOUND), MPROC_EOF);
    mproc_iter_free(it);
    end_of(p);
}

static _Atomic int initialized;

static int initializes(void *arg)
{
    initialized++;
    return *(const int *)arg;
}

static void the_initializer_runs_in_each_thread(void **state)
{
    (void)state;
    int code = 0;
    mproc_pool *p = threads_with((mproc_pool_opts){
        .workers = 3, .initializer = initializes, .initializer_arg = &code});
    assert_int_equal(initialized, 3);
    expect_works(p);
    end_of(p);
    initialized = 0;
    code = 4;
    p = NULL;
    mproc_pool_opts opts = {.workers = 3,
                            .initializer = initializes,
                            .initializer_arg = &code,
                            .start = MPROC_START_THREAD};
    assert_err(mproc_pool_new(&p, &opts), MPROC_ETASK);
    assert_null(p);
    assert_in_range(initialized, 1, 9);
}

static void threads_are_replaced_after_their_tasks(void **state)
{
    (void)state;
    mproc_pool *p =
        threads_with((mproc_pool_opts){.workers = 1, .max_tasks_per_child = 2});
    mproc_pool_info info;
    mproc_call call = {.fn = tells_where};
    for (int i = 0; i < 8; i++) {
        assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    }
    expect_works(p);
    assert_ok(mproc_pool_stats(p, &info));
    assert_true(info.respawned >= 8);
    assert_int_equal(info.done, 18);
    end_of(p);
}

static void a_pool_of_threads_is_resized(void **state)
{
    (void)state;
    const size_t sizes[] = {4, 1, 9, 2};
    mproc_pool *p = threads_of(2);
    struct gate gate = {0}, *at = &gate;
    for (size_t i = 0; i < 4; i++) {
        assert_ok(mproc_pool_resize(p, sizes[i]));
        gate = (struct gate){0};
        for (size_t k = 0; k < sizes[i]; k++) {
            mproc_call call = {.fn = waits, MPROC_ARG(at)};
            assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
        }
        await(&gate.come, (int)sizes[i]); /* all at once */
        gate.open = 1;
        await(&gate.gone, (int)sizes[i]);
        expect_works(p);
    }
    assert_err(mproc_pool_resize(p, 0), MPROC_EINVAL);
    end_of(p);
}

/* ---- cancels ---------------------------------------------------------- */

static void a_cancel_only_tells(void **state)
{
    (void)state;
    mproc_pool *p = threads_of(1);
    struct gate gate = {0}, never = {0}, *at = &gate, *nowhere = &never;
    mproc_result *r = sent(p, (mproc_call){.fn = waits, MPROC_ARG(at)});
    mproc_result *queued =
        sent(p, (mproc_call){.fn = waits, MPROC_ARG(nowhere)});
    await(&gate.come, 1);
    assert_ok(mproc_result_cancel(queued));
    ends_and_is_freed(queued, MPROC_ECANCELED);
    assert_ok(mproc_result_cancel(r));
    assert_err(mproc_result_wait(r, mproc_in_ms(50)), MPROC_ETIMEDOUT);
    await(&gate.told, 1);
    gate.open = 1;
    ends_and_is_freed(r, MPROC_ECANCELED);
    expect_works(p);
    mproc_pool_info info;
    assert_ok(mproc_pool_stats(p, &info));
    assert_int_equal(info.respawned, 0);
    assert_int_equal(never.come, 0);
    end_of(p);
}

static void terminate_tells_what_runs(void **state)
{
    (void)state;
    mproc_pool *p = threads_of(2);
    struct gate gate = {0}, *at = &gate;
    mproc_result *r[5];
    for (int i = 0; i < 5; i++) {
        r[i] = sent(p, (mproc_call){.fn = waits_until_told, MPROC_ARG(at)});
    }
    await(&gate.come, 2);
    assert_ok(mproc_pool_terminate(p));
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    assert_int_equal(gate.come, 2);
    assert_int_equal(gate.gone, 2);
    for (int i = 0; i < 5; i++) {
        ends_and_is_freed(r[i], MPROC_ECANCELED);
    }
    mproc_pool_free(p);
}

/* ---- time ------------------------------------------------------------- */

static void a_task_over_its_time_is_abandoned(void **state)
{
    (void)state;
    mproc_pool *p = threads_of(2);
    struct gate gate = {0}, *at = &gate;
    for (int i = 1; i <= 5; i++) {
        mproc_call call = {.fn = waits, MPROC_ARG(at), .timeout_s = 0.05};
        mproc_result *r = sent(p, call);
        assert_ok(mproc_result_wait(r, TEST_BOUND));
        assert_non_null(strstr(mproc_result_outcome(r)->error, "ran too long"));
        ends_and_is_freed(r, MPROC_EOVERTIME);
        assert_int_equal(gate.gone, 0);
        expect_works(p); /* more are abandoned than there are workers */
        assert_int_equal(mproc_pool_worker_pids(p, NULL, 0), 2);
    }
    await(&gate.told, 1);
    gate.open = 1;
    await(&gate.gone, 5);
    expect_works(p);
    end_of(p);
}

/* Which outlives the pool. */
static void an_abandoned_thread_may_come_back_late(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct gate *gate = calloc(1, sizeof *gate);
        mproc_pool *p = threads_with(
            (mproc_pool_opts){.workers = 1, .manual_dispatch = i == 2});
        mproc_call call = {.fn = waits, MPROC_ARG(gate), .timeout_s = 0.05};
        assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND),
                   MPROC_EOVERTIME);
        if (i == 0) {
            end_of(p);
        } else {
            mproc_pool_free(p);
        }
        assert_err(mproc_pool_close(p), MPROC_EINVAL);
        mproc_pool *other = threads_of(1);
        expect_works(other);
        gate->open = 1;
        await(&gate->gone, 1);
        end_of(other);
        usleep(20000); /* it gives back what it had */
        free(gate);
    }
}

enum { SLOW = 1000 };
static struct gate items_gate;

static int squares_or_waits(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    struct gate *gate = &items_gate;
    if (n == SLOW) {
        return waits(&gate, sizeof gate, reply) || *(const int *)arg != SLOW;
    }
    return squares(arg, size, reply);
}

static void an_item_over_its_time_costs_no_other(void **state)
{
    (void)state;
    enum { ITEMS = 30 };
    mproc_pool *p = threads_of(2);
    for (int way = 0; way < 6; way++) {
        int in[ITEMS], out[ITEMS], status[ITEMS], good = 0;
        items_gate = (struct gate){0};
        for (int i = 0; i < ITEMS; i++) {
            in[i] = i % 10 == 4 ? SLOW : i;
        }
        mproc_batch b = {.fn = squares_or_waits,
                         .in = in,
                         .in_size = sizeof(int),
                         .count = ITEMS,
                         .out = way % 2 ? NULL : out,
                         .out_size = way % 2 ? 0 : sizeof(int),
                         .status = status,
                         .chunk = (size_t[]){1, 7, 30}[way / 2],
                         .timeout_s = 0.3,
                         .on_item = way % 2 ? count_good : NULL,
                         .user = &good};
        assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EOVERTIME);
        for (int i = 0; i < ITEMS; i++) {
            assert_err(status[i], in[i] == SLOW ? MPROC_EOVERTIME : MPROC_OK);
            assert_true(way % 2 || in[i] == SLOW || out[i] == i * i);
        }
        assert_int_equal(good, way % 2 ? ITEMS - 3 : 0);
        assert_int_equal(items_gate.gone, 0);
        items_gate.open = 1;
        await(&items_gate.gone, 3);
    }
    end_of(p);
}

/* ---- ends ------------------------------------------------------------- */

static void a_thread_that_ends_itself_loses_its_task(void **state)
{
    (void)state;
    mproc_pool *p = threads_of(1);
    mproc_call call = {.fn = ends_its_thread};
    for (int i = 0; i < 3; i++) {
        assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND),
                   MPROC_EWORKERLOST);
        expect_works(p);
    }
    end_of(p);
}

static void a_callback_may_free_its_pool(void **state)
{
    (void)state;
    mproc_pool *p = threads_of(2);
    struct gate gate = {0}, *at = &gate;
    int n = 2;
    mproc_result *r =
        sent(p, (mproc_call){.fn = waits_until_told, MPROC_ARG(at)});
    await(&gate.come, 1);
    mproc_call call = {
        .fn = squares, MPROC_ARG(n), .callback = free_it, .user = p};
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    ends_and_is_freed(r, MPROC_ECANCELED);
    for (int i = 0; i < 3000 && mproc_pool_close(p) != MPROC_EINVAL; i++) {
        usleep(10000);
    }
    assert_err(mproc_pool_close(p), MPROC_EINVAL);
}

/* ---- dispatching ------------------------------------------------------ */

static void an_event_loop_hears_of_limits(void **state)
{
    (void)state;
    mproc_pool *p =
        threads_with((mproc_pool_opts){.workers = 1, .manual_dispatch = 1});
    struct gate gate = {0}, *at = &gate;
    struct pollfd fd = {.fd = mproc_pool_fd(p), .events = POLLIN};
    int bad = 0, good = 0;
    for (int i = 0; i < 3; i++) {
        mproc_result *r =
            sent(p, (mproc_call){.fn = waits, MPROC_ARG(at), .timeout_s = 0.1});
        while (!mproc_result_ready(r)) {
            assert_int_equal(poll(&fd, 1, 30000), 1);
            mproc_pool_dispatch(p, MPROC_NOWAIT);
        }
        bad += mproc_result_outcome(r)->status == MPROC_EOVERTIME;
        mproc_result_free(r);
        mproc_call call = {
            .fn = squares, MPROC_ARG(i), .callback = count_good, .user = &good};
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
        while (good == i) {
            assert_int_equal(poll(&fd, 1, 30000), 1);
            mproc_pool_dispatch(p, MPROC_NOWAIT);
        }
    }
    assert_int_equal(bad, 3);
    gate.open = 1;
    await(&gate.gone, 3);
    end_of(p);
}

/* ---- a storm ---------------------------------------------------------- */

static int dallies(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    usleep((useconds_t)(n * 37 % 300));
    return squares(arg, size, reply);
}

static void cancels_and_limits_at_random(void **state)
{
    (void)state;
    enum { TASKS = 2000 };
    mproc_pool *p = threads_of(3);
    mproc_result **r = calloc(TASKS, sizeof(mproc_result *));
    bool *cancelled = calloc(TASKS, 1);
    unsigned seed = 1;
    int over = 0;
    for (int i = 0; i < TASKS; i++) {
        mproc_call call = {.fn = dallies, MPROC_ARG(i)};
        call.timeout_s = i % 3 ? 0 : 0.0001;
        r[i] = sent(p, call);
        int victim = i - rand_r(&seed) % 20;
        if (victim >= 0) {
            cancelled[victim] |= mproc_result_cancel(r[victim]) == 0;
        }
    }
    for (int i = 0; i < TASKS; i++) {
        int out = -1;
        int err = mproc_result_get(r[i], &out, sizeof out, NULL, TEST_BOUND);
        over += err == MPROC_EOVERTIME;
        assert_true(err != MPROC_EOVERTIME || i % 3 == 0);
        assert_true(err == MPROC_EOVERTIME ||
                    cancelled[i] == (err == MPROC_ECANCELED));
        assert_int_equal(out, err == 0 ? i * i : -1);
        mproc_result_free(r[i]);
    }
    assert_true(over > 0);
    free(r);
    free(cancelled);
    end_of(p);
    usleep(20000);
}

/* ---- their end -------------------------------------------------------- */

static pthread_key_t ends_slowly;
static _Atomic int have_ended;

static void end_slowly(void *unused)
{
    (void)unused;
    usleep(30000);
    have_ended++;
}

static int end_slowly_later(void *unused)
{
    (void)unused;
    return pthread_setspecific(ends_slowly, &have_ended);
}

static void a_pool_has_ended_when_its_threads_have(void **state)
{
    (void)state;
    enum { WORKERS = 4 };
    assert_int_equal(pthread_key_create(&ends_slowly, end_slowly), 0);
    for (int i = 0; i < 4; i++) {
        mproc_pool *p =
            threads_with((mproc_pool_opts){.workers = WORKERS,
                                           .initializer = end_slowly_later,
                                           .manual_dispatch = i / 2});
        have_ended = 0;
        if (i % 2 == 0) {
            assert_ok(mproc_pool_close(p));
            assert_ok(mproc_pool_join(p, TEST_BOUND));
            assert_int_equal(have_ended, WORKERS);
        }
        mproc_pool_free(p);
        assert_int_equal(have_ended, WORKERS);
    }
    assert_int_equal(pthread_key_delete(ends_slowly), 0);
}

/* ---- main ------------------------------------------------------------- */

static void refusals(void **state)
{
    (void)state;
    mproc_pool *p = NULL;
    mproc_pool_opts opts = {.start = MPROC_START_THREAD,
                            .max_rss_per_child = 1};
    assert_err(mproc_pool_new(&p, &opts), MPROC_ENOTSUP);
    opts = (mproc_pool_opts){.start = MPROC_START_THREAD, .workers = SIZE_MAX};
    assert_err(mproc_pool_new(&p, &opts), MPROC_EAGAIN);
    assert_null(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(tasks_run_in_threads_of_the_maker),
        CLEAN(map_and_imap_work),
        CLEAN(the_initializer_runs_in_each_thread),
        CLEAN(threads_are_replaced_after_their_tasks),
        CLEAN(a_pool_of_threads_is_resized),
        CLEAN(a_cancel_only_tells),
        CLEAN(terminate_tells_what_runs),
        CLEAN(a_task_over_its_time_is_abandoned),
        CLEAN(an_abandoned_thread_may_come_back_late),
        CLEAN(an_item_over_its_time_costs_no_other),
        CLEAN(a_thread_that_ends_itself_loses_its_task),
        CLEAN(a_callback_may_free_its_pool),
        CLEAN(an_event_loop_hears_of_limits),
        CLEAN(cancels_and_limits_at_random),
        CLEAN(a_pool_has_ended_when_its_threads_have),
        CLEAN(refusals),
    };
    return cmocka_run_group_tests_name("pool_threads", tests, NULL, NULL);
}
