/* SPDX-License-Identifier: MIT */
/* Pools whose maker is killed: nobody is left, and that soon. */
#include "pool_kin.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static const double promised_s = 2;

/* ---- what makers do --------------------------------------------------- */

enum { WORKERS = 3, NOBODY = 65534 };

enum stop { STOPS_NONE, STOPS_TELLERS = 1, STOPS_NURSERY = 2, STOPS_MAKER = 4 };

/* What is seen by the maker and by its tasks. */
struct scene {
    const char *name;
    mproc_task_fn *task;        /* NULL: the workers are idle */
    mproc_main_fn *initializer; /* tells, too, and the maker waits for it */
    int tells;                  /* how often somebody does */
    int depth;                  /* of pools in workers of pools */
    int stop;
    bool as_root;
    bool by_thread; /* another than the main one, which ends */
    bool manual;
    bool exits; /* the maker, rather than being killed */
    mproc_queue *here, *gate;
};

static void tell(const struct scene *scene)
{
    pid_t pid = getpid();
    mproc_queue_put(scene->here, &pid, sizeof pid, MPROC_FOREVER);
}

static void *make(void *user)
{
    const struct scene *scene = user;
    mproc_pool *p = pool_with((mproc_pool_opts){
        .workers = WORKERS,
        .initializer = scene->initializer,
        .initializer_arg = user,
        .initializer_arg_size = scene->initializer ? sizeof *scene : 0,
        .manual_dispatch = scene->manual});
    mproc_call call = {.fn = scene->task, MPROC_ARG(*scene)};
    for (int i = 0; call.fn != NULL && i < WORKERS; i++) {
        assert_ok(mproc_pool_apply_async(p, &call, NULL, MPROC_FOREVER));
    }
    return p;
}

/* Without mproc_pool_free. */
static int makes_and_stays(void *arg)
{
    struct scene *scene = arg;
    pthread_t thread;
    if (scene->by_thread) {
        pthread_create(&thread, NULL, make, scene);
        pthread_join(thread, NULL);
    } else {
        make(scene);
    }
    if (scene->task == NULL && scene->initializer == NULL) {
        tell(scene);
    }
    mproc_queue_get(scene->gate, NULL, 0, NULL, MPROC_FOREVER);
    exit(0);
}

/* ---- what tasks do ---------------------------------------------------- */

static void ignore_all(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (int sig = 1; sig < NSIG; sig++) {
        signal(sig, SIG_IGN);
    }
}

static int stays(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    tell(arg);
    while (pause() != 0) {
    }
    return 0;
}

static int ignores_all(const void *arg, size_t size, mproc_reply *reply)
{
    ignore_all();
    return stays(arg, size, reply);
}

static int spins(const void *arg, size_t size, mproc_reply *reply)
{
    volatile bool for_ever = true;
    (void)size;
    (void)reply;
    ignore_all();
    tell(arg);
    while (for_ever) {
    }
    return 0;
}

static int stops_itself(const void *arg, size_t size, mproc_reply *reply)
{
    (void)size;
    (void)reply;
    tell(arg);
    return raise(SIGSTOP);
}

static int closes_all(const void *arg, size_t size, mproc_reply *reply)
{
    for (int fd = 0; fd < 1024; fd++) {
        close(fd);
    }
    return stays(arg, size, reply);
}

/* By which the kernel forgets that it is to end with its parent. */
static int becomes_nobody(const void *arg, size_t size, mproc_reply *reply)
{
    if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0) {
        return 1;
    }
    return ignores_all(arg, size, reply);
}

/* Of the innermost pools the tasks tell. */
static int makes_a_pool(const void *arg, size_t size, mproc_reply *reply)
{
    struct scene scene = *(const struct scene *)arg;
    (void)size;
    (void)reply;
    if (--scene.depth == 0) {
        scene.task = ignores_all;
    }
    make(&scene);
    while (pause() != 0) {
    }
    return 0;
}

static int hangs(void *arg)
{
    return ignores_all(arg, 0, NULL);
}

static int stops(void *arg)
{
    return stops_itself(arg, 0, NULL);
}

static int hangs_as_nobody(void *arg)
{
    return becomes_nobody(arg, 0, NULL);
}

static int only_becomes_nobody(void *arg)
{
    (void)arg;
    return setgid(NOBODY) != 0 || setuid(NOBODY) != 0;
}

/* ---- the promise ------------------------------------------------------ */

static void stop(pid_t pid, bool by_us)
{
    if (by_us) {
        kill(pid, SIGSTOP);
    }
    test_await_state(pid, 'T');
}

static double end_a_maker(struct scene *scene)
{
    pid_t maker = test_fork(makes_and_stays, scene), told = 0;
    for (int i = 0; i < scene->tells; i++) {
        assert_ok(
            mproc_queue_get(scene->here, &told, sizeof told, NULL, TEST_BOUND));
        if (scene->stop & STOPS_TELLERS) {
            stop(told, scene->task != stops_itself);
        }
    }
    if (scene->stop & STOPS_NURSERY) {
        stop(test_stat_of(told).parent, true);
    }
    if (scene->stop & STOPS_MAKER) {
        stop(maker, true);
    }
    if (scene->exits) {
        assert_ok(mproc_queue_put(scene->gate, NULL, 0, MPROC_FOREVER));
    } else {
        kill(maker, SIGKILL);
    }
    return await_nobody();
}

/* Within the time in one of three attempts: the machine may be busy. */
static void expect_soon(struct scene scene)
{
    enum { ATTEMPTS = 3 };
    double took = promised_s;
    if (scene.as_root && getuid() != 0) {
        return;
    }
    scene.here = queue();
    scene.gate = queue();
    for (int i = 0; i < ATTEMPTS && took >= promised_s; i++) {
        took = end_a_maker(&scene);
        print_message("%s: all gone after %.3f s\n", scene.name, took);
    }
    assert_true(took < promised_s);
    mproc_queue_free(scene.here);
    mproc_queue_free(scene.gate);
}

static void nobody_outlives_the_maker(void **state)
{
    (void)state;
    const struct scene scenes[] = {
        {.name = "idle", .tells = 1},
        {.name = "busy", .task = stays, .tells = WORKERS},
        {.name = "made by a thread",
         .task = stays,
         .tells = WORKERS,
         .by_thread = true},
        {.name = "event loop", .task = stays, .tells = WORKERS, .manual = true},
        {.name = "all signals ignored", .task = spins, .tells = WORKERS},
        {.name = "descriptors closed", .task = closes_all, .tells = WORKERS},
    };
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        expect_soon(scenes[i]);
    }
}

static void nor_does_who_is_stopped(void **state)
{
    (void)state;
    struct scene scene = {
        .task = stops_itself, .tells = WORKERS, .stop = STOPS_TELLERS};
    scene.name = "workers stop themselves";
    expect_soon(scene);
    scene.name = "nursery stopped";
    scene.task = ignores_all;
    scene.stop = STOPS_NURSERY;
    expect_soon(scene);
    scene.name = "all stopped";
    scene.stop = STOPS_TELLERS | STOPS_NURSERY | STOPS_MAKER;
    expect_soon(scene);
}

static void nor_do_pools_within_pools(void **state)
{
    (void)state;
    struct scene scene = {.task = makes_a_pool};
    scene.name = "two deep";
    scene.depth = 1;
    scene.tells = WORKERS * WORKERS;
    expect_soon(scene);
    scene.name = "three deep";
    scene.depth = 2;
    scene.tells = WORKERS * WORKERS * WORKERS;
    expect_soon(scene);
}

/* Their maker is in mproc_pool_new. */
static void nor_do_initializers(void **state)
{
    (void)state;
    struct scene scene = {.initializer = hangs, .tells = WORKERS};
    scene.name = "initializers hang";
    expect_soon(scene);
    scene.name = "initializers are stopped";
    scene.initializer = stops;
    scene.stop = STOPS_TELLERS;
    expect_soon(scene);
}

static void nor_does_who_has_become_another_user(void **state)
{
    (void)state;
    struct scene scene = {.as_root = true};
    for (int i = 0; i < 2; i++) {
        scene.exits = i;
        scene.name = "another user";
        scene.tells = WORKERS;
        scene.task = becomes_nobody;
        scene.initializer = NULL;
        expect_soon(scene);
        scene.name = "another user, by the initializer";
        scene.task = ignores_all;
        scene.initializer = only_becomes_nobody;
        expect_soon(scene);
    }
    scene.name = "another user, in the initializer";
    scene.exits = false;
    scene.initializer = hangs_as_nobody;
    expect_soon(scene);
}

static int iterates_for_ever(void *arg)
{
    struct scene *scene = arg;
    mproc_iter *it;
    const mproc_outcome *o;
    mproc_batch b = {.fn = squares,
                     .in = (int[]){1, 2},
                     .in_size = sizeof(int),
                     .count = 2,
                     .chunk = 1};
    assert_ok(mproc_pool_imap(pool_of(1), &b, &it));
    assert_ok(mproc_iter_next(it, &o, TEST_BOUND));
    tell(scene);
    while (pause() != 0) {
    }
    return 0;
}

static void nor_does_an_iteration(void **state)
{
    (void)state;
    pid_t pid;
    struct scene scene = {.here = queue()};
    pid_t maker = test_fork(iterates_for_ever, &scene);
    assert_ok(mproc_queue_get(scene.here, &pid, sizeof pid, NULL, TEST_BOUND));
    assert_int_equal(kill(maker, SIGKILL), 0);
    await_nobody();
    mproc_queue_free(scene.here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(nobody_outlives_the_maker),
        CLEAN(nor_does_who_is_stopped),
        CLEAN(nor_do_pools_within_pools),
        CLEAN(nor_do_initializers),
        CLEAN(nor_does_an_iteration),
        CLEAN(nor_does_who_has_become_another_user),
    };
    return cmocka_run_group_tests_name("pool_maker", tests, adopt_orphans,
                                       NULL);
}
