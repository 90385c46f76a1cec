/* SPDX-License-Identifier: MIT */
#include "base/options.h"
#include "chan/queue_call.h"

/* ---- what is left behind ---------------------------------------------- */

void mpr_queue_drop_rest(const struct mpr_queue_call *call)
{
    struct mpr_log_get get;
    mpr_queue_get_of(call, &get);
    while (mpr_log_discard(&get) == 0) {
    }
    mpr_bell_ring(&call->q->done, INT_MAX);
}

/*
 * Somebody died. A guard that is held for long is not waited for: what could
 * not be had back now will be by who wants it, being told of the death.
 */
static void reclaim_any(struct mpr_object *object, void *user)
{
    const struct mpr_queue_call call = {.q = (struct mproc_queue *)object,
                                        .self = user,
                                        .tag =
                                            mpr_object_tag(object, MPR_QUEUE),
                                        .until = MPROC_NOWAIT};
    struct mpr_log_get get;
    mpr_queue_get_of(&call, &get);
    if (call.tag != 0 && mpr_log_reclaim_taken(&get) > 0) {
        mpr_bell_ring(&call.q->done, INT_MAX);
    }
    if (call.tag != 0) {
        mpr_log_reclaim_loans(&get);
    }
}

static void reap_leases(struct mpr_thread *self, mpr_id dead)
{
    (void)dead;
    mpr_object_each(MPR_QUEUE, reclaim_any, self);
}

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

/* Ready is what a get would not wait for. */
static bool is_ready(const struct mproc_queue *q)
{
    return mpr_log_count(&q->log) > 0 || mpr_log_closed(&q->log);
}

/* What a dead consumer had is ready too, though nobody could give it back. */
static int look(struct mpr_thread *self, const void *handle, uint64_t tag,
                uint32_t *moment)
{
    (void)moment;
    if (tag == 0 || mpr_object_tag(handle, MPR_QUEUE) != tag) {
        return MPROC_EINVAL;
    }
    const struct mpr_queue_call call = {.q = (struct mproc_queue *)handle,
                                        .self = self,
                                        .tag = tag,
                                        .until = MPROC_NOWAIT};
    struct mpr_log_get get;
    mpr_queue_get_of(&call, &get);
    bool ready = is_ready(call.q);
    if (!ready && call.q->log.redeliver) {
        int back = mpr_log_reclaim_taken(&get);
        if (back < 0) {
            return MPROC_EAGAIN;
        }
        ready = back > 0 && is_ready(call.q);
    }
    return ready ? 0 : MPROC_ETIMEDOUT;
}

static _Atomic uint32_t *items_bell(const void *handle)
{
    return &((struct mproc_queue *)handle)->log.items;
}

static const struct mpr_object_wait queue_wait = {.look = look,
                                                  .bell = items_bell};

static const struct mpr_object_class queue_class = {
    .type = MPR_QUEUE,
    .size = sizeof(struct mproc_queue),
    .end = end_queue,
    .wait = &queue_wait};

__attribute__((constructor)) static void register_class(void)
{
    mpr_object_register(&queue_class);
    mpr_slots_on_reap(reap_leases);
}

static int check_options(const mproc_queue_opts *opts)
{
    if (opts->order < MPROC_FIFO || opts->order > MPROC_PRIORITY ||
        (opts->redeliver && !opts->joinable)) {
        return MPROC_EINVAL;
    }
    return opts->reserved == 0 ? 0 : MPROC_ENOTSUP;
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
    if (opts.redeliver) {
        q->log.redeliver = 1;
        q->log.inline_below = 0;
    }
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
    uint64_t tag = mpr_object_tag(q, MPR_QUEUE);
    if (tag != 0 && mpr_self(&self) == 0) {
        mpr_object_end_if(self, q, tag);
        mpr_watch_close(q, tag);
    }
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
    struct mpr_queue_call call;
    int err = mpr_queue_begin(&call, q, MPROC_FOREVER);
    if (err < 0) {
        return err;
    }
    struct mpr_guard *guard = &q->log.head.guard;
    if (!q->log.joinable) {
        return mpr_queue_end(&call, MPROC_EINVAL);
    }
    mpr_guard_lock(guard, call.self, call.self);
    err = mpr_queue_ended(&call)
              ? MPROC_EINVAL
              : mpr_leases_acknowledge(&q->log.leases, call.self,
                                       !q->log.redeliver);
    mpr_guard_unlock(guard, call.self);
    mpr_heap_free_hand(call.self, call.self, MPR_HAND_BLOCK);
    mpr_heap_free_hand(call.self, call.self, MPR_HAND_SECOND);
    mpr_bell_ring(&q->done, INT_MAX);
    return mpr_queue_end(&call, err);
}

static int look_at_rest(const struct mpr_queue_call *call)
{
    struct mproc_queue *q = call->q;
    uint64_t head = mpr_log_head(&q->log);
    if (mpr_queue_ended(call)) {
        return MPROC_EINVAL;
    }
    return head == mpr_log_tail(&q->log) &&
                   !mpr_leases_outstanding(&q->log.leases, q->log.redeliver)
               ? 0
               : MPROC_ETIMEDOUT;
}

static int attempt_join(void *user)
{
    struct mpr_queue_call *call = user;
    struct mproc_queue *q = call->q;
    struct mpr_guard *guard = &q->log.head.guard;
    uint32_t shut = atomic_load(&q->shut);
    if (mpr_queue_ended(call)) {
        return MPROC_EINVAL;
    }
    if (shut == MPR_QUEUE_DROPPED) {
        struct mpr_log_get get;
        mpr_queue_get_of(call, &get);
        if (q->log.redeliver && mpr_queue_news(call)) {
            mpr_log_reclaim_taken(&get);
        }
        mpr_queue_drop_rest(call);
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
    struct mpr_queue_call call;
    int err = mpr_queue_begin(&call, q, until);
    if (err < 0) {
        return err;
    }
    err = !q->log.joinable ? MPROC_EINVAL
                           : mpr_sleep_until(&q->done, until, MPROC_ETIMEDOUT,
                                             attempt_join, &call);
    return mpr_queue_end(&call, err);
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
    struct mpr_queue_call call;
    int err = mpr_queue_begin(&call, q, MPROC_FOREVER);
    if (err < 0) {
        return err;
    }
    mpr_log_close(&q->log, call.self);
    raise_shut(q, immediate ? MPR_QUEUE_DROPPED : MPR_QUEUE_SHUT);
    if (immediate) {
        mpr_queue_drop_rest(&call);
    }
    return mpr_queue_end(&call, 0);
}

/* ---- a descriptor ----------------------------------------------------- */

int mproc_queue_fd(mproc_queue *q)
{
    struct mpr_queue_call call;
    int err = mpr_queue_begin(&call, q, MPROC_FOREVER);
    if (err < 0) {
        return err;
    }
    err = mpr_watch_fd(call.self, MPR_QUEUE, q, call.tag);
    return mpr_queue_end(&call, err);
}
