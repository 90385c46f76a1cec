/* SPDX-License-Identifier: MIT */
/* Putting in a queue: copies, many at once, and loans. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "chan/queue_call.h"

struct put_call {
    struct mpr_queue_call call;
    struct mpr_log_put put;
    size_t count; /* of put_many: those that are left */
    struct mpr_log_block loan;
};

static int begin(struct put_call *p, mproc_queue *q, mproc_deadline until)
{
    int err = mpr_queue_begin(&p->call, q, until);
    if (mpr_likely(err == 0)) {
        mpr_queue_put_of(&p->call, &p->put);
    }
    return err;
}

static int why(const struct put_call *p, int err)
{
    return mpr_unlikely(err == MPROC_ESHUTDOWN)
               ? mpr_queue_closed_because(&p->call)
               : err;
}

static inline int attempt(struct put_call *p, int (*how)(struct put_call *))
{
    if (mpr_queue_ended(&p->call)) {
        return MPROC_EINVAL;
    }
    int err = how(p);
    if (mpr_unlikely(err == MPROC_EFULL) &&
        mpr_leases_out(&p->put.log->loans) > 0 && mpr_queue_news(&p->call)) {
        struct mpr_log_get get;
        mpr_queue_get_of(&p->call, &get);
        err = mpr_log_reclaim_loans(&get) > 0 ? how(p) : err;
    }
    return why(p, err);
}

static int put_copy(struct put_call *p)
{
    return mpr_log_put(&p->put);
}

/* Some of those that are left. */
static int put_copies(struct put_call *p)
{
    size_t done = 0;
    int err = mpr_log_put_many(&p->put, p->count, &done);
    p->put.data = (const char *)p->put.data + done * p->put.size;
    p->count -= done;
    return err;
}

static int take_on_loan(struct put_call *p)
{
    return mpr_log_loan(&p->put, &p->loan);
}

static int attempt_put(void *user)
{
    return attempt(user, put_copy);
}

static int attempt_put_many(void *user)
{
    return attempt(user, put_copies);
}

static int attempt_loan(void *user)
{
    return attempt(user, take_on_loan);
}

/* A place that a dead process had for a loan may be what is lacking. */
static int put(struct put_call *p, mpr_attempt_fn *how)
{
    struct mpr_log *log = p->put.log;
    int err = mpr_sleep_until(&log->space, p->put.until, MPROC_EFULL, how, p);
    if (mpr_unlikely(err == MPROC_EFULL)) {
        struct mpr_log_get get;
        mpr_queue_get_of(&p->call, &get);
        err = mpr_log_reclaim_loans(&get) > 0 ? how(p) : err;
    }
    return err;
}

static int put_one(mproc_queue *q, int64_t priority, const void *data,
                   size_t size, mproc_deadline until)
{
    struct put_call p;
    int err = begin(&p, q, until);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (mpr_unlikely(data == NULL && size > 0)) {
        return mpr_queue_end(&p.call, MPROC_EINVAL);
    }
    p.put.data = data;
    p.put.size = size;
    p.put.priority = priority;
    err = put(&p, attempt_put);
    mpr_log_put_done(&p.put);
    return mpr_queue_end(&p.call, err);
}

int mproc_queue_put(mproc_queue *q, const void *data, size_t size,
                    mproc_deadline until)
{
    return put_one(q, 0, data, size, until);
}

int mproc_queue_put_priority(mproc_queue *q, int64_t priority, const void *data,
                             size_t size, mproc_deadline until)
{
    return mpr_object_is(q, MPR_QUEUE) && q->log.order == MPROC_PRIORITY
               ? put_one(q, priority, data, size, until)
               : MPROC_EINVAL;
}

int mproc_queue_putf(mproc_queue *q, mproc_deadline until, const char *fmt, ...)
{
    char small[512], *text = small;
    va_list args;
    if (!mpr_object_is(q, MPR_QUEUE) || fmt == NULL) {
        return MPROC_EINVAL;
    }
    va_start(args, fmt);
    int length = vsnprintf(small, sizeof small, fmt, args);
    va_end(args);
    if (length < 0) {
        return MPROC_EINVAL;
    }
    size_t size = (size_t)length + 1;
    if (size > sizeof small) {
        text = malloc(size);
        if (text == NULL) {
            return MPROC_ENOMEM;
        }
        va_start(args, fmt);
        vsnprintf(text, size, fmt, args);
        va_end(args);
    }
    int err = mproc_queue_put(q, text, size, until);
    if (text != small) {
        free(text);
    }
    return err;
}

int mproc_queue_put_many(mproc_queue *q, const void *items, size_t item_size,
                         size_t count, mproc_deadline until)
{
    struct put_call p;
    size_t bytes, most = count < INT_MAX ? count : INT_MAX;
    int err = begin(&p, q, until);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (__builtin_mul_overflow(item_size, count, &bytes) ||
        (items == NULL && bytes > 0)) {
        return mpr_queue_end(&p.call, MPROC_EINVAL);
    }
    p.put.data = items;
    p.put.size = item_size;
    p.count = most;
    while (p.count > 0 && err == 0) {
        err = put(&p, attempt_put_many);
    }
    mpr_log_put_done(&p.put);
    return mpr_queue_end(&p.call, p.count < most ? (int)(most - p.count) : err);
}

/* ---- loans ------------------------------------------------------------ */

int mproc_queue_loan(mproc_queue *q, mproc_message *m, size_t size,
                     mproc_deadline until)
{
    struct put_call p;
    int err = m == NULL ? MPROC_EINVAL : begin(&p, q, until);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    p.put.size = size;
    err = put(&p, attempt_loan);
    mpr_log_put_done(&p.put);
    if (mpr_likely(err == 0)) {
        mpr_message_set(m, &p.call, &p.loan, MPR_MESSAGE_LOAN);
    }
    return mpr_queue_end(&p.call, err);
}

int mproc_queue_send(mproc_queue *q, mproc_message *m)
{
    struct put_call p;
    mproc_queue *whose;
    int err = begin(&p, q, MPROC_FOREVER);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (mpr_message_read(m, &whose, &p.loan) != MPR_MESSAGE_LOAN ||
        whose != q) {
        return mpr_queue_end(&p.call, MPROC_EINVAL);
    }
    p.put.size = m->size;
    err = why(&p, mpr_log_send(&p.put, &p.loan));
    if (mpr_likely(err == 0)) {
        *m = (mproc_message){0};
    }
    return mpr_queue_end(&p.call, err);
}
