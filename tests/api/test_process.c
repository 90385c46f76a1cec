/* SPDX-License-Identifier: MIT */
/* One process: its life, its name and its argument. */
#include "process_support.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

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
    };
    return run_for_each_method("process", tests);
}
