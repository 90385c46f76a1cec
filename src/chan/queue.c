/* SPDX-License-Identifier: MIT */
#include "chan/queue.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/options.h"

/* ---- making and ending ------------------------------------------------ */

static void end_queue(struct mpr_thread *self, struct mpr_thread *whose,
                      struct mpr_object *object)
{
    struct mproc_queue *q = (struct mproc_queue *)object;
    if (!object->prepared) { /* its maker was killed first: no guards yet */
        return;
    }
    mpr_log_end(&q->log, self, whose);
    mpr_bell_ring(&q->done, INT_MAX);
}

static const struct mpr_object_class queue_class = {
    .type = MPR_QUEUE, .size = sizeof(struct mproc_queue), .end = end_queue};

__attribute__((constructor)) static void register_class(void)
{
    mpr_object_register(&queue_class);
}

static int check_options(const mproc_queue_opts *opts)
{
    if (opts->order < MPROC_FIFO || opts->order > MPROC_PRIORITY ||
        (opts->redeliver && !opts->joinable)) {
        return MPROC_EINVAL;
    }
    return !opts->redeliver && opts->reserved == 0 ? 0 : MPROC_ENOTSUP;
}

/* The first leases need no memory, so what is put can be got. */
static int begin_leases(struct mpr_log *log, struct mpr_thread *self)
{
    int err = mpr_leases_fetch(self);
    if (err == 0) {
        mpr_guard_lock(&log->head.guard, self, self);
        mpr_leases_link(&log->leases, self);
        mpr_guard_unlock(&log->head.guard, self);
    }
    return err;
}

int mproc_queue_new_sized(mproc_queue **out, const mproc_queue_opts *theirs,
                          size_t opts_size)
{
    mproc_queue_opts opts;
    struct mpr_thread *self;
    if (out == NULL) {
        return MPROC_EINVAL;
    }
    int err = mpr_options_read(&opts, sizeof opts, theirs, opts_size);
    if (err < 0 || (err = check_options(&opts)) < 0 ||
        (err = mpr_self(&self)) < 0) {
        return err;
    }
    struct mproc_queue *q = mpr_object_new(self, MPR_QUEUE);
    if (q == NULL) {
        return MPROC_ENOMEM;
    }
    mpr_log_init(&q->log, q->object.prepared);
    q->object.prepared = 1;
    mpr_log_set_order(&q->log, opts.order);
    if (opts.maxsize > 0) {
        q->log.max_items = opts.maxsize;
    }
    atomic_store(&q->shut, MPR_QUEUE_OPEN);
    q->log.joinable = opts.joinable != 0;
    q->log.redeliver = opts.redeliver != 0;
    if (opts.joinable && (err = begin_leases(&q->log, self)) < 0) {
        mpr_object_drop(self, q);
        return err;
    }
    mpr_object_publish(self, q);
    *out = q;
    return 0;
}

void mproc_queue_free(mproc_queue *q)
{
    struct mpr_thread *self;
    if (mpr_object_is(q, MPR_QUEUE) && mpr_self(&self) == 0) {
        mpr_object_end(self, q, MPR_QUEUE);
    }
}

/* ---- a call on a queue ------------------------------------------------ */

/* One call: who makes it, on which queue, as it was when the call began. */
struct call {
    struct mproc_queue *q;
    struct mpr_thread *self;
    uint64_t tag;
    uintptr_t outer;
    mproc_deadline until;
};

static int begin(struct call *call, const mproc_queue *q, mproc_deadline until)
{
    call->q = (struct mproc_queue *)q;
    call->until = until;
    call->tag = mpr_object_tag(q, MPR_QUEUE);
    if (mpr_unlikely(call->tag == 0)) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(&call->self);
    if (mpr_likely(err == 0)) {
        call->outer = mpr_op_begin(call->self, q);
    }
    return err;
}

static int end(const struct call *call, int err)
{
    mpr_op_end(call->self, call->outer);
    return err;
}

/* Why there is nothing to put to or take from: freed, or shut down. */
static int closed_because(const struct call *call)
{
    return mpr_object_unchanged(call->q, call->tag) ? MPROC_ESHUTDOWN
                                                    : MPROC_EINVAL;
}

/* ---- put -------------------------------------------------------------- */

struct put_call {
    struct call call;
    struct mpr_log_put put;
};

static bool is_ended(const struct call *call)
{
    return mpr_unlikely(!mpr_object_unchanged(call->q, call->tag));
}

static int attempt_put(void *user)
{
    struct put_call *p = user;
    int err = is_ended(&p->call) ? MPROC_EINVAL : mpr_log_put(&p->put);
    return mpr_unlikely(err == MPROC_ESHUTDOWN) ? closed_because(&p->call)
                                                : err;
}

static int put(mproc_queue *q, int64_t priority, const void *data, size_t size,
               mproc_deadline until)
{
    struct put_call p;
    int err = begin(&p.call, q, until);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (mpr_unlikely(data == NULL && size > 0)) {
        return end(&p.call, MPROC_EINVAL);
    }
    p.put = (struct mpr_log_put){.log = &q->log,
                                 .self = p.call.self,
                                 .data = data,
                                 .size = size,
                                 .priority = priority,
                                 .until = until,
                                 .object = &q->object,
                                 .tag = p.call.tag};
    err = mpr_sleep_until(&q->log.space, until, MPROC_EFULL, attempt_put, &p);
    mpr_log_put_done(&p.put);
    return end(&p.call, err);
}

int mproc_queue_put(mproc_queue *q, const void *data, size_t size,
                    mproc_deadline until)
{
    return put(q, 0, data, size, until);
}

int mproc_queue_put_priority(mproc_queue *q, int64_t priority, const void *data,
                             size_t size, mproc_deadline until)
{
    return mpr_object_is(q, MPR_QUEUE) && q->log.order == MPROC_PRIORITY
               ? put(q, priority, data, size, until)
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

/* ---- get -------------------------------------------------------------- */

struct get_call {
    struct call call;
    struct mpr_log_get get;
};

static struct mpr_log_get get_of(const struct call *call)
{
    return (struct mpr_log_get){.log = &call->q->log,
                                .self = call->self,
                                .until = call->until,
                                .object = &call->q->object,
                                .tag = call->tag};
}

/* What was to be dropped goes, whoever was killed while dropping it. */
static void drop_rest(const struct call *call)
{
    struct mpr_log_get get = get_of(call);
    while (mpr_log_discard(&get) == 0) {
    }
    mpr_bell_ring(&call->q->done, INT_MAX);
}

/* Looked at first: once shut, nothing comes any more. */
static int attempt_get(void *user)
{
    struct get_call *g = user;
    struct mproc_queue *q = g->call.q;
    uint32_t shut = atomic_load_explicit(&q->shut, memory_order_acquire);
    bool closed = mpr_log_closed(&q->log);
    if (is_ended(&g->call)) {
        return MPROC_EINVAL;
    }
    if (mpr_unlikely(shut == MPR_QUEUE_DROPPED)) {
        drop_rest(&g->call);
    }
    int err = mpr_log_get(&g->get);
    bool over = err == MPROC_ESHUTDOWN || (err == MPROC_EEMPTY && closed);
    return mpr_unlikely(over) ? closed_because(&g->call) : err;
}

static int get(struct get_call *g)
{
    struct mpr_log *log = &g->call.q->log;
    return mpr_sleep_until(&log->items, g->get.until, MPROC_EEMPTY, attempt_get,
                           g);
}

int mproc_queue_get(mproc_queue *q, void *buf, size_t capacity, size_t *size,
                    mproc_deadline until)
{
    struct get_call g;
    int err = begin(&g.call, q, until);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (mpr_unlikely(buf == NULL && capacity > 0)) {
        return end(&g.call, MPROC_EINVAL);
    }
    g.get = get_of(&g.call);
    g.get.data = buf;
    g.get.capacity = capacity;
    g.get.size = size;
    return end(&g.call, get(&g));
}

/* Memory is had before the message is taken, so nothing can be lost. */
int mproc_queue_get_malloc(mproc_queue *q, void **data, size_t *size,
                           mproc_deadline until)
{
    struct get_call g;
    size_t got = 0;
    char *memory = NULL;
    int err = data == NULL ? MPROC_EINVAL : begin(&g.call, q, until);
    if (err < 0) {
        return err;
    }
    g.get = get_of(&g.call);
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
        err = get(&g);
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
    return end(&g.call, err);
}

/* ---- how much is in it ------------------------------------------------ */

size_t mproc_queue_qsize(const mproc_queue *q)
{
    return mpr_object_is(q, MPR_QUEUE) ? (size_t)mpr_log_count(&q->log) : 0;
}

bool mproc_queue_empty(const mproc_queue *q)
{
    return mpr_object_is(q, MPR_QUEUE) && mpr_log_count(&q->log) == 0;
}

bool mproc_queue_full(const mproc_queue *q)
{
    struct mpr_thread *self;
    return mpr_object_is(q, MPR_QUEUE) && q->log.max_items != UINT64_MAX &&
           mpr_self(&self) == 0 && mpr_log_full(&((mproc_queue *)q)->log, self);
}

/* ---- joining ---------------------------------------------------------- */

int mproc_queue_task_done(mproc_queue *q)
{
    struct call call;
    int err = begin(&call, q, MPROC_FOREVER);
    if (err < 0) {
        return err;
    }
    struct mpr_guard *guard = &q->log.head.guard;
    if (!q->log.joinable) {
        return end(&call, MPROC_EINVAL);
    }
    mpr_guard_lock(guard, call.self, call.self);
    err = mpr_leases_acknowledge(&q->log.leases, call.self, !q->log.redeliver);
    mpr_guard_unlock(guard, call.self);
    mpr_heap_free_hand(call.self, call.self, MPR_HAND_BLOCK);
    mpr_heap_free_hand(call.self, call.self, MPR_HAND_SECOND);
    mpr_bell_ring(&q->done, INT_MAX);
    return end(&call, err);
}

static int look_at_rest(const struct call *call)
{
    struct mproc_queue *q = call->q;
    uint64_t head = mpr_log_head(&q->log);
    if (is_ended(call)) {
        return MPROC_EINVAL;
    }
    return head == mpr_log_tail(&q->log) &&
                   !mpr_leases_outstanding(&q->log.leases, q->log.redeliver)
               ? 0
               : MPROC_ETIMEDOUT;
}

static int attempt_join(void *user)
{
    struct call *call = user;
    struct mproc_queue *q = call->q;
    struct mpr_guard *guard = &q->log.head.guard;
    uint32_t shut = atomic_load(&q->shut);
    if (is_ended(call)) {
        return MPROC_EINVAL;
    }
    if (shut == MPR_QUEUE_DROPPED) {
        drop_rest(call);
    }
    if (mpr_guard_lock_until(guard, call->self, call->self, call->until) < 0) {
        return MPROC_ETIMEDOUT;
    }
    int err = look_at_rest(call);
    mpr_guard_unlock(guard, call->self);
    return err;
}

int mproc_queue_join(mproc_queue *q, mproc_deadline until)
{
    struct call call;
    int err = begin(&call, q, until);
    if (err < 0) {
        return err;
    }
    err = !q->log.joinable ? MPROC_EINVAL
                           : mpr_sleep_until(&q->done, until, MPROC_ETIMEDOUT,
                                             attempt_join, &call);
    return end(&call, err);
}

/* ---- shutting down ---------------------------------------------------- */

static void raise_shut(struct mproc_queue *q, uint32_t to)
{
    uint32_t shut = atomic_load(&q->shut);
    while (shut < to && !atomic_compare_exchange_weak(&q->shut, &shut, to)) {
    }
}

int mproc_queue_shutdown(mproc_queue *q, bool immediate)
{
    struct call call;
    int err = begin(&call, q, MPROC_FOREVER);
    if (err < 0) {
        return err;
    }
    mpr_log_close(&q->log, call.self);
    raise_shut(q, immediate ? MPR_QUEUE_DROPPED : MPR_QUEUE_SHUT);
    if (immediate) {
        drop_rest(&call);
    }
    return end(&call, 0);
}
