/* SPDX-License-Identifier: MIT */
/* The descriptors of queues and connections, as poll and epoll see them. */
#include "sync_support.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "shm/sleep.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { ROUNDS = 300 };
#else
enum { ROUNDS = 2000 };
#endif

/*
 * The thread sanitizer lets nobody start threads after a fork beside threads,
 * of which the library has one: there all are threads of one process.
 */
#ifdef __SANITIZE_THREAD__
enum { THREADS_ONLY = 1 };
#else
enum { THREADS_ONLY = 0 };
#endif

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

enum { BOUND_MS = 30000 };

static bool readable_within(int fd, int ms)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    int n = poll(&polled, 1, ms);
    assert_true(n >= 0);
    return n == 1 && (polled.revents & POLLIN);
}

static bool readable_now(int fd)
{
    return readable_within(fd, 0);
}

/* What another process does shows a little later. */
static void await_readable(int fd)
{
    assert_true(readable_within(fd, BOUND_MS));
}

static mproc_queue *new_queue(void)
{
    mproc_queue *q;
    assert_ok(mproc_queue_new(&q, NULL));
    return q;
}

static int fd_of(mproc_queue *q)
{
    int fd = mproc_queue_fd(q);
    assert_true(fd >= 0);
    return fd;
}

static void put(mproc_queue *q)
{
    assert_ok(mproc_queue_put(q, "x", 1, TEST_BOUND));
}

static void get(mproc_queue *q)
{
    char byte;
    assert_ok(mproc_queue_get(q, &byte, 1, NULL, MPROC_NOWAIT));
}

static int put_in_child(void *q)
{
    put(q);
    return 0;
}

static void put_from_child(mproc_queue *q)
{
    assert_int_equal(test_wait_exit(test_fork(put_in_child, q)), 0);
}

/* ---- level-triggered -------------------------------------------------- */

static void it_is_readable_while_a_get_would_not_wait(void **state)
{
    (void)state;
    mproc_queue *q = new_queue();
    int fd = fd_of(q);
    for (int i = 0; i < 3; i++) {
        assert_false(readable_now(fd));
        put(q);
        assert_true(readable_now(fd));
        assert_true(readable_now(fd));
        put(q);
        get(q);
        assert_true(readable_now(fd));
        get(q);
    }
    assert_false(readable_now(fd));
    assert_int_equal(mproc_queue_fd(q), fd);
    mproc_queue_free(q);
}

static void it_tells_what_was_there_before_it_was_asked_for(void **state)
{
    (void)state;
    mproc_queue *q = new_queue();
    put(q);
    int fd = fd_of(q);
    assert_true(readable_now(fd));
    get(q);
    assert_false(readable_now(fd));
    mproc_queue_free(q);
}

static void it_tells_of_other_processes(void **state)
{
    (void)state;
    mproc_queue *q = new_queue();
    int fd = fd_of(q);
    for (int i = 0; i < 10; i++) {
        put_from_child(q);
        await_readable(fd);
        get(q);
        assert_false(readable_now(fd));
    }
    mproc_queue_free(q);
}

static int get_in_child(void *q)
{
    get(q);
    return 0;
}

static void an_empty_get_makes_it_right_where_another_was_faster(void **state)
{
    (void)state;
    char byte;
    mproc_queue *q = new_queue();
    int fd = fd_of(q);
    put(q);
    assert_int_equal(test_wait_exit(test_fork(get_in_child, q)), 0);
    assert_err(mproc_queue_get(q, &byte, 1, NULL, MPROC_NOWAIT), MPROC_EEMPTY);
    assert_false(readable_now(fd));
    put_from_child(q);
    await_readable(fd);
    mproc_queue_free(q);
}

static void a_message_that_does_not_fit_keeps_it_readable(void **state)
{
    (void)state;
    char byte;
    size_t size;
    void *data;
    mproc_queue *q = new_queue();
    int fd = fd_of(q);
    assert_ok(mproc_queue_put(q, "four", 4, TEST_BOUND));
    assert_err(mproc_queue_get(q, &byte, 1, &size, MPROC_NOWAIT),
               MPROC_EMSGSIZE);
    assert_true(readable_now(fd));
    assert_ok(mproc_queue_get_malloc(q, &data, &size, MPROC_NOWAIT));
    free(data);
    assert_false(readable_now(fd));
    mproc_queue_free(q);
}

static void a_shut_queue_is_readable(void **state)
{
    (void)state;
    for (int immediate = 0; immediate < 2; immediate++) {
        char byte;
        mproc_queue *q = new_queue();
        int fd = fd_of(q);
        assert_ok(mproc_queue_shutdown(q, immediate != 0));
        assert_true(readable_now(fd));
        assert_err(mproc_queue_get(q, &byte, 1, NULL, MPROC_NOWAIT),
                   MPROC_ESHUTDOWN);
        assert_true(readable_now(fd));
        mproc_queue_free(q);
    }
}

static int shut_in_child(void *q)
{
    assert_ok(mproc_queue_shutdown(q, false));
    return 0;
}

static void a_queue_that_another_shuts_is_readable(void **state)
{
    (void)state;
    mproc_queue *q = new_queue();
    int fd = fd_of(q);
    assert_int_equal(test_wait_exit(test_fork(shut_in_child, q)), 0);
    await_readable(fd);
    mproc_queue_free(q);
}

static void epoll_sees_it_as_poll_does(void **state)
{
    (void)state;
    mproc_queue *q = new_queue();
    struct epoll_event event = {.events = EPOLLIN},
                       edge = {.events = EPOLLIN | EPOLLET};
    int level_triggered = epoll_create1(EPOLL_CLOEXEC);
    int edge_triggered = epoll_create1(EPOLL_CLOEXEC);
    int fd = fd_of(q);
    assert_int_equal(epoll_ctl(level_triggered, EPOLL_CTL_ADD, fd, &event), 0);
    assert_int_equal(epoll_ctl(edge_triggered, EPOLL_CTL_ADD, fd, &edge), 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(epoll_wait(level_triggered, &event, 1, 0), 0);
        put_from_child(q);
        assert_int_equal(epoll_wait(level_triggered, &event, 1, BOUND_MS), 1);
        assert_int_equal(epoll_wait(level_triggered, &event, 1, 0), 1);
        assert_int_equal(epoll_wait(edge_triggered, &edge, 1, BOUND_MS), 1);
        get(q);
    }
    close(level_triggered);
    close(edge_triggered);
    mproc_queue_free(q);
}

/* ---- connections ------------------------------------------------------ */

struct pipe_ends {
    mproc_connection *a, *b;
};

static void a_connection_has_one_too(void **state)
{
    (void)state;
    char byte;
    struct pipe_ends p;
    assert_ok(mproc_pipe_new(&p.a, &p.b, NULL));
    int fd_a = mproc_connection_fd(p.a), fd_b = mproc_connection_fd(p.b);
    assert_true(fd_a >= 0 && fd_b >= 0 && fd_a != fd_b);
    assert_false(readable_now(fd_a) || readable_now(fd_b));
    assert_ok(mproc_connection_send(p.a, "x", 1, TEST_BOUND));
    assert_false(readable_now(fd_a));
    assert_true(readable_now(fd_b));
    assert_ok(mproc_connection_recv(p.b, &byte, 1, NULL, MPROC_NOWAIT));
    assert_false(readable_now(fd_b));
    assert_ok(mproc_connection_close(p.a));
    assert_true(readable_now(fd_b));
    assert_err(mproc_connection_recv(p.b, &byte, 1, NULL, MPROC_NOWAIT),
               MPROC_EOF);
    assert_true(readable_now(fd_b));
    assert_err(mproc_connection_fd(p.a), MPROC_EINVAL);
    assert_ok(mproc_connection_close(p.b));
}

static int hold_an_end(void *arg)
{
    struct pipe_ends *p = arg;
    assert_ok(mproc_connection_close(p->b));
    assert_ok(mproc_connection_send(p->a, "x", 1, TEST_BOUND));
    pause_for_ever();
    return 0;
}

static void the_end_of_the_other_side_is_told_however_it_came(void **state)
{
    (void)state;
    char byte;
    struct pipe_ends p;
    assert_ok(mproc_pipe_new(&p.a, &p.b, NULL));
    pid_t pid = test_fork(hold_an_end, &p);
    assert_ok(mproc_connection_close(p.a));
    int fd = mproc_connection_fd(p.b);
    await_readable(fd);
    assert_ok(mproc_connection_recv(p.b, &byte, 1, NULL, TEST_BOUND));
    assert_false(readable_now(fd));
    kill_and_reap(pid);
    await_readable(fd);
    assert_err(mproc_connection_recv(p.b, &byte, 1, NULL, TEST_BOUND),
               MPROC_EOF);
    assert_ok(mproc_connection_close(p.b));
}

static void a_sending_end_has_none(void **state)
{
    (void)state;
    struct pipe_ends p;
    assert_ok(mproc_pipe_new(&p.a, &p.b, &(mproc_pipe_opts){.simplex = 1}));
    assert_err(mproc_connection_fd(p.b), MPROC_EPERM);
    assert_true(mproc_connection_fd(p.a) >= 0);
    assert_ok(mproc_connection_close(p.a));
    assert_ok(mproc_connection_close(p.b));
}

/* ---- its life --------------------------------------------------------- */

static void it_is_closed_with_its_queue(void **state)
{
    (void)state;
    mproc_queue *unused = new_queue();
    int before = test_open_fds();
    mproc_queue *q = new_queue();
    struct pipe_ends p;
    assert_ok(mproc_pipe_new(&p.a, &p.b, NULL));
    put(q);
    get(q);
    assert_int_equal(test_open_fds(), before);
    int fd = fd_of(q);
    assert_true(mproc_connection_fd(p.a) >= 0);
    assert_int_equal(test_open_fds(), before + 2);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    mproc_queue_free(q);
    assert_ok(mproc_connection_close(p.a));
    assert_ok(mproc_connection_close(p.b));
    assert_int_equal(test_open_fds(), before);
    assert_err(mproc_queue_fd(q), MPROC_EINVAL);
    mproc_queue_free(unused);
}

static _Atomic pid_t poller;

static void *poll_for_ever(void *fd)
{
    atomic_store(&poller, gettid());
    readable_within(*(int *)fd, -1);
    return NULL;
}

static void who_polls_when_it_is_closed_is_woken(void **state)
{
    (void)state;
    mproc_queue *q = new_queue();
    int fd = fd_of(q);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, poll_for_ever, &fd), 0);
    while (atomic_load(&poller) == 0) {
        look_again_soon();
    }
    await_asleep(atomic_load(&poller));
    mproc_queue_free(q);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static int free_in_child(void *q)
{
    mproc_queue_free(q);
    return 0;
}

/* A thread of the library may have one open for a moment, to look who died. */
static void await_open_fds(int count)
{
    mproc_deadline until = TEST_BOUND;
    while (test_open_fds() != count && mproc_in_ms(0).at_ns < until.at_ns) {
        sched_yield();
    }
    assert_int_equal(test_open_fds(), count);
}

static void a_queue_that_another_frees_is_readable_for_ever(void **state)
{
    (void)state;
    char byte;
    mproc_queue *q = new_queue();
    int fd = fd_of(q), before = test_open_fds();
    assert_int_equal(test_wait_exit(test_fork(free_in_child, q)), 0);
    await_readable(fd);
    assert_err(mproc_queue_get(q, &byte, 1, NULL, MPROC_NOWAIT), MPROC_EINVAL);
    assert_true(readable_now(fd));

    mproc_queue *next = new_queue(); /* in its place */
    assert_ptr_equal(next, q);
    fd = fd_of(next);
    await_open_fds(before);
    assert_false(readable_now(fd));
    put_from_child(next);
    await_readable(fd);
    mproc_queue_free(next);
}

struct inherited {
    mproc_queue *q;
    int fd;
};

static int ask_again(void *arg)
{
    const struct inherited *inherited = arg;
    int before = test_open_fds();
    assert_false(readable_now(inherited->fd));
    int fd = fd_of(inherited->q);
    assert_int_not_equal(fd, inherited->fd);
    assert_int_equal(test_open_fds(), before + 1);
    put(inherited->q);
    assert_true(readable_now(fd));
    await_readable(inherited->fd); /* the parent's */
    get(inherited->q);
    assert_false(readable_now(fd));
    return 0;
}

static int run_as_process(int (*fn)(void *), void *arg)
{
    mproc_process *p;
    int code = 1;
    assert_ok(mproc_process_new(&p, fn, arg, NULL));
    assert_ok(mproc_process_start(p));
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_ok(mproc_process_exitcode(p, &code));
    mproc_process_free(p);
    return code;
}

static void after_a_fork_the_child_asks_again(void **state)
{
    (void)state;
    char byte;
    mproc_queue *q = new_queue();
    struct inherited inherited = {q, fd_of(q)};
    for (int plainly = 0; plainly < 2 && !THREADS_ONLY; plainly++) {
        int code = plainly ? test_wait_exit(test_fork(ask_again, &inherited))
                           : run_as_process(ask_again, &inherited);
        assert_int_equal(code, 0);
        assert_err(mproc_queue_get(q, &byte, 1, NULL, MPROC_NOWAIT),
                   MPROC_EEMPTY);
        assert_false(readable_now(inherited.fd));
    }
    put_from_child(q);
    await_readable(inherited.fd);
    mproc_queue_free(q);
}

/* ---- limits ----------------------------------------------------------- */

static void what_it_lacks_is_told(void **state)
{
    (void)state;
    struct rlimit limit, none;
    mproc_queue *q = new_queue();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int err = mproc_queue_fd(q);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_err(err, MPROC_EMFILE);
    put(q);
    assert_true(readable_now(fd_of(q)));
    mproc_queue_free(q);
    assert_err(mproc_queue_fd(q), MPROC_EINVAL);
    assert_err(mproc_queue_fd(NULL), MPROC_EINVAL);
    assert_err(mproc_connection_fd(NULL), MPROC_EINVAL);
}

enum { MANY = 300 };

static void hundreds_have_one_each(void **state)
{
    (void)state;
    mproc_queue *q[MANY];
    struct pollfd polled[MANY];
    for (int i = 0; i < MANY; i++) {
        q[i] = new_queue();
        polled[i] = (struct pollfd){.fd = fd_of(q[i]), .events = POLLIN};
    }
    for (int i = 0; i < MANY; i += 29) {
        put_from_child(q[i]);
        assert_int_equal(poll(polled, MANY, BOUND_MS), 1);
        assert_true(polled[i].revents & POLLIN);
        get(q[i]);
        assert_int_equal(poll(polled, MANY, 0), 0);
    }
    for (int i = 0; i < MANY; i++) {
        mproc_queue_free(q[i]);
    }
}

/* ---- never missing ---------------------------------------------------- */

struct table {
    mproc_queue *there, *back;
};

static void return_ball(mproc_queue *from, int fd, mproc_queue *to)
{
    await_readable(fd);
    get(from);
    put(to);
}

static int play_as_process(void *arg)
{
    struct table *table = arg;
    int fd = fd_of(table->there);
    for (int i = 0; i < ROUNDS; i++) {
        return_ball(table->there, fd, table->back);
    }
    return 0;
}

static void *play_as_thread(void *arg)
{
    (void)play_as_process(arg);
    return NULL;
}

static void ping_pong_by_poll_never_hangs(void **state)
{
    (void)state;
    struct table table = {new_queue(), new_queue()};
    int fd = fd_of(table.back);
    pthread_t thread;
    pid_t pid = THREADS_ONLY ? 0 : test_fork(play_as_process, &table);
    if (pid == 0) {
        pthread_create(&thread, NULL, play_as_thread, &table);
    }
    put(table.there);
    for (int i = 0; i < ROUNDS - 1; i++) {
        return_ball(table.back, fd, table.there);
    }
    await_readable(fd);
    if (pid == 0) {
        assert_int_equal(pthread_join(thread, NULL), 0);
    } else {
        assert_int_equal(test_wait_exit(pid), 0);
    }
    mproc_queue_free(table.there);
    mproc_queue_free(table.back);
}

/* Threads of one process and others, all by poll, until it is shut down. */
enum { TAKERS = 3, CHILDREN = THREADS_ONLY ? 0 : 2 };

struct crowd {
    mproc_queue *q;
    atomic_int taken[ROUNDS];
    atomic_int wrong;
};

static void *take(void *arg)
{
    struct crowd *crowd = arg;
    int fd = mproc_queue_fd(crowd->q), number, err = fd < 0 ? fd : 0;
    while (err == 0 || err == MPROC_EEMPTY) {
        struct pollfd polled = {.fd = fd, .events = POLLIN};
        if (poll(&polled, 1, BOUND_MS) != 1) {
            atomic_fetch_add(&crowd->wrong, 1);
            break;
        }
        err = mproc_queue_get(crowd->q, &number, sizeof number, NULL,
                              MPROC_NOWAIT);
        if (err == 0) {
            atomic_fetch_add(&crowd->taken[number], 1);
        }
    }
    atomic_fetch_add(&crowd->wrong, err != MPROC_ESHUTDOWN);
    return NULL;
}

static void begin_to_take(pthread_t threads[TAKERS], struct crowd *crowd)
{
    for (int i = 0; i < TAKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take, crowd), 0);
    }
}

static void end_to_take(const pthread_t threads[TAKERS])
{
    for (int i = 0; i < TAKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static int take_as_process(void *arg)
{
    pthread_t threads[TAKERS];
    begin_to_take(threads, arg);
    end_to_take(threads);
    return 0;
}

static void none_is_missed_by_a_crowd_that_polls(void **state)
{
    (void)state;
    pid_t pids[2];
    pthread_t threads[TAKERS];
    struct crowd *crowd = mproc_calloc(1, sizeof *crowd);
    assert_non_null(crowd);
    crowd->q = new_queue();
    for (int i = 0; i < CHILDREN; i++) {
        pids[i] = test_fork(take_as_process, crowd);
    }
    begin_to_take(threads, crowd);
    for (int i = 0; i < ROUNDS; i++) {
        assert_ok(mproc_queue_put(crowd->q, &i, sizeof i, TEST_BOUND));
        if (i % 30 == 0) {
            look_again_soon(); /* let them fall asleep */
        }
    }
    assert_ok(mproc_queue_shutdown(crowd->q, false));
    end_to_take(threads);
    for (int i = 0; i < CHILDREN; i++) {
        assert_int_equal(test_wait_exit(pids[i]), 0);
    }
    assert_int_equal(atomic_load(&crowd->wrong), 0);
    for (int i = 0; i < ROUNDS; i++) {
        assert_int_equal(atomic_load(&crowd->taken[i]), 1);
    }
    mproc_queue_free(crowd->q);
    mproc_free(crowd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_readable_while_a_get_would_not_wait),
        cmocka_unit_test(it_tells_what_was_there_before_it_was_asked_for),
        cmocka_unit_test(it_tells_of_other_processes),
        cmocka_unit_test(an_empty_get_makes_it_right_where_another_was_faster),
        cmocka_unit_test(a_message_that_does_not_fit_keeps_it_readable),
        cmocka_unit_test(a_shut_queue_is_readable),
        cmocka_unit_test(a_queue_that_another_shuts_is_readable),
        cmocka_unit_test(epoll_sees_it_as_poll_does),
        cmocka_unit_test(a_connection_has_one_too),
        cmocka_unit_test(the_end_of_the_other_side_is_told_however_it_came),
        cmocka_unit_test(a_sending_end_has_none),
        cmocka_unit_test(it_is_closed_with_its_queue),
        cmocka_unit_test(who_polls_when_it_is_closed_is_woken),
        cmocka_unit_test(a_queue_that_another_frees_is_readable_for_ever),
        cmocka_unit_test(after_a_fork_the_child_asks_again),
        cmocka_unit_test(what_it_lacks_is_told),
        cmocka_unit_test(hundreds_have_one_each),
        cmocka_unit_test(ping_pong_by_poll_never_hangs),
        cmocka_unit_test(none_is_missed_by_a_crowd_that_polls),
    };
    mpr_test_deep_sleep = true; /* a timed look would hide a lost wake-up */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
