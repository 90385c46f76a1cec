/* SPDX-License-Identifier: MIT */
/* Processes among others: who they are, many, limits, daemons. */
#include "process_support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- who one is ------------------------------------------------------- */

static int knows_itself(void *arg)
{
    const struct note *note = arg;
    int code;
    be_strict();
    assert_ok(mproc_event_wait(note->event, TEST_BOUND));
    mproc_process *me = mproc_process_current();
    assert_ptr_equal(me, *(mproc_process **)note->text);
    assert_int_equal(mproc_process_pid(me), getpid());
    assert_int_equal(mproc_process_parent_pid(), note->pid);
    assert_string_equal(mproc_process_name(me), "myself");
    assert_false(mproc_process_daemon(me));
    assert_true(mproc_process_is_alive(me));
    assert_err(mproc_process_join(me, MPROC_NOWAIT), MPROC_EDEADLK);
    assert_err(mproc_process_exitcode(me, &code), MPROC_EPERM);
    assert_err(mproc_process_kill(me), MPROC_EPERM);
    assert_err(mproc_process_start(me), MPROC_EPERM);
    mproc_process_free(me);
    assert_true(mproc_process_is_alive(me));
    assert_int_equal(mproc_active_children(NULL, 0), 0);
    return 17;
}

static void a_child_knows_itself_and_its_parent(void **state)
{
    (void)state;
    if (by_thread()) {
        skip(); /* see test_process_thread.c */
    }
    struct note note = {.pid = getpid(), .text = mproc_calloc(1, 64)};
    mproc_process_opts opts = {
        .name = "myself", .start = how, .arg_size = sizeof note};
    mproc_process *p;
    assert_ok(mproc_event_new(&note.event));
    assert_ok(mproc_process_new(&p, knows_itself, &note, &opts));
    *(mproc_process **)note.text = p;
    assert_ok(mproc_process_start(p));
    assert_ok(mproc_event_set(note.event));
    assert_int_equal(code_of(p), 17);
    mproc_process_free(p);
    mproc_event_free(note.event);
    mproc_free(note.text);
}

static int forks_plainly(void *arg)
{
    mproc_process *me = mproc_process_current();
    assert_string_equal(mproc_process_name(me), "MainProcess");
    assert_int_equal(mproc_process_pid(me), getpid());
    assert_int_equal(mproc_process_parent_pid(), getppid());
    assert_true(mproc_process_is_alive(me));
    assert_int_equal(mproc_active_children(NULL, 0), 0);
    assert_int_equal(mproc_process_pid(arg), getppid());
    assert_err(mproc_process_join(arg, MPROC_NOWAIT), MPROC_EPERM);
    assert_true(mproc_process_is_alive(arg));
    assert_int_equal(run(ends_at_once, &nothing), 0);
    return 17;
}

static void the_first_process_has_a_handle_too(void **state)
{
    (void)state;
    mproc_process *me = mproc_process_current();
    assert_string_equal(mproc_process_name(me), "MainProcess");
    assert_int_equal(mproc_process_pid(me), getpid());
    assert_int_equal(mproc_process_parent_pid(), 0);
    assert_true(mproc_process_is_alive(me));
    assert_false(mproc_process_daemon(me));
    assert_err(mproc_process_join(me, MPROC_FOREVER), MPROC_EDEADLK);
    assert_err(mproc_process_terminate(me), MPROC_EPERM);
    mproc_process_free(me);
    assert_ptr_equal(mproc_process_current(), me);
    assert_int_equal(test_wait_exit(test_fork(forks_plainly, me)), 17);
}

static int is_a_stranger(void *arg)
{
    mproc_process *const *p = ((struct note *)arg)->process;
    int code;
    be_strict();
    for (int i = 0; i < 3; i++) {
        bool begun = i > 0, runs = i == 1;
        assert_err(mproc_process_start(p[i]), MPROC_EPERM);
        assert_err(mproc_process_join(p[i], MPROC_NOWAIT), MPROC_EPERM);
        assert_err(mproc_process_exitcode(p[i], &code), MPROC_EPERM);
        assert_err(mproc_process_terminate(p[i]), MPROC_EPERM);
        assert_err(mproc_process_kill(p[i]), MPROC_EPERM);
        assert_err(mproc_process_interrupt(p[i]), MPROC_EPERM);
        assert_err(mproc_process_fd(p[i]), MPROC_EPERM);
        mproc_process_free(p[i]);
        assert_int_equal(mproc_process_pid(p[i]) != 0, begun);
        assert_int_equal(strncmp(mproc_process_name(p[i]), "Process-", 8), 0);
        assert_int_equal(mproc_process_is_alive(p[i]), runs);
    }
    return 17;
}

static void strangers_may_look_but_not_touch(void **state)
{
    (void)state;
    struct note note = {.number = 0};
    note.process[0] = made(ends_at_once, &nothing);
    note.process[1] = started_endless();
    note.process[2] = started(ends_at_once, &nothing);
    assert_int_equal(code_of(note.process[2]), 0);
    assert_int_equal(test_wait_exit(test_fork(is_a_stranger, &note)), 17);
    if (!by_thread()) {
        assert_int_equal(run(is_a_stranger, &note), 17);
    }
    end(note.process[1]);
    mproc_process_free(note.process[0]);
    mproc_process_free(note.process[2]);
}

static int leaves_a_handle(void *arg)
{
    const struct note *note = arg;
    be_strict();
    how = note->number;
    mproc_process *left = started(ends_at_once, &nothing);
    *(mproc_process **)note->text = left;
    assert_int_equal(code_of(left), 0);
    return 0;
}

static void a_handle_outlives_its_maker_until_it_is_freed(void **state)
{
    (void)state;
    if (by_thread()) {
        skip(); /* its maker is this process */
    }
    struct note note = {.number = how, .text = mproc_calloc(1, 64)};
    assert_int_equal(run(leaves_a_handle, &note), 0);
    mproc_process *left = *(mproc_process **)note.text;
    assert_true(mproc_process_pid(left) > 0);
    assert_false(mproc_process_is_alive(left));
    assert_err(mproc_process_join(left, MPROC_NOWAIT), MPROC_EPERM);
    mproc_process_free(left);
    expect_no_handle(left);
    mproc_free(note.text);
}

/* ---- many ------------------------------------------------------------- */

static void active_children_are_those_that_run(void **state)
{
    (void)state;
    mproc_process *p[3], *active[4] = {NULL};
    for (int i = 0; i < 3; i++) {
        p[i] = started_endless();
    }
    assert_int_equal(mproc_active_children(NULL, 0), 3);
    assert_int_equal(mproc_active_children(active, 1), 3);
    assert_null(active[1]);
    assert_int_equal(mproc_active_children(active, 4), 3);
    assert_memory_equal(active, p, sizeof p);
    mproc_process *gone = started(ends_at_once, &nothing);
    assert_ok(mproc_process_join(gone, TEST_BOUND));
    assert_int_equal(mproc_active_children(active, 4), 3);
    assert_memory_equal(active, p, sizeof p);
    mproc_process_free(gone);
    for (int i = 0; i < 3; i++) {
        end(p[i]);
    }
    assert_int_equal(mproc_active_children(active, 4), 0);
}

static void active_children_joins_those_that_have_ended(void **state)
{
    (void)state;
    mproc_process *p = started(ends_at_once, &nothing);
    struct pollfd ended = {.fd = mproc_process_fd(p), .events = POLLIN};
    assert_int_equal(poll(&ended, 1, 30000), 1);
    assert_int_equal(mproc_active_children(NULL, 0), 0);
    assert_int_equal(waitpid(mproc_process_pid(p), NULL, WNOHANG), -1);
    assert_int_equal(code_of(p), 0);
    mproc_process_free(p);
}

enum { JOINERS = 16, JOINED = 30 };
static mproc_process *crowd[JOINED];

static void *joins_all(void *arg)
{
    int *known = arg;
    for (int i = 0; i < JOINED; i++) {
        int code;
        *known += mproc_process_join(crowd[i], TEST_BOUND) == 0 &&
                  mproc_process_exitcode(crowd[i], &code) == 0 && code == i;
    }
    return NULL;
}

static void all_who_join_know_the_exit_code(void **state)
{
    (void)state;
    pthread_t threads[JOINERS];
    int known[JOINERS] = {0}, sum = 0;
    for (int i = 0; i < JOINED; i++) {
        struct note note = {.number = i};
        crowd[i] = started(ends_with, &note);
    }
    for (int i = 0; i < JOINERS; i++) {
        assert_int_equal(
            pthread_create(&threads[i], NULL, joins_all, &known[i]), 0);
    }
    for (int i = 0; i < JOINERS; i++) {
        pthread_join(threads[i], NULL);
        sum += known[i];
    }
    assert_int_equal(sum, JOINERS * JOINED);
    for (int i = 0; i < JOINED; i++) {
        mproc_process_free(crowd[i]);
    }
}

static void *starts_and_joins(void *arg)
{
    int *good = arg;
    for (int i = 0; i < 20; i++) {
        mproc_process *p;
        int code;
        struct note note = {.number = i};
        mproc_process_opts opts = {.start = how, .arg_size = sizeof note};
        *good += mproc_process_new(&p, ends_with, &note, &opts) == 0 &&
                 mproc_process_start(p) == 0 &&
                 mproc_process_join(p, TEST_BOUND) == 0 &&
                 mproc_process_exitcode(p, &code) == 0 && code == i;
        mproc_process_free(p);
    }
    return NULL;
}

static void threads_may_start_processes_at_once(void **state)
{
    (void)state;
    pthread_t threads[4];
    int good[4] = {0};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(
            pthread_create(&threads[i], NULL, starts_and_joins, &good[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(good[i], 20);
    }
}

static void *starts_and_joins_when_cancelled(void *arg)
{
    int *code = arg;
    mproc_process *p = started(ends_at_once, &nothing);
    pthread_cancel(pthread_self()); /* acts at the next cancellation point */
    joined(started(ends_at_once, &nothing));
    mproc_process_fd(p);
    mproc_process_is_alive(p);
    mproc_process_join(p, TEST_BOUND);
    mproc_process_exitcode(p, code);
    mproc_process_free(p);
    mproc_active_children(NULL, 0);
    pthread_testcancel();
    *code = 99;
    return NULL;
}

static void no_call_is_a_cancellation_point(void **state)
{
    (void)state;
    int code = 12345;
    pthread_t thread;
    void *result;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    skip(); /* what these put in between is one */
#endif
    assert_int_equal(
        pthread_create(&thread, NULL, starts_and_joins_when_cancelled, &code),
        0);
    pthread_join(thread, &result);
    assert_ptr_equal(result, PTHREAD_CANCELED);
    assert_int_equal(code, 0);
}

/* ---- statuses that others took ---------------------------------------- */

static void a_status_taken_by_another_wait_is_unknown(void **state)
{
    (void)state;
    int code = 99;
    if (!by_own_process()) {
        skip(); /* nobody else can take it */
    }
    mproc_process *p = started(ends_at_once, &nothing);
    assert_int_equal(test_wait_exit(mproc_process_pid(p)), 0);
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_false(mproc_process_is_alive(p));
    assert_err(mproc_process_exitcode(p, &code), MPROC_ECHILD);
    assert_int_equal(code, 99);
    assert_ok(mproc_process_kill(p));
    mproc_process_free(p);
}

static int ignores_its_children(void *arg)
{
    int code = 99;
    (void)arg;
    signal(SIGCHLD, SIG_IGN);
    mproc_process *p = started(ends_at_once, &nothing);
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_false(mproc_process_is_alive(p));
    if (by_own_process()) {
        assert_err(mproc_process_exitcode(p, &code), MPROC_ECHILD);
    } else {
        assert_ok(mproc_process_exitcode(p, &code));
        assert_int_equal(code, 0);
    }
    mproc_process_free(p);
    return 17;
}

static void join_works_where_children_are_ignored(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(ignores_its_children, NULL)), 17);
}

/* ---- descriptors and limits ------------------------------------------- */

static void the_descriptor_is_readable_once_it_has_ended(void **state)
{
    (void)state;
    mproc_process *p = started_endless();
    int fd = mproc_process_fd(p);
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(poll(&ended, 1, 0), 0);
    assert_ok(by_thread() ? mproc_event_set(stop) : mproc_process_kill(p));
    assert_int_equal(poll(&ended, 1, 30000), 1);
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_int_equal(mproc_process_fd(p), fd);
    assert_int_equal(poll(&ended, 1, 0), 1);
    assert_ok(mproc_event_clear(stop));
    mproc_process_free(p);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void a_descriptor_asked_for_late_is_readable_too(void **state)
{
    (void)state;
    mproc_process *p = started(ends_at_once, &nothing);
    assert_int_equal(code_of(p), 0);
    struct pollfd ended = {.fd = mproc_process_fd(p), .events = POLLIN};
    assert_int_equal(poll(&ended, 1, 0), 1);
    mproc_process_free(p);
    assert_int_equal(fcntl(ended.fd, F_GETFD), -1);
}

static int counts_its_descriptors(void *arg)
{
    return test_open_fds() - ((const struct note *)arg)->number;
}

static void processes_cost_one_descriptor_while_they_run(void **state)
{
    (void)state;
    mproc_process *p[10];
    struct note note = {.number = test_open_fds()};
    for (int i = 0; i < 10; i++) {
        p[i] = started_endless();
    }
    assert_true(test_open_fds() <= note.number + 10);
    if (how == MPROC_START_FORK) {
        assert_int_equal(run(counts_its_descriptors, &note), 0);
    }
    for (int i = 0; i < 10; i++) {
        stop_it(p[i]);
    }
    assert_int_equal(test_open_fds(), note.number);
    for (int i = 0; i < 10; i++) {
        mproc_process_free(p[i]);
    }
    assert_int_equal(test_open_fds(), note.number);
    if (how <= MPROC_START_THREAD) { /* later the forkserver is there */
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
    }
}

/* What the limit refuses leaves the process as it was: it starts later. */
static void expect_start_refused(int resource, rlim_t limit, int expected)
{
    struct rlimit before, now;
    mproc_process *p = made(ends_at_once, &nothing);
    int fds = test_open_fds();
    getrlimit(resource, &before);
    now = before;
    now.rlim_cur = limit;
    assert_int_equal(setrlimit(resource, &now), 0);
    int err = mproc_process_start(p);
    bool alive = mproc_process_is_alive(p);
    setrlimit(resource, &before);
    assert_err(err, expected);
    assert_false(alive);
    assert_int_equal(test_open_fds(), fds);
    assert_err(mproc_process_join(p, MPROC_NOWAIT), MPROC_EINVAL);
    assert_int_equal(mproc_active_children(NULL, 0), 0);
    assert_ok(mproc_process_start(p));
    assert_int_equal(code_of(p), 0);
    mproc_process_free(p);
}

static void a_start_without_descriptors_is_refused(void **state)
{
    (void)state;
    if (by_thread()) {
        skip(); /* it needs none */
    }
    int lowest = dup(0);
    close(lowest);
    expect_start_refused(RLIMIT_NOFILE, (rlim_t)lowest, MPROC_EMFILE);
}

static int may_not_fork(void *arg)
{
    (void)arg;
    if (setresgid(65534, 65534, 65534) != 0 ||
        setresuid(65534, 65534, 65534) != 0) {
        return 77;
    }
    expect_start_refused(RLIMIT_NPROC, 1, MPROC_EAGAIN);
    return 17;
}

static void a_start_without_processes_is_refused(void **state)
{
    (void)state;
    if (getuid() != 0) {
        skip(); /* the limit must be another user's */
    }
    int code = test_wait_exit(test_fork(may_not_fork, NULL));
    if (code == 77) {
        skip();
    }
    assert_int_equal(code, 17);
}

/* ---- daemons ---------------------------------------------------------- */

static int is_daemonic(void *arg)
{
    mproc_process *p;
    (void)arg;
    be_strict();
    assert_true(mproc_process_daemon(mproc_process_current()));
    for (int by = MPROC_START_FORK; by <= MPROC_START_SPAWN; by++) {
        mproc_process_opts opts = {.start = by};
        assert_ok(mproc_process_new(&p, ends_at_once, NULL, &opts));
        assert_err(mproc_process_start(p), MPROC_EPERM);
        mproc_process_free(p);
    }
    assert_err(mproc_forkserver_start(), MPROC_EPERM);
    return 17;
}

static void a_daemonic_process_may_not_start_children(void **state)
{
    (void)state;
    mproc_process *p;
    mproc_process_opts opts = {.daemon = 1, .start = how};
    assert_ok(mproc_process_new(&p, is_daemonic, NULL, &opts));
    assert_true(mproc_process_daemon(p));
    assert_ok(mproc_process_start(p));
    assert_int_equal(code_of(p), 17);
    mproc_process_free(p);
}

static int waits_and_looks(void *arg)
{
    const struct note *note = arg;
    be_strict();
    assert_ok(mproc_event_wait(note->event, TEST_BOUND));
    mproc_process *me = mproc_process_current();
    assert_string_equal(mproc_process_name(me), "runs on");
    assert_int_equal(mproc_process_pid(me), getpid());
    assert_true(mproc_process_is_alive(me));
    assert_int_equal(note->number, 23);
    *note->count = 17;
    mproc_event_clear(note->event);
    return 17;
}

static void a_process_freed_while_it_runs_runs_on(void **state)
{
    (void)state;
    struct note note = {.number = 23, .count = mproc_calloc(1, sizeof(int))};
    mproc_process *p;
    mproc_process_opts opts = {
        .name = "runs on", .start = how, .arg_size = sizeof note};
    assert_ok(mproc_event_new(&note.event));
    assert_ok(mproc_process_new(&p, waits_and_looks, &note, &opts));
    assert_ok(mproc_process_start(p));
    mproc_process_free(p);
    expect_no_handle(p);
    assert_int_equal(mproc_active_children(NULL, 0), 0);
    assert_ok(mproc_event_set(note.event));
    while (mproc_event_is_set(note.event)) {
        sched_yield();
    }
    assert_int_equal(*note.count, 17);
    joined(started(ends_at_once, &nothing)); /* which forgets the other one */
    mproc_event_free(note.event);
    mproc_free((void *)note.count);
}

static int makes_a_child(void *arg)
{
    const struct note *note = arg;
    struct note less = {.number = note->number - 1, .count = note->count};
    be_strict();
    ++*note->count;
    how = MPROC_START_FORK + note->number % 4;
    return note->number == 0 ? 0 : run(makes_a_child, &less);
}

static void children_start_children_by_any_method(void **state)
{
    (void)state;
    struct note note = {.number = 8, .count = mproc_calloc(1, sizeof(int))};
    int before = how;
    assert_int_equal(run(makes_a_child, &note), 0);
    how = before; /* threads have changed it */
    assert_int_equal(*note.count, 9);
    mproc_free((void *)note.count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_knows_itself_and_its_parent),
        cmocka_unit_test(the_first_process_has_a_handle_too),
        cmocka_unit_test(strangers_may_look_but_not_touch),
        cmocka_unit_test(a_handle_outlives_its_maker_until_it_is_freed),
        cmocka_unit_test(active_children_are_those_that_run),
        cmocka_unit_test(active_children_joins_those_that_have_ended),
        cmocka_unit_test(all_who_join_know_the_exit_code),
        cmocka_unit_test(threads_may_start_processes_at_once),
        cmocka_unit_test(no_call_is_a_cancellation_point),
        cmocka_unit_test(a_status_taken_by_another_wait_is_unknown),
        cmocka_unit_test(join_works_where_children_are_ignored),
        cmocka_unit_test(the_descriptor_is_readable_once_it_has_ended),
        cmocka_unit_test(a_descriptor_asked_for_late_is_readable_too),
        cmocka_unit_test(processes_cost_one_descriptor_while_they_run),
        cmocka_unit_test(a_start_without_descriptors_is_refused),
        cmocka_unit_test(a_start_without_processes_is_refused),
        cmocka_unit_test(a_daemonic_process_may_not_start_children),
        cmocka_unit_test(a_process_freed_while_it_runs_runs_on),
        cmocka_unit_test(children_start_children_by_any_method),
    };
    return run_for_each_method("processes", tests);
}
