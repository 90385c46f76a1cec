/* SPDX-License-Identifier: MIT */
/* What the tests of pipes share. */
#ifndef MPROC_TEST_PIPE_SUPPORT_H
#define MPROC_TEST_PIPE_SUPPORT_H

#include "sync_support.h"

#include <stdlib.h>

enum { HOLDS = 65536, LARGE = 16 << 20 };

struct ends {
    mproc_connection *a, *b;
};

static inline struct ends make(int simplex)
{
    struct ends made = {NULL, NULL};
    const mproc_pipe_opts opts = {.simplex = simplex};
    assert_ok(mproc_pipe_new(&made.a, &made.b, &opts));
    return made;
}

static inline void close_both(struct ends ends)
{
    assert_ok(mproc_connection_close(ends.a));
    assert_ok(mproc_connection_close(ends.b));
}

static inline void send_number(mproc_connection *c, int number)
{
    assert_ok(mproc_connection_send(c, &number, sizeof number, TEST_BOUND));
}

static inline void expect_number(mproc_connection *c, int number)
{
    int got = -1;
    assert_ok(mproc_connection_recv(c, &got, sizeof got, NULL, MPROC_FOREVER));
    assert_int_equal(got, number);
}

static inline void expect_eof(mproc_connection *c, mproc_deadline until)
{
    int got;
    assert_err(mproc_connection_recv(c, &got, sizeof got, NULL, until),
               MPROC_EOF);
}

/* A child that never calls the library. */
static inline int live_until_killed(void *arg)
{
    (void)arg;
    pause_for_ever();
    return 0;
}

static inline char *pattern(size_t size)
{
    char *p = malloc(size + 1);
    assert_non_null(p);
    for (size_t i = 0; i < size; i++) {
        p[i] = (char)(i * 31 + size);
    }
    return p;
}

static inline void pass(mproc_connection *from, mproc_connection *to,
                        size_t size)
{
    char *sent = pattern(size), *got = malloc(size + 1);
    size_t got_size = size + 1;
    assert_ok(mproc_connection_send(from, sent, size, MPROC_NOWAIT));
    assert_ok(
        mproc_connection_recv(to, got, size + 1, &got_size, MPROC_NOWAIT));
    assert_int_equal(got_size, size);
    assert_memory_equal(got, sent, size);
    free(sent);
    free(got);
}

static inline void expect_invalid(mproc_connection *c)
{
    char byte;
    void *data;
    pid_t pid;
    assert_err(mproc_connection_send(c, "x", 1, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_connection_recv(c, &byte, 1, NULL, MPROC_NOWAIT),
               MPROC_EINVAL);
    assert_err(mproc_connection_recv_malloc(c, &data, NULL, MPROC_NOWAIT),
               MPROC_EINVAL);
    assert_err(mproc_connection_poll(c, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_connection_peer_pid(c, &pid), MPROC_EINVAL);
    assert_err(mproc_connection_close(c), MPROC_EINVAL);
}

#endif
