/* SPDX-License-Identifier: MIT */
/* What workers have from their maker, and who may use a pool beside it. */
#include "pool_kin.h"
#include "pool_meeting.h"
#include "pool_tasks.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- workers ---------------------------------------------------------- */

static _Atomic int *counter;

static int counts(void *arg)
{
    atomic_fetch_add(*(_Atomic int **)arg, 1);
    return 0;
}

static int initialized_with;

static int keeps(void *arg)
{
    initialized_with = *(const int *)arg;
    *(int *)arg = 0; /* its own copy */
    return 0;
}

static int tells_what_it_was_initialized_with(const void *arg, size_t size,
                                              mproc_reply *reply)
{
    (void)arg;
    (void)size;
    return mproc_reply_set(reply, &initialized_with, sizeof(int));
}

static void the_initializer_runs_once_a_worker(void **state)
{
    (void)state;
    counter = mproc_calloc(1, sizeof *counter);
    mproc_pool *p = pool_with((mproc_pool_opts){
        .workers = 3, .initializer = counts, .initializer_arg = &counter});
    assert_int_equal(*counter, 3);
    for (int i = 0; i < 30; i++) {
        mproc_call call = {.fn = does_nothing};
        assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    }
    assert_int_equal(*counter, 3);
    end_of(p);
    mproc_free((void *)counter);
    int arg = 77, told;
    p = pool_with((mproc_pool_opts){.workers = 2,
                                    .initializer = keeps,
                                    .initializer_arg = &arg,
                                    .initializer_arg_size = sizeof arg});
    arg = 1;
    mproc_call call = {.fn = tells_what_it_was_initialized_with};
    assert_ok(mproc_pool_apply(p, &call, &told, sizeof told, TEST_BOUND));
    assert_int_equal(told, 77);
    end_of(p);
}

static void workers_are_replaced_after_their_tasks(void **state)
{
    (void)state;
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 1, .max_tasks_per_child = 2});
    pid_t pid[8], items[8];
    mproc_call call = {.fn = tells_pid};
    for (int i = 0; i < 8; i++) {
        assert_ok(
            mproc_pool_apply(p, &call, &pid[i], sizeof(pid_t), TEST_BOUND));
    }
    mproc_batch b = {.fn = tells_pid,
                     .in = items,
                     .in_size = sizeof(pid_t),
                     .count = 8,
                     .out = items,
                     .out_size = sizeof(pid_t),
                     .chunk = 8};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    for (int i = 0; i < 8; i += 2) {
        assert_int_equal(pid[i], pid[i + 1]);
        assert_int_equal(items[i], items[i + 1]);
        assert_true(i == 0 || pid[i] != pid[i - 1]);
        assert_true(i == 0 || items[i] != items[i - 1]);
    }
    assert_int_not_equal(pid[7], items[0]);
    end_of(p);
}

enum { MUCH = 32 << 20 };

/* Leaks some, and says who it was. */
static int leaks(const void *arg, size_t size, mproc_reply *reply)
{
    bool leak = *(const int *)arg == 1;
    (void)size;
    char *memory = leak ? malloc(MUCH) : NULL;
    if (memory != NULL) {
        memset(memory, 1, MUCH);
        memory[MUCH - 1] = *(volatile char *)memory;
    }
    return tells_pid(arg, size, reply);
}

static void a_worker_with_much_memory_is_replaced(void **state)
{
    (void)state;
    /* what it holds from the start is its maker's, under a sanitizer much */
    size_t limit = (size_t)1 << 40;
    const int in[6] = {0, 1, 0, 0, 1, 0};
    mproc_pool *p =
        pool_with((mproc_pool_opts){.workers = 1, .max_rss_per_child = limit});
    pid_t first = worker_of(p);
    assert_int_equal(worker_of(p), first);
    end_of(p);
    p = pool_with((mproc_pool_opts){.workers = 1, .max_rss_per_child = MUCH});
    pid_t last = 0, pid;
    for (int i = 0; i < 6; i++) {
        mproc_call call = {.fn = leaks, MPROC_ARG(in[i])};
        assert_ok(mproc_pool_apply(p, &call, &pid, sizeof pid, TEST_BOUND));
        assert_true(i == 0 || in[i - 1] == 0 || pid != last);
        last = pid;
    }
    pid_t out[6];
    for (size_t chunk = 1; chunk <= 6; chunk += 5) {
        mproc_batch b = {.fn = leaks,
                         .in = in,
                         .in_size = sizeof(int),
                         .count = 6,
                         .out = out,
                         .out_size = sizeof(pid_t),
                         .chunk = chunk};
        assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
        for (int i = 1; i < 6; i++) {
            assert_true(in[i - 1] == 0 || out[i] != out[i - 1]);
        }
    }
    end_of(p);
}

static int prints(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    fputs(arg, stdout);
    return 0;
}

/* A program of its own, whose stdout is a file. */
static int prints_by_tasks(void *arg)
{
    if (freopen(arg, "w", stdout) == NULL) {
        return 1;
    }
    fputs("maker\n", stdout);
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < 10; i++) {
        mproc_call call = {.fn = prints, .arg = "task\n", .arg_size = 5};
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    end_of(p);
    return 0;
}

static void what_tasks_print_comes_out_once(void **state)
{
    (void)state;
    char path[] = "/tmp/test_pool.XXXXXX", line[64];
    int fd = mkstemp(path), makers = 0, tasks = 0;
    assert_true(fd >= 0);
    assert_int_equal(test_wait_exit(test_fork(prints_by_tasks, path)), 0);
    FILE *f = fdopen(fd, "r");
    while (fgets(line, sizeof line, f) != NULL) {
        makers += strcmp(line, "maker\n") == 0;
        tasks += strcmp(line, "task\n") == 0;
    }
    fclose(f);
    unlink(path);
    assert_int_equal(makers, 1);
    assert_int_equal(tasks, 10);
}

static int parent_is_maker(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    struct sigaction interrupt;
    sigaction(SIGINT, NULL, &interrupt);
    return mproc_process_parent_pid() != *(const pid_t *)arg ||
           interrupt.sa_handler != SIG_IGN ||
           mproc_process_daemon(mproc_process_current());
}

static void a_worker_is_a_child_of_the_maker(void **state)
{
    (void)state;
    pid_t self = getpid();
    mproc_pool *p = pool_of(1);
    assert_ok(mproc_pool_apply(p,
                               &(mproc_call){parent_is_maker, MPROC_ARG(self)},
                               NULL, 0, TEST_BOUND));
    end_of(p);
}

/* SIGUSR1 and SIGCHLD are blocked, SIGUSR2 is not. */
static int has_the_mask(const void *arg, size_t size, mproc_reply *reply)
{
    sigset_t mask;
    (void)arg;
    (void)size;
    (void)reply;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return !sigismember(&mask, SIGUSR1) || !sigismember(&mask, SIGCHLD) ||
           sigismember(&mask, SIGUSR2) || sigismember(&mask, SIGTERM);
}

static void workers_have_their_makers_mask(void **state)
{
    (void)state;
    sigset_t mask, before;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &mask, &before);
    mproc_pool *p = pool_of(1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    mproc_call call = {.fn = has_the_mask};
    assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    end_of(p);
}

static int makes_a_pool(const void *arg, size_t size, mproc_reply *reply)
{
    int sum = 0, out;
    mproc_pool *p;
    (void)size;
    int err = mproc_pool_new(&p, &(mproc_pool_opts){.workers = 2});
    for (int i = 1; err == 0 && i <= *(const int *)arg; i++) {
        err = mproc_pool_apply(p, &(mproc_call){squares, MPROC_ARG(i)}, &out,
                               sizeof out, TEST_BOUND);
        sum += out;
    }
    if (err == 0) {
        mproc_pool_free(p);
        err = mproc_reply_set(reply, &sum, sizeof sum);
    }
    return err;
}

static void workers_may_have_pools(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(2);
    int in[4] = {1, 2, 3, 4}, out[4];
    mproc_batch b = {.fn = makes_a_pool,
                     .in = in,
                     .in_size = sizeof(int),
                     .count = 4,
                     .out = out,
                     .out_size = sizeof(int)};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    assert_int_equal(out[3], 30);
    end_of(p);
}

static int leaves_a_pool(const void *arg, size_t size, mproc_reply *reply)
{
    pid_t pid;
    mproc_pool *p;
    mproc_queue *gate = *(mproc_queue *const *)arg;
    (void)size;
    int err = mproc_pool_new(&p, &(mproc_pool_opts){.workers = 1});
    mproc_call call = {.fn = waits_for, MPROC_ARG(gate)};
    err = err == 0 ? mproc_pool_apply_async(p, &call, NULL, MPROC_NOWAIT) : err;
    mproc_pool_worker_pids(p, &pid, 1);
    return err == 0 ? mproc_reply_set(reply, &pid, sizeof pid) : err;
}

static void a_pool_in_a_worker_ends_with_it(void **state)
{
    (void)state;
    pid_t pid;
    mproc_pool *p = pool_of(1);
    mproc_queue *gate = queue();
    assert_ok(
        mproc_pool_apply(p, &(mproc_call){.fn = leaves_a_pool, MPROC_ARG(gate)},
                         &pid, sizeof pid, TEST_BOUND));
    assert_true(runs(pid));
    end_of(p);
    expect_gone(pid);
    mproc_queue_free(gate);
}

/* A queue that the workers' fork did not see. */
static void a_later_queue_is_known_to_tasks(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    struct meeting m = meeting();
    mproc_result *r =
        sent(p, (mproc_call){.fn = comes_and_waits, MPROC_ARG(m)});
    met(&m);
    open_gate(m.gate, 1);
    assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
    mproc_result_free(r);
    end_of(p);
    free_meeting(&m);
}

static int notices_its_cancelling(const void *arg, size_t size,
                                  mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    return mproc_task_canceled() ? 1 : 0;
}

static void a_task_that_counts_is_not_cancelled(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    mproc_call call = {.fn = notices_its_cancelling};
    assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    end_of(p);
    assert_false(mproc_task_canceled());
}

/* ---- others ----------------------------------------------------------- */

struct end_of_pipe {
    mproc_queue *gate;
    mproc_connection *end;
};

static int sends_when_it_may(void *arg)
{
    const struct end_of_pipe *e = arg;
    assert_ok(mproc_queue_get(e->gate, NULL, 0, NULL, TEST_BOUND));
    assert_ok(mproc_connection_send(e->end, NULL, 0, TEST_BOUND));
    return 0;
}

/* Only what a pool is made of holds no pipes of its maker. */
static void who_is_forked_later_holds_pipes(void **state)
{
    (void)state;
    mproc_connection *a;
    struct end_of_pipe e = {.gate = queue()};
    mproc_pool *p = pool_of(1);
    assert_ok(mproc_pipe_new(&a, &e.end, NULL));
    pid_t pid = test_fork(sends_when_it_may, &e);
    assert_ok(mproc_connection_close(e.end));
    open_gate(e.gate, 1);
    assert_ok(mproc_connection_recv(a, NULL, 0, NULL, TEST_BOUND));
    assert_int_equal(test_wait_exit(pid), 0);
    assert_ok(mproc_connection_close(a));
    end_of(p);
    mproc_queue_free(e.gate);
}

struct theirs {
    mproc_pool *p;
    mproc_result *r;
};

static int may_do_nothing(void *arg)
{
    const struct theirs *t = arg;
    int n = 1;
    mproc_result *r;
    mproc_call call = {.fn = squares, MPROC_ARG(n)};
    mproc_batch b = {.fn = squares, .in = &n, .in_size = 4, .count = 1};
    assert_err(mproc_pool_apply(t->p, &call, &n, 4, TEST_BOUND), MPROC_EPERM);
    assert_err(mproc_pool_apply_async(t->p, &call, &r, TEST_BOUND),
               MPROC_EPERM);
    assert_err(mproc_pool_map(t->p, &b, TEST_BOUND), MPROC_EPERM);
    assert_err(mproc_pool_map_async(t->p, &b, &r), MPROC_EPERM);
    assert_err(mproc_pool_close(t->p), MPROC_EPERM);
    assert_err(mproc_pool_terminate(t->p), MPROC_EPERM);
    assert_err(mproc_pool_join(t->p, TEST_BOUND), MPROC_EPERM);
    assert_err(mproc_result_wait(t->r, TEST_BOUND), MPROC_EPERM);
    assert_err(mproc_result_get(t->r, &n, 4, NULL, TEST_BOUND), MPROC_EPERM);
    assert_false(mproc_result_ready(t->r));
    assert_null(mproc_result_outcome(t->r));
    mproc_result_free(t->r);
    mproc_pool_free(t->p);
    return 17;
}

static void others_may_do_nothing(void **state)
{
    (void)state;
    int n = 6, out;
    struct theirs t = {.p = pool_of(1)};
    t.r = sent(t.p, (mproc_call){.fn = squares, MPROC_ARG(n)});
    assert_ok(mproc_result_wait(t.r, TEST_BOUND));
    assert_int_equal(test_wait_exit(test_fork(may_do_nothing, &t)), 17);
    assert_ok(mproc_result_get(t.r, &out, sizeof out, NULL, TEST_BOUND));
    assert_int_equal(out, 36);
    mproc_result_free(t.r);
    assert_ok(mproc_pool_apply(t.p, &(mproc_call){squares, MPROC_ARG(n)}, &out,
                               sizeof out, TEST_BOUND));
    end_of(t.p);
}

static int uses_a_pool(void *arg)
{
    mproc_pool *p;
    int n = 6, out = 0;
    const mproc_call call = {.fn = squares, MPROC_ARG(n)};
    (void)arg;
    assert_true(mproc_process_daemon(mproc_process_current()));
    assert_ok(mproc_pool_new(&p, &(mproc_pool_opts){.workers = 2}));
    assert_ok(mproc_pool_apply(p, &call, &out, sizeof out, TEST_BOUND));
    mproc_pool_free(p);
    return out == 36 ? 17 : 1;
}

/* Its workers end with it, so what it may not leave behind it does not. */
static void a_daemonic_process_may_make_a_pool(void **state)
{
    (void)state;
    int code;
    mproc_process *p;
    assert_ok(mproc_process_new(&p, uses_a_pool, NULL,
                                &(mproc_process_opts){.daemon = 1}));
    assert_ok(mproc_process_start(p));
    assert_ok(mproc_process_join(p, TEST_BOUND));
    assert_ok(mproc_process_exitcode(p, &code));
    assert_int_equal(code, 17);
    mproc_process_free(p);
}

/* ---- several threads -------------------------------------------------- */

struct sender {
    mproc_pool *pool;
    mproc_semaphore *served; /* as often as there was a reply */
};

static void *submits(void *user)
{
    const struct sender *me = user;
    for (int i = 0; i < 300; i++) {
        int out = -1;
        mproc_call call = {.fn = squares, MPROC_ARG(i)};
        int err =
            mproc_pool_apply(me->pool, &call, &out, sizeof out, TEST_BOUND);
        if (err == MPROC_ESHUTDOWN || err == MPROC_ECANCELED) {
            return NULL;
        }
        if (err != 0 || out != i * i) {
            return user;
        }
        mproc_semaphore_release(me->served);
    }
    return NULL;
}

static void end_once_served(const struct sender *all, int times, int terminate)
{
    for (int i = 0; i < times; i++) {
        assert_ok(mproc_semaphore_acquire(all->served, TEST_BOUND));
    }
    assert_ok(terminate ? mproc_pool_terminate(all->pool)
                        : mproc_pool_close(all->pool));
    assert_ok(mproc_pool_join(all->pool, TEST_BOUND));
}

static void threads_of_the_maker_share_a_pool(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    for (int end_early = 0; end_early < 4; end_early++) {
        pthread_t thread[THREADS];
        struct sender all = {.pool = pool_of(3)};
        assert_ok(mproc_semaphore_new(&all.served, 0, NULL));
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_create(&thread[i], NULL, submits, &all),
                             0);
        }
        if (end_early > 0) {
            end_once_served(&all, end_early * 100, end_early % 2);
        }
        for (int i = 0; i < THREADS; i++) {
            void *wrong;
            pthread_join(thread[i], &wrong);
            assert_null(wrong);
        }
        end_of(all.pool);
        mproc_semaphore_free(all.served);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(the_initializer_runs_once_a_worker),
        CLEAN(workers_are_replaced_after_their_tasks),
        CLEAN(a_worker_with_much_memory_is_replaced),
        CLEAN(what_tasks_print_comes_out_once),
        CLEAN(a_worker_is_a_child_of_the_maker),
        CLEAN(workers_have_their_makers_mask),
        CLEAN(workers_may_have_pools),
        CLEAN(a_pool_in_a_worker_ends_with_it),
        CLEAN(a_later_queue_is_known_to_tasks),
        CLEAN(a_task_that_counts_is_not_cancelled),
        CLEAN(who_is_forked_later_holds_pipes),
        CLEAN(others_may_do_nothing),
        CLEAN(a_daemonic_process_may_make_a_pool),
        CLEAN(threads_of_the_maker_share_a_pool),
    };
    return cmocka_run_group_tests_name("pool_family", tests, NULL, NULL);
}
