/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include <stdlib.h>

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
    int found = fscanf(in, "%lf", &number);
    fclose(in);
    must(waitpid(pid, &status, 0) == pid && WIFEXITED(status), "a child");
    if (WEXITSTATUS(status) == NOT_FOUND) {
        return NOT_THERE;
    }
    must(found == 1 && WEXITSTATUS(status) == 0, "a child");
    return number;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_sort(double *values, long n)
{
    qsort(values, (size_t)n, sizeof *values, compare);
}

double bench_asleep(call_fn *call, void *user, long n)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    double *ns = malloc((size_t)n * sizeof *ns);
    must(ns != NULL, "malloc");
    for (int i = 0; i < n; i++) {
        nanosleep(&pause, NULL);
        double begin = now_ns();
        call(user, i);
        ns[i] = now_ns() - begin;
    }
    bench_sort(ns, n);
    double median = ns[n / 2];
    free(ns);
    return median;
}
