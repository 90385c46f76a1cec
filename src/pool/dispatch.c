/* SPDX-License-Identifier: MIT */
/*
 * Pools without a thread of ours in the maker. Who waits there does the
 * collector's work meanwhile, one thread at a time; callbacks run where the
 * caller lets them, one thread at a time as well. All sleep on the collector's
 * bell. The pool is not freed while a thread does either.
 */
#include "pool/private.h"

enum { STEPS = 64 }; /* before others are looked at */

/* ---- the collector's work --------------------------------------------- */

/* Locked. True when this thread is the one to do it. */
static bool enter_locked(struct mpr_pool_private *mine)
{
    bool ours = !mine->attended;
    mine->attended = true;
    mine->refused |= !ours;
    return ours;
}

static bool enter(const struct mpr_pool_wait *w)
{
    mpr_pool_lock();
    bool ours =
        mpr_object_unchanged(w->pool, w->tag) && enter_locked(w->pool->mine);
    mpr_pool_unlock();
    return ours;
}

/* Who was refused meanwhile, or may have got something, is to look again. */
static void leave(mproc_pool *pool, bool worked)
{
    struct mpr_pool_private *mine = pool->mine;
    mpr_pool_lock();
    bool others = worked || mine->refused;
    mine->attended = false;
    mine->refused = false;
    mpr_pool_unlock();
    if (others) {
        mpr_bell_ring(&pool->to_collector, INT_MAX);
    }
}

/* True when there was something to do. */
static bool attend(const struct mpr_pool_wait *w)
{
    int steps = 0;
    if (!enter(w)) {
        return false;
    }
    while (steps < STEPS && mpr_collector_step(w->pool, w->self)) {
        steps++;
    }
    if (steps == 0) {
        mpr_pool_hide(w->pool);
    }
    leave(w->pool, steps > 0);
    return steps > 0;
}

/* ---- callbacks -------------------------------------------------------- */

static bool begin_calls(const struct mpr_pool_wait *w,
                        const struct mpr_task **last)
{
    bool ours = false;
    mpr_pool_lock();
    if (mpr_object_unchanged(w->pool, w->tag)) {
        struct mpr_pool_private *mine = w->pool->mine;
        ours = !mine->calling && (mine->put_off != NULL || mine->untold > 0);
        mine->calling |= ours;
        *last = mine->put_off != NULL ? mine->put_off_last : NULL;
    }
    mpr_pool_unlock();
    return ours;
}

/* The pool may be gone then: a callback has freed it. */
static void end_calls(const struct mpr_pool_wait *w)
{
    mproc_pool *pool = w->pool;
    struct mpr_pool_private *mine = pool->mine;
    mpr_pool_lock();
    bool freed = mine->free_at_end;
    mine->free_at_end = false;
    mine->calling = false;
    mpr_pool_unlock();
    mpr_bell_ring(&pool->to_collector, INT_MAX);
    if (freed) {
        mpr_pool_await_end(pool, w->self);
        mpr_pool_end(pool, w->self);
    }
}

/* Those that are there now: more may come for ever. Returns how many. */
static size_t call_all(const struct mpr_pool_wait *w)
{
    const struct mpr_task *last, *called = NULL;
    size_t count = 0;
    if (!begin_calls(w, &last)) {
        return 0;
    }
    while (called != last && !w->pool->mine->free_at_end) {
        count += mpr_pool_call_one(w->pool, w->self, &called);
    }
    if (!w->pool->mine->free_at_end) {
        count += mpr_batch_tell_untold(w->pool, w->self);
    }
    end_calls(w);
    return count;
}

/* ---- waiting ---------------------------------------------------------- */

static mproc_deadline next_look(const struct mpr_pool_wait *w)
{
    mpr_pool_lock();
    mproc_deadline look = mpr_object_unchanged(w->pool, w->tag)
                              ? mpr_collector_next_look(w->pool)
                              : MPROC_FOREVER;
    mpr_pool_unlock();
    return look;
}

static int attempt(void *user)
{
    const struct mpr_pool_wait *w = user;
    int err;
    do {
        err = w->attempt(w->user);
    } while (err == w->busy && (attend(w) || (w->calls && call_all(w) > 0)));
    return err;
}

/* It must not sleep for longer than until the next look. */
enum { LOOK_EARLIER = INT_MAX };

static int attempt_or_look(void *user)
{
    struct mpr_pool_wait *w = user;
    int err = attempt(w);
    bool earlier = err == w->busy && next_look(w).at_ns < w->look.at_ns;
    return earlier ? LOOK_EARLIER : err;
}

int mpr_pool_wait(struct mpr_pool_wait *w, _Atomic uint32_t *bell,
                  mproc_deadline until)
{
    if (!w->manual) {
        return mpr_sleep_until(bell, until, w->busy, w->attempt, w->user);
    }
    int err;
    do {
        w->look = mpr_deadline_earlier(until, next_look(w));
        err = mpr_sleep_until(&w->pool->to_collector, w->look, w->busy,
                              attempt_or_look, w);
    } while (err == LOOK_EARLIER ||
             (err == w->busy && w->look.at_ns < until.at_ns));
    return err;
}

int mpr_pool_look(struct mpr_pool_wait *w)
{
    int err = attempt(w);
    bool soon = err == w->busy && !mpr_deadline_is_forever(next_look(w));
    return soon ? MPROC_EAGAIN : err;
}

/* It has ended, and no other thread is at it: nor will be. */
static int attempt_end(void *user)
{
    const mproc_pool *pool = user;
    mpr_pool_lock();
    bool over = atomic_load(&((mproc_pool *)pool)->ended) &&
                !pool->mine->calling && enter_locked(pool->mine);
    mpr_pool_unlock();
    return over ? 0 : MPROC_ETIMEDOUT;
}

void mpr_pool_await_end(mproc_pool *pool, struct mpr_thread *self)
{
    struct mpr_pool_wait wait = {.pool = pool,
                                 .tag = mpr_object_tag(pool, MPR_POOL),
                                 .self = self,
                                 .attempt = attempt_end,
                                 .user = pool,
                                 .busy = MPROC_ETIMEDOUT,
                                 .calls = true,
                                 .manual = true};
    mpr_pool_wait(&wait, &pool->to_collector, MPROC_FOREVER);
}

/* ---- the flag --------------------------------------------------------- */

/* Locked. The end of the nursery is news, which it cannot tell itself. */
int mpr_pool_watch_nursery(mproc_pool *pool)
{
    struct mpr_pool_private *mine = pool->mine;
    if (mine->watch < 0 || mine->nursery_fd >= 0 || mine->nursery_pid <= 0) {
        return 0;
    }
    int fd = mpr_os_pidfd(mine->nursery_pid);
    if (fd < 0) {
        return fd == MPROC_ENOTSUP ? 0 : fd;
    }
    int err = mpr_os_watch_add(mine->watch, fd);
    if (err < 0) {
        mpr_os_close(fd);
        return err;
    }
    mine->nursery_fd = fd;
    return 0;
}

void mpr_pool_forget_nursery(mproc_pool *pool)
{
    struct mpr_pool_private *mine = pool->mine;
    if (mine->nursery_fd >= 0) {
        mpr_os_watch_remove(mine->watch, mine->nursery_fd);
        mpr_os_close(mine->nursery_fd);
        mine->nursery_fd = -1;
    }
}

/*
 * Between two nurseries the workers of the first are dying, which only a look
 * tells.
 */
static bool is_to_be_shown(mproc_pool *pool)
{
    struct mpr_pool_private *mine = pool->mine;
    mpr_pool_lock();
    bool put_off =
        mine->put_off != NULL || mine->heard != NULL || mine->untold > 0;
    bool unwatched = mpr_pool_watch_nursery(pool) < 0;
    bool between = !pool->threads && mine->nursery_pid == 0 && !mine->unserved;
    mpr_pool_unlock();
    return put_off || unwatched || between || mine->leaving ||
           atomic_load(&pool->keep) || atomic_load(&pool->ended) ||
           atomic_load(&mine->attend) || mpr_pool_has_told(pool);
}

/*
 * Looks once more when it is lowered: who finds `shown` odd before that has put
 * something there to be seen, who finds it even raises the flag again.
 */
void mpr_pool_hide(mproc_pool *pool)
{
    if (pool->mine->watch < 0) {
        return; /* nobody looks at it */
    }
    if (pool->threads) {
        mpr_os_timer_set(pool->mine->timer,
                         mproc_deadline_at_(atomic_load(&pool->mine->keep_at)));
    }
    if (!is_to_be_shown(pool)) {
        atomic_store(&pool->shown, (atomic_load(&pool->shown) | 1) + 1);
        mpr_os_flag_lower(pool->flag);
    }
    if (is_to_be_shown(pool)) {
        mpr_pool_show(pool);
    }
}

/* ---- the calls -------------------------------------------------------- */

static int check(const mproc_pool *pool, struct mpr_thread **self)
{
    int err = mpr_pool_check(pool, self);
    if (err == 0 && !mpr_pool_is_manual(pool)) {
        err = MPROC_EINVAL;
    }
    return err;
}

/* For limits of threads, at which nobody raises the flag. */
static int make_timer(struct mpr_pool_private *mine)
{
    int timer = mpr_os_timer();
    if (timer < 0) {
        return timer;
    }
    mine->timer = timer;
    return mpr_os_watch_add(mine->watch, timer);
}

static int make_watch(mproc_pool *pool)
{
    struct mpr_pool_private *mine = pool->mine;
    if (mine->watch >= 0) {
        return mine->watch;
    }
    int watch = mpr_os_watch();
    if (watch < 0) {
        return watch;
    }
    mine->watch = watch;
    int err = mpr_os_watch_add(watch, pool->flag);
    if (err == 0) {
        err = pool->threads ? make_timer(mine) : mpr_pool_watch_nursery(pool);
    }
    if (err < 0) {
        mpr_os_close(watch);
        mpr_os_close(mine->timer);
        mine->watch = mine->timer = -1;
        return err;
    }
    return watch;
}

int mproc_pool_fd(mproc_pool *p)
{
    struct mpr_thread *self;
    int err = check(p, &self);
    if (err < 0) {
        return err;
    }
    mpr_pool_lock();
    bool had = p->mine->watch >= 0;
    int fd = make_watch(p);
    mpr_pool_unlock();
    if (!had && fd >= 0) {
        mpr_pool_hide(p);
    }
    return fd;
}

struct dispatch {
    struct mpr_pool_wait wait;
    size_t ran;
};

static int attempt_dispatch(void *user)
{
    struct dispatch *d = user;
    d->ran += call_all(&d->wait);
    if (d->ran > 0) {
        return 0;
    }
    if (!mpr_object_unchanged(d->wait.pool, d->wait.tag)) {
        return MPROC_EINVAL;
    }
    return atomic_load(&d->wait.pool->ended) ? MPROC_EOF : MPROC_ETIMEDOUT;
}

int mproc_pool_dispatch(mproc_pool *p, mproc_deadline until)
{
    struct dispatch d = {.wait = {.pool = p,
                                  .tag = mpr_object_tag(p, MPR_POOL),
                                  .attempt = attempt_dispatch,
                                  .user = &d,
                                  .busy = MPROC_ETIMEDOUT,
                                  .manual = true}};
    int err = check(p, &d.wait.self);
    if (err < 0) {
        return err;
    }
    if (mpr_pool_in_callback(p)) {
        return MPROC_EDEADLK;
    }
    uintptr_t outer = mpr_op_begin(d.wait.self, p);
    err = mpr_pool_wait(&d.wait, &p->to_collector, until);
    while (attend(&d.wait)) { /* until the flag is lowered, if it is to be */
    }
    mpr_op_end(d.wait.self, outer);
    if (err < 0) {
        return err;
    }
    return d.ran < INT_MAX ? (int)d.ran : INT_MAX;
}
