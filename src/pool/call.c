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
    struct mpr_entry entry;
};

static int attempt_take(void *user)
{
    struct submission *s = user;
    return mpr_pool_take_task(s->pool, s->tag, s->self, &s->entry);
}

static int submit_call(struct submission *s, struct mproc_result *result)
{
    const mproc_call *call = &s->call;
    mproc_pool *pool = s->pool;
    struct mpr_pool_wait wait = {.pool = pool,
                                 .tag = s->tag,
                                 .self = s->self,
                                 .attempt = attempt_take,
                                 .user = s,
                                 .busy = MPROC_EFULL,
                                 .calls = true,
                                 .manual = mpr_pool_is_manual(pool)};
    int err = attempt_take(s);
    if (err == MPROC_EFULL) {
        err = mpr_pool_wait(&wait, &pool->room, s->until);
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
    task->result = result;
    if (result != NULL) {
        result->entry = entry;
    }
    err = copy_arg(pool, s->self, task, call);
    if (err < 0) {
        mpr_pool_refuse_task(pool, s->self, &entry);
        return err;
    }
    return mpr_pool_submit(pool, s->self, &entry);
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
    struct submission s = {
        .pool = p, .tag = mpr_object_tag(p, MPR_POOL), .until = until};
    int err = mpr_pool_check(p, &s.self);
    if (err != 0 || (err = read_call(&s.call, theirs, size)) != 0) {
        return err;
    }
    uintptr_t outer = mpr_op_begin(s.self, p);
    err = out != NULL ? submit_with_result(&s, out) : submit_call(&s, NULL);
    mpr_op_end(s.self, outer);
    return err;
}

/* NOLINTNEXTLINE(readability-function-size): one more than the user writes */
int mproc_pool_apply_sized(mproc_pool *p, const mproc_call *call,
                           size_t call_size, void *out, size_t size,
                           mproc_deadline until)
{
    mproc_result *result = NULL;
    struct mpr_thread *self;
    if (out == NULL && size > 0) {
        return MPROC_EINVAL;
    }
    if (p != NULL && mpr_pool_in_callback(p)) {
        return MPROC_EDEADLK;
    }
    int err = mpr_pool_check(p, &self);
    if (err == 0) {
        err = mproc_pool_apply_async_sized(p, call, call_size, &result, until);
    }
    if (err != 0 || result == NULL) {
        return err == MPROC_EFULL ? MPROC_ETIMEDOUT : err;
    }
    err = mpr_result_wait(result, until, true);
    if (err == MPROC_ETIMEDOUT && !mpr_result_cancel(result, self)) {
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
