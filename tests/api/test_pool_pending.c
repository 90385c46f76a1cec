/* SPDX-License-Identifier: MIT */
/* No more tasks under way than the pool may have. */
#include "pool_tasks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

static void submitting_waits_for_room(void **state)
{
    (void)state;
    enum { MOST = 3 };
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 1, .max_pending = MOST});
    mproc_queue *gate = queue();
    mproc_call call = {.fn = waits_for, MPROC_ARG(gate)};
    mproc_result *r[MOST], *more = NULL;
    for (int i = 0; i < MOST; i++) {
        assert_ok(mproc_pool_apply_async(p, &call, &r[i], MPROC_NOWAIT));
    }
    assert_err(mproc_pool_apply_async(p, &call, &more, MPROC_NOWAIT),
               MPROC_EFULL);
    assert_err(mproc_pool_apply_async(p, &call, &more, mproc_in_ms(80)),
               MPROC_EFULL);
    assert_null(more);
    assert_err(mproc_pool_apply(p, &call, NULL, 0, mproc_in_ms(80)),
               MPROC_ETIMEDOUT);
    open_gate(gate, 1);
    assert_ok(mproc_pool_apply_async(p, &call, &more, TEST_BOUND));
    assert_true(mproc_result_ready(r[0]));
    assert_ok(mproc_result_cancel(r[MOST - 1])); /* makes room as well */
    assert_ok(mproc_pool_apply_async(p, &call, NULL, TEST_BOUND));
    open_gate(gate, 3);
    assert_ok(mproc_result_wait(more, TEST_BOUND));
    for (int i = 0; i < MOST; i++) {
        mproc_result_free(r[i]);
    }
    mproc_result_free(more);
    end_of(p);
    mproc_queue_free(gate);
}

/* A batch, and single tasks beside it: never more than the limit. */
static void batches_are_fed_as_room_comes(void **state)
{
    (void)state;
    enum { ITEMS = 300, MOST = 5 };
    int in[ITEMS], out[ITEMS];
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 2, .max_pending = MOST});
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
    }
    for (size_t chunk = 0; chunk < 2 * MOST; chunk += 3) {
        mproc_result *r[2];
        mproc_batch b = {.fn = squares,
                         .in = in,
                         .in_size = sizeof(int),
                         .count = ITEMS,
                         .out = out,
                         .out_size = sizeof(int),
                         .chunk = chunk};
        assert_ok(mproc_pool_map_async(p, &b, &r[0]));
        b.out = NULL;
        b.out_size = 0;
        assert_ok(mproc_pool_map_async(p, &b, &r[1]));
        for (int i = 0; i < 50; i++) {
            mproc_pool_info info;
            mproc_call call = {.fn = squares, MPROC_ARG(i)};
            int err = mproc_pool_apply_async(p, &call, NULL, MPROC_NOWAIT);
            assert_true(err == 0 || err == MPROC_EFULL);
            assert_ok(mproc_pool_stats(p, &info));
            assert_true(info.queued + info.running <= MOST);
        }
        for (int i = 0; i < 2; i++) {
            assert_ok(mproc_result_get(r[i], NULL, 0, NULL, TEST_BOUND));
            mproc_result_free(r[i]);
        }
        for (int i = 0; i < ITEMS; i++) {
            assert_int_equal(out[i], i * i);
        }
    }
    end_of(p);
}

/* All room is taken by a task that is none of the batch's. */
static void a_batch_waits_for_the_room_of_others(void **state)
{
    (void)state;
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 2, .max_pending = 1});
    mproc_queue *gate = queue();
    int in[3] = {1, 2, 3}, out[3] = {0};
    mproc_batch b = {.fn = squares,
                     .in = in,
                     .in_size = sizeof(int),
                     .count = 3,
                     .out = out,
                     .out_size = sizeof(int)};
    mproc_result *r,
        *first = sent(p, (mproc_call){.fn = waits_for, MPROC_ARG(gate)});
    assert_ok(mproc_pool_map_async(p, &b, &r));
    assert_ok(mproc_pool_close(p));
    assert_err(mproc_result_wait(r, mproc_in_ms(80)), MPROC_ETIMEDOUT);
    open_gate(gate, 1);
    assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
    assert_int_equal(out[2], 9);
    end_of(p);
    mproc_result_free(r);
    mproc_result_free(first);
    mproc_queue_free(gate);
}

static void *submits_when_there_is_room(void *user)
{
    mproc_call call = {.fn = squares, .arg = "\1\2\3\4", .arg_size = 4};
    return (void *)(intptr_t)mproc_pool_apply_async(user, &call, NULL,
                                                    MPROC_FOREVER);
}

static void who_waits_for_room_hears_of_the_end(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        mproc_pool *p =
            pool_with((mproc_pool_opts){.workers = 1, .max_pending = 1});
        mproc_queue *here = queue();
        mproc_result *r = sent(p, (mproc_call){.fn = stays, MPROC_ARG(here)});
        pthread_t thread;
        void *err;
        heard(here);
        pthread_create(&thread, NULL, submits_when_there_is_room, p);
        usleep(100000); /* it waits, or will */
        if (i == 0) {
            assert_ok(mproc_pool_close(p));
        } else {
            assert_ok(mproc_pool_terminate(p));
        }
        pthread_join(thread, &err);
        assert_err((int)(intptr_t)err, MPROC_ESHUTDOWN);
        mproc_result_cancel(r);
        end_of(p);
        mproc_result_free(r);
        mproc_queue_free(here);
    }
}

/* Threads that submit, and a limit below their number. */
struct senders {
    mproc_pool *p;
    _Atomic int under_way, most, done;
};

static void count_down(const mproc_outcome *o, void *user)
{
    struct senders *s = user;
    s->done += o->status == MPROC_OK;
    atomic_fetch_sub(&s->under_way, 1);
}

static void *sends_many(void *user)
{
    struct senders *s = user;
    for (int i = 0; i < 500; i++) {
        mproc_call call = {.fn = squares,
                           MPROC_ARG(i),
                           .callback = count_down,
                           .error_callback = count_down,
                           .user = s};
        assert_ok(mproc_pool_apply_async(s->p, &call, NULL, TEST_BOUND));
        int now = atomic_fetch_add(&s->under_way, 1) + 1;
        int most = atomic_load(&s->most);
        while (now > most &&
               !atomic_compare_exchange_weak(&s->most, &most, now)) {
        }
    }
    return NULL;
}

static void no_more_than_max_pending_are_under_way(void **state)
{
    (void)state;
    enum { MOST = 2, THREADS = 4 };
    struct senders s = {
        .p = pool_with((mproc_pool_opts){.workers = 2, .max_pending = MOST})};
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&thread[i], NULL, sends_many, &s);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    end_of(s.p);
    assert_int_equal(s.done, THREADS * 500);
    assert_in_range(s.most, 1, MOST);
}

static void send_two_more(const mproc_outcome *o, void *user)
{
    struct senders *s = user;
    int n = 4;
    mproc_call call = {
        .fn = squares, MPROC_ARG(n), .callback = count_down, .user = s};
    (void)o;
    for (int i = 0; i < 2; i++) {
        s->most += mproc_pool_apply_async(s->p, &call, NULL, MPROC_NOWAIT) == 0;
    }
}

static void a_callback_never_waits_for_room(void **state)
{
    (void)state;
    struct senders s = {
        .p = pool_with((mproc_pool_opts){.workers = 1, .max_pending = 1})};
    int n = 3;
    mproc_call call = {
        .fn = squares, MPROC_ARG(n), .callback = send_two_more, .user = &s};
    assert_ok(mproc_pool_apply_async(s.p, &call, NULL, MPROC_NOWAIT));
    call.callback = NULL;
    assert_ok(mproc_pool_apply(s.p, &call, NULL, 0, TEST_BOUND));
    end_of(s.p);
    assert_int_equal(s.most, 2);
    assert_int_equal(s.done, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(submitting_waits_for_room),
        CLEAN(batches_are_fed_as_room_comes),
        CLEAN(a_batch_waits_for_the_room_of_others),
        CLEAN(who_waits_for_room_hears_of_the_end),
        CLEAN(no_more_than_max_pending_are_under_way),
        CLEAN(a_callback_never_waits_for_room),
    };
    return cmocka_run_group_tests_name("pool_pending", tests, NULL, NULL);
}
