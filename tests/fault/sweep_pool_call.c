/* SPDX-License-Identifier: MIT */
/*
 * A worker that is killed after any instruction while somebody waits for its
 * task alone (apply), or while it is the one that looks out for tasks and so
 * keeps the others from being woken.
 *
 * The round is nursery and collector. The pool's maker is who submits, another
 * process each time: it says so in the pool, which lies in shared memory, and
 * has its private part from the fork.
 */
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mproc/shared.h>

#include "pool/private.h"
#include "sweep.h"

enum { VICTIM = 0, OTHER = 1, TASKS = 2, BOUND_S = 10 };

/* Seen by all. */
struct journal {
    _Atomic int ran[TASKS];
    _Atomic int err; /* of apply */
    _Atomic int reply;
    _Atomic size_t pending; /* after it */
    _Atomic bool post;      /* there is to be something to do, in any case */
    _Atomic bool posted;
};

static struct journal *journal;
static mproc_pool *pool;
static mpr_id maker;
static struct mpr_thread *self; /* each process has its own */
static mproc_heap_info before;
static int told;

/* ---- the pool --------------------------------------------------------- */

static struct mpr_worker *row(uint32_t i)
{
    return mpr_worker_at(atomic_load(&pool->table), i);
}

static void *set_up(size_t retries)
{
    const mproc_config config = {.heap_max = 32 << 20, .processes_max = 64};
    mproc_pool_opts opts = {
        .workers = 2, .max_tasks_per_child = 1, .retries = retries};
    journal = mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    mpr_test_deep_sleep = true; /* a timed look would hide a lost wake-up */
    bool ready = journal != MAP_FAILED && mproc_configure(&config) == 0 &&
                 mpr_self(&self) == 0 && mproc_heap_stats(&before) == 0 &&
                 mpr_pool_begin(&pool, self, &opts) == 0 &&
                 mpr_pool_new_table(pool, self) == 0;
    maker = mpr_self_id();
    return ready ? journal : NULL;
}

static size_t region(void *ctx, struct sweep_range *range)
{
    (void)ctx;
    range[0] = (struct sweep_range){mpr_family, mpr_family->size};
    range[1] = (struct sweep_range){journal, sizeof *journal};
    return 2;
}

/* The maker, until it says that the round is again. */
static void be_maker(void)
{
    mpr_self(&self);
    pool->maker = mpr_self_id();
}

static void be_ready(void *ctx)
{
    (void)ctx;
    mpr_self(&self);
    atomic_store(&row(VICTIM)->pid, mpr_os_pid());
    atomic_store(&row(VICTIM)->id, mpr_self_id());
}

static void work_as_other(void)
{
    atomic_store(&row(OTHER)->id, mpr_self_id());
    mpr_worker_work(pool, self, row(OTHER));
}

static int work_once(void *ctx)
{
    (void)ctx;
    mpr_worker_work(pool, self, row(VICTIM));
    return 0;
}

static int add_ten(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    (void)size;
    atomic_fetch_add(&journal->ran[n], 1);
    n += 10;
    return mproc_reply_set(reply, &n, sizeof n);
}

static void collect(void)
{
    while (mpr_collector_take_in(pool, self)) {
    }
}

static void bury(void)
{
    struct mpr_keeper k;
    mpr_keeper_begin(&k, pool);
    k.self = self;
    mpr_keeper_bury(&k, row(VICTIM), -SIGKILL);
}

static const char *check_heap(void)
{
    mproc_heap_info now;
    mpr_slots_reap(self);
    mpr_pool_end(pool, self);
    mproc_heap_stats(&now);
    return now.blocks == before.blocks && now.in_use == before.in_use
               ? NULL
               : "not as much memory as before";
}

/* ---- somebody waits for it -------------------------------------------- */

static void *set_up_call(void)
{
    return set_up(0);
}

static int apply(void *ctx)
{
    static const int number = 1;
    mproc_call call = {
        .fn = add_ten, .arg = &number, .arg_size = sizeof number};
    int reply = 0;
    (void)ctx;
    be_maker();
    journal->err =
        mproc_pool_apply(pool, &call, &reply, sizeof reply, MPROC_FOREVER);
    journal->reply = reply;
    journal->pending = mpr_pool_pending(pool->mine);
    pool->maker = maker;
    return 0;
}

/* One that had it before, too, is found dead: that is nobody's end. */
static int bury_another(void *ctx)
{
    (void)ctx;
    mpr_self(&self);
    row(OTHER)->current = row(VICTIM)->current;
    mpr_worker_settle(pool, self, row(OTHER), -SIGKILL);
    collect();
    return 0;
}

static int settle(void *ctx)
{
    (void)ctx;
    mpr_self(&self);
    mpr_worker_settle(pool, self, row(VICTIM), -SIGKILL);
    return 0;
}

/* What the victim never took is the other's. */
static const char *take_over(void *ctx)
{
    (void)ctx;
    bury();
    mpr_log_close(&pool->todo, self);
    pool->max_tasks = 0;
    work_as_other();
    collect();
    return NULL;
}

static const char *check_call(void *ctx, const struct sweep_point *at)
{
    (void)ctx;
    bool well = journal->err == 0 && journal->reply == 11;
    if (!well && (at->finished || journal->err != MPROC_EWORKERLOST)) {
        return "the call returned otherwise";
    }
    if (journal->ran[1] > 1 || (well && journal->ran[1] != 1)) {
        return "it did not run once";
    }
    if (journal->pending != 0 || atomic_load(&pool->told) != NULL) {
        return "it is told, or pending, after its end";
    }
    return check_heap();
}

/* ---- it looks out ----------------------------------------------------- */

static void *set_up_lookout(void)
{
    return set_up(1);
}

static void note_told(const mproc_outcome *o, void *user)
{
    (void)user;
    told += o->status == MPROC_OK ? 1 : 2 * TASKS;
}

/* As soon as the victim looks out: nobody is woken for the first task. */
static void post_all(void)
{
    for (int i = 0; i < TASKS; i++) {
        mproc_call call = {.fn = add_ten,
                           .arg = &i,
                           .arg_size = sizeof i,
                           .callback = note_told,
                           .error_callback = note_told};
        while (atomic_load(&pool->lookout) != VICTIM + 1 && !journal->post) {
            sched_yield();
        }
        mproc_pool_apply_async(pool, &call, NULL, MPROC_NOWAIT);
    }
}

static void be_ready_with_maker(void *ctx)
{
    if (fork() == 0) {
        be_maker();
        post_all();
        pool->maker = maker;
        journal->posted = true;
        _exit(0);
    }
    be_ready(ctx);
}

/* Until the round closes it. */
static int work_on(void *ctx)
{
    (void)ctx;
    mpr_self(&self);
    while (!mpr_log_closed(&pool->todo)) {
        work_as_other();
    }
    return 0;
}

/* Nobody but the other worker, who sleeps, is left to run them. */
static const char *let_all_run(void *ctx)
{
    mproc_deadline bound = mproc_in_s(BOUND_S);
    (void)ctx;
    journal->post = true;
    while (!journal->posted && mpr_os_now() < bound.at_ns) {
        sched_yield();
    }
    bury();
    while (told < TASKS && mpr_os_now() < bound.at_ns) {
        collect();
        sched_yield();
    }
    bool stale = atomic_load(&pool->lookout) == VICTIM + 1;
    mpr_log_close(&pool->todo, self);
    mpr_bell_ring(&pool->to_workers, INT_MAX);
    return told != TASKS ? "a task was not run, or told twice"
           : stale       ? "the dead one still looks out"
                         : NULL;
}

static const char *check_lookout(void *ctx, const struct sweep_point *at)
{
    (void)ctx;
    (void)at;
    for (int i = 0; i < TASKS; i++) {
        if (journal->ran[i] < 1 || journal->ran[i] > 2) {
            return "a task ran too often, or never";
        }
    }
    collect();
    return told == TASKS ? check_heap() : "a task was told twice";
}

/* ---- cases ------------------------------------------------------------ */

static const struct sweep_case cases[] = {
    {.name = "awaited",
     .setup = set_up_call,
     .prepare = be_ready,
     .operation = work_once,
     .sleeper = apply,
     .bystander = bury_another,
     .second = settle,
     .follow_up = take_over,
     .check = check_call,
     .shared = region},
    {.name = "looks out",
     .setup = set_up_lookout,
     .prepare = be_ready_with_maker,
     .operation = work_once,
     .sleeper = work_on,
     .follow_up = let_all_run,
     .check = check_lookout,
     .shared = region},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
