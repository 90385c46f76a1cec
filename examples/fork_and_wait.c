/* SPDX-License-Identifier: MIT */
/* How a process ended: its exit code, or minus the signal. No zombie stays. */
#include <errno.h>
#include <mproc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

static int return_7(void *arg)
{
    (void)arg;
    return 7;
}

static int die(void *arg)
{
    (void)arg;
    raise(SIGKILL);
    return 1;
}

static int call_exit(void *arg)
{
    (void)arg;
    exit(0);
}

/* True if `fn` ended by `wanted`. */
static bool ends_by(const char *what, mproc_main_fn *fn, int wanted)
{
    mproc_process *p;
    int code;
    if (mproc_process_new(&p, fn, NULL, NULL) < 0 ||
        mproc_process_start(p) < 0 ||
        mproc_process_join(p, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(p, &code) < 0) {
        return false;
    }
    printf("%s: exit code %d\n", what, code);
    mproc_process_free(p);
    return code == wanted;
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    bool good = ends_by("returns 7", return_7, 7);
    good &= ends_by("is killed", die, -SIGKILL);
    good &= ends_by("calls exit(0)", call_exit, 0);
    bool none = waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD;
    printf("%s to wait for\n", none ? "nobody is left" : "a zombie is left");
    return good && none ? 0 : 1;
}
