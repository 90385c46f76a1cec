/* SPDX-License-Identifier: MIT */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void test_expect(int err, int expected, const char *expr, const char *file,
                 int line)
{
    if (err == expected) {
        return;
    }
    print_error("%s\n    is %s (%d, %s), not %s\n", expr, mproc_error_name(err),
                err, mproc_strerror(err), mproc_error_name(expected));
    _fail(file, line);
}

int test_open_fds(void)
{
    DIR *fds = opendir("/proc/self/fd");
    assert_non_null(fds);
    int n = -1; /* the one that reads the directory */
    for (struct dirent *e = readdir(fds); e != NULL; e = readdir(fds)) {
        n += e->d_name[0] != '.';
    }
    closedir(fds);
    return n;
}

struct test_stat test_stat_of(pid_t pid)
{
    struct test_stat stat = {'X', 0};
    char path[32], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return stat;
    }
    /* PID (NAME) STATE PARENT ..., and the name may hold anything */
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = '\0';
    const char *end = strrchr(line, ')');
    if (end != NULL) {
        sscanf(end + 1, " %c %d", &stat.state, &stat.parent);
    }
    return stat;
}

void test_await_state(pid_t pid, char state)
{
    mproc_deadline until = TEST_BOUND;
    for (;;) {
        char now = test_stat_of(pid).state;
        if (now == state) {
            return;
        }
        assert_int_not_equal(now, 'X');
        assert_true(mproc_in_ms(0).at_ns < until.at_ns);
        usleep(200);
    }
}

pid_t test_fork(int (*fn)(void *arg), void *arg)
{
    fflush(stdout); /* or the child prints it once more */
    pid_t pid = fork();
    if (pid == 0) {
        /*
         * Without this a failed assertion jumps back into the test runner,
         * and the rest of the tests run in the child too.
         */
        setenv("CMOCKA_TEST_ABORT", "1", 1);
        int result = fn(arg);
        fflush(stdout);
        _exit(result);
    }
    assert_true(pid > 0);
    return pid;
}

int test_wait_exit(pid_t pid)
{
    int status;
    pid_t got;
    do {
        got = waitpid(pid, &status, 0);
    } while (got < 0 && errno == EINTR);
    assert_int_equal(got, pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
