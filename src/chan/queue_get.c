/* SPDX-License-Identifier: MIT */
/* Taking from a queue: copies, many at once, and in place. */
#include <stdlib.h>

#include "chan/queue_call.h"

struct get_call {
    struct mpr_queue_call call;
    struct mpr_log_get get;
    size_t count; /* of get_many: those that may still come */
    struct mpr_log_block taken;
};

static int begin(struct get_call *g, mproc_queue *q, mproc_deadline until)
{
    int err = mpr_queue_begin(&g->call, q, until);
    if (mpr_likely(err == 0)) {
        mpr_queue_get_of(&g->call, &g->get);
    }
    return err;
}

/* Looked at first: once shut, nothing comes any more. */
static inline int attempt(struct get_call *g, int (*take)(struct get_call *))
{
    struct mproc_queue *q = g->call.q;
    uint32_t shut = atomic_load_explicit(&q->shut, memory_order_acquire);
    bool closed = mpr_log_closed(&q->log);
    if (mpr_queue_ended(&g->call)) {
        return MPROC_EINVAL;
    }
    if (mpr_unlikely(shut == MPR_QUEUE_DROPPED)) {
        mpr_queue_drop_rest(&g->call);
    }
    int err = take(g);
    if (mpr_unlikely(err == MPROC_EEMPTY) && q->log.redeliver &&
        mpr_queue_news(&g->call) && mpr_log_reclaim_taken(&g->get) > 0) {
        err = take(g);
    }
    bool over = err == MPROC_ESHUTDOWN || (err == MPROC_EEMPTY && closed);
    return mpr_unlikely(over) ? mpr_queue_closed_because(&g->call) : err;
}

static int take_copy(struct get_call *g)
{
    return mpr_log_get(&g->get);
}

static int take_copies(struct get_call *g)
{
    size_t done = 0;
    int err = mpr_log_get_many(&g->get, g->count, &done);
    g->get.data = (char *)g->get.data + done * g->get.capacity;
    g->count -= done;
    return err;
}

static int take_in_place(struct get_call *g)
{
    return mpr_log_take(&g->get, &g->taken);
}

static int attempt_get(void *user)
{
    return attempt(user, take_copy);
}

static int attempt_get_many(void *user)
{
    return attempt(user, take_copies);
}

static int attempt_take(void *user)
{
    return attempt(user, take_in_place);
}

/* What a dead consumer had may be what is wanted. */
static int get(struct get_call *g, mpr_attempt_fn *how)
{
    struct mpr_log *log = g->get.log;
    int err = mpr_sleep_until(&log->items, g->get.until, MPROC_EEMPTY, how, g);
    bool none = err == MPROC_EEMPTY || err == MPROC_ESHUTDOWN;
    if (mpr_unlikely(none) && log->redeliver &&
        mpr_log_reclaim_taken(&g->get) > 0) {
        err = how(g);
    }
    return err;
}

int mproc_queue_get(mproc_queue *q, void *buf, size_t capacity, size_t *size,
                    mproc_deadline until)
{
    struct get_call g;
    int err = begin(&g, q, until);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (mpr_unlikely(buf == NULL && capacity > 0)) {
        return mpr_queue_end(&g.call, MPROC_EINVAL);
    }
    g.get.data = buf;
    g.get.capacity = capacity;
    g.get.size = size;
    mpr_op_waits(g.call.self, g.call.outer);
    return mpr_queue_end(&g.call, get(&g, attempt_get));
}

/* Memory is had before the message is taken, so nothing can be lost. */
int mproc_queue_get_malloc(mproc_queue *q, void **data, size_t *size,
                           mproc_deadline until)
{
    struct get_call g;
    size_t got = 0;
    char *memory = NULL;
    int err = data == NULL ? MPROC_EINVAL : begin(&g, q, until);
    if (err < 0) {
        return err;
    }
    g.get.size = &got;
    do {
        free(memory);
        memory = malloc(got + 1);
        if (memory == NULL) {
            err = MPROC_ENOMEM;
            break;
        }
        g.get.data = memory;
        g.get.capacity = got;
        err = get(&g, attempt_get);
    } while (err == MPROC_EMSGSIZE);
    if (err < 0) {
        free(memory);
    } else {
        memory[got] = '\0';
        *data = memory;
        if (size != NULL) {
            *size = got;
        }
    }
    return mpr_queue_end(&g.call, err);
}

int mproc_queue_get_many(mproc_queue *q, void *items, size_t item_size,
                         size_t count, mproc_deadline until)
{
    struct get_call g;
    size_t bytes, most = count < INT_MAX ? count : INT_MAX;
    int err = begin(&g, q, until);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (__builtin_mul_overflow(item_size, count, &bytes) ||
        (items == NULL && bytes > 0)) {
        return mpr_queue_end(&g.call, MPROC_EINVAL);
    }
    g.get.data = items;
    g.get.capacity = item_size;
    g.count = most;
    if (most > 0) {
        err = get(&g, attempt_get_many);
    }
    while (g.count > 0 && err == 0) {
        err = attempt_get_many(&g);
    }
    return mpr_queue_end(&g.call, g.count < most ? (int)(most - g.count) : err);
}

/* ---- in place --------------------------------------------------------- */

int mproc_queue_take(mproc_queue *q, mproc_message *m, mproc_deadline until)
{
    struct get_call g;
    size_t size;
    int err = m == NULL ? MPROC_EINVAL : begin(&g, q, until);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    g.get.capacity = SIZE_MAX;
    g.get.size = &size;
    err = get(&g, attempt_take);
    if (mpr_likely(err == 0)) {
        mpr_message_set(m, &g.call, &g.taken, MPR_MESSAGE_TAKEN);
    }
    return mpr_queue_end(&g.call, err);
}
