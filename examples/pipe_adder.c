/* SPDX-License-Identifier: MIT */
/* A server process adds what it is sent, until nobody can send any more. */
#include <mproc.h>
#include <stdio.h>

struct numbers {
    int x, y;
};

struct ends {
    mproc_connection *client, *server;
};

static int serve(void *arg)
{
    const struct ends *pipe = arg;
    struct numbers n;
    int err;
    mproc_connection_close(pipe->client); /* or its end would never come */
    while ((err = mproc_connection_recv(pipe->server, &n, sizeof n, NULL,
                                        MPROC_FOREVER)) == 0) {
        int sum = n.x + n.y;
        if (mproc_connection_send(pipe->server, &sum, sizeof sum,
                                  MPROC_FOREVER) < 0) {
            return 1;
        }
    }
    printf("server done\n");
    return err != MPROC_EOF;
}

int main(void)
{
    struct ends pipe;
    mproc_process *p;
    const struct numbers n = {10, 20};
    int sum = 0, code = 1;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    if (mproc_pipe_new(&pipe.client, &pipe.server, NULL) < 0 ||
        mproc_process_new(&p, serve, &pipe, NULL) < 0 ||
        mproc_process_start(p) < 0 || mproc_connection_close(pipe.server) < 0 ||
        mproc_connection_send(pipe.client, &n, sizeof n, MPROC_FOREVER) < 0 ||
        mproc_connection_recv(pipe.client, &sum, sizeof sum, NULL,
                              MPROC_FOREVER) < 0) {
        return 1;
    }
    printf("%d\n", sum);
    if (mproc_connection_close(pipe.client) < 0 ||
        mproc_process_join(p, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(p, &code) < 0) {
        return 1;
    }
    mproc_process_free(p);
    return sum != 30 || code != 0;
}
