/* SPDX-License-Identifier: MIT */
/* The forkserver: what becomes of others when it is killed or stopped. */
#include "test.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* The one child that this process has for the system; 0: none. */
static pid_t server_pid(void)
{
    pid_t found = 0;
    DIR *all = opendir("/proc");
    for (struct dirent *e; found == 0 && (e = readdir(all)) != NULL;) {
        pid_t pid = atoi(e->d_name); /* 0: no process */
        found = pid > 0 && test_stat_of(pid).parent == getpid() ? pid : 0;
    }
    closedir(all);
    return found;
}

struct note {
    int number;
    _Atomic int *count;
    mproc_event *event;
};

static int counts(void *arg)
{
    const struct note *note = arg;
    if (note->count != NULL) {
        ++*note->count;
    }
    return note->number;
}

static int waits(void *arg)
{
    const struct note *note = arg;
    return mproc_event_wait(note->event, TEST_BOUND) == 0 ? 17 : 18;
}

static int daemonic; /* of those that are made */

static mproc_process *made(mproc_main_fn *fn, const struct note *note)
{
    mproc_process *p;
    mproc_process_opts opts = {.start = MPROC_START_FORKSERVER,
                               .daemon = daemonic,
                               .arg_size = sizeof *note};
    assert_ok(mproc_process_new(&p, fn, (void *)note, &opts));
    return p;
}

static mproc_process *started(mproc_main_fn *fn, const struct note *note)
{
    mproc_process *p = made(fn, note);
    assert_ok(mproc_process_start(p));
    return p;
}

static int code_of(mproc_process *p)
{
    int code = 12345;
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_ok(mproc_process_exitcode(p, &code));
    mproc_process_free(p);
    return code;
}

static void it_is_started_once(void **state)
{
    (void)state;
    assert_int_equal(server_pid(), 0);
    assert_ok(mproc_forkserver_start());
    pid_t server = server_pid();
    int fds = test_open_fds();
    assert_ok(mproc_forkserver_start());
    assert_int_equal(test_open_fds(), fds);
    struct note note = {.number = 5};
    assert_int_equal(code_of(started(counts, &note)), 5);
    assert_int_equal(server_pid(), server);
    assert_int_equal(mproc_active_children(NULL, 0), 0);
}

static void its_children_run_on_when_it_is_killed(void **state)
{
    (void)state;
    int code = 99;
    struct note note = {.number = 5};
    assert_ok(mproc_event_new(&note.event));
    mproc_process *before = started(counts, &note);
    mproc_process *during = started(waits, &note);
    assert_ok(mproc_process_join(before, TEST_BOUND));
    struct pollfd ended = {.fd = mproc_process_fd(during), .events = POLLIN};
    pid_t server = server_pid();
    assert_int_equal(kill(server, SIGKILL), 0);
    mproc_process *after = started(counts, &note); /* by a new one */
    assert_int_not_equal(server_pid(), server);
    assert_true(mproc_process_is_alive(during));
    assert_err(mproc_process_exitcode(during, &code), MPROC_EAGAIN);
    assert_int_equal(poll(&ended, 1, 0), 0);
    assert_ok(mproc_event_set(note.event));
    assert_ok(mproc_process_join(during, TEST_BOUND));
    assert_int_equal(poll(&ended, 1, 0), 1);
    assert_err(mproc_process_exitcode(during, &code), MPROC_ECHILD);
    assert_int_equal(code, 99);
    assert_int_equal(code_of(before), 5);
    assert_int_equal(code_of(after), 5);
    mproc_process_free(during);
    mproc_event_free(note.event);
}

static void its_daemons_run_on_when_it_is_killed(void **state)
{
    daemonic = 1;
    its_children_run_on_when_it_is_killed(state);
    daemonic = 0;
}

static void what_it_told_before_its_death_is_known(void **state)
{
    (void)state;
    struct note note = {.number = 6};
    mproc_process *p = started(counts, &note);
    struct pollfd ended = {.fd = mproc_process_fd(p), .events = POLLIN};
    assert_int_equal(poll(&ended, 1, 30000), 1);
    assert_int_equal(mproc_active_children(NULL, 0), 0); /* it has told */
    assert_int_equal(kill(server_pid(), SIGKILL), 0);
    assert_int_equal(code_of(p), 6);
}

static void *goes_on_later(void *arg)
{
    struct timespec moment = {.tv_nsec = 100000000};
    nanosleep(&moment, NULL);
    kill(*(pid_t *)arg, SIGCONT);
    return NULL;
}

static void what_a_stopped_one_has_to_tell_is_awaited(void **state)
{
    (void)state;
    int code = 99;
    pthread_t thread;
    struct note note = {.number = 6};
    assert_ok(mproc_event_new(&note.event));
    mproc_process *p = started(waits, &note);
    pid_t server = server_pid();
    assert_int_equal(kill(server, SIGSTOP), 0);
    assert_ok(mproc_event_set(note.event));
    assert_err(mproc_process_join(p, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_int_equal(pthread_create(&thread, NULL, goes_on_later, &server), 0);
    assert_ok(mproc_process_join(p, TEST_BOUND));
    pthread_join(thread, NULL);
    assert_ok(mproc_process_exitcode(p, &code));
    assert_int_equal(code, 17);
    mproc_process_free(p);
    mproc_event_free(note.event);
}

static void many_that_end_at_once_are_all_told(void **state)
{
    enum { MANY = 300 };
    static mproc_process *p[MANY];
    (void)state;
    struct note note = {.number = 0};
    assert_ok(mproc_event_new(&note.event));
    for (int i = 0; i < MANY; i++) {
        p[i] = started(waits, &note);
    }
    assert_ok(mproc_event_set(note.event));
    for (int i = MANY; i-- > 0;) {
        assert_int_equal(code_of(p[i]), 17);
    }
    mproc_event_free(note.event);
}

/* ---- under load ------------------------------------------------------- */

enum { STARTERS = 3, KILLS = 40 };

struct tally {
    _Atomic int over;
    _Atomic int started, refused, known, unknown, wrong;
    _Atomic int *ran;
};

static void start_one(struct tally *tally)
{
    int code = 99;
    struct note note = {.number = 7, .count = tally->ran};
    mproc_process *p = made(counts, &note);
    int err = mproc_process_start(p);
    if (err == MPROC_EWORKERLOST) {
        tally->refused++;
    } else if (err < 0 || mproc_process_join(p, TEST_BOUND) != 0) {
        tally->wrong++;
    } else {
        tally->started++;
        err = mproc_process_exitcode(p, &code);
        tally->known += err == 0 && code == 7;
        tally->unknown += err == MPROC_ECHILD;
    }
    mproc_process_free(p);
}

static void *starts_until_over(void *arg)
{
    struct tally *tally = arg;
    while (!tally->over) {
        start_one(tally);
    }
    return NULL;
}

static void kill_servers(void)
{
    for (int kills = 0; kills < KILLS;) {
        pid_t server = server_pid();
        struct timespec moment = {.tv_nsec = (kills * 37 % 50) * 100000};
        nanosleep(&moment, NULL); /* any: to kill it at any moment */
        kills += server != 0 && kill(server, SIGKILL) == 0;
    }
}

static void killed_under_load_it_doubles_and_loses_nothing(void **state)
{
    (void)state;
    pthread_t threads[STARTERS];
    struct tally tally = {.ran = mproc_calloc(1, sizeof(int))};
    for (int i = 0; i < STARTERS; i++) {
        assert_int_equal(
            pthread_create(&threads[i], NULL, starts_until_over, &tally), 0);
    }
    kill_servers();
    tally.over = 1;
    for (int i = 0; i < STARTERS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(tally.wrong, 0);
    assert_int_equal(tally.known + tally.unknown, tally.started);
    assert_int_equal(*tally.ran, tally.started);
    assert_true(tally.started > 0);
    assert_int_equal(mproc_active_children(NULL, 0), 0);
    struct note note = {.number = 5};
    assert_int_equal(code_of(started(counts, &note)), 5);
    mproc_free((void *)tally.ran);
}

static int has_a_server(void *arg)
{
    (void)arg;
    struct note note = {.number = 5};
    int code = code_of(started(counts, &note));
    return server_pid() != 0 ? code : 6;
}

/* As this program's, by fork: it has a server of its own, or none. */
static void a_child_has_a_server_of_its_own(void **state)
{
    (void)state;
    pid_t mine = server_pid();
    assert_int_not_equal(mine, 0);
    assert_int_equal(test_wait_exit(test_fork(has_a_server, NULL)), 5);
    assert_int_equal(server_pid(), mine);
    struct note note = {.number = 6};
    assert_int_equal(code_of(started(counts, &note)), 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_started_once),
        cmocka_unit_test(its_children_run_on_when_it_is_killed),
        cmocka_unit_test(its_daemons_run_on_when_it_is_killed),
        cmocka_unit_test(what_it_told_before_its_death_is_known),
        cmocka_unit_test(what_a_stopped_one_has_to_tell_is_awaited),
        cmocka_unit_test(many_that_end_at_once_are_all_told),
        cmocka_unit_test(killed_under_load_it_doubles_and_loses_nothing),
        cmocka_unit_test(a_child_has_a_server_of_its_own),
    };
    return cmocka_run_group_tests_name("forkserver", tests, NULL, NULL);
}
