/* SPDX-License-Identifier: MIT */
/* What is measured in a process of its own, whatever it leaves behind there. */
#include "bench.h"

enum { NOT_FOUND = 127 }; /* as shells say it, and env, and python.py */

double bench_in_child(child_fn *run, const void *arg)
{
    int ends[2], status;
    double number = NOT_THERE;
    must(pipe(ends) == 0, "pipe");
    fflush(stdout);
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        run(arg);
        fflush(stdout);
        _exit(0);
    }
    close(ends[1]);
    FILE *in = fdopen(ends[0], "r");
    must(in != NULL, "fdopen");
    bool told = fscanf(in, "%lf", &number) == 1;
    fclose(in);
    must(waitpid(pid, &status, 0) == pid && WIFEXITED(status), "a child");
    if (WEXITSTATUS(status) == NOT_FOUND) {
        return NOT_THERE;
    }
    must(told && WEXITSTATUS(status) == 0, "a child");
    return number;
}
