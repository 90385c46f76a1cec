/* SPDX-License-Identifier: MIT */
/*
 * What is particular to processes that are no forks of their makers: how they
 * come up, what they have and have not, and what is told when they do not.
 */
#include "program.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* ---- before main, in each process of this program --------------------- */

/*
 * What a process is to do at an early moment: "<what>:<how often>:<address>",
 * in the environment; each time counts the number down there, for the next one.
 */
#define TRAP "TEST_TRAP="

static char *trap_of(char **envp, char what)
{
    for (; *envp != NULL; envp++) {
        size_t size = sizeof TRAP - 1;
        if (strncmp(*envp, TRAP, size) == 0 && (*envp)[size] == what) {
            char *number = *envp + size + 2;
            return *number > '0' ? number : NULL;
        }
    }
    return NULL;
}

/*
 * Before constructors of libraries: even libc is not ready, and an
 * instrumentation knows nothing of it.
 */
__attribute__((no_sanitize("address", "thread"))) static void
very_early(int argc, char **argv, char **envp)
{
    char *trap = trap_of(envp, 'o');
    (void)argc;
    (void)argv;
    if (trap != NULL) { /* occupy an address */
        --*trap;
        void *at = (void *)strtoull(trap + 2, NULL, 16);
        syscall(SYS_mmap, at, 4096, PROT_NONE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    }
    trap = trap_of(envp, 'k');
    if (trap != NULL) {
        --*trap;
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    }
    trap = trap_of(envp, 'w');
    if (trap != NULL) { /* wait for the order */
        char c;
        syscall(SYS_write, STDERR_FILENO, "early ", 6);
        syscall(SYS_read, STDIN_FILENO, &c, 1);
    }
}

__attribute__((section(".preinit_array"),
               used)) static void (*very_early_entry)(int argc, char **argv,
                                                      char **envp) = very_early;

static int constructed;

__attribute__((constructor)) static void construct(void)
{
    constructed = 7;
    if (trap_of(environ, 'c') != NULL) {
        raise(SIGKILL);
    }
}

static void set_trap(const char *trap)
{
    if (trap != NULL) {
        setenv("TEST_TRAP", trap, 1);
    } else {
        unsetenv("TEST_TRAP");
    }
}

/* ---- what children do ------------------------------------------------- */

struct note {
    int number;
    _Atomic int *count;
    mproc_event *event;
    mproc_connection *end;
};

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

static int code_of(mproc_process *p)
{
    int code = 12345;
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_ok(mproc_process_exitcode(p, &code));
    mproc_process_free(p);
    return code;
}

static const struct note nothing;

static int run(mproc_main_fn *fn)
{
    return code_of(started(fn, &nothing));
}

/* A start that fails, after which the process is as before. */
static void expect_refused(mproc_main_fn *fn, int expected)
{
    mproc_process *p = made(fn, &nothing);
    int fds = test_open_fds();
    assert_err(mproc_process_start(p), expected);
    assert_int_equal(mproc_process_pid(p), 0);
    assert_err(mproc_process_join(p, MPROC_NOWAIT), MPROC_EINVAL);
    assert_true(test_open_fds() <= fds);
    mproc_process_free(p);
}

/* Each of these tests in a process, a family and with a server of its own. */
static int (*in_child_fn)(void);

static int in_child(void *arg)
{
    (void)arg;
    return in_child_fn();
}

static void in_a_fork(int (*fn)(void))
{
    in_child_fn = fn;
    int code = test_wait_exit(test_fork(in_child, NULL));
    if (code == 77) {
        skip();
    }
    assert_int_equal(code, 0);
}

/* ---- what it has ------------------------------------------------------ */

static int sees_what_was_constructed(void *arg)
{
    (void)arg;
    return constructed == 7 ? 17 : 18;
}

static void constructors_have_run_before_the_function(void **state)
{
    (void)state;
    constructed = 8; /* that is here, not there */
    assert_int_equal(run(sees_what_was_constructed), 17);
    constructed = 7;
}

static int spawns_once(void)
{
    say("main ");
    return run(sees_what_was_constructed) == 17 ? 4 : 5;
}

static void main_is_run_in_the_first_process_only(void **state)
{
    (void)state;
    struct run program = run_program("spawns_once");
    expect_end(&program, "main ", 4);
}

/* The region's, and in the test the runner's and the test's own. */
static int has_nothing_but_standard(void *arg)
{
    (void)arg;
    int others = 0;
    for (int fd = STDERR_FILENO + 1; fd < 1000; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (flags >= 0 && !(flags & FD_CLOEXEC)) {
            return 100;
        }
        others += flags >= 0;
    }
    return others;
}

/* It has the region, and in a forkserver's child the parent's pidfd not. */
static int expect_few_descriptors(void)
{
    int leak = open("/dev/null", O_RDWR);
    int far = fcntl(leak, F_DUPFD, 900);
    assert_int_equal(run(has_nothing_but_standard), 1);
    close(leak);
    close(far);
    return 0;
}

static void no_descriptors_leak_into_it(void **state)
{
    (void)state;
    in_a_fork(expect_few_descriptors);
}

/* A program may have been started without its standard streams. */
static int expect_none_for_the_standard(void)
{
    close(STDIN_FILENO);
    assert_int_equal(run(has_nothing_but_standard), 1);
    assert_int_equal(fcntl(STDIN_FILENO, F_GETFD), -1);
    return 0;
}

static void standard_streams_that_are_closed_stay_closed(void **state)
{
    (void)state;
    in_a_fork(expect_none_for_the_standard);
}

/* The system call answers ENOSYS from here on, as on an older system. */
static bool forbid(unsigned call)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof code[0], code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

static int expect_few_without_close_range(void)
{
    return forbid(436) ? expect_few_descriptors() : 77;
}

static void none_leak_where_they_are_closed_one_by_one(void **state)
{
    (void)state;
    in_a_fork(expect_few_without_close_range);
}

static int has_a_clean_environment(void *arg)
{
    (void)arg;
    for (char **entry = environ; *entry != NULL; entry++) {
        if (strncmp(*entry, "MPROC_STARTED", 13) == 0) {
            return 18;
        }
    }
    return strcmp(getenv("TEST_COLOUR"), "blue") == 0 ? 17 : 19;
}

static int expect_clean_environment(void)
{
    setenv("TEST_COLOUR", "blue", 1);
    assert_int_equal(run(has_a_clean_environment), 17);
    return 0;
}

static void it_has_the_environment_and_nothing_else(void **state)
{
    (void)state;
    in_a_fork(expect_clean_environment);
}

static void on_signal(int sig)
{
    (void)sig;
}

static int has_sane_signals(void *arg)
{
    struct sigaction caught, ignored, child;
    sigset_t mask;
    (void)arg;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    sigaction(SIGUSR1, NULL, &caught);
    sigaction(SIGUSR2, NULL, &ignored);
    sigaction(SIGCHLD, NULL, &child);
    bool right = sigismember(&mask, SIGHUP) && !sigismember(&mask, SIGTERM) &&
                 !sigismember(&mask, SIGCHLD) && caught.sa_handler == SIG_DFL &&
                 ignored.sa_handler == SIG_IGN;
    return !right ? 18 : child.sa_handler == SIG_DFL ? 17 : 19;
}

static int expect_sane_signals(void)
{
    sigset_t hup;
    sigemptyset(&hup);
    sigaddset(&hup, SIGHUP);
    sigprocmask(SIG_BLOCK, &hup, NULL);
    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, SIG_IGN);
    assert_int_equal(run(has_sane_signals), 17);
    return 0;
}

/* A server hears of its children whatever its parent ignores. */
static int expect_child_signal_ignored(void)
{
    sigset_t hup;
    sigemptyset(&hup);
    sigaddset(&hup, SIGHUP);
    sigprocmask(SIG_BLOCK, &hup, NULL);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    assert_int_equal(run(has_sane_signals), 19);
    return 0;
}

static void its_signals_are_as_after_an_exec(void **state)
{
    (void)state;
    in_a_fork(expect_sane_signals);
    if (how == MPROC_START_FORKSERVER) { /* others leave no code then */
        in_a_fork(expect_child_signal_ignored);
    }
}

static int sends_a_bun(void *arg)
{
    const struct note *note = arg;
    return mproc_event_wait(note->event, TEST_BOUND) == 0 &&
                   mproc_connection_send(note->end, "bun", 3, TEST_BOUND) == 0
               ? 17
               : 18;
}

static void it_holds_the_ends_of_pipes_in_its_argument(void **state)
{
    (void)state;
    char bun[3];
    mproc_connection *in;
    struct note note = {.number = 1};
    assert_ok(mproc_event_new(&note.event));
    assert_ok(mproc_pipe_new(&in, &note.end, NULL));
    mproc_process *p = started(sends_a_bun, &note);
    assert_ok(mproc_connection_close(note.end));
    assert_ok(mproc_event_set(note.event));
    assert_ok(mproc_connection_recv(in, bun, sizeof bun, NULL, TEST_BOUND));
    assert_memory_equal(bun, "bun", 3);
    assert_err(mproc_connection_recv(in, bun, sizeof bun, NULL, TEST_BOUND),
               MPROC_EOF);
    assert_int_equal(code_of(p), 17);
    mproc_connection_close(in);
    mproc_event_free(note.event);
}

/* ---- where it does not come up ---------------------------------------- */

static void a_function_in_no_module_is_refused(void **state)
{
    (void)state;
    static char no_code[64];
    union {
        char *data;
        mproc_main_fn *fn;
    } strange = {.data = no_code};
    expect_refused(strange.fn, MPROC_ENOENT);
}

static void a_function_that_is_not_found_there_is_told(void **state)
{
    (void)state;
    union {
        void *data;
        mproc_main_fn *fn;
    } loaded;
    void *plugin = dlopen(TEST_PLUGIN, RTLD_NOW);
    assert_non_null(plugin);
    loaded.data = dlsym(plugin, "plugin_main");
    assert_non_null(loaded.data);
    expect_refused(loaded.fn, MPROC_ENOENT);
    dlclose(plugin);
}

/* What this start method comes to, and whether fork does all the same. */
static int tries_to_start(void)
{
    mproc_process *p = made(sees_what_was_constructed, &nothing);
    say(mproc_error_name(mproc_process_start(p)));
    mproc_process_free(p);
    how = MPROC_START_FORK;
    return run(sees_what_was_constructed) == 17 ? 4 : 5;
}

static int has_anonymous_memory(void)
{
    return forbid(SYS_memfd_create) ? tries_to_start() : 77;
}

static int has_closed_all_descriptors(void)
{
    mproc_free(mproc_alloc(1));
    for (int fd = STDERR_FILENO + 1; fd < 100; fd++) {
        close(fd);
    }
    return tries_to_start();
}

static void memory_without_a_descriptor_is_not_supported(void **state)
{
    (void)state;
    struct run program = run_program("has_anonymous_memory");
    expect_end(&program, "MPROC_ENOTSUP", 4);
    program = run_program("has_closed_all_descriptors");
    expect_end(&program, "MPROC_ENOTSUP", 4);
}

static int occupy(int times)
{
    char trap[64];
    void *block = mproc_alloc(8);
    uintptr_t page = (uintptr_t)block & ~(uintptr_t)4095;
    snprintf(trap, sizeof trap, "o:%d:%llx", times, (unsigned long long)page);
    set_trap(trap);
    return block != NULL;
}

static int expect_to_come_up_at_the_eighth(void)
{
    occupy(8);
    assert_int_equal(run(sees_what_was_constructed), 17);
    return 0;
}

static void addresses_that_are_taken_are_tried_again(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* other things lie in the region's place there, time and again */
#endif
    in_a_fork(expect_to_come_up_at_the_eighth);
}

static int expect_to_give_up(void)
{
    occupy(9);
    expect_refused(sees_what_was_constructed, MPROC_EADDRINUSE);
    set_trap(NULL);
    assert_int_equal(run(sees_what_was_constructed), 17);
    return 0;
}

static void addresses_that_stay_taken_are_told(void **state)
{
    (void)state;
    in_a_fork(expect_to_give_up);
}

static int expect_death(const char *trap)
{
    set_trap(trap);
    expect_refused(sees_what_was_constructed, MPROC_EWORKERLOST);
    set_trap(NULL);
    assert_int_equal(run(sees_what_was_constructed), 17);
    return 0;
}

static int expect_early_death(void)
{
    return expect_death("k:9");
}

static int expect_death_in_a_constructor(void)
{
    return expect_death("c:9");
}

static void a_child_that_dies_before_it_comes_up_is_told(void **state)
{
    (void)state;
    in_a_fork(expect_early_death);
    in_a_fork(expect_death_in_a_constructor);
}

static void *starts_one(void *arg)
{
    mproc_process_start(arg);
    return NULL;
}

static int says_that_it_ran(void *arg)
{
    (void)arg;
    say("ran ");
    return 0;
}

/* Killed while its child comes up. */
static int dies_while_it_starts_one(void)
{
    char said[8];
    int ends[2];
    pthread_t thread;
    mproc_process *p = made(says_that_it_ran, &nothing);
    if (pipe(ends) != 0) {
        return 97;
    }
    dup2(ends[1], STDERR_FILENO);
    set_trap("w:9");
    if (pthread_create(&thread, NULL, starts_one, p) != 0 ||
        read(ends[0], said, 6) != 6) {
        return 98;
    }
    kill(getpid(), SIGKILL);
    return 99;
}

static void a_child_whose_parent_died_meanwhile_runs_nothing(void **state)
{
    (void)state;
    struct run program = run_program("dies_while_it_starts_one");
    assert_int_equal(test_wait_exit(program.pid), -SIGKILL);
    end_of_all(&program); /* the child of it was waiting, and is gone */
    assert_string_equal(program.text, "");
}

static int ends_at_once(void *arg)
{
    ++*((const struct note *)arg)->count;
    return ((const struct note *)arg)->number;
}

static int starts_without_end(void)
{
    struct note note = {.count = mproc_calloc(1, sizeof(int))};
    int result = 0;
    say("r");
    while (result == 0) {
        mproc_process *p = started(ends_at_once, &note);
        result = mproc_process_join(p, TEST_BOUND);
        mproc_process_free(p);
    }
    return 5;
}

static void nobody_is_left_of_a_parent_killed_at_any_time(void **state)
{
    (void)state;
    for (int i = 0; i < 25; i++) {
        struct timespec moment = {.tv_nsec = i * 311000};
        struct run program = run_program("starts_without_end");
        expect_said(&program, "r");
        nanosleep(&moment, NULL); /* any: the later, the further it is */
        kill(program.pid, SIGKILL);
        end_of_all(&program);
        assert_int_equal(test_wait_exit(program.pid), -SIGKILL);
    }
}

static const struct program programs[] = {
    PROGRAM(spawns_once),
    PROGRAM(has_anonymous_memory),
    PROGRAM(has_closed_all_descriptors),
    PROGRAM(dies_while_it_starts_one),
    PROGRAM(starts_without_end),
};

int main(int argc, char **argv)
{
    run_as_program(programs, argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constructors_have_run_before_the_function),
        cmocka_unit_test(main_is_run_in_the_first_process_only),
        cmocka_unit_test(no_descriptors_leak_into_it),
        cmocka_unit_test(standard_streams_that_are_closed_stay_closed),
        cmocka_unit_test(none_leak_where_they_are_closed_one_by_one),
        cmocka_unit_test(it_has_the_environment_and_nothing_else),
        cmocka_unit_test(its_signals_are_as_after_an_exec),
        cmocka_unit_test(it_holds_the_ends_of_pipes_in_its_argument),
        cmocka_unit_test(a_function_in_no_module_is_refused),
        cmocka_unit_test(a_function_that_is_not_found_there_is_told),
        cmocka_unit_test(memory_without_a_descriptor_is_not_supported),
        cmocka_unit_test(addresses_that_are_taken_are_tried_again),
        cmocka_unit_test(addresses_that_stay_taken_are_told),
        cmocka_unit_test(a_child_that_dies_before_it_comes_up_is_told),
        cmocka_unit_test(a_child_whose_parent_died_meanwhile_runs_nothing),
        cmocka_unit_test(nobody_is_left_of_a_parent_killed_at_any_time),
    };
    how = MPROC_START_SPAWN;
    int failed =
        cmocka_run_group_tests_name("anew by spawn", tests, NULL, NULL);
    how = MPROC_START_FORKSERVER;
    return failed +
           cmocka_run_group_tests_name("anew by forkserver", tests, NULL, NULL);
}
