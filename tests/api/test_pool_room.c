/* SPDX-License-Identifier: MIT */
/*
 * test_pool_room [many]: pools for which there is no room, at the start or
 * later. With `many`, pools of ten thousand.
 *
 * Where the system has no more processes for a user, that is an unprivileged
 * one: root would be given more.
 */
#include "pool_kin.h"
#include "pool_meeting.h"

#include <malloc.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { TEN_THOUSAND = 10000, DONE = 17, CANNOT = 77 };

/* ---- what a refusal may leave ----------------------------------------- */

struct held {
    mproc_heap_info heap;
    int fds;
    size_t own; /* bytes of this process's own heap, where that can be told */
};

static size_t own_heap(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    return mallinfo2().uordblks;
#else
    return 0;
#endif
}

static struct held held(void)
{
    struct held held = {.fds = test_open_fds(), .own = own_heap()};
    assert_ok(mproc_heap_stats(&held.heap));
    return held;
}

/* A thread that has ended for us may yet give its own back. */
static void expect_own_heap(size_t most)
{
    for (int i = 0; i < 3000 && own_heap() > most; i++) {
        usleep(10000);
    }
    assert_in_range(own_heap(), 0, most);
}

static void expect_no_more(const struct held *before)
{
    await_nobody();
    struct held now = held();
    if (now.heap.blocks != before->heap.blocks) {
        let_the_dead_be_reaped(before->heap.blocks);
        now = held();
    }
    assert_int_equal(now.fds, before->fds);
    assert_int_equal(now.heap.blocks, before->heap.blocks);
    assert_int_equal(now.heap.in_use, before->heap.in_use);
    expect_own_heap(before->own + 4096); /* libc keeps some */
}

enum { FIRST = 10, TRIES = 30 }; /* first libc fills what it keeps for itself */

/* So often that what is left each time would show. */
static void expect_refused(mproc_pool_opts opts, int err)
{
    struct held before = {.fds = -1};
    for (int i = 0; i < TRIES; i++) {
        mproc_pool *p = NULL;
        if (i == FIRST) {
            await_nobody();
            before = held();
        }
        assert_err(mproc_pool_new(&p, &opts), err);
        assert_null(p);
    }
    expect_no_more(&before);
}

/* ---- more than the library serves ------------------------------------- */

static void ten_thousand_workers_are_refused(void **state)
{
    (void)state;
    expect_refused((mproc_pool_opts){.workers = TEN_THOUSAND}, MPROC_EAGAIN);
    expect_refused(
        (mproc_pool_opts){.workers = TEN_THOUSAND, .manual_dispatch = 1},
        MPROC_EAGAIN);
    assert_non_null(strstr(mproc_strerror(MPROC_EAGAIN), "limit of processes"));
}

static void expect_squares(mproc_pool *p, int count)
{
    for (int i = 0; i < count; i++) {
        int out;
        assert_ok(mproc_pool_apply(p, &(mproc_call){squares, MPROC_ARG(i)},
                                   &out, sizeof out, TEST_BOUND));
        assert_int_equal(out, i * i);
    }
}

static void nor_can_a_pool_be_resized_to_them(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < 10; i++) {
        assert_err(mproc_pool_resize(p, TEN_THOUSAND), MPROC_EAGAIN);
    }
    expect_workers(p, 2);
    expect_squares(p, 10);
    end_of(p);
}

/* ---- more than the system gives --------------------------------------- */

/* In a child, as a user of whom no other process is. */
static void as_some_user(int (*fn)(void *arg))
{
    if (getuid() != 0) {
        skip();
    }
    int code = test_wait_exit(test_fork(fn, NULL));
    if (code == CANNOT) {
        skip();
    }
    assert_int_equal(code, DONE);
}

static bool become_some_user(void)
{
    uid_t user = 60000 + (uid_t)getpid() % 5000;
    return setresgid(user, user, user) == 0 &&
           setresuid(user, user, user) == 0 && adopt_orphans(NULL) == 0;
}

/* A limit that `pid`, 0: this process, may raise again. */
static bool limit_processes(pid_t pid, rlim_t most)
{
    struct rlimit limit = {most, 4096};
    return prlimit(pid, RLIMIT_NPROC, &limit, NULL) == 0;
}

/* None at all, or some of those that are wanted. */
static int makes_no_pool(void *arg)
{
    (void)arg;
    if (!become_some_user()) {
        return CANNOT;
    }
    for (rlim_t most = 1; most <= 40; most += 29) {
        assert_true(limit_processes(0, most));
        expect_refused((mproc_pool_opts){.workers = 100}, MPROC_EAGAIN);
        expect_refused((mproc_pool_opts){.workers = 100, .manual_dispatch = 1},
                       MPROC_EAGAIN);
        expect_refused(
            (mproc_pool_opts){.workers = 100, .start = MPROC_START_THREAD},
            MPROC_EAGAIN);
    }
    return DONE;
}

static void without_processes_there_is_no_pool(void **state)
{
    (void)state;
    as_some_user(makes_no_pool);
}

/* How many processes and threads this user may have, from one more on. */
static int makes_a_pool_bit_by_bit(void *arg)
{
    enum { MOST = 20 }; /* under a sanitizer each process has two threads */
    int made = 0;
    (void)arg;
    if (!become_some_user()) {
        return CANNOT;
    }
    int fds = test_open_fds();
    for (rlim_t limit = 2; limit < MOST && made < 2; limit++) {
        mproc_pool *p;
        assert_true(limit_processes(0, limit));
        int err = mproc_pool_new(&p, &(mproc_pool_opts){.workers = 3});
        assert_true(err == 0 || err == MPROC_EAGAIN);
        made += err == 0;
        if (err == 0) {
            expect_squares(p, 3);
            end_of(p);
        }
        await_nobody();
        assert_int_equal(test_open_fds(), fds);
    }
    return made == 2 ? DONE : 1;
}

static void a_pool_is_whole_or_not_there(void **state)
{
    (void)state;
    as_some_user(makes_a_pool_bit_by_bit);
}

static int grows_too_much(void *arg)
{
    (void)arg;
    if (!become_some_user()) {
        return CANNOT;
    }
    struct held before = held();
    mproc_pool *p = pool_of(2);
    pid_t nursery = nursery_of(p);
    for (rlim_t most = 1; most <= 40; most += 13) {
        if (!limit_processes(nursery, most)) {
            return CANNOT;
        }
        assert_err(mproc_pool_resize(p, 100), MPROC_EAGAIN);
        expect_workers(p, 2);
        expect_squares(p, 10);
    }
    assert_true(limit_processes(nursery, 4096));
    assert_ok(mproc_pool_resize(p, 4));
    expect_workers(p, 4);
    expect_squares(p, 10);
    end_of(p);
    expect_no_more(&before);
    return DONE;
}

static void a_pool_that_cannot_grow_is_as_before(void **state)
{
    (void)state;
    as_some_user(grows_too_much);
}

static void kill_who_comes(const struct meeting *m, int count)
{
    for (int i = 0; i < count; i++) {
        kill(met(m), SIGKILL);
    }
}

static void expect_respawned(mproc_pool *p, size_t count)
{
    mproc_pool_info info;
    assert_ok(mproc_pool_stats(p, &info));
    assert_int_equal(info.respawned, count);
}

static void expect_broken(mproc_pool *p)
{
    int n = 2;
    mproc_result *r = NULL;
    mproc_iter *it = NULL;
    mproc_call call = {.fn = squares, MPROC_ARG(n)};
    mproc_batch b = {.fn = squares, .in = &n, .in_size = sizeof n, .count = 1};
    assert_err(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND), MPROC_EBROKEN);
    assert_err(mproc_pool_apply_async(p, &call, &r, TEST_BOUND), MPROC_EBROKEN);
    assert_err(mproc_pool_map(p, &b, TEST_BOUND), MPROC_EBROKEN);
    assert_err(mproc_pool_map_async(p, &b, &r), MPROC_EBROKEN);
    assert_err(mproc_pool_imap(p, &b, &it), MPROC_EBROKEN);
    assert_err(mproc_pool_resize(p, 2), MPROC_EBROKEN);
    assert_null(r);
    assert_null(it);
}

/*
 * Of four workers two are left, later four again, in the end none. The limit is
 * the nursery's, which forks.
 */
static int loses_its_workers(void *arg)
{
    enum { WORKERS = 4, TASKS = 12 };
    (void)arg;
    if (!become_some_user()) {
        return CANNOT;
    }
    struct meeting m = {queue(), queue()};
    mproc_pool *p = pool_of(WORKERS);
    pid_t nursery = nursery_of(p);
    mproc_call call = {.fn = comes_and_waits, MPROC_ARG(m)};
    mproc_result *r[TASKS];
    if (!limit_processes(nursery, 1)) {
        return CANNOT;
    }
    for (int i = 0; i < 2; i++) {
        r[i] = sent(p, call);
    }
    kill_who_comes(&m, 2);
    for (int i = 0; i < 2; i++) {
        assert_err(mproc_result_get(r[i], NULL, 0, NULL, TEST_BOUND),
                   MPROC_EWORKERLOST);
        mproc_result_free(r[i]);
    }
    expect_workers(p, 2);
    expect_squares(p, 20);
    usleep(250000); /* it tries again and again, in vain */
    expect_workers(p, 2);
    expect_respawned(p, 0);
    assert_true(limit_processes(nursery, 4096));
    expect_workers(p, WORKERS);
    expect_respawned(p, 2);
    assert_true(limit_processes(nursery, 1));
    for (int i = 0; i < TASKS; i++) {
        r[i] = sent(p, call);
    }
    kill_who_comes(&m, WORKERS);
    int lost = 0, broken = 0;
    for (int i = 0; i < TASKS; i++) {
        int err = mproc_result_get(r[i], NULL, 0, NULL, TEST_BOUND);
        lost += err == MPROC_EWORKERLOST;
        broken += err == MPROC_EBROKEN;
        mproc_result_free(r[i]);
    }
    assert_int_equal(lost, WORKERS);
    assert_int_equal(broken, TASKS - WORKERS);
    expect_broken(p);
    end_of(p);
    await_nobody();
    mproc_queue_free(m.here);
    mproc_queue_free(m.gate);
    return DONE;
}

static void a_pool_lives_on_with_fewer_workers_but_not_with_none(void **state)
{
    (void)state;
    as_some_user(loses_its_workers);
}

static void without_descriptors_there_is_no_pool(void **state)
{
    (void)state;
    struct rlimit before, low;
    int lowest = dup(0);
    close(lowest);
    struct held first = {.fds = -1};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)lowest;
    for (int i = 0; i < TRIES; i++) {
        mproc_pool *p = NULL;
        if (i == FIRST) {
            await_nobody();
            first = held();
        }
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        int err = mproc_pool_new(&p, &(mproc_pool_opts){.workers = 2});
        setrlimit(RLIMIT_NOFILE, &before);
        assert_err(err, MPROC_EMFILE);
        assert_null(p);
    }
    expect_no_more(&first);
}

/* ---- ten thousand ----------------------------------------------------- */

/* Where there is room they work; where there is none, nothing is left. */
static void expect_room_or_nothing(mproc_pool_opts opts)
{
    mproc_pool *p;
    struct held before = held();
    before.own = SIZE_MAX / 2; /* libc keeps a lot of so many */
    int err = mproc_pool_new(&p, &opts);
    print_message("%zu workers: %s\n", opts.workers, mproc_error_name(err));
    if (err == 0) {
        expect_workers(p, opts.workers);
        expect_squares(p, 100);
        mproc_pool_free(p);
    } else {
        assert_true(err == MPROC_EAGAIN || err == MPROC_ENOMEM);
    }
    expect_no_more(&before);
}

static void ten_thousand_workers_are_there_or_refused(void **state)
{
    (void)state;
    expect_room_or_nothing((mproc_pool_opts){.workers = TEN_THOUSAND});
    expect_room_or_nothing((mproc_pool_opts){.workers = TEN_THOUSAND});
    expect_room_or_nothing((mproc_pool_opts){.workers = TEN_THOUSAND,
                                             .start = MPROC_START_THREAD});
}

/* As some user, of a family in which there were room for them. */
static int makes_no_ten_thousand(void *arg)
{
    (void)arg;
    if (!become_some_user()) {
        return CANNOT;
    }
    assert_true(limit_processes(0, 300));
    expect_refused((mproc_pool_opts){.workers = TEN_THOUSAND}, MPROC_EAGAIN);
    expect_refused(
        (mproc_pool_opts){.workers = TEN_THOUSAND, .start = MPROC_START_THREAD},
        MPROC_EAGAIN);
    mproc_pool *p = pool_of(2);
    assert_err(mproc_pool_resize(p, TEN_THOUSAND), MPROC_EAGAIN);
    expect_workers(p, 2);
    expect_squares(p, 10);
    end_of(p);
    await_nobody();
    return DONE;
}

static void the_limit_of_the_system_ends_the_start(void **state)
{
    (void)state;
    as_some_user(makes_no_ten_thousand);
}

int main(int argc, char **argv)
{
    (void)argv;
    const struct CMUnitTest tests[] = {
        CLEAN(ten_thousand_workers_are_refused),
        CLEAN(nor_can_a_pool_be_resized_to_them),
        CLEAN(without_processes_there_is_no_pool),
        CLEAN(a_pool_is_whole_or_not_there),
        CLEAN(a_pool_that_cannot_grow_is_as_before),
        CLEAN(a_pool_lives_on_with_fewer_workers_but_not_with_none),
        CLEAN(without_descriptors_there_is_no_pool),
    };
    const struct CMUnitTest many[] = {
        CLEAN(the_limit_of_the_system_ends_the_start),
        CLEAN(ten_thousand_workers_are_there_or_refused),
    };
    if (argc > 1) {
        mproc_config config = {.processes_max = 32768};
        return mproc_configure(&config) < 0
                   ? 1
                   : cmocka_run_group_tests_name("pool_room, many", many,
                                                 adopt_orphans, NULL);
    }
    return cmocka_run_group_tests_name("pool_room", tests, adopt_orphans, NULL);
}
