/* SPDX-License-Identifier: MIT */
/*
 * What a fork that goes wrong leaves of the ends that its child should have
 * held. Each test runs in a child, so that its family and its handlers of forks
 * are its own.
 */
#include "test.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "chan/pipe.h"
#include "shm/private.h"

/* ---- words of these tests --------------------------------------------- */

struct ends {
    mproc_connection *a, *b;
};

static struct ends make(void)
{
    struct ends p = {NULL, NULL};
    assert_ok(mproc_pipe_new(&p.a, &p.b, NULL));
    return p;
}

static void expect_eof(mproc_connection *c, mproc_deadline until)
{
    char byte;
    assert_err(mproc_connection_recv(c, &byte, 1, NULL, until), MPROC_EOF);
}

static void expect_no_eof(mproc_connection *c)
{
    assert_err(mproc_connection_poll(c, MPROC_NOWAIT), MPROC_ETIMEDOUT);
}

/* A door that processes wait at until it is opened for all. */
struct door {
    int fds[2];
};

static struct door door_new(void)
{
    struct door door;
    assert_int_equal(pipe(door.fds), 0);
    return door;
}

static void door_pass(const struct door *door)
{
    char byte;
    close(door->fds[1]);
    if (read(door->fds[0], &byte, 1) != 0) {
        abort();
    }
}

static void door_open(const struct door *door)
{
    close(door->fds[1]);
    close(door->fds[0]);
}

static void kill_and_wait(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(test_wait_exit(pid), -SIGKILL);
}

static void in_a_family_of_its_own(int (*fn)(void *arg))
{
    assert_int_equal(test_wait_exit(test_fork(fn, NULL)), 0);
}

static unsigned slots_in_state(enum mpr_slot_state state)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < atomic_load(&mpr_family->slots_top); i++) {
        uint64_t word = atomic_load(&mpr_family->slots[i].state);
        count += (uint32_t)word == (uint32_t)state;
    }
    return count;
}

/* All that happens around a fork, but for the fork. */
static void fork_in_vain(void)
{
    mpr_private_lock();
    mpr_slots_before_fork();
    mpr_slots_after_fork();
    mpr_private_unlock();
}

static struct mpr_thread *own_record(void)
{
    struct mpr_thread *self = NULL;
    assert_ok(mpr_self(&self));
    return self;
}

/* ---- forks that fail -------------------------------------------------- */

static int tell_of_a_failed_fork(void *arg)
{
    struct ends p = make();
    (void)arg;
    fork_in_vain();
    assert_int_equal(slots_in_state(MPR_SLOT_BORN), 1);
    assert_ok(mproc_connection_close(p.b));
    expect_no_eof(p.a);
    mpr_fork_failed();
    assert_int_equal(slots_in_state(MPR_SLOT_BORN), 0);
    expect_eof(p.a, MPROC_NOWAIT);
    mpr_fork_failed();
    assert_ok(mproc_connection_close(p.a));
    return 0;
}

static void a_fork_told_to_have_failed_leaves_nothing(void **state)
{
    (void)state;
    in_a_family_of_its_own(tell_of_a_failed_fork);
}

static int tell_nobody_of_a_failed_fork(void *arg)
{
    struct ends p = make();
    (void)arg;
    fork_in_vain();
    assert_ok(mproc_connection_close(p.b));
    expect_no_eof(p.a);
    expect_eof(p.a, MPROC_FOREVER);
    assert_int_equal(slots_in_state(MPR_SLOT_BORN), 0);
    assert_ok(mproc_connection_close(p.a));
    return 0;
}

static void a_child_that_never_comes_is_given_up(void **state)
{
    (void)state;
    in_a_family_of_its_own(tell_nobody_of_a_failed_fork);
}

static int fork_in_vain_until_all_slots_are_gone(void *arg)
{
    enum { SLOTS = 8 };
    const mproc_config few = {.processes_max = SLOTS};
    mproc_heap_info before, after;
    (void)arg;
    assert_ok(mproc_configure(&few));
    struct ends p = make();
    assert_ok(mproc_heap_stats(&before));
    for (int i = 0; i < 3 * SLOTS; i++) {
        fork_in_vain();
    }
    assert_int_equal(slots_in_state(MPR_SLOT_BORN), SLOTS - 1);
    assert_ok(mproc_connection_close(p.b));
    expect_eof(p.a, MPROC_FOREVER);
    assert_int_equal(slots_in_state(MPR_SLOT_BORN), 0);
    assert_ok(mproc_connection_close(p.a));
    assert_ok(mproc_heap_stats(&after));
    assert_int_equal(after.blocks, before.blocks);
    return 0;
}

static void failed_forks_do_not_use_up_the_slots(void **state)
{
    (void)state;
    in_a_family_of_its_own(fork_in_vain_until_all_slots_are_gone);
}

/* ---- children that are late ------------------------------------------- */

/*
 * Handlers registered before the library's, since this file is linked before
 * it: in a child they run before its, in a parent, before the fork, after its.
 */
static struct door *child_waits_at;
static struct door *parent_waits_at;
static _Atomic bool *parent_waits; /* it has come so far; in shared memory */

static void hinder_parent(void)
{
    if (parent_waits_at != NULL) {
        atomic_store(parent_waits, true);
        door_pass(parent_waits_at);
    }
}

static void hinder_child(void)
{
    if (child_waits_at != NULL) {
        door_pass(child_waits_at);
    }
}

__attribute__((constructor(101))) static void hinder_forks(void)
{
    if (pthread_atfork(hinder_parent, NULL, hinder_child) != 0) {
        abort();
    }
}

static int find_it_closed(void *arg)
{
    struct ends *p = arg;
    assert_err(mproc_connection_send(p->b, "x", 1, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_connection_close(p->b), MPROC_EINVAL);
    return 0;
}

static int outwait_a_late_child(void *arg)
{
    struct door door = door_new();
    (void)arg;
    struct ends p = make();
    child_waits_at = &door;
    pid_t child = test_fork(find_it_closed, &p);
    assert_ok(mproc_connection_close(p.b));
    expect_no_eof(p.a);
    expect_eof(p.a, MPROC_FOREVER);
    door_open(&door);
    assert_int_equal(test_wait_exit(child), 0);
    assert_ok(mproc_connection_close(p.a));
    return 0;
}

static void a_child_that_comes_too_late_finds_its_ends_closed(void **state)
{
    (void)state;
    in_a_family_of_its_own(outwait_a_late_child);
}

static int kill_a_late_child(void *arg)
{
    struct door door = door_new();
    (void)arg;
    struct ends p = make();
    child_waits_at = &door;
    pid_t child = test_fork(find_it_closed, &p);
    assert_ok(mproc_connection_close(p.b));
    kill_and_wait(child);
    door_open(&door);
    expect_eof(p.a, MPROC_FOREVER);
    assert_ok(mproc_connection_close(p.a));
    return 0;
}

static void
a_child_killed_before_its_first_instruction_is_given_up(void **state)
{
    (void)state;
    in_a_family_of_its_own(kill_a_late_child);
}

static int fork_and_hang(void *arg)
{
    struct door *door = arg;
    parent_waits_at = door;
    test_fork(find_it_closed, NULL);
    return 1;
}

static int kill_a_parent_in_its_fork(void *arg)
{
    struct door door = door_new();
    (void)arg;
    struct ends p = make();
    parent_waits = mproc_calloc(1, sizeof *parent_waits);
    assert_non_null(parent_waits);
    pid_t parent = test_fork(fork_and_hang, &door);
    while (!atomic_load(parent_waits)) {
        sched_yield();
    }
    assert_int_equal(slots_in_state(MPR_SLOT_EMBRYO), 1);
    assert_ok(mproc_connection_close(p.b));
    kill_and_wait(parent);
    expect_no_eof(p.a);
    expect_eof(p.a, MPROC_FOREVER);
    door_open(&door);
    assert_ok(mproc_connection_close(p.a));
    return 0;
}

static void an_embryo_does_not_outlive_its_parent_for_long(void **state)
{
    (void)state;
    in_a_family_of_its_own(kill_a_parent_in_its_fork);
}

/* ---- children that come ----------------------------------------------- */

static int be_somebody(void *arg)
{
    (void)arg;
    mpr_id id = mpr_process_page_->id;
    assert_true(mpr_process_page_->slot != NULL);
    assert_int_equal(mpr_id_pid(id), getpid());
    uint32_t told = mpr_bell_watch(&mpr_family->news);
    own_record();
    assert_true(mpr_self_id() == id);
    assert_true(atomic_load(&mpr_family->news) != told);
    return 0;
}

static int be_nobody(void *arg)
{
    (void)arg;
    assert_null(mpr_process_page_->slot);
    return 0;
}

/* Of a parent that lets it inherit nothing. */
static int be_nobody_with_a_child(void *arg)
{
    struct ends p;
    be_nobody(arg);
    p = make();
    assert_int_equal(test_wait_exit(test_fork(be_somebody, NULL)), 0);
    assert_ok(mproc_connection_close(p.a));
    return 0;
}

static int fork_with_and_without_ends(void *arg)
{
    (void)arg;
    own_record();
    assert_int_equal(test_wait_exit(test_fork(be_nobody, NULL)), 0);
    struct ends p = make();
    assert_int_equal(test_wait_exit(test_fork(be_somebody, NULL)), 0);
    mpr_fork_without_heritage(true);
    assert_int_equal(test_wait_exit(test_fork(be_nobody_with_a_child, NULL)),
                     0);
    mpr_fork_without_heritage(false);
    assert_ok(mproc_connection_close(p.a));
    assert_int_equal(test_wait_exit(test_fork(be_somebody, NULL)), 0);
    assert_ok(mproc_connection_close(p.b));
    assert_int_equal(test_wait_exit(test_fork(be_nobody, NULL)), 0);
    return 0;
}

static void only_children_of_holders_are_somebody_from_birth(void **state)
{
    (void)state;
    in_a_family_of_its_own(fork_with_and_without_ends);
}

static int use_it_then_wait(void *arg)
{
    struct ends *p = arg;
    char byte;
    assert_ok(mproc_connection_recv(p->b, &byte, 1, NULL, TEST_BOUND));
    assert_ok(mproc_connection_send(p->b, "y", 1, TEST_BOUND));
    return 0;
}

static int fork_a_worker(void *arg)
{
    struct ends p = make();
    char byte;
    (void)arg;
    mpr_fork_without_heritage(true);
    pid_t worker = test_fork(use_it_then_wait, &p);
    mpr_fork_without_heritage(false);
    assert_ok(mproc_connection_send(p.a, "x", 1, TEST_BOUND));
    assert_ok(mproc_connection_recv(p.a, &byte, 1, NULL, TEST_BOUND));
    assert_int_equal(test_wait_exit(worker), 0);
    assert_ok(mproc_connection_close(p.b));
    expect_eof(p.a, MPROC_NOWAIT);
    assert_ok(mproc_connection_close(p.a));
    return 0;
}

static void who_inherits_nothing_holds_what_it_uses(void **state)
{
    (void)state;
    in_a_family_of_its_own(fork_a_worker);
}

/* The thread that forked locked the life of the child; it ends before it. */
static void *hold_on(void *arg)
{
    door_pass(arg);
    _exit(0);
    return NULL;
}

static int leave_by_thread_exit(void *arg)
{
    pthread_t thread;
    pthread_create(&thread, NULL, hold_on, arg);
    pthread_exit(NULL);
    return 1;
}

static int lose_the_main_thread_of_a_silent_child(void *arg)
{
    struct door door = door_new();
    struct ends p = make();
    (void)arg;
    pid_t child = test_fork(leave_by_thread_exit, &door);
    assert_ok(mproc_connection_close(p.b));
    assert_err(mproc_connection_poll(p.a, mproc_in_ms(200)), MPROC_ETIMEDOUT);
    door_open(&door);
    expect_eof(p.a, MPROC_FOREVER);
    assert_int_equal(test_wait_exit(child), 0);
    assert_ok(mproc_connection_close(p.a));
    return 0;
}

static void a_silent_child_outlives_its_main_thread(void **state)
{
    (void)state;
    in_a_family_of_its_own(lose_the_main_thread_of_a_silent_child);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fork_told_to_have_failed_leaves_nothing),
        cmocka_unit_test(a_child_that_never_comes_is_given_up),
        cmocka_unit_test(failed_forks_do_not_use_up_the_slots),
        cmocka_unit_test(a_child_that_comes_too_late_finds_its_ends_closed),
        cmocka_unit_test(
            a_child_killed_before_its_first_instruction_is_given_up),
        cmocka_unit_test(an_embryo_does_not_outlive_its_parent_for_long),
        cmocka_unit_test(only_children_of_holders_are_somebody_from_birth),
        cmocka_unit_test(who_inherits_nothing_holds_what_it_uses),
        cmocka_unit_test(a_silent_child_outlives_its_main_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
