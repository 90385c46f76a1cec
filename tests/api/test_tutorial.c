/* SPDX-License-Identifier: MIT */
/* What a reader of a tutorial of Python's multiprocessing writes first. */
#include "test.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static mproc_process *started(mproc_main_fn *fn, void *arg, bool daemon)
{
    mproc_process *p;
    const mproc_process_opts opts = {.daemon = daemon};
    assert_ok(mproc_process_new(&p, fn, arg, &opts));
    assert_ok(mproc_process_start(p));
    return p;
}

static void ended(mproc_process *p, int expected)
{
    int code = 1234;
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_ok(mproc_process_exitcode(p, &code));
    assert_int_equal(code, expected);
    mproc_process_free(p);
}

/* ---- Lock and Value --------------------------------------------------- */

enum { COUNTERS = 4, ROUNDS = 2000 };

struct counter {
    mproc_lock *lock;
    volatile int value;
};

static int count_up(void *arg)
{
    struct counter *c = arg;
    for (int i = 0; i < ROUNDS; i++) {
        MPROC_WITH(c->lock) {
            c->value++;
        }
    }
    return 0;
}

static void a_counter_under_a_lock_loses_nothing(void **state)
{
    (void)state;
    mproc_process *p[COUNTERS];
    struct counter *c = mproc_calloc(1, sizeof *c);
    assert_non_null(c);
    assert_ok(mproc_lock_new(&c->lock));
    for (int i = 0; i < COUNTERS; i++) {
        p[i] = started(count_up, c, false);
    }
    for (int i = 0; i < COUNTERS; i++) {
        ended(p[i], 0);
    }
    assert_int_equal(c->value, COUNTERS * ROUNDS);
    mproc_lock_free(c->lock);
    mproc_free(c);
}

/* ---- JoinableQueue ---------------------------------------------------- */

struct kitchen {
    mproc_queue *buns;
    atomic_int eaten;
};

static int eat_for_ever(void *arg)
{
    struct kitchen *k = arg;
    int bun;
    while (MPROC_GET(k->buns, int, &bun) >= 0) {
        atomic_fetch_add(&k->eaten, bun);
        if (mproc_queue_task_done(k->buns) < 0) {
            return 1;
        }
    }
    return 2;
}

static void a_queue_is_joined_while_a_daemon_consumes(void **state)
{
    (void)state;
    struct kitchen *k = mproc_calloc(1, sizeof *k);
    assert_non_null(k);
    assert_ok(mproc_queue_new(&k->buns, &(mproc_queue_opts){.joinable = 1}));
    mproc_process *eater = started(eat_for_ever, k, true);
    for (int i = 1; i <= 10; i++) {
        assert_ok(MPROC_PUT(k->buns, int, i));
    }
    assert_ok(mproc_queue_join(k->buns, TEST_BOUND));
    assert_int_equal(atomic_load(&k->eaten), 55);
    assert_true(mproc_queue_empty(k->buns));
    assert_err(mproc_queue_task_done(k->buns), MPROC_EINVAL);
    assert_true(mproc_process_is_alive(eater));
    assert_ok(mproc_process_terminate(eater));
    ended(eater, -SIGTERM);
    mproc_queue_free(k->buns);
    mproc_free(k);
}

static int put_abc(void *arg)
{
    for (char c = 'A'; c <= 'C'; c++) {
        if (mproc_queue_putf(arg, MPROC_FOREVER, "%c", c) < 0) {
            return 1;
        }
    }
    return 0;
}

static void a_writer_ends_before_its_queue_is_read(void **state)
{
    (void)state;
    mproc_queue *q;
    assert_ok(mproc_queue_new(&q, NULL));
    ended(started(put_abc, q, false), 0);
    for (char c = 'A'; c <= 'C'; c++) {
        char text[2] = "";
        assert_ok(mproc_queue_get(q, text, sizeof text, NULL, TEST_BOUND));
        assert_int_equal(text[0], c);
    }
    assert_err(mproc_queue_get(q, NULL, 0, NULL, mproc_in_ms(1)), MPROC_EEMPTY);
    mproc_queue_free(q);
}

/* ---- Pipe ------------------------------------------------------------- */

struct ends {
    mproc_connection *client, *server;
};

static int serve_sums(void *arg)
{
    const struct ends *ends = arg;
    int pair[2], err;
    if (mproc_connection_close(ends->client) < 0) {
        return 1;
    }
    while ((err = mproc_connection_recv(ends->server, pair, sizeof pair, NULL,
                                        MPROC_FOREVER)) == 0) {
        int sum = pair[0] + pair[1];
        err = mproc_connection_send(ends->server, &sum, sizeof sum,
                                    MPROC_FOREVER);
        if (err < 0) {
            return 2;
        }
    }
    return err == MPROC_EOF ? 0 : 3;
}

static void a_server_at_a_pipe_ends_at_end_of_file(void **state)
{
    (void)state;
    struct ends ends;
    int sum = 0;
    assert_ok(mproc_pipe_new(&ends.client, &ends.server, NULL));
    mproc_process *server = started(serve_sums, &ends, false);
    assert_ok(mproc_connection_close(ends.server));
    for (int i = 0; i < 3; i++) {
        const int pair[2] = {10 * i, 20};
        assert_ok(
            mproc_connection_send(ends.client, pair, sizeof pair, TEST_BOUND));
        assert_ok(mproc_connection_recv(ends.client, &sum, sizeof sum, NULL,
                                        TEST_BOUND));
        assert_int_equal(sum, 10 * i + 20);
    }
    assert_ok(mproc_connection_close(ends.client));
    ended(server, 0);
}

/* ---- Condition -------------------------------------------------------- */

struct game {
    mproc_condition *turn;
    int said; /* lines so far; even: the seeker's turn */
    const char *line[4];
};

struct player {
    struct game *game;
    int first;
    const char *lines[2];
};

static bool is_my_turn(void *user)
{
    const struct player *me = user;
    return me->game->said % 2 == me->first;
}

static int play(void *arg)
{
    struct player *me = arg;
    struct game *game = me->game;
    int err = mproc_condition_acquire(game->turn, MPROC_FOREVER);
    for (int i = 0; i < 2 && err == 0; i++) {
        err =
            mproc_condition_wait_for(game->turn, is_my_turn, me, MPROC_FOREVER);
        game->line[game->said++] = me->lines[i];
        mproc_condition_notify(game->turn, 1);
    }
    return err != 0 || mproc_condition_release(game->turn) != 0;
}

static void hide_and_seek_goes_by_turns(void **state)
{
    (void)state;
    struct game *game = mproc_calloc(1, sizeof *game);
    assert_non_null(game);
    assert_ok(mproc_condition_new(&game->turn, NULL));
    struct player seeker = {game, 0, {"my eyes are shut", "found you"}};
    struct player hider = {game, 1, {"I am hidden", "what a pity"}};
    mproc_process *p = started(play, &hider, false);
    mproc_process *q = started(play, &seeker, false);
    ended(p, 0);
    ended(q, 0);
    assert_int_equal(game->said, 4);
    assert_string_equal(game->line[0], "my eyes are shut");
    assert_string_equal(game->line[1], "I am hidden");
    assert_string_equal(game->line[2], "found you");
    assert_string_equal(game->line[3], "what a pity");
    mproc_condition_free(game->turn);
    mproc_free(game);
}

/* ---- Event ------------------------------------------------------------ */

enum { RUNNERS = 4 };

struct race {
    mproc_event *start;
    mproc_queue *ready, *gone;
};

static int run_after_start(void *arg)
{
    const struct race *race = arg;
    bool ok = MPROC_PUT(race->ready, int, 1) == 0 &&
              mproc_event_wait(race->start, MPROC_FOREVER) == 0 &&
              MPROC_PUT(race->gone, int, 1) == 0;
    return ok ? 0 : 1;
}

static void none_goes_before_the_event(void **state)
{
    (void)state;
    struct race race;
    mproc_process *p[RUNNERS];
    int one;
    assert_ok(mproc_event_new(&race.start));
    assert_ok(mproc_queue_new(&race.ready, NULL));
    assert_ok(mproc_queue_new(&race.gone, NULL));
    for (int i = 0; i < RUNNERS; i++) {
        p[i] = started(run_after_start, &race, false);
    }
    for (int i = 0; i < RUNNERS; i++) {
        assert_ok(
            mproc_queue_get(race.ready, &one, sizeof one, NULL, TEST_BOUND));
    }
    assert_true(mproc_queue_empty(race.gone));
    assert_int_equal(mproc_active_children(NULL, 0), RUNNERS);
    assert_ok(mproc_event_set(race.start));
    for (int i = 0; i < RUNNERS; i++) {
        ended(p[i], 0);
    }
    assert_int_equal(mproc_queue_qsize(race.gone), RUNNERS);
    assert_int_equal(mproc_active_children(NULL, 0), 0);
    mproc_event_free(race.start);
    mproc_queue_free(race.ready);
    mproc_queue_free(race.gone);
}

/* ---- BoundedSemaphore ------------------------------------------------- */

enum { SEATS = 3, GUESTS = 8 };

struct room {
    mproc_semaphore *seats;
    atomic_int inside, most;
};

static int sit_down(void *arg)
{
    struct room *room = arg;
    for (int i = 0; i < 50; i++) {
        MPROC_WITH(room->seats) {
            int now = atomic_fetch_add(&room->inside, 1) + 1;
            int most = atomic_load(&room->most);
            while (now > most &&
                   !atomic_compare_exchange_weak(&room->most, &most, now)) {
            }
            sched_yield();
            atomic_fetch_sub(&room->inside, 1);
        }
    }
    return 0;
}

static void there_are_as_many_inside_as_seats(void **state)
{
    (void)state;
    struct room *room = mproc_calloc(1, sizeof *room);
    mproc_process *p[GUESTS];
    assert_non_null(room);
    const mproc_semaphore_opts bounded = {.bounded = 1};
    assert_ok(mproc_semaphore_new(&room->seats, SEATS, &bounded));
    for (int i = 0; i < GUESTS; i++) {
        p[i] = started(sit_down, room, false);
    }
    for (int i = 0; i < GUESTS; i++) {
        ended(p[i], 0);
    }
    int most = atomic_load(&room->most);
    assert_true(most >= 1 && most <= SEATS);
    assert_int_equal(atomic_load(&room->inside), 0);
    assert_int_equal(mproc_semaphore_value(room->seats), SEATS);
    assert_err(mproc_semaphore_release(room->seats), MPROC_EINVAL);
    mproc_semaphore_free(room->seats);
    mproc_free(room);
}

/* ---- order by locks --------------------------------------------------- */

enum { IN_TURN = 3, TURNS = 20 };

struct ring {
    mproc_lock *may[IN_TURN];
    mproc_queue *said;
};

struct place {
    struct ring *ring;
    int mine;
};

static int speak_in_turn(void *arg)
{
    const struct place *at = arg;
    struct ring *ring = at->ring;
    for (int i = 0; i < TURNS; i++) {
        bool ok = mproc_lock_acquire(ring->may[at->mine], MPROC_FOREVER) == 0 &&
                  MPROC_PUT(ring->said, int, at->mine) == 0 &&
                  mproc_lock_release(ring->may[(at->mine + 1) % IN_TURN]) == 0;
        if (!ok) {
            return 1;
        }
    }
    return 0;
}

/* All stay until the end: a lock whose last holder has ended is RECOVERED. */
static int speak_and_stay(void *arg)
{
    const struct place *at = arg;
    int failed = speak_in_turn(arg);
    int err = mproc_queue_join(at->ring->said, MPROC_FOREVER);
    return failed || err < 0;
}

static void each_releases_the_lock_of_the_next(void **state)
{
    (void)state;
    struct ring ring;
    struct place places[IN_TURN];
    mproc_process *p[IN_TURN];
    assert_ok(mproc_queue_new(&ring.said, &(mproc_queue_opts){.joinable = 1}));
    for (int i = 0; i < IN_TURN; i++) {
        assert_ok(mproc_lock_new(&ring.may[i]));
        assert_ok(mproc_lock_acquire(ring.may[i], MPROC_NOWAIT));
        places[i] = (struct place){&ring, i};
    }
    assert_ok(MPROC_PUT(ring.said, int, -1)); /* so that none leaves early */
    for (int i = 0; i < IN_TURN; i++) {
        p[i] = started(speak_and_stay, &places[i], false);
    }
    assert_ok(mproc_lock_release(ring.may[0]));
    for (int i = -1; i < IN_TURN * TURNS; i++) {
        int who = -2;
        assert_ok(
            mproc_queue_get(ring.said, &who, sizeof who, NULL, TEST_BOUND));
        assert_int_equal(who, i < 0 ? -1 : i % IN_TURN);
    }
    for (int i = -1; i < IN_TURN * TURNS; i++) {
        assert_ok(mproc_queue_task_done(ring.said));
    }
    for (int i = 0; i < IN_TURN; i++) {
        ended(p[i], 0);
        mproc_lock_free(ring.may[i]);
    }
    mproc_queue_free(ring.said);
}

/* ---- two locks, in opposite order ------------------------------------- */

struct forks {
    mproc_lock *one, *other;
};

static int eat_with_both(void *arg)
{
    const struct forks *forks = arg;
    for (int eaten = 0; eaten < 20;) {
        if (mproc_lock_acquire(forks->one, MPROC_FOREVER) < 0) {
            return 1;
        }
        if (mproc_lock_acquire(forks->other, mproc_in_ms(1)) >= 0) {
            eaten++;
            if (mproc_lock_release(forks->other) < 0) {
                return 2;
            }
        }
        if (mproc_lock_release(forks->one) < 0) {
            return 3;
        }
        usleep(eaten % 2 ? 100 : 700); /* or both try in step for long */
    }
    return 0;
}

static void who_backs_off_comes_through(void **state)
{
    (void)state;
    struct forks left, right;
    assert_ok(mproc_lock_new(&left.one));
    assert_ok(mproc_lock_new(&left.other));
    right = (struct forks){left.other, left.one};
    mproc_process *p = started(eat_with_both, &left, false);
    mproc_process *q = started(eat_with_both, &right, false);
    ended(p, 0);
    ended(q, 0);
    mproc_lock_free(left.one);
    mproc_lock_free(left.other);
}

/* ---- Pool ------------------------------------------------------------- */

static int square(const void *arg, size_t size, mproc_reply *reply)
{
    int x = *(const int *)arg;
    int xx = x * x;
    return size == sizeof x ? mproc_reply_set(reply, &xx, sizeof xx) : 1;
}

static void add_up(const mproc_outcome *outcome, void *user)
{
    *(int *)user += *(const int *)outcome->data;
}

static int put_square(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_queue *q = *(mproc_queue *const *)arg;
    (void)size;
    (void)reply;
    return MPROC_PUT(q, int, 49) < 0 ? 1 : 0;
}

static void a_pool_squares_in_each_way(void **state)
{
    (void)state;
    mproc_pool *pool;
    mproc_queue *q;
    int in[10], out[10], sum = 0, got = 0, x = 5;
    assert_ok(mproc_pool_new(&pool, &(mproc_pool_opts){.workers = 3}));
    assert_ok(mproc_queue_new(&q, NULL)); /* later than the workers */
    for (int i = 0; i < 10; i++) {
        in[i] = i;
        out[i] = -1;
        assert_ok(mproc_pool_apply_async(
            pool,
            &(mproc_call){
                .fn = square, MPROC_ARG(i), .callback = add_up, .user = &sum},
            NULL, TEST_BOUND));
    }
    assert_ok(mproc_pool_apply(pool, &(mproc_call){square, MPROC_ARG(x)}, &got,
                               sizeof got, TEST_BOUND));
    assert_int_equal(got, 25);
    assert_ok(mproc_pool_map(pool,
                             &(mproc_batch){.fn = square,
                                            .in = in,
                                            .in_size = sizeof *in,
                                            .count = 10,
                                            .out = out,
                                            .out_size = sizeof *out},
                             TEST_BOUND));
    for (int i = 0; i < 10; i++) {
        assert_int_equal(out[i], i * i);
    }
    assert_ok(mproc_pool_apply(pool, &(mproc_call){put_square, MPROC_ARG(q)},
                               NULL, 0, TEST_BOUND));
    assert_ok(MPROC_GET(q, int, &got));
    assert_int_equal(got, 49);
    assert_ok(mproc_pool_close(pool));
    assert_ok(mproc_pool_join(pool, TEST_BOUND));
    assert_int_equal(sum, 285);
    mproc_pool_free(pool);
    mproc_queue_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_counter_under_a_lock_loses_nothing),
        cmocka_unit_test(a_queue_is_joined_while_a_daemon_consumes),
        cmocka_unit_test(a_writer_ends_before_its_queue_is_read),
        cmocka_unit_test(a_server_at_a_pipe_ends_at_end_of_file),
        cmocka_unit_test(hide_and_seek_goes_by_turns),
        cmocka_unit_test(none_goes_before_the_event),
        cmocka_unit_test(there_are_as_many_inside_as_seats),
        cmocka_unit_test(each_releases_the_lock_of_the_next),
        cmocka_unit_test(who_backs_off_comes_through),
        cmocka_unit_test(a_pool_squares_in_each_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
