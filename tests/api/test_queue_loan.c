/* SPDX-License-Identifier: MIT */
/*
 * Queue: messages without a copy.
 *
 * usage: test_queue_loan [fifo | lifo | priority]
 */
#include "loan_support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const size_t sizes[] = {0,    1,    63,        64,      1023,
                               1024, 1025, 100 * KIB, 16 * MIB};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* ---- there and back --------------------------------------------------- */

static void expect_bytes(const void *data, size_t size, unsigned seed)
{
    char *expected = malloc(size + 1);
    fill(expected, size, seed);
    assert_memory_equal(data, expected, size);
    free(expected);
}

static void expect_filled(const mproc_message *m, size_t size, unsigned seed)
{
    assert_int_equal(m->size, size);
    expect_bytes(m->data, size, seed);
    assert_int_equal(((char *)m->data)[size], 0);
    assert_int_equal((uintptr_t)m->data % _Alignof(max_align_t), 0);
}

static int send_each_size(void *arg)
{
    for (unsigned i = 0; i < SIZES; i++) {
        mproc_message m = loan(arg, sizes[i]);
        assert_int_equal(((char *)m.data)[m.size], 0);
        fill(m.data, m.size, i);
        ((char *)m.data)[m.size] = 'x'; /* the library's, but who knows */
        assert_ok(mproc_queue_send(arg, &m));
        expect_empty(&m);
    }
    return 0;
}

static void what_was_loaned_is_taken_by_another(void **state)
{
    (void)state;
    mproc_queue *q = bounded(1);
    pid_t pid = test_fork(send_each_size, q);
    for (unsigned i = 0; i < SIZES; i++) {
        mproc_message m = take(q);
        expect_filled(&m, sizes[i], i);
        memset(m.data, 7, m.size); /* it may be written */
        mproc_message_release(&m);
        expect_empty(&m);
    }
    assert_int_equal(test_wait_exit(pid), 0);
    mproc_queue_free(q);
}

static void what_was_put_can_be_taken_and_what_was_loaned_got(void **state)
{
    (void)state;
    char *data = malloc(16 * MIB);
    for (int redeliver = 0; redeliver < 2; redeliver++) {
        mproc_queue *q = redeliver ? redelivering() : new_queue(NULL);
        for (unsigned i = 0; i < SIZES; i++) {
            size_t size;
            fill(data, sizes[i], i);
            assert_ok(mproc_queue_put(q, data, sizes[i], MPROC_NOWAIT));
            mproc_message m = take(q);
            expect_filled(&m, sizes[i], i);
            mproc_message_release(&m);

            m = loan(q, sizes[i]);
            fill(m.data, m.size, i + 1);
            assert_ok(mproc_queue_send(q, &m));
            memset(data, 0, sizes[i]);
            assert_ok(mproc_queue_get(q, data, 16 * MIB, &size, MPROC_NOWAIT));
            assert_int_equal(size, sizes[i]);
            expect_bytes(data, size, i + 1);
        }
        mproc_queue_free(q);
    }
    free(data);
}

static void less_than_was_loaned_can_be_sent(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL);
    mproc_message m = loan(q, 100);
    memset(m.data, 'x', 100);
    m.size = 101;
    assert_err(mproc_queue_send(q, &m), MPROC_EINVAL);
    m.size = 3;
    m.data = (char *)m.data + 1;
    assert_err(mproc_queue_send(q, &m), MPROC_EINVAL);
    m.data = (char *)m.data - 1;
    assert_ok(mproc_queue_send(q, &m));
    m = take(q);
    assert_int_equal(m.size, 3);
    assert_string_equal(m.data, "xxx");
    mproc_message_release(&m);
    mproc_queue_free(q);
}

static void many_may_be_out_at_once(void **state)
{
    (void)state;
    enum { OUT = 500 };
    static mproc_message m[OUT];
    mproc_queue *q = joinable();
    size_t in_use = heap_now().in_use;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < OUT; i++) {
            m[i] = loan(q, sizeof i);
            memcpy(m[i].data, &i, sizeof i);
        }
        for (int i = 0; i < OUT; i++) { /* 7 is prime to 500 */
            assert_ok(mproc_queue_send(q, &m[i * 7 % OUT]));
        }
        for (int i = 0; i < OUT; i++) {
            m[i] = take(q);
            int nth = order == MPROC_LIFO ? OUT - 1 - i : i;
            assert_int_equal(value_of(&m[i]), nth * 7 % OUT);
        }
        assert_true(mproc_queue_empty(q));
        for (int i = 0; i < OUT; i++) {
            assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
            mproc_message_release(&m[i * 7 % OUT]);
        }
        assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    }
    assert_true(heap_now().in_use < in_use + 100 * KIB);
    mproc_queue_free(q);
}

/* ---- room ------------------------------------------------------------- */

static void a_loan_has_its_place(void **state)
{
    (void)state;
    mproc_queue *q = bounded(2);
    int value = 3;
    mproc_message a = loan(q, sizeof value), b = loan(q, sizeof value), c;
    assert_true(mproc_queue_full(q));
    assert_true(mproc_queue_empty(q));
    assert_err(mproc_queue_loan(q, &c, 4, MPROC_NOWAIT), MPROC_EFULL);
    assert_err(mproc_queue_put(q, &value, sizeof value, mproc_in_ms(5)),
               MPROC_EFULL);
    assert_err(mproc_queue_put_many(q, &value, sizeof value, 1, MPROC_NOWAIT),
               MPROC_EFULL);
    mproc_message_release(&a);
    assert_false(mproc_queue_full(q));
    int values[2] = {1, 2};
    assert_int_equal(
        mproc_queue_put_many(q, values, sizeof *values, 2, MPROC_NOWAIT), 1);
    assert_true(mproc_queue_full(q));
    assert_int_equal(mproc_queue_qsize(q), 1);
    assert_ok(mproc_queue_send(q, &b)); /* its place was kept */
    assert_int_equal(mproc_queue_qsize(q), 2);
    assert_true(mproc_queue_full(q));
    mproc_queue_free(q);
}

static int blocked_loan(void *arg)
{
    mproc_message m;
    return as_status(mproc_queue_loan(arg, &m, 8, MPROC_FOREVER));
}

static int hold_two_loans(void *arg)
{
    loan(arg, 8);
    loan(arg, 100 * KIB);
    atomic_fetch_add(ready, 1);
    return pause();
}

static void who_waits_for_room_has_it_when_a_loan_ends(void **state)
{
    (void)state;
    mproc_queue *q = bounded(1);
    mproc_message m = loan(q, 8);
    pid_t putter = fork_asleep(blocked_put, q);
    mproc_message_release(&m);
    assert_int_equal(test_wait_exit(putter), 0);
    get_int(q);

    m = loan(q, 8);
    pid_t borrower = fork_asleep(blocked_loan, q);
    mproc_message_release(&m);
    assert_int_equal(test_wait_exit(borrower), 0);
    mproc_queue_free(q);

    q = bounded(2);
    pid_t holder = test_fork(hold_two_loans, q);
    await_ready(1);
    putter = fork_asleep(blocked_put, q);
    borrower = fork_asleep(blocked_loan, q);
    end_by_kill(holder);
    assert_int_equal(test_wait_exit(putter), 0);
    assert_int_equal(test_wait_exit(borrower), 0);
    assert_int_equal(mproc_queue_qsize(q), 1);
    mproc_queue_free(q);
}

/* Nobody waits, so nobody notices the death but who wants the place. */
static void who_wants_a_place_at_once_gets_a_dead_ones(void **state)
{
    (void)state;
    mproc_queue *q = bounded(2);
    int status;
    pid_t holder = test_fork(hold_two_loans, q);
    await_ready(1);
    kill(holder, SIGKILL);
    assert_int_equal(waitpid(holder, &status, 0), holder);
    assert_ok(mproc_queue_put(q, "x", 1, MPROC_NOWAIT));
    assert_ok(mproc_queue_put(q, "y", 1, MPROC_NOWAIT));
    assert_err(mproc_queue_put(q, "z", 1, MPROC_NOWAIT), MPROC_EFULL);
    mproc_queue_free(q);
}

/* ---- what is refused -------------------------------------------------- */

static void a_loan_is_sent_once_and_to_its_own_queue(void **state)
{
    (void)state;
    mproc_queue *q = new_queue(NULL), *other = new_queue(NULL);
    mproc_message m = loan(q, 8), copy = m, empty = {0};
    mproc_message garbage = {&m, 8, {q, &copy, (void *)3, (void *)5}};
    assert_err(mproc_queue_send(other, &m), MPROC_EINVAL);
    assert_ok(mproc_queue_send(q, &m));
    assert_err(mproc_queue_send(q, &m), MPROC_EINVAL);
    assert_err(mproc_queue_send(q, &copy), MPROC_EINVAL);
    assert_err(mproc_queue_send(q, &empty), MPROC_EINVAL);
    assert_err(mproc_queue_send(q, &garbage), MPROC_EINVAL);
    assert_err(mproc_queue_send(q, NULL), MPROC_EINVAL);
    assert_err(mproc_queue_loan(q, NULL, 8, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_queue_take(q, NULL, MPROC_NOWAIT), MPROC_EINVAL);
    mproc_message_release(&copy);
    mproc_message_release(&empty);
    mproc_message_release(&garbage);
    mproc_message_release(NULL);
    assert_int_equal(mproc_queue_qsize(q), 1);

    mproc_message taken = take(q);
    assert_err(mproc_queue_send(q, &taken), MPROC_EINVAL);
    copy = taken;
    mproc_message_release(&taken);
    mproc_message_release(&taken);
    mproc_message_release(&copy);
    assert_err(mproc_queue_take(q, &m, MPROC_NOWAIT), MPROC_EEMPTY);
    mproc_queue_free(q);
    mproc_queue_free(other);
}

/* Also when the place in memory is that of another message by now. */
static void a_copy_of_an_ended_one_ends_no_other(void **state)
{
    (void)state;
    mproc_queue *q = bounded(1);
    for (int i = 0; i < 200; i++) {
        mproc_message m = loan(q, 8), stale = m;
        mproc_message_release(&m);
        m = loan(q, 8);
        mproc_message_release(&stale);
        assert_err(mproc_queue_send(q, &stale), MPROC_EINVAL);
        assert_true(mproc_queue_full(q));
        assert_ok(mproc_queue_send(q, &m));
        m = take(q);
        stale = m;
        mproc_message_release(&m);
        send_int(q, i);
        m = take(q);
        mproc_message_release(&stale);
        assert_int_equal(value_of(&m), i);
        mproc_message_release(&m);
    }
    mproc_queue_free(q);
}

static void a_shutdown_leaves_loans_to_be_released(void **state)
{
    (void)state;
    for (int immediate = 0; immediate < 2; immediate++) {
        mproc_queue *q = joinable();
        mproc_message m = loan(q, 100 * KIB), taken, none;
        send_int(q, 1);
        send_int(q, 2);
        taken = take(q);
        assert_ok(mproc_queue_shutdown(q, immediate));
        assert_err(mproc_queue_loan(q, &none, 8, MPROC_FOREVER),
                   MPROC_ESHUTDOWN);
        assert_err(mproc_queue_send(q, &m), MPROC_ESHUTDOWN);
        memset(m.data, 1, m.size);
        mproc_message_release(&m);
        expect_empty(&m);
        assert_true(value_of(&taken) > 0);
        mproc_message_release(&taken);
        if (!immediate) {
            taken = take(q);
            mproc_message_release(&taken);
        }
        assert_err(mproc_queue_take(q, &taken, MPROC_FOREVER), MPROC_ESHUTDOWN);
        assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
        mproc_queue_free(q);
    }
}

static void what_is_out_ends_with_its_queue(void **state)
{
    (void)state;
    mproc_heap_info before = heap_now();
    mproc_queue *q = new_queue(NULL);
    mproc_message m = loan(q, 100 * KIB), taken;
    send_int(q, 1);
    taken = take(q);
    mproc_queue_free(q);
    assert_int_equal(heap_now().in_use, before.in_use);
    mproc_queue *another = new_queue(NULL); /* in the same place, perhaps */
    mproc_message_release(&m);
    mproc_message_release(&taken);
    assert_err(mproc_queue_send(another, &m), MPROC_EINVAL);
    mproc_queue_free(another);
}

static void what_the_heap_never_holds_is_told_at_once(void **state)
{
    (void)state;
    mproc_queue *q = bounded(1);
    mproc_message m;
    for (int round = 0; round < 2; round++) {
        assert_err(mproc_queue_loan(q, &m, SIZE_MAX, MPROC_FOREVER),
                   MPROC_ENOMEM);
        assert_err(mproc_queue_loan(q, &m, SIZE_MAX / 2, MPROC_FOREVER),
                   MPROC_ENOMEM);
        assert_err(mproc_queue_put(q, "", SIZE_MAX, MPROC_FOREVER),
                   MPROC_ENOMEM);
        if (round == 0) {
            put_int(q, 1); /* full by now */
        }
    }
    assert_int_equal(get_int(q), 1);
    mproc_queue_free(q);
}

/* ---- whose they are --------------------------------------------------- */

static mproc_message of_the_parent[2];

static int end_the_parents(void *arg)
{
    assert_err(mproc_queue_send(arg, &of_the_parent[0]), MPROC_EINVAL);
    mproc_message_release(&of_the_parent[0]);
    mproc_message_release(&of_the_parent[1]);
    return 0;
}

static void a_forked_child_has_no_part_in_it(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    send_int(q, 5);
    of_the_parent[0] = loan(q, 8);
    of_the_parent[1] = take(q);
    assert_int_equal(test_wait_exit(test_fork(end_the_parents, q)), 0);
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_int_equal(value_of(&of_the_parent[1]), 5);
    mproc_message_release(&of_the_parent[1]);
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    assert_ok(mproc_queue_send(q, &of_the_parent[0]));
    mproc_queue_free(q);
}

static void *release_in_a_thread(void *arg)
{
    mproc_message_release(arg);
    return NULL;
}

static void any_thread_of_the_process_may_end_it(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    pthread_t thread;
    send_int(q, 5);
    mproc_message m = take(q);
    assert_int_equal(pthread_create(&thread, NULL, release_in_a_thread, &m), 0);
    pthread_join(thread, NULL);
    expect_empty(&m);
    assert_ok(mproc_queue_join(q, MPROC_NOWAIT));
    mproc_queue_free(q);
}

/* ---- acknowledging ---------------------------------------------------- */

static void a_release_acknowledges_exactly_its_message(void **state)
{
    (void)state;
    mproc_queue *q = joinable();
    for (int i = 0; i < 4; i++) {
        put_int(q, i);
    }
    mproc_message a = take(q), b = take(q);
    get_int(q);
    assert_ok(mproc_queue_task_done(q)); /* that is the one which was got */
    assert_err(mproc_queue_task_done(q), MPROC_EINVAL);
    mproc_message_release(&b);
    get_int(q);
    assert_ok(mproc_queue_task_done(q));
    assert_err(mproc_queue_join(q, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    pid_t joiner = fork_asleep(blocked_join, q);
    mproc_message_release(&a);
    assert_int_equal(test_wait_exit(joiner), 0);
    mproc_queue_free(q);
}

int main(int argc, char **argv)
{
    if (!order_is_read(argc, argv)) {
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_loaned_is_taken_by_another),
        cmocka_unit_test(what_was_put_can_be_taken_and_what_was_loaned_got),
        cmocka_unit_test(less_than_was_loaned_can_be_sent),
        cmocka_unit_test(many_may_be_out_at_once),
        cmocka_unit_test(a_loan_has_its_place),
        cmocka_unit_test(who_waits_for_room_has_it_when_a_loan_ends),
        cmocka_unit_test(who_wants_a_place_at_once_gets_a_dead_ones),
        cmocka_unit_test(a_loan_is_sent_once_and_to_its_own_queue),
        cmocka_unit_test(a_copy_of_an_ended_one_ends_no_other),
        cmocka_unit_test(a_shutdown_leaves_loans_to_be_released),
        cmocka_unit_test(what_is_out_ends_with_its_queue),
        cmocka_unit_test(what_the_heap_never_holds_is_told_at_once),
        cmocka_unit_test(a_forked_child_has_no_part_in_it),
        cmocka_unit_test(any_thread_of_the_process_may_end_it),
        cmocka_unit_test(a_release_acknowledges_exactly_its_message),
        cmocka_unit_test(nothing_is_left),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
