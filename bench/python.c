/* SPDX-License-Identifier: MIT */
/*
 * Python's multiprocessing as a peer: python.py, by the python3 that is there,
 * or the one that the environment names as PYTHON.
 */
#include "bench.h"

#include <stdlib.h>

struct work {
    const char *what;
    long n;
    long more;
};

static void run_python(const void *arg)
{
    const struct work *work = arg;
    char n[32], more[32];
    snprintf(n, sizeof n, "%ld", work->n);
    snprintf(more, sizeof more, "%ld", work->more);
    const char *program = getenv("PYTHON");
    program = program != NULL ? program : "python3";
    execlp(program, program, BENCH_DIR "/python.py", work->what, n, more,
           (char *)NULL);
    _exit(NOT_FOUND);
}

static double python(const char *what, long n, long more)
{
    return bench_in_child(run_python, &(struct work){what, n, more});
}

double bench_py_queue(const struct row *row, long n)
{
    return python("queue", n, row->pairs);
}

double bench_py_map(const struct row *row, long n)
{
    (void)row;
    return python("map", n, 0);
}

double bench_py_map_by_one(const struct row *row, long n)
{
    (void)row;
    return python("map", n, 1);
}

double bench_py_map_calls(const struct row *row, long n)
{
    return python("map_calls", n, row->many);
}

double bench_py_async(const struct row *row, long n)
{
    (void)row;
    return python("apply_async", n, 0);
}

double bench_py_apply(const struct row *row, long n)
{
    (void)row;
    return python("apply", n, 0);
}

double bench_py_pending(const struct row *row, long n)
{
    (void)row;
    return python("pending", n, 0);
}
