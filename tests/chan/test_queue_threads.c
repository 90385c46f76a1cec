/* SPDX-License-Identifier: MIT */
/*
 * The algorithms of a queue among threads that have a slot each: the end of a
 * thread is then the death of a participant, and the thread sanitizer sees what
 * it cannot see between processes. The same among processes. All sleeps begin
 * in their second stage, which has no timed look, so a wake-up that is lost is
 * a test that hangs.
 */
#include "test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chan/queue.h"
#include "shm/sleep.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { ROUNDS = 3000 };
#else
enum { ROUNDS = 20000 };
#endif

enum { THREADS = 3, LARGE = 1500 };

struct message {
    int producer, number;
};

/* What those who take part share; in shared memory, for processes. */
struct crowd {
    mproc_queue *q;
    atomic_int taken[THREADS][ROUNDS];
    atomic_int next_me, wrong;
};

static struct crowd *new_crowd(const mproc_queue_opts *opts)
{
    struct crowd *crowd = mproc_calloc(1, sizeof *crowd);
    assert_non_null(crowd);
    assert_ok(mproc_queue_new(&crowd->q, opts));
    return crowd;
}

/* In a thread nothing can be asserted: it is counted. */
static bool good(struct crowd *crowd, bool is, const char *what, int err)
{
    if (!is) {
        atomic_fetch_add(&crowd->wrong, 1);
        fprintf(stderr, "%s: %s\n", what, mproc_error_name(err));
    }
    return is;
}

/* ---- what they do ----------------------------------------------------- */

static size_t size_of(int number)
{
    return number % 5 == 0 ? LARGE : sizeof(struct message);
}

static int put_number(struct crowd *crowd, int me, int number)
{
    char data[LARGE];
    struct message m = {me, number};
    memset(data, number, sizeof data);
    memcpy(data, &m, sizeof m);
    int err =
        crowd->q->log.order == MPROC_PRIORITY
            ? mproc_queue_put_priority(crowd->q, 1 - number % 2, data,
                                       size_of(number), MPROC_FOREVER)
            : mproc_queue_put(crowd->q, data, size_of(number), MPROC_FOREVER);
    return good(crowd, err == 0, "put", err) ? 0 : err;
}

/* What may come next of each producer, of its even and of its odd numbers. */
struct had {
    int next[THREADS][2];
};

/* Those of one priority come in order, where the queue has one. */
static bool in_order(int order, const struct had *had, const struct message *m)
{
    const int *next = had->next[m->producer];
    switch (order) {
    case MPROC_FIFO:
        return m->number >= next[0] && m->number >= next[1];
    case MPROC_PRIORITY:
        return m->number >= next[m->number % 2];
    default:
        return true;
    }
}

/* Takes one; false at the end. */
static bool take(struct crowd *crowd, struct had *had)
{
    char data[LARGE];
    struct message m;
    size_t size = 0;
    int err =
        mproc_queue_get(crowd->q, data, sizeof data, &size, MPROC_FOREVER);
    if (err < 0) {
        good(crowd, err == MPROC_ESHUTDOWN, "get", err);
        return false;
    }
    memcpy(&m, data, sizeof m);
    good(crowd, size == size_of(m.number), "size", 0);
    good(crowd, size == sizeof m || data[LARGE - 1] == (char)m.number, "data",
         0);
    good(crowd, in_order(crowd->q->log.order, had, &m), "order", 0);
    had->next[m.producer][m.number % 2] = m.number + 1;
    atomic_fetch_add(&crowd->taken[m.producer][m.number], 1);
    return true;
}

static void *produce(void *arg)
{
    struct crowd *crowd = arg;
    int me = atomic_fetch_add(&crowd->next_me, 1) % THREADS;
    for (int i = 0; i < ROUNDS && put_number(crowd, me, i) == 0; i++) {
    }
    return NULL;
}

static void *consume(void *arg)
{
    struct had had = {0};
    while (take(arg, &had)) {
    }
    return NULL;
}

static void *consume_and_acknowledge(void *arg)
{
    struct crowd *crowd = arg;
    struct had had = {0};
    while (take(crowd, &had)) {
        int err = mproc_queue_task_done(crowd->q);
        good(crowd, err == 0, "task_done", err);
    }
    return NULL;
}

/* Ends, which is a death, with messages that it did not acknowledge. */
static void *take_some_and_end(void *arg)
{
    struct had had = {0};
    for (int i = 0; i < 7 && take(arg, &had); i++) {
    }
    return NULL;
}

/* A holder of what is locked may be off the processor now and then. */
static void *put_and_get_at_once(void *arg)
{
    struct crowd *crowd = arg;
    int got, refused = 0;
    for (int i = 0; i < ROUNDS; i++) {
        int err = mproc_queue_put(crowd->q, &i, sizeof i, MPROC_NOWAIT);
        refused += err == MPROC_EFULL;
        if (err == 0) {
            err =
                mproc_queue_get(crowd->q, &got, sizeof got, NULL, MPROC_NOWAIT);
        }
        if (err == MPROC_EEMPTY) {
            refused++;
            err = mproc_queue_get(crowd->q, &got, sizeof got, NULL,
                                  MPROC_FOREVER);
        }
        good(crowd, err == 0 || err == MPROC_EFULL, "put or get", err);
    }
    good(crowd, refused <= 3, "it said full or empty without being so", 0);
    return NULL;
}

/* ---- among threads ---------------------------------------------------- */

static pthread_t start(void *(*fn)(void *), void *arg)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fn, arg), 0);
    return thread;
}

static void run_threads(struct crowd *crowd, void *(*consumer)(void *))
{
    pthread_t producers[THREADS], consumers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        consumers[i] = start(consumer, crowd);
        producers[i] = start(produce, crowd);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(producers[i], NULL);
    }
    if (crowd->q->log.joinable) {
        assert_ok(mproc_queue_join(crowd->q, MPROC_FOREVER));
        assert_true(mproc_queue_empty(crowd->q));
    }
    assert_ok(mproc_queue_shutdown(crowd->q, false));
    for (int i = 0; i < THREADS; i++) {
        pthread_join(consumers[i], NULL);
    }
}

static void expect_each_once(struct crowd *crowd)
{
    assert_int_equal(atomic_load(&crowd->wrong), 0);
    for (int i = 0; i < THREADS; i++) {
        for (int k = 0; k < ROUNDS; k++) {
            assert_int_equal(atomic_load(&crowd->taken[i][k]), 1);
        }
    }
}

static void end_crowd(struct crowd *crowd)
{
    mproc_queue_free(crowd->q);
    mproc_free(crowd);
}

static void use_among_threads(const mproc_queue_opts *opts,
                              void *(*consumer)(void *))
{
    struct crowd *crowd = new_crowd(opts);
    run_threads(crowd, consumer);
    expect_each_once(crowd);
    end_crowd(crowd);
}

static void threads_share_a_queue_of_one_place(void **state)
{
    (void)state;
    use_among_threads(&(mproc_queue_opts){.maxsize = 1}, consume);
}

static void threads_share_a_bounded_queue(void **state)
{
    (void)state;
    use_among_threads(&(mproc_queue_opts){.maxsize = 20}, consume);
}

static void threads_share_an_unlimited_queue(void **state)
{
    (void)state;
    use_among_threads(NULL, consume);
}

static void threads_share_a_stack(void **state)
{
    (void)state;
    use_among_threads(&(mproc_queue_opts){.order = MPROC_LIFO}, consume);
    use_among_threads(&(mproc_queue_opts){.order = MPROC_LIFO, .maxsize = 20},
                      consume);
}

static void threads_share_a_queue_with_priorities(void **state)
{
    (void)state;
    const mproc_queue_opts opts = {
        .order = MPROC_PRIORITY, .maxsize = 20, .joinable = 1};
    use_among_threads(&(mproc_queue_opts){.order = MPROC_PRIORITY}, consume);
    use_among_threads(&opts, consume_and_acknowledge);
}

static void threads_acknowledge_and_one_joins(void **state)
{
    (void)state;
    const mproc_queue_opts opts = {.maxsize = 20, .joinable = 1};
    use_among_threads(&opts, consume_and_acknowledge);
}

static void join_ends_when_those_who_took_have_ended(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct crowd *crowd = new_crowd(&(mproc_queue_opts){.joinable = 1});
        pthread_t threads[THREADS];
        for (int i = 0; i < 7 * THREADS; i++) {
            assert_int_equal(put_number(crowd, 0, i), 0);
        }
        for (int i = 0; i < THREADS; i++) {
            threads[i] = start(take_some_and_end, crowd);
        }
        assert_ok(mproc_queue_join(crowd->q, MPROC_FOREVER));
        assert_true(mproc_queue_empty(crowd->q));
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        assert_int_equal(atomic_load(&crowd->wrong), 0);
        end_crowd(crowd);
    }
}

/*
 * Each has at most one message in it, so there is room for all of them, and
 * always something to take after a put.
 */
static void it_is_full_or_empty_only_when_it_is(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd(&(mproc_queue_opts){.maxsize = THREADS});
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start(put_and_get_at_once, crowd);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&crowd->wrong), 0);
    assert_true(mproc_queue_empty(crowd->q));
    end_crowd(crowd);
}

/*
 * Each takes messages of its own size only. Who is woken for the other's leaves
 * with EMSGSIZE and must pass that on: no other message will come before.
 */
struct chooser {
    struct crowd *crowd;
    size_t size;
};

static void *take_own_size(void *arg)
{
    struct chooser *chooser = arg;
    char data[16];
    int taken = 0;
    while (taken < ROUNDS) {
        int err = mproc_queue_get(chooser->crowd->q, data, chooser->size, NULL,
                                  MPROC_FOREVER);
        taken += err == 0;
        if (err == MPROC_EMSGSIZE) {
            sched_yield();
        } else if (!good(chooser->crowd, err == 0, "get", err)) {
            break;
        }
    }
    return NULL;
}

static void who_cannot_take_it_wakes_who_can(void **state)
{
    (void)state;
    struct crowd *crowd = new_crowd(&(mproc_queue_opts){.maxsize = 1});
    struct chooser chooser[2] = {{crowd, 8}, {crowd, 16}};
    pthread_t thread[2] = {start(take_own_size, &chooser[0]),
                           start(take_own_size, &chooser[1])};
    char data[16] = "";
    for (int i = 0; i < ROUNDS; i++) {
        assert_ok(
            mproc_queue_put(crowd->q, data, i % 3 ? 8 : 16, MPROC_FOREVER));
        assert_ok(
            mproc_queue_put(crowd->q, data, i % 3 ? 16 : 8, MPROC_FOREVER));
    }
    pthread_join(thread[0], NULL);
    pthread_join(thread[1], NULL);
    assert_int_equal(atomic_load(&crowd->wrong), 0);
    end_crowd(crowd);
}

/*
 * Queues are made and freed at one place while another waits for them: it is
 * told, and does not meddle with the next.
 */
enum { ENDS = 300 };

struct ended {
    mproc_queue *_Atomic q;
    atomic_int asked, told, wrong;
};

static void *wait_for_what_ends(void *arg)
{
    struct ended *ended = arg;
    for (int i = 0; i < ENDS; i++) {
        char byte;
        while (atomic_load(&ended->asked) <= i) {
            sched_yield();
        }
        int err = mproc_queue_get(atomic_load(&ended->q), &byte, 1, NULL,
                                  MPROC_FOREVER);
        atomic_fetch_add(&ended->wrong, err != MPROC_EINVAL);
        atomic_fetch_add(&ended->told, 1);
    }
    return NULL;
}

static void who_waits_for_what_is_freed_is_told(void **state)
{
    (void)state;
    static struct ended ended;
    pthread_t thread = start(wait_for_what_ends, &ended);
    for (int i = 0; i < ENDS; i++) {
        mproc_queue *q, *next;
        char byte;
        assert_ok(mproc_queue_new(&q, NULL));
        /* the flag may be there from the waiter before: begin without it */
        atomic_fetch_and(&q->log.items, ~(uint32_t)MPR_BELL_WAITERS);
        atomic_store(&ended.q, q);
        atomic_store(&ended.asked, i + 1);
        while (!(atomic_load(&q->log.items) & MPR_BELL_WAITERS)) {
            sched_yield();
        }
        mproc_queue_free(q);
        assert_ok(mproc_queue_new(&next, NULL));
        assert_ok(mproc_queue_put(next, "x", 1, MPROC_NOWAIT));
        while (atomic_load(&ended.told) <= i) {
            sched_yield();
        }
        assert_ok(mproc_queue_get(next, &byte, 1, NULL, MPROC_NOWAIT));
        mproc_queue_free(next);
    }
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&ended.wrong), 0);
}

/* ---- among processes -------------------------------------------------- */

static int produce_and_leave(void *arg)
{
    produce(arg);
    return 0;
}

static int consume_and_leave(void *arg)
{
    consume_and_acknowledge(arg);
    return 0;
}

static int use_among_processes(void *unused)
{
    (void)unused;
    mpr_test_deep_sleep = true;
    const mproc_queue_opts opts = {.maxsize = 5, .joinable = 1};
    struct crowd *crowd = new_crowd(&opts);
    pid_t producer[THREADS], consumer[THREADS];
    for (int i = 0; i < THREADS; i++) {
        consumer[i] = test_fork(consume_and_leave, crowd);
        producer[i] = test_fork(produce_and_leave, crowd);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(test_wait_exit(producer[i]), 0);
    }
    assert_ok(mproc_queue_join(crowd->q, MPROC_FOREVER));
    assert_ok(mproc_queue_shutdown(crowd->q, false));
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(test_wait_exit(consumer[i]), 0);
    }
    expect_each_once(crowd);
    end_crowd(crowd);
    return 0;
}

/* In a child, since the threads' tests use the library in another way. */
static void processes_share_a_queue(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(use_among_processes, NULL)), 0);
}

static int slots_for_threads(void **state)
{
    (void)state;
    mpr_test_deep_sleep = true;
    mpr_test_slot_per_thread(true);
    return 0;
}

int main(void)
{
    const struct CMUnitTest processes[] = {
        cmocka_unit_test(processes_share_a_queue),
    };
    const struct CMUnitTest threads[] = {
        cmocka_unit_test(threads_share_a_queue_of_one_place),
        cmocka_unit_test(threads_share_a_bounded_queue),
        cmocka_unit_test(threads_share_an_unlimited_queue),
        cmocka_unit_test(threads_share_a_stack),
        cmocka_unit_test(threads_share_a_queue_with_priorities),
        cmocka_unit_test(threads_acknowledge_and_one_joins),
        cmocka_unit_test(join_ends_when_those_who_took_have_ended),
        cmocka_unit_test(it_is_full_or_empty_only_when_it_is),
        cmocka_unit_test(who_cannot_take_it_wakes_who_can),
        cmocka_unit_test(who_waits_for_what_is_freed_is_told),
    };
    int failed = cmocka_run_group_tests(processes, NULL, NULL);
    return failed + cmocka_run_group_tests(threads, slots_for_threads, NULL);
}
