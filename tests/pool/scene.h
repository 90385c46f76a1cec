/* SPDX-License-Identifier: MIT */
/* A pool without processes: the test is them all, one after the other. */
#ifndef MPROC_POOL_SCENE_H
#define MPROC_POOL_SCENE_H

#include "test.h"

#include "pool/private.h"

static inline int add_one(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg + 1;
    (void)size;
    return mproc_reply_set(reply, &n, sizeof n);
}

struct scene {
    mproc_pool *p;
    struct mpr_thread *self;
};

static inline struct mpr_worker *row(const struct scene *s, uint32_t i)
{
    return mpr_worker_at(atomic_load(&s->p->table), i);
}

/* Two workers, who leave after one task, or item. */
static inline void begin(struct scene *s, size_t retries)
{
    mproc_pool_opts opts = {
        .workers = 2, .max_tasks_per_child = 1, .retries = retries};
    assert_ok(mpr_self(&s->self));
    assert_ok(mpr_pool_begin(&s->p, s->self, &opts));
    assert_ok(mpr_pool_new_table(s->p, s->self));
    for (uint32_t i = 0; i < 2; i++) {
        atomic_store(&row(s, i)->id, mpr_self_id());
    }
}

static inline void collect(const struct scene *s)
{
    while (mpr_collector_take_in(s->p, s->self)) {
    }
}

#endif
