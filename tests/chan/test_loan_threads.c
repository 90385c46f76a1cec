/* SPDX-License-Identifier: MIT */
/*
 * Messages without a copy, and many at once, among threads that have a slot
 * each: the end of a thread is then the death of a participant, and the thread
 * sanitizer sees what it cannot see between processes. All sleeps begin in
 * their second stage, which has no timed look, so a wake-up that is lost is a
 * test that hangs.
 */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "chan/queue.h"
#include "shm/sleep.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { EACH = 2000 };
#else
enum { EACH = 12000 };
#endif

enum { THREADS = 3, BATCH = 40, LARGE = 1500 };

struct message {
    int producer, number;
};

static struct {
    mproc_queue *q;
    atomic_int next_me, wrong;
    atomic_int had[THREADS][EACH];
} crowd;

/* In a thread nothing can be asserted: it is counted. */
static bool good(bool is, const char *what, int err)
{
    if (!is) {
        atomic_fetch_add(&crowd.wrong, 1);
        fprintf(stderr, "%s: %s\n", what, mproc_error_name(err));
    }
    return is;
}

static pthread_t start(void *(*fn)(void *))
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fn, NULL), 0);
    return thread;
}

static void begin(const mproc_queue_opts *opts)
{
    memset(&crowd, 0, sizeof crowd);
    assert_ok(mproc_queue_new(&crowd.q, opts));
}

static void expect_each_once(void)
{
    assert_int_equal(atomic_load(&crowd.wrong), 0);
    for (int i = 0; i < THREADS; i++) {
        for (int k = 0; k < EACH; k++) {
            assert_int_equal(atomic_load(&crowd.had[i][k]), 1);
        }
    }
}

/* ---- putting ---------------------------------------------------------- */

static bool send(int me, int number, size_t size)
{
    mproc_message m, none;
    int err = mproc_queue_loan(crowd.q, &none, LARGE, MPROC_NOWAIT);
    if (err == 0) {
        mproc_message_release(&none);
    }
    err = mproc_queue_loan(crowd.q, &m, size, MPROC_FOREVER);
    if (!good(err == 0, "loan", err)) {
        return false;
    }
    memset(m.data, number, size);
    memcpy(m.data, &(struct message){me, number}, sizeof(struct message));
    err = mproc_queue_send(crowd.q, &m);
    return good(err == 0, "send", err);
}

static bool put_some(int me, int first, int n)
{
    struct message m[BATCH];
    for (int i = 0; i < n; i++) {
        m[i] = (struct message){me, first + i};
    }
    int put =
        mproc_queue_put_many(crowd.q, m, sizeof *m, (size_t)n, MPROC_FOREVER);
    return good(put == n, "put_many", put);
}

static void *produce(void *unused)
{
    (void)unused;
    int me = atomic_fetch_add(&crowd.next_me, 1) % THREADS;
    for (int number = 0; number < EACH;) {
        int n = number % BATCH + 1 < EACH - number ? number % BATCH + 1 : 1;
        bool loaned = number % 3 == 0;
        size_t size = number % 2 ? LARGE : sizeof(struct message);
        if (!(loaned ? send(me, number, size) : put_some(me, number, n))) {
            break;
        }
        number += loaned ? 1 : n;
    }
    return NULL;
}

/* ---- taking ----------------------------------------------------------- */

static void note(const struct message *m, int last[THREADS])
{
    good(m->number > last[m->producer], "order", 0);
    last[m->producer] = m->number;
    atomic_fetch_add(&crowd.had[m->producer][m->number], 1);
}

static bool take_one(int last[THREADS])
{
    mproc_message m;
    struct message head;
    int err = mproc_queue_take(crowd.q, &m, MPROC_FOREVER);
    if (err < 0) {
        good(err == MPROC_ESHUTDOWN, "take", err);
        return false;
    }
    memcpy(&head, m.data, sizeof head);
    if (m.size == LARGE) {
        const char *text = m.data;
        good(text[LARGE - 1] == (char)head.number, "data", 0);
    }
    good(((char *)m.data)[m.size] == 0, "NUL", 0);
    note(&head, last);
    mproc_message_release(&m);
    return true;
}

static bool get_some(int last[THREADS])
{
    struct message m[BATCH];
    int n = mproc_queue_get_many(crowd.q, m, sizeof *m, BATCH, MPROC_FOREVER);
    if (n < 0) {
        good(n == MPROC_ESHUTDOWN || n == MPROC_EMSGSIZE, "get_many", n);
        return n == MPROC_EMSGSIZE && take_one(last);
    }
    for (int i = 0; i < n; i++) {
        note(&m[i], last);
        if (crowd.q->log.joinable) {
            int err = mproc_queue_task_done(crowd.q);
            good(err == 0, "task_done", err);
        }
    }
    return true;
}

static void *consume(void *unused)
{
    int last[THREADS] = {-1, -1, -1};
    (void)unused;
    for (int i = 0; i % 2 ? take_one(last) : get_some(last); i++) {
    }
    return NULL;
}

static void share(const mproc_queue_opts *opts)
{
    pthread_t producers[THREADS], consumers[THREADS];
    begin(opts);
    for (int i = 0; i < THREADS; i++) {
        consumers[i] = start(consume);
        producers[i] = start(produce);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(producers[i], NULL);
    }
    if (opts->joinable) {
        assert_ok(mproc_queue_join(crowd.q, MPROC_FOREVER));
        assert_true(mproc_queue_empty(crowd.q));
    }
    assert_ok(mproc_queue_shutdown(crowd.q, false));
    for (int i = 0; i < THREADS; i++) {
        pthread_join(consumers[i], NULL);
    }
    expect_each_once();
    mproc_queue_free(crowd.q);
}

static void threads_loan_take_and_move_many(void **state)
{
    (void)state;
    share(&(mproc_queue_opts){0});
    share(&(mproc_queue_opts){.maxsize = 10});
    share(&(mproc_queue_opts){.maxsize = 10, .joinable = 1});
}

/* ---- deaths ----------------------------------------------------------- */

/* Ends, which is a death, with things out. */
static void *take_some_and_end(void *unused)
{
    (void)unused;
    mproc_message m;
    struct message got;
    int err = mproc_queue_loan(crowd.q, &m, LARGE, MPROC_FOREVER);
    good(err == 0 || err == MPROC_ESHUTDOWN, "loan", err);
    for (int i = 0; i < 7 && err == 0; i++) {
        err = i % 2 ? mproc_queue_take(crowd.q, &m, MPROC_NOWAIT)
                    : mproc_queue_get(crowd.q, &got, sizeof got, NULL,
                                      MPROC_NOWAIT);
    }
    good(err == 0 || err == MPROC_EEMPTY || err == MPROC_ESHUTDOWN, "get", err);
    return NULL;
}

static void *do_what_comes(void *unused)
{
    (void)unused;
    struct message got;
    int err;
    while ((err = mproc_queue_get(crowd.q, &got, sizeof got, NULL,
                                  MPROC_FOREVER)) == 0) {
        atomic_fetch_add(&crowd.had[got.producer][got.number], 1);
        err = mproc_queue_task_done(crowd.q);
        good(err == 0, "task_done", err);
    }
    good(err == MPROC_ESHUTDOWN, "get", err);
    return NULL;
}

static void what_ended_threads_had_comes_again(void **state)
{
    (void)state;
    enum { TASKS = 300 };
    for (int round = 0; round < 10; round++) {
        begin(&(mproc_queue_opts){.joinable = 1, .redeliver = 1});
        pthread_t dying[2 * THREADS], working[THREADS];
        for (int i = 0; i < TASKS; i += BATCH / 2) {
            assert_true(put_some(0, i, BATCH / 2));
        }
        for (int i = 0; i < 2 * THREADS; i++) {
            dying[i] = start(take_some_and_end);
        }
        for (int i = 0; i < THREADS; i++) {
            working[i] = start(do_what_comes);
        }
        assert_ok(mproc_queue_join(crowd.q, MPROC_FOREVER));
        assert_ok(mproc_queue_shutdown(crowd.q, false));
        for (int i = 0; i < 2 * THREADS; i++) {
            pthread_join(dying[i], NULL);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(working[i], NULL);
        }
        assert_int_equal(atomic_load(&crowd.wrong), 0);
        for (int i = 0; i < TASKS; i++) {
            assert_int_equal(atomic_load(&crowd.had[0][i]), 1);
        }
        mproc_queue_free(crowd.q);
    }
}

/* Waiters for room are told of the death of who had it on loan. */
static void *borrow_and_end(void *unused)
{
    (void)unused;
    mproc_message m;
    int err = mproc_queue_loan(crowd.q, &m, 8, MPROC_FOREVER);
    good(err == 0, "loan", err);
    return NULL;
}

static void what_ended_threads_had_on_loan_makes_room(void **state)
{
    (void)state;
    begin(&(mproc_queue_opts){.maxsize = 1});
    pthread_t threads[100];
    for (int i = 0; i < 100; i++) {
        threads[i] = start(borrow_and_end);
    }
    for (int i = 0; i < 100; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&crowd.wrong), 0);
    assert_ok(mproc_queue_put(crowd.q, "", 1, MPROC_FOREVER));
    mproc_queue_free(crowd.q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_loan_take_and_move_many),
        cmocka_unit_test(what_ended_threads_had_comes_again),
        cmocka_unit_test(what_ended_threads_had_on_loan_makes_room),
    };
    mpr_test_slot_per_thread(true);
    mpr_test_deep_sleep = true;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
