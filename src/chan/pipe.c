/* SPDX-License-Identifier: MIT */
/*
 * Who holds an end is written in the pipe, not counted: a process that ends, in
 * whatever way, holds nothing from then on, and nobody has to take its part
 * back.
 */
#include "chan/pipe.h"

#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "chan/watch.h"

#define MARK UINT64_C(0x6d70726320656e64) /* "mprc end"; lowest bit: which */

/* ---- holders ---------------------------------------------------------- */

/* All holders' words of an end, one by one; with the guard locked. */
struct words {
    _Atomic mpr_id *at;
    unsigned left;
    struct mpr_holder_chunk *next;
};

static struct words words_of(struct mproc_connection *end)
{
    return (struct words){end->holder, MPR_HOLDERS_FIRST,
                          atomic_load(&end->more)};
}

static _Atomic mpr_id *next_word(struct words *words)
{
    if (words->left == 0) {
        if (words->next == NULL) {
            return NULL;
        }
        words->at = words->next->holder;
        words->left = MPR_HOLDERS_A_CHUNK;
        words->next = words->next->next;
    }
    words->left--;
    return words->at++;
}

static mpr_id load_word(const _Atomic mpr_id *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static bool holds(mpr_id word)
{
    return word != 0 && !(word & MPR_HOLDER_CLOSED) && !mpr_id_is_dead(word);
}

static bool is_free(mpr_id word)
{
    return word == 0 || mpr_id_is_dead(word & ~MPR_HOLDER_CLOSED);
}

/* Others may take it at the same time, also without the guard. */
static bool take_if_free(_Atomic mpr_id *word, mpr_id id)
{
    mpr_id before = load_word(word);
    return is_free(before) && atomic_compare_exchange_strong(word, &before, id);
}

/* Without the guard. False tells nothing. */
static bool surely_held(const struct mproc_connection *end)
{
    for (int i = 0; i < MPR_HOLDERS_FIRST; i++) {
        if (holds(load_word(&end->holder[i]))) {
            return true;
        }
    }
    return false;
}

/* The rest: with the guard locked. */

static bool is_held(struct mproc_connection *end)
{
    struct words words = words_of(end);
    for (const _Atomic mpr_id *word; (word = next_word(&words)) != NULL;) {
        if (holds(load_word(word))) {
            return true;
        }
    }
    return false;
}

/* The word of a process that holds the end or has closed it. */
static _Atomic mpr_id *find_word(struct mproc_connection *end, mpr_id id)
{
    struct words words = words_of(end);
    _Atomic mpr_id *word;
    while ((word = next_word(&words)) != NULL) {
        if ((load_word(word) & ~MPR_HOLDER_CLOSED) == id) {
            break;
        }
    }
    return word;
}

static bool take_word(struct mproc_connection *end, mpr_id id)
{
    struct words words = words_of(end);
    for (_Atomic mpr_id *word; (word = next_word(&words)) != NULL;) {
        if (take_if_free(word, id)) {
            return true;
        }
    }
    return false;
}

/* The chunk in the hand MPR_HAND_SECOND becomes the end's. */
static void link_chunk(struct mproc_connection *end, struct mpr_thread *self)
{
    struct mpr_holder_chunk *chunk = mpr_hand(self, MPR_HAND_SECOND);
    for (int i = 0; i < MPR_HOLDERS_A_CHUNK; i++) {
        atomic_store_explicit(&chunk->holder[i], 0, memory_order_relaxed);
    }
    chunk->next = atomic_load(&end->more);
    atomic_store(&end->more, chunk);
    mpr_hand_set(self, MPR_HAND_SECOND, NULL);
}

/* EAGAIN: a chunk is needed in hand. EINVAL: the end is closed for ever. */
static int add_holder(struct mproc_connection *end, struct mpr_thread *self,
                      mpr_id id)
{
    if (atomic_load(&end->closed)) {
        return MPROC_EINVAL;
    }
    while (!take_word(end, id)) {
        if (mpr_hand(self, MPR_HAND_SECOND) == NULL) {
            return MPROC_EAGAIN;
        }
        link_chunk(end, self);
    }
    return 0;
}

static int fetch_chunk(struct mpr_thread *self)
{
    size_t size = sizeof(struct mpr_holder_chunk);
    return mpr_heap_alloc(self, size, MPR_HAND_SECOND) != NULL ? 0
                                                               : MPROC_ENOMEM;
}

/* ---- settling --------------------------------------------------------- */

/*
 * Everybody who waits for something at this pipe looks again. Harmless, should
 * it be another pipe meanwhile.
 */
static void ring_all(struct mpr_pipe *pipe)
{
    for (int i = 0; i < 2; i++) {
        mpr_bell_ring(&pipe->log[i].items, INT_MAX);
        mpr_bell_ring(&pipe->log[i].space, INT_MAX);
    }
}

/* Closes the ends that nobody holds. How many of them are closed. */
static int close_unheld(struct mpr_pipe *pipe)
{
    int closed = 0;
    for (int i = 0; i < 2; i++) {
        struct mproc_connection *end = &pipe->end[i];
        if (!atomic_load(&end->closed) && !is_held(end)) {
            atomic_store(&end->closed, 1);
        }
        closed += atomic_load(&end->closed) != 0;
    }
    return closed;
}

/*
 * Draw the conclusions from who holds what, if it is still the pipe that had
 * this tag: close ends, tell those who wait, end the pipe. May be repeated.
 * `until` bounds the wait for the guard; false: it was not to be had.
 */
static bool settle(struct mpr_pipe *pipe, struct mpr_thread *self, uint64_t tag,
                   mproc_deadline until)
{
    if (mpr_guard_lock_until(&pipe->guard, self, self, until) < 0) {
        return false;
    }
    int closed = mpr_object_unchanged(pipe, tag) ? close_unheld(pipe) : 0;
    mpr_guard_unlock(&pipe->guard, self);
    if (closed > 0) {
        ring_all(pipe);
    }
    if (closed == 2) {
        mpr_object_end_if(self, pipe, tag);
    }
    return true;
}

/*
 * Somebody died. Who has the guard for long, being stopped, holds an end: when
 * he closes it or ends, this is done again; and who waits at the pipe, being
 * told of the death, tries it himself.
 */
static void settle_any(struct mpr_object *object, void *user)
{
    struct mpr_pipe *pipe = (struct mpr_pipe *)object;
    uint64_t tag = mpr_object_tag(pipe, MPR_PIPE);
    if (tag != 0 &&
        !(surely_held(&pipe->end[0]) && surely_held(&pipe->end[1]))) {
        settle(pipe, user, tag, MPROC_NOWAIT);
    }
}

static void reap_holds(struct mpr_thread *self, mpr_id dead)
{
    (void)dead;
    mpr_object_each(MPR_PIPE, settle_any, self);
}

/* What was linked, or is not yet unlinked, is the end's. */
static void repair(struct mpr_guard *guard, struct mpr_thread *hands)
{
    struct mpr_pipe *pipe =
        (struct mpr_pipe *)((char *)guard - offsetof(struct mpr_pipe, guard));
    const void *in_hand = hands ? mpr_hand(hands, MPR_HAND_SECOND) : NULL;
    for (int i = 0; i < 2 && in_hand != NULL; i++) {
        const struct mpr_holder_chunk *chunk = atomic_load(&pipe->end[i].more);
        while (chunk != NULL && chunk != in_hand) {
            chunk = chunk->next;
        }
        if (chunk == in_hand) {
            mpr_hand_set(hands, MPR_HAND_SECOND, NULL);
        }
    }
}

/* ---- inheriting ------------------------------------------------------- */

struct heir {
    struct mpr_thread *self;
    mpr_id parent;
    mpr_id child;
    int32_t count;
};

/* Among the first words. */
static bool is_among_first(const struct mproc_connection *end, mpr_id id)
{
    for (int i = 0; i < MPR_HOLDERS_FIRST; i++) {
        if (load_word(&end->holder[i]) == id) {
            return true;
        }
    }
    return false;
}

/*
 * Without the guard, which a process that is stopped may have, and a fork
 * should not wait for that one: while the parent holds the end, and the parent
 * is in fork(), the end is not closed nor the pipe ended.
 */
static bool add_heir_at_once(struct mproc_connection *end,
                             const struct heir *heir)
{
    for (int i = 0; i < MPR_HOLDERS_FIRST; i++) {
        if (take_if_free(&end->holder[i], heir->child)) {
            return true;
        }
    }
    return false;
}

static int add_heir(struct mpr_pipe *pipe, struct mproc_connection *end,
                    uint64_t tag, const struct heir *heir)
{
    int err = MPROC_EINVAL;
    mpr_guard_lock(&pipe->guard, heir->self, heir->self);
    if (mpr_object_unchanged(pipe, tag)) {
        const _Atomic mpr_id *parent = find_word(end, heir->parent);
        if (parent != NULL && load_word(parent) == heir->parent) {
            err = add_holder(end, heir->self, heir->child);
        }
    }
    mpr_guard_unlock(&pipe->guard, heir->self);
    return err;
}

/* Without memory for its word the child has no part in it until it uses it. */
static bool inherit_end(struct mpr_pipe *pipe, struct mproc_connection *end,
                        uint64_t tag, const struct heir *heir)
{
    bool among_first = is_among_first(end, heir->parent);
    if (among_first && add_heir_at_once(end, heir)) {
        return true;
    }
    if (!among_first && atomic_load(&end->more) == NULL) {
        return false;
    }
    int err = add_heir(pipe, end, tag, heir);
    if (err == MPROC_EAGAIN && fetch_chunk(heir->self) == 0) {
        err = add_heir(pipe, end, tag, heir);
        mpr_heap_free_hand(heir->self, heir->self, MPR_HAND_SECOND);
    }
    return err == 0;
}

/*
 * Who sleeps until nobody holds the end does not watch the new holder yet. It
 * will: the old one closes the end or dies, and either wakes it.
 */
static void inherit_pipe(struct mpr_object *object, void *user)
{
    struct mpr_pipe *pipe = (struct mpr_pipe *)object;
    struct heir *heir = user;
    uint64_t tag = mpr_object_tag(pipe, MPR_PIPE);
    for (int i = 0; i < 2 && tag != 0; i++) {
        if (inherit_end(pipe, &pipe->end[i], tag, heir)) {
            heir->count++;
        }
    }
}

static int32_t inherit_holds(struct mpr_thread *self, mpr_id parent,
                             mpr_id child)
{
    struct heir heir = {self, parent, child, 0};
    mpr_object_each(MPR_PIPE, inherit_pipe, &heir);
    return heir.count;
}

/* ---- making and ending ------------------------------------------------ */

static bool drop_chunk(struct mproc_connection *end, struct mpr_thread *whose)
{
    struct mpr_holder_chunk *chunk = atomic_load(&end->more);
    if (chunk != NULL) {
        mpr_hand_set(whose, MPR_HAND_SECOND, chunk);
        atomic_store(&end->more, chunk->next);
    }
    return chunk != NULL;
}

static void end_pipe(struct mpr_thread *self, struct mpr_thread *whose,
                     struct mpr_object *object)
{
    struct mpr_pipe *pipe = (struct mpr_pipe *)object;
    if (!object->prepared) {
        return;
    }
    mpr_log_end(&pipe->log[0], self, whose);
    mpr_log_end(&pipe->log[1], self, whose);
    bool dropped;
    do {
        mpr_heap_free_hand(self, whose, MPR_HAND_SECOND);
        mpr_guard_lock(&pipe->guard, self, whose);
        dropped = drop_chunk(&pipe->end[0], whose) ||
                  drop_chunk(&pipe->end[1], whose);
        mpr_guard_unlock(&pipe->guard, self);
    } while (dropped);
}

static int look(struct mpr_thread *self, const void *handle, uint64_t tag,
                uint32_t *moment);
static _Atomic uint32_t *items_bell(const void *handle);

static const struct mpr_object_wait pipe_wait = {.look = look,
                                                 .bell = items_bell};

static const struct mpr_object_class pipe_class = {.type = MPR_PIPE,
                                                   .size =
                                                       sizeof(struct mpr_pipe),
                                                   .end = end_pipe,
                                                   .wait = &pipe_wait};

__attribute__((constructor)) static void register_pipes(void)
{
    mpr_object_register(&pipe_class);
    mpr_guard_on_repair(MPR_GUARD_PIPES, repair);
    mpr_slots_on_reap(reap_holds);
    mpr_slots_on_fork(inherit_holds);
}

/* Nobody looks at a pipe that is not live. */
static void begin_pipe(struct mpr_pipe *pipe, const mproc_pipe_opts *opts)
{
    bool prepared = pipe->object.prepared;
    if (!prepared) {
        mpr_guard_init(&pipe->guard, MPR_GUARD_PIPES);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct mproc_connection *end = &pipe->end[i];
        end->mark = MARK ^ i;
        atomic_store(&end->closed, 0);
        atomic_store(&end->more, NULL);
        for (int j = 0; j < MPR_HOLDERS_FIRST; j++) {
            atomic_store(&end->holder[j], j == 0 ? mpr_self_id() : 0);
        }
        mpr_log_init(&pipe->log[i], prepared);
        pipe->log[i].max_bytes = MPR_PIPE_BYTES;
        pipe->log[i].max_items = MPR_PIPE_ITEMS;
    }
    pipe->simplex = opts->simplex != 0;
    pipe->object.prepared = 1;
}

/* What the dead have left may be what is lacking. */
static struct mpr_pipe *new_object(struct mpr_thread *self)
{
    struct mpr_pipe *pipe = mpr_object_new(self, MPR_PIPE);
    if (pipe == NULL && mpr_slots_reap(self).reaped > 0) {
        pipe = mpr_object_new(self, MPR_PIPE);
    }
    return pipe;
}

int mproc_pipe_new_sized(mproc_connection **a, mproc_connection **b,
                         const mproc_pipe_opts *theirs, size_t opts_size)
{
    mproc_pipe_opts opts;
    struct mpr_thread *self;
    if (a == NULL || b == NULL) {
        return MPROC_EINVAL;
    }
    int err = mpr_options_read(&opts, sizeof opts, theirs, opts_size);
    if (err < 0) {
        return err;
    }
    if (opts.reserved != 0) {
        return MPROC_ENOTSUP;
    }
    if ((err = mpr_self(&self)) < 0) {
        return err;
    }
    struct mpr_pipe *pipe = new_object(self);
    if (pipe == NULL) {
        return MPROC_ENOMEM;
    }
    begin_pipe(pipe, &opts);
    mpr_heritage_begin();
    mpr_held_add(self, 2);
    mpr_object_publish(self, pipe);
    mpr_heritage_end(2);
    *a = &pipe->end[0];
    *b = &pipe->end[1];
    return 0;
}

/* ---- a call on an end ------------------------------------------------- */

/* Who makes it, on which end of which pipe, as that was when it began. */
struct call {
    struct mpr_pipe *pipe;
    struct mproc_connection *end;
    struct mproc_connection *other;
    struct mpr_log *out;
    struct mpr_log *in;
    struct mpr_thread *self;
    uint64_t tag;
    uintptr_t outer;
    mproc_deadline until; /* bounds also the waits for guards */
};

static bool is_connection(const mproc_connection *c)
{
    return (uintptr_t)c % MPR_LINE == 0 && mpr_family_holds(c, sizeof *c) &&
           (c->mark | 1) == (MARK | 1);
}

/* False: its pipe has ended. */
static bool find_pipe(struct call *call, mproc_connection *c)
{
    unsigned which = (c->mark ^ MARK) != 0;
    struct mproc_connection *first = c - which;
    struct mpr_pipe *pipe =
        (struct mpr_pipe *)(void *)((char *)first -
                                    offsetof(struct mpr_pipe, end));
    call->pipe = pipe;
    call->end = c;
    call->other = &pipe->end[!which];
    call->out = &pipe->log[which];
    call->in = &pipe->log[!which];
    call->tag = mpr_object_tag(pipe, MPR_PIPE);
    return call->tag != 0;
}

static bool unchanged(const struct call *call)
{
    return mpr_object_unchanged(call->pipe, call->tag);
}

/* One try with the guard locked. */
static int hold_locked(const struct call *call, bool *added)
{
    if (!unchanged(call)) {
        return MPROC_EINVAL;
    }
    const _Atomic mpr_id *word = find_word(call->end, mpr_self_id());
    if (word != NULL) {
        return load_word(word) & MPR_HOLDER_CLOSED ? MPROC_EINVAL : 0;
    }
    mpr_held_add(call->self, 1);
    int err = add_holder(call->end, call->self, mpr_self_id());
    *added = err == 0;
    if (!*added) {
        mpr_held_add(call->self, -1);
    }
    return err;
}

/* ETIMEDOUT: somebody has the guard for long. */
static int hold_slowly(const struct call *call)
{
    struct mpr_thread *self = call->self;
    bool added = false;
    int err;
    mpr_heritage_begin();
    do {
        err = mpr_guard_lock_until(&call->pipe->guard, self, self, call->until);
        if (err == 0) {
            err = hold_locked(call, &added);
            mpr_guard_unlock(&call->pipe->guard, self);
        }
    } while (err == MPROC_EAGAIN && fetch_chunk(self) == 0);
    mpr_heritage_end(added);
    if (mpr_hand(self, MPR_HAND_SECOND) != NULL) {
        mpr_heap_free_hand(self, self, MPR_HAND_SECOND);
    }
    return err == MPROC_EAGAIN ? MPROC_ENOMEM : err;
}

/* Who uses an end holds it, until he closes it. */
static int hold(const struct call *call)
{
    mpr_id me = mpr_self_id();
    for (int i = 0; i < MPR_HOLDERS_FIRST; i++) {
        mpr_id word = load_word(&call->end->holder[i]);
        if (mpr_likely(word == me)) {
            return 0;
        }
        if (word == (me | MPR_HOLDER_CLOSED)) {
            return MPROC_EINVAL;
        }
    }
    return hold_slowly(call);
}

/* `busy`: what to answer when the deadline passes before it has begun. */
static int begin(struct call *call, mproc_connection *c, mproc_deadline until,
                 int busy)
{
    if (mpr_unlikely(!is_connection(c) || !find_pipe(call, c))) {
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

static int end(const struct call *call, int err)
{
    mpr_op_end(call->self, call->outer);
    return err;
}

void mpr_pipe_hold_in(const void *bytes, size_t size)
{
    const mproc_deadline soon = mpr_deadline_after(mpr_os_now(), 1, 1e9);
    struct call call;
    for (size_t at = 0; at + sizeof(void *) <= size; at += sizeof(void *)) {
        mproc_connection *c;
        memcpy(&c, (const char *)bytes + at, sizeof(void *));
        if (begin(&call, c, soon, MPROC_EAGAIN) == 0) {
            end(&call, 0);
        }
    }
}

static bool may_send(const struct call *call)
{
    return !call->pipe->simplex || call->end == &call->pipe->end[1];
}

static bool may_receive(const struct call *call)
{
    return !call->pipe->simplex || call->end == &call->pipe->end[0];
}

/*
 * Nobody holds the other end, and nobody ever will. What its holders sent was
 * sent before this is true.
 */
static bool left_alone(const struct call *call)
{
    struct mproc_connection *other = call->other;
    if (!atomic_load(&other->closed)) {
        if (mpr_likely(surely_held(other))) {
            return false;
        }
        settle(call->pipe, call->self, call->tag, call->until);
    }
    return atomic_load(&other->closed);
}

/* After nothing came of an attempt: `err`, if waiting is still of use. */
static int still(const struct call *call, int err)
{
    return unchanged(call) && hold(call) == 0 ? err : MPROC_EINVAL;
}

/* ---- send ------------------------------------------------------------- */

struct send_call {
    struct call call;
    struct mpr_log_put put;
};

static int attempt_send(void *user)
{
    struct send_call *s = user;
    if (mpr_unlikely(left_alone(&s->call))) {
        return still(&s->call, MPROC_EPIPE);
    }
    int err = mpr_log_put(&s->put);
    switch (err) {
    case MPROC_EFULL:
        return still(&s->call, err);
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
    int err = begin(&s.call, c, until, MPROC_EFULL);
    if (mpr_unlikely(err < 0)) {
        return err;
    }
    if (mpr_unlikely(data == NULL && size > 0)) {
        return end(&s.call, MPROC_EINVAL);
    }
    if (mpr_unlikely(!may_send(&s.call))) {
        return end(&s.call, MPROC_EPERM);
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
    return end(&s.call, err);
}

/* ---- receive ---------------------------------------------------------- */

struct recv_call {
    struct call call;
    struct mpr_log_get get;
};

static struct mpr_log_get get_of(const struct call *call)
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
        return still(&r->call, err);
    case MPROC_ESHUTDOWN:
        return MPROC_EINVAL; /* the pipe has ended */
    default:
        return err;
    }
}

static int begin_recv(struct recv_call *r, mproc_connection *c,
                      mproc_deadline until, int busy)
{
    int err = begin(&r->call, c, until, busy);
    if (mpr_likely(err == 0) && mpr_unlikely(!may_receive(&r->call))) {
        err = end(&r->call, MPROC_EPERM);
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
        return end(&r.call, MPROC_EINVAL);
    }
    r.get = get_of(&r.call);
    r.get.data = buf;
    r.get.capacity = capacity;
    r.get.size = size;
    return end(&r.call, receive(&r));
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
    return end(&r.call, err);
}

static int attempt_poll(void *user)
{
    struct call *call = user;
    bool ready = mpr_log_count(call->in) > 0 || left_alone(call);
    return still(call, ready ? 0 : MPROC_ETIMEDOUT);
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
    return end(&r.call, err);
}

/* ---- waiting for it among many ---------------------------------------- */

uint64_t mpr_connection_tag(const mproc_connection *c)
{
    struct call call;
    return is_connection(c) && find_pipe(&call, (mproc_connection *)c)
               ? call.tag
               : 0;
}

/* Nobody's stopped process is waited for here. */
static int look_at_end(struct recv_call *r)
{
    struct call *call = &r->call;
    if (mpr_log_count(call->in) > 0 || atomic_load(&call->other->closed)) {
        return 0;
    }
    if (mpr_likely(surely_held(call->other))) {
        return MPROC_ETIMEDOUT;
    }
    if (!settle(call->pipe, call->self, call->tag, MPROC_NOWAIT)) {
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
    return end(&r.call, still(&r.call, look_at_end(&r)));
}

static _Atomic uint32_t *items_bell(const void *handle)
{
    struct call call;
    find_pipe(&call, (mproc_connection *)handle);
    return &call.in->items;
}

int mproc_connection_fd(mproc_connection *c)
{
    struct recv_call r;
    int err = begin_recv(&r, c, MPROC_FOREVER, MPROC_ETIMEDOUT);
    return err < 0 ? err
                   : end(&r.call,
                         mpr_watch_fd(r.call.self, MPR_PIPE, c, r.call.tag));
}

/* ---- close ------------------------------------------------------------ */

/* With the guard locked. EINVAL: another thread was faster. */
static int give_up(const struct call *call)
{
    _Atomic mpr_id *word =
        unchanged(call) ? find_word(call->end, mpr_self_id()) : NULL;
    if (word == NULL || load_word(word) & MPR_HOLDER_CLOSED) {
        return MPROC_EINVAL;
    }
    atomic_store(word, mpr_self_id() | MPR_HOLDER_CLOSED);
    return 0;
}

int mproc_connection_close(mproc_connection *c)
{
    struct call call;
    int err = begin(&call, c, MPROC_FOREVER, MPROC_ETIMEDOUT);
    if (err < 0) {
        return err;
    }
    mpr_heritage_begin();
    mpr_guard_lock(&call.pipe->guard, call.self, call.self);
    err = give_up(&call);
    mpr_guard_unlock(&call.pipe->guard, call.self);
    mpr_heritage_end(err == 0 ? -1 : 0);
    if (err == 0) {
        mpr_held_add(call.self, -1);
        ring_all(call.pipe); /* who waits must watch those who are left */
        settle(call.pipe, call.self, call.tag, MPROC_FOREVER);
        mpr_watch_close(c, call.tag);
        mpr_watch_settle(call.self, call.other);
    }
    return end(&call, err);
}

/* ---- who is there ----------------------------------------------------- */

/* What was found at the other end, in the order of what to answer with. */
struct peers {
    pid_t other;
    mpr_id unborn;
    pid_t own;
};

static struct peers look_for_peers(const struct call *call)
{
    struct peers found = {0, 0, 0};
    mpr_guard_lock(&call->pipe->guard, call->self, call->self);
    struct words words = words_of(call->other);
    const _Atomic mpr_id *at = NULL;
    while (unchanged(call) && (at = next_word(&words)) != NULL) {
        mpr_id word = load_word(at);
        if (!holds(word)) {
            continue;
        }
        if (word == mpr_self_id()) {
            found.own = mpr_os_pid();
        } else if (mpr_id_is_unborn(word)) {
            found.unborn = word;
        } else if (found.other == 0) {
            found.other = mpr_id_pid(word);
        }
    }
    mpr_guard_unlock(&call->pipe->guard, call->self);
    return found;
}

int mproc_connection_peer_pid(mproc_connection *c, pid_t *out)
{
    struct call call;
    int err = out == NULL ? MPROC_EINVAL
                          : begin(&call, c, MPROC_FOREVER, MPROC_ETIMEDOUT);
    if (err < 0) {
        return err;
    }
    struct peers found = look_for_peers(&call);
    while (found.other == 0 && found.unborn != 0) {
        mpr_id_await_birth(call.self, found.unborn);
        found = look_for_peers(&call);
    }
    pid_t pid = found.other != 0 ? found.other : found.own;
    if (pid == 0) {
        return end(&call, still(&call, MPROC_EPIPE));
    }
    *out = pid;
    return end(&call, 0);
}
