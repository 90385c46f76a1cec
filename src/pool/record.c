/* SPDX-License-Identifier: MIT */
/*
 * The blocks that a task's record names: which are its own changes under the
 * guard `replies` of its pool, so that nobody's death frees one twice.
 */
#include "pool/private.h"

static bool is_the_results(const struct mproc_result *result, const void *block)
{
    return result != NULL && (block == result->reply || block == result->error);
}

/* Under `replies`: a block that the pool names is no longer in hand. */
static bool is_the_pools(const mproc_pool *pool, const void *block)
{
    const struct mpr_task *task = atomic_load(&pool->adopting);
    const struct mpr_table *part = atomic_load(&pool->table);
    while (part != NULL && part != block) {
        part = atomic_load(&((struct mpr_table *)part)->more);
    }
    return block == pool->slabs || part == block ||
           (task != NULL &&
            (block == task->reply || block == mpr_task_block(task) ||
             is_the_results(task->result, block)));
}

static void repair_replies(struct mpr_guard *guard, struct mpr_thread *hands)
{
    mproc_pool *pool =
        (mproc_pool *)((char *)guard - offsetof(mproc_pool, replies));
    for (int i = 0; hands != NULL && i < 2; i++) {
        enum mpr_hand hand = i == 0 ? MPR_HAND_BLOCK : MPR_HAND_SECOND;
        void *p = mpr_hand(hands, hand);
        if (p != NULL && is_the_pools(pool, p)) {
            mpr_hand_set(hands, hand, NULL);
        }
    }
}

__attribute__((constructor)) static void register_repair(void)
{
    mpr_guard_on_repair(MPR_GUARD_POOL, repair_replies);
}

/* Of a dead one `whose` hands may be used, and are empty. */
static void adopt(mproc_pool *pool, struct mpr_thread *self,
                  struct mpr_thread *whose, struct mpr_task *task)
{
    bool block = task->reply != NULL && task->reply != task->inline_reply;
    mpr_guard_lock(&pool->replies, self, whose);
    atomic_store(&pool->adopting, task);
    if (block) {
        mpr_hand_set(whose, MPR_HAND_SECOND, task->reply);
    }
    atomic_signal_fence(memory_order_seq_cst);
    *(void *volatile *)&task->reply = mpr_hand(whose, MPR_HAND_BLOCK);
    mpr_hand_set(whose, MPR_HAND_BLOCK, NULL);
    mpr_guard_unlock(&pool->replies, self);
    mpr_heap_free_hand(self, whose, MPR_HAND_SECOND);
}

void mpr_worker_adopt(mproc_pool *pool, struct mpr_thread *self,
                      struct mpr_task *task)
{
    adopt(pool, self, self, task);
}

void mpr_task_hand_over(mproc_pool *pool, struct mpr_thread *self,
                        struct mpr_task *task)
{
    if (task->reply == NULL) {
        return;
    }
    mpr_guard_lock(&pool->replies, self, self);
    atomic_store(&pool->adopting, task);
    mpr_hand_set(self, MPR_HAND_SECOND, task->reply);
    *(void *volatile *)&task->reply = NULL;
    *(void *volatile *)&task->result->reply = mpr_hand(self, MPR_HAND_SECOND);
    mpr_hand_set(self, MPR_HAND_SECOND, NULL);
    mpr_guard_unlock(&pool->replies, self);
}

void mpr_task_adopt_arg(mproc_pool *pool, struct mpr_thread *self,
                        struct mpr_task *task, size_t arg_size)
{
    mpr_guard_lock(&pool->replies, self, self);
    atomic_store(&pool->adopting, task);
    *(volatile size_t *)&task->arg_size = arg_size;
    mpr_hand_set(self, MPR_HAND_BLOCK, NULL);
    mpr_guard_unlock(&pool->replies, self);
}

void mpr_task_free_all(mproc_pool *pool, struct mpr_thread *self,
                       struct mpr_thread *whose, struct mpr_task *task)
{
    void *block = mpr_task_block(task);
    if (block != NULL) {
        mpr_guard_lock(&pool->replies, self, whose);
        atomic_store(&pool->adopting, task);
        mpr_hand_set(whose, MPR_HAND_SECOND, block);
        *(volatile size_t *)&task->arg_size = 0;
        mpr_guard_unlock(&pool->replies, self);
        mpr_heap_free_hand(self, whose, MPR_HAND_SECOND);
    }
    if (task->reply == task->inline_reply) {
        task->reply = NULL;
    }
    if (task->reply != NULL) {
        adopt(pool, self, whose, task);
    }
}
