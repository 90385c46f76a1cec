/* SPDX-License-Identifier: MIT */
/*
 * A queue whose user is killed, or stopped for a while, after any instruction.
 *
 * usage: sweep_queue [lifo | priority] [option of sweep_main]...
 */
#include "queue_check.h"

/* ---- setting up ------------------------------------------------------- */

static void *one_place_left(void)
{
    return set_up_filled(&(struct scenario){.size = SMALL, .opts.maxsize = 3},
                         2);
}

/* Another one needs a chunk, the second, for itself. */
static void *chunk_is_full(void)
{
    return set_up_filled(&(struct scenario){.size = SMALL}, MPR_ORDER_FIRST);
}

/* Empty, but a put must look at the head to know that. */
static void *small_room_for_two(void)
{
    struct journal *j =
        set_up_filled(&(struct scenario){.size = SMALL, .opts.maxsize = 2}, 0);
    while (j != NULL && mpr_log_tail(&j->q->log) - j->q->log.tail.seen < 2) {
        j = fill(j, 1) && drain(j, 1) ? j : NULL;
    }
    return j;
}

static void *small_two(void)
{
    return set_up_filled(&(struct scenario){.size = SMALL}, 2);
}

static void *small_three(void)
{
    return set_up_filled(&(struct scenario){.size = SMALL}, 3);
}

static void *chunk_is_spare(void)
{
    struct journal *j = chunk_is_full();
    return j != NULL && fill(j, 1) && drain(j, MPR_ORDER_FIRST / 2) ? j : NULL;
}

/* The head is at the end of a segment of the heap, which it will leave. */
static void *at_segment_end(void)
{
    struct journal *j = set_up(&(struct scenario){.size = INLINE_MOST});
    return j != NULL && fill_segment(j) && fill_segment(j) && drain_to(j, 1)
               ? j
               : NULL;
}

static bool pass_on(mproc_queue *q, size_t size, int count)
{
    for (; count > 0; count--) {
        if (mproc_queue_put(q, out, size, MPROC_NOWAIT) < 0 ||
            mproc_queue_get(q, in, size, NULL, MPROC_NOWAIT) < 0 ||
            mproc_queue_task_done(q) < 0) {
            return false;
        }
    }
    return true;
}

static int get_in_hand(mproc_queue *q, int count)
{
    int err = 0;
    for (; count > 0 && err == 0; count--) {
        err = mproc_queue_get(q, in, INLINE_MOST, NULL, MPROC_NOWAIT);
        err = err == 0 ? mproc_queue_task_done(q) : err;
    }
    return err;
}

enum { IN_A_SEGMENT = 16, PLACES = MPR_LEASES_A_CHUNK - IN_A_SEGMENT };

/*
 * At the end of a segment of the heap, behind which is another full one and a
 * third; and the next lease needs a chunk.
 */
static void *at_end_of_leases(void)
{
    struct journal *j =
        set_up(&(struct scenario){.size = INLINE_MOST, .opts.joinable = true});
    if (j == NULL || mproc_queue_put(j->q, out, SMALL, MPROC_NOWAIT) < 0 ||
        mproc_queue_get(j->q, in, SMALL, NULL, MPROC_NOWAIT) < 0 ||
        !pass_on(j->q, SMALL, PLACES - 1)) {
        return NULL;
    }
    for (int i = 0; i < 2 * IN_A_SEGMENT + 1; i++) {
        if (mproc_queue_put(j->q, out, INLINE_MOST, MPROC_NOWAIT) < 0) {
            return NULL;
        }
    }
    return get_in_hand(j->q, IN_A_SEGMENT) == 0 &&
                   j->q->log.leases.newest->used == MPR_LEASES_A_CHUNK
               ? j
               : NULL;
}

/* Joinable, large messages and one that was got and not acknowledged. */
static void *joinable_large(void)
{
    struct journal *j = set_up_filled(
        &(struct scenario){.size = LARGE,
                           .opts = {.maxsize = 2, .joinable = true}},
        1);
    return j != NULL && get(j, ROUND, MPROC_NOWAIT) == 0 && fill(j, 2) ? j
                                                                       : NULL;
}

enum { TABLE_FROM = 4096, CHUNK = 2048 };

/* As chunk_is_full for the first chunk that stands in a table, and that. */
static void *table_is_needed(void)
{
    struct journal *j = set_up(&(struct scenario){.size = SMALL});
    return j != NULL && load_ballast(j, TABLE_FROM) ? j : NULL;
}

/* One less, and the table, whose chunks are gone, is not needed any more. */
static void *table_is_spare(void)
{
    struct journal *j = table_is_needed();
    return j != NULL && load_ballast(j, 1) && drain(j, TABLE_FROM - CHUNK + 1)
               ? j
               : NULL;
}

static void *large_two(void)
{
    return set_up_filled(&(struct scenario){.size = LARGE}, 2);
}

/* Enough for two levels of children. */
static void *small_many(void)
{
    return set_up_filled(&(struct scenario){.size = SMALL}, 24);
}

/* The same, full and joinable; one was got and not acknowledged. */
static void *joinable_many(void)
{
    struct journal *j = set_up_filled(
        &(struct scenario){.size = SMALL,
                           .opts = {.maxsize = 24, .joinable = true}},
        1);
    return j != NULL && get(j, ROUND, MPROC_NOWAIT) == 0 && fill(j, 24) ? j
                                                                        : NULL;
}

/* ---- the victims ------------------------------------------------------ */

static void get_one_first(void *ctx)
{
    struct journal *j = ctx;
    be_ready(ctx);
    if (atomic_load(&j->prepared) == 1 && get(j, VICTIM, MPROC_NOWAIT) < 0) {
        _exit(1);
    }
}

static int put_one(void *ctx)
{
    struct journal *j = ctx;
    return put_composed(j, VICTIM, j->is.size, SOON);
}

static int put_one_at_once(void *ctx)
{
    struct journal *j = ctx;
    return put_composed(j, VICTIM, j->is.size, MPROC_NOWAIT);
}

static int get_one_at_once(void *ctx)
{
    return get(ctx, VICTIM, MPROC_NOWAIT);
}

static int get_one(void *ctx)
{
    return get(ctx, VICTIM, SOON);
}

static int acknowledge(void *ctx)
{
    struct journal *j = ctx;
    return mproc_queue_task_done(j->q);
}

static int shut_down(void *ctx)
{
    struct journal *j = ctx;
    return mproc_queue_shutdown(j->q, false);
}

static int shut_down_at_once(void *ctx)
{
    struct journal *j = ctx;
    return mproc_queue_shutdown(j->q, true);
}

static int make_another(void *ctx)
{
    (void)ctx;
    mproc_queue *q;
    const mproc_queue_opts opts = {.order = order, .joinable = true};
    return mproc_queue_new(&q, &opts);
}

static int get_any(void *ctx)
{
    return get_in_hand(((struct journal *)ctx)->q, 1);
}

/* If the victim has the guard, nothing can be got. */
static int get_a_segment_beside(void *ctx)
{
    allow_ms(10);
    int err = get_in_hand(((struct journal *)ctx)->q, IN_A_SEGMENT);
    return err == MPROC_EEMPTY ? SWEEP_WOULD_BLOCK : err;
}

/* ---- ending ----------------------------------------------------------- */

/* A queue that became live as its maker was killed is nobody's. */
static const char *check_made(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    (void)at;
    mproc_queue_free(j->q);
    const char *wrong = reap_all();
    for (char *cell = (char *)j->q; wrong == NULL;
         cell += (sizeof *j->q + MPR_LINE - 1) / MPR_LINE * MPR_LINE) {
        if ((uintptr_t)cell / MPR_SPAN_SIZE !=
            (uintptr_t)j->q / MPR_SPAN_SIZE) {
            break;
        }
        mproc_queue_free((mproc_queue *)cell);
    }
    return wrong == NULL ? all_is_given_back(j) : wrong;
}

static const char *shut_if_open(void *ctx)
{
    struct journal *j = ctx;
    return mpr_log_closed(&j->q->log) || mproc_queue_shutdown(j->q, false) == 0
               ? NULL
               : "it cannot be shut down";
}

static const char *drop_if_not_dropped(void *ctx)
{
    struct journal *j = ctx;
    return atomic_load(&j->q->shut) == MPR_QUEUE_DROPPED ||
                   mproc_queue_shutdown(j->q, true) == 0
               ? NULL
               : "it cannot be shut down";
}

/* Whatever was dropped, nobody may put and think it is there. */
static const char *check_shut(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    (void)at;
    char byte;
    if (mproc_queue_put(j->q, "", 1, MPROC_NOWAIT) != MPROC_ESHUTDOWN) {
        return "it is shut down and takes a message";
    }
    if (mproc_queue_get(j->q, &byte, 1, NULL, MPROC_NOWAIT) !=
            MPROC_ESHUTDOWN ||
        !mproc_queue_empty(j->q)) {
        return "it is shut down and something is left";
    }
    mproc_queue_free(j->q);
    return all_is_given_back(j);
}

/* ---- the cases -------------------------------------------------------- */

static const struct sweep_case cases[] = {
    {.name = "put, consumer asleep",
     .setup = small_empty,
     .operation = put_one,
     .sleeper = asleep_in_get,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = put_if_empty,
     .check = check_queue},
    {.name = "put, nobody asleep",
     .setup = small_empty,
     .operation = put_one,
     .check = check_queue},
    {.name = "put 100 KiB",
     .setup = large_empty,
     .operation = put_one,
     .sleeper = asleep_in_get,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = put_if_empty,
     .check = check_queue},
    {.name = "put 100 KiB, the dead reaped",
     .setup = large_two,
     .operation = put_one,
     .follow_up = reap_and_scribble,
     .check = check_queue},
    {.name = "get 100 KiB, the dead reaped",
     .setup = large_two,
     .operation = get_one,
     .follow_up = reap_and_scribble,
     .check = check_queue},
    {.name = "put, last place",
     .setup = one_place_left,
     .operation = put_one,
     .bystander = put_and_get_beside,
     .check = check_queue},
    {.name = "put at once, never full",
     .setup = small_room_for_two,
     .operation = put_one_at_once,
     .bystander = move_on_beside,
     .check = check_queue,
     .pause_only = true},
    {.name = "get at once, never empty",
     .setup = small_two,
     .operation = get_one_at_once,
     .bystander = move_on_beside,
     .check = check_queue,
     .pause_only = true},
    {.name = "get",
     .setup = small_three,
     .operation = get_one,
     .bystander = put_and_get_beside,
     .check = check_queue},
    {.name = "get, producer asleep",
     .setup = small_full,
     .operation = get_one,
     .sleeper = asleep_in_put,
     .bystander = get_and_put_beside,
     .second = use_and_reap,
     .follow_up = get_if_full,
     .check = check_queue},
    {.name = "get 100 KiB, producer asleep",
     .setup = large_full,
     .operation = get_one,
     .sleeper = asleep_in_put,
     .bystander = get_and_put_beside,
     .second = use_and_reap,
     .follow_up = get_if_full,
     .check = check_queue},
    {.name = "get, joiner asleep",
     .setup = joinable_one,
     .operation = get_one,
     .sleeper = asleep_in_join,
     .second = reap,
     .follow_up = finish_if_unfinished,
     .check = check_queue},
    {.name = "task_done, joiner asleep",
     .setup = joinable_one,
     .prepare = get_one_first,
     .operation = acknowledge,
     .sleeper = asleep_in_join,
     .second = reap,
     .follow_up = finish_if_unfinished,
     .check = check_queue},
    {.name = "shutdown, consumer asleep",
     .setup = small_empty,
     .operation = shut_down,
     .sleeper = asleep_until_refused,
     .follow_up = shut_if_open,
     .check = check_shut},
    {.name = "shutdown at once, joiner asleep",
     .setup = joinable_one,
     .operation = shut_down_at_once,
     .sleeper = asleep_in_join,
     .second = reap,
     .follow_up = drop_if_not_dropped,
     .check = check_shut},
    {.name = "new",
     .setup = joinable_one,
     .operation = make_another,
     .bystander = use_another,
     .second = reap,
     .check = check_made},
    {.name = "free, consumer asleep",
     .setup = small_empty,
     .operation = free_queue,
     .sleeper = asleep_until_refused,
     .bystander = use_another,
     .second = reap,
     .follow_up = free_if_untouched,
     .check = check_freed},
    {.name = "free 100 KiB, producer asleep",
     .setup = joinable_large,
     .operation = free_queue,
     .sleeper = asleep_until_no_room_will_be,
     .bystander = use_another,
     .second = reap,
     .follow_up = free_if_untouched,
     .check = check_freed},
};

/* What only the first order has. */
static const struct sweep_case log_cases[] = {
    {.name = "put in a new segment, freed then",
     .setup = segment_is_full,
     .operation = put_one,
     .check = check_freed_at_once},
    {.name = "get past a segment and a chunk of leases",
     .setup = at_end_of_leases,
     .operation = get_any,
     .bystander = get_a_segment_beside,
     .check = check_freed_at_once},
    {.name = "put, new segment",
     .setup = segment_is_full,
     .operation = put_one,
     .sleeper = asleep_in_get,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = put_if_empty,
     .check = check_queue},
    {.name = "get, next segment",
     .setup = at_segment_end,
     .operation = get_one,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .check = check_queue},
};

/* What only the others have. */
static const struct sweep_case array_cases[] = {
    {.name = "put, new chunk",
     .setup = chunk_is_full,
     .operation = put_one,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = reap_and_scribble,
     .check = check_queue},
    {.name = "get, chunk given back",
     .setup = chunk_is_spare,
     .operation = get_one,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = reap_and_scribble,
     .check = check_queue},
    {.name = "put, among many",
     .setup = small_many,
     .operation = put_one,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .check = check_queue},
    {.name = "get, among many",
     .setup = small_many,
     .operation = get_one,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .check = check_queue},
    {.name = "shutdown at once, many in it",
     .setup = joinable_many,
     .operation = shut_down_at_once,
     .second = reap,
     .follow_up = drop_if_not_dropped,
     .check = check_shut},
    {.name = "free, many in it, producer asleep",
     .setup = joinable_many,
     .operation = free_queue,
     .sleeper = asleep_until_no_room_will_be,
     .bystander = use_another,
     .second = reap,
     .follow_up = free_if_untouched,
     .check = check_freed},
    {.name = "put, new table",
     .setup = table_is_needed,
     .operation = put_one,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = reap_and_scribble,
     .check = check_queue},
    {.name = "get, table given back",
     .setup = table_is_spare,
     .operation = get_one,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = reap_and_scribble,
     .check = check_queue},
};

int main(int argc, char **argv)
{
    return play(argc, argv, CASES(cases), CASES(log_cases), CASES(array_cases));
}
