/* SPDX-License-Identifier: MIT */
/* Threads of a pool that are abandoned, and what goes on without them. */
#include "pool_tasks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

static mproc_pool *threads_of(size_t workers)
{
    return pool_with(
        (mproc_pool_opts){.workers = workers, .start = MPROC_START_THREAD});
}

static bool is_there(pid_t tid)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/self/task/%d", (int)tid);
    return access(path, F_OK) == 0;
}

static void await_end_of(pid_t tid)
{
    for (int i = 0; i < 30000 && is_there(tid); i++) {
        usleep(1000);
    }
}

/* ---- the rest of a chunk ---------------------------------------------- */

/*
 * Items of a chunk: good ones, one that fails, one over its time, and good
 * ones, of which the first waits until the abandoned thread has gone with all
 * that was its own, which is written over then.
 */
enum { BAD = 2, SLOW = 3, WAITS = 4, ITEMS = 8, BLOCKS = 128 };

struct chunk {
    _Atomic pid_t slow;
    void *block[BLOCKS];
    int told[ITEMS];
    int wrong;
};

struct item {
    struct chunk *chunk;
    int number;
    char more[44]; /* no padding: items are compared as bytes */
};

/* Of each size that what a thread had may have. */
static size_t size_of(int block)
{
    return 64 * (size_t)(block % 64 + 1);
}

static void write_over_what_is_free(struct chunk *chunk)
{
    for (int i = 0; i < BLOCKS; i++) {
        chunk->block[i] = mproc_alloc(size_of(i));
        memset(chunk->block[i], 0x55, size_of(i));
    }
}

static void expect_untouched(struct chunk *chunk)
{
    for (int i = 0; i < BLOCKS; i++) {
        const char *bytes = chunk->block[i];
        for (size_t k = 0; k < size_of(i); k++) {
            assert_int_equal(bytes[k], 0x55);
        }
        mproc_free(chunk->block[i]);
    }
}

static int runs_over(const void *arg, size_t size, mproc_reply *reply)
{
    const struct item *item = arg;
    struct chunk *chunk = item->chunk;
    if (item->number == BAD) {
        return mproc_reply_fail(reply, 17, "bun %d of %d", BAD, ITEMS);
    }
    if (item->number == SLOW) {
        chunk->slow = (pid_t)syscall(SYS_gettid);
        while (!mproc_task_canceled()) {
            usleep(1000);
        }
        return mproc_reply_set(reply, "never seen", 10);
    }
    if (item->number == WAITS) {
        await_end_of(chunk->slow);
        write_over_what_is_free(chunk);
    }
    return mproc_reply_set(reply, arg, size);
}

static void fill(struct item *item, struct chunk *chunk, int number)
{
    *item = (struct item){chunk, number, ""};
    memset(item->more, 'a' + number, sizeof item->more);
}

static bool is_good(const struct item *item, struct chunk *chunk, int number)
{
    struct item good;
    fill(&good, chunk, number);
    return memcmp(item, &good, sizeof good) == 0;
}

static int status_of(int number)
{
    return number == BAD    ? MPROC_ETASK
           : number == SLOW ? MPROC_EOVERTIME
                            : MPROC_OK;
}

/* In the thread of the pool: told to the test by `wrong`. */
static void look(const mproc_outcome *o, void *user)
{
    struct chunk *chunk = user;
    int number = (int)o->index;
    bool right = o->status == status_of(number) && o->worker > 0;
    if (number == BAD) {
        right &= o->code == 17 && strcmp(o->error, "bun 2 of 8") == 0;
    } else if (number == SLOW) {
        right &= o->code == 0 && strstr(o->error, "ran too long") != NULL;
    } else {
        right &=
            o->size == sizeof(struct item) && is_good(o->data, chunk, number);
    }
    chunk->wrong += !right;
    chunk->told[number]++;
}

struct source {
    struct item item[ITEMS];
    int given;
};

static int next_item(void *user, const void **item, size_t *size)
{
    struct source *source = user;
    if (source->given == ITEMS) {
        return MPROC_EOF;
    }
    *item = &source->item[source->given++];
    *size = sizeof source->item[0];
    return 0;
}

static void expect_told(struct chunk *chunk)
{
    assert_int_equal(chunk->wrong, 0);
    for (int i = 0; i < ITEMS; i++) {
        assert_int_equal(chunk->told[i], 1);
    }
    expect_untouched(chunk);
}

/* With arrays, by on_item alone, one by one: all three at once. */
static void the_rest_of_a_chunk_goes_on(void **state)
{
    (void)state;
    mproc_pool *p = threads_of(3);
    struct chunk chunk[3];
    struct source source[3];
    struct item out[ITEMS];
    int status[ITEMS];
    mproc_result *r[2];
    mproc_iter *it;
    const mproc_outcome *o;
    memset(chunk, 0, sizeof chunk);
    memset(source, 0, sizeof source);
    for (int i = 0; i < 3 * ITEMS; i++) {
        fill(&source[i / ITEMS].item[i % ITEMS], &chunk[i / ITEMS], i % ITEMS);
    }
    mproc_batch b = {.fn = runs_over,
                     .in = source[0].item,
                     .in_size = sizeof(struct item),
                     .count = ITEMS,
                     .out = out,
                     .out_size = sizeof out[0],
                     .status = status,
                     .chunk = ITEMS,
                     .timeout_s = 1,
                     .on_item = look,
                     .user = &chunk[0]};
    assert_ok(mproc_pool_map_async(p, &b, &r[0]));
    b.in = source[1].item;
    b.out = NULL;
    b.out_size = 0;
    b.status = NULL;
    b.user = &chunk[1];
    assert_ok(mproc_pool_map_async(p, &b, &r[1]));
    b.in = NULL;
    b.next = next_item;
    b.user = &source[2];
    b.on_item = NULL;
    assert_ok(mproc_pool_imap(p, &b, &it));
    for (int i = 0; i < ITEMS; i++) {
        assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
        look(o, &chunk[2]);
    }
    assert_err(mproc_iter_next(it, &o, TEST_BOUND), MPROC_EOF);
    mproc_iter_free(it);
    for (int i = 0; i < 2; i++) {
        assert_err(mproc_result_get(r[i], NULL, 0, NULL, TEST_BOUND),
                   MPROC_ETASK);
        assert_int_equal(mproc_result_outcome(r[i])->index, BAD);
        mproc_result_free(r[i]);
    }
    for (int i = 0; i < ITEMS; i++) {
        assert_err(status[i], status_of(i));
        assert_true(status_of(i) != MPROC_OK || is_good(&out[i], &chunk[0], i));
    }
    for (int i = 0; i < 3; i++) {
        expect_told(&chunk[i]);
    }
    end_of(p);
}

/* ---- one task --------------------------------------------------------- */

static _Atomic pid_t last;

static int returns_when_told(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    last = (pid_t)syscall(SYS_gettid);
    while (!mproc_task_canceled()) {
        usleep(100);
    }
    return mproc_reply_set(reply, "never seen", 10);
}

static void count_overtime(const mproc_outcome *o, void *user)
{
    *(int *)user += o->status == MPROC_EOVERTIME;
}

static void its_callback_is_called_once(void **state)
{
    (void)state;
    mproc_pool *p = threads_of(1);
    int told = 0;
    mproc_call call = {.fn = returns_when_told,
                       .callback = count_overtime,
                       .error_callback = count_overtime,
                       .user = &told,
                       .timeout_s = 0.05};
    mproc_result *r = sent(p, call);
    assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND), MPROC_EOVERTIME);
    assert_err(mproc_result_cancel(r), MPROC_EINVAL);
    mproc_result_free(r);
    await_end_of(last);
    end_of(p);
    assert_int_equal(told, 1);
}

/* What each had is used again when it has come back. */
static void many_may_be_abandoned_one_by_one(void **state)
{
    (void)state;
    enum { TIMES = 600, MOST = 160000 }; /* so many rows are more */
    mproc_pool *p = threads_of(1);
    mproc_heap_info before, now;
    mproc_call call = {.fn = returns_when_told, .timeout_s = 0.001};
    assert_ok(mproc_heap_stats(&before));
    for (int i = 0; i < TIMES; i++) {
        assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND),
                   MPROC_EOVERTIME);
        await_end_of(last);
    }
    assert_ok(mproc_heap_stats(&now));
    assert_in_range(now.in_use - before.in_use, 0, MOST);
    end_of(p);
}

static int dallies(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    (void)size;
    usleep((useconds_t)(n * 37 % 600));
    return mproc_reply_set(reply, &n, sizeof n);
}

static int mappings(void)
{
    int lines = 0, c;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while ((c = getc(f)) != EOF) {
        lines += c == '\n';
    }
    fclose(f);
    return lines;
}

static void replaced_threads_leave_no_stacks(void **state)
{
    (void)state;
    enum { TIMES = 100 };
    mproc_pool *p = pool_with((mproc_pool_opts){
        .workers = 1, .max_tasks_per_child = 1, .start = MPROC_START_THREAD});
    int n = 0;
    mproc_call call = {.fn = dallies, MPROC_ARG(n)};
    int before = mappings();
    for (int i = 0; i < TIMES; i++) {
        assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    }
    assert_true(mappings() - before < TIMES);
    end_of(p);
}

/* ---- a storm ---------------------------------------------------------- */

/* Most return just when they are to be abandoned. */
static void items_that_return_just_then_end_once(void **state)
{
    (void)state;
    enum { MANY = 400 };
    mproc_pool *p = threads_of(3);
    int in[MANY], out[MANY], status[MANY], over = 0;
    for (int i = 0; i < MANY; i++) {
        in[i] = i;
    }
    for (size_t chunk = 1; chunk < 20; chunk += 6) {
        mproc_batch b = {.fn = dallies,
                         .in = in,
                         .in_size = sizeof in[0],
                         .count = MANY,
                         .out = out,
                         .out_size = sizeof out[0],
                         .status = status,
                         .chunk = chunk,
                         .timeout_s = 0.0004};
        mproc_pool_map(p, &b, TEST_BOUND);
        for (int i = 0; i < MANY; i++) {
            assert_true(status[i] == MPROC_OK || status[i] == MPROC_EOVERTIME);
            assert_true(status[i] != MPROC_OK || out[i] == i);
            over += status[i] != MPROC_OK;
        }
    }
    assert_in_range(over, 1, 4 * MANY);
    end_of(p);
    usleep(20000); /* the last ones give back what they had */
}

/* ---- forks ------------------------------------------------------------ */

static int forks(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    pid_t pid = fork();
    if (pid == 0) {
        pthread_exit(NULL);
    }
    (void)reply;
    test_wait_exit(pid);
    return 0;
}

/* The end of its thread in another process is none of the pool's. */
static void the_fork_of_a_thread_may_end_by_itself(void **state)
{
    (void)state;
    mproc_pool *p = threads_of(1);
    mproc_call call = {.fn = forks};
    mproc_pool_info info;
    for (int i = 0; i < 5; i++) {
        assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    }
    assert_ok(mproc_pool_stats(p, &info));
    assert_int_equal(info.respawned, 0);
    end_of(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(the_rest_of_a_chunk_goes_on),
        CLEAN(its_callback_is_called_once),
        CLEAN(many_may_be_abandoned_one_by_one),
        CLEAN(replaced_threads_leave_no_stacks),
        CLEAN(items_that_return_just_then_end_once),
        CLEAN(the_fork_of_a_thread_may_end_by_itself),
    };
    return cmocka_run_group_tests_name("pool_abandon", tests, NULL, NULL);
}
