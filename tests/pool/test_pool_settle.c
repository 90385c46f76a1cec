/* SPDX-License-Identifier: MIT */
/*
 * What becomes of the task of a dead worker, though who says so dies before it
 * has done, and the next one says it again.
 */
#include "scene.h"

enum { ITEMS = 3 };

static int in[ITEMS] = {1, 2, 3};
static int out[ITEMS], status[ITEMS];

static mproc_result *map(const struct scene *s)
{
    mproc_result *r;
    mproc_batch batch = {.fn = add_one,
                         .in = in,
                         .in_size = sizeof *in,
                         .count = ITEMS,
                         .out = out,
                         .out_size = sizeof *out,
                         .status = status,
                         .chunk = ITEMS};
    assert_ok(mproc_pool_map_async(s->p, &batch, &r));
    return r;
}

/* The worker takes what comes next, and has begun it. */
static struct mpr_entry *take(const struct scene *s, uint32_t i)
{
    struct mpr_worker *worker = row(s, i);
    atomic_store(&worker->pid, 4711);
    assert_ok(mpr_pool_next(s->p, s->self, &worker->current));
    assert_true(
        mpr_task_move(&worker->current, i, MPR_TASK_QUEUED, MPR_TASK_RUNNING));
    struct mpr_chunk *chunk = mpr_task_chunk(worker->current.task);
    if (chunk != NULL) {
        chunk->lost = 0;
    }
    return &worker->current;
}

static void settle(const struct scene *s, uint32_t i)
{
    assert_ok(mpr_worker_settle(s->p, s->self, row(s, i), -9));
}

/* As it was before the last step: who made that was killed instead. */
static void undo_end(const struct mpr_entry *entry, uint32_t i)
{
    atomic_store(&entry->task->word,
                 mpr_task_word_by(entry, i, MPR_TASK_RUNNING));
}

/* A worker for each task or item; it would wait if none were left for it. */
static void work(const struct scene *s)
{
    struct mpr_entry entry;
    while (mpr_pool_next(s->p, s->self, &entry) == 0) {
        if (atomic_load(&entry.task->word) ==
            mpr_task_word_by(&entry, 0, MPR_TASK_QUEUED)) {
            assert_ok(mpr_pool_queue(s->p, s->self, &entry));
            mpr_worker_work(s->p, s->self, row(s, 1));
        }
    }
    collect(s);
}

static void expect_items(const int expected[ITEMS])
{
    for (int i = 0; i < ITEMS; i++) {
        assert_err(status[i], expected[i]);
        if (expected[i] == MPROC_OK) {
            assert_int_equal(out[i], in[i] + 1);
        }
    }
}

static void end(const struct scene *s, mproc_result *r)
{
    assert_true(mproc_result_ready(r));
    assert_int_equal(mpr_pool_pending(s->p->mine), 0);
    assert_int_equal(mpr_pool_queued(s->p), 0);
    mproc_result_free(r);
    mpr_pool_end(s->p, s->self);
}

static void an_item_is_lost_once(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, 0);
    mproc_result *r = map(&s);
    struct mpr_entry *entry = take(&s, 0);
    settle(&s, 0);
    undo_end(entry, 0);
    settle(&s, 0);
    work(&s);
    expect_items((int[]){MPROC_EWORKERLOST, MPROC_OK, MPROC_OK});
    end(&s, r);
}

/* All that is missing is that the next item runs. */
static void an_item_that_has_ended_is_not_lost(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, 0);
    mproc_result *r = map(&s);
    struct mpr_chunk *chunk = mpr_task_chunk(take(&s, 0)->task);
    int two = 2;
    memcpy(chunk->out, &two, sizeof two);
    chunk->status[0] = MPROC_OK;
    settle(&s, 0);
    work(&s);
    expect_items((int[]){MPROC_OK, MPROC_OK, MPROC_OK});
    end(&s, r);
}

/* Nobody is to run what has no item left. */
static void a_chunk_ends_with_its_last_item(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, 0);
    mproc_result *r = map(&s);
    for (int i = 0; i < ITEMS; i++) {
        take(&s, 0);
        settle(&s, 0);
    }
    assert_int_equal(mpr_pool_queued(s.p), 0);
    collect(&s);
    expect_items(
        (int[]){MPROC_EWORKERLOST, MPROC_EWORKERLOST, MPROC_EWORKERLOST});
    end(&s, r);
}

/* Its worker died between the last item and the task's end. */
static void nothing_is_lost_behind_the_last_item(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, 0);
    mproc_result *r = map(&s);
    struct mpr_chunk *chunk = mpr_task_chunk(take(&s, 0)->task);
    for (int i = 0; i < ITEMS; i++) {
        int reply = in[i] + 1;
        memcpy(chunk->out + (size_t)i * sizeof reply, &reply, sizeof reply);
        chunk->status[i] = MPROC_OK;
    }
    int *behind = &chunk->status[ITEMS];
    assert_true((char *)(behind + 1) <=
                (char *)chunk + mpr_heap_block_size(chunk));
    *behind = MPR_ITEM_PENDING;
    atomic_store(&chunk->at, ITEMS);
    settle(&s, 0);
    assert_int_equal(*behind, MPR_ITEM_PENDING);
    collect(&s);
    expect_items((int[]){MPROC_OK, MPROC_OK, MPROC_OK});
    end(&s, r);
}

/* It may be lost once, but not twice. */
static void a_loss_is_counted_once(void **state)
{
    (void)state;
    for (int losses = 1; losses <= 2; losses++) {
        struct scene s;
        mproc_result *r;
        begin(&s, 1);
        mproc_call call = {.fn = add_one, MPROC_ARG(in)};
        assert_ok(mproc_pool_apply_async(s.p, &call, &r, MPROC_NOWAIT));
        struct mpr_entry *entry = take(&s, 0);
        settle(&s, 0);
        undo_end(entry, 0);
        settle(&s, 0);
        if (losses > 1) {
            take(&s, 0);
            entry->task->losses &= ~UINT32_C(1); /* it begins again */
            settle(&s, 0);
        }
        work(&s);
        assert_err(mproc_result_wait(r, MPROC_NOWAIT), MPROC_OK);
        assert_err(mproc_result_outcome(r)->status,
                   losses > 1 ? MPROC_EWORKERLOST : MPROC_OK);
        end(&s, r);
    }
}

/* Its record is another task's by now, and is queued. */
static void what_ended_before_is_nobodys_loss(void **state)
{
    (void)state;
    struct scene s;
    mproc_result *first, *second;
    begin(&s, 0);
    mproc_call call = {.fn = add_one, MPROC_ARG(in)};
    assert_ok(mproc_pool_apply_async(s.p, &call, &first, MPROC_NOWAIT));
    mpr_worker_work(s.p, s.self, row(&s, 0));
    collect(&s);
    assert_true(mproc_result_successful(first));
    struct mpr_task *task = row(&s, 0)->current.task;
    s.p->mine->free_tasks = NULL;
    assert_ok(mproc_pool_apply_async(s.p, &call, &second, MPROC_NOWAIT));
    assert_ptr_equal(second->entry.task, task);
    settle(&s, 0);
    assert_int_equal(mpr_pool_queued(s.p), 1);
    work(&s);
    assert_true(mproc_result_successful(second));
    mproc_result_free(first);
    end(&s, second);
}

/* As where there is no memory for it. */
static void what_cannot_be_queued_again_ends(void **state)
{
    (void)state;
    struct scene s;
    mproc_result *r;
    begin(&s, 1);
    mproc_call call = {.fn = add_one, MPROC_ARG(in)};
    assert_ok(mproc_pool_apply_async(s.p, &call, &r, MPROC_NOWAIT));
    take(&s, 0);
    mpr_log_close(&s.p->todo, s.self);
    settle(&s, 0);
    collect(&s);
    assert_true(mproc_result_ready(r));
    assert_err(mproc_result_outcome(r)->status, MPROC_EBROKEN);
    end(&s, r);
}

/* The same, but who settles dies before it tells of that. */
static void nor_does_it_end_untold(void **state)
{
    (void)state;
    struct scene s;
    mproc_result *r;
    begin(&s, 1);
    mproc_call call = {.fn = add_one, MPROC_ARG(in)};
    assert_ok(mproc_pool_apply_async(s.p, &call, &r, MPROC_NOWAIT));
    struct mpr_entry *entry = take(&s, 0);
    atomic_store(&entry->task->word,
                 mpr_task_word_by(entry, 0, MPR_TASK_UNSERVED));
    settle(&s, 0);
    collect(&s);
    assert_true(mproc_result_ready(r));
    assert_err(mproc_result_outcome(r)->status, MPROC_EBROKEN);
    end(&s, r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_is_lost_once),
        cmocka_unit_test(an_item_that_has_ended_is_not_lost),
        cmocka_unit_test(a_chunk_ends_with_its_last_item),
        cmocka_unit_test(nothing_is_lost_behind_the_last_item),
        cmocka_unit_test(a_loss_is_counted_once),
        cmocka_unit_test(what_ended_before_is_nobodys_loss),
        cmocka_unit_test(what_cannot_be_queued_again_ends),
        cmocka_unit_test(nor_does_it_end_untold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
