/* SPDX-License-Identifier: MIT */
/*
 * Ends that the collector, or who does its work, has to be told of: of pools,
 * of nurseries, of their workers. Sleeps are deep from the start, so no look at
 * the clock saves what nobody was woken for.
 *
 * With much memory there is a long while in which the slot of a process is dead
 * and its pid cannot be reaped yet.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test.h"

#include "pool/private.h"
#include "shm/sleep.h"

/*
 * To ThreadSanitizer a forked process holds what its parent has locked, even
 * when that is dead: its search for deadlocks would end a worker that takes the
 * slot of its killed nursery.
 */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "detect_deadlocks=0";
}

enum { MEMORY = 64 << 20, ROUNDS = 5 };

static mproc_event *begun;
static bool manual; /* dispatch */

static int nothing(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg, (void)size, (void)reply;
    return 0;
}

static int never_end(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg, (void)size, (void)reply;
    mproc_event_set(begun);
    while (pause() != 0) {
    }
    return 0;
}

static int set_up(void **state)
{
    *state = malloc(MEMORY);
    assert_non_null(*state);
    memset(*state, 1, MEMORY);
    mpr_test_deep_sleep = true;
    assert_ok(mproc_event_new(&begun));
    return 0;
}

static int tear_down(void **state)
{
    mproc_event_free(begun);
    free(*state);
    return 0;
}

static mproc_pool *new_pool(size_t workers)
{
    mproc_pool *p;
    assert_ok(mproc_pool_new(
        &p, &(mproc_pool_opts){.workers = workers, .manual_dispatch = manual}));
    return p;
}

static mproc_result *submit(mproc_pool *p, mproc_task_fn *fn)
{
    mproc_result *r;
    assert_ok(
        mproc_pool_apply_async(p, &(mproc_call){.fn = fn}, &r, TEST_BOUND));
    return r;
}

static void kill_nursery(mproc_pool *p)
{
    mpr_pool_lock();
    pid_t pid = p->mine->nursery_pid;
    mpr_pool_unlock();
    assert_true(pid > 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
}

static void end(mproc_pool *p)
{
    assert_ok(mproc_pool_close(p));
    assert_ok(mproc_pool_join(p, TEST_BOUND));
    mproc_pool_free(p);
}

static void a_pool_of_a_large_maker_ends(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        mproc_pool *p = new_pool(2);
        mproc_result *r = submit(p, nothing);
        assert_ok(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND));
        mproc_result_free(r);
        end(p);
    }
}

static void a_killed_nursery_of_a_large_maker_is_replaced(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        mproc_pool *p = new_pool(2);
        kill_nursery(p);
        for (int k = 0; k < 3; k++) { /* the first one may still be lost */
            mproc_result *r = submit(p, nothing);
            assert_ok(mproc_result_wait(r, TEST_BOUND));
            mproc_result_free(r);
        }
        end(p);
    }
}

/* Two sleep then, and the system wakes one of them. */
static void a_busy_worker_is_lost_with_its_nursery(void **state)
{
    (void)state;
    for (int i = 0; i < 4 * ROUNDS; i++) {
        mproc_pool *p = new_pool(1);
        assert_ok(mproc_event_clear(begun));
        mproc_result *r = submit(p, never_end);
        assert_ok(mproc_event_wait(begun, TEST_BOUND));
        kill_nursery(p);
        assert_ok(mproc_result_wait(r, TEST_BOUND));
        assert_err(mproc_result_outcome(r)->status, MPROC_EWORKERLOST);
        mproc_result_free(r);
        end(p);
    }
}

static void the_same_is_so_without_collector(void **state)
{
    manual = true;
    a_pool_of_a_large_maker_ends(state);
    a_killed_nursery_of_a_large_maker_is_replaced(state);
    a_busy_worker_is_lost_with_its_nursery(state);
    for (int i = 0; i < ROUNDS; i++) {
        mproc_pool *p = new_pool(2);
        mproc_result_free(submit(p, never_end));
        mproc_pool_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_of_a_large_maker_ends),
        cmocka_unit_test(a_killed_nursery_of_a_large_maker_is_replaced),
        cmocka_unit_test(a_busy_worker_is_lost_with_its_nursery),
        cmocka_unit_test(the_same_is_so_without_collector),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
