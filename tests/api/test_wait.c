/* SPDX-License-Identifier: MIT */
/* mproc_wait over every kind of thing, alone and mixed. */
#include "sync_support.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/time.h>

#include "shm/sleep.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/*
 * The thread sanitizer lets nobody start threads after a fork beside threads;
 * who polls has the library start one.
 */
#ifdef __SANITIZE_THREAD__
enum { CHILDREN_MAY_POLL = 0 };
#else
enum { CHILDREN_MAY_POLL = 1 };
#endif

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

/* ---- one thing of each kind ------------------------------------------- */

enum kind {
    QUEUE,
    SHUT_QUEUE,
    MESSAGE,
    END_OF_FILE,
    CHILD,
    EVENT,
    RESULT,
    DESCRIPTOR,
    KINDS
};

struct things {
    mproc_queue *queue, *shut_queue;
    mproc_connection *in, *out, *lonely, *other;
    mproc_process *child;
    mproc_event *event;
    mproc_pool *pool;
    mproc_result *result;
    mproc_semaphore *child_ends, *task_ends;
    int fds[2];
    mproc_waitable all[KINDS];
};

static struct things *things; /* in shared memory */

/* It has inherited the ends that it is not to hold. */
static int end_when_told(void *unused)
{
    (void)unused;
    (void)mproc_connection_close(things->lonely);
    (void)mproc_connection_close(things->other);
    return mproc_semaphore_acquire(things->child_ends, MPROC_FOREVER);
}

static int task_until_told(const void *arg, size_t size, mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    return mproc_semaphore_acquire(things->task_ends, MPROC_FOREVER);
}

static const mproc_queue_opts few = {.maxsize = 4};

static void make_child(void)
{
    assert_ok(mproc_process_new(&things->child, end_when_told, NULL, NULL));
    assert_ok(mproc_process_start(things->child));
}

static void make_result(void)
{
    const mproc_call call = {.fn = task_until_told};
    assert_ok(mproc_pool_apply_async(things->pool, &call, &things->result,
                                     TEST_BOUND));
}

static void fill_set(void)
{
    const mproc_waitable all[KINDS] = {
        [QUEUE] = mproc_waitable_queue(things->queue),
        [SHUT_QUEUE] = mproc_waitable_queue(things->shut_queue),
        [MESSAGE] = mproc_waitable_connection(things->in),
        [END_OF_FILE] = mproc_waitable_connection(things->lonely),
        [CHILD] = mproc_waitable_process(things->child),
        [EVENT] = mproc_waitable_event(things->event),
        [RESULT] = mproc_waitable_result(things->result),
        [DESCRIPTOR] = mproc_waitable_fd(things->fds[0]),
    };
    memcpy(things->all, all, sizeof all);
}

static void make_things(void)
{
    things = mproc_calloc(1, sizeof *things);
    assert_non_null(things);
    assert_ok(mproc_semaphore_new(&things->child_ends, 0, NULL));
    assert_ok(mproc_semaphore_new(&things->task_ends, 0, NULL));
    assert_int_equal(pipe2(things->fds, O_CLOEXEC), 0);
    assert_ok(mproc_pool_new(&things->pool, &(mproc_pool_opts){.workers = 1}));
    assert_ok(mproc_queue_new(&things->queue, NULL));
    assert_ok(mproc_queue_new(&things->shut_queue, &few));
    assert_ok(mproc_pipe_new(&things->in, &things->out,
                             &(mproc_pipe_opts){.simplex = 1}));
    assert_ok(mproc_pipe_new(&things->lonely, &things->other, NULL));
    assert_ok(mproc_event_new(&things->event));
    make_child();
    make_result();
    fill_set();
}

static void end_things(void)
{
    assert_ok(mproc_semaphore_release(things->child_ends));
    assert_ok(mproc_semaphore_release(things->task_ends));
    assert_ok(mproc_process_join(things->child, TEST_BOUND));
    assert_ok(mproc_result_wait(things->result, TEST_BOUND));
    mproc_process_free(things->child);
    mproc_result_free(things->result);
    mproc_pool_free(things->pool);
    mproc_queue_free(things->queue);
    mproc_queue_free(things->shut_queue);
    assert_ok(mproc_connection_close(things->in));
    (void)mproc_connection_close(things->out);
    assert_ok(mproc_connection_close(things->lonely));
    (void)mproc_connection_close(things->other);
    mproc_event_free(things->event);
    mproc_semaphore_free(things->child_ends);
    mproc_semaphore_free(things->task_ends);
    close(things->fds[0]);
    close(things->fds[1]);
    mproc_free(things);
}

/* Make one ready; `pulse` an event: set and clear it. */
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

/* ---- who waits, and who makes ready meanwhile ------------------------- */

/*
 * The kinds that another thread makes ready while this one waits; the process
 * of children and results has to wait itself.
 */
struct helper {
    pthread_t thread;
    pid_t waiter; /* whose sleep it awaits */
    int (*act)(int what);
    int what;
    int err;
};

static void *act_once_asleep(void *arg)
{
    struct helper *helper = arg;
    await_asleep(helper->waiter);
    helper->err = helper->act(helper->what);
    return NULL;
}

static void begin_to_act(struct helper *helper, int (*act)(int), int what)
{
    *helper = (struct helper){.waiter = gettid(), .act = act, .what = what};
    assert_int_equal(
        pthread_create(&helper->thread, NULL, act_once_asleep, helper), 0);
}

static void end_to_act(struct helper *helper)
{
    assert_int_equal(pthread_join(helper->thread, NULL), 0);
    assert_ok(helper->err);
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

static void make_queues(mproc_queue **queues, mproc_waitable *set, int count)
{
    for (int i = 0; i < count; i++) {
        assert_ok(mproc_queue_new(&queues[i], NULL));
        set[i] = mproc_waitable_queue(queues[i]);
    }
}

static void free_queues(mproc_queue **queues, int count)
{
    for (int i = 0; i < count; i++) {
        mproc_queue_free(queues[i]);
    }
}

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

/* ---- a thousand ------------------------------------------------------- */

enum { THOUSAND = 1000 };

struct crowd {
    mproc_queue *queue[THOUSAND];
    mproc_waitable set[THOUSAND + 1];
    _Atomic int asked; /* which to put to, + 1 */
};

static int put_where_asked(int which)
{
    struct crowd *crowd = (struct crowd *)(void *)things;
    return mproc_queue_put(crowd->queue[which], "x", 1, TEST_BOUND);
}

static void wait_for_thousand(struct crowd *crowd, size_t count)
{
    for (int i = 0; i < THOUSAND; i += 111) {
        struct helper helper;
        size_t ready = 7777;
        char byte;
        begin_to_act(&helper, put_where_asked, i);
        assert_ok(mproc_wait(crowd->set, count, &ready, MPROC_FOREVER));
        assert_int_equal(ready, i);
        end_to_act(&helper);
        assert_ok(
            mproc_queue_get(crowd->queue[i], &byte, 1, NULL, MPROC_NOWAIT));
    }
}

static void any_of_a_thousand_wakes(void **state)
{
    (void)state;
    int fds[2];
    struct crowd *crowd = mproc_calloc(1, sizeof *crowd);
    assert_non_null(crowd);
    things = (struct things *)(void *)crowd;
    make_queues(crowd->queue, crowd->set, THOUSAND);
    wait_for_thousand(crowd, THOUSAND);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    crowd->set[THOUSAND] = mproc_waitable_fd(fds[0]);
    wait_for_thousand(crowd, THOUSAND + 1);
    free_queues(crowd->queue, THOUSAND);
    mproc_free(crowd);
    close(fds[0]);
    close(fds[1]);
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

/* ---- many who wait ---------------------------------------------------- */

enum {
    QUEUES = 7,
    PRODUCERS = 2,
    CONSUMERS = 3,
    MESSAGES = SANITIZED ? 400 : 3000
};

struct market {
    mproc_queue *queue[QUEUES];
    mproc_waitable set[QUEUES + 1]; /* the last: a descriptor, or nothing */
    atomic_int taken[PRODUCERS * MESSAGES];
    atomic_int next_me, wrong;
};

static struct market *market;

static void *sell(void *unused)
{
    int me = atomic_fetch_add(&market->next_me, 1);
    for (int i = 0; i < MESSAGES; i++) {
        int number = me * MESSAGES + i;
        int err = mproc_queue_put(market->queue[number % QUEUES], &number,
                                  sizeof number, TEST_BOUND);
        atomic_fetch_add(&market->wrong, err != 0);
        if (i % 50 == 0) {
            look_again_soon(); /* let them fall asleep */
        }
    }
    return unused;
}

static int sell_as_process(void *unused)
{
    sell(unused);
    return 0;
}

/* Until all are shut down; `count` of things in the set. */
static void buy(size_t count)
{
    mproc_waitable set[QUEUES + 1];
    memcpy(set, market->set, sizeof set);
    for (int open = QUEUES; open > 0;) {
        size_t i = 0;
        int number, err = mproc_wait(set, count, &i, TEST_BOUND);
        if (err < 0) {
            atomic_fetch_add(&market->wrong, 1);
            return;
        }
        err = mproc_queue_get(market->queue[i], &number, sizeof number, NULL,
                              MPROC_NOWAIT);
        if (err == MPROC_ESHUTDOWN) {
            set[i] = (mproc_waitable){{0}};
            open--;
        } else if (err == 0) {
            atomic_fetch_add(&market->taken[number], 1);
        } else {
            atomic_fetch_add(&market->wrong, err != MPROC_EEMPTY);
        }
    }
}

static void *buy_by_bell(void *unused)
{
    buy(QUEUES);
    return unused;
}

static void *buy_by_poll(void *unused)
{
    buy(QUEUES + 1);
    return unused;
}

static int buy_by_bell_as_process(void *unused)
{
    buy(QUEUES);
    return unused != NULL;
}

static int buy_by_poll_as_process(void *unused)
{
    buy(CHILDREN_MAY_POLL ? QUEUES + 1 : QUEUES);
    return unused != NULL;
}

static void open_market(int fd)
{
    market = mproc_calloc(1, sizeof *market);
    assert_non_null(market);
    make_queues(market->queue, market->set, QUEUES);
    market->set[QUEUES] = mproc_waitable_fd(fd);
}

static void close_market(void)
{
    assert_int_equal(atomic_load(&market->wrong), 0);
    for (int i = 0; i < PRODUCERS * MESSAGES; i++) {
        assert_int_equal(atomic_load(&market->taken[i]), 1);
    }
    free_queues(market->queue, QUEUES);
    mproc_free(market);
}

static void shut_market(void)
{
    for (int i = 0; i < QUEUES; i++) {
        assert_ok(mproc_queue_shutdown(market->queue[i], false));
    }
}

static void many_threads_may_wait(void **state)
{
    (void)state;
    int fds[2];
    pthread_t sellers[PRODUCERS], buyers[2 * CONSUMERS];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    open_market(fds[0]);
    for (int i = 0; i < 2 * CONSUMERS; i++) {
        void *(*fn)(void *) = i % 2 ? buy_by_bell : buy_by_poll;
        assert_int_equal(pthread_create(&buyers[i], NULL, fn, NULL), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(pthread_create(&sellers[i], NULL, sell, NULL), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(sellers[i], NULL);
    }
    shut_market();
    for (int i = 0; i < 2 * CONSUMERS; i++) {
        pthread_join(buyers[i], NULL);
    }
    close_market();
    close(fds[0]);
    close(fds[1]);
}

static void many_processes_may_wait(void **state)
{
    (void)state;
    int fds[2];
    pid_t sellers[PRODUCERS], buyers[2 * CONSUMERS];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    open_market(fds[0]);
    for (int i = 0; i < 2 * CONSUMERS; i++) {
        buyers[i] = test_fork(
            i % 2 ? buy_by_bell_as_process : buy_by_poll_as_process, NULL);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        sellers[i] = test_fork(sell_as_process, NULL);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(test_wait_exit(sellers[i]), 0);
    }
    shut_market();
    for (int i = 0; i < 2 * CONSUMERS; i++) {
        assert_int_equal(test_wait_exit(buyers[i]), 0);
    }
    close_market();
    close(fds[0]);
    close(fds[1]);
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
        cmocka_unit_test(any_of_a_thousand_wakes),
        cmocka_unit_test(a_deadline_ends_the_wait),
        cmocka_unit_test(an_empty_set_is_never_ready),
        cmocka_unit_test(signals_do_not_end_it),
        cmocka_unit_test(what_is_no_handle_is_told),
        cmocka_unit_test(what_is_not_the_callers_is_told),
        cmocka_unit_test(what_was_freed_is_told_also_when_made_anew),
        cmocka_unit_test(freeing_what_is_waited_for_ends_the_wait),
        cmocka_unit_test(nothing_is_missed_when_those_who_put_are_killed),
        cmocka_unit_test(the_death_of_the_last_at_the_other_end_is_an_end),
        cmocka_unit_test(what_a_dead_consumer_had_is_ready_again),
        cmocka_unit_test(a_child_is_waited_for_however_it_was_started),
        cmocka_unit_test(many_threads_may_wait),
        cmocka_unit_test(many_processes_may_wait),
        cmocka_unit_test(it_costs_no_descriptor_when_it_is_over),
        cmocka_unit_test(a_descriptor_that_cannot_be_had_is_told),
    };
    mpr_test_deep_sleep = true; /* a timed look would hide a lost wake-up */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
