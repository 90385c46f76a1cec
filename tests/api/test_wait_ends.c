/* SPDX-License-Identifier: MIT */
/* mproc_wait for what is no handle, what is freed meanwhile, what dies. */
#include "wait_support.h"

#include <signal.h>

/* ---- what is not to be waited for ------------------------------------- */

static void refused(mproc_waitable what, int expected)
{
    mproc_queue *queue;
    size_t ready = 77;
    assert_ok(mproc_queue_new(&queue, NULL));
    mproc_waitable set[] = {mproc_waitable_queue(queue), what};
    assert_err(mproc_wait(&what, 1, &ready, MPROC_FOREVER), expected);
    assert_err(mproc_wait(set, 2, &ready, MPROC_NOWAIT), expected);
    assert_err(mproc_wait(set, 2, &ready, MPROC_FOREVER), expected);
    assert_ok(mproc_queue_put(queue, "x", 1, TEST_BOUND));
    assert_err(mproc_wait(set, 2, &ready, MPROC_FOREVER), expected);
    assert_int_equal(ready, 77);
    mproc_queue_free(queue);
}

static void what_is_no_handle_is_told(void **state)
{
    (void)state;
    make_things();
    refused(mproc_waitable_queue(NULL), MPROC_EINVAL);
    refused(mproc_waitable_connection(NULL), MPROC_EINVAL);
    refused(mproc_waitable_process(NULL), MPROC_EINVAL);
    refused(mproc_waitable_event(NULL), MPROC_EINVAL);
    refused(mproc_waitable_result(NULL), MPROC_EINVAL);
    refused(mproc_waitable_queue(no_object()), MPROC_EINVAL);
    refused(mproc_waitable_connection(no_object()), MPROC_EINVAL);
    refused(mproc_waitable_process(no_object()), MPROC_EINVAL);
    refused(mproc_waitable_event(no_object()), MPROC_EINVAL);
    refused(mproc_waitable_result(no_object()), MPROC_EINVAL);
    refused(mproc_waitable_queue((mproc_queue *)(void *)things->event),
            MPROC_EINVAL);
    refused(mproc_waitable_fd(-1), MPROC_EINVAL);
    refused(mproc_waitable_fd(INT32_MAX), MPROC_EINVAL);
    refused((mproc_waitable){{4711}}, MPROC_EINVAL);
    refused((mproc_waitable){{UINT64_MAX, UINT64_MAX}}, MPROC_EINVAL);
    for (uint64_t sort = 1; sort < 20; sort++) {
        refused((mproc_waitable){{sort, 0x1234560000001000, 5}}, MPROC_EINVAL);
    }
    assert_err(mproc_wait(NULL, 1, NULL, MPROC_NOWAIT), MPROC_EINVAL);
    assert_err(mproc_wait(things->all, SIZE_MAX, NULL, MPROC_NOWAIT),
               MPROC_EINVAL);
    end_things();
}

static int refuse_elsewhere(void *unused)
{
    (void)unused;
    refused(things->all[CHILD], MPROC_EPERM);
    refused(things->all[RESULT], MPROC_EPERM);
    assert_ok(mproc_queue_put(things->queue, "x", 1, TEST_BOUND));
    assert_ok(mproc_wait(&things->all[QUEUE], 1, NULL, TEST_BOUND));
    return 0;
}

static void what_is_not_the_callers_is_told(void **state)
{
    (void)state;
    make_things();
    mproc_process *unstarted;
    assert_ok(mproc_process_new(&unstarted, end_when_told, NULL, NULL));
    refused(mproc_waitable_process(unstarted), MPROC_EINVAL);
    mproc_process_free(unstarted);
    refused(mproc_waitable_process(mproc_process_current()), MPROC_EDEADLK);
    refused(mproc_waitable_connection(things->out), MPROC_EPERM);
    pid_t pid = test_fork(refuse_elsewhere, NULL);
    assert_int_equal(test_wait_exit(pid), 0);
    end_things();
}

static void what_was_freed_is_told_also_when_made_anew(void **state)
{
    (void)state;
    make_things();
    mproc_waitable queue = things->all[QUEUE], event = things->all[EVENT],
                   end = things->all[END_OF_FILE];
    mproc_queue_free(things->queue);
    mproc_event_free(things->event);
    refused(queue, MPROC_EINVAL);
    refused(event, MPROC_EINVAL);
    assert_ok(mproc_connection_close(things->lonely));
    refused(end, MPROC_EINVAL);
    assert_ok(mproc_connection_close(things->other));
    refused(end, MPROC_EINVAL);
    assert_ok(mproc_queue_new(&things->queue, NULL));
    assert_ok(mproc_event_new(&things->event));
    assert_ok(mproc_event_set(things->event));
    assert_ok(mproc_pipe_new(&things->lonely, &things->other, NULL));
    refused(queue, MPROC_EINVAL);
    refused(event, MPROC_EINVAL);
    refused(end, MPROC_EINVAL);
    end_things();
}

/* ---- freed while it is waited for ------------------------------------- */

static int free_kind(int kind)
{
    switch (kind) {
    case QUEUE:
        mproc_queue_free(things->queue);
        return mproc_queue_new(&things->queue, NULL);
    case MESSAGE:
        return mproc_connection_close(things->in);
    case CHILD:
        mproc_process_free(things->child);
        return 0;
    case EVENT:
        mproc_event_free(things->event);
        return mproc_event_new(&things->event);
    case RESULT:
        mproc_result_free(things->result);
        return 0;
    default:
        return -1;
    }
}

static void freeing_what_is_waited_for_ends_the_wait(void **state)
{
    (void)state;
    static const enum kind kinds[] = {QUEUE, MESSAGE, EVENT, RESULT, CHILD};
    make_things();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        for (int mixed = 0; mixed < 2; mixed++) {
            struct helper helper;
            mproc_waitable set[] = {things->all[kinds[i]],
                                    things->all[DESCRIPTOR]};
            pid_t pid = mproc_process_pid(things->child);
            begin_to_act(&helper, free_kind, kinds[i]);
            assert_err(
                mproc_wait(set, (size_t)(1 + mixed), NULL, MPROC_FOREVER),
                MPROC_EINVAL);
            end_to_act(&helper);
            switch (kinds[i]) {
            case CHILD:
                assert_int_equal(kill(pid, SIGKILL), 0);
                make_child();
                break;
            case RESULT:
                assert_ok(mproc_semaphore_release(things->task_ends));
                make_result();
                break;
            case MESSAGE:
                assert_ok(mproc_connection_close(things->out));
                assert_ok(mproc_pipe_new(&things->in, &things->out,
                                         &(mproc_pipe_opts){.simplex = 1}));
                break;
            default:
                break;
            }
            fill_set();
        }
    }
    end_things();
}

/* ---- deaths ----------------------------------------------------------- */

/* Ends at some point of what it does, with what it holds. */
static int put_and_be_killed(void *turn)
{
    mproc_queue_put(things->queue, "x", 1, MPROC_FOREVER);
    while (turn != NULL) { /* for ever */
        mproc_event_set(things->event);
        mproc_event_clear(things->event);
        mproc_queue_put(things->shut_queue, "y", 1, MPROC_FOREVER);
    }
    return 0;
}

static size_t drain(mproc_queue *queue)
{
    char byte;
    size_t count = 0;
    while (mproc_queue_get(queue, &byte, 1, NULL, MPROC_NOWAIT) == 0) {
        count++;
    }
    return count;
}

static void nothing_is_missed_when_those_who_put_are_killed(void **state)
{
    (void)state;
    make_things();
    for (int i = 0; i < (SANITIZED ? 30 : 150); i++) {
        mproc_waitable set[] = {things->all[QUEUE], things->all[DESCRIPTOR]};
        pid_t pid = test_fork(put_and_be_killed, &i);
        size_t ready = 77;
        assert_ok(mproc_wait(set, (size_t)(1 + i % 2), &ready, TEST_BOUND));
        assert_int_equal(ready, 0);
        for (int k = 0; k < i % 7; k++) {
            assert_ok(
                mproc_wait(&things->all[SHUT_QUEUE], 1, NULL, TEST_BOUND));
            drain(things->shut_queue);
        }
        kill_and_reap(pid);
        assert_int_equal(drain(things->queue), 1);
        drain(things->shut_queue);
    }
    end_things();
}

static int hold_and_wait(void *unused)
{
    (void)unused;
    assert_ok(mproc_connection_close(things->lonely));
    assert_ok(mproc_queue_put(things->queue, "x", 1, TEST_BOUND));
    pause_for_ever();
    return 0;
}

static int kill_child(int pid)
{
    return kill(pid, SIGKILL);
}

static void the_death_of_the_last_at_the_other_end_is_an_end(void **state)
{
    (void)state;
    for (int mixed = 0; mixed < 2; mixed++) {
        make_things();
        pid_t pid = test_fork(hold_and_wait, NULL);
        assert_ok(mproc_connection_close(things->other));
        assert_ok(mproc_wait(&things->all[QUEUE], 1, NULL, TEST_BOUND));
        mproc_waitable set[] = {things->all[END_OF_FILE],
                                things->all[DESCRIPTOR]};
        assert_err(mproc_wait(set, 2, NULL, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        struct helper helper;
        begin_to_act(&helper, kill_child, pid);
        assert_ok(mproc_wait(set, (size_t)(1 + mixed), NULL, TEST_BOUND));
        end_to_act(&helper);
        assert_int_equal(test_wait_exit(pid), -SIGKILL);
        end_things();
    }
}

static int get_and_be_killed(void *queue)
{
    char byte;
    assert_ok(mproc_queue_get(queue, &byte, 1, NULL, TEST_BOUND));
    assert_ok(mproc_event_set(things->event));
    pause_for_ever();
    return 0;
}

static void what_a_dead_consumer_had_is_ready_again(void **state)
{
    (void)state;
    make_things();
    mproc_queue *queue;
    const mproc_queue_opts opts = {.joinable = 1, .redeliver = 1};
    assert_ok(mproc_queue_new(&queue, &opts));
    assert_ok(mproc_queue_put(queue, "x", 1, TEST_BOUND));
    pid_t pid = test_fork(get_and_be_killed, queue);
    assert_ok(mproc_event_wait(things->event, TEST_BOUND));
    mproc_waitable it = mproc_waitable_queue(queue);
    assert_err(mproc_wait(&it, 1, NULL, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    struct helper helper;
    begin_to_act(&helper, kill_child, pid);
    assert_ok(mproc_wait(&it, 1, NULL, TEST_BOUND));
    end_to_act(&helper);
    assert_int_equal(test_wait_exit(pid), -SIGKILL);
    assert_int_equal(drain(queue), 1);
    mproc_queue_free(queue);
    end_things();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_handle_is_told),
        cmocka_unit_test(what_is_not_the_callers_is_told),
        cmocka_unit_test(what_was_freed_is_told_also_when_made_anew),
        cmocka_unit_test(freeing_what_is_waited_for_ends_the_wait),
        cmocka_unit_test(nothing_is_missed_when_those_who_put_are_killed),
        cmocka_unit_test(the_death_of_the_last_at_the_other_end_is_an_end),
        cmocka_unit_test(what_a_dead_consumer_had_is_ready_again),
    };
    mpr_test_deep_sleep = true; /* a timed look would hide a lost wake-up */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
