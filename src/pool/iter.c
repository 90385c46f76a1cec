/* SPDX-License-Identifier: MIT */
/* The handle of an iteration, and the calls. */
#include "pool/private.h"

/*
 * The maker's alone. `busy`: a call is under way. `freed`: it was freed in
 * that, which frees it when it ends.
 * Locks: none. Publishes: `busy` and `freed`, each by exchange. Survives: who
 * made it is the only one to use it.
 */
struct mproc_iter {
    struct mpr_object object;
    _Atomic mpr_id maker;
    struct mproc_result *result;
    _Atomic uint32_t busy;
    _Atomic uint32_t freed;
};

static void end_iter(struct mpr_thread *self, struct mpr_thread *whose,
                     struct mpr_object *object)
{
    (void)self;
    (void)whose;
    (void)object; /* what it is over is a result of the maker's */
}

static const struct mpr_object_class iter_class = {
    .type = MPR_ITER, .size = sizeof(struct mproc_iter), .end = end_iter};

static void end_of_dead(struct mpr_object *object, void *user)
{
    struct mproc_iter *iter = (struct mproc_iter *)object;
    uint64_t tag = mpr_object_tag(iter, MPR_ITER);
    if (tag != 0 && mpr_id_is_dead(iter->maker)) {
        mpr_object_end_if(user, iter, tag);
    }
}

void mpr_iter_end_dead(struct mpr_thread *self)
{
    mpr_object_each(MPR_ITER, end_of_dead, self);
}

__attribute__((constructor)) static void register_class(void)
{
    mpr_object_register(&iter_class);
}

/* ---- the calls -------------------------------------------------------- */

/* Complete, and no more in hand, before the user's `next` runs. */
static int imap(mproc_pool *p, struct mpr_thread *self, const mproc_batch *b,
                bool ordered, mproc_iter **out)
{
    struct mproc_result *result;
    int err = mpr_iteration_begin(p, self, b, ordered, &result);
    if (err < 0) {
        return err;
    }
    struct mproc_iter *iter = mpr_object_new(self, MPR_ITER);
    if (iter == NULL) {
        mpr_iteration_end(self, result);
        return MPROC_ENOMEM;
    }
    iter->maker = mpr_self_id();
    iter->result = result;
    atomic_store(&iter->busy, 0);
    atomic_store(&iter->freed, 0);
    mpr_object_publish(self, iter);
    mpr_iteration_send(self, result);
    *out = iter;
    return 0;
}

static int check_and_imap(mproc_pool *p, const mproc_batch *theirs, size_t size,
                          bool ordered, mproc_iter **out)
{
    mproc_batch b;
    struct mpr_thread *self;
    int err = out != NULL ? mpr_pool_check(p, &self) : MPROC_EINVAL;
    if (err < 0 || (err = mpr_batch_read(&b, theirs, size)) < 0) {
        return err;
    }
    uintptr_t outer = mpr_op_begin(self, p);
    err = imap(p, self, &b, ordered, out);
    mpr_op_end(self, outer);
    return err;
}

int mproc_pool_imap_sized(mproc_pool *p, const mproc_batch *b, size_t b_size,
                          mproc_iter **out)
{
    return check_and_imap(p, b, b_size, true, out);
}

int mproc_pool_imap_unordered_sized(mproc_pool *p, const mproc_batch *b,
                                    size_t b_size, mproc_iter **out)
{
    return check_and_imap(p, b, b_size, false, out);
}

static int check(const mproc_iter *it, struct mpr_thread **self)
{
    if (!mpr_object_is(it, MPR_ITER) || atomic_load(&it->freed)) {
        return MPROC_EINVAL;
    }
    int err = mpr_self(self);
    if (err < 0) {
        return err;
    }
    return it->maker == mpr_self_id() ? 0 : MPROC_EPERM;
}

static void free_iter(mproc_iter *it, struct mpr_thread *self)
{
    mpr_iteration_end(self, it->result);
    mpr_object_end(self, it, MPR_ITER);
}

/* Whoever is busy with it frees it. */
void mproc_iter_free(mproc_iter *it)
{
    struct mpr_thread *self;
    if (check(it, &self) < 0 || atomic_exchange(&it->freed, 1)) {
        return;
    }
    if (!atomic_exchange(&it->busy, 1)) {
        free_iter(it, self);
    }
}

int mproc_iter_next(mproc_iter *it, const mproc_outcome **out,
                    mproc_deadline until)
{
    struct mpr_thread *self;
    int err = check(it, &self);
    if (err < 0) {
        return err;
    }
    if (atomic_exchange(&it->busy, 1)) {
        return MPROC_EBUSY;
    }
    uintptr_t outer = mpr_op_begin(self, it);
    err = mpr_iteration_next(self, it->result, out, until);
    mpr_op_end(self, outer);
    atomic_store(&it->busy, 0);
    if (atomic_load(&it->freed) && !atomic_exchange(&it->busy, 1)) {
        free_iter(it, self);
        return MPROC_EINVAL;
    }
    return err;
}

/* Its arrays and callbacks are the collector's matter. */
static int map_all(struct mpr_thread *self, struct mproc_result *result,
                   mproc_deadline until)
{
    int err;
    do {
        err = mpr_iteration_next(self, result, NULL, until);
    } while (err == 0);
    if (err == MPROC_EOF || (err < 0 && err != MPROC_ETIMEDOUT &&
                             result->outcome.status != MPROC_OK)) {
        err = result->outcome.status;
    }
    return err;
}

int mpr_iter_map(mproc_pool *pool, struct mpr_thread *self,
                 const mproc_batch *b, mproc_deadline until)
{
    struct mproc_result *result;
    uintptr_t outer = mpr_op_begin(self, pool);
    int err = mpr_iteration_begin(pool, self, b, false, &result);
    if (err == 0) {
        err = map_all(self, result, until);
        mpr_iteration_end(self, result);
    }
    mpr_op_end(self, outer);
    return err;
}
