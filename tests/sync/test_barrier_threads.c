/* SPDX-License-Identifier: MIT */
/* Barrier among threads that have a slot each. */
#include "threads.h"

#include "sync/barrier.h"
#include "sync/wait.h"

enum { PARTIES = THREADS };

struct round {
    mproc_barrier *b;
    long cell[2][PARTIES]; /* of even and of odd rounds; no atomics */
    long sum;              /* by the action */
    atomic_int next;
};

/* What one wrote before the barrier the others read behind it. */
static void *write_and_read(void *arg)
{
    struct round *r = arg;
    int me = atomic_fetch_add(&r->next, 1);
    for (int i = 0; i < ROUNDS; i++) {
        r->cell[i % 2][me] = i + me;
        linger(i);
        assert_ok(mproc_barrier_wait(r->b, NULL, MPROC_FOREVER));
        for (int other = 0; other < PARTIES; other++) {
            assert_int_equal(r->cell[i % 2][other], i + other);
        }
    }
    return NULL;
}

static void what_was_written_before_is_seen_behind(void **state)
{
    (void)state;
    struct round r = {0};
    assert_ok(mproc_barrier_new(&r.b, PARTIES, NULL));
    run(write_and_read, &r, PARTIES);
    mproc_barrier_free(r.b);
}

static int add_up(void *arg)
{
    struct round *r = arg;
    r->sum = 0;
    for (int i = 0; i < PARTIES; i++) {
        r->sum += r->cell[0][i];
    }
    return 0;
}

static void *write_and_read_sum(void *arg)
{
    struct round *r = arg;
    int me = atomic_fetch_add(&r->next, 1);
    for (int i = 0; i < ROUNDS / 4; i++) {
        r->cell[0][me] = i;
        assert_ok(mproc_barrier_wait(r->b, NULL, MPROC_FOREVER));
        assert_int_equal(r->sum, (long)i * PARTIES);
        assert_ok(mproc_barrier_wait(r->b, NULL, MPROC_FOREVER));
    }
    return NULL;
}

static void an_action_sees_all_and_is_seen_by_all(void **state)
{
    (void)state;
    struct round r = {0};
    const mproc_barrier_opts opts = {.action = add_up, .user = &r};
    assert_ok(mproc_barrier_new(&r.b, PARTIES, &opts));
    run(write_and_read_sum, &r, PARTIES);
    mproc_barrier_free(r.b);
}

/*
 * Whatever others do to a barrier, a generation is passed by all its parties
 * or by none, so each index was given as often as any other.
 */
struct storm {
    mproc_barrier *b;
    atomic_int given[PARTIES];
    atomic_bool over; /* one is through: all may be too few now */
};

static void *pass_or_not(void *arg)
{
    struct storm *storm = arg;
    for (int i = 0; i < ROUNDS && !atomic_load(&storm->over); i++) {
        unsigned index;
        mproc_deadline until =
            i % 16 == 0 ? mproc_in_ms(0.01) : mproc_in_ms(20);
        int err = mproc_barrier_wait(storm->b, &index, until);
        if (err == 0) {
            atomic_fetch_add(&storm->given[index], 1);
        } else if (err == MPROC_ETIMEDOUT || i % 3 == 0) {
            assert_ok(mproc_barrier_reset(storm->b));
        } else {
            assert_err(err, MPROC_EBROKEN);
        }
        if (i % 100 == 0) {
            assert_ok(mproc_barrier_abort(storm->b));
        }
    }
    atomic_store(&storm->over, true);
    return NULL;
}

static int do_nothing(void *unused)
{
    (void)unused;
    sched_yield();
    return 0;
}

static void expect_equal_shares(const mproc_barrier_opts *opts)
{
    struct storm storm = {0};
    assert_ok(mproc_barrier_new(&storm.b, PARTIES, opts));
    run(pass_or_not, &storm, PARTIES + 2);
    for (int i = 1; i < PARTIES; i++) {
        assert_int_equal(atomic_load(&storm.given[i]),
                         atomic_load(&storm.given[0]));
    }
    assert_true(atomic_load(&storm.given[0]) > 0);
    mproc_barrier_free(storm.b);
}

static void a_generation_is_passed_by_all_or_by_none(void **state)
{
    (void)state;
    expect_equal_shares(NULL);
    expect_equal_shares(&(mproc_barrier_opts){.action = do_nothing});
}

/* ---- deaths ----------------------------------------------------------- */

static int wait_there(void *b, mproc_deadline until)
{
    return mproc_barrier_wait(b, NULL, until);
}

/*
 * What a thread looks like that was killed in a wait: counted by the barrier,
 * its record waits, and its slot is dead.
 */
static void *arrive_and_die(void *arg)
{
    mproc_barrier *b = arg;
    struct mpr_thread *self;
    assert_ok(mpr_self(&self));
    mpr_wait_begin(self, b, atomic_load(&b->state) >> 32);
    atomic_fetch_add(&b->state, 8);
    atomic_fetch_add(&ready, 1);
    await(atomic_load(&told) == 1);
    return NULL;
}

static void a_dead_waiter_is_noticed_by_who_sleeps(void **state)
{
    (void)state;
    struct caller bystander, waiter;
    mproc_barrier *b;
    mproc_barrier *other;
    assert_ok(mproc_barrier_new(&b, 3, NULL));
    assert_ok(mproc_barrier_new(&other, 2, NULL));
    pthread_t dead = start(arrive_and_die, b);
    await(atomic_load(&ready) == 1);
    pthread_t first = start_call(&bystander, wait_there, other, MPROC_FOREVER);
    pthread_t second = start_call(&waiter, wait_there, b, MPROC_FOREVER);
    assert_int_equal(mproc_barrier_n_waiting(b), 2);
    atomic_store(&told, 1);
    pthread_join(dead, NULL);
    pthread_join(second, NULL);
    assert_err(waiter.err, MPROC_EBROKEN);
    assert_true(mproc_barrier_broken(b));
    assert_ok(mproc_barrier_wait(other, NULL, MPROC_FOREVER));
    pthread_join(first, NULL);
    assert_ok(bystander.err);
    mproc_barrier_free(other);
    mproc_barrier_free(b);
}

static void the_last_one_finds_the_dead(void **state)
{
    (void)state;
    mproc_barrier *b;
    assert_ok(mproc_barrier_new(&b, 2, NULL));
    pthread_t dead = start(arrive_and_die, b);
    await(atomic_load(&ready) == 1);
    assert_int_equal(mproc_barrier_n_waiting(b), 1);
    atomic_store(&told, 1);
    pthread_join(dead, NULL);
    assert_err(mproc_barrier_wait(b, NULL, MPROC_NOWAIT), MPROC_EBROKEN);
    mproc_barrier_free(b);
}

static int end_thread(void *unused)
{
    (void)unused;
    atomic_fetch_add(&ready, 1);
    await(atomic_load(&told) == 1);
    pthread_exit(NULL);
}

static void *wait_in_thread(void *b)
{
    (void)mproc_barrier_wait(b, NULL, MPROC_FOREVER);
    fail();
    return NULL;
}

static void a_dead_actor_is_noticed_by_who_sleeps(void **state)
{
    (void)state;
    struct caller waiter;
    mproc_barrier *b;
    const mproc_barrier_opts opts = {.action = end_thread};
    assert_ok(mproc_barrier_new(&b, 2, &opts));
    pthread_t first = start_call(&waiter, wait_there, b, MPROC_FOREVER);
    pthread_t actor = start(wait_in_thread, b);
    await(atomic_load(&ready) == 1);
    assert_false(mproc_barrier_broken(b));
    atomic_store(&told, 1);
    pthread_join(actor, NULL);
    pthread_join(first, NULL);
    assert_err(waiter.err, MPROC_EBROKEN);
    reap_dead();
    mproc_barrier_free(b);
}

static void free_barrier(void *b)
{
    mproc_barrier_free(b);
}

static void those_who_wait_for_a_freed_barrier_leave(void **state)
{
    (void)state;
    mproc_barrier *b;
    assert_ok(mproc_barrier_new(&b, THREADS + 1, NULL));
    expect_all_back(wait_there, b, free_barrier, MPROC_EINVAL);
}

static void reset_barrier(void *b)
{
    assert_ok(mproc_barrier_reset(b));
}

static void those_who_wait_at_a_reset_leave(void **state)
{
    (void)state;
    mproc_barrier *b;
    assert_ok(mproc_barrier_new(&b, THREADS + 1, NULL));
    expect_all_back(wait_there, b, reset_barrier, MPROC_EBROKEN);
    assert_false(mproc_barrier_broken(b));
    mproc_barrier_free(b);
}

int main(void)
{
    threads_have_slots();
    const struct CMUnitTest tests[] = {
        THREADS_TEST(what_was_written_before_is_seen_behind),
        THREADS_TEST(an_action_sees_all_and_is_seen_by_all),
        THREADS_TEST(a_generation_is_passed_by_all_or_by_none),
        THREADS_TEST(a_dead_waiter_is_noticed_by_who_sleeps),
        THREADS_TEST(the_last_one_finds_the_dead),
        THREADS_TEST(a_dead_actor_is_noticed_by_who_sleeps),
        THREADS_TEST(those_who_wait_for_a_freed_barrier_leave),
        THREADS_TEST(those_who_wait_at_a_reset_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
