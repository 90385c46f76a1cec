/* SPDX-License-Identifier: MIT */
/* One task: apply. */
#include <string.h>

#include "base/options.h"
#include "pool/private.h"

static int read_call(mproc_call *call, const mproc_call *theirs, size_t size)
{
    if (theirs == NULL) {
        return MPROC_EINVAL;
    }
    int err = mpr_options_read(call, sizeof *call, theirs, size);
    if (err < 0) {
        return err;
    }
    bool wrong = call->fn == NULL || !(call->timeout_s >= 0) ||
                 (call->arg == NULL && call->arg_size > 0) ||
                 call->arg_size >= SIZE_MAX / 2;
    return wrong ? MPROC_EINVAL : 0;
}

/* The argument, with its NUL, in the record or in a block of its own. */
static int copy_arg(mproc_pool *pool, struct mpr_thread *self,
                    struct mpr_task *task, const mproc_call *call)
{
    bool large = call->arg_size >= MPR_TASK_ARG;
    char *copy = task->inline_arg;
    if (large) {
        copy = mpr_heap_alloc(self, call->arg_size + 1, MPR_HAND_BLOCK);
        if (copy == NULL) {
            return MPROC_ENOMEM;
        }
        memcpy(task->inline_arg, &copy, sizeof copy);
    }
    if (call->arg_size > 0) {
        memcpy(copy, call->arg, call->arg_size);
    }
    copy[call->arg_size] = '\0';
    if (large) {
        mpr_task_adopt_arg(pool, self, task, call->arg_size);
    } else {
        task->arg_size = call->arg_size;
    }
    return 0;
}

/* What a submission is about. */
struct submission {
    mproc_pool *pool;
    uint64_t tag; /* another: the pool is gone */
    struct mpr_thread *self;
    mproc_call call;
    mproc_deadline until;
    enum mpr_awaited awaited;
    struct mpr_entry entry;
};

static int begin(struct submission *s, mproc_pool *pool,
                 const mproc_call *theirs, size_t size)
{
    s->pool = pool;
    s->tag = mpr_object_tag(pool, MPR_POOL);
    s->awaited = MPR_AWAITED_NOT;
    int err = mpr_pool_check(pool, &s->self);
    return err < 0 ? err : read_call(&s->call, theirs, size);
}

static int attempt_take(void *user)
{
    struct submission *s = user;
    return mpr_pool_take_task(s->pool, s->tag, s->self, &s->entry);
}

static int await_room(struct submission *s)
{
    struct mpr_pool_wait wait = {.pool = s->pool,
                                 .tag = s->tag,
                                 .self = s->self,
                                 .attempt = attempt_take,
                                 .user = s,
                                 .busy = MPROC_EFULL,
                                 .calls = true,
                                 .manual = mpr_pool_is_manual(s->pool)};
    return mpr_pool_wait(&wait, &s->pool->room, s->until);
}

static int submit_call(struct submission *s, struct mproc_result *result)
{
    const mproc_call *call = &s->call;
    mproc_pool *pool = s->pool;
    int err = attempt_take(s);
    if (err == MPROC_EFULL) {
        err = await_room(s);
    }
    if (err < 0) {
        return err;
    }
    struct mpr_entry entry = s->entry;
    struct mpr_task *task = entry.task;
    task->fn = call->fn;
    task->callback = call->callback;
    task->error_callback = call->error_callback;
    task->user = call->user;
    task->limit_ns = mpr_pool_limit(call->timeout_s);
    atomic_store_explicit(&task->priority, call->priority,
                          memory_order_relaxed);
    atomic_store_explicit(&task->awaited, s->awaited, memory_order_relaxed);
    task->result = result;
    if (result != NULL) {
        result->entry = entry;
    }
    err = copy_arg(pool, s->self, task, call);
    if (err < 0) {
        mpr_pool_refuse_task(pool, s->self, &entry);
        return err;
    }
    mpr_task_set_queued(&entry);
    return mpr_pool_send(pool, s->self, &entry);
}

/* The result is the caller's before a callback can look for it there. */
static int submit_with_result(struct submission *s, struct mproc_result **out)
{
    struct mproc_result *result, *before = *out;
    int err = mpr_result_new(s->pool, s->self, &result);
    if (err < 0) {
        return err;
    }
    *out = result;
    err = submit_call(s, result);
    if (err < 0) {
        *out = before;
        mpr_result_release(s->self, result);
        mpr_result_release(s->self, result);
    }
    return err;
}

int mproc_pool_apply_async_sized(mproc_pool *p, const mproc_call *theirs,
                                 size_t size, mproc_result **out,
                                 mproc_deadline until)
{
    struct submission s;
    int err = begin(&s, p, theirs, size);
    if (err < 0) {
        return err;
    }
    s.until = until;
    uintptr_t outer = mpr_op_begin(s.self, p);
    err = out != NULL ? submit_with_result(&s, out) : submit_call(&s, NULL);
    mpr_op_end(s.self, outer);
    return err;
}

/* ---- and its reply ---------------------------------------------------- */

/*
 * Where others do the collector's work, or are to run callbacks, or another
 * record may take the place of this one, it goes by a result.
 */
static bool goes_by_result(const struct submission *s)
{
    const mproc_call *call = &s->call;
    return mpr_pool_is_manual(s->pool) || call->callback != NULL ||
           call->error_callback != NULL ||
           (s->pool->threads && call->timeout_s > 0);
}

static int apply_by_result(struct submission *s, void *out, size_t size)
{
    mproc_result *result = NULL;
    int err = submit_with_result(s, &result);
    if (err < 0) {
        return err;
    }
    err = mpr_result_wait(result, s->until, true);
    if (err == MPROC_ETIMEDOUT && !mpr_result_cancel(result)) {
        err = mpr_result_wait(result, MPROC_FOREVER, true); /* it has ended */
    }
    if (err == 0) {
        err = result->outcome.status;
    }
    if (err == 0 && out != NULL) {
        err = mproc_result_get(result, out, size, NULL, MPROC_FOREVER);
    }
    mproc_result_free(result);
    return err;
}

static enum mpr_task_state state_of(const struct submission *s)
{
    return mpr_task_state(atomic_load(&s->entry.task->word));
}

static int attempt_end(void *user)
{
    enum mpr_task_state state = state_of(user);
    bool pending = state == MPR_TASK_QUEUED || state == MPR_TASK_RUNNING ||
                   state == MPR_TASK_CANCELLING;
    return pending ? MPROC_ETIMEDOUT : 0;
}

/* Nobody was woken for it, and who looks out does not get to run just now. */
static void ask_another(void *user)
{
    const struct submission *s = user;
    if (state_of(s) == MPR_TASK_QUEUED && atomic_load(&s->pool->lookout) != 0) {
        mpr_bell_ring(&s->pool->to_workers, 1);
    }
}

/* Leave it to the collector, cancelled. False: it has ended. */
static bool leave(struct submission *s)
{
    struct mpr_task *task = s->entry.task;
    mpr_pool_lock();
    bool left = attempt_end(s) != 0;
    if (left) {
        atomic_store(&task->awaited, MPR_AWAITED_LEFT);
        left = mpr_pool_cancel(s->pool, &s->entry);
    }
    if (!left) {
        atomic_store(&task->awaited, MPR_AWAITED);
    }
    mpr_pool_unlock();
    return left;
}

/* The pool cannot end before the task is dropped. */
static int apply_awaited(struct submission *s, void *out, size_t size)
{
    s->awaited = MPR_AWAITED;
    int err = submit_call(s, NULL);
    if (err < 0) {
        return err;
    }
    struct mpr_waiting waiting = {.bell = &s->entry.task->bell,
                                  .until = s->until,
                                  .busy = MPROC_ETIMEDOUT,
                                  .attempt = attempt_end,
                                  .user = s,
                                  .sleeps = ask_another};
    if (mpr_sleep_waiting(&waiting) < 0 && leave(s)) {
        return MPROC_ETIMEDOUT;
    }
    mproc_outcome outcome = mpr_pool_take_in(s->pool, &s->entry);
    err = outcome.status;
    if (err == 0 && out != NULL) {
        err = mpr_outcome_hand_out(&outcome, out, size, NULL);
    }
    mpr_pool_drop_task(s->pool, s->self, &s->entry);
    return err;
}

/* NOLINTNEXTLINE(readability-function-size): one more than the user writes */
int mproc_pool_apply_sized(mproc_pool *p, const mproc_call *call,
                           size_t call_size, void *out, size_t size,
                           mproc_deadline until)
{
    struct submission s;
    if (out == NULL && size > 0) {
        return MPROC_EINVAL;
    }
    if (p != NULL && mpr_pool_in_callback(p)) {
        return MPROC_EDEADLK;
    }
    int err = begin(&s, p, call, call_size);
    if (err < 0) {
        return err;
    }
    s.until = until;
    uintptr_t outer = mpr_op_begin(s.self, p);
    err = goes_by_result(&s) ? apply_by_result(&s, out, size)
                             : apply_awaited(&s, out, size);
    mpr_op_end(s.self, outer);
    return err == MPROC_EFULL ? MPROC_ETIMEDOUT : err;
}
