/* SPDX-License-Identifier: MIT */
/* What the tests of mproc_wait share: one thing of each kind, and helpers. */
#ifndef MPROC_TEST_WAIT_SUPPORT_H
#define MPROC_TEST_WAIT_SUPPORT_H

#include "sync_support.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "shm/sleep.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
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
static inline int end_when_told(void *unused)
{
    (void)unused;
    (void)mproc_connection_close(things->lonely);
    (void)mproc_connection_close(things->other);
    return mproc_semaphore_acquire(things->child_ends, MPROC_FOREVER);
}

static inline int task_until_told(const void *arg, size_t size,
                                  mproc_reply *reply)
{
    (void)arg;
    (void)size;
    (void)reply;
    return mproc_semaphore_acquire(things->task_ends, MPROC_FOREVER);
}

static const mproc_queue_opts few = {.maxsize = 4};

static inline void make_child(void)
{
    assert_ok(mproc_process_new(&things->child, end_when_told, NULL, NULL));
    assert_ok(mproc_process_start(things->child));
}

static inline void make_result(void)
{
    const mproc_call call = {.fn = task_until_told};
    assert_ok(mproc_pool_apply_async(things->pool, &call, &things->result,
                                     TEST_BOUND));
}

static inline void fill_set(void)
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

static inline void make_things(void)
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

static inline void end_things(void)
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

static inline void *act_once_asleep(void *arg)
{
    struct helper *helper = arg;
    await_asleep(helper->waiter);
    helper->err = helper->act(helper->what);
    return NULL;
}

static inline void begin_to_act(struct helper *helper, int (*act)(int),
                                int what)
{
    *helper = (struct helper){.waiter = gettid(), .act = act, .what = what};
    assert_int_equal(
        pthread_create(&helper->thread, NULL, act_once_asleep, helper), 0);
}

static inline void end_to_act(struct helper *helper)
{
    assert_int_equal(pthread_join(helper->thread, NULL), 0);
    assert_ok(helper->err);
}

/* ---- queues ----------------------------------------------------------- */

static inline void make_queues(mproc_queue **queues, mproc_waitable *set,
                               int count)
{
    for (int i = 0; i < count; i++) {
        assert_ok(mproc_queue_new(&queues[i], NULL));
        set[i] = mproc_waitable_queue(queues[i]);
    }
}

static inline void free_queues(mproc_queue **queues, int count)
{
    for (int i = 0; i < count; i++) {
        mproc_queue_free(queues[i]);
    }
}

#endif
