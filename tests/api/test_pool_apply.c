/* SPDX-License-Identifier: MIT */
/*
 * Threads that apply at once, each call with a deadline of its own, while
 * workers, idle ones, all at once or the nursery are killed: each call ends in
 * one way, by its deadline or soon after, and the pool's counts say the same.
 */
#include "pool_killer.h"

enum { WORKERS = 3, CALLERS = 4, MOST_CALLS = 20000, RUN_MS = 900 };

struct job {
    _Atomic int *begun; /* in the shared heap */
    int number;
    int us; /* that it takes */
};

/* What its callers have seen. */
struct crowd {
    mproc_pool *p;
    _Atomic int *begun; /* one a call */
    _Atomic int next;
    _Atomic bool over;
    _Atomic size_t well, late, lost, refused;
    _Atomic size_t wrong;
};

static void take_time(int us)
{
    int64_t until = mproc_in_s(0).at_ns + us * INT64_C(1000);
    while (mproc_in_s(0).at_ns < until && !mproc_task_canceled()) {
    }
}

static int squares_slowly(const void *arg, size_t size, mproc_reply *reply)
{
    const struct job *job = arg;
    int64_t square = (int64_t)job->number * job->number;
    (void)size;
    (*job->begun)++;
    take_time(job->us);
    return mproc_reply_set(reply, &square, sizeof square);
}

/* None, as long as a wake-up, as long as a task, or `enough`. */
static mproc_deadline any_deadline(unsigned *seed, mproc_deadline enough)
{
    switch (rand_r(seed) % 6) {
    case 0:
        return MPROC_NOWAIT;
    case 1:
        return mproc_in_ms(rand_r(seed) % 50 / 1e3);
    case 2:
        return mproc_in_ms(rand_r(seed) % 500 / 1e3);
    default:
        return enough;
    }
}

static void apply_one(struct crowd *c, int i, unsigned *seed)
{
    struct job job = {&c->begun[i], i, rand_r(seed) % 200};
    mproc_call call = {.fn = squares_slowly, MPROC_ARG(job)};
    int64_t square = -1;
    mproc_deadline enough = TEST_BOUND;
    job.us = rand_r(seed) % 4 == 0 ? job.us : 0;
    int err = mproc_pool_apply(c->p, &call, &square, sizeof square,
                               any_deadline(seed, enough));
    int begun = c->begun[i];
    c->well += err == 0;
    c->late += err == MPROC_ETIMEDOUT;
    c->lost += err == MPROC_EWORKERLOST;
    c->refused += err == MPROC_ESHUTDOWN || err == MPROC_ECANCELED;
    c->wrong += err == 0 && (square != (int64_t)i * i || begun != 1);
    c->wrong += err == MPROC_EWORKERLOST && begun > 1;
    c->wrong += mproc_in_s(0).at_ns >= enough.at_ns; /* it was never woken */
}

/* Now and then nobody has anything to do, and workers sleep. */
static void *apply_again_and_again(void *user)
{
    struct crowd *c = user;
    int i = c->next++;
    unsigned seed = (unsigned)i + 1;
    for (; i < MOST_CALLS && !c->over; i = c->next++) {
        apply_one(c, i, &seed);
        if (rand_r(&seed) % 32 == 0) {
            usleep((useconds_t)rand_r(&seed) % 500);
        }
    }
    return NULL;
}

static void begin(struct crowd *c, mproc_pool *p, pthread_t *thread)
{
    *c = (struct crowd){.p = p};
    c->begun = mproc_calloc(MOST_CALLS + CALLERS, sizeof *c->begun);
    assert_non_null(c->begun);
    for (int i = 0; i < CALLERS; i++) {
        assert_ok(pthread_create(&thread[i], NULL, apply_again_and_again, c));
    }
}

static void end(struct crowd *c, pthread_t *thread)
{
    c->over = true;
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(thread[i], NULL);
    }
    assert_int_equal(c->wrong, 0);
    mproc_free((void *)c->begun);
}

/* Who left a task at its deadline cancelled it: that counts as failed. */
static void expect_counts(struct crowd *c)
{
    mproc_pool_info info;
    assert_ok(mproc_pool_close(c->p));
    assert_ok(mproc_pool_join(c->p, TEST_BOUND));
    assert_ok(mproc_pool_stats(c->p, &info));
    assert_int_equal(info.done, c->well);
    assert_int_equal(info.lost, c->lost);
    assert_int_equal(info.failed, c->late);
    assert_int_equal(info.queued + info.running, 0);
    assert_int_equal(c->refused, 0);
    assert_true(c->well > 0);
}

static void call_while_killed(enum victim victim, unsigned pause_us)
{
    struct crowd c;
    pthread_t thread[CALLERS];
    mproc_pool *p = pool_with(
        (mproc_pool_opts){.workers = WORKERS, .max_tasks_per_child = 500});
    struct killer k = {
        .pool = p, .victim = victim, .pause_us = pause_us * SLOWER, .seed = 1};
    begin(&c, p, thread);
    begin_to_kill(&k);
    usleep(RUN_MS * 1000);
    end_to_kill(&k);
    end(&c, thread);
    assert_true(k.kills > 0);
    expect_counts(&c);
    mproc_pool_free(p);
}

static void one_worker_is_killed(void **state)
{
    (void)state;
    call_while_killed(ONE_WORKER, 2000);
}

static void idle_workers_are_killed(void **state)
{
    (void)state;
    call_while_killed(IDLE_WORKERS, 2000);
}

static void all_workers_are_killed(void **state)
{
    (void)state;
    call_while_killed(ALL_WORKERS, 5000);
}

static void the_nursery_is_killed(void **state)
{
    (void)state;
    call_while_killed(NURSERY, 20000);
}

/* Nothing ends a thread: who has left its task frees it for the next one. */
static void workers_are_threads(void **state)
{
    (void)state;
    struct crowd c;
    pthread_t thread[CALLERS];
    mproc_pool *p = pool_with(
        (mproc_pool_opts){.workers = WORKERS, .start = MPROC_START_THREAD});
    begin(&c, p, thread);
    usleep(RUN_MS * 1000 / 4);
    end(&c, thread);
    expect_counts(&c);
    mproc_pool_free(p);
}

/* Whoever applies then hears that, and nobody sleeps on. */
static void terminate_while_they_apply(bool threads)
{
    for (int i = 0; i < 10; i++) {
        struct crowd c;
        pthread_t thread[CALLERS];
        mproc_pool_info info;
        mproc_pool *p = pool_with((mproc_pool_opts){
            .workers = WORKERS,
            .start = threads ? MPROC_START_THREAD : MPROC_START_FORK});
        begin(&c, p, thread);
        usleep((useconds_t)(i * 700));
        assert_ok(mproc_pool_terminate(p));
        end(&c, thread);
        assert_ok(mproc_pool_join(p, TEST_BOUND));
        assert_ok(mproc_pool_stats(p, &info));
        assert_int_equal(info.done, c.well);
        assert_int_equal(info.lost, c.lost);
        assert_int_equal(info.queued + info.running, 0);
        mproc_pool_free(p);
    }
}

static void a_pool_is_terminated(void **state)
{
    (void)state;
    terminate_while_they_apply(false);
}

static void a_pool_of_threads_is_terminated(void **state)
{
    (void)state;
    terminate_while_they_apply(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(one_worker_is_killed),
        CLEAN(idle_workers_are_killed),
        CLEAN(all_workers_are_killed),
        CLEAN(the_nursery_is_killed),
        CLEAN(workers_are_threads),
        CLEAN(a_pool_is_terminated),
        CLEAN(a_pool_of_threads_is_terminated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
