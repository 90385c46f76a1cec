/* SPDX-License-Identifier: MIT */
/* Pipes: what they cost, and that all of it is given back. */
#include "pipe_support.h"

#include <signal.h>
#include <stdlib.h>

static void a_pipe_costs_no_descriptor(void **state)
{
    (void)state;
    struct ends p = make(0);
    int fds = test_open_fds();
    struct ends more = make(0);
    pass(more.a, more.b, LARGE);
    assert_int_equal(test_open_fds(), fds);
    close_both(more);
    close_both(p);
}

/* Before all others: in a family of its own. */
static int fill_a_small_heap(void *arg)
{
    const mproc_config small = {.heap_max = 2 << 20};
    (void)arg;
    assert_ok(mproc_configure(&small));
    struct ends p = make(0), more[1000];
    char *large = pattern(4 << 20);
    int count = 0;
    assert_err(mproc_connection_send(p.a, large, 4 << 20, MPROC_FOREVER),
               MPROC_ENOMEM);
    pass(p.a, p.b, 1000);
    while (count < 1000 &&
           mproc_pipe_new(&more[count].a, &more[count].b, NULL) == 0) {
        count++;
    }
    assert_true(count > 50 && count < 1000);
    assert_err(mproc_pipe_new(&more[count].a, &more[count].b, NULL),
               MPROC_ENOMEM);
    pass(p.b, p.a, 1000);
    close_both(more[0]);
    more[0] = make(0);
    free(large);
    return 0;
}

static void a_full_heap_is_told_at_once_and_harms_no_pipe(void **state)
{
    (void)state;
    assert_int_equal(test_wait_exit(test_fork(fill_a_small_heap, NULL)), 0);
}

static mproc_heap_info heap_now(void)
{
    mproc_heap_info info;
    assert_ok(mproc_heap_stats(&info));
    return info;
}

static void make_and_close_a_thousand(void)
{
    static struct ends p[1000];
    for (int i = 0; i < 1000; i++) {
        p[i] = make(0);
        assert_ok(mproc_connection_send(p[i].a, &p, 2000, TEST_BOUND));
    }
    for (int i = 0; i < 1000; i++) {
        close_both(p[i]);
    }
}

static void a_thousand_pipes_leave_nothing(void **state)
{
    (void)state;
    make_and_close_a_thousand();
    mproc_heap_info before = heap_now();
    make_and_close_a_thousand();
    mproc_heap_info after = heap_now();
    assert_int_equal(after.in_use, before.in_use);
    assert_int_equal(after.blocks, before.blocks);
    assert_int_equal(after.high_water, before.high_water);
}

static int make_pipes_and_die(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        struct ends p = make(0);
        char *data = pattern(100000);
        assert_ok(mproc_connection_send(p.a, data, 100000, TEST_BOUND));
        assert_ok(mproc_connection_send(p.b, data, 3000, TEST_BOUND));
        free(data);
    }
    pid_t heirs[8];
    for (int i = 0; i < 8; i++) {
        heirs[i] = test_fork(live_until_killed, NULL);
    }
    for (int i = 0; i < 8; i++) {
        kill_and_reap(heirs[i]);
    }
    raise(SIGKILL);
    return 1;
}

/* While it sleeps a process buries the dead. */
static void the_pipes_of_the_dead_are_given_back(void **state)
{
    (void)state;
    mproc_deadline bound = TEST_BOUND;
    mproc_heap_info before = heap_now(), after;
    assert_int_equal(test_wait_exit(test_fork(make_pipes_and_die, NULL)),
                     -SIGKILL);
    struct ends p = make(0);
    do {
        assert_err(mproc_connection_poll(p.a, mproc_in_ms(60)),
                   MPROC_ETIMEDOUT);
        after = heap_now();
    } while (after.blocks != before.blocks &&
             mproc_in_ms(0).at_ns < bound.at_ns);
    assert_int_equal(after.blocks, before.blocks);
    assert_int_equal(after.in_use, before.in_use);
    close_both(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_heap_is_told_at_once_and_harms_no_pipe),
        cmocka_unit_test(a_pipe_costs_no_descriptor),
        cmocka_unit_test(a_thousand_pipes_leave_nothing),
        cmocka_unit_test(the_pipes_of_the_dead_are_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
