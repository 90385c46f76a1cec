/* SPDX-License-Identifier: MIT */
/* Pipes: messages, what calls come to, and what ends a connection. */
#include "pipe_support.h"

#include <stdlib.h>
#include <sys/resource.h>

/* ---- messages --------------------------------------------------------- */

static const size_t sizes[] = {0,    1,    7,     8,     1023,  1024,
                               1025, 4096, 65535, 65536, 65537, 1 << 20};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void a_message_of_any_size_arrives_in_both_directions(void **state)
{
    (void)state;
    struct ends p = make(0);
    for (int i = 0; i < SIZES; i++) {
        pass(p.a, p.b, sizes[i]);
        pass(p.b, p.a, sizes[i]);
    }
    close_both(p);
}

static void messages_keep_their_boundaries_and_their_order(void **state)
{
    (void)state;
    struct ends p = make(0);
    for (int i = 0; i < 5; i++) {
        assert_ok(mproc_connection_send(p.b, "aaaaa", (size_t)i, TEST_BOUND));
    }
    for (int i = 0; i < 5; i++) {
        char got[8];
        size_t size = 99;
        assert_ok(
            mproc_connection_recv(p.a, got, sizeof got, &size, TEST_BOUND));
        assert_int_equal(size, i);
    }
    assert_err(mproc_connection_recv(p.a, NULL, 0, NULL, MPROC_NOWAIT),
               MPROC_EEMPTY);
    close_both(p);
}

static void a_message_comes_in_memory_of_malloc_with_a_nul(void **state)
{
    (void)state;
    struct ends p = make(0);
    for (int i = 0; i < SIZES; i++) {
        char *sent = pattern(sizes[i]);
        void *got = NULL;
        size_t size = 1;
        assert_ok(mproc_connection_send(p.a, sent, sizes[i], TEST_BOUND));
        assert_ok(mproc_connection_recv_malloc(p.b, &got, &size, TEST_BOUND));
        assert_int_equal(size, sizes[i]);
        assert_memory_equal(got, sent, size);
        assert_int_equal(((char *)got)[size], '\0');
        free(got);
        free(sent);
    }
    void *unsized;
    assert_ok(mproc_connection_send(p.a, "x", 1, TEST_BOUND));
    assert_ok(mproc_connection_recv_malloc(p.b, &unsized, NULL, TEST_BOUND));
    assert_string_equal(unsized, "x");
    free(unsized);
    assert_err(mproc_connection_recv_malloc(p.b, &unsized, NULL, MPROC_NOWAIT),
               MPROC_EEMPTY);
    assert_err(mproc_connection_recv_malloc(p.b, NULL, NULL, MPROC_NOWAIT),
               MPROC_EINVAL);
    close_both(p);
}

static void what_does_not_fit_stays_first_and_tells_its_size(void **state)
{
    (void)state;
    struct ends p = make(0);
    char got[8];
    size_t size = 0;
    assert_ok(mproc_connection_send(p.a, "12345", 5, TEST_BOUND));
    assert_err(mproc_connection_recv(p.b, got, 4, &size, TEST_BOUND),
               MPROC_EMSGSIZE);
    assert_int_equal(size, 5);
    assert_err(mproc_connection_recv(p.b, got, 4, NULL, TEST_BOUND),
               MPROC_EMSGSIZE);
    assert_err(mproc_connection_recv(p.b, got, 6, NULL, TEST_BOUND),
               MPROC_EMSGSIZE);
    assert_err(mproc_connection_recv(p.b, NULL, 0, &size, TEST_BOUND),
               MPROC_EMSGSIZE);
    assert_ok(mproc_connection_recv(p.b, got, 5, NULL, TEST_BOUND));
    assert_memory_equal(got, "12345", 5);
    close_both(p);
}

static void a_pipe_holds_64_kib_or_one_message_of_any_size(void **state)
{
    (void)state;
    struct ends p = make(0);
    char *large = pattern(LARGE);
    for (int i = 0; i < HOLDS / 1024; i++) {
        assert_ok(mproc_connection_send(p.a, large, 1024, MPROC_NOWAIT));
    }
    assert_err(mproc_connection_send(p.a, large, 1, MPROC_NOWAIT), MPROC_EFULL);
    for (int i = 0; i < HOLDS / 1024; i++) {
        assert_err(mproc_connection_send(p.a, large, LARGE, MPROC_NOWAIT),
                   MPROC_EFULL);
        assert_ok(mproc_connection_recv(p.b, large, 1024, NULL, MPROC_NOWAIT));
    }
    assert_ok(mproc_connection_send(p.a, large, LARGE, MPROC_NOWAIT));
    assert_err(mproc_connection_send(p.a, NULL, 0, MPROC_NOWAIT), MPROC_EFULL);
    free(large);
    close_both(p);
}

static void empty_messages_do_not_grow_without_end(void **state)
{
    (void)state;
    struct ends p = make(0);
    int sent = 0, err;
    while ((err = mproc_connection_send(p.a, NULL, 0, MPROC_NOWAIT)) == 0) {
        sent++;
    }
    assert_err(err, MPROC_EFULL);
    assert_true(sent >= HOLDS);
    close_both(p);
}

static void both_ends_blocked_with_large_messages_end_by_deadline(void **state)
{
    (void)state;
    struct ends p = make(0);
    char *large = pattern(1 << 20);
    size_t size = 1 << 20;
    assert_ok(mproc_connection_send(p.a, large, size, MPROC_NOWAIT));
    assert_ok(mproc_connection_send(p.b, large, size, MPROC_NOWAIT));
    assert_err(mproc_connection_send(p.a, large, size, mproc_in_ms(20)),
               MPROC_EFULL);
    assert_err(mproc_connection_send(p.b, large, size, mproc_in_ms(20)),
               MPROC_EFULL);
    assert_ok(mproc_connection_recv(p.a, large, size, NULL, MPROC_NOWAIT));
    assert_ok(mproc_connection_recv(p.b, large, size, NULL, MPROC_NOWAIT));
    free(large);
    close_both(p);
}

static int echo(void *arg)
{
    mproc_connection *c = arg;
    void *data;
    size_t size;
    int err;
    while ((err = mproc_connection_recv_malloc(c, &data, &size,
                                               MPROC_FOREVER)) == 0) {
        assert_ok(mproc_connection_send(c, data, size, MPROC_FOREVER));
        free(data);
    }
    return err == MPROC_EOF ? 0 : 1;
}

/* The child inherits a as well, so it closes that. */
static int echo_b(void *arg)
{
    struct ends *p = arg;
    assert_ok(mproc_connection_close(p->a));
    return echo(p->b);
}

static void sixteen_mib_come_back_from_another_process(void **state)
{
    (void)state;
    struct ends p = make(0);
    pid_t child = test_fork(echo_b, &p);
    assert_ok(mproc_connection_close(p.b));
    char *sent = pattern(LARGE);
    void *got;
    size_t size;
    for (int i = 0; i < 2; i++) {
        assert_ok(mproc_connection_send(p.a, sent, LARGE, TEST_BOUND));
        assert_ok(mproc_connection_recv_malloc(p.a, &got, &size, TEST_BOUND));
        assert_int_equal(size, LARGE);
        assert_memory_equal(got, sent, LARGE);
        free(got);
    }
    free(sent);
    assert_ok(mproc_connection_close(p.a));
    assert_int_equal(test_wait_exit(child), 0);
}

/* ---- outcomes --------------------------------------------------------- */

static void a_bad_handle_is_refused(void **state)
{
    (void)state;
    struct ends p = make(0);
    mproc_queue *q;
    static long long ours[32];
    assert_ok(mproc_queue_new(&q, NULL));
    expect_invalid(NULL);
    expect_invalid((mproc_connection *)q);
    expect_invalid((mproc_connection *)ours);
    expect_invalid((mproc_connection *)((char *)p.a + 1));
    expect_invalid((mproc_connection *)((char *)p.a - 64));
    expect_invalid((mproc_connection *)((char *)p.b + 64));
    mproc_queue_free(q);
    close_both(p);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    struct ends p = make(0);
    mproc_connection *c;
    const mproc_pipe_opts odd = {.reserved = 1};
    char byte;
    assert_err(mproc_pipe_new(NULL, &c, NULL), MPROC_EINVAL);
    assert_err(mproc_pipe_new(&c, NULL, NULL), MPROC_EINVAL);
    assert_err(mproc_pipe_new(&c, &c, &odd), MPROC_ENOTSUP);
    assert_err(mproc_connection_send(p.a, NULL, 1, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_connection_recv(p.a, NULL, 1, NULL, MPROC_NOWAIT),
               MPROC_EINVAL);
    assert_err(mproc_connection_peer_pid(p.a, NULL), MPROC_EINVAL);
    assert_err(mproc_connection_send(p.a, &byte, SIZE_MAX, MPROC_NOWAIT),
               MPROC_ENOMEM);
    assert_ok(mproc_connection_send(p.a, "x", 1, MPROC_NOWAIT));
    assert_err(mproc_connection_send(p.a, &byte, SIZE_MAX, MPROC_FOREVER),
               MPROC_ENOMEM);
    assert_err(mproc_connection_send(p.a, &byte, SIZE_MAX / 2, MPROC_FOREVER),
               MPROC_ENOMEM);
    close_both(p);
}

static void a_simplex_pipe_goes_one_way(void **state)
{
    (void)state;
    struct ends p = make(1);
    char byte;
    void *data;
    assert_err(mproc_connection_send(p.a, "x", 1, MPROC_NOWAIT), MPROC_EPERM);
    assert_err(mproc_connection_recv(p.b, &byte, 1, NULL, MPROC_NOWAIT),
               MPROC_EPERM);
    assert_err(mproc_connection_recv_malloc(p.b, &data, NULL, MPROC_NOWAIT),
               MPROC_EPERM);
    assert_err(mproc_connection_poll(p.b, MPROC_NOWAIT), MPROC_EPERM);
    pass(p.b, p.a, 3);
    assert_ok(mproc_connection_close(p.b));
    assert_ok(mproc_connection_poll(p.a, MPROC_NOWAIT));
    expect_eof(p.a, MPROC_NOWAIT);
    assert_ok(mproc_connection_close(p.a));
}

static void a_closed_end_is_of_no_use_to_its_closer(void **state)
{
    (void)state;
    struct ends p = make(0);
    assert_ok(mproc_connection_close(p.a));
    expect_invalid(p.a);
    assert_ok(mproc_connection_close(p.b));
    expect_invalid(p.a);
    expect_invalid(p.b);
}

static void what_was_sent_before_a_close_is_received_before_eof(void **state)
{
    (void)state;
    struct ends p = make(0);
    send_number(p.b, 1);
    send_number(p.b, 2);
    assert_ok(mproc_connection_close(p.b));
    assert_ok(mproc_connection_poll(p.a, MPROC_NOWAIT));
    expect_number(p.a, 1);
    expect_number(p.a, 2);
    assert_ok(mproc_connection_poll(p.a, MPROC_NOWAIT));
    expect_eof(p.a, MPROC_NOWAIT);
    expect_eof(p.a, MPROC_FOREVER);
    assert_err(mproc_connection_send(p.a, "x", 1, MPROC_FOREVER), MPROC_EPIPE);
    pid_t pid;
    assert_err(mproc_connection_peer_pid(p.a, &pid), MPROC_EPIPE);
    assert_ok(mproc_connection_close(p.a));
}

static void poll_tells_of_a_message_and_takes_nothing(void **state)
{
    (void)state;
    struct ends p = make(0);
    assert_err(mproc_connection_poll(p.a, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_err(mproc_connection_poll(p.a, mproc_in_ms(5)), MPROC_ETIMEDOUT);
    send_number(p.b, 7);
    assert_ok(mproc_connection_poll(p.a, MPROC_NOWAIT));
    assert_ok(mproc_connection_poll(p.a, MPROC_FOREVER));
    expect_number(p.a, 7);
    assert_err(mproc_connection_poll(p.a, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    close_both(p);
}

static int pass_under_limits(void *arg)
{
    struct rlimit none = {0, 0};
    (void)arg;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &none), 0);
    struct ends p = make(0);
    for (int i = 0; i < SIZES; i++) {
        pass(p.a, p.b, sizes[i]);
    }
    assert_ok(mproc_connection_close(p.b));
    expect_eof(p.a, MPROC_FOREVER);
    assert_ok(mproc_connection_close(p.a));
    return 0;
}

static void limits_of_the_process_do_not_matter(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(pass_under_limits, NULL)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_of_any_size_arrives_in_both_directions),
        cmocka_unit_test(messages_keep_their_boundaries_and_their_order),
        cmocka_unit_test(a_message_comes_in_memory_of_malloc_with_a_nul),
        cmocka_unit_test(what_does_not_fit_stays_first_and_tells_its_size),
        cmocka_unit_test(a_pipe_holds_64_kib_or_one_message_of_any_size),
        cmocka_unit_test(empty_messages_do_not_grow_without_end),
        cmocka_unit_test(both_ends_blocked_with_large_messages_end_by_deadline),
        cmocka_unit_test(sixteen_mib_come_back_from_another_process),
        cmocka_unit_test(a_bad_handle_is_refused),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(a_simplex_pipe_goes_one_way),
        cmocka_unit_test(a_closed_end_is_of_no_use_to_its_closer),
        cmocka_unit_test(what_was_sent_before_a_close_is_received_before_eof),
        cmocka_unit_test(poll_tells_of_a_message_and_takes_nothing),
        cmocka_unit_test(limits_of_the_process_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
