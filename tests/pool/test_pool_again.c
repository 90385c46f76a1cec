/* SPDX-License-Identifier: MIT */
/* What ended chunks had goes with the next items, whatever comes between. */
#include "scene.h"

#include "shm/sleep.h"

enum { ITEMS = 3, LIMIT_S = 1000 };

static const int in[ITEMS] = {1, 2, 3};
static int status[ITEMS];

/* One item of it is under way at a time. */
static mproc_result *map(const struct scene *s)
{
    mproc_result *r;
    mproc_batch b = {.fn = add_one,
                     .in = in,
                     .in_size = sizeof *in,
                     .count = ITEMS,
                     .status = status,
                     .window = 1,
                     .timeout_s = LIMIT_S,
                     .chunk = 1};
    assert_ok(mproc_pool_map_async(s->p, &b, &r));
    return r;
}

static void end(const struct scene *s, mproc_result *r)
{
    assert_true(mproc_result_ready(r));
    assert_int_equal(mpr_pool_pending(s->p->mine), 0);
    mproc_result_free(r);
    mpr_pool_end(s->p, s->self);
}

/* Each worker is killed before it tells of its item. */
static void what_follows_an_untold_one_is_sent(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, 0);
    mproc_result *r = map(&s);
    for (int i = 0; i < ITEMS; i++) {
        assert_int_equal(mpr_pool_queued(s.p), 1);
        mpr_worker_work(s.p, s.self, row(&s, 1));
        assert_non_null(atomic_exchange(&s.p->told, NULL));
        assert_ok(mpr_worker_settle(s.p, s.self, row(&s, 1), -9));
        collect(&s);
    }
    assert_true(mproc_result_successful(r));
    end(&s, r);
}

/* Though its record was linked to others meanwhile. */
static void what_follows_has_the_limit_of_its_batch(void **state)
{
    (void)state;
    struct scene s;
    struct mpr_entry entry;
    begin(&s, 0);
    mproc_result *r = map(&s);
    for (int i = 0; i < ITEMS; i++) {
        assert_ok(mpr_pool_next(s.p, s.self, &entry));
        assert_int_equal(entry.task->limit_ns, INT64_C(1000000000) * LIMIT_S);
        assert_ok(mpr_pool_queue(s.p, s.self, &entry));
        mpr_worker_work(s.p, s.self, row(&s, 1));
        collect(&s);
    }
    assert_true(mproc_result_successful(r));
    end(&s, r);
}

/*
 * As the collector does with the first item, but that another thread cancels
 * the map when it first can, which is told behind a task that has ended.
 */
static void a_cancel_before_it_is_sent_is_told(void **state)
{
    (void)state;
    struct scene s;
    mproc_result *single;
    mproc_call call = {.fn = add_one, .arg = &in[0], .arg_size = sizeof *in};
    bool more;
    begin(&s, 0);
    mproc_result *r = map(&s);
    mpr_worker_work(s.p, s.self, row(&s, 0));
    struct mpr_task *task = atomic_exchange(&s.p->told, NULL);
    struct mpr_part *part = task->chunk->part;
    struct mpr_entry entry = part->entry;
    assert_ok(mproc_pool_apply_async(s.p, &call, &single, MPROC_NOWAIT));
    mpr_worker_work(s.p, s.self, row(&s, 1));
    mpr_pool_lock();
    mpr_batch_unlink(r->batch, part);
    assert_true(mpr_batch_again(s.p, r->batch, &entry, &more));
    mpr_pool_unlock();
    assert_ok(mproc_result_cancel(r));
    mpr_batch_send_again(s.p, s.self, task);
    mpr_collector_end_items(s.p, s.self, 1);
    collect(&s);
    mpr_batch_feed_all(s.p, s.self);
    assert_true(mproc_result_successful(single));
    assert_int_equal(status[1], MPROC_ECANCELED);
    assert_int_equal(status[2], MPROC_ECANCELED);
    mproc_result_free(single);
    end(&s, r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_follows_an_untold_one_is_sent),
        cmocka_unit_test(what_follows_has_the_limit_of_its_batch),
        cmocka_unit_test(a_cancel_before_it_is_sent_is_told),
    };
    mpr_test_deep_sleep = true; /* a timed look would hide a lost wake-up */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
