/* SPDX-License-Identifier: MIT */
/* Pools whose workers, nurseries and makers die. */
#include "pool_kin.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool_meeting.h"
#include "pool_tasks.h"

/* ---- tasks ------------------------------------------------------------ */

static int dies(const void *arg, size_t size, mproc_reply *reply)
{
    int sig = *(const int *)arg;
    (void)size;
    mproc_reply_set(reply, "never seen", 10);
    signal(sig, SIG_DFL);
    raise(sig);
    return 0;
}

static int aborts(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    mproc_reply_fail(reply, 5, "never seen");
    abort();
}

static int exits(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    exit(*(const int *)arg);
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

/* ---- a worker --------------------------------------------------------- */

static void a_dead_worker_is_told_and_replaced(void **state)
{
    (void)state;
    const struct {
        mproc_task_fn *fn;
        int arg, code;
        const char *how;
    } ends[] = {
        {exits, 5, 5, "worker %d exited with status 5"},
        {exits, 0, 0, "worker %d exited with status 0"},
        {aborts, 0, -SIGABRT, "worker %d killed by signal 6 (SIGABRT)"},
        {dies, SIGKILL, -SIGKILL, "worker %d killed by signal 9 (SIGKILL)"},
        {dies, SIGSEGV, -SIGSEGV, "worker %d killed by signal 11 (SIGSEGV)"},
        {dies, SIGTERM, -SIGTERM, "worker %d killed by signal 15 (SIGTERM)"},
    };
    mproc_pool *p = pool_of(1);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int arg = ends[i].arg;
        char error[80];
        pid_t before, after;
        mproc_call tell = {.fn = tells_pid};
        assert_ok(
            mproc_pool_apply(p, &tell, &before, sizeof before, TEST_BOUND));
        mproc_result *r = sent(p, (mproc_call){ends[i].fn, MPROC_ARG(arg)});
        assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND),
                   MPROC_EWORKERLOST);
        const mproc_outcome *o = mproc_result_outcome(r);
        snprintf(error, sizeof error, ends[i].how, (int)before);
        assert_int_equal(o->status, MPROC_EWORKERLOST);
        assert_int_equal(o->code, ends[i].code);
        assert_int_equal(o->worker, before);
        assert_int_equal(o->size, 0);
        assert_string_equal(o->error, error);
        assert_ok(mproc_pool_apply(p, &tell, &after, sizeof after, TEST_BOUND));
        assert_int_not_equal(before, after);
        mproc_result_free(r);
    }
    end_of(p);
}

static void only_the_task_of_a_dead_worker_fails(void **state)
{
    (void)state;
    enum { TASKS = 200 };
    mproc_pool *p = pool_of(3);
    mproc_result *r[TASKS];
    for (int i = 0; i < TASKS; i++) {
        int arg = i % 10 == 3 ? SIGKILL : i;
        r[i] = sent(p, (mproc_call){.fn = i % 10 == 3 ? dies : squares,
                                    MPROC_ARG(arg)});
    }
    for (int i = 0; i < TASKS; i++) {
        int n;
        int err = mproc_result_get(r[i], &n, sizeof n, NULL, TEST_BOUND);
        assert_err(err, i % 10 == 3 ? MPROC_EWORKERLOST : MPROC_OK);
        assert_true(err < 0 || n == i * i);
        mproc_result_free(r[i]);
    }
    end_of(p);
}

/* Leaves a child behind, which has all that the worker had. */
static int forks(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_queue *gate = *(mproc_queue *const *)arg;
    (void)size;
    pid_t pid = fork();
    if (pid == 0) {
        mproc_queue_get(gate, NULL, 0, NULL, MPROC_FOREVER);
        _exit(0);
    }
    return pid > 0 ? mproc_reply_set(reply, &pid, sizeof pid) : 1;
}

static void the_child_of_a_task_is_none_of_the_pools(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_queue *gate = queue();
    pid_t child;
    mproc_call call = {.fn = forks, MPROC_ARG(gate)};
    assert_ok(mproc_pool_apply(p, &call, &child, sizeof child, TEST_BOUND));
    expect_squares(p, 5);
    end_of(p);
    assert_true(runs(child));
    assert_ok(mproc_queue_put(gate, NULL, 0, MPROC_FOREVER));
    expect_gone(child);
    mproc_queue_free(gate);
}

/* Forks once more, without a thought of who comes back. */
static int forks_and_returns(const void *arg, size_t size, mproc_reply *reply)
{
    int n = *(const int *)arg;
    (void)size;
    if (fork() == 0) {
        if (n % 3 == 0) {
            mproc_free(mproc_alloc(1)); /* it may use the library */
        }
        return 5;
    }
    n *= n;
    return mproc_reply_set(reply, &n, sizeof n);
}

static void the_fork_of_a_worker_is_none(void **state)
{
    (void)state;
    for (int threads = 0; threads < 2; threads++) {
        mproc_pool *p = pool_with((mproc_pool_opts){
            .workers = 2,
            .start = threads ? MPROC_START_THREAD : MPROC_START_FORK});
        for (int i = 1; i < 40; i += 2) {
            int out;
            mproc_call call = {.fn = forks_and_returns, MPROC_ARG(i)};
            assert_ok(mproc_pool_apply(p, &call, &out, sizeof out, TEST_BOUND));
            assert_int_equal(out, i * i);
        }
        expect_squares(p, 20);
        end_of(p);
        while (waitpid(-1, NULL, 0) > 0) {
        }
    }
}

/* Closes what it may not close, leaves a child, and stops itself. */
static int misbehaves(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    if (fork() == 0) {
        _exit(0);
    }
    for (int fd = 3; fd < 1024; fd++) {
        syscall(SYS_close, fd);
    }
    raise(SIGSTOP);
    return 0;
}

static void a_stopped_task_ends_at_the_deadline(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_call call = {.fn = misbehaves};
    assert_err(mproc_pool_apply(p, &call, NULL, 0, mproc_in_ms(300)),
               MPROC_ETIMEDOUT);
    expect_squares(p, 5);
    end_of(p);
}

static void cancelled_tasks_end_one_by_one(void **state)
{
    (void)state;
    enum { TASKS = 10000 };
    mproc_pool *p = pool_of(2);
    unsigned seed = 1, done = 0, over = 0;
    for (int i = 0; i < TASKS; i++) {
        int out = -1;
        seed = seed * 1103515245 + 12345;
        mproc_call call = {.fn = squares, MPROC_ARG(i)};
        mproc_deadline until = seed % 8 == 0 ? TEST_BOUND
                               : seed % 50
                                   ? mproc_in_ms(seed / 65536 % 300 / 1000.0)
                                   : MPROC_NOWAIT;
        int err = mproc_pool_apply(p, &call, &out, sizeof out, until);
        assert_true(err == 0 || err == MPROC_ETIMEDOUT);
        assert_int_equal(out, err == 0 ? i * i : -1);
        done += err == 0;
        over += err != 0;
    }
    assert_int_equal(done + over, TASKS);
    assert_true(done > 0 && over > 0);
    expect_squares(p, 3);
    end_of(p);
}

static void idle_workers_may_be_killed(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(3);
    for (int i = 0; i < 30; i++) {
        pid_t worker[3];
        size_t count = mproc_pool_worker_pids(p, worker, 3);
        for (size_t k = 0; k < count && k <= (size_t)i % 3; k++) {
            kill(worker[k], SIGKILL);
        }
        int n = i, out;
        int err = mproc_pool_apply(p, &(mproc_call){squares, MPROC_ARG(n)},
                                   &out, sizeof out, TEST_BOUND);
        assert_true(err == 0 || err == MPROC_EWORKERLOST);
    }
    expect_squares(p, 10);
    end_of(p);
}

static void all_workers_may_be_killed_at_once(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(3);
    struct meeting m = meeting();
    mproc_result *waits[3], *queued[20];
    for (int i = 0; i < 3; i++) {
        waits[i] = sent(p, (mproc_call){.fn = comes_and_waits, MPROC_ARG(m)});
    }
    for (int i = 0; i < 20; i++) {
        queued[i] = sent(p, (mproc_call){.fn = squares, MPROC_ARG(i)});
    }
    for (int i = 0; i < 3; i++) {
        kill(met(&m), SIGKILL);
    }
    for (int i = 0; i < 3; i++) {
        assert_err(mproc_result_get(waits[i], NULL, 0, NULL, TEST_BOUND),
                   MPROC_EWORKERLOST);
        mproc_result_free(waits[i]);
    }
    for (int i = 0; i < 20; i++) {
        int n;
        assert_ok(mproc_result_get(queued[i], &n, sizeof n, NULL, TEST_BOUND));
        assert_int_equal(n, i * i);
        mproc_result_free(queued[i]);
    }
    end_of(p);
    free_meeting(&m);
}

/* ---- the nursery ------------------------------------------------------ */

/* SIGUSR1 alone is blocked. */
static int has_the_mask(const void *arg, size_t size, mproc_reply *reply)
{
    sigset_t mask;
    (void)arg;
    (void)size;
    (void)reply;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return !sigismember(&mask, SIGUSR1) || sigismember(&mask, SIGUSR2) ||
           sigismember(&mask, SIGTERM) || sigismember(&mask, SIGCHLD);
}

static void the_nursery_may_be_killed(void **state)
{
    (void)state;
    sigset_t mask, before;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &mask, &before);
    mproc_pool *p = pool_of(2);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (int round = 0; round < 4; round++) {
        struct meeting m = meeting();
        mproc_call wait = {.fn = comes_and_waits, MPROC_ARG(m)};
        mproc_result *running[2] = {sent(p, wait), sent(p, wait)};
        int n = 12, out;
        mproc_result *queued =
            sent(p, (mproc_call){.fn = squares, MPROC_ARG(n)});
        pid_t worker[2] = {met(&m), met(&m)};
        pid_t nursery = nursery_of(p);
        assert_true(nursery > 1 && nursery != getpid());
        kill(nursery, SIGKILL);
        for (int i = 0; i < 2; i++) {
            assert_err(mproc_result_get(running[i], NULL, 0, NULL, TEST_BOUND),
                       MPROC_EWORKERLOST);
            pid_t lost = mproc_result_outcome(running[i])->worker;
            assert_true(lost == worker[0] || lost == worker[1]);
            mproc_result_free(running[i]);
            expect_gone(worker[i]);
        }
        assert_ok(mproc_result_get(queued, &out, 4, NULL, TEST_BOUND));
        assert_int_equal(out, 144);
        mproc_result_free(queued);
        mproc_call mine = {.fn = has_the_mask};
        assert_ok(mproc_pool_apply(p, &mine, NULL, 0, TEST_BOUND));
        int sig = SIGTERM; /* workers of a later nursery are replaced too */
        assert_err(mproc_pool_apply(p, &(mproc_call){dies, MPROC_ARG(sig)},
                                    NULL, 0, TEST_BOUND),
                   MPROC_EWORKERLOST);
        expect_squares(p, 10);
        free_meeting(&m);
    }
    end_of(p);
}

/* Idle, closed, terminated, with a batch under way: the nursery dies. */
static void the_nursery_may_be_killed_at_any_time(void **state)
{
    (void)state;
    enum { ITEMS = 400 };
    int in[ITEMS], out[ITEMS], status[ITEMS];
    for (int i = 0; i < ITEMS; i++) {
        in[i] = i;
    }
    for (int round = 0; round < 12; round++) {
        mproc_pool *p = pool_of(2);
        mproc_result *r;
        mproc_batch b = {.fn = squares,
                         .in = in,
                         .in_size = sizeof(int),
                         .count = ITEMS,
                         .out = out,
                         .out_size = sizeof(int),
                         .status = status};
        pid_t nursery = nursery_of(p);
        assert_ok(mproc_pool_map_async(p, &b, &r));
        usleep((useconds_t)round * 300);
        if (round % 3 == 1) {
            assert_ok(mproc_pool_close(p));
        } else if (round % 3 == 2) {
            assert_ok(mproc_pool_terminate(p));
        }
        kill(nursery, SIGKILL);
        assert_ok(mproc_result_wait(r, TEST_BOUND));
        int lost = 0;
        for (int i = 0; i < ITEMS; i++) {
            lost += status[i] == MPROC_EWORKERLOST;
            assert_true(status[i] == MPROC_OK ||
                        status[i] == MPROC_EWORKERLOST ||
                        (round % 3 == 2 && status[i] == MPROC_ECANCELED));
            assert_true(status[i] != MPROC_OK || out[i] == i * i);
        }
        assert_true(lost <= 2);
        mproc_result_free(r);
        end_of(p);
    }
}

/* ---- the maker -------------------------------------------------------- */

struct left {
    _Atomic pid_t nursery, worker[3], in_task;
};

static struct left *left;
static struct meeting maker_meeting;

static int replies_much(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    mproc_reply_reserve(reply, 5000);
    return mproc_reply_fail(reply, 0, "words");
}

/* Tasks with large arguments, batches; some have ended, the others wait. */
static void leave_much(mproc_pool *p)
{
    enum { ITEMS = 200 };
    static char large[20000];
    static int in[ITEMS], out[ITEMS];
    mproc_batch b = {.fn = squares,
                     .in = in,
                     .in_size = sizeof(int),
                     .count = ITEMS,
                     .out = out,
                     .out_size = sizeof(int),
                     .chunk = 3};
    mproc_result *r;
    for (int i = 0; i < 20; i++) {
        mproc_call call = {
            .fn = replies_much, .arg = large, .arg_size = sizeof large};
        r = sent(p, call);
    }
    assert_ok(mproc_result_wait(r, TEST_BOUND));
    assert_ok(mproc_pool_map_async(p, &b, &r));
    mproc_call stays = {.fn = comes_and_waits, MPROC_ARG(maker_meeting)};
    for (int i = 0; i < 2; i++) {
        sent(p, stays);
        met(&maker_meeting);
    }
    mproc_call call = {
        .fn = replies_much, .arg = large, .arg_size = sizeof large};
    for (int i = 0; i < 100; i++) {
        sent(p, call);
    }
    assert_ok(mproc_pool_map_async(p, &b, &r));
}

/* Nor does a maker that exits so free its batches. */
static bool leaves;
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return leaves;
}

static int makes_and_leaves(void *arg)
{
    leaves = true;
    mproc_pool *p = pool_of(3);
    leave_much(p);
    mproc_pool_worker_pids(p, (pid_t *)left->worker, 3);
    mproc_call call = {.fn = comes_and_waits, MPROC_ARG(maker_meeting)};
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    left->in_task = met(&maker_meeting);
    left->nursery = nursery_of(p);
    if (arg == NULL) {
        raise(SIGKILL);
    }
    exit(3); /* by the exit handlers, but without mproc_pool_free */
}

static void expect_maker_gone(void *how, int code)
{
    left = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                -1, 0);
    assert_ptr_not_equal(left, MAP_FAILED);
    maker_meeting = meeting();
    assert_int_equal(test_wait_exit(test_fork(makes_and_leaves, how)), code);
    assert_true(left->nursery > 1);
    expect_gone(left->nursery);
    for (int i = 0; i < 3; i++) {
        assert_true(left->worker[i] > 1);
        expect_gone(left->worker[i]);
    }
    assert_true(left->in_task > 1);
    expect_gone(left->in_task);
    munmap(left, 4096);
    free_meeting(&maker_meeting);
}

static void a_killed_maker_leaves_no_process(void **state)
{
    (void)state;
    expect_maker_gone(NULL, -SIGKILL);
}

static void a_maker_that_exits_leaves_no_process(void **state)
{
    (void)state;
    expect_maker_gone(&left, 3);
}

/* ---- main ------------------------------------------------------------- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(a_dead_worker_is_told_and_replaced),
        CLEAN(only_the_task_of_a_dead_worker_fails),
        CLEAN(the_child_of_a_task_is_none_of_the_pools),
        CLEAN(the_fork_of_a_worker_is_none),
        CLEAN(a_stopped_task_ends_at_the_deadline),
        CLEAN(cancelled_tasks_end_one_by_one),
        CLEAN(idle_workers_may_be_killed),
        CLEAN(all_workers_may_be_killed_at_once),
        CLEAN(the_nursery_may_be_killed),
        CLEAN(the_nursery_may_be_killed_at_any_time),
        CLEAN(a_killed_maker_leaves_no_process),
        CLEAN(a_maker_that_exits_leaves_no_process),
    };
    return cmocka_run_group_tests_name("pool_deaths", tests, NULL, NULL);
}
