/* SPDX-License-Identifier: MIT */
/*
 * A producer sends ten items through a pipe to a consumer, who reads until
 * end-of-file. That comes when no process holds the other end any more: because
 * the producer has ended, or because it was killed.
 */
#include <mproc.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { ITEMS = 10 };

struct ends {
    mproc_connection *reads, *writes;
    int killed; /* the producer ends so */
};

static int producer(void *arg)
{
    struct ends *pipe = arg;
    mproc_connection_close(pipe->reads); /* each closes what it does not use */
    for (int i = 1; i <= ITEMS; i++) {
        if (mproc_connection_send(pipe->writes, &i, sizeof i, MPROC_FOREVER) <
            0) {
            return 1;
        }
    }
    if (pipe->killed) {
        kill(getpid(), SIGKILL);
    }
    return mproc_connection_close(pipe->writes) < 0;
}

static int consumer(void *arg)
{
    struct ends *pipe = arg;
    int item, count = 0, err;
    mproc_connection_close(pipe->writes);
    while ((err = mproc_connection_recv(pipe->reads, &item, sizeof item, NULL,
                                        MPROC_FOREVER)) == 0) {
        count += item == count + 1;
    }
    printf("%d items, then %s\n", count, mproc_error_name(err));
    return count != ITEMS || err != MPROC_EOF;
}

static int run(struct ends *pipe)
{
    mproc_process *p, *c;
    int how, code = 1;
    if (mproc_pipe_new(&pipe->reads, &pipe->writes,
                       &(mproc_pipe_opts){.simplex = 1}) < 0 ||
        mproc_process_new(&p, producer, pipe, NULL) < 0 ||
        mproc_process_new(&c, consumer, pipe, NULL) < 0 ||
        mproc_process_start(p) < 0 || mproc_process_start(c) < 0 ||
        mproc_connection_close(pipe->reads) < 0 ||
        mproc_connection_close(pipe->writes) < 0 ||
        mproc_process_join(p, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(p, &how) < 0 ||
        mproc_process_join(c, MPROC_FOREVER) < 0 ||
        mproc_process_exitcode(c, &code) < 0) {
        return 1;
    }
    printf("the producer ended with %d\n", how);
    mproc_process_free(p);
    mproc_process_free(c);
    return code != 0 || how != (pipe->killed ? -SIGKILL : 0);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* whole lines, also into a pipe */
    int bad = run(&(struct ends){.killed = 0});
    return run(&(struct ends){.killed = 1}) || bad;
}
