/* SPDX-License-Identifier: MIT */
/*
 * A pool's worker that is killed, or stopped while its task is cancelled or
 * found to be over its time, after any instruction between taking a task and
 * answering it; and the nursery that says how the dead one's task ended, killed
 * there too; and a maker whose pool nobody uses but itself, killed with it.
 *
 * The victim is a worker, or that maker; the round plays maker, nursery,
 * collector and the other worker, one after the other. In the end the task has
 * ended exactly once, with its reply or lost, no item ran twice, and the heap
 * is as before.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <mproc/shared.h>

#include "pool/private.h"
#include "sweep.h"

enum { ITEMS = 5, LARGE = 100 * 1024, VICTIM = 0, OTHER = 1 };

/* Seen by all. */
struct journal {
    _Atomic int ran[ITEMS]; /* how often each item did */
    _Atomic int cancelled;
    _Atomic int over_time;
};

struct scenario {
    mproc_task_fn *fn;
    size_t batch;     /* items; 0: a single task */
    size_t max_tasks; /* so that the worker ends by itself */
    bool kept;        /* items' replies and texts are, and told one by one */
    bool terminate;   /* before the dead worker is looked at */
    size_t retries;
    double timeout_s;
    int64_t priority;
};

static struct scenario is;
static struct journal *journal;
static mproc_heap_info before;
static mproc_pool *pool;
static mproc_result *result;
static struct mpr_thread *self; /* each process has its own */
static int in[ITEMS] = {1, 2, 3, 4, 5}, out[ITEMS], status[ITEMS];
static int told, told_items[ITEMS];

/* ---- tasks ------------------------------------------------------------ */

static void note_run(const void *arg)
{
    int number = *(const int *)arg - 1;
    if (number >= 0) {
        atomic_fetch_add(&journal->ran[number], 1);
    }
}

static int small(const void *arg, size_t size, mproc_reply *reply)
{
    note_run(arg);
    return mproc_reply_set(reply, arg, size);
}

/* Only its ends are written: what lies between would be stepped. */
static int large(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    note_run(arg);
    char *bytes = mproc_reply_reserve(reply, LARGE);
    bytes[0] = 'a';
    bytes[LARGE - 1] = 'z';
    return 0;
}

/* In the record, in a block, in a larger one. */
static int grows(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_reply_set(reply, arg, size);
    mproc_reply_reserve(reply, 100);
    return large(arg, size, reply);
}

static int fails(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    note_run(arg);
    mproc_reply_fail(reply, 3, "first");
    return mproc_reply_fail(reply, 4, "bad");
}

/* The third item fails. */
static int squares(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    (void)size;
    note_run(arg);
    if (n == 3) {
        return mproc_reply_fail(reply, 4, "bad");
    }
    n *= n;
    return mproc_reply_set(reply, &n, sizeof n);
}

/* The same, in replies that outgrow their block; the last fails as well. */
static int long_squares(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    if (n == 3 || n == ITEMS) {
        note_run(arg);
        return mproc_reply_fail(reply, 4, n == 3 ? "bad" : "%0200d", n);
    }
    mproc_reply_reserve(reply, (size_t)(n > 0 ? n : 1) * 100);
    return squares(arg, size, reply);
}

/* ---- maker, collector, other worker ----------------------------------- */

static void tell(const mproc_outcome *outcome, void *user)
{
    (void)outcome;
    (void)user;
    told++;
}

/* What would be wrong with it is so for the batch's status too. */
static void tell_item(const mproc_outcome *o, void *user)
{
    (void)user;
    told_items[o->index]++;
    bool good = o->status == MPROC_OK && o->size == sizeof *out;
    bool bad = o->status == MPROC_ETASK && o->code == 4 &&
               (o->index == 2 ? strcmp(o->error, "bad") == 0
                              : strlen(o->error) == 200);
    bool lost = o->status == MPROC_EWORKERLOST && o->code == -SIGKILL &&
                strstr(o->error, "killed by signal 9") != NULL;
    if (good) {
        memcpy(&out[o->index], o->data, sizeof *out);
    } else if (!bad && !lost && o->status != MPROC_ECANCELED) {
        told_items[o->index] = -1;
    }
}

/* Item 0 is none that counts. */
static bool submit(const int *arg)
{
    mproc_call call = {.fn = is.fn,
                       .arg = arg,
                       .arg_size = sizeof *arg,
                       .callback = tell,
                       .error_callback = tell,
                       .timeout_s = is.timeout_s,
                       .priority = is.priority};
    mproc_batch batch = {.fn = is.fn,
                         .in = in,
                         .in_size = sizeof *in,
                         .count = is.batch,
                         .out = is.kept ? NULL : out,
                         .out_size = is.kept ? 0 : sizeof *out,
                         .status = status,
                         .on_item = is.kept ? tell_item : NULL,
                         .chunk = is.batch,
                         .timeout_s = is.timeout_s};
    int err = is.batch > 0
                  ? mproc_pool_map_async(pool, &batch, &result)
                  : mproc_pool_apply_async(pool, &call, &result, MPROC_NOWAIT);
    return err == 0;
}

static void collect(void)
{
    while (mpr_collector_take_in(pool, self)) {
    }
}

static void work(uint32_t index)
{
    struct mpr_worker *worker = &atomic_load(&pool->table)->worker[index];
    if (atomic_load(&worker->id) != mpr_self_id()) {
        atomic_store(&worker->id, mpr_self_id());
    }
    mpr_worker_work(pool, self, worker);
}

/* ---- setting up ------------------------------------------------------- */

static bool begin(const struct scenario *scenario)
{
    const mproc_config config = {.heap_max = 32 << 20, .processes_max = 64};
    mproc_pool_opts opts = {.workers = 2};
    is = *scenario;
    journal = mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return journal != MAP_FAILED && mproc_configure(&config) == 0 &&
           mpr_self(&self) == 0 && mproc_heap_stats(&before) == 0 &&
           mpr_pool_begin(&pool, self, &opts) == 0 &&
           mpr_pool_new_table(pool, self) == 0;
}

/* With one task done before, so that its memory is used again. */
static void *set_up(const struct scenario *scenario)
{
    static const int nothing = 0;
    if (!begin(scenario)) {
        return NULL;
    }
    pool->max_tasks = is.batch > 0 ? is.batch : 1;
    if (!submit(&nothing)) {
        return NULL;
    }
    work(OTHER);
    collect();
    mproc_result_free(result);
    memset(journal, 0, sizeof *journal);
    told = 0;
    memset(told_items, 0, sizeof told_items);
    memset(out, 0, sizeof out);
    pool->max_tasks = is.max_tasks;
    pool->retries = is.retries;
    return submit(in) ? journal : NULL;
}

static void *set_up_small(void)
{
    return set_up(&(struct scenario){.fn = small, .max_tasks = 1});
}

static void *set_up_large(void)
{
    return set_up(&(struct scenario){.fn = large, .max_tasks = 1});
}

static void *set_up_growing(void)
{
    return set_up(
        &(struct scenario){.fn = grows, .max_tasks = 1, .terminate = true});
}

static void *set_up_failing(void)
{
    return set_up(&(struct scenario){.fn = fails, .max_tasks = 1});
}

static void *set_up_chunk(void)
{
    return set_up(
        &(struct scenario){.fn = squares, .batch = ITEMS, .max_tasks = ITEMS});
}

static void *set_up_handing_on(void)
{
    return set_up(
        &(struct scenario){.fn = squares, .batch = ITEMS, .max_tasks = 2});
}

static void *set_up_kept(void)
{
    return set_up(&(struct scenario){
        .fn = long_squares, .batch = ITEMS, .max_tasks = ITEMS, .kept = true});
}

static void *set_up_kept_handing_on(void)
{
    return set_up(&(struct scenario){
        .fn = long_squares, .batch = ITEMS, .max_tasks = 2, .kept = true});
}

static void *set_up_limited(void)
{
    return set_up(
        &(struct scenario){.fn = large, .max_tasks = 1, .timeout_s = 3600});
}

static void *set_up_limited_chunk(void)
{
    return set_up(&(struct scenario){
        .fn = squares, .batch = ITEMS, .max_tasks = ITEMS, .timeout_s = 3600});
}

static void *set_up_retried(void)
{
    return set_up(
        &(struct scenario){.fn = grows, .max_tasks = 1, .retries = 1});
}

static void *set_up_ahead(void)
{
    return set_up(&(struct scenario){
        .fn = small, .max_tasks = 1, .retries = 1, .priority = -1});
}

static void *set_up_retried_chunk(void)
{
    return set_up(&(struct scenario){
        .fn = squares, .batch = ITEMS, .max_tasks = ITEMS, .retries = 1});
}

static size_t region(void *ctx, struct sweep_range *range)
{
    (void)ctx;
    range[0] = (struct sweep_range){mpr_family, mpr_family->size};
    range[1] = (struct sweep_range){journal, sizeof *journal};
    return 2;
}

/* ---- worker, canceller, nursery --------------------------------------- */

static void be_ready(void *ctx)
{
    struct mpr_worker *worker = &atomic_load(&pool->table)->worker[VICTIM];
    (void)ctx;
    mpr_self(&self);
    atomic_store(&worker->pid, mpr_os_pid());
    atomic_store(&worker->id, mpr_self_id());
}

static int work_once(void *ctx)
{
    (void)ctx;
    work(VICTIM);
    return 0;
}

/* The worker finds nothing else to do, and leaves. */
static int cancel(void *ctx)
{
    (void)ctx;
    mpr_self(&self);
    atomic_store(&journal->cancelled, 1);
    mpr_result_cancel(result);
    mpr_log_close(&pool->todo, self);
    return 0;
}

/* As the nursery, hours later. */
static int time_out(void *ctx)
{
    (void)ctx;
    mpr_self(&self);
    struct mpr_worker *worker = &atomic_load(&pool->table)->worker[VICTIM];
    atomic_store(&journal->over_time,
                 mpr_keeper_time_out(worker, INT64_MAX) == MPR_OVERTIME);
    return 0;
}

static int settle(void *ctx)
{
    (void)ctx;
    mpr_self(&self);
    if (is.terminate) {
        atomic_store(&pool->phase, MPR_POOL_TERMINATED);
    }
    mpr_worker_settle(pool, self, &atomic_load(&pool->table)->worker[VICTIM],
                      -SIGKILL);
    return 0;
}

/* By the nursery, or again by the collector when the nursery died. */
static const char *settle_or_again(void *ctx)
{
    return settle(ctx) == 0 ? NULL : "not settled";
}

/* ---- what came of it -------------------------------------------------- */

static const char *check_runs(void)
{
    size_t count = is.batch > 0 ? is.batch : 1;
    for (size_t i = 0; i < count; i++) {
        if (atomic_load(&journal->ran[i]) > 1 + (int)is.retries) {
            return "an item ran too often";
        }
    }
    return NULL;
}

static bool may_be_lost(const struct sweep_point *at)
{
    return !at->finished && is.retries == 0;
}

static const char *check_good(const mproc_outcome *o)
{
    const char *bytes = o->data;
    if (is.fn == small) {
        return o->size == sizeof *in && memcmp(bytes, in, o->size) == 0
                   ? NULL
                   : "another small reply";
    }
    return o->size == LARGE && bytes[0] == 'a' && bytes[LARGE - 1] == 'z' &&
                   bytes[LARGE] == '\0'
               ? NULL
               : "another large reply";
}

static const char *check_single(const struct sweep_point *at)
{
    const mproc_outcome *o = mproc_result_outcome(result);
    if (told != 1) {
        return told == 0 ? "no callback ran" : "two callbacks ran";
    }
    if (atomic_load(&journal->over_time) != (o->status == MPROC_EOVERTIME)) {
        return "over its time, or not";
    }
    switch (o->status) {
    case MPROC_OK:
        return is.fn == fails ? "the task should have failed" : check_good(o);
    case MPROC_ETASK:
        return is.fn == fails && o->code == 4 && strcmp(o->error, "bad") == 0
                   ? NULL
                   : "failed otherwise";
    case MPROC_EWORKERLOST:
        return may_be_lost(at) && o->code == -SIGKILL && o->worker > 0 &&
                       strstr(o->error, "killed by signal 9") != NULL
                   ? NULL
                   : "lost otherwise";
    case MPROC_EOVERTIME:
        return o->code == 0 && strstr(o->error, "ran too long") != NULL
                   ? NULL
                   : "over its time otherwise";
    case MPROC_ECANCELED:
        return is.terminate || atomic_load(&journal->cancelled)
                   ? NULL
                   : "cancelled by nobody";
    default:
        return "another status";
    }
}

static const char *check_batch(const struct sweep_point *at)
{
    int lost = 0, over = 0;
    for (size_t i = 0; i < is.batch; i++) {
        bool good = status[i] == MPROC_OK && out[i] == in[i] * in[i];
        bool may_fail = in[i] == 3 || (is.kept && in[i] == ITEMS);
        bool bad = status[i] == MPROC_ETASK;
        bool canceled =
            status[i] == MPROC_ECANCELED && atomic_load(&journal->cancelled);
        if (status[i] == MPROC_EWORKERLOST) {
            lost++;
        } else if (status[i] == MPROC_EOVERTIME) {
            over++;
        } else if (!canceled && !(may_fail ? bad : good)) {
            return "an item ended otherwise";
        }
        if (is.kept && told_items[i] != 1) {
            return told_items[i] < 0 ? "an item was told otherwise"
                                     : "an item was not told once";
        }
    }
    if (lost > may_be_lost(at)) {
        return "more than the item that ran was lost";
    }
    if (over != atomic_load(&journal->over_time)) {
        return "not the item that ran was over its time";
    }
    const mproc_outcome *o = mproc_result_outcome(result);
    bool first = o->status == status[o->index];
    for (size_t i = 0; i < o->index; i++) {
        first &= status[i] == MPROC_OK;
    }
    if (!first || (o->status == MPROC_ETASK && strcmp(o->error, "bad") != 0) ||
        (o->status == MPROC_EWORKERLOST &&
         strstr(o->error, "killed by signal 9") == NULL)) {
        return "another first bad item";
    }
    return NULL;
}

/* The pool ends; blocks of other sizes taken meanwhile stay untouched. */
static const char *check_heap(void)
{
    static char text[96];
    const size_t sizes[] = {64, 128, LARGE + 1};
    void *block[3];
    mproc_heap_info now;
    for (int i = 0; i < 3; i++) {
        block[i] = mproc_alloc(sizes[i]);
    }
    mpr_slots_reap(self);
    for (int i = 0; i < 3; i++) {
        if (mpr_heap_block_size(block[i]) == 0) {
            return "a dead one's hand freed a block of somebody else";
        }
        mproc_free(block[i]);
    }
    mpr_pool_end(pool, self);
    mproc_heap_stats(&now);
    snprintf(text, sizeof text, "%zd blocks, %zd bytes more than before",
             (ssize_t)(now.blocks - before.blocks),
             (ssize_t)(now.in_use - before.in_use));
    return now.blocks == before.blocks && now.in_use == before.in_use ? NULL
                                                                      : text;
}

static const char *check_all(void *ctx, const struct sweep_point *at)
{
    (void)ctx;
    pool->max_tasks = 0;
    mpr_log_close(&pool->todo, self);
    work(OTHER);
    collect();
    if (!mproc_result_ready(result)) {
        return "the task has not ended";
    }
    if (mpr_pool_pending(pool->mine) != 0) {
        return "tasks are counted wrong";
    }
    const char *wrong = check_runs();
    if (wrong == NULL) {
        wrong = is.batch > 0 ? check_batch(at) : check_single(at);
    }
    mproc_result_free(result);
    return wrong != NULL ? wrong : check_heap();
}

/* ---- a maker ---------------------------------------------------------- */

/* What it makes, gets and has not freed is given back when it is reaped. */
static void *set_up_maker(void)
{
    const mproc_config config = {.heap_max = 32 << 20, .processes_max = 64};
    is = (struct scenario){.fn = grows};
    journal = mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    bool ready = journal != MAP_FAILED && mproc_configure(&config) == 0 &&
                 mpr_self(&self) == 0;
    mproc_free(mproc_alloc(1)); /* not to be swept */
    return ready && mproc_heap_stats(&before) == 0 ? journal : NULL;
}

static void be_maker(void *ctx)
{
    (void)ctx;
    mpr_self(&self);
}

static int make_and_use(void *ctx)
{
    mproc_pool_opts opts = {.workers = 1};
    static const int number[20] = {1};
    mproc_call call = {.fn = grows, .arg = number, .arg_size = sizeof number};
    (void)ctx;
    if (mpr_pool_begin(&pool, self, &opts) < 0 ||
        mpr_pool_new_table(pool, self) < 0 ||
        mproc_pool_apply_async(pool, &call, &result, MPROC_NOWAIT) < 0 ||
        !submit(in)) {
        return 1;
    }
    pool->max_tasks = 1;
    work(VICTIM);
    collect();
    return mproc_pool_apply_async(pool, &call, &result, MPROC_NOWAIT) < 0;
}

static bool begin_with_worker(size_t max_tasks)
{
    mproc_pool_opts opts = {.workers = 1};
    if (mpr_pool_begin(&pool, self, &opts) < 0 ||
        mpr_pool_new_table(pool, self) < 0) {
        return false;
    }
    pool->max_tasks = max_tasks;
    return true;
}

/* So that a bad item comes after one that is behind it in the batch. */
static void collect_backwards(void)
{
    struct mpr_task *task = atomic_exchange(&pool->told, NULL);
    while (task != NULL) {
        struct mpr_task *earlier = task->next;
        mpr_collector_collect(pool, self, task);
        task = earlier;
    }
}

static int make_and_map(void *ctx)
{
    (void)ctx;
    mproc_batch batch = {
        .fn = fails, .in = in, .in_size = sizeof *in, .count = 2, .chunk = 1};
    if (!begin_with_worker(2) ||
        mproc_pool_map_async(pool, &batch, &result) < 0) {
        return 1;
    }
    work(VICTIM);
    collect_backwards();
    mproc_result_free(result);
    return 0;
}

/* What follows has the record and the block of what has ended. */
static int make_and_map_on(void *ctx)
{
    (void)ctx;
    mproc_batch batch = {.fn = fails,
                         .in = in,
                         .in_size = sizeof *in,
                         .count = 3,
                         .chunk = 1,
                         .window = 1};
    if (!begin_with_worker(1) ||
        mproc_pool_map_async(pool, &batch, &result) < 0) {
        return 1;
    }
    for (size_t i = 0; i < batch.count; i++) {
        work(VICTIM);
        collect();
    }
    return !mproc_result_ready(result);
}

static int make_and_iterate(void *ctx)
{
    (void)ctx;
    mproc_iter *it;
    mproc_batch batch = {
        .fn = small, .in = in, .in_size = sizeof *in, .count = 3, .chunk = 1};
    if (!begin_with_worker(3) || mproc_pool_imap(pool, &batch, &it) < 0) {
        return 1;
    }
    work(VICTIM);
    collect_backwards();
    for (int i = 0; i < 2; i++) {
        if (mproc_iter_next(it, NULL, MPROC_NOWAIT) < 0) {
            return 1;
        }
    }
    mproc_iter_free(it);
    return 0;
}

static int reap_it(void *ctx)
{
    (void)ctx;
    mpr_self(&self);
    mpr_slots_reap(self);
    return 0;
}

static void count_live(struct mpr_object *object, void *user)
{
    (void)object;
    ++*(int *)user;
}

static const char *check_nothing_left(void *ctx, const struct sweep_point *at)
{
    static char text[96];
    mproc_heap_info now;
    int live = 0;
    (void)ctx;
    (void)at;
    mpr_slots_reap(self);
    mpr_object_each(MPR_POOL, count_live, &live);
    mpr_object_each(MPR_RESULT, count_live, &live);
    mpr_object_each(MPR_ITER, count_live, &live);
    mproc_heap_stats(&now);
    snprintf(text, sizeof text, "%d objects, %zd blocks are left", live,
             (ssize_t)(now.blocks - before.blocks));
    return live == 0 && now.blocks == before.blocks ? NULL : text;
}

/* ---- cases ------------------------------------------------------------ */

#define CASE(its_name, its_setup, its_bystander)                              \
    {                                                                         \
        .name = its_name, .setup = its_setup, .prepare = be_ready,            \
        .operation = work_once, .bystander = its_bystander, .second = settle, \
        .follow_up = settle_or_again, .check = check_all, .shared = region    \
    }

#define MAKER(its_name, what_it_does)                                 \
    {                                                                 \
        .name = its_name, .setup = set_up_maker, .prepare = be_maker, \
        .operation = what_it_does, .second = reap_it,                 \
        .check = check_nothing_left, .shared = region                 \
    }

/* Who hands on may be stopped in the guard that closing the log needs. */
static const struct sweep_case cases[] = {
    MAKER("maker", make_and_use),
    MAKER("maker that maps", make_and_map),
    MAKER("maker that maps on", make_and_map_on),
    MAKER("maker that iterates", make_and_iterate),
    CASE("small reply", set_up_small, cancel),
    CASE("100 KiB reply", set_up_large, cancel),
    CASE("growing reply, terminated", set_up_growing, cancel),
    CASE("error text", set_up_failing, cancel),
    CASE("chunk of 5", set_up_chunk, cancel),
    CASE("chunk handed on", set_up_handing_on, NULL),
    CASE("kept replies", set_up_kept, cancel),
    CASE("kept replies handed on", set_up_kept_handing_on, NULL),
    CASE("retry", set_up_retried, cancel),
    CASE("retry, by priority", set_up_ahead, cancel),
    CASE("chunk with retries", set_up_retried_chunk, NULL),
    CASE("limit", set_up_limited, time_out),
    CASE("chunk with a limit", set_up_limited_chunk, time_out),
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
