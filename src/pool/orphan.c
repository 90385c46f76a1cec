/* SPDX-License-Identifier: MIT */
/*
 * What is left of a maker that died without freeing it: its pools, once their
 * nurseries and workers are dead too, its results, its iterations. Looked for
 * whenever a process is reaped, under the guard of the slots.
 */
#include "pool/private.h"

/* Nobody, for good: one that is yet to come is refused. */
static bool is_nobody(_Atomic mpr_id *who)
{
    mpr_id id = atomic_load(who);
    if (mpr_is_birth(id) && atomic_compare_exchange_strong(who, &id, 0)) {
        return true;
    }
    return id == 0 || mpr_id_is_dead(id);
}

/* A dead nursery has no more workers to come than its rows tell. */
static bool nobody_uses(mproc_pool *pool)
{
    struct mpr_table *table = atomic_load(&pool->table);
    bool nobody = is_nobody(&pool->nursery);
    for (; nobody && table != NULL; table = table->older) {
        struct mpr_worker *worker;
        for (uint32_t i = 0;
             nobody && (worker = mpr_worker_at(table, i)) != NULL; i++) {
            nobody = is_nobody(&worker->id);
        }
    }
    return nobody;
}

static void end_pool_of_dead(struct mpr_object *object, void *user)
{
    mproc_pool *pool = (mproc_pool *)object;
    uint64_t tag = mpr_object_tag(pool, MPR_POOL);
    if (tag != 0 && mpr_id_is_dead(pool->maker) && nobody_uses(pool)) {
        mpr_object_end_if(user, pool, tag);
    }
}

static void end_result_of_dead(struct mpr_object *object, void *user)
{
    struct mproc_result *result = (struct mproc_result *)object;
    uint64_t tag = mpr_object_tag(result, MPR_RESULT);
    if (tag != 0 && mpr_id_is_dead(result->maker)) {
        mpr_object_end_if(user, result, tag);
    }
}

void mpr_orphans_end(struct mpr_thread *self, mpr_id dead)
{
    (void)dead;
    mpr_object_each(MPR_POOL, end_pool_of_dead, self);
    mpr_object_each(MPR_RESULT, end_result_of_dead, self);
    mpr_iter_end_dead(self);
}
