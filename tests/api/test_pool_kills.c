/* SPDX-License-Identifier: MIT */
/*
 * Batches and iterations while workers are killed, idle ones, all at once, or
 * with the nursery: each item is accounted for once, in its order.
 */
#include "pool_killer.h"

enum { ITEMS = 300, WORKERS = 4 };

struct item {
    _Atomic int *begun;
    int number;
};

/* The items, and what is told of them. */
struct account {
    struct item item[ITEMS];
    _Atomic int *begun; /* in the shared heap, one an item */
    int given;          /* by `next` */
    int told[ITEMS];
    int status[ITEMS]; /* as it was told */
    int out[ITEMS];
    size_t last; /* index that was told last */
    bool in_order;
};

static int squares_item(const void *arg, size_t size, mproc_reply *reply)
{
    const struct item *item = arg;
    int square = item->number * item->number;
    (void)size;
    (*item->begun)++;
    usleep(100 + (useconds_t)(item->number * 37 % 200));
    return mproc_reply_set(reply, &square, sizeof square);
}

static int give(void *user, const void **item, size_t *size)
{
    struct account *a = user;
    if (a->given == ITEMS) {
        return MPROC_EOF;
    }
    *item = &a->item[a->given++];
    *size = sizeof(struct item);
    return 0;
}

static void take_note(struct account *a, const mproc_outcome *o)
{
    assert_true(o->index < ITEMS);
    a->in_order &= o->index == a->last + 1;
    a->last = o->index;
    a->told[o->index]++;
    a->status[o->index] = o->status;
    if (o->status == MPROC_OK) {
        assert_int_equal(o->size, sizeof(int));
        a->out[o->index] = *(const int *)o->data;
    } else {
        assert_err(o->status, MPROC_EWORKERLOST);
        assert_int_equal(o->code, -SIGKILL);
        assert_true(o->worker > 0);
    }
}

static void note_item(const mproc_outcome *o, void *user)
{
    take_note(user, o);
}

/* ---- the ways of a batch ---------------------------------------------- */

static void iterate(mproc_pool *p, mproc_batch *b, mproc_iter *it)
{
    const mproc_outcome *o;
    (void)p;
    int err;
    while ((err = mproc_iter_next(it, &o, TEST_BOUND)) == 0) {
        take_note(b->user, o);
    }
    assert_err(err, MPROC_EOF);
    mproc_iter_free(it);
}

static void by_imap(mproc_pool *p, mproc_batch *b)
{
    mproc_iter *it;
    b->next = give;
    assert_ok(mproc_pool_imap(p, b, &it));
    iterate(p, b, it);
    assert_true(((struct account *)b->user)->in_order);
}

static void by_imap_unordered(mproc_pool *p, mproc_batch *b)
{
    mproc_iter *it;
    b->next = give;
    assert_ok(mproc_pool_imap_unordered(p, b, &it));
    iterate(p, b, it);
}

static void by_lazy_map(mproc_pool *p, mproc_batch *b)
{
    b->next = give;
    b->on_item = note_item;
    int err = mproc_pool_map(p, b, TEST_BOUND);
    assert_true(err == MPROC_OK || err == MPROC_EWORKERLOST);
}

static void by_map(mproc_pool *p, mproc_batch *b)
{
    struct account *a = b->user;
    int status[ITEMS], out[ITEMS];
    b->in = a->item;
    b->in_size = sizeof *a->item;
    b->count = ITEMS;
    b->status = status;
    b->out = out;
    b->out_size = sizeof *out;
    b->on_item = note_item;
    int err = mproc_pool_map(p, b, TEST_BOUND), first = MPROC_OK;
    for (int i = ITEMS - 1; i >= 0; i--) {
        assert_err(status[i], a->status[i]);
        assert_true(status[i] != MPROC_OK || out[i] == a->out[i]);
        first = status[i] != MPROC_OK ? status[i] : first;
    }
    assert_err(err, first);
}

static const struct way {
    const char *name;
    void (*run)(mproc_pool *p, mproc_batch *b);
    size_t chunk;
    size_t window;
} ways[] = {
    {"imap", by_imap, 0, 0},
    {"imap, two ahead", by_imap, 0, 2},
    {"imap_unordered", by_imap_unordered, 3, 0},
    {"map of a lazy input", by_lazy_map, 0, 0},
    {"map", by_map, 0, 0},
    {"map in large chunks", by_map, 50, 0},
};
enum { WAYS = sizeof ways / sizeof *ways };

/* ---- the account ------------------------------------------------------ */

/* Returns how many were lost. */
static unsigned long expect_account(const struct account *a, size_t retries,
                                    unsigned long kills)
{
    unsigned long lost = 0;
    for (int i = 0; i < ITEMS; i++) {
        bool is_lost = a->status[i] == MPROC_EWORKERLOST;
        assert_int_equal(a->told[i], 1);
        assert_true(is_lost || a->out[i] == i * i);
        assert_true((size_t)a->begun[i] <= 1 + retries);
        assert_true(is_lost || a->begun[i] >= 1);
        lost += is_lost;
    }
    assert_true(lost <= kills);
    return lost;
}

/* Returns how often somebody was killed. */
static unsigned long kill_during(const struct way *way, enum victim victim,
                                 size_t retries)
{
    struct account a = {.last = SIZE_MAX, .in_order = true};
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = WORKERS, .retries = retries});
    a.begun = mproc_calloc(ITEMS, sizeof *a.begun);
    for (int i = 0; i < ITEMS; i++) {
        a.item[i] = (struct item){&a.begun[i], i};
    }
    mproc_batch b = {.fn = squares_item,
                     .chunk = way->chunk,
                     .window = way->window,
                     .user = &a};
    struct killer killer = {.pool = p,
                            .victim = victim,
                            .pause_us =
                                (victim < ALL_WORKERS ? 3000 : 15000) * SLOWER,
                            .seed = (unsigned)victim};
    begin_to_kill(&killer);
    way->run(p, &b);
    end_to_kill(&killer);
    unsigned long lost = expect_account(&a, retries, killer.kills);
    print_message("%s, %zu retries: %lu times, %lu killed, %lu lost\n",
                  way->name, retries, killer.times, killer.kills, lost);
    assert_true(retries == 0 || lost == 0);
    end_of(p);
    mproc_free((void *)a.begun);
    return killer.times;
}

static void kill_in_each_way(enum victim victim)
{
    unsigned long times = 0;
    for (int i = 0; i < WAYS; i++) {
        times += kill_during(&ways[i], victim, 0);
        times += kill_during(&ways[i], victim, 1000);
    }
    assert_true(times > 0);
}

static void workers_may_be_killed_one_by_one(void **state)
{
    (void)state;
    kill_in_each_way(ONE_WORKER);
}

static void idle_workers_may_be_killed(void **state)
{
    (void)state;
    kill_in_each_way(IDLE_WORKERS);
}

static void all_workers_may_be_killed_at_once(void **state)
{
    (void)state;
    kill_in_each_way(ALL_WORKERS);
}

static void the_nursery_may_be_killed(void **state)
{
    (void)state;
    kill_in_each_way(NURSERY);
}

/* ---- a worker that its nursery's death does not end ------------------- */

struct meeting {
    mproc_queue *here;
    uid_t user;
};

static int becomes_another(const void *arg, size_t size, mproc_reply *reply)
{
    const struct meeting *m = arg;
    pid_t pid = getpid();
    (void)size;
    (void)reply;
    if (setuid(m->user) != 0) {
        return 1;
    }
    mproc_queue_put(m->here, &pid, sizeof pid, MPROC_FOREVER);
    while (pause() != 0) {
    }
    return 0;
}

static void a_worker_of_another_user_dies_with_its_nursery(void **state)
{
    (void)state;
    if (getuid() != 0) {
        skip();
    }
    for (int manual = 0; manual < 2; manual++) {
        struct meeting m = {queue(), 65534};
        mproc_pool *p = pool_with(
            (mproc_pool_opts){.workers = 2, .manual_dispatch = manual});
        mproc_result *r =
            sent(p, (mproc_call){.fn = becomes_another, MPROC_ARG(m)});
        pid_t worker, nursery = nursery_of(p);
        assert_ok(
            mproc_queue_get(m.here, &worker, sizeof worker, NULL, TEST_BOUND));
        assert_true(nursery > 1);
        kill(nursery, SIGKILL);
        assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND),
                   MPROC_EWORKERLOST);
        assert_int_equal(mproc_result_outcome(r)->worker, worker);
        expect_gone(worker);
        mproc_result_free(r);
        end_of(p);
        mproc_queue_free(m.here);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(workers_may_be_killed_one_by_one),
        CLEAN(idle_workers_may_be_killed),
        CLEAN(all_workers_may_be_killed_at_once),
        CLEAN(the_nursery_may_be_killed),
        CLEAN(a_worker_of_another_user_dies_with_its_nursery),
    };
    return cmocka_run_group_tests_name("pool_kills", tests, NULL, NULL);
}
