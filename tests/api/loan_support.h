/* SPDX-License-Identifier: MIT */
/* What the tests of messages without a copy share. */
#ifndef MPROC_TEST_LOAN_SUPPORT_H
#define MPROC_TEST_LOAN_SUPPORT_H

#include "queue_support.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static inline mproc_queue *redelivering(void)
{
    return new_queue(&(mproc_queue_opts){.joinable = 1, .redeliver = 1});
}

static inline mproc_message loan(mproc_queue *q, size_t size)
{
    mproc_message m;
    assert_ok(mproc_queue_loan(q, &m, size, TEST_BOUND));
    assert_non_null(m.data);
    assert_int_equal(m.size, size);
    return m;
}

static inline mproc_message take(mproc_queue *q)
{
    mproc_message m;
    assert_ok(mproc_queue_take(q, &m, TEST_BOUND));
    return m;
}

static inline void send_int(mproc_queue *q, int value)
{
    mproc_message m = loan(q, sizeof value);
    memcpy(m.data, &value, sizeof value);
    assert_ok(mproc_queue_send(q, &m));
}

static inline int value_of(const mproc_message *m)
{
    int value;
    assert_int_equal(m->size, sizeof value);
    memcpy(&value, m->data, sizeof value);
    return value;
}

static inline void expect_empty(const mproc_message *m)
{
    static const mproc_message empty;
    assert_memory_equal(m, &empty, sizeof empty);
}

static atomic_int *ready; /* shared: how many are where they wait */

static inline void await_ready(int n)
{
    double until = seconds() + 30;
    while (atomic_load(ready) < n) {
        assert_true(seconds() < until);
        usleep(200);
    }
    atomic_store(ready, 0);
}

static inline int prepare(void **state)
{
    remember_heap(state);
    ready = mproc_calloc(1, sizeof *ready);
    return ready != NULL ? 0 : -1;
}

static inline void nothing_is_left(void **state)
{
    mproc_free(ready);
    nothing_is_left_of_it_all(state);
}

#endif
