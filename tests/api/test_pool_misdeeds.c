/* SPDX-License-Identifier: MIT */
/*
 * Tasks that do to their worker what they can: each by itself and in the middle
 * of a chunk. It is told of that one what it did; no other is affected.
 */
#include "pool_kin.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

enum { ITEMS = 9, MIDDLE = 4, JUMPED = 33, NOBODY = 65534 };

/* ---- misdeeds --------------------------------------------------------- */

static void misbehave_not(void)
{
}

static void exits(void)
{
    exit(5);
}

static void exits_well(void)
{
    exit(0);
}

static void exits_at_once(void)
{
    _exit(6);
}

static void exits_quickly(void)
{
    quick_exit(7);
}

#ifndef __SANITIZE_THREAD__ /* such a process never ends under it */
static void ends_its_thread(void)
{
    pthread_exit(NULL);
}
#endif

static void aborts(void)
{
    abort();
}

static void is_killed(void)
{
    raise(SIGKILL);
}

static void is_terminated(void)
{
    raise(SIGTERM);
}

static void is_interrupted(void)
{
    raise(SIGINT);
}

/* Workers are forks of the process whose stack this is about. */
static jmp_buf out_of_here;

static void jumps(void)
{
    longjmp(out_of_here, 1);
}

static int fall(volatile const bool *for_ever)
{
    volatile char room[4096] = {1};
    return *for_ever ? fall(for_ever) + room[0] : 0;
}

static void overflows_its_stack(void)
{
    volatile bool for_ever = true;
    signal(SIGSEGV, SIG_DFL); /* a sanitizer has a handler */
    fall(&for_ever);
}

static void block_all(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (int sig = 1; sig < NSIG; sig++) {
        signal(sig, SIG_IGN);
    }
}

static void blocks_all_and_spins(void)
{
    volatile bool for_ever = true;
    block_all();
    while (for_ever) {
    }
}

static void blocks_all_and_is_killed(void)
{
    block_all();
    raise(SIGKILL);
}

static void stops_itself(void)
{
    raise(SIGSTOP);
}

/* Whatever is open, the standard ones too. */
static void closes_all(void)
{
    for (long fd = 0; fd < sysconf(_SC_OPEN_MAX) && fd < 1 << 16; fd++) {
        syscall(SYS_close, (int)fd);
    }
}

static void closes_all_and_exits(void)
{
    closes_all();
    exit(8);
}

/* The child returns from the task as well. */
static void forks(void)
{
    fork();
}

static void forks_who_exits(void)
{
    if (fork() == 0) {
        exit(9);
    }
}

static void forks_who_is_killed(void)
{
    if (fork() == 0) {
        raise(SIGKILL);
    }
}

/* The child comes back when there is another worker. */
static void forks_and_exits(void)
{
    if (fork() > 0) {
        exit(10);
    }
    usleep(2000);
}

static void becomes_another_program(void)
{
    execl("/bin/sh", "sh", "-c", "exit 11", (char *)NULL);
}

static void becomes_a_long_one(void)
{
    execl("/bin/sh", "sh", "-c", "while :; do :; done", (char *)NULL);
}

static void becomes_another_user(void)
{
    if (getuid() == 0 && (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)) {
        abort();
    }
}

static void exits_as_another_user(void)
{
    becomes_another_user();
    exit(12);
}

static void leads_a_session(void)
{
    setsid();
    if (chdir("/") != 0) {
        abort();
    }
}

#define EXITED "worker %d exited with status "
#define KILLED "worker %d killed by signal "

/* Without `text` and with an end nothing comes of it. */
static const struct misdeed {
    void (*act)(void);
    const char *name, *text;
    int code;
    bool endless; /* it needs a time limit */
    bool as_root;
} misdeeds[] = {
#define NAMED(doing) .act = (doing), .name = #doing
    {NAMED(exits), .text = EXITED "5", .code = 5},
    {NAMED(exits_well), .text = EXITED "0"},
    {NAMED(exits_at_once), .text = EXITED "6", .code = 6},
    {NAMED(exits_quickly), .text = EXITED "7", .code = 7},
#ifndef __SANITIZE_THREAD__
    {NAMED(ends_its_thread), .text = EXITED "0"},
#endif
    {NAMED(aborts), .text = KILLED "6 (SIGABRT)", .code = -SIGABRT},
    {NAMED(is_killed), .text = KILLED "9 (SIGKILL)", .code = -SIGKILL},
    {NAMED(is_terminated), .text = KILLED "15 (SIGTERM)", .code = -SIGTERM},
    {NAMED(is_interrupted)},
    {NAMED(jumps), .text = EXITED "33", .code = JUMPED},
    {NAMED(overflows_its_stack), .text = KILLED "11 (SIGSEGV)",
     .code = -SIGSEGV},
    {NAMED(block_all)},
    {NAMED(blocks_all_and_is_killed), .text = KILLED "9 (SIGKILL)",
     .code = -SIGKILL},
    {NAMED(blocks_all_and_spins), .endless = true},
    {NAMED(stops_itself), .endless = true},
    {NAMED(closes_all)},
    {NAMED(closes_all_and_exits), .text = EXITED "8", .code = 8},
    {NAMED(forks)},
    {NAMED(forks_who_exits)},
    {NAMED(forks_who_is_killed)},
    {NAMED(forks_and_exits), .text = EXITED "10", .code = 10},
    {NAMED(becomes_another_program), .text = EXITED "11", .code = 11},
    {NAMED(becomes_a_long_one), .endless = true},
    {NAMED(becomes_another_user), .as_root = true},
    {NAMED(exits_as_another_user), .text = EXITED "12", .code = 12,
     .as_root = true},
    {NAMED(leads_a_session)},
};
enum { MISDEEDS = sizeof misdeeds / sizeof *misdeeds };

/* ---- what is to come of them ------------------------------------------ */

struct deed {
    void (*act)(void);
    _Atomic int *begun; /* in the shared heap */
    int number;
};

static int acts(const void *arg, size_t size, mproc_reply *reply)
{
    const struct deed *deed = arg;
    int square = deed->number * deed->number;
    (void)size;
    if (deed->begun != NULL) {
        (*deed->begun)++;
    }
    deed->act();
    return mproc_reply_set(reply, &square, sizeof square);
}

static int status_of(const struct misdeed *m)
{
    return m->endless        ? MPROC_EOVERTIME
           : m->text != NULL ? MPROC_EWORKERLOST
                             : MPROC_OK;
}

/* What is told of the one who did it. */
static void expect_told(const struct misdeed *m, const mproc_outcome *o)
{
    char text[80] = "";
    const char *format = m->text;
    if (m->endless) {
        format = "worker %d ended: its task ran too long";
    }
    if (format != NULL) {
        snprintf(text, sizeof text, format, (int)o->worker);
    }
    assert_err(o->status, status_of(m));
    assert_int_equal(o->code, m->code);
    assert_string_equal(o->error, text);
}

static void expect_works(mproc_pool *p)
{
    for (int i = 0; i < 5; i++) {
        int out;
        struct deed deed = {misbehave_not, NULL, i};
        mproc_call call = {.fn = acts, MPROC_ARG(deed)};
        assert_ok(mproc_pool_apply(p, &call, &out, sizeof out, TEST_BOUND));
        assert_int_equal(out, i * i);
    }
}

static void do_it_alone(mproc_pool *p, const struct misdeed *m)
{
    struct deed deed = {m->act, NULL, 7};
    int out = -1;
    mproc_result *r = sent(p, (mproc_call){.fn = acts,
                                           MPROC_ARG(deed),
                                           .timeout_s = m->endless ? 0.2 : 0});
    int err = mproc_result_get(r, &out, sizeof out, NULL, TEST_BOUND);
    assert_err(err, status_of(m));
    assert_int_equal(out, err == 0 ? 49 : -1);
    assert_true(mproc_result_outcome(r)->worker > 0);
    expect_told(m, mproc_result_outcome(r));
    mproc_result_free(r);
    expect_works(p);
}

struct telling {
    const struct misdeed *misdeed;
    int told[ITEMS];
};

static void note_item(const mproc_outcome *o, void *user)
{
    struct telling *t = user;
    t->told[o->index]++;
    if (o->index == MIDDLE) {
        expect_told(t->misdeed, o);
    } else {
        assert_ok(o->status);
        assert_string_equal(o->error, "");
    }
}

/* Without `on_item` the outcome of the batch tells of it. */
static void do_it_among_others(mproc_pool *p, const struct misdeed *m,
                               bool tell)
{
    struct deed deed[ITEMS];
    struct telling telling = {.misdeed = m};
    int out[ITEMS], status[ITEMS];
    _Atomic int *begun = mproc_calloc(ITEMS, sizeof *begun);
    for (int i = 0; i < ITEMS; i++) {
        deed[i] =
            (struct deed){i == MIDDLE ? m->act : misbehave_not, &begun[i], i};
    }
    mproc_batch b = {.fn = acts,
                     .in = deed,
                     .in_size = sizeof *deed,
                     .count = ITEMS,
                     .out = out,
                     .out_size = sizeof *out,
                     .status = status,
                     .chunk = ITEMS,
                     .timeout_s = m->endless ? 0.8 : 0,
                     .on_item = tell ? note_item : NULL,
                     .user = &telling};
    mproc_result *r;
    assert_ok(mproc_pool_map_async(p, &b, &r));
    assert_err(mproc_result_get(r, NULL, 0, NULL, TEST_BOUND), status_of(m));
    for (int i = 0; i < ITEMS; i++) {
        assert_err(status[i], i == MIDDLE ? status_of(m) : MPROC_OK);
        assert_true(status[i] != MPROC_OK || out[i] == i * i);
        assert_int_equal(begun[i], 1);
        assert_int_equal(telling.told[i], tell);
    }
    if (status_of(m) != MPROC_OK) {
        assert_int_equal(mproc_result_outcome(r)->index, MIDDLE);
        expect_told(m, mproc_result_outcome(r));
    }
    mproc_result_free(r);
    mproc_free((void *)begun);
    expect_works(p);
}

static void only_its_own_item_is_affected(void **state)
{
    (void)state;
    if (setjmp(out_of_here) != 0) {
        exit(JUMPED); /* a worker, run away */
    }
    mproc_pool *p = pool_of(2);
    for (int i = 0; i < MISDEEDS; i++) {
        const struct misdeed *m = &misdeeds[i];
        if (m->as_root && getuid() != 0) {
            continue;
        }
        print_message("%s\n", m->name);
        do_it_alone(p, m);
        do_it_among_others(p, m, true);
        if (!m->endless) { /* that would take its time once more */
            do_it_among_others(p, m, false);
        }
    }
    end_of(p);
    await_nobody();
}

/* The worker is not replaced for what it survives. */
static void what_does_no_harm_keeps_the_worker(void **state)
{
    (void)state;
    mproc_pool *p = pool_of(1);
    pid_t before, after;
    mproc_pool_worker_pids(p, &before, 1);
    for (int i = 0; i < MISDEEDS; i++) {
        const struct misdeed *m = &misdeeds[i];
        if (status_of(m) == MPROC_OK && !m->as_root) {
            do_it_alone(p, m);
        }
    }
    mproc_pool_worker_pids(p, &after, 1);
    assert_int_equal(before, after);
    end_of(p);
    await_nobody();
}

/*
 * Forks of workers that are gone return, and say replies, while others run: for
 * nobody.
 */
static int leaves_who_returns(const void *arg, size_t size, mproc_reply *reply)
{
    static const char large[500];
    int number = *(const int *)arg; /* which goes with the worker */
    (void)size;
    if (fork() > 0) {
        _exit(13);
    }
    usleep(500 + (useconds_t)number * 10);
    int err = mproc_reply_set(reply, large, number % 2 ? 4 : sizeof large);
    return err != 0 ? mproc_reply_fail(reply, 3, "%d", err) : 0;
}

static void who_outlives_the_worker_is_none(void **state)
{
    (void)state;
    enum { ROUNDS = 100 };
    mproc_pool *p = pool_of(2);
    mproc_result *r[ROUNDS];
    mproc_pool_info info;
    for (int i = 0; i < ROUNDS; i++) {
        r[i] = sent(p, (mproc_call){.fn = leaves_who_returns, MPROC_ARG(i)});
    }
    for (int i = 0; i < ROUNDS; i++) {
        assert_err(mproc_result_get(r[i], NULL, 0, NULL, TEST_BOUND),
                   MPROC_EWORKERLOST);
        assert_int_equal(mproc_result_outcome(r[i])->code, 13);
        mproc_result_free(r[i]);
    }
    expect_works(p);
    assert_ok(mproc_pool_stats(p, &info));
    assert_int_equal(info.lost, ROUNDS);
    end_of(p);
    await_nobody();
}

/* Its child says nothing in its place. */
static int has_a_child_reply(const void *arg, size_t size, mproc_reply *reply)
{
    int status = 0;
    pid_t child = fork();
    (void)size;
    if (child == 0) {
        bool refused = mproc_reply_reserve(reply, 4) == NULL &&
                       mproc_reply_set(reply, "bad", 4) == MPROC_EINVAL;
        _exit(refused ? 17 : 1);
    }
    waitpid(child, &status, 0);
    mproc_reply_set(reply, arg, sizeof(int));
    return WIFEXITED(status) && WEXITSTATUS(status) == 17 ? 0 : 1;
}

static void a_fork_has_no_reply(void **state)
{
    (void)state;
    for (int threads = 0; threads < 2; threads++) {
        mproc_pool *p = pool_with((mproc_pool_opts){
            .workers = 1,
            .start = threads ? MPROC_START_THREAD : MPROC_START_FORK});
        int n = 5, out;
        mproc_call call = {.fn = has_a_child_reply, MPROC_ARG(n)};
        assert_ok(mproc_pool_apply(p, &call, &out, sizeof out, TEST_BOUND));
        assert_int_equal(out, 5);
        end_of(p);
    }
    await_nobody();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(only_its_own_item_is_affected),
        CLEAN(what_does_no_harm_keeps_the_worker),
        CLEAN(who_outlives_the_worker_is_none),
        CLEAN(a_fork_has_no_reply),
    };
    return cmocka_run_group_tests_name("pool_misdeeds", tests, adopt_orphans,
                                       NULL);
}
