/* SPDX-License-Identifier: MIT */
/* mproc_wait over every kind of thing, alone and mixed. */
#include "wait_support.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

/* ---- ready, and not --------------------------------------------------- */

static int make_ready(enum kind kind)
{
    switch (kind) {
    case QUEUE:
        return mproc_queue_put(things->queue, "x", 1, TEST_BOUND);
    case SHUT_QUEUE:
        return mproc_queue_shutdown(things->shut_queue, false);
    case MESSAGE:
        return mproc_connection_send(things->out, "x", 1, TEST_BOUND);
    case END_OF_FILE:
        return mproc_connection_close(things->other);
    case CHILD:
        return mproc_process_kill(things->child);
    case EVENT:
        return mproc_event_set(things->event);
    case RESULT:
        return mproc_semaphore_release(things->task_ends);
    case DESCRIPTOR:
        return write(things->fds[1], "x", 1) == 1 ? 0 : -1;
    default:
        return -1;
    }
}

static void make_unready(enum kind kind)
{
    char byte;
    switch (kind) {
    case QUEUE:
        assert_ok(mproc_queue_get(things->queue, &byte, 1, NULL, TEST_BOUND));
        break;
    case MESSAGE:
        assert_ok(
            mproc_connection_recv(things->in, &byte, 1, NULL, TEST_BOUND));
        break;
    case EVENT:
        assert_ok(mproc_event_clear(things->event));
        break;
    case DESCRIPTOR:
        assert_int_equal(read(things->fds[0], &byte, 1), 1);
        break;
    case CHILD:
        mproc_process_free(things->child);
        make_child();
        break;
    case RESULT:
        mproc_result_free(things->result);
        make_result();
        break;
    case SHUT_QUEUE:
        mproc_queue_free(things->shut_queue);
        assert_ok(mproc_queue_new(&things->shut_queue, &few));
        break;
    case END_OF_FILE:
        assert_ok(mproc_connection_close(things->lonely));
        assert_ok(mproc_pipe_new(&things->lonely, &things->other, NULL));
        break;
    default:
        fail();
    }
    fill_set();
}

static int make_kind_ready(int kind)
{
    return make_ready((enum kind)kind);
}

/* ---- each kind -------------------------------------------------------- */

static void each_kind_alone_becomes_ready(void **state)
{
    (void)state;
    make_things();
    for (int kind = 0; kind < KINDS; kind++) {
        const mproc_waitable *it = &things->all[kind];
        size_t ready = 77;
        assert_err(mproc_wait(it, 1, &ready, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        assert_int_equal(ready, 77);
        assert_ok(make_ready((enum kind)kind));
        assert_ok(mproc_wait(it, 1, &ready, TEST_BOUND));
        assert_int_equal(ready, 0);
        assert_ok(mproc_wait(it, 1, NULL, TEST_BOUND)); /* nothing is taken */
        make_unready((enum kind)kind);
        assert_err(mproc_wait(it, 1, NULL, MPROC_NOWAIT), MPROC_ETIMEDOUT);
    }
    end_things();
}

static void each_kind_alone_wakes(void **state)
{
    (void)state;
    make_things();
    for (int kind = 0; kind < KINDS; kind++) {
        struct helper helper;
        begin_to_act(&helper, make_kind_ready, kind);
        assert_ok(mproc_wait(&things->all[kind], 1, NULL, MPROC_FOREVER));
        end_to_act(&helper);
        make_unready((enum kind)kind);
    }
    end_things();
}

static void each_kind_wakes_who_waits_for_all(void **state)
{
    (void)state;
    make_things();
    for (int round = 0; round < 3; round++) {
        for (int kind = 0; kind < KINDS; kind++) {
            struct helper helper;
            size_t ready = 77;
            begin_to_act(&helper, make_kind_ready, kind);
            assert_ok(mproc_wait(things->all, KINDS, &ready, MPROC_FOREVER));
            assert_int_equal(ready, kind);
            end_to_act(&helper);
            make_unready((enum kind)kind);
        }
    }
    end_things();
}

/* What has a bell, so that no descriptor is polled. */
static void each_bell_wakes_who_waits_for_all_bells(void **state)
{
    (void)state;
    make_things();
    for (int kind = 0; kind < KINDS; kind++) {
        struct helper helper;
        size_t ready = 77;
        if (kind == CHILD || kind == DESCRIPTOR) {
            continue;
        }
        mproc_waitable bells[KINDS];
        memcpy(bells, things->all, sizeof bells);
        memset(&bells[CHILD], 0, sizeof bells[CHILD]);
        memset(&bells[DESCRIPTOR], 0, sizeof bells[DESCRIPTOR]);
        begin_to_act(&helper, make_kind_ready, kind);
        assert_ok(mproc_wait(bells, KINDS, &ready, MPROC_FOREVER));
        assert_int_equal(ready, kind);
        end_to_act(&helper);
        make_unready((enum kind)kind);
    }
    end_things();
}

static int pulse(int unused)
{
    (void)unused;
    int err = mproc_event_set(things->event);
    return err < 0 ? err : mproc_event_clear(things->event);
}

static void who_waits_sees_an_event_that_is_cleared_at_once(void **state)
{
    (void)state;
    make_things();
    struct helper helper;
    size_t ready = 77;
    begin_to_act(&helper, pulse, 0);
    assert_ok(mproc_wait(things->all, KINDS, &ready, MPROC_FOREVER));
    assert_int_equal(ready, EVENT);
    end_to_act(&helper);
    begin_to_act(&helper, pulse, 0);
    assert_ok(mproc_wait(&things->all[EVENT], 1, NULL, MPROC_FOREVER));
    end_to_act(&helper);
    assert_err(mproc_wait(things->all, KINDS, &ready, MPROC_NOWAIT),
               MPROC_ETIMEDOUT);
    end_things();
}

/* ---- in turn ---------------------------------------------------------- */

enum { SEVERAL = 5 };

static void what_is_ready_is_told_in_turn(void **state)
{
    (void)state;
    mproc_queue *queues[SEVERAL];
    mproc_waitable set[SEVERAL + 1] = {{{0}}};
    make_queues(queues, set, SEVERAL);
    for (int i = 0; i < SEVERAL; i++) {
        assert_ok(mproc_queue_put(queues[i], "x", 1, TEST_BOUND));
    }
    int told[SEVERAL] = {0};
    for (int i = 0; i < 4 * SEVERAL; i++) {
        size_t ready = 77;
        assert_ok(mproc_wait(set, SEVERAL + 1, &ready, TEST_BOUND));
        told[ready]++;
    }
    for (int i = 0; i < SEVERAL; i++) {
        assert_int_equal(told[i], 4);
    }
    free_queues(queues, SEVERAL);
}

static void nothing_starves_where_two_sets_take_turns(void **state)
{
    (void)state;
    mproc_queue *queues[SEVERAL];
    mproc_waitable set[SEVERAL];
    make_queues(queues, set, SEVERAL);
    for (int i = 0; i < SEVERAL; i++) {
        assert_ok(mproc_queue_put(queues[i], "x", 1, TEST_BOUND));
    }
    int told[SEVERAL] = {0};
    for (int i = 0; i < 1000; i++) {
        size_t ready;
        assert_ok(mproc_wait(set, 2, &ready, TEST_BOUND));
        told[ready]++;
        assert_ok(mproc_wait(set + 2, SEVERAL - 2, &ready, TEST_BOUND));
        told[2 + ready]++;
    }
    for (int i = 0; i < SEVERAL; i++) {
        assert_true(told[i] > 100);
    }
    free_queues(queues, SEVERAL);
}

/* ---- deadlines and empty sets ----------------------------------------- */

static void a_deadline_ends_the_wait(void **state)
{
    (void)state;
    make_things();
    mproc_waitable bells[] = {things->all[QUEUE], things->all[EVENT]};
    for (int mixed = 0; mixed < 2; mixed++) {
        size_t ready = 77;
        mproc_deadline until = mproc_in_ms(30);
        int err = mixed ? mproc_wait(things->all, KINDS, &ready, until)
                        : mproc_wait(bells, 2, &ready, until);
        assert_err(err, MPROC_ETIMEDOUT);
        assert_true(mproc_in_ms(0).at_ns >= until.at_ns);
        assert_int_equal(ready, 77);
    }
    end_things();
}

static void an_empty_set_is_never_ready(void **state)
{
    (void)state;
    const mproc_waitable skipped[3] = {{{0}}};
    size_t ready = 77;
    for (size_t count = 0; count < 4; count++) {
        const mproc_waitable *set = count > 0 ? skipped : NULL;
        mproc_deadline until = mproc_in_ms(10);
        assert_err(mproc_wait(set, count, &ready, MPROC_NOWAIT),
                   MPROC_ETIMEDOUT);
        assert_err(mproc_wait(set, count, &ready, until), MPROC_ETIMEDOUT);
        assert_true(mproc_in_ms(0).at_ns >= until.at_ns);
        assert_err(mproc_wait(set, count, &ready, MPROC_FOREVER),
                   MPROC_EDEADLK);
    }
    assert_int_equal(ready, 77);
}

static atomic_int signals;

static void count_signal(int sig)
{
    (void)sig;
    atomic_fetch_add(&signals, 1);
}

static void signals_do_not_end_it(void **state)
{
    (void)state;
    make_things();
    struct sigaction action = {.sa_handler = count_signal};
    const struct itimerval often = {{0, 2000}, {0, 2000}};
    const struct itimerval never = {{0, 0}, {0, 0}};
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    mproc_waitable bells[] = {things->all[QUEUE], things->all[EVENT]};
    setitimer(ITIMER_REAL, &often, NULL);
    int by_bell = mproc_wait(bells, 2, NULL, mproc_in_ms(40));
    int by_poll = mproc_wait(things->all, KINDS, NULL, mproc_in_ms(40));
    setitimer(ITIMER_REAL, &never, NULL);
    assert_err(by_bell, MPROC_ETIMEDOUT);
    assert_err(by_poll, MPROC_ETIMEDOUT);
    assert_true(atomic_load(&signals) > 0);
    end_things();
}

/* ---- children by each start method ------------------------------------ */

static int end_at_event(void *arg)
{
    return mproc_event_wait(*(mproc_event **)arg, MPROC_FOREVER);
}

static int set_event(int unused)
{
    (void)unused;
    return mproc_event_set(things->event);
}

static void a_child_is_waited_for_however_it_was_started(void **state)
{
    (void)state;
    for (int start = MPROC_START_FORK; start <= MPROC_START_FORKSERVER;
         start++) {
        make_things();
        mproc_process *p;
        const mproc_process_opts opts = {.start = start,
                                         .arg_size = sizeof things->event};
        assert_ok(mproc_process_new(&p, end_at_event, &things->event, &opts));
        assert_ok(mproc_process_start(p));
        const mproc_waitable set[] = {things->all[QUEUE],
                                      mproc_waitable_process(p)};
        assert_err(mproc_wait(set, 2, NULL, MPROC_NOWAIT), MPROC_ETIMEDOUT);
        size_t ready = 77;
        struct helper helper;
        begin_to_act(&helper, set_event, 0);
        assert_ok(mproc_wait(set, 2, &ready, TEST_BOUND));
        assert_int_equal(ready, 1);
        end_to_act(&helper);
        assert_ok(mproc_process_join(p, TEST_BOUND));
        assert_ok(mproc_wait(set, 2, &ready, TEST_BOUND));
        assert_int_equal(ready, 1);
        mproc_process_free(p);
        end_things();
    }
}

/* ---- descriptors ------------------------------------------------------ */

static void it_costs_no_descriptor_when_it_is_over(void **state)
{
    (void)state;
    make_things();
    int before = test_open_fds();
    assert_err(mproc_wait(things->all, KINDS, NULL, mproc_in_ms(5)),
               MPROC_ETIMEDOUT);
    assert_int_equal(test_open_fds(), before);
    end_things();
}

static void a_descriptor_that_cannot_be_had_is_told(void **state)
{
    (void)state;
    make_things();
    struct rlimit limit, none;
    size_t ready = 77;
    mproc_waitable bells[] = {things->all[QUEUE], things->all[EVENT]};
    mproc_waitable fd = things->all[DESCRIPTOR];
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int by_poll = mproc_wait(&fd, 1, &ready, MPROC_FOREVER);
    int by_bell = mproc_wait(bells, 2, &ready, mproc_in_ms(1));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_err(by_poll, MPROC_EMFILE);
    assert_err(by_bell, MPROC_ETIMEDOUT);
    assert_int_equal(ready, 77);
    end_things();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_alone_becomes_ready),
        cmocka_unit_test(each_kind_alone_wakes),
        cmocka_unit_test(each_kind_wakes_who_waits_for_all),
        cmocka_unit_test(each_bell_wakes_who_waits_for_all_bells),
        cmocka_unit_test(who_waits_sees_an_event_that_is_cleared_at_once),
        cmocka_unit_test(what_is_ready_is_told_in_turn),
        cmocka_unit_test(nothing_starves_where_two_sets_take_turns),
        cmocka_unit_test(a_deadline_ends_the_wait),
        cmocka_unit_test(an_empty_set_is_never_ready),
        cmocka_unit_test(signals_do_not_end_it),
        cmocka_unit_test(a_child_is_waited_for_however_it_was_started),
        cmocka_unit_test(it_costs_no_descriptor_when_it_is_over),
        cmocka_unit_test(a_descriptor_that_cannot_be_had_is_told),
    };
    mpr_test_deep_sleep = true; /* a timed look would hide a lost wake-up */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
