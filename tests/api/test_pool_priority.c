/* SPDX-License-Identifier: MIT */
/* Tasks that begin before others. */
#include "pool_tasks.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static int dies_once(const void *arg, size_t size, mproc_reply *reply)
{
    const struct turn *turn = arg;
    static _Atomic int *died;
    (void)reply;
    died = *(_Atomic int *const *)((const char *)arg + sizeof *turn);
    if (atomic_exchange(died, 1) == 0) {
        raise(SIGKILL);
    }
    return takes_its_turn(arg, size, reply);
}

static void lower_priorities_begin_first(void **state)
{
    (void)state;
    enum { TASKS = 60 };
    const int64_t priorities[] = {0, 5,  -5,        INT64_MAX, 0, -1,
                                  1, -5, INT64_MIN, 0,         5, 7};
    enum { KINDS = sizeof priorities / sizeof *priorities };
    mproc_pool *p = pool_of(1);
    mproc_queue *gate = queue();
    struct turn turn = {queue(), 0};
    mproc_call first = {
        .fn = waits_for, MPROC_ARG(gate), .priority = INT64_MIN};
    assert_ok(mproc_pool_apply_async(p, &first, NULL, MPROC_FOREVER));
    usleep(1000);
    for (; turn.number < TASKS; turn.number++) {
        mproc_call call = {.fn = takes_its_turn, MPROC_ARG(turn)};
        call.priority = priorities[turn.number % KINDS];
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    open_gate(gate, 1);
    int64_t before = INT64_MIN;
    int number, number_before = -1;
    for (int i = 0; i < TASKS; i++) {
        assert_ok(mproc_queue_get(turn.order, &number, sizeof number, NULL,
                                  TEST_BOUND));
        int64_t now = priorities[number % KINDS];
        assert_true(now > before || (now == before && number > number_before));
        before = now;
        number_before = number;
    }
    end_of(p);
    mproc_queue_free(turn.order);
    mproc_queue_free(gate);
}

/* A task that is run again keeps its priority. */
static void a_lost_task_keeps_its_priority(void **state)
{
    (void)state;
    mproc_pool *p = pool_with((mproc_pool_opts){.workers = 1, .retries = 1});
    mproc_queue *gate = queue();
    struct {
        struct turn turn;
        _Atomic int *died;
    } arg = {{queue(), 0}, mproc_calloc(1, sizeof(int))};
    mproc_call call = {.fn = waits_for, MPROC_ARG(gate), .priority = -2};
    assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    for (; arg.turn.number < 3; arg.turn.number++) {
        call = (mproc_call){.fn = arg.turn.number ? takes_its_turn : dies_once,
                            MPROC_ARG(arg),
                            .priority = arg.turn.number ? 0 : -1};
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    open_gate(gate, 1);
    for (int i = 0, number; i < 3; i++) {
        assert_ok(mproc_queue_get(arg.turn.order, &number, sizeof number, NULL,
                                  TEST_BOUND));
        assert_int_equal(number, i);
    }
    end_of(p);
    mproc_free((void *)arg.died);
    mproc_queue_free(arg.turn.order);
    mproc_queue_free(gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(lower_priorities_begin_first),
        CLEAN(a_lost_task_keeps_its_priority),
    };
    return cmocka_run_group_tests_name("pool_priority", tests, NULL, NULL);
}
