/* SPDX-License-Identifier: MIT */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * Every test is run for every start method. Children get what they need in
 * their argument, which is copied, and answer in memory of the shared heap.
 */
static int how;

static bool by_thread(void)
{
    return how == MPROC_START_THREAD;
}

/* Known to the system as a child of this process. */
static bool by_own_process(void)
{
    return how == MPROC_START_FORK || how == MPROC_START_SPAWN;
}

/* ---- what children do ------------------------------------------------- */

/* What is passed to most children. */
struct note {
    int number;
    pid_t pid;
    mproc_event *event;
    mproc_process *process[3];
    _Atomic int *count; /* the rest lies in the shared heap */
    char *text;
};

static struct note nothing;

static int ends_with(void *arg)
{
    return ((const struct note *)arg)->number;
}

static int ends_at_once(void *arg)
{
    (void)arg;
    return 0;
}

static mproc_event *stop; /* what the longest-lived wait for */

static int never_ends(void *arg)
{
    const struct note *note = arg;
    while (mproc_event_wait(note->event, MPROC_FOREVER) != 0) {
    }
    return 0;
}

/* A failed assertion in a child must not go on with the tests there. */
static void be_strict(void)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1);
}

static mproc_process *made(mproc_main_fn *fn, const struct note *note)
{
    mproc_process *p;
    mproc_process_opts opts = {.start = how, .arg_size = sizeof *note};
    assert_ok(mproc_process_new(&p, fn, (void *)note, &opts));
    return p;
}

static mproc_process *started(mproc_main_fn *fn, const struct note *note)
{
    mproc_process *p = made(fn, note);
    assert_ok(mproc_process_start(p));
    return p;
}

static mproc_process *started_endless(void)
{
    struct note note = {.event = stop};
    return started(never_ends, &note);
}

static void joined(mproc_process *p)
{
    assert_ok(mproc_process_join(p, TEST_BOUND));
    mproc_process_free(p);
}

static int code_of(mproc_process *p)
{
    int code = 12345;
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_ok(mproc_process_exitcode(p, &code));
    return code;
}

/* The exit code of a new process that runs fn. */
static int run(mproc_main_fn *fn, const struct note *note)
{
    mproc_process *p = started(fn, note);
    int code = code_of(p);
    mproc_process_free(p);
    return code;
}

/* Make an endless one end. */
static void stop_it(mproc_process *p)
{
    if (!by_thread()) {
        assert_ok(mproc_process_kill(p));
        assert_ok(mproc_process_join(p, TEST_BOUND));
    } else if (mproc_process_is_alive(p)) {
        assert_ok(mproc_event_set(stop));
        assert_ok(mproc_process_join(p, TEST_BOUND));
        assert_ok(mproc_event_clear(stop));
    }
}

static void end(mproc_process *p)
{
    stop_it(p);
    mproc_process_free(p);
}

/* ---- a life ----------------------------------------------------------- */

static int tells_its_pid(void *arg)
{
    *((const struct note *)arg)->count = getpid();
    return 0;
}

static void a_process_runs_the_function_elsewhere(void **state)
{
    (void)state;
    struct note note = {.count = mproc_calloc(1, sizeof(int))};
    mproc_process *p = made(tells_its_pid, &note);
    assert_int_equal(mproc_process_pid(p), 0);
    assert_false(mproc_process_is_alive(p));
    assert_ok(mproc_process_start(p));
    assert_int_equal(mproc_process_pid(p) == getpid(), by_thread());
    assert_int_equal(code_of(p), 0);
    assert_int_equal(*note.count, mproc_process_pid(p));
    assert_false(mproc_process_is_alive(p));
    mproc_process_free(p);
    mproc_free((void *)note.count);
}

static int exits(void *arg)
{
    exit(((const struct note *)arg)->number);
}

static int dies(void *arg)
{
    raise(((const struct note *)arg)->number);
    return 1;
}

static int aborts(void *arg)
{
    (void)arg;
    abort();
}

static void *exits_in_a_thread(void *arg)
{
    exit(((const struct note *)arg)->number);
}

static int exits_by_another_thread(void *arg)
{
    pthread_t thread;
    pthread_create(&thread, NULL, exits_in_a_thread, arg);
    pthread_join(thread, NULL);
    return 1;
}

#ifndef __SANITIZE_THREAD__ /* such a process never ends under it */
static int ends_its_only_thread(void *arg)
{
    pthread_exit(arg);
}
#endif

static void the_exit_code_tells_how_it_ended(void **state)
{
    (void)state;
    const struct {
        mproc_main_fn *fn;
        int arg;
        int code;
    } ends[] = {
        {ends_with, 0, 0},
        {ends_with, 7, 7},
        {ends_with, 255, 255},
        {ends_with, 256, 0},
        {ends_with, 300, 44},
        {ends_with, -1, 255},
#ifndef __SANITIZE_THREAD__
        {ends_its_only_thread, 3, 0},
#endif
        /* no thread */
        {exits, 5, 5},
        {exits, 300, 44},
        {exits_by_another_thread, 9, 9},
        {dies, SIGKILL, -SIGKILL},
        {dies, SIGTERM, -SIGTERM},
        {aborts, 0, -SIGABRT},
    };
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct note note = {.number = ends[i].arg};
        if (by_thread() && ends[i].fn == exits) {
            break;
        }
        assert_int_equal(run(ends[i].fn, &note), ends[i].code);
    }
}

static void join_may_be_repeated(void **state)
{
    (void)state;
    mproc_process *p = started(ends_at_once, &nothing);
    assert_ok(mproc_process_join(p, MPROC_FOREVER));
    assert_ok(mproc_process_join(p, MPROC_NOWAIT));
    assert_int_equal(code_of(p), 0);
    mproc_process_free(p);
}

static void join_gives_up_at_its_deadline(void **state)
{
    (void)state;
    int code = 99;
    mproc_process *p = started_endless();
    assert_err(mproc_process_join(p, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    assert_err(mproc_process_join(p, mproc_in_ms(20)), MPROC_ETIMEDOUT);
    assert_err(mproc_process_join(p, mproc_in_ms(-1)), MPROC_ETIMEDOUT);
    assert_err(mproc_process_exitcode(p, &code), MPROC_EAGAIN);
    assert_int_equal(code, 99);
    assert_true(mproc_process_is_alive(p));
    end(p);
}

static _Atomic int *alarms;

static void count_alarm(int sig)
{
    (void)sig;
    (*alarms)++;
}

static int ends_after_ten_alarms(void *arg)
{
    struct timespec moment = {.tv_nsec = 1000000};
    while (*((const struct note *)arg)->count < 10) {
        nanosleep(&moment, NULL);
    }
    return 0;
}

static void signals_do_not_end_a_join(void **state)
{
    (void)state;
    struct sigaction act = {.sa_handler = count_alarm}, before;
    struct itimerval each = {{0, 2000}, {0, 2000}}, none = {{0, 0}, {0, 0}};
    struct note note = {.count = mproc_calloc(1, sizeof(int))};
    alarms = note.count;
    sigaction(SIGALRM, &act, &before);
    mproc_process *p = started(ends_after_ten_alarms, &note);
    setitimer(ITIMER_REAL, &each, NULL);
    assert_ok(mproc_process_join(p, TEST_BOUND));
    setitimer(ITIMER_REAL, &none, NULL);
    assert_true(*alarms >= 10);
    sigaction(SIGALRM, &before, NULL);
    mproc_process_free(p);
    mproc_free((void *)note.count);
}

static void signals_sent_to_a_process_end_it(void **state)
{
    (void)state;
    const struct {
        int (*send)(mproc_process *);
        int code;
    } ways[] = {
        {mproc_process_terminate, -SIGTERM},
        {mproc_process_kill, -SIGKILL},
        {mproc_process_interrupt, -SIGINT},
    };
    if (by_thread()) {
        skip();
    }
    for (size_t i = 0; i < 3; i++) {
        mproc_process *p = started_endless();
        assert_ok(ways[i].send(p));
        assert_int_equal(code_of(p), ways[i].code);
        assert_ok(ways[i].send(p));
        assert_int_equal(code_of(p), ways[i].code);
        mproc_process_free(p);
    }
}

/* ---- the caller's slips ----------------------------------------------- */

static void calls_before_the_start_are_refused(void **state)
{
    (void)state;
    int code;
    mproc_process *p = made(ends_at_once, &nothing);
    assert_err(mproc_process_join(p, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_process_exitcode(p, &code), MPROC_EINVAL);
    assert_err(mproc_process_terminate(p), MPROC_EINVAL);
    assert_err(mproc_process_kill(p), MPROC_EINVAL);
    assert_err(mproc_process_interrupt(p), MPROC_EINVAL);
    assert_err(mproc_process_fd(p), MPROC_EINVAL);
    assert_false(mproc_process_is_alive(p));
    assert_int_equal(mproc_active_children(NULL, 0), 0);
    mproc_process_free(p);
}

static void a_process_is_started_once(void **state)
{
    (void)state;
    mproc_process *p = started(ends_at_once, &nothing);
    assert_err(mproc_process_start(p), MPROC_EINVAL);
    assert_int_equal(code_of(p), 0);
    assert_err(mproc_process_start(p), MPROC_EINVAL);
    mproc_process_free(p);
}

static void expect_no_handle(mproc_process *p)
{
    int code;
    assert_err(mproc_process_start(p), MPROC_EINVAL);
    assert_err(mproc_process_join(p, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_process_exitcode(p, &code), MPROC_EINVAL);
    assert_err(mproc_process_terminate(p), MPROC_EINVAL);
    assert_err(mproc_process_kill(p), MPROC_EINVAL);
    assert_err(mproc_process_interrupt(p), MPROC_EINVAL);
    assert_err(mproc_process_fd(p), MPROC_EINVAL);
    assert_false(mproc_process_is_alive(p));
    assert_false(mproc_process_daemon(p));
    assert_int_equal(mproc_process_pid(p), 0);
    assert_string_equal(mproc_process_name(p), "");
    mproc_process_free(p);
}

static void what_is_no_handle_is_told(void **state)
{
    (void)state;
    char foreign[512] = "";
    expect_no_handle(NULL);
    expect_no_handle((mproc_process *)foreign);
    mproc_process *p = started(ends_at_once, &nothing);
    joined(p);
    expect_no_handle(p);
}

static void new_refuses_what_it_cannot_make(void **state)
{
    (void)state;
    mproc_process *p = NULL;
    struct {
        mproc_process_opts known;
        int later;
    } future = {.later = 1};
    mproc_process_opts sized = {.arg_size = 4, .start = how};
    assert_err(mproc_process_new(NULL, ends_at_once, NULL, NULL), MPROC_EINVAL);
    assert_err(mproc_process_new(&p, NULL, NULL, NULL), MPROC_EINVAL);
    assert_err(mproc_process_new(&p, ends_at_once, NULL, &sized), MPROC_EINVAL);
    mproc_process_opts unsized = {.start = how}, absurd = {.start = 4};
    if (how == MPROC_START_SPAWN || how == MPROC_START_FORKSERVER) {
        assert_err(mproc_process_new(&p, ends_at_once, &p, &unsized),
                   MPROC_EINVAL);
    }
    assert_err(mproc_process_new(&p, ends_at_once, NULL, &absurd),
               MPROC_EINVAL);
    assert_err(mproc_process_new_sized(&p, ends_at_once, NULL, &future.known,
                                       sizeof future),
               MPROC_ENOTSUP);
    assert_null(p);
    assert_err(mproc_process_exitcode(NULL, NULL), MPROC_EINVAL);
}

/* ---- names and arguments ---------------------------------------------- */

enum { TEXT_SIZE = 1024 };

static int tells_default_names(void *arg)
{
    const struct note *note = arg;
    mproc_process *first, *second;
    be_strict();
    assert_ok(mproc_process_new(&first, ends_at_once, NULL, NULL));
    assert_ok(mproc_process_new(&second, ends_at_once, NULL, NULL));
    const char *mine = mproc_process_name(mproc_process_current());
    snprintf(note->text, TEXT_SIZE, "%s %s %s", mine, mproc_process_name(first),
             strrchr(mproc_process_name(second), ':'));
    mproc_process_free(first);
    mproc_process_free(second);
    return 0;
}

static unsigned ordinal_of(const mproc_process *p)
{
    unsigned ordinal = 0;
    assert_int_equal(sscanf(mproc_process_name(p), "Process-%u", &ordinal), 1);
    return ordinal;
}

static void names_count_the_children(void **state)
{
    (void)state;
    char expected[TEXT_SIZE];
    struct note note = {.text = mproc_calloc(1, TEXT_SIZE)};
    mproc_process *a = made(tells_default_names, &note);
    mproc_process *b = made(ends_at_once, &nothing);
    unsigned n = ordinal_of(a);
    assert_int_equal(ordinal_of(b), n + 1);
    assert_ok(mproc_process_start(a));
    assert_int_equal(code_of(a), 0);
    /* threads count on with their process */
    if (!by_thread()) {
        snprintf(expected, sizeof expected, "Process-%u Process-%u:1 :2", n, n);
        assert_string_equal(note.text, expected);
    }
    mproc_process_free(a);
    mproc_process_free(b);
    mproc_free(note.text);
}

static void a_name_is_copied_and_cut_between_characters(void **state)
{
    (void)state;
    char name[100];
    mproc_process *p;
    mproc_process_opts opts = {.name = name, .start = how};
    strcpy(name, "baker");
    assert_ok(mproc_process_new(&p, ends_at_once, NULL, &opts));
    strcpy(name, "other");
    assert_string_equal(mproc_process_name(p), "baker");
    mproc_process_free(p);

    memset(name, 'x', 99);
    name[99] = '\0';
    memcpy(name + 62, "\xc3\xa4", 2); /* its second byte is one too many */
    assert_ok(mproc_process_new(&p, ends_at_once, NULL, &opts));
    assert_int_equal(strlen(mproc_process_name(p)), 62);
    assert_memory_equal(mproc_process_name(p), name, 62);
    mproc_process_free(p);

    memset(name, 'x', 99);
    assert_ok(mproc_process_new(&p, ends_at_once, NULL, &opts));
    assert_int_equal(strlen(mproc_process_name(p)), 63);
    mproc_process_free(p);
}

static void an_argument_with_a_size_is_copied_when_made(void **state)
{
    (void)state;
    struct note note = {.number = 21};
    mproc_process *p = made(ends_with, &note);
    note.number = 22;
    assert_ok(mproc_process_start(p));
    assert_int_equal(code_of(p), 21);
    mproc_process_free(p);
}

enum { LARGE = 3000001 };

static int sums_up(void *arg)
{
    const unsigned char *byte = arg;
    unsigned sum = 0;
    for (int i = 0; i < LARGE; i++) {
        sum += byte[i];
    }
    return sum == 200U * LARGE ? 17 : 18;
}

static void an_argument_may_be_large(void **state)
{
    (void)state;
    mproc_process *p;
    mproc_process_opts opts = {.start = how, .arg_size = LARGE};
    char *arg = malloc(LARGE);
    memset(arg, 200, LARGE);
    assert_ok(mproc_process_new(&p, sums_up, arg, &opts));
    free(arg);
    assert_ok(mproc_process_start(p));
    assert_int_equal(code_of(p), 17);
    mproc_process_free(p);
}

static int expects_no_argument(void *arg)
{
    return arg == NULL ? 17 : 18;
}

static void no_argument_is_none(void **state)
{
    (void)state;
    mproc_process *p;
    mproc_process_opts opts = {.start = how};
    assert_ok(mproc_process_new(&p, expects_no_argument, NULL, &opts));
    assert_ok(mproc_process_start(p));
    assert_int_equal(code_of(p), 17);
    mproc_process_free(p);
}

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

static int prepare(void **state)
{
    (void)state;
    int err = mproc_event_new(&stop);
    if (err == 0 && how == MPROC_START_FORKSERVER) {
        err = mproc_forkserver_start();
    }
    return err;
}

static int clean_up(void **state)
{
    (void)state;
    mproc_event_free(stop);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_runs_the_function_elsewhere),
        cmocka_unit_test(the_exit_code_tells_how_it_ended),
        cmocka_unit_test(join_may_be_repeated),
        cmocka_unit_test(join_gives_up_at_its_deadline),
        cmocka_unit_test(signals_do_not_end_a_join),
        cmocka_unit_test(signals_sent_to_a_process_end_it),
        cmocka_unit_test(calls_before_the_start_are_refused),
        cmocka_unit_test(a_process_is_started_once),
        cmocka_unit_test(what_is_no_handle_is_told),
        cmocka_unit_test(new_refuses_what_it_cannot_make),
        cmocka_unit_test(names_count_the_children),
        cmocka_unit_test(a_name_is_copied_and_cut_between_characters),
        cmocka_unit_test(an_argument_with_a_size_is_copied_when_made),
        cmocka_unit_test(an_argument_may_be_large),
        cmocka_unit_test(no_argument_is_none),
        cmocka_unit_test(a_child_knows_itself_and_its_parent),
        cmocka_unit_test(the_first_process_has_a_handle_too),
        cmocka_unit_test(strangers_may_look_but_not_touch),
        cmocka_unit_test(a_handle_outlives_its_maker_until_it_is_freed),
        cmocka_unit_test(active_children_are_those_that_run),
        cmocka_unit_test(active_children_joins_those_that_have_ended),
        cmocka_unit_test(all_who_join_know_the_exit_code),
        cmocka_unit_test(threads_may_start_processes_at_once),
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
    const char *const names[] = {"process by fork", "process by thread",
                                 "process by forkserver", "process by spawn"};
    int failed = 0;
    for (how = MPROC_START_FORK; how <= MPROC_START_SPAWN; how++) {
        failed +=
            cmocka_run_group_tests_name(names[how], tests, prepare, clean_up);
    }
    return failed;
}
