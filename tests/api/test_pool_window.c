/* SPDX-License-Identifier: MIT */
/* How many items of a batch are under way at a time. */
#include "pool_support.h"

#include <stdatomic.h>
#include <unistd.h>

enum { LONG_TASKS = 60 };

/* Some wait for the end of all others. */
static bool waits_for_others(size_t i)
{
    return i == 0 || i == LONG_TASKS / 2;
}

static int takes_long(const void *arg, size_t size, mproc_reply *reply)
{
    mproc_event *others = *(mproc_event *const *)arg;
    (void)size;
    (void)reply;
    usleep(5000);
    return others != NULL ? mproc_event_wait(others, TEST_BOUND) : 0;
}

struct others {
    mproc_event *ended;
    int missing;
};

static void count_others(const mproc_outcome *o, void *user)
{
    struct others *others = user;
    if (!waits_for_others(o->index) && --others->missing == 0) {
        mproc_event_set(others->ended);
    }
}

static void no_item_waits_behind_a_long_one(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(4);
    struct others others = {.missing = LONG_TASKS - 2};
    mproc_event *in[LONG_TASKS] = {NULL};
    assert_ok(mproc_event_new(&others.ended));
    in[0] = in[LONG_TASKS / 2] = others.ended;
    mproc_batch b = {.fn = takes_long,
                     .in = in,
                     .in_size = sizeof in[0],
                     .count = LONG_TASKS,
                     .on_item = count_others,
                     .user = &others};
    assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
    end_of(p);
    mproc_event_free(others.ended);
}

/* How many items run, or have ended and were not yet told, at most. */
struct crowd {
    _Atomic int now, most;
};

static int joins_crowd(const void *arg, size_t size, mproc_reply *reply)
{
    struct crowd *crowd = *(struct crowd *const *)arg;
    int now = atomic_fetch_add(&crowd->now, 1) + 1, most = crowd->most;
    (void)size;
    (void)reply;
    while (now > most &&
           !atomic_compare_exchange_weak(&crowd->most, &most, now)) {
    }
    return 0;
}

static void leave_crowd(const mproc_outcome *o, void *user)
{
    struct crowd *crowd = user;
    (void)o;
    usleep(1000);
    atomic_fetch_sub(&crowd->now, 1);
}

static void no_more_items_are_under_way_than_the_window(void **state)
{
    (void)state;
    const size_t windows[] = {1, 2, 7, 8, 50};
    struct crowd *crowd = mproc_calloc(1, sizeof *crowd);
    struct crowd *in[200];
    mproc_pool *p = pool_of(4);
    for (int i = 0; i < 200; i++) {
        in[i] = crowd;
    }
    for (int i = 0; i < 15; i++) {
        size_t window = windows[i / 3];
        mproc_batch b = {.fn = joins_crowd,
                         .in = in,
                         .in_size = sizeof in[0],
                         .count = 200,
                         .window = window,
                         .chunk = (size_t)(i % 3) * 3,
                         .on_item = leave_crowd,
                         .user = crowd};
        crowd->most = 0;
        assert_ok(mproc_pool_map(p, &b, TEST_BOUND));
        assert_int_equal(crowd->now, 0);
        assert_in_range(crowd->most, 1, window);
    }
    end_of(p);
    mproc_free(crowd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(no_item_waits_behind_a_long_one),
        CLEAN(no_more_items_are_under_way_than_the_window),
    };
    return cmocka_run_group_tests_name("pool_window", tests, NULL, NULL);
}
