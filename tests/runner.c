/* SPDX-License-Identifier: MIT */
/*
 * Runs one test program in a fresh process group and holds it to two promises:
 * it ends within its limit, and it leaves no child behind.
 *
 * usage: mproc_test_runner <seconds> <program> [argument ...]
 *
 * The runner is a child subreaper, so whatever the program leaves behind, at
 * any depth, becomes the runner's own child once its parents are gone. What is
 * left is given a moment to end, then named and killed, and the test fails.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_LIMIT = 124, EXIT_LEFTOVER = 125, EXIT_USAGE = 126 };

static const double grace_s = 2;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static pid_t start(char **argv, const sigset_t *mask)
{
    pid_t runner = getpid();
    pid_t pid = fork();
    if (pid != 0) {
        return pid;
    }
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != runner) { /* it died before the line above */
        _exit(EXIT_USAGE);
    }
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(argv[0], argv);
    fprintf(stderr, "runner: %s: %s\n", argv[0], strerror(errno));
    _exit(EXIT_USAGE);
}

/*
 * Sleep until a child ends or `until`. Returns the signal that asks the runner
 * itself to end, else 0.
 */
static int sleep_for_child(const sigset_t *signals, double until)
{
    double left = until - now_s();
    if (left <= 0) {
        return 0;
    }
    struct timespec t = {.tv_sec = (time_t)left};
    t.tv_nsec = (long)((left - (double)t.tv_sec) * 1e9);
    int sig = sigtimedwait(signals, NULL, &t);
    return sig < 0 || sig == SIGCHLD ? 0 : sig;
}

/* Reaps all who have ended. False: no child is left. */
static bool reap(pid_t test, int *status, bool *ended)
{
    for (;;) {
        int st;
        pid_t pid = waitpid(-1, &st, WNOHANG);
        if (pid == test) {
            *status = st;
            *ended = true;
        }
        if (pid == 0) {
            return true;
        }
        if (pid < 0 && errno != EINTR) {
            return false;
        }
    }
}

/* The parent of `pid`, with its name stored; -1: it is gone. */
static pid_t parent_of(pid_t pid, char name[static 64])
{
    char path[64];
    char line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return -1;
    }
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = '\0';
    /* pid (name) state parent …, and the name may hold anything */
    char *open = strchr(line, '(');
    char *close = strrchr(line, ')');
    if (open == NULL || close == NULL || strlen(close) < 5) {
        return -1;
    }
    snprintf(name, 64, "%.*s", (int)(close - open - 1), open + 1);
    return (pid_t)strtol(close + 4, NULL, 10);
}

static void kill_own_children(void)
{
    DIR *proc = opendir("/proc");
    if (proc == NULL) {
        return;
    }
    for (struct dirent *e = readdir(proc); e != NULL; e = readdir(proc)) {
        char name[64];
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid > 0 && parent_of(pid, name) == getpid()) {
            fprintf(stderr, "runner: killed process %d (%s)\n", (int)pid, name);
            kill(pid, SIGKILL);
        }
    }
    closedir(proc);
}

/* A killed process hands its own children to the runner: look again. */
static void kill_all(pid_t test, int *status, bool *ended)
{
    double until = now_s() + 10;
    struct timespec pause = {.tv_nsec = 5000000};
    while (reap(test, status, ended) && now_s() < until) {
        kill_own_children();
        nanosleep(&pause, NULL);
    }
}

static int run(pid_t test, double limit_s, const sigset_t *signals)
{
    int status = 0;
    bool ended = false;
    double until = now_s() + limit_s;
    while (reap(test, &status, &ended) && !ended) {
        int sig = sleep_for_child(signals, until);
        if (sig == 0 && now_s() < until) {
            continue;
        }
        if (sig == 0) {
            fprintf(stderr, "runner: not ended after %g s\n", limit_s);
        }
        kill_all(test, &status, &ended);
        return sig == 0 ? EXIT_LIMIT : 128 + sig;
    }
    until = now_s() + grace_s;
    while (reap(test, &status, &ended)) {
        if (now_s() >= until) {
            fprintf(stderr, "runner: the test left processes behind\n");
            kill_all(test, &status, &ended);
            return EXIT_LEFTOVER;
        }
        sleep_for_child(signals, until);
    }
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "runner: ended by signal %d\n", WTERMSIG(status));
        return 128 + WTERMSIG(status);
    }
    return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    double limit_s = argc > 2 ? strtod(argv[1], NULL) : 0;
    if (!(limit_s > 0)) {
        fprintf(stderr, "usage: %s <seconds> <program> [argument ...]\n",
                argv[0]);
        return EXIT_USAGE;
    }
    sigset_t signals;
    sigset_t before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, &before);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
        perror("runner: PR_SET_CHILD_SUBREAPER");
        return EXIT_USAGE;
    }
    pid_t test = start(argv + 2, &before);
    if (test < 0) {
        perror("runner: fork");
        return EXIT_USAGE;
    }
    return run(test, limit_s, &signals);
}
