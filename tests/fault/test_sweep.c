/* SPDX-License-Identifier: MIT */
/*
 * The harness tested on toys: it must pass the good ones and must find every
 * bug that was put into the bad ones.
 *
 * cc -std=c11 -D_GNU_SOURCE -O2 -pthread -static -o test_sweep test_sweep.c
 *    sweep.c trace.c trace_symbol.c
 */
#include "sweep.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAYLOAD = 100 * 1024 };

struct toy {
    pthread_mutex_t lock;
    _Atomic uint32_t a, b; /* must agree */
    _Atomic uint32_t owner, holders;
    _Atomic uint32_t published;
    uint8_t payload[PAYLOAD];
};

static struct toy *toy;
static uint8_t source[PAYLOAD];
static _Atomic size_t *seen; /* what checks of all rounds have seen */

static void *fresh_toy(void)
{
    pthread_mutexattr_t attr;
    memset(toy, 0, sizeof *toy);
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&toy->lock, &attr);
    return toy;
}

static size_t toy_ranges(void *ctx, struct sweep_range *range)
{
    range[0] = (struct sweep_range){ctx, sizeof(struct toy)};
    return 1;
}

static void futex(_Atomic uint32_t *word, int op, uint32_t value)
{
    syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

/* --- a robust mutex around two words, and its repair --- */

static int take(struct toy *t, long wait_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += wait_ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return pthread_mutex_timedlock(&t->lock, &until);
}

static void repair(struct toy *t)
{
    atomic_store(&t->b, atomic_load(&t->a));
    pthread_mutex_consistent(&t->lock);
}

static int add_to_both(void *ctx)
{
    struct toy *t = ctx;
    if (pthread_mutex_lock(&t->lock) == EOWNERDEAD) {
        repair(t);
    }
    atomic_fetch_add(&t->a, 1);
    atomic_fetch_add(&t->b, 1);
    return pthread_mutex_unlock(&t->lock);
}

static int add_or_time_out(void *ctx)
{
    int err = take(ctx, 20);
    if (err != 0) {
        return err == ETIMEDOUT ? SWEEP_WOULD_BLOCK : 1;
    }
    struct toy *t = ctx;
    int status = atomic_load(&t->a) == atomic_load(&t->b) ? 0 : 2;
    pthread_mutex_unlock(&t->lock);
    return status;
}

static const char *both_agree(void *ctx, const struct sweep_point *at)
{
    struct toy *t = ctx;
    int err = take(t, 1000);
    if (err == EOWNERDEAD) {
        repair(t);
    } else if (err != 0) {
        return "the lock is lost";
    }
    if (at->finished && at->second_step == 0 && atomic_load(&t->a) != 1) {
        return "it returned and did nothing";
    }
    bool agree = atomic_load(&t->a) == atomic_load(&t->b);
    pthread_mutex_unlock(&t->lock);
    return agree ? NULL : "the words differ";
}

static const struct sweep_case locked = {
    .name = "lock, add, unlock",
    .setup = fresh_toy,
    .operation = add_to_both,
    .bystander = add_or_time_out,
    .second = add_to_both,
    .check = both_agree,
    .shared = toy_ranges,
};

/* Seeded: the recovery adds, so it must not be interrupted and done again. */
static int repair_badly(void *ctx)
{
    struct toy *t = ctx;
    if (pthread_mutex_lock(&t->lock) == EOWNERDEAD) {
        uint32_t lacking = atomic_load(&t->a) - atomic_load(&t->b);
        atomic_fetch_add(&t->b, lacking);
        atomic_store(&t->owner, 1); /* repaired: nobody need look again */
    }
    return 0;
}

static int add_to_a(void *ctx)
{
    struct toy *t = ctx;
    pthread_mutex_lock(&t->lock);
    atomic_fetch_add(&t->a, 1);
    atomic_fetch_add(&t->b, 1);
    return 0;
}

static const char *repaired_once(void *ctx, const struct sweep_point *at)
{
    (void)at;
    struct toy *t = ctx;
    bool lacks = atomic_load(&t->a) != atomic_load(&t->b);
    return lacks && take(t, 1000) == EOWNERDEAD && atomic_load(&t->owner)
               ? "marked as repaired and is not"
               : NULL;
}

/* Marks first, repairs then: only a death in the recovery shows it. */
static int mark_and_repair(void *ctx)
{
    struct toy *t = ctx;
    if (pthread_mutex_lock(&t->lock) == EOWNERDEAD) {
        atomic_store(&t->owner, 1);
        atomic_store(&t->b, atomic_load(&t->a));
    }
    return 0;
}

static const struct sweep_case recovery = {
    .name = "recovery killed",
    .setup = fresh_toy,
    .operation = add_to_a,
    .second = repair_badly,
    .check = repaired_once,
    .shared = toy_ranges,
};

/* --- seeded: two words without lock or redo --- */

static int add_unlocked(void *ctx)
{
    struct toy *t = ctx;
    atomic_fetch_add(&t->a, 1);
    atomic_fetch_add(&t->b, 1);
    return 0;
}

static const struct sweep_case unlocked = {
    .name = "two words, no lock",
    .setup = fresh_toy,
    .operation = add_unlocked,
    .check = both_agree,
    .shared = toy_ranges,
};

/* --- seeded: check, then act --- */

static void claim(struct toy *t, uint32_t me)
{
    if (atomic_load(&t->owner) == 0) {
        atomic_store(&t->owner, me);
        atomic_fetch_add(&t->holders, 1);
    }
}

static int claim_as_1(void *ctx)
{
    claim(ctx, 1);
    return 0;
}

static int claim_as_2(void *ctx)
{
    claim(ctx, 2);
    return 0;
}

static int claim_by_swap(void *ctx)
{
    struct toy *t = ctx;
    uint32_t nobody = 0;
    if (atomic_compare_exchange_strong(&t->owner, &nobody, 1)) {
        atomic_fetch_add(&t->holders, 1);
    }
    return 0;
}

static const char *one_holder(void *ctx, const struct sweep_point *at)
{
    struct toy *t = ctx;
    (void)at;
    return atomic_load(&t->holders) > 1 ? "two hold it" : NULL;
}

static const struct sweep_case check_then_act = {
    .name = "check, then act",
    .setup = fresh_toy,
    .operation = claim_as_1,
    .bystander = claim_as_2,
    .check = one_holder,
    .shared = toy_ranges,
};

static const struct sweep_case compare_and_swap = {
    .name = "compare and swap",
    .setup = fresh_toy,
    .operation = claim_by_swap,
    .bystander = claim_by_swap,
    .check = one_holder,
    .shared = toy_ranges,
};

/* --- seeded: publish, then wake, and nobody else wakes --- */

static int publish_and_wake(void *ctx)
{
    struct toy *t = ctx;
    atomic_store(&t->published, 1);
    futex(&t->published, FUTEX_WAKE, 1);
    return 0;
}

static int sleep_until_published(void *ctx)
{
    struct toy *t = ctx;
    while (atomic_load(&t->published) == 0) {
        futex(&t->published, FUTEX_WAIT, 0);
    }
    return 0;
}

static const char *nothing_wrong(void *ctx, const struct sweep_point *at)
{
    (void)ctx, (void)at;
    return NULL;
}

static const char *publish_again(void *ctx)
{
    return publish_and_wake(ctx) == 0 ? NULL : "?";
}

static const struct sweep_case lost_wake = {
    .name = "lost wake",
    .setup = fresh_toy,
    .operation = publish_and_wake,
    .sleeper = sleep_until_published,
    .check = nothing_wrong,
    .shared = toy_ranges,
    .limit_ms = 300,
};

static const struct sweep_case wake_again = {
    .name = "a reaper wakes",
    .setup = fresh_toy,
    .operation = publish_and_wake,
    .sleeper = sleep_until_published,
    .follow_up = publish_again,
    .check = nothing_wrong,
    .shared = toy_ranges,
    .keep_zombie = true,
};

/* --- long copies --- */

static int copy_and_publish(void *ctx)
{
    struct toy *t = ctx;
    memcpy(t->payload, source, PAYLOAD);
    atomic_store(&t->published, 1);
    return 0;
}

static int publish_and_copy(void *ctx)
{
    struct toy *t = ctx;
    atomic_store(&t->published, 1);
    memcpy(t->payload, source, PAYLOAD);
    return 0;
}

static const char *whole_if_published(void *ctx, const struct sweep_point *at)
{
    struct toy *t = ctx;
    if (at->finished && atomic_load(&t->published) == 0) {
        return "it returned and did not publish";
    }
    return atomic_load(&t->published) &&
                   memcmp(t->payload, source, PAYLOAD) != 0
               ? "half a message is published"
               : NULL;
}

static const struct sweep_case long_copy = {
    .name = "copy, publish",
    .setup = fresh_toy,
    .operation = copy_and_publish,
    .check = whole_if_published,
    .shared = toy_ranges,
};

static const struct sweep_case early_publish = {
    .name = "publish, copy",
    .setup = fresh_toy,
    .operation = publish_and_copy,
    .check = whole_if_published,
    .shared = toy_ranges,
};

#if defined(__x86_64__)
static int copy_by_rep(void *ctx)
{
    struct toy *t = ctx;
    void *to = t->payload;
    const void *from = source;
    size_t size = PAYLOAD;
    __asm__ volatile("rep movsb"
                     : "+D"(to), "+S"(from), "+c"(size)
                     :
                     : "memory");
    return 0;
}

/* Inside of the copy one step is one byte, to the byte. */
static const char *bytes_follow_steps(void *ctx, const struct sweep_point *at)
{
    struct toy *t = ctx;
    size_t bytes = 0, none = 0;
    while (bytes < PAYLOAD && t->payload[bytes] != 0) {
        bytes++;
    }
    if (bytes == 0 || bytes == PAYLOAD) {
        return NULL;
    }
    atomic_compare_exchange_strong(seen, &none, at->step - bytes);
    return at->step - bytes == atomic_load(seen) ? NULL : "wrong count";
}

static const struct sweep_case rep_copy = {
    .name = "rep movsb",
    .setup = fresh_toy,
    .operation = copy_by_rep,
    .check = bytes_follow_steps,
    .shared = toy_ranges,
};
#endif

/* --- the ends an operation may come to --- */

static int sleep_for_ever(void *ctx)
{
    struct toy *t = ctx;
    atomic_fetch_add(&t->a, 1);
    return sleep_until_published(ctx);
}

static const char *note_asleep(void *ctx, const struct sweep_point *at)
{
    (void)ctx;
    atomic_fetch_add(seen, at->asleep);
    return at->finished ? "it returned" : NULL;
}

static const struct sweep_case falls_asleep = {
    .name = "falls asleep",
    .setup = fresh_toy,
    .operation = sleep_for_ever,
    .check = note_asleep,
    .shared = toy_ranges,
};

static int crash(void *ctx)
{
    (void)ctx;
    raise(SIGSEGV);
    return 0;
}

static const struct sweep_case crashes = {
    .name = "crashes by itself",
    .setup = fresh_toy,
    .operation = crash,
    .check = nothing_wrong,
    .shared = toy_ranges,
};

static const char *abort_in_check(void *ctx, const struct sweep_point *at)
{
    (void)ctx, (void)at;
    abort();
}

static const struct sweep_case bad_check = {
    .name = "check aborts",
    .setup = fresh_toy,
    .operation = add_unlocked,
    .check = abort_in_check,
    .shared = toy_ranges,
};

/* --- the expectations --- */

static unsigned failures;

static void expect(bool ok, const char *what, const struct sweep_case *c,
                   const struct sweep_result *r)
{
    printf("%s: %s: %s; %zu points, %zu steps, %zu changes, %zu wrong, "
           "%zu early, %zu strayed, %.2f s",
           ok ? "ok" : "FAILED", c->name, what, r->points, r->steps, r->changes,
           r->wrong, r->early, r->strayed, r->seconds);
    printf(r->wrong > 0 ? "\n    %s\n" : "\n", r->first);
    failures += !ok;
}

typedef struct sweep_result sweep_function(const struct sweep_case *,
                                           const struct sweep_options *);

static void passes(sweep_function *sweep, const struct sweep_case *c, bool all)
{
    struct sweep_options o = {.quiet = true, .all = all};
    struct sweep_result r = sweep(c, &o);
    expect(r.wrong == 0 && r.points >= 3 && r.strayed == 0 && r.early == 0,
           all ? "passes at all steps" : "passes", c, &r);
}

static void finds(sweep_function *sweep, const struct sweep_case *c,
                  const char *bug)
{
    struct sweep_options o = {.quiet = true};
    struct sweep_result r = sweep(c, &o);
    expect(r.wrong > 0 && strstr(r.first, bug) != NULL, bug, c, &r);
}

static void good_toys_pass(void)
{
    passes(sweep_kill, &locked, false);
    passes(sweep_kill, &locked, true);
    passes(sweep_pause, &locked, false);
    passes(sweep_two, &locked, false);
    passes(sweep_kill, &check_then_act, true); /* no kill shows that bug */
    passes(sweep_kill, &compare_and_swap, true);
    passes(sweep_pause, &compare_and_swap, true);
    passes(sweep_kill, &wake_again, true);
    passes(sweep_kill, &recovery, false); /* no single death shows it */
    passes(sweep_kill, &long_copy, false);
    passes(sweep_kill, &long_copy, true);
}

static void seeded_bugs_are_found(void)
{
    struct sweep_case marks_first = recovery;
    marks_first.name = "marks, then repairs";
    marks_first.second = mark_and_repair;
    passes(sweep_two, &recovery, false);
    finds(sweep_two, &marks_first, "marked as repaired");
    finds(sweep_kill, &unlocked, "the words differ");
    finds(sweep_pause, &check_then_act, "two hold it");
    finds(sweep_kill, &lost_wake, "sleeper hung");
    finds(sweep_kill, &early_publish, "half a message");
    finds(sweep_kill, &crashes, "under observation");
    finds(sweep_kill, &bad_check, "the round died in: check");
}

static void ends_are_told_apart(void)
{
    struct sweep_options o = {.quiet = true};
    atomic_store(seen, 0);
    struct sweep_result r = sweep_kill(&falls_asleep, &o);
    expect(r.wrong == 0 && atomic_load(seen) == 1, "its last point",
           &falls_asleep, &r);
#if defined(__x86_64__)
    atomic_store(seen, 0);
    r = sweep_kill(&rep_copy, &o);
    expect(r.wrong == 0 && atomic_load(seen) > 0 && r.points > 100,
           "stops at each byte it should", &rep_copy, &r);
#endif
}

int main(void)
{
    if (!sweep_supported()) {
        printf("skipped: no single steps here\n");
        return SWEEP_SKIPPED;
    }
    setvbuf(stdout, NULL, _IONBF, 0);
    void *memory =
        mmap(NULL, sizeof *toy + sizeof *seen, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return 1;
    }
    toy = memory;
    seen = (void *)((char *)memory + sizeof *toy);
    memset(source, 'x', sizeof source);
    good_toys_pass();
    seeded_bugs_are_found();
    ends_are_told_apart();
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD) {
        printf("FAILED: a child is left\n");
        failures++;
    }
    return failures > 0;
}
