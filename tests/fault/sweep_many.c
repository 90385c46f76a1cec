/* SPDX-License-Identifier: MIT */
/*
 * Many messages put or got at once, by one who is killed, or stopped for a
 * while, after any instruction.
 *
 * usage: sweep_many [lifo | priority] [option of sweep_main]...
 */
#include "queue_check.h"

enum { BATCH = 3 };

static char batch[BATCH * LARGE]; /* each process has its own */

/* Two messages stand before the end of a segment, two behind it. */
static void *around_segment_end(void)
{
    struct journal *j = segment_is_full();
    return j != NULL && fill_segment(j) && fill_segment(j) && fill(j, 1) &&
                   drain_to(j, 4)
               ? j
               : NULL;
}

static void be_ready_with_a_batch(void *ctx)
{
    struct journal *j = ctx;
    be_ready(ctx);
    for (uint32_t i = 0; i < BATCH; i++) {
        compose(j->is.size, VICTIM, i);
        memcpy(batch + i * j->is.size, out, j->is.size);
    }
    compose(j->is.size, SECOND, 0);
}

static int put_batch(void *ctx)
{
    struct journal *j = ctx;
    struct doings *d = &j->of[VICTIM];
    mproc_deadline until = j->is.opts.maxsize > 0 ? MPROC_NOWAIT : SOON;
    atomic_store(&d->puts_begun, BATCH);
    int n = mproc_queue_put_many(j->q, batch, j->is.size, BATCH, until);
    if (n <= 0) {
        return 1;
    }
    atomic_store(&d->puts_done, (uint32_t)n);
    atomic_store(&d->puts_begun, (uint32_t)n);
    return 0;
}

static int get_batch(void *ctx)
{
    struct journal *j = ctx;
    struct doings *d = &j->of[VICTIM];
    atomic_store(&d->gets_begun, BATCH);
    int n = mproc_queue_get_many(j->q, batch, j->is.size, BATCH, SOON);
    for (int i = 0; i < n; i++) {
        memcpy(&d->message[i], batch + (size_t)i * j->is.size,
               sizeof(struct head));
    }
    atomic_store(&d->got, n > 0 ? (uint32_t)n : 0);
    atomic_store(&d->gets_done, BATCH);
    return n > 0 ? 0 : 1;
}

/* What went of a batch is its beginning. */
static const char *check_batch(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    const char *wrong = check_out(j, at);
    for (uint32_t i = 0; wrong == NULL && i + 1 < BATCH; i++) {
        bool behind = times_got(j, VICTIM, i + 1) > 0;
        if (behind && times_got(j, VICTIM, i) == 0 && gets_cut(j) == 0) {
            wrong = "a hole in what was put";
        }
    }
    return wrong;
}

static const struct sweep_case cases[] = {
    {.name = "put_many, consumer asleep",
     .setup = small_empty,
     .prepare = be_ready_with_a_batch,
     .operation = put_batch,
     .sleeper = asleep_in_get,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = put_if_empty,
     .check = check_batch},
    {.name = "put_many, one place left",
     .setup = small_one_place,
     .prepare = be_ready_with_a_batch,
     .operation = put_batch,
     .bystander = put_and_get_beside,
     .check = check_batch},
    {.name = "put_many 100 KiB",
     .setup = large_empty,
     .prepare = be_ready_with_a_batch,
     .operation = put_batch,
     .second = use_and_reap,
     .follow_up = reap_and_scribble,
     .check = check_batch},
    {.name = "get_many, producer asleep",
     .setup = small_full,
     .operation = get_batch,
     .sleeper = asleep_in_put,
     .bystander = get_and_put_beside,
     .second = use_and_reap,
     .follow_up = get_if_full,
     .check = check_out},
    {.name = "get_many, joiner asleep",
     .setup = joinable_four,
     .operation = get_batch,
     .sleeper = asleep_in_join,
     .second = reap,
     .follow_up = finish_what_comes,
     .check = check_out},
    {.name = "get_many 100 KiB",
     .setup = large_four,
     .operation = get_batch,
     .second = use_and_reap,
     .follow_up = reap_and_scribble,
     .check = check_out},
};

/* Where the records lie in segments. */
static const struct sweep_case log_cases[] = {
    {.name = "put_many, new segment",
     .setup = segment_is_full,
     .prepare = be_ready_with_a_batch,
     .operation = put_batch,
     .sleeper = asleep_in_get,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = put_if_empty,
     .check = check_batch},
    {.name = "get_many, next segment",
     .setup = around_segment_end,
     .operation = get_batch,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .check = check_out},
};

int main(int argc, char **argv)
{
    victims_priority = 0;
    return play(argc, argv, CASES(cases), CASES(log_cases), (struct cases){0});
}
