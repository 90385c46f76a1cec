/* SPDX-License-Identifier: MIT */
/* Batches of good items and bad ones, and what is to become of them. */
#ifndef MPROC_POOL_BATCHES_H
#define MPROC_POOL_BATCHES_H

#include "pool_tasks.h"

#include <signal.h>
#include <stdlib.h>

enum { ITEMS = 50, BAD_SIZE = -100, KILLED = -101, CODED = -102 };

static inline int squares_or_not(const void *arg, size_t size,
                                 mproc_reply *reply)
{
    int n = *(const int *)arg;
    switch (n) {
    case BAD_SIZE:
        return mproc_reply_set(reply, "12345678", 8);
    case KILLED:
        raise(SIGKILL);
        return 0;
    case CODED:
        return mproc_reply_fail(reply, 42, "item %d", n);
    default:
        return squares(arg, size, reply);
    }
}

struct arrays {
    int *in, *out, *status;
};

static inline struct arrays arrays(bool shared)
{
    struct arrays a;
    int **array[] = {&a.in, &a.out, &a.status};
    for (int i = 0; i < 3; i++) {
        *array[i] = shared ? mproc_calloc(ITEMS, sizeof(int))
                           : calloc(ITEMS, sizeof(int));
    }
    for (int i = 0; i < ITEMS; i++) {
        a.in[i] = i;
        a.out[i] = -5;
        a.status[i] = 5;
    }
    return a;
}

static inline void free_arrays(struct arrays *a, bool shared)
{
    void (*end)(void *) = shared ? mproc_free : free;
    end(a->in);
    end(a->out);
    end(a->status);
}

static inline mproc_batch batch_of(const struct arrays *a, size_t chunk)
{
    return (mproc_batch){.fn = squares_or_not,
                         .in = a->in,
                         .in_size = sizeof(int),
                         .count = ITEMS,
                         .out = a->out,
                         .out_size = sizeof(int),
                         .status = a->status,
                         .chunk = chunk};
}

static inline int expected_status(int n)
{
    switch (n) {
    case BAD_SIZE:
        return MPROC_EMSGSIZE;
    case KILLED:
        return MPROC_EWORKERLOST;
    case CODED:
        return MPROC_ETASK;
    default:
        return MPROC_OK;
    }
}

static inline void expect_arrays(const struct arrays *a)
{
    for (int i = 0; i < ITEMS; i++) {
        int status = expected_status(a->in[i]);
        assert_err(a->status[i], status);
        if (status == MPROC_OK) {
            assert_int_equal(a->out[i], a->in[i] * a->in[i]);
        } else {
            assert_int_equal(a->out[i], -5);
        }
    }
}

static const size_t chunks[] = {0,     1,          3,       ITEMS - 1,
                                ITEMS, 10 * ITEMS, SIZE_MAX};
enum { CHUNKS = sizeof chunks / sizeof *chunks };

/* Item 0 waits; of its chunk the others are never reached. */
static inline int first_waits(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    mproc_queue *gate = *(mproc_queue *const *)arg;
    return gate != NULL ? mproc_queue_get(gate, NULL, 0, NULL, MPROC_FOREVER)
                        : 0;
}

#endif
