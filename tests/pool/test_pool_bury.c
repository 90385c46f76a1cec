/* SPDX-License-Identifier: MIT */
/* What who keeps the workers does about one that is dead. */
#include "scene.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/sleep.h"

enum { HEAP = 32 << 20, MOST = HEAP / 16 };

static struct mpr_keeper keeper_of(const struct scene *s)
{
    struct mpr_keeper k;
    mpr_keeper_begin(&k, s->p);
    k.self = s->self;
    return k;
}

static void end(const struct scene *s)
{
    atomic_store(&s->p->phase, MPR_POOL_TERMINATED);
    mpr_pool_end(s->p, s->self);
}

/*
 * It was to leave, so that none comes in its place: another hears of the task
 * that it was woken for, or has not looked out for.
 */
static void others_do_without_it(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, 0);
    struct mpr_keeper k = keeper_of(&s);
    atomic_store(&row(&s, 1)->leave, 1);
    atomic_store(&s.p->lookout, 2);
    uint32_t seen = mpr_bell_watch(&s.p->to_workers);
    assert_true(mpr_keeper_bury(&k, row(&s, 1), -SIGKILL));
    assert_int_equal(atomic_load(&s.p->lookout), 0);
    assert_int_not_equal(atomic_load(&s.p->to_workers), seen);
    assert_int_equal(k.owed, 0);
    end(&s);
}

static int ends_at_once(void *arg)
{
    (void)arg;
    return 0;
}

static int waits_to_be_killed(void *arg)
{
    (void)arg;
    while (pause() != 0) {
    }
    return 0;
}

/* All of the heap, each block linked to the one before. */
static void **take_all(void)
{
    void **all = NULL, **block;
    for (size_t size = MOST; size >= sizeof *all; size /= 2) {
        while ((block = mproc_alloc(size)) != NULL) {
            *block = all;
            all = block;
        }
    }
    return all;
}

static void give_all_back(void **all)
{
    while (all != NULL) {
        void **next = *all;
        mproc_free(all);
        all = next;
    }
}

static void await_death(pid_t pid)
{
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

/*
 * Its task is told of later, though no other worker ends. What is told too
 * early, and more than once, means nothing.
 */
static void who_cannot_be_buried_now_is_later(void **state)
{
    (void)state;
    struct scene s;
    int n = 1;
    mproc_result *r;
    mproc_call call = {.fn = add_one, MPROC_ARG(n)};
    begin(&s, 0);
    struct mpr_keeper k = keeper_of(&s);
    assert_ok(mproc_pool_apply_async(s.p, &call, &r, MPROC_NOWAIT));
    assert_ok(mpr_pool_next(s.p, s.self, &row(&s, 0)->current));
    assert_true(mpr_task_move(&row(&s, 0)->current, 0, MPR_TASK_QUEUED,
                              MPR_TASK_RUNNING));
    mpr_log_close(&s.p->todo, s.self); /* nobody is to be replaced */
    pid_t dead = test_fork(ends_at_once, NULL);
    pid_t other = test_fork(waits_to_be_killed, NULL);
    await_death(dead);
    atomic_store(&row(&s, 0)->pid, dead);
    atomic_store(&row(&s, 1)->pid, other);
    void **all = take_all();
    while (mpr_pool_tell_doubt(s.p, s.self, &row(&s, 0)->current) == 0) {
    }
    int64_t next = mpr_keeper_pass(&k);
    give_all_back(all);
    assert_true(next < INT64_MAX);
    assert_int_equal(atomic_load(&row(&s, 0)->pid), dead);
    mpr_keeper_pass(&k);
    assert_int_equal(atomic_load(&row(&s, 0)->pid), 0);
    collect(&s);
    assert_err(mproc_result_outcome(r)->status, MPROC_EWORKERLOST);
    assert_int_equal(kill(other, SIGKILL), 0);
    await_death(other);
    assert_int_equal(mpr_keeper_pass(&k), MPR_KEEPER_OVER);
    mproc_result_free(r);
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_do_without_it),
        cmocka_unit_test(who_cannot_be_buried_now_is_later),
    };
    mproc_configure(&(mproc_config){.heap_max = HEAP});
    return cmocka_run_group_tests_name("pool_bury", tests, NULL, NULL);
}
