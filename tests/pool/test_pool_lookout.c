/* SPDX-License-Identifier: MIT */
/*
 * A worker that is stopped while it looks out for tasks: nobody is woken for
 * the next one, which waits until somebody notices the stop, and not longer,
 * whether or not its maker waits for it.
 */
#include <signal.h>
#include <unistd.h>

#include "test.h"

#include "pool/private.h"
#include "shm/sleep.h"

enum { WORKERS = 3, HITS = 5, LOOKS = 2000 };

static int nothing(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg, (void)size, (void)reply;
    return 0;
}

static const mproc_call call = {.fn = nothing};

/* Stop who looks out, if anybody does soon. 0: nobody was stopped as it did. */
static pid_t stop_lookout(mproc_pool *p)
{
    uint32_t row = 0;
    for (int i = 0; i < LOOKS && row == 0; i++) {
        row = atomic_load(&p->lookout);
    }
    if (row == 0) {
        return 0;
    }
    pid_t pid = mpr_worker_pid(mpr_worker_at(atomic_load(&p->table), row - 1));
    assert_int_equal(kill(pid, SIGSTOP), 0);
    test_await_state(pid, 'T');
    if (atomic_load(&p->lookout) == row) {
        return pid;
    }
    assert_int_equal(kill(pid, SIGCONT), 0);
    return 0;
}

/* The nursery is stopped as well until the task is sent: it acts too late. */
static pid_t send_to_who_is_stopped(mproc_pool *p, mproc_result **out)
{
    pid_t nursery = p->mine->nursery_pid;
    assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    assert_int_equal(kill(nursery, SIGSTOP), 0);
    test_await_state(nursery, 'T');
    assert_ok(mproc_pool_apply(p, &call, NULL, 0, TEST_BOUND));
    pid_t stopped = stop_lookout(p);
    if (stopped != 0) {
        assert_ok(mproc_pool_apply_async(p, &call, out, TEST_BOUND));
    }
    assert_int_equal(kill(nursery, SIGCONT), 0);
    return stopped;
}

static void await_end(mproc_result *r)
{
    mproc_deadline until = TEST_BOUND;
    while (!mproc_result_ready(r)) { /* as a program with an event loop does */
        usleep(1000);
        assert_true(mproc_in_s(0).at_ns < until.at_ns);
    }
    mproc_result_free(r);
}

static void a_task_does_not_wait_for_who_is_stopped(void **state)
{
    (void)state;
    mproc_pool *p;
    mproc_result *r;
    int hits = 0;
    mproc_deadline enough = mproc_in_s(10);
    if (mproc_cpu_count() == 1) {
        skip(); /* nobody looks out there */
    }
    mpr_test_deep_sleep = true;
    assert_ok(mproc_pool_new(&p, &(mproc_pool_opts){.workers = WORKERS}));
    while (hits < HITS && mproc_in_s(0).at_ns < enough.at_ns) {
        pid_t stopped = send_to_who_is_stopped(p, &r);
        if (stopped != 0) {
            await_end(r);
            assert_int_equal(kill(stopped, SIGCONT), 0);
            hits++;
        }
    }
    assert_true(hits > 0);
    assert_ok(mproc_pool_close(p));
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    mproc_pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_does_not_wait_for_who_is_stopped),
    };
    return cmocka_run_group_tests_name("pool_lookout", tests, NULL, NULL);
}
