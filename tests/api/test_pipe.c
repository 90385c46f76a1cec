/* SPDX-License-Identifier: MIT */
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { HOLDS = 65536, LARGE = 16 << 20 };

/* ---- words of these tests --------------------------------------------- */

struct ends {
    mproc_connection *a, *b;
};

static struct ends make(int simplex)
{
    struct ends made = {NULL, NULL};
    const mproc_pipe_opts opts = {.simplex = simplex};
    assert_ok(mproc_pipe_new(&made.a, &made.b, &opts));
    return made;
}

static void close_both(struct ends ends)
{
    assert_ok(mproc_connection_close(ends.a));
    assert_ok(mproc_connection_close(ends.b));
}

static void send_number(mproc_connection *c, int number)
{
    assert_ok(mproc_connection_send(c, &number, sizeof number, TEST_BOUND));
}

static void expect_number(mproc_connection *c, int number)
{
    int got = -1;
    assert_ok(mproc_connection_recv(c, &got, sizeof got, NULL, MPROC_FOREVER));
    assert_int_equal(got, number);
}

static void expect_eof(mproc_connection *c, mproc_deadline until)
{
    int got;
    assert_err(mproc_connection_recv(c, &got, sizeof got, NULL, until),
               MPROC_EOF);
}

static bool asleep(const char *stat_path)
{
    char text[512] = "";
    int fd = open(stat_path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    const char *name_end = strrchr(text, ')');
    return name_end != NULL && name_end[2] == 'S';
}

/* Until the process sleeps in whatever it calls. */
static void await_asleep(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    while (!asleep(path)) {
        sched_yield();
    }
}

static void kill_and_wait(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(test_wait_exit(pid), -SIGKILL);
}

/* A child that never calls the library, and lives until it is killed. */
static int pause_for_ever(void *arg)
{
    (void)arg;
    while (pause() != 0) {
    }
    return 0;
}

/* ---- messages --------------------------------------------------------- */

static const size_t sizes[] = {0,    1,    7,     8,     1023,  1024,
                               1025, 4096, 65535, 65536, 65537, 1 << 20};
enum { SIZES = sizeof sizes / sizeof *sizes };

static char *pattern(size_t size)
{
    char *p = malloc(size + 1);
    assert_non_null(p);
    for (size_t i = 0; i < size; i++) {
        p[i] = (char)(i * 31 + size);
    }
    return p;
}

static void pass(mproc_connection *from, mproc_connection *to, size_t size)
{
    char *sent = pattern(size), *got = malloc(size + 1);
    size_t got_size = size + 1;
    assert_ok(mproc_connection_send(from, sent, size, MPROC_NOWAIT));
    assert_ok(
        mproc_connection_recv(to, got, size + 1, &got_size, MPROC_NOWAIT));
    assert_int_equal(got_size, size);
    assert_memory_equal(got, sent, size);
    free(sent);
    free(got);
}

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

static void expect_invalid(mproc_connection *c)
{
    char byte;
    void *data;
    pid_t pid;
    assert_err(mproc_connection_send(c, "x", 1, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_connection_recv(c, &byte, 1, NULL, MPROC_NOWAIT),
               MPROC_EINVAL);
    assert_err(mproc_connection_recv_malloc(c, &data, NULL, MPROC_NOWAIT),
               MPROC_EINVAL);
    assert_err(mproc_connection_poll(c, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_connection_peer_pid(c, &pid), MPROC_EINVAL);
    assert_err(mproc_connection_close(c), MPROC_EINVAL);
}

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

static void a_pipe_costs_no_descriptor(void **state)
{
    (void)state;
    struct ends p = make(0);
    int fds = test_open_fds();
    struct ends more = make(0);
    pass(more.a, more.b, LARGE);
    assert_int_equal(test_open_fds(), fds);
    close_both(more);
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

/* Before all others: in a family of its own. */
static int fill_a_small_heap(void *arg)
{
    const mproc_config small = {.heap_max = 2 << 20};
    (void)arg;
    assert_ok(mproc_configure(&small));
    struct ends p = make(0), more[1000];
    char *large = pattern(4 << 20);
    int count = 0;
    assert_err(mproc_connection_send(p.a, large, 4 << 20, MPROC_FOREVER),
               MPROC_ENOMEM);
    pass(p.a, p.b, 1000);
    while (count < 1000 &&
           mproc_pipe_new(&more[count].a, &more[count].b, NULL) == 0) {
        count++;
    }
    assert_true(count > 50 && count < 1000);
    assert_err(mproc_pipe_new(&more[count].a, &more[count].b, NULL),
               MPROC_ENOMEM);
    pass(p.b, p.a, 1000);
    close_both(more[0]);
    more[0] = make(0);
    free(large);
    return 0;
}

static void a_full_heap_is_told_at_once_and_harms_no_pipe(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(fill_a_small_heap, NULL)), 0);
}

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
        return pause_for_ever(NULL);
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
        kill_and_wait(child);
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
    producer.reader = test_fork(pause_for_ever, NULL);
    pid_t child = test_fork(produce_ten, &producer);
    assert_int_equal(test_wait_exit(child), -SIGKILL);
    assert_ok(mproc_connection_close(p.b));
    for (int i = 0; i < 10; i++) {
        expect_number(p.a, i);
    }
    assert_err(mproc_connection_poll(p.a, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    kill_and_wait(producer.reader);
    assert_ok(mproc_connection_poll(p.a, MPROC_NOWAIT));
    expect_eof(p.a, MPROC_NOWAIT);
    assert_ok(mproc_connection_close(p.a));
}

/* ---- inheriting ------------------------------------------------------- */

static void
children_that_never_call_the_library_hold_what_they_got(void **state)
{
    (void)state;
    struct ends p = make(0);
    pid_t child[4];
    for (int i = 0; i < 4; i++) {
        child[i] = test_fork(pause_for_ever, NULL);
    }
    assert_ok(mproc_connection_close(p.b));
    for (int i = 0; i < 4; i++) {
        assert_err(mproc_connection_poll(p.a, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        assert_ok(mproc_connection_send(p.a, "x", 1, MPROC_NOWAIT));
        kill_and_wait(child[i]);
    }
    expect_eof(p.a, MPROC_FOREVER);
    assert_ok(mproc_connection_close(p.a));
}

static void a_child_killed_at_once_holds_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct ends p = make(0);
        pid_t child = test_fork(pause_for_ever, NULL);
        kill_and_wait(child);
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

static void many_children_may_hold_one_end(void **state)
{
    (void)state;
    enum { MANY = 50 };
    struct ends p = make(0);
    pid_t child[MANY];
    for (int i = 0; i < MANY; i++) {
        child[i] = test_fork(pause_for_ever, NULL);
    }
    assert_ok(mproc_connection_close(p.b));
    expect_invalid(p.b);
    for (int i = 0; i < MANY; i++) {
        assert_err(mproc_connection_poll(p.a, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        kill_and_wait(child[i]);
    }
    expect_eof(p.a, MPROC_FOREVER);
    assert_ok(mproc_connection_close(p.a));
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
    assert_ok(mproc_process_new(&child, pause_for_ever, NULL, NULL));
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
    pid_t child = test_fork(pause_for_ever, NULL);
    assert_ok(mproc_connection_peer_pid(p.a, &pid));
    assert_int_equal(pid, child);
    kill_and_wait(child);
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
    return pause_for_ever(NULL);
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
        kill_and_wait(child[i]);
    }
    expect_eof(p.a, MPROC_FOREVER);
    assert_ok(mproc_connection_close(p.a));
    mproc_queue_free(q);
}

/* ---- threads ---------------------------------------------------------- */

struct sleeper {
    mproc_connection *c;
    pthread_t thread;
    _Atomic pid_t tid;
    int err;
    const char *data; /* of a sender */
    size_t size;
};

static void *sleep_in_poll(void *arg)
{
    struct sleeper *me = arg;
    atomic_store(&me->tid, (pid_t)syscall(SYS_gettid));
    me->err = mproc_connection_poll(me->c, MPROC_FOREVER);
    return NULL;
}

static void *sleep_in_recv(void *arg)
{
    struct sleeper *me = arg;
    char byte;
    atomic_store(&me->tid, (pid_t)syscall(SYS_gettid));
    me->err = mproc_connection_recv(me->c, &byte, 1, NULL, MPROC_FOREVER);
    return NULL;
}

/*
 * Until the thread sleeps on several words, where that can be seen: then it
 * does not watch those who are born from now on.
 */
static void await_deep_sleep(struct sleeper *sleeper)
{
    enum { FUTEX_WAITV = 449 };
    mproc_deadline patience = mproc_in_ms(500);
    char path[64], text[64] = "";
    pid_t tid;
    while ((tid = atomic_load(&sleeper->tid)) == 0) {
        sched_yield();
    }
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)tid);
    do {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            ssize_t size = read(fd, text, sizeof text - 1);
            text[size > 0 ? size : 0] = '\0';
            close(fd);
        }
        sched_yield();
    } while (strtol(text, NULL, 10) != FUTEX_WAITV &&
             mproc_in_ms(0).at_ns < patience.at_ns);
}

static void *sleep_in_send(void *arg)
{
    struct sleeper *me = arg;
    atomic_store(&me->tid, (pid_t)syscall(SYS_gettid));
    me->err = mproc_connection_send(me->c, me->data, me->size, MPROC_FOREVER);
    return NULL;
}

/* Who is woken first needs more than there is. */
static void room_is_for_whoever_it_suffices(void **state)
{
    (void)state;
    struct ends p = make(0);
    char *data = pattern(HOLDS), got[1024];
    struct sleeper large = {.c = p.a, .data = data, .size = HOLDS / 2};
    struct sleeper small = {.c = p.a, .data = data, .size = 1};
    for (int i = 0; i < HOLDS / 1024; i++) {
        assert_ok(mproc_connection_send(p.a, data, 1024, MPROC_NOWAIT));
    }
    pthread_create(&large.thread, NULL, sleep_in_send, &large);
    await_deep_sleep(&large);
    pthread_create(&small.thread, NULL, sleep_in_send, &small);
    await_deep_sleep(&small);
    assert_ok(mproc_connection_recv(p.b, got, sizeof got, NULL, TEST_BOUND));
    pthread_join(small.thread, NULL);
    assert_ok(small.err);
    for (int i = 1; i < HOLDS / 1024; i++) {
        assert_ok(
            mproc_connection_recv(p.b, got, sizeof got, NULL, TEST_BOUND));
    }
    pthread_join(large.thread, NULL);
    assert_ok(large.err);
    free(data);
    close_both(p);
}

static void a_sleeper_is_told_of_deaths_of_the_later_born(void **state)
{
    (void)state;
    struct ends p = make(0);
    struct sleeper sleeper = {.c = p.a};
    pthread_create(&sleeper.thread, NULL, sleep_in_recv, &sleeper);
    await_deep_sleep(&sleeper);
    pid_t child = test_fork(pause_for_ever, NULL);
    assert_ok(mproc_connection_close(p.b));
    await_deep_sleep(&sleeper);
    kill_and_wait(child);
    pthread_join(sleeper.thread, NULL);
    assert_err(sleeper.err, MPROC_EOF);
    assert_ok(mproc_connection_close(p.a));
}

static void a_close_ends_the_calls_of_other_threads(void **state)
{
    (void)state;
    struct ends p = make(0);
    struct sleeper sleeper = {.c = p.a};
    pthread_create(&sleeper.thread, NULL, sleep_in_recv, &sleeper);
    await_deep_sleep(&sleeper);
    assert_ok(mproc_connection_close(p.a));
    pthread_join(sleeper.thread, NULL);
    assert_err(sleeper.err, MPROC_EINVAL);
    assert_ok(mproc_connection_close(p.b));
}

enum { THREADS = 3, EACH = 2000 };

static void *send_many(void *arg)
{
    for (int i = 1; i <= EACH; i++) {
        send_number(arg, i);
    }
    return NULL;
}

static void *receive_many(void *arg)
{
    long sum = 0;
    for (int i = 0, got; i < EACH; i++) {
        assert_ok(
            mproc_connection_recv(arg, &got, sizeof got, NULL, TEST_BOUND));
        sum += got;
    }
    return (void *)sum;
}

static void threads_share_an_end(void **state)
{
    (void)state;
    struct ends p = make(0);
    pthread_t sender[THREADS], receiver[THREADS];
    long sum = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&sender[i], NULL, send_many, p.b);
        pthread_create(&receiver[i], NULL, receive_many, p.a);
    }
    for (int i = 0; i < THREADS; i++) {
        void *one;
        pthread_join(sender[i], NULL);
        pthread_join(receiver[i], &one);
        sum += (long)one;
    }
    assert_int_equal(sum, (long)THREADS * EACH * (EACH + 1) / 2);
    close_both(p);
}

/* The first to fall asleep is the first to be woken. */
static void a_poll_does_not_eat_the_wake_of_a_receiver(void **state)
{
    (void)state;
    struct ends p = make(0);
    struct sleeper poller = {.c = p.a}, receiver = {.c = p.a};
    pthread_create(&poller.thread, NULL, sleep_in_poll, &poller);
    await_deep_sleep(&poller);
    pthread_create(&receiver.thread, NULL, sleep_in_recv, &receiver);
    await_deep_sleep(&receiver);
    assert_ok(mproc_connection_send(p.b, "1", 1, TEST_BOUND));
    pthread_join(receiver.thread, NULL);
    assert_ok(receiver.err);
    assert_ok(mproc_connection_send(p.b, "2", 1, TEST_BOUND));
    pthread_join(poller.thread, NULL);
    assert_ok(poller.err);
    close_both(p);
}

/* ---- memory ----------------------------------------------------------- */

static mproc_heap_info heap_now(void)
{
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    return info;
}

static void make_and_close_a_thousand(void)
{
    static struct ends p[1000];
    for (int i = 0; i < 1000; i++) {
        p[i] = make(0);
        assert_ok(mproc_connection_send(p[i].a, &p, 2000, TEST_BOUND));
    }
    for (int i = 0; i < 1000; i++) {
        close_both(p[i]);
    }
}

static void a_thousand_pipes_leave_nothing(void **state)
{
    (void)state;
    make_and_close_a_thousand();
    mproc_heap_info before = heap_now();
    make_and_close_a_thousand();
    mproc_heap_info after = heap_now();
    assert_int_equal(after.in_use, before.in_use);
    assert_int_equal(after.blocks, before.blocks);
    assert_int_equal(after.high_water, before.high_water);
}

static int make_pipes_and_die(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        struct ends p = make(0);
        char *data = pattern(100000);
        assert_ok(mproc_connection_send(p.a, data, 100000, TEST_BOUND));
        assert_ok(mproc_connection_send(p.b, data, 3000, TEST_BOUND));
        free(data);
    }
    pid_t heirs[8];
    for (int i = 0; i < 8; i++) {
        heirs[i] = test_fork(pause_for_ever, NULL);
    }
    for (int i = 0; i < 8; i++) {
        kill_and_wait(heirs[i]);
    }
    raise(SIGKILL);
    return 1;
}

/* While it sleeps a process buries the dead. */
static void the_pipes_of_the_dead_are_given_back(void **state)
{
    (void)state;
    mproc_deadline bound = TEST_BOUND;
    mproc_heap_info before = heap_now(), after;
    assert_int_equal(test_wait_exit(test_fork(make_pipes_and_die, NULL)),
                     -SIGKILL);
    struct ends p = make(0);
    do {
        assert_err(mproc_connection_poll(p.a, mproc_in_ms(60)),
                   MPROC_ETIMEDOUT);
        after = heap_now();
    } while (after.blocks != before.blocks &&
             mproc_in_ms(0).at_ns < bound.at_ns);
    assert_int_equal(after.blocks, before.blocks);
    assert_int_equal(after.in_use, before.in_use);
    close_both(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_heap_is_told_at_once_and_harms_no_pipe),
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
        cmocka_unit_test(a_pipe_costs_no_descriptor),
        cmocka_unit_test(limits_of_the_process_do_not_matter),
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
        cmocka_unit_test(many_children_may_hold_one_end),
        cmocka_unit_test(a_pool_that_is_made_holds_no_ends),
        cmocka_unit_test(a_process_that_is_started_holds_what_its_parent_holds),
        cmocka_unit_test(peer_pid_names_a_process_at_the_other_end),
        cmocka_unit_test(an_end_sent_as_bytes_is_held_by_who_uses_it),
        cmocka_unit_test(an_end_without_holder_is_closed_for_ever),
        cmocka_unit_test(an_end_used_elsewhere_dies_with_its_user),
        cmocka_unit_test(room_is_for_whoever_it_suffices),
        cmocka_unit_test(a_sleeper_is_told_of_deaths_of_the_later_born),
        cmocka_unit_test(a_close_ends_the_calls_of_other_threads),
        cmocka_unit_test(threads_share_an_end),
        cmocka_unit_test(a_poll_does_not_eat_the_wake_of_a_receiver),
        cmocka_unit_test(a_thousand_pipes_leave_nothing),
        cmocka_unit_test(the_pipes_of_the_dead_are_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
