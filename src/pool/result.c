/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pool/private.h"

/* ---- life ------------------------------------------------------------- */

/*
 * In hand before it is no longer named: who was killed between has both, which
 * is one block.
 */
static void free_named(struct mpr_thread *self, struct mpr_thread *whose,
                       void **name)
{
    if (mpr_hand(whose, MPR_HAND_BLOCK) != *name) {
        mpr_heap_free_hand(self, whose, MPR_HAND_BLOCK);
        mpr_hand_set(whose, MPR_HAND_BLOCK, *name);
    }
    atomic_signal_fence(memory_order_seq_cst);
    *(void *volatile *)name = NULL;
    mpr_heap_free_hand(self, whose, MPR_HAND_BLOCK);
}

static void end_result(struct mpr_thread *self, struct mpr_thread *whose,
                       struct mpr_object *object)
{
    struct mproc_result *result = (struct mproc_result *)object;
    free_named(self, whose, &result->reply);
    free_named(self, whose, (void **)&result->error);
    mpr_bell_ring(&result->bell, INT_MAX);
}

static int look(struct mpr_thread *self, const void *handle, uint64_t tag,
                uint32_t *moment);
static _Atomic uint32_t *bell(const void *handle);

static const struct mpr_object_wait result_wait = {.look = look, .bell = bell};

static const struct mpr_object_class result_class = {
    .type = MPR_RESULT,
    .size = sizeof(struct mproc_result),
    .end = end_result,
    .wait = &result_wait};

__attribute__((constructor)) static void register_class(void)
{
    mpr_object_register(&result_class);
}

int mpr_result_new(mproc_pool *pool, struct mpr_thread *self,
                   struct mproc_result **out)
{
    struct mproc_result *result = mpr_object_new(self, MPR_RESULT);
    if (result == NULL) {
        return MPROC_ENOMEM;
    }
    atomic_store_explicit(&result->maker, mpr_self_id(), memory_order_relaxed);
    result->pool = pool;
    result->pool_tag = mpr_object_tag(pool, MPR_POOL);
    result->manual = mpr_pool_is_manual(pool);
    atomic_store(&result->users, 2);
    atomic_store(&result->freed, 0);
    atomic_store(&result->ended, 0);
    result->entry = (struct mpr_entry){0};
    result->batch = NULL;
    result->outcome = (mproc_outcome){.data = mpr_no_reply, .error = ""};
    result->reply = NULL;
    result->error = NULL;
    mpr_object_publish(self, result);
    *out = result;
    return 0;
}

void mpr_result_release(struct mpr_thread *self, struct mproc_result *result)
{
    if (atomic_fetch_sub(&result->users, 1) == 1) {
        struct mpr_batch_state *batch = result->batch;
        mpr_object_end(self, result, MPR_RESULT);
        mpr_batch_free(batch);
    }
}

void mpr_result_set_ended(struct mproc_result *result)
{
    atomic_store(&result->ended, 1);
    mpr_bell_ring(&result->bell, INT_MAX);
}

/* Not weaker: who waits has watched its bell before. */
static bool has_ended(const struct mproc_result *result)
{
    return atomic_load(&((struct mproc_result *)result)->ended) != 0;
}

/* ---- waiting ---------------------------------------------------------- */

static int attempt(void *user)
{
    return has_ended(user) ? 0 : MPROC_ETIMEDOUT;
}

/* Would it, not having ended, be waited for by who is to end it? */
static bool in_own_callback(const struct mproc_result *result)
{
    return mpr_pool_in_callback(result->pool);
}

static struct mpr_pool_wait wait_for(const struct mproc_result *result)
{
    return (struct mpr_pool_wait){.pool = (mproc_pool *)result->pool,
                                  .tag = result->pool_tag,
                                  .attempt = attempt,
                                  .user = (void *)result,
                                  .busy = MPROC_ETIMEDOUT,
                                  .manual = result->manual};
}

int mpr_result_await(struct mproc_result *result, mproc_deadline until,
                     bool calls)
{
    struct mpr_pool_wait wait = wait_for(result);
    wait.calls = calls;
    if (has_ended(result)) {
        return 0;
    }
    if (in_own_callback(result)) {
        return MPROC_EDEADLK;
    }
    int err = mpr_self(&wait.self);
    return err < 0 ? err : mpr_pool_wait(&wait, &result->bell, until);
}

static int check(const mproc_result *result, struct mpr_thread **self)
{
    if (!mpr_object_is(result, MPR_RESULT) || atomic_load(&result->freed)) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(self);
    if (err < 0) {
        return err;
    }
    return result->maker == mpr_self_id() ? 0 : MPROC_EPERM;
}

/* With manual dispatch nobody ends it but who looks. */
static int look(struct mpr_thread *self, const void *handle, uint64_t tag,
                uint32_t *moment)
{
    const struct mproc_result *result = handle;
    (void)moment;
    if (tag == 0 || mpr_object_tag(handle, MPR_RESULT) != tag) {
        return MPROC_EINVAL;
    }
    int err = check(handle, &self);
    if (err < 0 || has_ended(handle)) {
        return err;
    }
    if (in_own_callback(handle)) {
        return MPROC_EDEADLK;
    }
    if (!result->manual) {
        return MPROC_ETIMEDOUT;
    }
    struct mpr_pool_wait wait = wait_for(result);
    wait.self = self;
    return mpr_pool_look(&wait);
}

static _Atomic uint32_t *bell(const void *handle)
{
    struct mproc_result *result = (struct mproc_result *)handle;
    return result->manual ? &((mproc_pool *)result->pool)->to_collector
                          : &result->bell;
}

int mpr_result_wait(mproc_result *r, mproc_deadline until, bool calls)
{
    struct mpr_thread *self;
    int err = check(r, &self);
    if (err < 0) {
        return err;
    }
    uintptr_t outer = mpr_op_begin(self, r);
    err = mpr_result_await(r, until, calls);
    mpr_op_end(self, outer);
    return err;
}

int mproc_result_wait(mproc_result *r, mproc_deadline until)
{
    return mpr_result_wait(r, until, false);
}

bool mproc_result_ready(const mproc_result *r)
{
    struct mpr_thread *self;
    return check(r, &self) == 0 && has_ended(r);
}

bool mproc_result_successful(const mproc_result *r)
{
    return mproc_result_ready(r) && r->outcome.status == MPROC_OK;
}

const mproc_outcome *mproc_result_outcome(const mproc_result *r)
{
    return mproc_result_ready(r) ? &r->outcome : NULL;
}

int mpr_outcome_hand_out(const mproc_outcome *outcome, void *buf,
                         size_t capacity, size_t *size)
{
    bool fits =
        size == NULL ? outcome->size == capacity : outcome->size <= capacity;
    if (size != NULL) {
        *size = outcome->size;
    }
    if (!fits) {
        return MPROC_EMSGSIZE;
    }
    if (outcome->size > 0) {
        memcpy(buf, outcome->data, outcome->size);
    }
    return 0;
}

int mproc_result_get(mproc_result *r, void *buf, size_t capacity, size_t *size,
                     mproc_deadline until)
{
    if (mpr_object_is(r, MPR_RESULT) && buf == NULL && capacity > 0) {
        return MPROC_EINVAL;
    }
    int err = mproc_result_wait(r, until);
    if (err < 0) {
        return err;
    }
    if (r->outcome.status != MPROC_OK) {
        return r->outcome.status;
    }
    if (r->batch == NULL) {
        return mpr_outcome_hand_out(&r->outcome, buf, capacity, size);
    }
    if (size != NULL) {
        *size = 0;
    }
    return 0;
}

/* ---- cancelling ------------------------------------------------------- */

/*
 * Locked. The newest first, or the worker of a cancelled chunk would begin the
 * next one. That something is cancelled the batch knows by its `stop`, also
 * where nothing was left to be sent.
 */
static bool cancel_batch(struct mproc_result *result)
{
    mproc_pool *pool = (mproc_pool *)result->pool;
    struct mpr_batch_state *batch = result->batch;
    bool rest = batch->open && batch->stop == 0 && batch->sent < batch->count;
    bool any = rest || batch->stop == MPROC_ECANCELED;
    for (struct mpr_part *part = batch->newest; part; part = part->older) {
        any |= mpr_pool_cancel(pool, &part->entry);
    }
    if (any && batch->stop == 0) {
        batch->stop = MPROC_ECANCELED;
    }
    if (rest) {
        atomic_store(&pool->mine->attend, true);
        mpr_bell_ring(&pool->to_collector, INT_MAX);
    }
    return any;
}

/*
 * What has not ended is pending, and while the lock keeps it so the pool lives.
 */
bool mpr_result_cancel(struct mproc_result *result)
{
    bool any = false;
    mpr_pool_lock();
    if (has_ended(result)) {
        any = false;
    } else if (result->batch != NULL) {
        any = cancel_batch(result);
    } else if (result->entry.task != NULL) {
        any = mpr_pool_cancel((mproc_pool *)result->pool, &result->entry);
    }
    mpr_pool_unlock();
    return any;
}

int mproc_result_cancel(mproc_result *r)
{
    struct mpr_thread *self;
    int err = check(r, &self);
    if (err < 0) {
        return err;
    }
    uintptr_t outer = mpr_op_begin(self, r);
    bool cancelled = mpr_result_cancel(r);
    mpr_op_end(self, outer);
    return cancelled ? 0 : MPROC_EINVAL;
}

/* ---- freeing ---------------------------------------------------------- */

/* Once it has ended nobody sleeps for it; before, its pool lives. */
static void wake_all(struct mproc_result *r)
{
    mpr_pool_lock();
    if (!has_ended(r)) {
        mpr_bell_ring(bell(r), INT_MAX);
    }
    mpr_pool_unlock();
}

void mproc_result_free(mproc_result *r)
{
    struct mpr_thread *self;
    if (check(r, &self) < 0 || atomic_exchange(&r->freed, 1)) {
        return;
    }
    wake_all(r);
    if (r->batch != NULL && !has_ended(r)) {
        mpr_batch_abandon(r);
    }
    mpr_result_release(self, r);
}
