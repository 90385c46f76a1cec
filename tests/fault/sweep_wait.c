/* SPDX-License-Identifier: MIT */
/*
 * One who waits for many things, and another who makes one of them ready and is
 * killed, or stopped for a while, after any instruction; or he who waits is.
 *
 * Sleepers have no timed look and nobody else looks for the dead. First among
 * them, and so the one whom the kernel wakes, is one who sleeps for something
 * else. What a killed one has done must wake the sleeper; what he has not done
 * is done by the round. While one is stopped, what others do must wake the
 * sleeper; these others are there before, since a birth wakes all.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <mproc/shared.h>
#include <mproc/wait.h>

#include "shm/family.h"
#include "shm/object.h"
#include "shm/sleep.h"
#include "sweep.h"

enum { QUEUES = 3, EVENT = QUEUES, PIPE, THINGS, NOTHING_YET = 1000 };
enum { VICTIMS = 1, BYSTANDERS = 2 }; /* which of the queues they put to */
enum { ASIDE_SLEEPS = 1, SLEEPER_SLEEPS };

struct journal {
    mproc_queue *queue[QUEUES];
    mproc_event *event;
    mproc_connection *a, *b;
    mproc_waitable set[THINGS];
    mproc_heap_info before;
    mproc_event *aside; /* what the one aside sleeps for */
    _Atomic pid_t aside_pid, sleeper_pid;
    _Atomic uint32_t go;
    _Atomic uint32_t prepared;
    int (*_Atomic deed)(struct journal *); /* of the helper */
    _Atomic uint32_t asked, answered;      /* his answer + 1 */
    pid_t round;
    int forks_left;               /* of the round, then it closes b */
    _Atomic uint32_t begun, done; /* puts, of all */
    _Atomic uint32_t taken;       /* of these messages */
    _Atomic int outcome;          /* of the sleeper */
    _Atomic uint32_t sleeper_done;
};

static struct journal *journal;

/*
 * Fixed when the round begins: the clock, read inside a swept operation, would
 * now and then take other steps.
 */
static mproc_deadline round_end;
#define SOON round_end

/* ---- falling asleep in order ------------------------------------------ */

static void reach(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store(word, value);
    mpr_os_wake(word, INT_MAX);
}

/* Until the word is at least `value`. */
static void await(_Atomic uint32_t *word, uint32_t value)
{
    for (uint32_t seen; (seen = atomic_load(word)) < value;) {
        mpr_os_wait(word, seen, MPROC_FOREVER);
    }
}

/* In a sleep of the library's: nothing else sleeps on several words. */
static bool is_asleep(pid_t pid)
{
    enum { FUTEX_WAITV = 449 };
    char path[64], text[64];
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[size > 0 ? size : 0] = 0;
    return size > 0 && strtol(text, NULL, 10) == FUTEX_WAITV;
}

/* It stays asleep for a while: it is not just looking at what woke it. */
static void await_rest(const _Atomic pid_t *pid)
{
    for (int rested = 0; rested < 15; usleep(200)) {
        pid_t it = atomic_load(pid);
        rested = it != 0 && is_asleep(it) ? rested + 1 : 0;
        if (mproc_in_ms(0).at_ns >= round_end.at_ns) {
            abort();
        }
    }
}

static void be_born(void)
{
    struct mpr_thread *self;
    if (mpr_self(&self) < 0) {
        _exit(1);
    }
}

static pid_t start(int (*fn)(struct journal *), struct journal *j)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(fn(j));
    }
    return pid;
}

static int sleep_aside(struct journal *j)
{
    be_born();
    await(&j->go, ASIDE_SLEEPS);
    atomic_store(&j->aside_pid, getpid());
    return mproc_event_wait(j->aside, MPROC_FOREVER) == MPROC_EINVAL ? 0 : 1;
}

static int help(struct journal *j)
{
    be_born();
    await(&j->asked, 1);
    int (*deed)(struct journal *) = atomic_load(&j->deed);
    reach(&j->answered, (uint32_t)deed(j) + 1);
    return 0;
}

/* ---- setting up ------------------------------------------------------- */

static struct journal *new_journal(void)
{
    const mproc_config config = {.heap_max = 32 << 20, .processes_max = 64};
    struct mpr_thread *self;
    mpr_test_deep_sleep = true;
    mpr_test_patience_ns = 20 * 1000000;
    round_end = mproc_in_s(60);
    struct journal *j = mmap(NULL, sizeof *j, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (j == MAP_FAILED || mproc_configure(&config) < 0 ||
        mpr_self(&self) < 0 || mproc_heap_stats(&j->before) < 0) {
        return NULL;
    }
    j->outcome = NOTHING_YET;
    journal = j;
    return j;
}

static void *things(void)
{
    struct journal *j = new_journal();
    for (int i = 0; j != NULL && i < QUEUES; i++) {
        if (mproc_queue_new(&j->queue[i], NULL) < 0) {
            return NULL;
        }
        j->set[i] = mproc_waitable_queue(j->queue[i]);
    }
    if (j == NULL || mproc_event_new(&j->event) < 0) {
        return NULL;
    }
    j->set[EVENT] = mproc_waitable_event(j->event);
    bool there = mproc_event_new(&j->aside) == 0 && start(sleep_aside, j) > 0 &&
                 start(help, j) > 0;
    return there ? j : NULL;
}

/* The victim has inherited b by now; the sleeper closes it itself. */
static void after_fork_of_round(void)
{
    if (getpid() == journal->round && --journal->forks_left == 0) {
        mproc_connection_close(journal->b);
    }
}

/* And a pipe whose other end the victim alone holds. */
static void *things_and_a_pipe(void)
{
    struct journal *j = things();
    if (j == NULL || mproc_pipe_new(&j->a, &j->b, NULL) < 0 ||
        pthread_atfork(NULL, after_fork_of_round, NULL) != 0) {
        return NULL;
    }
    j->set[PIPE] = mproc_waitable_connection(j->a);
    j->round = getpid();
    j->forks_left = 2;
    return j;
}

static size_t region(void *ctx, struct sweep_range *range)
{
    (void)ctx;
    range[0] = (struct sweep_range){mpr_family, mpr_family->size};
    return 1;
}

static void be_ready(void *ctx)
{
    struct journal *j = ctx;
    be_born();
    if (atomic_fetch_add(&j->prepared, 1) == 0) {
        reach(&j->go, ASIDE_SLEEPS);
        await_rest(&j->aside_pid);
        reach(&j->go, SLEEPER_SLEEPS);
        await_rest(&j->sleeper_pid);
    }
}

/* ---- what they do ----------------------------------------------------- */

static int put(struct journal *j, int which, mproc_deadline until)
{
    atomic_fetch_add(&j->begun, 1);
    int err = mproc_queue_put(j->queue[which], "x", 1, until);
    if (err == 0) {
        atomic_fetch_add(&j->done, 1);
    } else {
        atomic_fetch_sub(&j->begun, 1);
    }
    return err;
}

/* Of what mproc_wait has found: true if there is nothing to take, or it is. */
static bool take(struct journal *j, size_t which)
{
    char byte;
    if (which >= QUEUES) {
        return true;
    }
    int err = mproc_queue_get(j->queue[which], &byte, 1, NULL, MPROC_NOWAIT);
    atomic_fetch_add(&j->taken, err == 0);
    return err != MPROC_EEMPTY;
}

static int wait_and_take(struct journal *j, mproc_deadline until, size_t *found)
{
    int err;
    do {
        err = mproc_wait(j->set, THINGS, found, until);
    } while (err == 0 && !take(j, *found));
    return err;
}

static int asleep_in_wait(void *ctx)
{
    struct journal *j = ctx;
    size_t found = 0;
    be_born();
    if (j->b != NULL) {
        mproc_connection_close(j->b);
    }
    await(&j->go, SLEEPER_SLEEPS);
    atomic_store(&j->sleeper_pid, getpid());
    int err = wait_and_take(j, MPROC_FOREVER, &found);
    atomic_store(&j->outcome, err < 0 ? err : (int)found);
    atomic_store(&j->sleeper_done, 1);
    return 0;
}

static int put_one(void *ctx)
{
    return put(ctx, VICTIMS, SOON);
}

static int set_event(void *ctx)
{
    return mproc_event_set(((struct journal *)ctx)->event);
}

static int shut_down(void *ctx)
{
    return mproc_queue_shutdown(((struct journal *)ctx)->queue[VICTIMS], false);
}

static int free_queue(void *ctx)
{
    mproc_queue_free(((struct journal *)ctx)->queue[VICTIMS]);
    return 0;
}

static int close_end(void *ctx)
{
    return mproc_connection_close(((struct journal *)ctx)->b);
}

static int send_one(void *ctx)
{
    return mproc_connection_send(((struct journal *)ctx)->b, "x", 1, SOON);
}

static int wait_and_take_one(void *ctx)
{
    size_t found;
    return wait_and_take(ctx, MPROC_FOREVER, &found);
}

static int wait_at_once(void *ctx)
{
    size_t found;
    int err = wait_and_take(ctx, MPROC_NOWAIT, &found);
    return err == MPROC_ETIMEDOUT ? 0 : err;
}

/* ---- those beside ----------------------------------------------------- */

/* The sleeper has been woken, by the helper if not by the victim before. */
static int await_sleeper(const struct journal *j)
{
    mproc_deadline bound = mproc_in_s(8);
    while (!atomic_load(&j->sleeper_done)) {
        if (mproc_in_ms(0).at_ns >= bound.at_ns) {
            return 1;
        }
        usleep(100);
    }
    return 0;
}

/* By the helper, so that it is nobody's birth. */
static int have_done(struct journal *j, int (*deed)(struct journal *))
{
    atomic_store(&j->deed, deed);
    reach(&j->asked, 1);
    await(&j->answered, 1);
    int answer = (int)atomic_load(&j->answered) - 1;
    return answer == 0 ? await_sleeper(j) : answer;
}

static int put_to_another(struct journal *j)
{
    return put(j, BYSTANDERS, MPROC_NOWAIT) == 0 ? 0 : 1;
}

/* Whose guard the victim may be stopped in. */
static int put_to_the_same(struct journal *j)
{
    int err = put(j, VICTIMS, MPROC_NOWAIT);
    return err == MPROC_EFULL ? SWEEP_WOULD_BLOCK : err != 0;
}

static int set_the_same(struct journal *j)
{
    return mproc_event_set(j->event) == 0 ? 0 : 1;
}

static int put_beside(void *ctx)
{
    return have_done(ctx, put_to_another);
}

static int put_beside_to_the_same(void *ctx)
{
    return have_done(ctx, put_to_the_same);
}

static int set_beside(void *ctx)
{
    return have_done(ctx, set_the_same);
}

static int put_and_reap(void *ctx)
{
    int err = put(ctx, BYSTANDERS, MPROC_NOWAIT);
    mpr_slots_reap(mpr_self_.thread);
    return err;
}

/* ---- what was not done ------------------------------------------------ */

static bool is_over(const struct journal *j)
{
    return atomic_load(&j->sleeper_done) != 0;
}

static const char *put_if_empty(void *ctx)
{
    struct journal *j = ctx;
    bool empty = true;
    for (int i = 0; i < QUEUES; i++) {
        empty &= mproc_queue_empty(j->queue[i]);
    }
    return empty && !is_over(j) && put(j, 0, SOON) < 0 ? "the round cannot put"
                                                       : NULL;
}

static const char *set_if_clear(void *ctx)
{
    struct journal *j = ctx;
    if (!mproc_event_is_set(j->event) && !is_over(j)) {
        set_event(ctx);
    }
    return NULL;
}

/* The flag that a shutdown is, looked at from outside. */
static const char *shut_if_open(void *ctx)
{
    struct journal *j = ctx;
    size_t found;
    mproc_waitable only = j->set[VICTIMS];
    if (mproc_wait(&only, 1, &found, MPROC_NOWAIT) == MPROC_ETIMEDOUT) {
        shut_down(ctx);
    }
    return NULL;
}

static const char *free_if_live(void *ctx)
{
    struct journal *j = ctx;
    if (mpr_object_is(j->queue[VICTIMS], MPR_QUEUE)) {
        free_queue(ctx);
    }
    return NULL;
}

/* ---- what must hold --------------------------------------------------- */

static const char *settle_queues(struct journal *j)
{
    size_t rest = 0;
    for (int i = 0; i < QUEUES; i++) {
        size_t found;
        bool live = mpr_object_is(j->queue[i], MPR_QUEUE);
        rest += live ? mproc_queue_qsize(j->queue[i]) : 0;
        if (live && mproc_queue_put(j->queue[i], "x", 1, SOON) == 0 &&
            (mproc_wait(&j->set[i], 1, &found, SOON) < 0 || found != 0)) {
            return "a queue that has a message is not ready";
        }
        mproc_queue_free(j->queue[i]);
    }
    size_t all = rest + atomic_load(&j->taken);
    size_t hand = atomic_load(&j->begun) - atomic_load(&j->done);
    /* one who is killed may have put, or taken, and not noted it */
    return all + hand < atomic_load(&j->done) || all > atomic_load(&j->begun)
               ? "messages are lost or doubled"
               : NULL;
}

static const char *check_rest(struct journal *j)
{
    struct mpr_thread *self;
    mproc_heap_info after;
    const char *wrong = settle_queues(j);
    mproc_event_free(j->event);
    mproc_event_free(j->aside);
    if (j->a != NULL) {
        mproc_connection_close(j->a);
        mproc_connection_close(j->b);
    }
    if (mpr_self(&self) == 0) {
        mpr_slots_reap(self);
    }
    mproc_heap_stats(&after);
    if (wrong == NULL && after.in_use != j->before.in_use) {
        wrong = "memory is lost";
    }
    return wrong;
}

static const char *check(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    (void)at;
    return j->outcome < 0 || j->outcome >= THINGS ? "it did not wait well"
                                                  : check_rest(j);
}

static const char *check_freed(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    bool good = j->outcome == MPROC_EINVAL ||
                (at->would_block && j->outcome == BYSTANDERS) ||
                j->outcome == BYSTANDERS;
    return good ? check_rest(j) : "what was freed was not told";
}

/* A taker may be killed with a message that it has not counted. */
static const char *check_waiter(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    (void)at;
    size_t rest = 0;
    for (int i = 0; i < QUEUES; i++) {
        rest += mproc_queue_qsize(j->queue[i]);
    }
    size_t known = rest + atomic_load(&j->taken);
    if (known + 1 == atomic_load(&j->done)) {
        atomic_fetch_add(&j->taken, 1);
    }
    return check(ctx, at);
}

/* ---- cases ------------------------------------------------------------ */

static const struct sweep_case cases[] = {
    {
        .name = "put, one waits for many",
        .setup = things,
        .prepare = be_ready,
        .operation = put_one,
        .sleeper = asleep_in_wait,
        .bystander = put_beside,
        .second = put_and_reap,
        .follow_up = put_if_empty,
        .check = check,
        .shared = region,
    },
    {
        .name = "put, another puts to the same",
        .setup = things,
        .prepare = be_ready,
        .operation = put_one,
        .sleeper = asleep_in_wait,
        .bystander = put_beside_to_the_same,
        .check = check,
        .shared = region,
        .pause_only = true,
    },
    {
        .name = "set, one waits for many",
        .setup = things,
        .prepare = be_ready,
        .operation = set_event,
        .sleeper = asleep_in_wait,
        .bystander = set_beside,
        .second = put_and_reap,
        .follow_up = set_if_clear,
        .check = check,
        .shared = region,
    },
    {
        .name = "set, another puts",
        .setup = things,
        .prepare = be_ready,
        .operation = set_event,
        .sleeper = asleep_in_wait,
        .bystander = put_beside,
        .check = check,
        .shared = region,
        .pause_only = true,
    },
    {
        .name = "shutdown, one waits for many",
        .setup = things,
        .prepare = be_ready,
        .operation = shut_down,
        .sleeper = asleep_in_wait,
        .bystander = put_beside,
        .follow_up = shut_if_open,
        .check = check,
        .shared = region,
    },
    {
        .name = "free, one waits for many",
        .setup = things,
        .prepare = be_ready,
        .operation = free_queue,
        .sleeper = asleep_in_wait,
        .bystander = put_beside,
        .follow_up = free_if_live,
        .check = check_freed,
        .shared = region,
    },
    {
        .name = "close, one waits for many",
        .setup = things_and_a_pipe,
        .prepare = be_ready,
        .operation = close_end,
        .sleeper = asleep_in_wait,
        .bystander = put_beside,
        .check = check,
        .shared = region,
    },
    {
        .name = "send, one waits for many",
        .setup = things_and_a_pipe,
        .prepare = be_ready,
        .operation = send_one,
        .sleeper = asleep_in_wait,
        .bystander = put_beside,
        .check = check,
        .shared = region,
    },
    {
        .name = "wait, another waits too",
        .setup = things,
        .prepare = be_ready,
        .operation = wait_and_take_one,
        .sleeper = asleep_in_wait,
        .second = wait_at_once,
        .follow_up = put_if_empty,
        .check = check_waiter,
        .shared = region,
    },
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
