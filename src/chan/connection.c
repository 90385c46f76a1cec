/* SPDX-License-Identifier: MIT */
/*
 * The calls on an end that move messages, or wait for them.
 *
 * Who receives and finds nothing asks whether he is left alone: whether the
 * other end is closed, which is for ever. What its holders sent was sent before
 * that is true, so the messages are counted once more after it, and only an end
 * that is left alone and empty is at its end. An end whose last holder is dead
 * is closed by whoever reaps him, or by who asks here, whichever is first.
 */
#include "chan/connection.h"

#include <stdlib.h>

/* ---- beginning a call ------------------------------------------------- */

/* False: it is no handle, or its pipe has ended. */
static bool find_pipe(struct mpr_connection_call *call, mproc_connection *c)
{
    if (mpr_unlikely(!mpr_end_is(c))) {
        return false;
    }
    unsigned which = mpr_end_which(c);
    struct mpr_pipe *pipe = mpr_pipe_of(c);
    call->pipe = pipe;
    call->end = c;
    call->other = &pipe->end[!which];
    call->out = &pipe->log[which];
    call->in = &pipe->log[!which];
    call->tag = mpr_object_tag(pipe, MPR_PIPE);
    return call->tag != 0;
}

/* Who uses an end holds it, until he closes it. */
static int hold(const struct mpr_connection_call *call)
{
    mpr_id me = mpr_self_id();
    for (int i = 0; i < MPR_HOLDERS_FIRST; i++) {
        mpr_id word = mpr_end_load(&call->end->holder[i]);
        if (mpr_likely(word == me)) {
            return 0;
        }
        if (word == (me | MPR_HOLDER_CLOSED)) {
            return MPROC_EINVAL;
        }
    }
    return mpr_connection_hold_slowly(call);
}

int mpr_connection_begin(struct mpr_connection_call *call, mproc_connection *c,
                         mproc_deadline until, int busy)
{
    if (mpr_unlikely(!find_pipe(call, c))) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(&call->self);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    call->until = until;
    call->outer = mpr_op_begin(call->self, call->pipe);
    err = hold(call);
    if (mpr_unlikely(err < 0)) {
        mpr_op_end(call->self, call->outer);
    }
    return err == MPROC_ETIMEDOUT ? busy : err;
}

int mpr_connection_end(const struct mpr_connection_call *call, int err)
{
    mpr_op_end(call->self, call->outer);
    return err;
}

static bool may_send(const struct mpr_connection_call *call)
{
    return !call->pipe->simplex || call->end == &call->pipe->end[1];
}

static bool may_receive(const struct mpr_connection_call *call)
{
    return !call->pipe->simplex || call->end == &call->pipe->end[0];
}

/* Nobody holds the other end, and nobody ever will. */
static bool left_alone(const struct mpr_connection_call *call)
{
    struct mproc_connection *other = call->other;
    if (!atomic_load(&other->closed)) {
        if (mpr_likely(mpr_end_surely_held(other))) {
            return false;
        }
        mpr_pipe_settle(call->pipe, call->self, call->tag, call->until);
    }
    return atomic_load(&other->closed);
}

int mpr_connection_still(const struct mpr_connection_call *call, int err)
{
    return mpr_connection_unchanged(call) && hold(call) == 0 ? err
                                                             : MPROC_EINVAL;
}

/* ---- send ------------------------------------------------------------- */

struct send_call {
    struct mpr_connection_call call;
    struct mpr_log_put put;
};

static int attempt_send(void *user)
{
    struct send_call *s = user;
    if (mpr_unlikely(left_alone(&s->call))) {
        return mpr_connection_still(&s->call, MPROC_EPIPE);
    }
    int err = mpr_log_put(&s->put);
    switch (err) {
    case MPROC_EFULL:
        return mpr_connection_still(&s->call, err);
    case MPROC_ESHUTDOWN:
        return MPROC_EINVAL; /* the pipe has ended */
    default:
        return err;
    }
}

int mproc_connection_send(mproc_connection *c, const void *data, size_t size,
                          mproc_deadline until)
{
    struct send_call s;
    int err = mpr_connection_begin(&s.call, c, until, MPROC_EFULL);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (mpr_unlikely(data == NULL && size > 0)) {
        return mpr_connection_end(&s.call, MPROC_EINVAL);
    }
    if (mpr_unlikely(!may_send(&s.call))) {
        return mpr_connection_end(&s.call, MPROC_EPERM);
    }
    s.put = (struct mpr_log_put){.log = s.call.out,
                                 .self = s.call.self,
                                 .data = data,
                                 .size = size,
                                 .until = until,
                                 .object = &s.call.pipe->object,
                                 .tag = s.call.tag};
    err = mpr_sleep_until(&s.call.out->space, until, MPROC_EFULL, attempt_send,
                          &s);
    mpr_log_put_done(&s.put);
    mpr_watch_settle(s.call.self, s.call.other);
    return mpr_connection_end(&s.call, err);
}

/* ---- receive ---------------------------------------------------------- */

struct recv_call {
    struct mpr_connection_call call;
    struct mpr_log_get get;
};

static struct mpr_log_get get_of(const struct mpr_connection_call *call)
{
    return (struct mpr_log_get){.log = call->in,
                                .self = call->self,
                                .until = call->until,
                                .object = &call->pipe->object,
                                .tag = call->tag};
}

/*
 * Once the other end is left nothing comes any more: so the count is asked
 * after that.
 */
static int attempt_recv(void *user)
{
    struct recv_call *r = user;
    int err = mpr_log_get(&r->get);
    switch (err) {
    case MPROC_EEMPTY:
        if (left_alone(&r->call) && mpr_log_count(r->call.in) == 0) {
            err = MPROC_EOF;
        }
        return mpr_connection_still(&r->call, err);
    case MPROC_ESHUTDOWN:
        return MPROC_EINVAL; /* the pipe has ended */
    default:
        return err;
    }
}

static int begin_recv(struct recv_call *r, mproc_connection *c,
                      mproc_deadline until, int busy)
{
    int err = mpr_connection_begin(&r->call, c, until, busy);
    if (mpr_likely(err == 0) && mpr_unlikely(!may_receive(&r->call))) {
        err = mpr_connection_end(&r->call, MPROC_EPERM);
    }
    return err;
}

static int receive(struct recv_call *r)
{
    int err = mpr_sleep_until(&r->call.in->items, r->get.until, MPROC_EEMPTY,
                              attempt_recv, r);
    mpr_watch_settle(r->call.self, r->call.end);
    return err;
}

int mproc_connection_recv(mproc_connection *c, void *buf, size_t capacity,
                          size_t *size, mproc_deadline until)
{
    struct recv_call r;
    int err = begin_recv(&r, c, until, MPROC_EEMPTY);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (mpr_unlikely(buf == NULL && capacity > 0)) {
        return mpr_connection_end(&r.call, MPROC_EINVAL);
    }
    r.get = get_of(&r.call);
    r.get.data = buf;
    r.get.capacity = capacity;
    r.get.size = size;
    return mpr_connection_end(&r.call, receive(&r));
}

/* Memory is had before the message is taken, so nothing can be lost. */
static int receive_malloc(struct recv_call *r, char **memory, size_t *got)
{
    int err;
    *memory = NULL;
    *got = 0;
    do {
        free(*memory);
        *memory = malloc(*got + 1);
        if (*memory == NULL) {
            return MPROC_ENOMEM;
        }
        r->get.data = *memory;
        r->get.capacity = *got;
        err = receive(r);
    } while (err == MPROC_EMSGSIZE);
    return err;
}

int mproc_connection_recv_malloc(mproc_connection *c, void **data, size_t *size,
                                 mproc_deadline until)
{
    struct recv_call r;
    char *memory;
    size_t got;
    int err =
        data == NULL ? MPROC_EINVAL : begin_recv(&r, c, until, MPROC_EEMPTY);
    if (err < 0) {
        return err;
    }
    r.get = get_of(&r.call);
    r.get.size = &got;
    err = receive_malloc(&r, &memory, &got);
    if (err < 0) {
        free(memory);
    } else {
        memory[got] = '\0';
        *data = memory;
        if (size != NULL) {
            *size = got;
        }
    }
    return mpr_connection_end(&r.call, err);
}

static int attempt_poll(void *user)
{
    struct mpr_connection_call *call = user;
    bool ready = mpr_log_count(call->in) > 0 || left_alone(call);
    return mpr_connection_still(call, ready ? 0 : MPROC_ETIMEDOUT);
}

/* What woke this call may be a message that another thread waits for. */
int mproc_connection_poll(mproc_connection *c, mproc_deadline until)
{
    struct recv_call r;
    int err = begin_recv(&r, c, until, MPROC_ETIMEDOUT);
    if (err < 0) {
        return err;
    }
    err = mpr_sleep_until(&r.call.in->items, until, MPROC_ETIMEDOUT,
                          attempt_poll, &r.call);
    mpr_bell_ring(&r.call.in->items, 1);
    return mpr_connection_end(&r.call, err);
}

/* ---- waiting for it among many ---------------------------------------- */

/* Nobody's stopped process is waited for here. */
static int look_at_end(const struct mpr_connection_call *call)
{
    if (mpr_log_count(call->in) > 0 || atomic_load(&call->other->closed)) {
        return 0;
    }
    if (mpr_likely(mpr_end_surely_held(call->other))) {
        return MPROC_ETIMEDOUT;
    }
    if (!mpr_pipe_settle(call->pipe, call->self, call->tag, MPROC_NOWAIT)) {
        return MPROC_EAGAIN;
    }
    return atomic_load(&call->other->closed) ? 0 : MPROC_ETIMEDOUT;
}

/* Waiting for an end is a use of it. */
static int look(struct mpr_thread *self, const void *handle, uint64_t tag,
                uint32_t *moment)
{
    struct recv_call r;
    (void)self;
    (void)moment;
    if (tag == 0 || mpr_connection_tag(handle) != tag) {
        return MPROC_EINVAL;
    }
    int err =
        begin_recv(&r, (mproc_connection *)handle, MPROC_NOWAIT, MPROC_EAGAIN);
    if (err < 0) {
        return err;
    }
    return mpr_connection_end(
        &r.call, mpr_connection_still(&r.call, look_at_end(&r.call)));
}

static _Atomic uint32_t *items_bell(const void *handle)
{
    const mproc_connection *c = handle;
    return &mpr_pipe_of(c)->log[!mpr_end_which(c)].items;
}

const struct mpr_object_wait mpr_connection_wait = {.look = look,
                                                    .bell = items_bell};

int mproc_connection_fd(mproc_connection *c)
{
    struct recv_call r;
    int err = begin_recv(&r, c, MPROC_FOREVER, MPROC_ETIMEDOUT);
    return err < 0
               ? err
               : mpr_connection_end(&r.call, mpr_watch_fd(r.call.self, MPR_PIPE,
                                                          c, r.call.tag));
}
