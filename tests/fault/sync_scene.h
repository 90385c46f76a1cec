/* SPDX-License-Identifier: MIT */
/*
 * What the sweeps of sync/ share. Whoever sleeps sleeps without a deadline, and
 * nobody but those who sleep looks for the dead. First among them, and so the
 * one whom the kernel wakes, is one who sleeps for something else.
 */
#ifndef FAULT_SYNC_SCENE_H
#define FAULT_SYNC_SCENE_H

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <mproc/barrier.h>
#include <mproc/condition.h>
#include <mproc/event.h>
#include <mproc/lock.h>
#include <mproc/shared.h>

#include "shm/sleep.h"
#include "sweep.h"

enum who { ROUND, VICTIM, SLEEPER, OTHER, BYSTANDER, NOTIFIER, WHO_COUNT };
enum { NOTHING_YET = 1000 }; /* no outcome of a call */

/*
 * The bound of whatever a round waits for, with all its steps. Fixed when the
 * round begins: the clock, read inside a swept operation, would now and then
 * take other steps.
 */
static mproc_deadline round_end;
#define SOON round_end
#define HARDLY mproc_in_ms(20)

/* One who takes part; in memory that all share. */
struct part {
    _Atomic pid_t pid;
    _Atomic mpr_id id;
    _Atomic bool calling; /* the next sleep is the library's */
    _Atomic bool done;
    _Atomic int outcome;
};

struct scene {
    struct part part[WHO_COUNT];
    _Atomic uint32_t go;     /* sleepers begin */
    _Atomic uint32_t inside; /* who holds it, by its own account */
    _Atomic uint32_t overlaps;
    bool watched;        /* somebody sleeps beside */
    _Atomic bool strays; /* a claim reads the clock: steps are not the same */
    _Atomic bool paused; /* nobody is killed in this round */
    mproc_lock *lock;
    mproc_rlock *rlock;
    mproc_semaphore *semaphore;
    mproc_event *event;
    mproc_event *aside; /* what the one beside sleeps for */
    mproc_condition *condition;
    mproc_barrier *barrier;
    mproc_heap_info before;
};

/*
 * Over the rounds of one sweep: what the victim did is done from some step on,
 * and undone before, never the other way round.
 */
struct border {
    _Atomic size_t last;
    _Atomic size_t first_done;
};

static struct scene *scene;
static struct border *border;

static inline void *shared_memory(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static inline void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static inline bool past(mproc_deadline until)
{
    return mproc_in_ms(0).at_ns >= until.at_ns;
}

/* ---- those who take part ---------------------------------------------- */

static inline void appear(enum who who)
{
    struct mpr_thread *self;
    if (mpr_self(&self) == 0) {
        atomic_store(&scene->part[who].id, mpr_self_id());
    }
    atomic_store(&scene->part[who].pid, getpid());
}

/* In state S in a futex call. */
static inline bool in_futex(pid_t pid)
{
    char path[64], text[64];
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[size > 0 ? size : 0] = 0;
    long number = strtol(text, NULL, 10);
    return size > 0 && (number == SYS_futex || number == 449);
}

static inline bool asleep(enum who who)
{
    const struct part *p = &scene->part[who];
    return atomic_load(&p->calling) && !atomic_load(&p->done) &&
           in_futex(atomic_load(&p->pid));
}

/* Stays asleep for a while: it is not just looking at what woke it. */
static inline bool rests(enum who who)
{
    for (int i = 0; i < 15; i++) {
        if (!asleep(who)) {
            return false;
        }
        nap();
    }
    return true;
}

/* False: it returned instead. */
static inline bool comes_to_rest(enum who who)
{
    mproc_deadline until = SOON;
    while (!atomic_load(&scene->part[who].done) && !past(until)) {
        if (rests(who)) {
            return true;
        }
        nap();
    }
    return false;
}

/* The other one goes first, in all rounds. */
static inline uint32_t turn_of(enum who who)
{
    return who == OTHER ? 1 : 2;
}

static inline void await_go(enum who who)
{
    appear(who);
    for (uint32_t go; (go = atomic_load(&scene->go)) < turn_of(who);) {
        mpr_os_wait(&scene->go, go, MPROC_FOREVER);
    }
    atomic_store(&scene->part[who].calling, true);
}

static inline bool let_go(enum who who)
{
    if (scene->watched && !comes_to_rest(OTHER)) {
        return false;
    }
    atomic_store(&scene->go, turn_of(who));
    mpr_os_wake(&scene->go, INT_MAX);
    return comes_to_rest(who);
}

static inline void let_sleeper_sleep(void *ctx)
{
    (void)ctx;
    appear(VICTIM);
    if (!let_go(SLEEPER)) {
        abort();
    }
}

static inline int finish(enum who who, int outcome)
{
    atomic_store(&scene->part[who].outcome, outcome);
    atomic_store(&scene->part[who].done, true);
    return outcome < 0;
}

static inline int outcome_of(enum who who)
{
    return atomic_load(&scene->part[who].outcome);
}

/* Who is told of a death finds the dead one inside. */
static inline void enter(enum who who, int outcome)
{
    uint32_t before = atomic_exchange(&scene->inside, (uint32_t)who);
    if (before != ROUND && outcome != MPROC_RECOVERED) {
        atomic_fetch_add(&scene->overlaps, 1);
    }
}

static inline void leave(void)
{
    atomic_store(&scene->inside, ROUND);
}

static inline pid_t start(int (*fn)(void *), void *arg)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(fn(arg));
    }
    return pid;
}

static inline bool await_end(pid_t pid)
{
    int status = -1;
    for (mproc_deadline until = SOON; !past(until); nap()) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return WIFEXITED(status) && WEXITSTATUS(status) == 0;
        }
    }
    return false;
}

static inline bool await_done(enum who who)
{
    mproc_deadline until = SOON;
    while (!atomic_load(&scene->part[who].done) && !past(until)) {
        nap();
    }
    return atomic_load(&scene->part[who].done);
}

/* ---- before and after ------------------------------------------------- */

static inline struct scene *new_scene(void)
{
    const mproc_config config = {.heap_max = 8 << 20, .processes_max = 64};
    mpr_test_deep_sleep = true;
    round_end = mproc_in_s(60);
    scene = shared_memory(sizeof *scene);
    if (scene == NULL || mproc_configure(&config) < 0) {
        return NULL;
    }
    for (int who = 0; who < WHO_COUNT; who++) {
        atomic_store(&scene->part[who].outcome, NOTHING_YET);
    }
    appear(ROUND);
    return mproc_event_new(&scene->aside) < 0 ? NULL : scene;
}

static inline int sleep_aside(void *ctx)
{
    struct scene *s = ctx;
    appear(OTHER);
    atomic_store(&s->part[OTHER].calling, true);
    return finish(OTHER, mproc_event_wait(s->aside, MPROC_FOREVER));
}

/* To a scene made: one who sleeps beside. */
static inline void *with_one_beside(struct scene *s)
{
    if (s == NULL) {
        return NULL;
    }
    s->watched = true;
    return start(sleep_aside, s) > 0 && comes_to_rest(OTHER) ? s : NULL;
}

/* The tables of the family, and what it holds now: all small. */
static inline size_t ranges(void *ctx, struct sweep_range *range)
{
    (void)ctx;
    range[0] = (struct sweep_range){mpr_family, mpr_family->size};
    return 1;
}

/* No record, slot, block or byte that was not there before. */
static inline const char *nothing_left(struct scene *s)
{
    mproc_heap_info now;
    struct mpr_thread *self;
    if (s->watched && (mproc_event_set(s->aside) < 0 || !await_done(OTHER))) {
        return "the one beside was not woken";
    }
    if (mpr_self(&self) < 0 || mproc_heap_stats(&now) < 0) {
        return "no record, or no statistics";
    }
    for (mproc_deadline until = SOON; !past(until); nap()) {
        struct mpr_census census = mpr_slots_reap(self);
        if (census.living == 0 && !census.dying) {
            break;
        }
    }
    for (uint32_t i = 1; i < atomic_load(&mpr_family->threads_top); i++) {
        struct mpr_thread *thread = &mpr_family->threads[i];
        if (thread != self && atomic_load(&thread->owner) != 0) {
            return "a thread record is left";
        }
    }
    if (mproc_heap_stats(&now) < 0 || now.in_use != s->before.in_use ||
        now.blocks != s->before.blocks) {
        return "heap blocks are left";
    }
    return s->paused && atomic_load(&s->overlaps) > 0 ? "two held it at once"
                                                      : NULL;
}

/* `done`, at this step, fits what was found at other steps. */
static inline const char *on_its_side(const struct sweep_point *at, bool done)
{
    if (scene->paused) {
        return NULL;
    }
    if (at->step < atomic_load(&border->last) ||
        atomic_load(&border->last) == 0) {
        atomic_store(&border->first_done, SIZE_MAX);
    }
    atomic_store(&border->last, at->step);
    if (done && at->step < atomic_load(&border->first_done)) {
        atomic_store(&border->first_done, at->step);
    }
    if (!done && at->step > atomic_load(&border->first_done) &&
        !scene->strays) {
        return "undone at a later step than done";
    }
    return at->finished && !done ? "it returned, and is not done" : NULL;
}

static inline void victim_appears(void *ctx)
{
    (void)ctx;
    appear(VICTIM);
}

/* What a bystander that could not wait for long returns. */
static inline int end_beside(int err)
{
    if (err == MPROC_ETIMEDOUT) {
        return SWEEP_WOULD_BLOCK;
    }
    return finish(BYSTANDER, err);
}

static inline void be_new(void *ctx)
{
    (void)ctx;
    atomic_store(&scene->strays, true);
    if (!let_go(SLEEPER)) {
        abort();
    }
}

static inline void *claim_and_stay(void *unused)
{
    (void)unused;
    appear(VICTIM);
    for (;;) {
        pause();
    }
    return NULL;
}

/*
 * The victim's thread has no record, but its process lives for the family; it
 * blocks a signal as a handler does, and so claims none.
 */
static inline void be_new_thread(void *ctx)
{
    pthread_t thread;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    if (pthread_create(&thread, NULL, claim_and_stay, NULL) != 0) {
        abort();
    }
    while (atomic_load(&scene->part[VICTIM].pid) == 0) {
        nap();
    }
    be_new(ctx);
    atomic_store(&scene->strays, false);
}

static inline int reap_all(void *ctx)
{
    struct mpr_thread *self;
    (void)ctx;
    return finish(VICTIM, mpr_self(&self) < 0                ? -1
                          : mpr_slots_reap(self).reaped == 1 ? 0
                                                             : -1);
}

#define COMMON .shared = ranges, .limit_ms = 3000

static inline int play(int argc, char **argv, const struct sweep_case *cases,
                       size_t count)
{
    border = shared_memory(sizeof *border);
    return border == NULL ? 1 : sweep_main(argc, argv, cases, count);
}

#endif
