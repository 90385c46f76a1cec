/* SPDX-License-Identifier: MIT */
/* How whole programs end that have started processes, by each method. */
#include "process_end.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

/* ---- in the programs -------------------------------------------------- */

static int sleeps_not(void *arg)
{
    (void)arg;
    return 0;
}

static int leaves_a_child_running(void)
{
    mproc_process *p = started(says_when_told, "child ", 0);
    mproc_process_free(started(says_when_told, "freed ", 0));
    bool alive = mproc_process_is_alive(p);
    say("main ");
    return alive ? 4 : 5;
}

static int leaves_threads_running(void)
{
    started_thread(sleeps, "", 1); /* ends with the process */
    started_thread(says_when_told, "thread ", 0);
    say("main ");
    return 4;
}

static int exits_when_told(void *arg)
{
    await_order();
    exit(atoi(((const struct note *)arg)->text));
}

static int has_a_thread_that_exits(void)
{
    mproc_process *p = started_thread(exits_when_told, "4", 0);
    say("main ");
    mproc_process_join(p, MPROC_FOREVER);
    return 5; /* not reached: the thread has ended the process */
}

static int has_a_thread(void *arg)
{
    started_thread(says_when_told, ((const struct note *)arg)->text, 0);
    say("child ");
    return 0;
}

static int has_a_child_with_a_thread(void)
{
    started(has_a_thread, "thread ", 0);
    return 4;
}

static int is_obstinate(void *arg)
{
    signal(SIGTERM, SIG_IGN);
    mproc_event_set(((const struct note *)arg)->ready);
    return sleeps(NULL);
}

static volatile sig_atomic_t was_asked;

static void on_term(int sig)
{
    was_asked = sig;
}

static int ends_when_asked(void *arg)
{
    sigset_t term, before;
    signal(SIGTERM, on_term);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    mproc_event_set(((const struct note *)arg)->ready);
    while (!was_asked) {
        sigsuspend(&before);
    }
    say("asked ");
    return 0;
}

static int leaves_daemons(void)
{
    started(sleeps, "", 1);
    started_ready(ends_when_asked);
    return 4;
}

static int leaves_an_obstinate_daemon(void)
{
    started_ready(is_obstinate);
    return 4;
}

static int has_a_daemon_and_a_child(void *arg)
{
    how = atoi(((const struct note *)arg)->text);
    started(sleeps, "", 1);
    started(says_when_told, "grandchild ", 0);
    say("child ");
    return 0;
}

static int leaves_a_family(void)
{
    char method[] = {(char)('0' + how), '\0'};
    started(has_a_daemon_and_a_child, method, 0);
    return 4;
}

/* ---- parents that are killed ------------------------------------------ */

static int is_killed(int daemon)
{
    started(sleeps, "", daemon);
    say("ready ");
    await_order();
    raise(SIGKILL);
    return 0;
}

static int is_killed_with_a_daemon(void)
{
    return is_killed(1);
}

static int is_killed_with_a_child(void)
{
    mproc_process *p = started(says_when_told, "outlived ", 0);
    kill(getpid(), SIGKILL);
    return mproc_process_is_alive(p);
}

static mproc_process *daemon_of_thread;

static int sleeps_once_ready(void *arg)
{
    mproc_event_set(((const struct note *)arg)->ready);
    return sleeps(NULL);
}

static void *starts_a_daemon(void *arg)
{
    daemon_of_thread = started_ready(sleeps_once_ready);
    return arg;
}

static int is_killed_after_its_thread_ended(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, starts_a_daemon, NULL) != 0 ||
        pthread_join(thread, NULL) != 0) {
        return 97;
    }
    /* the daemon would be dead within this time if it hung on the thread */
    bool ended = mproc_process_join(daemon_of_thread, mproc_in_ms(50)) == 0;
    say(ended ? "died with the thread " : "ready ");
    await_order();
    raise(SIGKILL);
    return 0;
}

/* As daemons do by custom; then it has others of its own. */
static int closes_all(void *arg)
{
    (void)arg;
    for (int fd = 3; fd < 32; fd++) {
        close(fd);
    }
    while (eventfd(0, 0) < 16) { /* never readable */
    }
    return sleeps(NULL);
}

enum { CLOSERS = 8 };
static mproc_process *closers[CLOSERS];

static void *starts_closers(void *arg)
{
    for (int i = 0; i < CLOSERS; i++) {
        closers[i] = started(closes_all, "", 1);
    }
    return arg;
}

/* A poll that a stop has interrupted looks at the number anew. */
static int is_killed_with_daemons_that_close_all(void)
{
    pthread_t thread;
    unsigned ended = 0;
    if (pthread_create(&thread, NULL, starts_closers, NULL) != 0 ||
        pthread_join(thread, NULL) != 0) {
        return 97;
    }
    for (int i = 0; i < CLOSERS; i++) {
        ended += mproc_process_join(closers[i], mproc_in_ms(20)) == 0;
        kill(mproc_process_pid(closers[i]), SIGSTOP);
        kill(mproc_process_pid(closers[i]), SIGCONT);
        ended += mproc_process_join(closers[i], mproc_in_ms(20)) == 0;
    }
    say(ended > 0 ? "lost some " : "ready ");
    await_order();
    raise(SIGKILL);
    return 0;
}

static int ends_its_thread(void *arg)
{
    pthread_exit(arg);
}

static void *starts_one_that_ends_its_thread(void *arg)
{
    daemon_of_thread = started(ends_its_thread, "", 1);
    return arg;
}

/* With a thread of the library's beside its own. */
static int has_a_daemon_that_ends_its_thread(void)
{
    int code = 1;
    pthread_t thread;
    if (pthread_create(&thread, NULL, starts_one_that_ends_its_thread, NULL) !=
            0 ||
        pthread_join(thread, NULL) != 0) {
        return 97;
    }
    return mproc_process_join(daemon_of_thread, TEST_BOUND) == 0 &&
                   mproc_process_exitcode(daemon_of_thread, &code) == 0 &&
                   code == 0
               ? 4
               : 5;
}

static void starts_a_child_late(void)
{
    started(says_when_told, "late ", 0);
    say("main ");
}

/* The library's own handler is called before this one. */
static int starts_a_child_in_a_handler(void)
{
    struct note note = {NULL, ""};
    atexit(starts_a_child_late);
    mproc_process *p = started_by(how, sleeps_not, &note, 0);
    mproc_process_join(p, TEST_BOUND);
    return 4;
}

/* ---- without pidfds --------------------------------------------------- */

/* pidfd_open answers ENOSYS from here on, as on an older system. */
static bool forbid_pidfds(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 434, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof code[0], code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

static int has_no_pidfds(void)
{
    if (!forbid_pidfds()) {
        return 77;
    }
    mproc_process *p = started(sleeps, "", 0);
    int fd = mproc_process_fd(p);
    int early = mproc_process_join(p, mproc_in_ms(20));
    int sent = mproc_process_terminate(p);
    int code = code_of(p);
    started(sleeps, "", 1);
    return fd == MPROC_ENOTSUP && early == MPROC_ETIMEDOUT && sent == 0 &&
                   code == -SIGTERM
               ? 4
               : 5;
}

static int is_killed_without_pidfds(void)
{
    return forbid_pidfds() ? is_killed_after_its_thread_ended() : 77;
}

static const struct program programs[] = {
    PROGRAM(leaves_a_child_running),
    PROGRAM(leaves_threads_running),
    PROGRAM(has_a_thread_that_exits),
    PROGRAM(has_a_child_with_a_thread),
    PROGRAM(leaves_daemons),
    PROGRAM(leaves_an_obstinate_daemon),
    PROGRAM(leaves_a_family),
    PROGRAM(is_killed_with_a_daemon),
    PROGRAM(is_killed_with_a_child),
    PROGRAM(is_killed_after_its_thread_ended),
    PROGRAM(is_killed_with_daemons_that_close_all),
    PROGRAM(has_a_daemon_that_ends_its_thread),
    PROGRAM(starts_a_child_in_a_handler),
    PROGRAM(has_no_pidfds),
    PROGRAM(is_killed_without_pidfds),
};

/* ---- in the tests ----------------------------------------------------- */

static void a_program_ends_after_its_children(void **state)
{
    (void)state;
    struct run run = run_program("leaves_a_child_running");
    expect_said(&run, "main ");
    assert_false(has_ended(run.pid));
    give_order(&run);
    int code = test_wait_exit(run.pid);
    end_of_all(&run); /* nobody was alive any more: no wait */
    assert_int_equal(code, 4);
    assert_int_equal(run.size, strlen("main child freed "));
    assert_non_null(strstr(run.text, "child "));
    assert_non_null(strstr(run.text, "freed "));
}

static void a_program_ends_after_its_threads(void **state)
{
    (void)state;
    struct run run = run_program("leaves_threads_running");
    expect_said(&run, "main ");
    assert_false(has_ended(run.pid));
    expect_end(&run, "main thread ", 4);
}

static void a_thread_that_exits_ends_its_process(void **state)
{
    (void)state;
    struct run run = run_program("has_a_thread_that_exits");
    expect_said(&run, "main ");
    expect_end(&run, "main ", 4);
}

static void a_child_ends_after_its_threads(void **state)
{
    (void)state;
    struct run run = run_program("has_a_child_with_a_thread");
    expect_said(&run, "child ");
    assert_false(has_ended(run.pid));
    expect_end(&run, "child thread ", 4);
}

static void a_program_asks_its_daemons_to_end(void **state)
{
    (void)state;
    struct run run = run_program("leaves_daemons");
    expect_end(&run, "asked ", 4);
}

static void a_program_ends_daemons_that_do_not_listen(void **state)
{
    (void)state;
    struct run run = run_program("leaves_an_obstinate_daemon");
    expect_end(&run, "", 4);
}

static void a_child_ends_its_own_children(void **state)
{
    (void)state;
    struct run run = run_program("leaves_a_family");
    expect_said(&run, "child ");
    assert_false(has_ended(run.pid));
    expect_end(&run, "child grandchild ", 4);
}

static void a_daemon_dies_with_its_killed_parent(void **state)
{
    (void)state;
    struct run run = run_program("is_killed_with_a_daemon");
    expect_end(&run, "ready ", -SIGKILL);
}

static void a_daemon_does_not_die_with_the_thread_that_started_it(void **state)
{
    (void)state;
    struct run run = run_program("is_killed_after_its_thread_ended");
    expect_end(&run, "ready ", -SIGKILL);
}

static void other_children_outlive_a_killed_parent(void **state)
{
    (void)state;
    struct run run = run_program("is_killed_with_a_child");
    int code = test_wait_exit(run.pid);
    end_of_all(&run);
    assert_string_equal(run.text, "outlived ");
    assert_int_equal(code, -SIGKILL);
}

static void daemons_may_close_all_descriptors(void **state)
{
    (void)state;
    struct run run = run_program("is_killed_with_daemons_that_close_all");
    expect_end(&run, "ready ", -SIGKILL);
}

static void a_daemon_may_end_its_thread(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* it has a thread of its own */
#endif
    struct run run = run_program("has_a_daemon_that_ends_its_thread");
    expect_end(&run, "", 4);
}

static void a_program_ends_after_children_of_its_exit_handlers(void **state)
{
    (void)state;
    struct run run = run_program("starts_a_child_in_a_handler");
    expect_said(&run, "main ");
    assert_false(has_ended(run.pid));
    give_order(&run);
    int code = test_wait_exit(run.pid);
    end_of_all(&run);
    assert_string_equal(run.text, "main late ");
    assert_int_equal(code, 4);
}

static void all_works_without_pidfds(void **state)
{
    (void)state;
    struct run run = run_program("has_no_pidfds");
    expect_end(&run, "", 4);
}

static void daemons_end_with_their_parent_without_pidfds(void **state)
{
    (void)state;
    struct run run = run_program("is_killed_without_pidfds");
    expect_end(&run, "ready ", -SIGKILL);
}

int main(int argc, char **argv)
{
    run_as_program(programs, argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_ends_after_its_children),
        cmocka_unit_test(a_program_ends_after_its_threads),
        cmocka_unit_test(a_thread_that_exits_ends_its_process),
        cmocka_unit_test(a_child_ends_after_its_threads),
        cmocka_unit_test(a_program_asks_its_daemons_to_end),
        cmocka_unit_test(a_program_ends_daemons_that_do_not_listen),
        cmocka_unit_test(a_child_ends_its_own_children),
        cmocka_unit_test(a_daemon_dies_with_its_killed_parent),
        cmocka_unit_test(a_daemon_does_not_die_with_the_thread_that_started_it),
        cmocka_unit_test(other_children_outlive_a_killed_parent),
        cmocka_unit_test(daemons_may_close_all_descriptors),
        cmocka_unit_test(a_daemon_may_end_its_thread),
        cmocka_unit_test(a_program_ends_after_children_of_its_exit_handlers),
        cmocka_unit_test(all_works_without_pidfds),
        cmocka_unit_test(daemons_end_with_their_parent_without_pidfds),
    };
    return run_for_each_process("process_end", tests);
}
