/* SPDX-License-Identifier: MIT */
/* Records of tasks, as the maker has them. */
#include "pool/private.h"

enum { SLAB_SIZE = 65536 };

static size_t tasks_in_slab(void)
{
    return (SLAB_SIZE - sizeof(struct mpr_slab)) / sizeof(struct mpr_task);
}

/* *done of n, all of the same priority. */
static int post_many(struct mpr_log *log, struct mpr_thread *self,
                     const struct mpr_entry *entries, size_t n, size_t *done)
{
    int err = 0;
    for (*done = 0; err == 0 && *done < n;) {
        struct mpr_log_put put = {.log = log,
                                  .self = self,
                                  .data = entries + *done,
                                  .size = sizeof *entries,
                                  .until = MPROC_FOREVER};
        size_t some = 0;
        err = mpr_log_put_many(&put, n - *done, &some);
        mpr_log_put_done(&put);
        *done += some;
    }
    return err;
}

static int post(struct mpr_log *log, struct mpr_thread *self,
                const struct mpr_entry *entry, int64_t priority)
{
    struct mpr_log_put put = {.log = log,
                              .self = self,
                              .data = entry,
                              .size = sizeof *entry,
                              .priority = priority,
                              .until = MPROC_FOREVER};
    int err = mpr_log_put(&put);
    mpr_log_put_done(&put);
    return err;
}

size_t mpr_pool_queued(const mproc_pool *pool)
{
    return mpr_log_count(&pool->todo) + mpr_log_count(&pool->ahead) +
           mpr_log_count(&pool->behind);
}

static void wake_workers(mproc_pool *pool, int n)
{
    if (atomic_load(&pool->lookout) == 0 || mpr_pool_queued(pool) > 1) {
        mpr_bell_ring(&pool->to_workers, n);
    }
}

void mpr_pool_end_lookout(mproc_pool *pool, uint32_t row)
{
    uint32_t own = row + 1;
    atomic_compare_exchange_strong(&pool->lookout, &own, 0);
}

/*
 * A task that has ended meanwhile, and is another by now, may have another
 * priority: an entry that names the old one is skipped, wherever it is.
 */
int mpr_pool_queue(mproc_pool *pool, struct mpr_thread *self,
                   const struct mpr_entry *entry)
{
    int64_t priority =
        atomic_load_explicit(&entry->task->priority, memory_order_relaxed);
    struct mpr_log *log = priority < 0    ? &pool->ahead
                          : priority == 0 ? &pool->todo
                                          : &pool->behind;
    int err = post(log, self, entry, priority);
    if (err == 0) {
        wake_workers(pool, 1);
    }
    return err;
}

int mpr_pool_queue_many(mproc_pool *pool, struct mpr_thread *self,
                        const struct mpr_entry *entries, size_t n, size_t *done)
{
    int err = post_many(&pool->todo, self, entries, n, done);
    if (*done > 0) {
        wake_workers(pool, (int)*done);
    }
    return err;
}

static int take_from(struct mpr_log *log, struct mpr_thread *self,
                     struct mpr_entry *data)
{
    struct mpr_log_get get = {.log = log,
                              .self = self,
                              .data = data,
                              .capacity = sizeof *data,
                              .until = MPROC_FOREVER};
    return mpr_log_get(&get);
}

int mpr_pool_next(mproc_pool *pool, struct mpr_thread *self,
                  struct mpr_entry *data)
{
    int err = mpr_log_count(&pool->ahead) > 0
                  ? take_from(&pool->ahead, self, data)
                  : MPROC_EEMPTY;
    if (err == MPROC_EEMPTY) {
        err = take_from(&pool->todo, self, data);
    }
    if (err == MPROC_EEMPTY && mpr_log_count(&pool->behind) > 0) {
        err = take_from(&pool->behind, self, data);
    }
    return err;
}

/*
 * Where others do the collector's work all of them are woken: one may sleep in
 * a callback, for the sake of its batch, and cannot do that work.
 */
static void call_collector(mproc_pool *pool)
{
    bool manual = mpr_pool_is_manual(pool);
    mpr_bell_ring(&pool->to_collector, manual ? INT_MAX : 1);
    if (!manual || (atomic_load(&pool->shown) & 1) != 0) {
        return;
    }
    if (pool->threads) {
        mpr_pool_show(pool);
    } else {
        mpr_bell_ring(&pool->to_nursery, INT_MAX);
    }
}

void mpr_pool_tell_ended(mproc_pool *pool, struct mpr_task *task,
                         enum mpr_awaited awaited)
{
    if (awaited == MPR_AWAITED) {
        mpr_bell_ring(&task->bell, INT_MAX);
        return;
    }
    struct mpr_task *before =
        atomic_load_explicit(&pool->told, memory_order_relaxed);
    do {
        task->next = before;
    } while (!atomic_compare_exchange_weak(&pool->told, &before, task));
    call_collector(pool);
}

int mpr_pool_tell_doubt(mproc_pool *pool, struct mpr_thread *self,
                        const struct mpr_entry *entry)
{
    int err = post(&pool->doubts, self, entry, 0);
    if (err == 0) {
        call_collector(pool);
    }
    return err;
}

bool mpr_pool_has_told(const mproc_pool *pool)
{
    return atomic_load(&((mproc_pool *)pool)->told) != NULL ||
           mpr_log_count(&pool->doubts) > 0;
}

void mpr_pool_call_keeper(mproc_pool *pool)
{
    if (!pool->threads) {
        mpr_bell_ring(&pool->to_nursery, INT_MAX);
        return;
    }
    atomic_store(&pool->keep, 1);
    mpr_bell_ring(&pool->to_collector, INT_MAX);
    if (mpr_pool_is_manual(pool)) {
        mpr_pool_show(pool);
    }
}

/* Raised before it is said to be, for who is killed in between. */
void mpr_pool_show(mproc_pool *pool)
{
    uint32_t shown = atomic_load(&pool->shown);
    if ((shown & 1) == 0) {
        mpr_os_flag_raise(pool->flag);
        atomic_compare_exchange_strong(&pool->shown, &shown, shown | 1);
    }
}

void mpr_pool_tell_maker(mproc_pool *pool)
{
    mpr_bell_ring(&pool->to_maker, INT_MAX);
    if (mpr_pool_is_manual(pool)) {
        mpr_bell_ring(&pool->to_collector, INT_MAX);
    }
}

/* Locked. Fresh records are FREE with serial 1, and name nothing. */
static bool add_slab(mproc_pool *pool, struct mpr_thread *self)
{
    struct mpr_slab *slab = mpr_heap_alloc(self, SLAB_SIZE, MPR_HAND_BLOCK);
    if (slab == NULL) {
        return false;
    }
    for (size_t i = tasks_in_slab(); i-- > 0;) {
        struct mpr_task *task = &slab->tasks[i];
        task->arg_size = 0;
        task->reply = NULL;
        atomic_store(&task->bell, 0);
        atomic_store(&task->word, mpr_task_word(1, 0, MPR_TASK_FREE));
        task->user = pool->mine->free_tasks;
        pool->mine->free_tasks = task;
    }
    mpr_guard_lock(&pool->replies, self, self);
    slab->next = pool->slabs;
    pool->slabs = slab;
    mpr_hand_set(self, MPR_HAND_BLOCK, NULL);
    mpr_guard_unlock(&pool->replies, self);
    return true;
}

int mpr_pool_may_submit(const mproc_pool *pool)
{
    if (atomic_load(&pool->phase) != MPR_POOL_OPEN) {
        return MPROC_ESHUTDOWN;
    }
    return atomic_load(&pool->broken) ? MPROC_EBROKEN : 0;
}

static void begin_task(struct mpr_task *task)
{
    task->fn = NULL;
    task->arg_size = 0;
    task->reply = NULL;
    task->reply_size = 0;
    task->status = MPROC_OK;
    task->code = 0;
    task->worker = 0;
    task->losses = 0;
    task->result = NULL;
    task->callback = NULL;
    task->error_callback = NULL;
    task->user = NULL;
    task->limit_ns = 0;
    atomic_store_explicit(&task->awaited, MPR_AWAITED_NOT,
                          memory_order_relaxed);
    atomic_store_explicit(&task->priority, 0, memory_order_relaxed);
}

size_t mpr_pool_room(const mproc_pool *pool)
{
    size_t most = pool->max_pending;
    if (most == SIZE_MAX) {
        return most;
    }
    size_t pending = mpr_pool_pending(pool->mine);
    return pending < most ? most - pending : 0;
}

int mpr_pool_take_record(mproc_pool *pool, struct mpr_thread *self,
                         struct mpr_entry *entry)
{
    struct mpr_pool_private *mine = pool->mine;
    if (mine->free_tasks == NULL) {
        mine->free_tasks = atomic_exchange(&mine->given_back, NULL);
    }
    if (mine->free_tasks == NULL && !add_slab(pool, self)) {
        return MPROC_ENOMEM;
    }
    struct mpr_task *task = mine->free_tasks;
    mine->free_tasks = task->user;
    mpr_task_prefetch(mine->free_tasks);
    entry->task = task;
    entry->serial = atomic_load(&task->word) >> 32;
    begin_task(task);
    return 0;
}

/* No more than a load and a store, since who writes it has the lock. */
void mpr_pool_accept(mproc_pool *pool, size_t items)
{
    _Atomic size_t *accepted = &pool->mine->accepted;
    size_t before = atomic_load_explicit(accepted, memory_order_relaxed);
    atomic_store_explicit(accepted, before + items, memory_order_release);
}

/* Locked. */
static int take(mproc_pool *pool, struct mpr_thread *self,
                struct mpr_entry *entry, size_t items)
{
    int err = mpr_pool_take_record(pool, self, entry);
    if (err == 0) {
        mpr_pool_accept(pool, items);
    }
    return err;
}

/* A callback is not to wait for room that it makes itself. */
int mpr_pool_take_task(mproc_pool *pool, uint64_t tag, struct mpr_thread *self,
                       struct mpr_entry *entry)
{
    mpr_pool_lock();
    int err = mpr_object_unchanged(pool, tag) ? mpr_pool_may_submit(pool)
                                              : MPROC_EINVAL;
    if (err == 0 && mpr_pool_room(pool) == 0 && !mpr_pool_in_callback(pool)) {
        err = MPROC_EFULL;
    }
    if (err == 0) {
        err = take(pool, self, entry, 1);
    }
    mpr_pool_unlock();
    return err;
}

int mpr_pool_take_more(struct mproc_result *result, struct mpr_thread *self,
                       struct mpr_part *part)
{
    mproc_pool *pool = (mproc_pool *)result->pool;
    mpr_pool_lock();
    struct mpr_batch_state *batch = result->batch;
    bool stopped = batch->stop != 0;
    int err =
        batch->open || stopped ? mpr_batch_stop(pool, batch) : MPROC_ECANCELED;
    if (err == 0 && mpr_pool_room(pool) < part->items) {
        err = MPROC_EFULL;
    }
    if (err == 0) {
        err = take(pool, self, &part->entry, part->items);
    }
    mpr_pool_unlock();
    return err;
}

void mpr_pool_give_back(mproc_pool *pool, struct mpr_thread *self,
                        const struct mpr_entry *entry)
{
    struct mpr_task *task = entry->task;
    mpr_task_free_all(pool, self, self, task);
    atomic_store_explicit(
        &task->word,
        mpr_task_word((uint32_t)entry->serial + 1, 0, MPR_TASK_FREE),
        memory_order_release);
    struct mpr_task *before = atomic_load(&pool->mine->given_back);
    do {
        task->user = before;
    } while (
        !atomic_compare_exchange_weak(&pool->mine->given_back, &before, task));
}

/* As many as a task counts for. */
static size_t items_of(const struct mpr_task *task)
{
    const struct mpr_chunk *chunk = mpr_task_chunk(task);
    return chunk != NULL ? chunk->count : 1;
}

/* Locked. */
static void make_room(mproc_pool *pool, struct mpr_thread *self, size_t items)
{
    if (pool->max_pending != SIZE_MAX) {
        if (pool->mine->open != NULL) {
            atomic_store(&pool->mine->attend, true);
        }
        mpr_bell_ring(&pool->room, items < INT_MAX ? (int)items : INT_MAX);
    }
    mpr_pool_close_if_done(pool, self);
}

void mpr_pool_drop_task(mproc_pool *pool, struct mpr_thread *self,
                        const struct mpr_entry *entry)
{
    mpr_pool_give_back(pool, self, entry);
    mpr_pool_lock();
    atomic_fetch_add(&pool->mine->collected, 1);
    make_room(pool, self, 1);
    mpr_pool_unlock();
}

/* Who closes the pool does so first, and then looks at what is pending. */
void mpr_collector_end_items(mproc_pool *pool, struct mpr_thread *self,
                             size_t items)
{
    atomic_fetch_add(&pool->mine->collected, items);
    if (pool->max_pending != SIZE_MAX ||
        atomic_load(&pool->phase) != MPR_POOL_OPEN) {
        mpr_pool_lock();
        make_room(pool, self, items);
        mpr_pool_unlock();
    }
}

/*
 * A task that could not be put into the log may have ended all the same: once
 * it is QUEUED, a collector without workers ends it, and drops it.
 */
void mpr_pool_refuse_task(mproc_pool *pool, struct mpr_thread *self,
                          const struct mpr_entry *entry)
{
    size_t items = items_of(entry->task);
    mpr_pool_give_back(pool, self, entry);
    mpr_pool_lock();
    mpr_pool_accept(pool, 0 - items);
    make_room(pool, self, items);
    mpr_pool_unlock();
}

int mpr_pool_send(mproc_pool *pool, struct mpr_thread *self,
                  const struct mpr_entry *entry)
{
    int err = mpr_pool_queue(pool, self, entry);
    if (err < 0) {
        if (!mpr_task_move(entry, 0, MPR_TASK_QUEUED, MPR_TASK_FREE)) {
            return 0;
        }
        mpr_pool_refuse_task(pool, self, entry);
    }
    return err;
}

/* `awaited` is what it is to be once the word says that it is QUEUED. */
bool mpr_pool_cancel(mproc_pool *pool, const struct mpr_entry *entry)
{
    for (;;) {
        uint64_t word = atomic_load(&entry->task->word);
        enum mpr_awaited awaited = atomic_load(&entry->task->awaited);
        uint32_t worker = (uint32_t)word >> 8;
        if (word != mpr_task_word_by(entry, 0, MPR_TASK_QUEUED) &&
            word != mpr_task_word_by(entry, worker, MPR_TASK_RUNNING)) {
            return word ==
                       mpr_task_word_by(entry, worker, MPR_TASK_CANCELLING) ||
                   word == mpr_task_word_by(entry, 0, MPR_TASK_CANCELED);
        }
        if (mpr_task_move(entry, 0, MPR_TASK_QUEUED, MPR_TASK_CANCELED)) {
            mpr_pool_tell_ended(pool, entry->task, awaited);
            return true;
        }
        if (mpr_task_move(entry, worker, MPR_TASK_RUNNING,
                          MPR_TASK_CANCELLING)) {
            mpr_pool_call_keeper(pool);
            return true;
        }
    }
}

void mpr_pool_free_tasks(mproc_pool *pool, struct mpr_thread *self,
                         struct mpr_thread *whose)
{
    for (struct mpr_slab *slab = pool->slabs; slab != NULL; slab = slab->next) {
        for (size_t i = 0; i < tasks_in_slab(); i++) {
            mpr_task_free_all(pool, self, whose, &slab->tasks[i]);
        }
    }
}

void mpr_pool_each_task(mproc_pool *pool,
                        void (*fn)(const struct mpr_entry *entry, void *user),
                        void *user)
{
    mpr_pool_lock();
    struct mpr_slab *slab = pool->slabs;
    mpr_pool_unlock();
    for (; slab != NULL; slab = slab->next) {
        for (size_t i = 0; i < tasks_in_slab(); i++) {
            struct mpr_task *task = &slab->tasks[i];
            fn(&(struct mpr_entry){task, atomic_load(&task->word) >> 32}, user);
        }
    }
}
