/* SPDX-License-Identifier: MIT */
/* Both ends of a pipe send and receive. */
#include <mproc.h>
#include <stdio.h>
#include <string.h>

static int greet(mproc_connection *c, const char *text, const char *expected)
{
    char got[32] = "";
    size_t size;
    const char *name = mproc_process_name(mproc_process_current());
    if (mproc_connection_send(c, text, strlen(text) + 1, MPROC_FOREVER) < 0 ||
        mproc_connection_recv(c, got, sizeof got, &size, MPROC_FOREVER) < 0) {
        return 1;
    }
    printf("%s received: %s\n", name, got);
    return strcmp(got, expected) != 0;
}

static int child(void *end)
{
    return greet(end, "hello, parent", "hello, child");
}

int main(void)
{
    mproc_connection *a, *b;
    mproc_process *p;
    int code = 1;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_pipe_new(&a, &b, NULL) < 0 ||
        mproc_process_new(&p, child, b, NULL) < 0 ||
        mproc_process_start(p) < 0) {
        return 1;
    }
    int bad = greet(a, "hello, child", "hello, parent");
    bad |= mproc_process_join(p, MPROC_FOREVER) < 0 ||
           mproc_process_exitcode(p, &code) < 0 || code != 0;
    mproc_process_free(p);
    mproc_connection_close(a);
    mproc_connection_close(b);
    return bad;
}
