/* SPDX-License-Identifier: MIT */
/*
 * Loans, messages taken in place, and redelivery, with a user who is killed, or
 * stopped for a while, after any instruction.
 *
 * usage: sweep_loan [lifo | priority] [option of sweep_main]...
 */
#include "queue_check.h"

static mproc_message held; /* each process has its own */

/* ---- setting up ------------------------------------------------------- */

/* One message, and a loan that is held by the round. */
static void *full_with_a_loan(void)
{
    struct journal *j =
        set_up_filled(&(struct scenario){.size = SMALL, .opts.maxsize = 2}, 1);
    return j != NULL && mproc_queue_loan(j->q, &held, SMALL, MPROC_NOWAIT) == 0
               ? j
               : NULL;
}

static void *large_one_place(void)
{
    return set_up_filled(&(struct scenario){.size = LARGE, .opts.maxsize = 1},
                         0);
}

static const struct scenario redelivering = {
    .size = SMALL, .opts = {.joinable = true, .redeliver = true}};

static void *redelivering_one(void)
{
    return set_up_filled(&redelivering, 1);
}

/* The round has taken, or got, what is for the victim to acknowledge. */
static void *round_has_taken(void)
{
    struct journal *j = redelivering_one();
    if (j == NULL || mproc_queue_take(j->q, &held, MPROC_NOWAIT) < 0) {
        return NULL;
    }
    memcpy(&j->of[ROUND].message[j->of[ROUND].got], held.data,
           sizeof(struct head));
    return j;
}

static void *round_has_got(void)
{
    struct journal *j = redelivering_one();
    if (j == NULL || get(j, ROUND, MPROC_NOWAIT) < 0) {
        return NULL;
    }
    atomic_fetch_sub(&j->of[ROUND].got, 1); /* it is not sure */
    return j;
}

/* One place is left in the first chunk of leases, and none behind it. */
static void *leases_are_full(void)
{
    struct journal *j = set_up(&redelivering);
    if (j == NULL || !fill(j, MPR_LEASES_A_CHUNK)) {
        return NULL;
    }
    for (int i = 0; i < MPR_LEASES_A_CHUNK; i++) {
        if (mproc_queue_take(j->q, &held, MPROC_NOWAIT) < 0) {
            return NULL;
        }
        struct head *head = &j->of[ROUND].message[j->of[ROUND].got++];
        memcpy(head, held.data, sizeof *head);
    }
    return fill(j, 1) ? j : NULL;
}

/* By a process that ends at once. */
static void have_things_out(struct journal *j)
{
    mproc_message m;
    for (int i = 0; i < 2; i++) {
        if (mproc_queue_loan(j->q, &m, i == 0 ? SMALL : LARGE, SOON) < 0 ||
            mproc_queue_take(j->q, &m, SOON) < 0) {
            _exit(1);
        }
        struct head *head = &j->of[BYSTANDER].message[i];
        memcpy(head, m.data, sizeof *head);
    }
    if (mproc_queue_get(j->q, in, sizeof in, &(size_t){0}, SOON) < 0) {
        _exit(2);
    }
    memcpy(&j->of[BYSTANDER].message[2], in, sizeof(struct head));
}

static void *left_by_a_dead_one(void *scene)
{
    struct journal *j = scene;
    int status;
    pid_t pid = j != NULL ? fork() : -1;
    if (pid == 0) {
        have_things_out(j);
        _exit(0);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? j : NULL;
}

static void *a_dead_one_had_some(void)
{
    struct journal *j = left_by_a_dead_one(joinable_four());
    if (j != NULL) {
        j->of[BYSTANDER].got = 3;
    }
    return j;
}

static void *a_dead_one_had_some_that_come_again(void)
{
    return left_by_a_dead_one(set_up_filled(&redelivering, 4));
}

/* Held by the round. */
static void *some_are_out(void)
{
    struct journal *j = joinable_four();
    mproc_message m;
    while (j != NULL && !mproc_queue_empty(j->q)) {
        if (mproc_queue_loan(j->q, &m, LARGE, MPROC_NOWAIT) < 0 ||
            mproc_queue_take(j->q, &m, MPROC_NOWAIT) < 0) {
            return NULL;
        }
    }
    return j;
}

/* ---- the sleepers ----------------------------------------------------- */

static int asleep_in_get_and_acknowledge(void *ctx)
{
    struct journal *j = ctx;
    int err = get(j, SLEEPER, MPROC_FOREVER);
    return end_sleep(j, err < 0 ? err : mproc_queue_task_done(j->q));
}

static int put_and_acknowledge_beside(void *ctx)
{
    struct journal *j = ctx;
    allow_ms(10);
    int got = put_and_get(j, BYSTANDER);
    return got == 0 ? mproc_queue_task_done(j->q) : got;
}

/* A lease that has not ended is that of a dead one: it will come by itself. */
static const char *put_if_nothing_comes(void *ctx)
{
    struct journal *j = ctx;
    const struct mpr_lease_chunk *chunk = atomic_load(&j->q->log.leases.oldest);
    for (uint32_t i = 0; i < chunk->used; i++) {
        if (atomic_load(&chunk->lease[i].owner) != 0) {
            return NULL;
        }
    }
    return put_if_empty(ctx);
}

/* ---- the victims: loans ----------------------------------------------- */

static int have_loan(void *ctx)
{
    struct journal *j = ctx;
    return mproc_queue_loan(j->q, &held, j->is.size, SOON);
}

static int give_loan_up(void *ctx)
{
    (void)ctx;
    mproc_message_release(&held);
    return held.data != NULL;
}

static int send_loan(void *ctx)
{
    struct journal *j = ctx;
    struct doings *d = &j->of[VICTIM];
    memcpy(held.data, out, j->is.size);
    atomic_fetch_add(&d->puts_begun, 1);
    int err = mproc_queue_send(j->q, &held);
    if (err == 0) {
        atomic_fetch_add(&d->puts_done, 1);
    }
    return err;
}

static int loan_and_send(void *ctx)
{
    int err = have_loan(ctx);
    return err < 0 ? err : send_loan(ctx);
}

static void have_loan_first(void *ctx)
{
    be_ready(ctx);
    if (have_loan(ctx) < 0) {
        _exit(1);
    }
}

/* What the round has out becomes the victim's own. */
static void have_the_rounds(void *ctx, struct mpr_leases *leases)
{
    struct journal *j = ctx;
    bool first = atomic_load(&j->prepared) == 0;
    be_ready(ctx);
    struct mpr_lease_chunk *chunk = atomic_load(&leases->oldest);
    struct mpr_lease *lease = &chunk->lease[chunk->used - 1];
    if (first) {
        mpr_held_add(mpr_self_.thread, 1);
        lease->thread = mpr_self_.thread->serial;
        atomic_store(&lease->owner,
                     mpr_self_id() |
                         (atomic_load(&lease->owner) & MPR_LEASE_HELD));
    }
}

static void have_the_rounds_loan(void *ctx)
{
    have_the_rounds(ctx, &((struct journal *)ctx)->q->log.loans);
}

static void have_the_rounds_message(void *ctx)
{
    have_the_rounds(ctx, &((struct journal *)ctx)->q->log.leases);
}

static void have_all_of_a_chunk(void *ctx)
{
    struct journal *j = ctx;
    be_ready(ctx);
    for (int i = 0; i < MPR_LEASES_A_CHUNK; i++) {
        if (mproc_queue_loan(j->q, &held, SMALL, MPROC_NOWAIT) < 0) {
            _exit(1);
        }
    }
}

/* ---- the victims: taking in place ------------------------------------- */

static int take_and_release(void *ctx)
{
    struct journal *j = ctx;
    struct doings *d = &j->of[VICTIM];
    atomic_fetch_add(&d->gets_begun, 1);
    int err = mproc_queue_take(j->q, &held, SOON);
    if (err == 0) {
        memcpy(&d->message[0], held.data, sizeof(struct head));
        atomic_store(&d->got, 1);
    }
    atomic_fetch_add(&d->gets_done, 1);
    mproc_message_release(&held);
    return err;
}

/* What is taken or got only, and not acknowledged, comes again. */
static int take_only(void *ctx)
{
    struct journal *j = ctx;
    return mproc_queue_take(j->q, &held, SOON);
}

static int get_only(void *ctx)
{
    struct journal *j = ctx;
    size_t size;
    return mproc_queue_get(j->q, in, sizeof in, &size, SOON);
}

/* Told once it is sure not to come again. */
static int end_the_taken(struct journal *j, bool done)
{
    struct doings *d = &j->of[VICTIM];
    d->message[0] = j->of[ROUND].message[j->of[ROUND].got];
    atomic_store(&d->gets_begun, 1);
    int err = 0;
    if (done) {
        err = mproc_queue_task_done(j->q);
    } else {
        mproc_message_release(&held);
    }
    atomic_store(&d->got, 1);
    atomic_store(&d->gets_done, 1);
    return err;
}

static int release_taken(void *ctx)
{
    return end_the_taken(ctx, false);
}

static int acknowledge_got(void *ctx)
{
    return end_the_taken(ctx, true);
}

/* ---- the cases -------------------------------------------------------- */

static const struct sweep_case cases[] = {
    {.name = "loan",
     .setup = small_one_place,
     .operation = have_loan,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = reap_and_scribble,
     .check = check_out},
    {.name = "loan, second chunk",
     .setup = small_empty,
     .prepare = have_all_of_a_chunk,
     .operation = have_loan,
     .second = reap,
     .follow_up = reap_and_scribble,
     .check = check_out},
    {.name = "loan and send, consumer asleep",
     .setup = small_empty,
     .operation = loan_and_send,
     .sleeper = asleep_in_get,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = put_if_empty,
     .check = check_out},
    {.name = "send 100 KiB, last place",
     .setup = large_one_place,
     .prepare = have_loan_first,
     .operation = send_loan,
     .bystander = put_and_get_beside,
     .follow_up = reap_and_scribble,
     .check = check_out},
    {.name = "loan given up, producer asleep",
     .setup = full_with_a_loan,
     .prepare = have_the_rounds_loan,
     .operation = give_loan_up,
     .sleeper = asleep_in_put,
     .bystander = get_and_put_beside,
     .second = reap,
     .check = check_out},
    {.name = "take and release, producer asleep",
     .setup = small_full,
     .operation = take_and_release,
     .sleeper = asleep_in_put,
     .bystander = get_and_put_beside,
     .second = use_and_reap,
     .follow_up = get_if_full,
     .check = check_out},
    {.name = "take and release 100 KiB",
     .setup = large_four,
     .operation = take_and_release,
     .bystander = put_and_get_beside,
     .second = use_and_reap,
     .follow_up = reap_and_scribble,
     .check = check_out},
    {.name = "take and release, joiner asleep",
     .setup = joinable_one,
     .operation = take_and_release,
     .sleeper = asleep_in_join,
     .second = reap,
     .follow_up = finish_what_comes,
     .check = check_out},
    {.name = "take, comes again",
     .setup = redelivering_one,
     .operation = take_only,
     .bystander = put_and_acknowledge_beside,
     .second = reap,
     .follow_up = reap_and_scribble,
     .check = check_out},
    {.name = "take, second chunk",
     .setup = leases_are_full,
     .operation = take_only,
     .second = reap,
     .check = check_freed_at_once},
    {.name = "get, comes again to joiner's relief",
     .setup = redelivering_one,
     .operation = get_only,
     .sleeper = asleep_in_join,
     .second = reap,
     .follow_up = finish_what_comes,
     .check = check_out},
    {.name = "release or come again, consumer asleep",
     .setup = round_has_taken,
     .prepare = have_the_rounds_message,
     .operation = release_taken,
     .sleeper = asleep_in_get_and_acknowledge,
     .second = reap,
     .follow_up = put_if_nothing_comes,
     .check = check_out},
    {.name = "task_done or come again, consumer asleep",
     .setup = round_has_got,
     .prepare = have_the_rounds_message,
     .operation = acknowledge_got,
     .sleeper = asleep_in_get_and_acknowledge,
     .second = reap,
     .follow_up = put_if_nothing_comes,
     .check = check_out},
    {.name = "reaping what was out",
     .setup = a_dead_one_had_some,
     .operation = reap,
     .bystander = put_and_get_beside,
     .second = reap,
     .check = check_out},
    {.name = "reaping what comes again",
     .setup = a_dead_one_had_some_that_come_again,
     .operation = reap,
     .second = reap,
     .check = check_out},
    {.name = "free, with much out and a consumer asleep",
     .setup = some_are_out,
     .operation = free_queue,
     .sleeper = asleep_until_refused,
     .bystander = use_another,
     .second = reap,
     .follow_up = free_if_untouched,
     .check = check_freed},
};

/* Where the records lie in segments. */
static const struct sweep_case log_cases[] = {
    {.name = "send, new segment",
     .setup = segment_is_full,
     .prepare = have_loan_first,
     .operation = send_loan,
     .second = use_and_reap,
     .follow_up = reap_and_scribble,
     .check = check_out},
};

int main(int argc, char **argv)
{
    victims_priority = 0;
    return play(argc, argv, CASES(cases), CASES(log_cases), (struct cases){0});
}
