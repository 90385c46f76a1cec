/* SPDX-License-Identifier: MIT */
/* The rows of workers, as the maker has them: made, added to, looked at. */
#include <signal.h>
#include <string.h>

#include "base/options.h"
#include "pool/private.h"

/* ---- rows ------------------------------------------------------------- */

/* Rows for `count` more workers behind `first` others, in MPR_HAND_BLOCK. */
static struct mpr_table *new_rows(struct mpr_thread *self, uint32_t first,
                                  uint32_t count)
{
    size_t size = sizeof(struct mpr_table) + count * sizeof(struct mpr_worker);
    struct mpr_table *table = mpr_heap_alloc(self, size, MPR_HAND_BLOCK);
    if (table != NULL) {
        memset(table, 0, size);
        table->count = count;
        for (uint32_t i = 0; i < count; i++) {
            table->worker[i].index = first + i;
        }
    }
    return table;
}

/* Locked: a resize is either seen here, or sees this table. */
static int new_table(mproc_pool *pool, struct mpr_thread *self)
{
    uint32_t count = mpr_pool_wanted(pool);
    struct mpr_table *older = atomic_load(&pool->table);
    struct mpr_table *table = new_rows(self, 0, count);
    if (table == NULL) {
        return MPROC_ENOMEM;
    }
    mpr_guard_lock(&pool->replies, self, self);
    table->older = older;
    atomic_store(&pool->table, table);
    mpr_hand_set(self, MPR_HAND_BLOCK, NULL);
    mpr_guard_unlock(&pool->replies, self);
    return 0;
}

int mpr_pool_new_table(mproc_pool *pool, struct mpr_thread *self)
{
    mpr_pool_lock();
    int err = new_table(pool, self);
    mpr_pool_unlock();
    return err;
}

/* Locked. At least as many again, so that there are few parts. */
static int add_rows(mproc_pool *pool, struct mpr_thread *self, uint32_t wanted)
{
    struct mpr_table *last = atomic_load(&pool->table), *more;
    uint32_t rows = last->count;
    while ((more = atomic_load(&last->more)) != NULL) {
        last = more;
        rows += more->count;
    }
    if (wanted <= rows) {
        return 0;
    }
    more = new_rows(self, rows, wanted - rows > rows ? wanted - rows : rows);
    if (more == NULL) {
        return MPROC_ENOMEM;
    }
    mpr_guard_lock(&pool->replies, self, self);
    atomic_store(&last->more, more);
    mpr_hand_set(self, MPR_HAND_BLOCK, NULL);
    mpr_guard_unlock(&pool->replies, self);
    return 0;
}

int mpr_pool_make_rows(mproc_pool *pool, struct mpr_thread *self,
                       uint32_t count)
{
    mpr_pool_lock();
    int err = add_rows(pool, self, count);
    mpr_pool_unlock();
    return err;
}

/*
 * A nursery that was killed: its workers are dead, or dying. Their slots tell,
 * and whoever sleeps until they are gone is told of each death below.
 */
bool mpr_pool_workers_gone(const mproc_pool *pool)
{
    struct mpr_table *table = atomic_load(&pool->table);
    struct mpr_worker *worker;
    for (uint32_t i = 0; (worker = mpr_worker_at(table, i)) != NULL; i++) {
        mpr_id id = atomic_load(&worker->id);
        if (id != 0 && !mpr_is_birth(id) && !mpr_id_is_dead(id)) {
            return false;
        }
    }
    return true;
}

/* The pidfd first: then the life that is looked at is that of its process. */
static void end_orphan(mpr_id id)
{
    pid_t pid = mpr_id_pid(id);
    int fd = pid != 0 ? mpr_os_pidfd(pid) : -1;
    if (pid != 0 && !mpr_id_is_dead(id)) {
        mpr_os_child_signal(pid, fd, SIGKILL);
    }
    mpr_os_close(fd);
}

void mpr_pool_end_orphans(const mproc_pool *pool)
{
    struct mpr_table *table = atomic_load(&pool->table);
    struct mpr_worker *worker;
    for (uint32_t i = 0; (worker = mpr_worker_at(table, i)) != NULL; i++) {
        mpr_id id = atomic_load(&worker->id);
        if (id != 0 && !mpr_is_birth(id)) {
            end_orphan(id);
        }
    }
}

static void tell_of_orphans(struct mpr_object *object, void *dead)
{
    mproc_pool *pool = (mproc_pool *)object;
    mpr_id nursery = atomic_load(&pool->nursery);
    if (nursery == 0 || mpr_id_is_dead(nursery)) {
        mpr_deaths_tell();
    }
    if (pool->maker == *(mpr_id *)dead) {
        mpr_bell_ring(&pool->to_nursery, INT_MAX);
    }
}

/*
 * A worker's death is its nursery's affair, and only without one that of all:
 * else the deaths of thousands would each wake thousands. A maker's death is
 * its nursery's too, and it may be that nobody else is to be told of it.
 */
static void reap(struct mpr_thread *self, mpr_id dead)
{
    (void)self;
    mpr_object_each(MPR_POOL, tell_of_orphans, &dead);
}

__attribute__((constructor)) static void hook_deaths(void)
{
    mpr_slots_on_reap(reap);
}

/* ---- resizing --------------------------------------------------------- */

struct resizing {
    mproc_pool *pool;
    uint64_t tag;
    uint32_t request;
};

/* 1: done, or another request came after it. */
static int attempt_resized(void *user)
{
    const struct resizing *r = user;
    mproc_pool *pool = r->pool;
    if (!mpr_object_unchanged(pool, r->tag)) {
        return MPROC_EINVAL;
    }
    uint64_t answer = atomic_load(&pool->resized);
    if ((int32_t)((uint32_t)(answer >> 32) - r->request) > 0) {
        return 1;
    }
    if (answer >> 32 == r->request) {
        int err = -(int)(uint32_t)answer;
        return err < 0 ? err : 1;
    }
    int err = mpr_pool_may_submit(pool);
    return err < 0 ? err : MPROC_ETIMEDOUT;
}

/* Returns the number of the request. */
static uint32_t request(mproc_pool *pool, uint32_t workers)
{
    uint32_t number = (uint32_t)(atomic_load(&pool->wanted) >> 32) + 1;
    atomic_store(&pool->wanted, (uint64_t)number << 32 | workers);
    mpr_pool_call_keeper(pool);
    return number;
}

static int resize(mproc_pool *pool, struct mpr_thread *self, uint32_t workers)
{
    struct resizing r = {.pool = pool, .tag = mpr_object_tag(pool, MPR_POOL)};
    mpr_pool_lock();
    uint32_t before = mpr_pool_wanted(pool);
    int err = mpr_pool_may_submit(pool);
    if (err == 0) {
        err = add_rows(pool, self, workers);
    }
    if (err == 0) {
        r.request = request(pool, workers);
    }
    mpr_pool_unlock();
    if (err < 0 || mpr_pool_in_callback(pool)) {
        return err;
    }
    struct mpr_pool_wait wait = {.pool = pool,
                                 .tag = r.tag,
                                 .self = self,
                                 .attempt = attempt_resized,
                                 .user = &r,
                                 .busy = MPROC_ETIMEDOUT,
                                 .manual = mpr_pool_is_manual(pool)};
    err = mpr_pool_wait(&wait, &pool->to_maker, MPROC_FOREVER);
    if (err < 0 && err != MPROC_EINVAL) {
        mpr_pool_lock();
        if (atomic_load(&pool->wanted) >> 32 == r.request) {
            request(pool, before);
        }
        mpr_pool_unlock();
    }
    return err < 0 ? err : 0;
}

int mproc_pool_resize(mproc_pool *p, size_t workers)
{
    struct mpr_thread *self;
    int err = mpr_pool_check(p, &self);
    if (err < 0) {
        return err;
    }
    if (workers == 0) {
        return MPROC_EINVAL;
    }
    if (workers > mpr_pool_most_workers(p->threads)) {
        return MPROC_EAGAIN;
    }
    uintptr_t outer = mpr_op_begin(self, p);
    err = resize(p, self, (uint32_t)workers);
    mpr_op_end(self, outer);
    return err;
}

/* ---- looking ---------------------------------------------------------- */

size_t mproc_pool_worker_pids(mproc_pool *p, pid_t *out, size_t capacity)
{
    struct mpr_thread *self;
    struct mpr_worker *worker;
    size_t count = 0;
    if (mpr_pool_check(p, &self) < 0) {
        return 0;
    }
    struct mpr_table *table = atomic_load(&p->table);
    for (uint32_t i = 0; (worker = mpr_worker_at(table, i)) != NULL; i++) {
        pid_t pid = mpr_worker_pid(worker);
        if (pid != 0 && count < capacity && out != NULL) {
            out[count] = pid;
        }
        count += pid != 0;
    }
    return count;
}

static mproc_worker_info info_of(struct mpr_worker *worker, int64_t now)
{
    int64_t born = atomic_load(&worker->ready_since);
    int64_t idle_since = atomic_load(&worker->idle_since);
    int64_t idle = atomic_load(&worker->idle_ns);
    if (idle_since != 0 && now > idle_since) {
        idle += now - idle_since;
    }
    int64_t busy = born != 0 && now - born > idle ? now - born - idle : 0;
    return (mproc_worker_info){.pid = mpr_worker_pid(worker),
                               .busy = born != 0 && idle_since == 0,
                               .busy_s = (double)busy / 1e9,
                               .idle_s = (double)idle / 1e9};
}

size_t mproc_pool_worker_stats_sized(mproc_pool *p, mproc_worker_info *out,
                                     size_t out_size, size_t capacity)
{
    struct mpr_thread *self;
    struct mpr_worker *worker;
    size_t count = 0;
    if (mpr_pool_check(p, &self) < 0) {
        return 0;
    }
    int64_t now = mpr_os_now();
    struct mpr_table *table = atomic_load(&p->table);
    for (uint32_t i = 0; (worker = mpr_worker_at(table, i)) != NULL; i++) {
        mproc_worker_info info = info_of(worker, now);
        if (info.pid != 0 && count < capacity && out != NULL) {
            mpr_info_write((char *)out + count * out_size, out_size, &info,
                           sizeof info);
        }
        count += info.pid != 0;
    }
    return count;
}

int mproc_pool_stats_sized(mproc_pool *p, mproc_pool_info *out, size_t out_size)
{
    struct mpr_thread *self;
    struct mpr_worker *worker;
    size_t busy = 0;
    int err = mpr_pool_check(p, &self);
    if (err < 0 || out == NULL) {
        return err < 0 ? err : MPROC_EINVAL;
    }
    const struct mpr_pool_private *mine = p->mine;
    mproc_pool_info info = {.done = atomic_load(&mine->done),
                            .failed = atomic_load(&mine->failed),
                            .lost = atomic_load(&mine->lost)};
    size_t ended = info.done + info.failed + info.lost;
    size_t left = atomic_load(&mine->accepted) - ended;
    struct mpr_table *table = atomic_load(&p->table);
    for (uint32_t i = 0; (worker = mpr_worker_at(table, i)) != NULL; i++) {
        mproc_worker_info one = info_of(worker, 0);
        info.workers += one.pid != 0;
        busy += one.pid != 0 && one.busy;
    }
    info.running = busy < left ? busy : left;
    info.queued = left - info.running;
    info.respawned = atomic_load(&p->respawned);
    mpr_info_write(out, out_size, &info, sizeof info);
    return 0;
}
