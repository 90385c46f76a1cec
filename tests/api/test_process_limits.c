/* SPDX-License-Identifier: MIT */
/* Programs that lack processes or descriptors, or have done nothing before. */
#include "process_end.h"

#include <string.h>
#include <unistd.h>

/* ---- in the programs -------------------------------------------------- */

static int has_no_standard_input(void)
{
    close(STDIN_FILENO);
    mproc_process *p = started_thread(sleeps, "", 1);
    return mproc_process_fd(p) > STDERR_FILENO ? 4 : 5;
}

static int enters_and_waits(void *arg)
{
    mproc_event_set(((const struct note *)arg)->ready); /* it has its slot */
    await_order();
    return 0;
}

static int never_calls(void *arg)
{
    (void)arg;
    pause();
    return 0;
}

/* The child may yet come to call the library. */
static int may_have_three_processes(void)
{
    struct note note = {NULL, ""};
    mproc_config config = {.processes_max = 3};
    mproc_pool_opts opts = {.workers = 1};
    mproc_pool *pool = NULL;
    if (mproc_configure(&config) != 0) {
        return 97;
    }
    mproc_process *child = started_by(MPROC_START_FORK, never_calls, &note, 1);
    if (mproc_pool_new(&pool, &opts) != MPROC_EAGAIN || pool != NULL) {
        return 98;
    }
    mproc_process_kill(child);
    mproc_process_join(child, TEST_BOUND);
    if (mproc_pool_new(&pool, &opts) != 0) {
        return 99;
    }
    mproc_pool_free(pool);
    return 4;
}

static int may_have_two_processes(void)
{
    mproc_process *p;
    struct note note = {NULL, ""};
    mproc_config config = {.processes_max = 2};
    mproc_process_opts opts = {.start = how, .arg_size = sizeof note};
    if (mproc_configure(&config) != 0 || mproc_event_new(&note.ready) != 0) {
        return 97;
    }
    mproc_process *first = started_by(how, enters_and_waits, &note, 0);
    if (mproc_event_wait(note.ready, TEST_BOUND) != 0 ||
        mproc_process_new(&p, prints, &note, &opts) != 0) {
        return 98;
    }
    say(mproc_error_name(mproc_process_start(p)));
    await_order();
    mproc_process_join(first, TEST_BOUND);
    return mproc_process_start(p) == 0 && code_of(p) == 0 ? 4 : 5;
}

static int asks_who_it_is_first(void)
{
    mproc_process *me = mproc_process_current();
    say(mproc_process_name(me));
    return mproc_process_pid(me) == getpid() && mproc_process_is_alive(me) &&
                   mproc_process_parent_pid() == 0 &&
                   mproc_active_children(NULL, 0) == 0
               ? 4
               : 5;
}

static const struct program programs[] = {
    PROGRAM(has_no_standard_input),
    PROGRAM(may_have_three_processes),
    PROGRAM(may_have_two_processes),
    PROGRAM(asks_who_it_is_first),
};

/* ---- in the tests ----------------------------------------------------- */

static void no_descriptor_takes_the_place_of_a_standard_one(void **state)
{
    (void)state;
    struct run run = run_program("has_no_standard_input");
    expect_end(&run, "", 4);
}

static void a_start_beyond_processes_max_is_refused(void **state)
{
    (void)state;
    struct run run = run_program("may_have_two_processes");
    while (strstr(run.text, "MPROC_EAGAIN") == NULL && read_some(&run)) {
    }
    assert_non_null(strstr(run.text, "MPROC_EAGAIN"));
    end_of_all(&run);
    assert_int_equal(test_wait_exit(run.pid), 4);
}

static void a_pool_beyond_processes_max_is_refused(void **state)
{
    (void)state;
    struct run run = run_program("may_have_three_processes");
    expect_end(&run, "", 4);
}

static void who_one_is_may_be_asked_first_of_all(void **state)
{
    (void)state;
    struct run run = run_program("asks_who_it_is_first");
    expect_end(&run, "MainProcess", 4);
}

int main(int argc, char **argv)
{
    run_as_program(programs, argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_descriptor_takes_the_place_of_a_standard_one),
        cmocka_unit_test(a_start_beyond_processes_max_is_refused),
        cmocka_unit_test(a_pool_beyond_processes_max_is_refused),
        cmocka_unit_test(who_one_is_may_be_asked_first_of_all),
    };
    return run_for_each_process("process_limits", tests);
}
