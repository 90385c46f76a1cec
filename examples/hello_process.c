/* SPDX-License-Identifier: MIT */
/* One process: a function and its argument, started, named, and joined. */
#include <mproc.h>
#include <stdio.h>
#include <unistd.h>

static mproc_event *answered;

static int greet(void *whom)
{
    printf("%s (pid %ld, child of %ld) says hello to %s\n",
           mproc_process_name(mproc_process_current()), (long)getpid(),
           (long)mproc_process_parent_pid(), (const char *)whom);
    return mproc_event_wait(answered, MPROC_FOREVER) < 0;
}

static const char *alive(mproc_process *p)
{
    return mproc_process_is_alive(p) ? "alive" : "not alive";
}

int main(void)
{
    mproc_process *p;
    mproc_process_opts opts = {.name = "greeter"};
    int code = -1;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    printf("%s is pid %ld\n", mproc_process_name(mproc_process_current()),
           (long)getpid());
    if (mproc_event_new(&answered) < 0 ||
        mproc_process_new(&p, greet, "Bob", &opts) < 0) {
        return 1;
    }
    printf("before its start: %s\n", alive(p));
    if (mproc_process_start(p) < 0) {
        return 1;
    }
    printf("started pid %ld: %s\n", (long)mproc_process_pid(p), alive(p));
    mproc_event_set(answered);
    if (mproc_process_join(p, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(p, &code) < 0) {
        return 1;
    }
    printf("joined: %s, exit code %d\n", alive(p), code);
    mproc_process_free(p);
    mproc_event_free(answered);
    return code;
}
