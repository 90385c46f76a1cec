/* SPDX-License-Identifier: MIT */
/* Pipes: who holds an end, and what the others see when nobody does. */
#include "pipe_support.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- the end of the other process ------------------------------------- */

enum ending { CLOSES, EXITS, IS_KILLED };

struct producer {
    struct ends p;
    enum ending ending;
    pid_t reader;
};

static int produce_ten(void *arg)
{
    struct producer *me = arg;
    assert_ok(mproc_connection_close(me->p.a));
    for (int i = 0; i < 10; i++) {
        send_number(me->p.b, i);
    }
    await_asleep(me->reader);
    switch (me->ending) {
    case CLOSES:
        assert_ok(mproc_connection_close(me->p.b));
        return live_until_killed(NULL);
    case EXITS:
        return 0;
    case IS_KILLED:
        raise(SIGKILL);
    }
    return 1;
}

static void ten_items_then_eof(enum ending ending)
{
    struct producer producer = {make(0), ending, getpid()};
    pid_t child = test_fork(produce_ten, &producer);
    assert_ok(mproc_connection_close(producer.p.b));
    for (int i = 0; i < 10; i++) {
        expect_number(producer.p.a, i);
    }
    expect_eof(producer.p.a, MPROC_FOREVER);
    assert_err(mproc_connection_send(producer.p.a, "x", 1, MPROC_NOWAIT),
               MPROC_EPIPE);
    if (ending == CLOSES) {
        kill_and_reap(child);
    } else {
        assert_int_equal(test_wait_exit(child), ending == EXITS ? 0 : -SIGKILL);
    }
    assert_ok(mproc_connection_close(producer.p.a));
}

static void ten_items_then_eof_when_the_producer_closes(void **state)
{
    (void)state;
    ten_items_then_eof(CLOSES);
}

static void ten_items_then_eof_when_the_producer_exits(void **state)
{
    (void)state;
    ten_items_then_eof(EXITS);
}

static void ten_items_then_eof_when_the_producer_is_killed(void **state)
{
    (void)state;
    ten_items_then_eof(IS_KILLED);
}

static int die_when_the_sender_sleeps(void *arg)
{
    struct producer *me = arg;
    assert_ok(mproc_connection_close(me->p.a));
    await_asleep(me->reader);
    raise(SIGKILL);
    return 0;
}

static void a_blocked_sender_is_told_that_the_reader_was_killed(void **state)
{
    (void)state;
    struct producer reader = {make(0), IS_KILLED, getpid()};
    char *large = pattern(1 << 20);
    pid_t child = test_fork(die_when_the_sender_sleeps, &reader);
    assert_ok(mproc_connection_close(reader.p.b));
    assert_ok(mproc_connection_send(reader.p.a, large, 1 << 20, TEST_BOUND));
    assert_err(mproc_connection_send(reader.p.a, large, 1 << 20, MPROC_FOREVER),
               MPROC_EPIPE);
    assert_int_equal(test_wait_exit(child), -SIGKILL);
    assert_ok(mproc_connection_close(reader.p.a));
    free(large);
}

static void what_a_killed_process_has_sent_is_received(void **state)
{
    (void)state;
    struct ends p = make(0);
    struct producer producer = {p, IS_KILLED, 1};
    producer.reader = test_fork(live_until_killed, NULL);
    pid_t child = test_fork(produce_ten, &producer);
    assert_int_equal(test_wait_exit(child), -SIGKILL);
    assert_ok(mproc_connection_close(p.b));
    for (int i = 0; i < 10; i++) {
        expect_number(p.a, i);
    }
    assert_err(mproc_connection_poll(p.a, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    kill_and_reap(producer.reader);
    assert_ok(mproc_connection_poll(p.a, MPROC_NOWAIT));
    expect_eof(p.a, MPROC_NOWAIT);
    assert_ok(mproc_connection_close(p.a));
}

/* ---- inheriting ------------------------------------------------------- */

static void
children_that_never_call_the_library_hold_what_they_got(void **state)
{
    (void)state;
    enum { MANY = 50 };
    struct ends p = make(0);
    pid_t child[MANY];
    for (int i = 0; i < MANY; i++) {
        child[i] = test_fork(live_until_killed, NULL);
    }
    assert_ok(mproc_connection_close(p.b));
    expect_invalid(p.b);
    for (int i = 0; i < MANY; i++) {
        assert_err(mproc_connection_poll(p.a, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        assert_ok(mproc_connection_send(p.a, "x", 1, MPROC_NOWAIT));
        kill_and_reap(child[i]);
    }
    expect_eof(p.a, MPROC_FOREVER);
    assert_ok(mproc_connection_close(p.a));
}

static void a_child_killed_at_once_holds_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct ends p = make(0);
        pid_t child = test_fork(live_until_killed, NULL);
        kill_and_reap(child);
        assert_ok(mproc_connection_close(p.b));
        expect_eof(p.a, MPROC_FOREVER);
        assert_ok(mproc_connection_close(p.a));
    }
}

static int read_until_closed(void *arg)
{
    const int *fds = arg;
    char byte;
    close(fds[1]);
    return read(fds[0], &byte, 1) == 0 ? 0 : 1;
}

static int leave_a_grandchild(void *arg)
{
    test_fork(read_until_closed, arg);
    return 0;
}

static void a_grandchild_holds_what_its_silent_parent_held(void **state)
{
    (void)state;
    struct ends p = make(0);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = test_fork(leave_a_grandchild, fds);
    assert_int_equal(test_wait_exit(child), 0);
    assert_ok(mproc_connection_close(p.b));
    assert_err(mproc_connection_poll(p.a, mproc_in_ms(100)), MPROC_ETIMEDOUT);
    close(fds[1]);
    expect_eof(p.a, MPROC_FOREVER);
    close(fds[0]);
    assert_ok(mproc_connection_close(p.a));
}

static int become_cat(void *arg)
{
    const int *fds = arg;
    dup2(fds[0], 0);
    close(fds[0]);
    close(fds[1]);
    execlp("cat", "cat", (char *)NULL);
    return 1;
}

static void a_child_that_runs_another_program_holds_nothing(void **state)
{
    (void)state;
    struct ends p = make(0);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = test_fork(become_cat, fds);
    assert_ok(mproc_connection_close(p.b));
    expect_eof(p.a, MPROC_FOREVER);
    assert_ok(mproc_connection_close(p.a));
    close(fds[1]);
    close(fds[0]);
    assert_int_equal(test_wait_exit(child), 0);
}

static int close_both_of(void *arg)
{
    close_both(*(struct ends *)arg);
    expect_invalid(((struct ends *)arg)->a);
    return 0;
}

static void a_child_closes_for_itself_only(void **state)
{
    (void)state;
    struct ends p = make(0);
    assert_int_equal(test_wait_exit(test_fork(close_both_of, &p)), 0);
    pass(p.a, p.b, 10);
    close_both(p);
}

static void a_pool_that_is_made_holds_no_ends(void **state)
{
    (void)state;
    struct ends p = make(0);
    mproc_pool *pool;
    assert_ok(mproc_pool_new(&pool, NULL));
    assert_ok(mproc_connection_close(p.b));
    expect_eof(p.a, MPROC_NOWAIT);
    mproc_pool_free(pool);
    assert_ok(mproc_connection_close(p.a));
}

static void a_process_that_is_started_holds_what_its_parent_holds(void **state)
{
    (void)state;
    struct ends p = make(0);
    mproc_process *child;
    assert_ok(mproc_process_new(&child, live_until_killed, NULL, NULL));
    assert_ok(mproc_process_start(child));
    assert_ok(mproc_connection_close(p.b));
    assert_err(mproc_connection_poll(p.a, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_ok(mproc_process_kill(child));
    expect_eof(p.a, MPROC_FOREVER);
    assert_ok(mproc_process_join(child, TEST_BOUND));
    mproc_process_free(child);
    assert_ok(mproc_connection_close(p.a));
}

static void peer_pid_names_a_process_at_the_other_end(void **state)
{
    (void)state;
    struct ends p = make(0);
    pid_t pid = 0;
    assert_ok(mproc_connection_peer_pid(p.a, &pid));
    assert_int_equal(pid, getpid());
    pid_t child = test_fork(live_until_killed, NULL);
    assert_ok(mproc_connection_peer_pid(p.a, &pid));
    assert_int_equal(pid, child);
    kill_and_reap(child);
    assert_ok(mproc_connection_peer_pid(p.a, &pid));
    assert_int_equal(pid, getpid());
    assert_ok(mproc_connection_close(p.b));
    assert_err(mproc_connection_peer_pid(p.a, &pid), MPROC_EPIPE);
    assert_int_equal(pid, getpid());
    assert_ok(mproc_connection_close(p.a));
}

/* ---- ends sent as bytes ----------------------------------------------- */

struct letter {
    mproc_connection *end;
};

static void hand_over(mproc_queue *q, mproc_connection *c)
{
    const struct letter letter = {c};
    assert_ok(mproc_queue_put(q, &letter, sizeof letter, TEST_BOUND));
}

static mproc_connection *take_over(mproc_queue *q)
{
    struct letter letter;
    assert_ok(mproc_queue_get(q, &letter, sizeof letter, NULL, TEST_BOUND));
    return letter.end;
}

static int use_an_end_that_comes(void *arg)
{
    mproc_queue *q = arg;
    mproc_connection *c = take_over(q);
    char byte;

    send_number(c, 1);
    assert_ok(mproc_connection_recv(c, &byte, 1, NULL, TEST_BOUND));
    send_number(c, 2);
    return 0;
}

static void an_end_sent_as_bytes_is_held_by_who_uses_it(void **state)
{
    (void)state;
    mproc_queue *q;
    assert_ok(mproc_queue_new(&q, NULL));
    pid_t child = test_fork(use_an_end_that_comes, q);
    struct ends p = make(0);
    hand_over(q, p.b);
    expect_number(p.a, 1);
    assert_ok(mproc_connection_close(p.b));
    assert_err(mproc_connection_poll(p.a, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_ok(mproc_connection_send(p.a, "x", 1, TEST_BOUND));
    expect_number(p.a, 2);
    expect_eof(p.a, MPROC_FOREVER);
    assert_int_equal(test_wait_exit(child), 0);
    assert_ok(mproc_connection_close(p.a));
    mproc_queue_free(q);
}

static int find_the_end_closed(void *arg)
{
    mproc_queue *q = arg;
    mproc_connection *c = take_over(q);
    expect_invalid(c);
    return 0;
}

static void an_end_without_holder_is_closed_for_ever(void **state)
{
    (void)state;
    mproc_queue *q;
    assert_ok(mproc_queue_new(&q, NULL));
    pid_t child = test_fork(find_the_end_closed, q);
    struct ends p = make(0);
    assert_ok(mproc_connection_close(p.b));
    hand_over(q, p.b);
    assert_int_equal(test_wait_exit(child), 0);
    expect_eof(p.a, MPROC_NOWAIT);
    assert_ok(mproc_connection_close(p.a));
    mproc_queue_free(q);
}

static int hold_an_end_until_killed(void *arg)
{
    mproc_queue *q = arg;
    mproc_connection *c = take_over(q);
    send_number(c, 1);
    return live_until_killed(NULL);
}

static void an_end_used_elsewhere_dies_with_its_user(void **state)
{
    (void)state;
    enum { USERS = 12 };
    mproc_queue *q;
    pid_t child[USERS];
    assert_ok(mproc_queue_new(&q, NULL));
    for (int i = 0; i < USERS; i++) {
        child[i] = test_fork(hold_an_end_until_killed, q);
    }
    struct ends p = make(0);
    for (int i = 0; i < USERS; i++) {
        hand_over(q, p.b);
        expect_number(p.a, 1);
    }
    assert_ok(mproc_connection_close(p.b));
    for (int i = 0; i < USERS; i++) {
        assert_err(mproc_connection_poll(p.a, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        kill_and_reap(child[i]);
    }
    expect_eof(p.a, MPROC_FOREVER);
    assert_ok(mproc_connection_close(p.a));
    mproc_queue_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_items_then_eof_when_the_producer_closes),
        cmocka_unit_test(ten_items_then_eof_when_the_producer_exits),
        cmocka_unit_test(ten_items_then_eof_when_the_producer_is_killed),
        cmocka_unit_test(a_blocked_sender_is_told_that_the_reader_was_killed),
        cmocka_unit_test(what_a_killed_process_has_sent_is_received),
        cmocka_unit_test(
            children_that_never_call_the_library_hold_what_they_got),
        cmocka_unit_test(a_child_killed_at_once_holds_nothing),
        cmocka_unit_test(a_grandchild_holds_what_its_silent_parent_held),
        cmocka_unit_test(a_child_that_runs_another_program_holds_nothing),
        cmocka_unit_test(a_child_closes_for_itself_only),
        cmocka_unit_test(a_pool_that_is_made_holds_no_ends),
        cmocka_unit_test(a_process_that_is_started_holds_what_its_parent_holds),
        cmocka_unit_test(peer_pid_names_a_process_at_the_other_end),
        cmocka_unit_test(an_end_sent_as_bytes_is_held_by_who_uses_it),
        cmocka_unit_test(an_end_without_holder_is_closed_for_ever),
        cmocka_unit_test(an_end_used_elsewhere_dies_with_its_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
