/* SPDX-License-Identifier: MIT */
/*
 * What the sweeps of queues share: a queue, the journal of those who use it
 * (queue_cast.h), and what must hold then (queue_check.h).
 *
 * All who take part write into a journal what they are about to put and take
 * and what came of it. In the end everything that was ever put must be there
 * exactly once and in order, but for what a killed one was just putting or had
 * in hand; the queue must work on, and the heap must be as before.
 */
#ifndef FAULT_QUEUE_SCENE_H
#define FAULT_QUEUE_SCENE_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mproc/queue.h>
#include <mproc/shared.h>

#include "chan/queue.h"
#include "shm/family.h"
#include "shm/sleep.h"
#include "sweep.h"

enum { SMALL = 64, INLINE_MOST = 1000, LARGE = 100 * 1024 };
enum who { ROUND, SLEEPER, VICTIM, BYSTANDER, SECOND, FRESH, WHO_COUNT, ANY };
enum { MESSAGES_MAX = 128 };

/*
 * The bound of whatever a round waits for, with all its steps. Fixed when the
 * round begins: the clock, read inside a swept operation, would now and then
 * take other steps.
 */
static mproc_deadline round_end;
#define SOON round_end

static int order = MPROC_FIFO; /* of all queues */

struct head {
    uint32_t who, number;
};

/* What one of them did. */
struct doings {
    _Atomic uint32_t puts_begun, puts_done;
    _Atomic uint32_t gets_begun, gets_done;
    _Atomic uint32_t got;
    struct head message[MESSAGES_MAX];
};

struct scenario {
    size_t size;
    mproc_queue_opts opts;
};

struct journal {
    struct scenario is;
    mproc_queue *q;
    mproc_heap_info before;
    _Atomic uint32_t prepared; /* victims that are ready */
    _Atomic uint32_t sleeper_done;
    _Atomic int32_t outcome;  /* of the sleeper */
    _Atomic uint32_t ballast; /* messages in it that are not told apart */
    uint32_t rest;            /* what the round had got before the rest */
    struct doings of[WHO_COUNT];
};

static char out[LARGE], in[LARGE]; /* each process has its own */

/* ---- messages --------------------------------------------------------- */

static inline void compose(size_t size, enum who who, uint32_t number)
{
    struct head head = {who, number};
    memset(out, (int)(who * 31 + number), size);
    memcpy(out, &head, sizeof head);
}

/* By default its message comes before all others. */
static int64_t victims_priority = -1;

static inline int64_t priority_of(const struct head *head)
{
    switch (head->who) {
    case VICTIM:
        return victims_priority;
    case ROUND:
        return head->number % 3;
    default:
        return 0;
    }
}

static inline int put_out(struct journal *j, size_t size, mproc_deadline until)
{
    struct head head;
    if (order != MPROC_PRIORITY) {
        return mproc_queue_put(j->q, out, size, until);
    }
    memcpy(&head, out, sizeof head);
    return mproc_queue_put_priority(j->q, priority_of(&head), out, size, until);
}

/* Composed by `prepare` for the victim, so that this is not stepped. */
static inline int put_composed(struct journal *j, enum who who, size_t size,
                               mproc_deadline until)
{
    struct doings *d = &j->of[who];
    atomic_fetch_add(&d->puts_begun, 1);
    int err = put_out(j, size, until);
    if (err == 0) {
        atomic_fetch_add(&d->puts_done, 1);
    } else {
        atomic_fetch_sub(&d->puts_begun, 1);
    }
    return err;
}

static inline int put(struct journal *j, enum who who, size_t size,
                      mproc_deadline until)
{
    compose(size, who, atomic_load(&j->of[who].puts_done));
    return put_composed(j, who, size, until);
}

static inline int get(struct journal *j, enum who who, mproc_deadline until)
{
    struct doings *d = &j->of[who];
    size_t size;
    atomic_fetch_add(&d->gets_begun, 1);
    int err = mproc_queue_get(j->q, in, sizeof in, &size, until);
    if (err == 0) {
        struct head *head = &d->message[atomic_load(&d->got)];
        memcpy(head, in, sizeof *head);
        if (head->who == ANY) {
            atomic_fetch_sub(&j->ballast, 1);
        } else {
            atomic_fetch_add(&d->got, 1);
        }
    }
    atomic_fetch_add(&d->gets_done, 1);
    return err;
}

/* What was got last is as it was composed. */
static inline bool intact(size_t size)
{
    struct head head;
    memcpy(&head, in, sizeof head);
    for (size_t i = sizeof head; i < size; i++) {
        if (in[i] != (char)(head.who * 31 + head.number)) {
            return false;
        }
    }
    return true;
}

/* ---- setting up ------------------------------------------------------- */

static struct journal *journal;

static inline void *set_up(const struct scenario *is)
{
    const mproc_config config = {.heap_max = 32 << 20, .processes_max = 64};
    struct mpr_thread *self;
    mproc_queue_opts opts = is->opts;
    opts.order = order;
    mpr_test_deep_sleep = true;
    journal = mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (journal == MAP_FAILED || mproc_configure(&config) < 0 ||
        mpr_self(&self) < 0 || mproc_heap_stats(&journal->before) < 0 ||
        mproc_queue_new(&journal->q, &opts) < 0) {
        return NULL;
    }
    journal->is = *is;
    round_end = mproc_in_s(60);
    return journal;
}

static inline bool fill(struct journal *j, int count)
{
    for (int i = 0; i < count; i++) {
        if (put(j, ROUND, j->is.size, MPROC_NOWAIT) < 0) {
            return false;
        }
    }
    return true;
}

static inline bool drain(struct journal *j, int count)
{
    for (int i = 0; i < count; i++) {
        if (get(j, ROUND, MPROC_NOWAIT) < 0 || !intact(j->is.size)) {
            return false;
        }
        if (j->is.opts.joinable && mproc_queue_task_done(j->q) < 0) {
            return false;
        }
    }
    return true;
}

/* Until the tail is in the next segment. */
static inline bool fill_segment(struct journal *j)
{
    const struct mpr_segment *at = j->q->log.tail.segment;
    while (j->q->log.tail.segment == at) {
        if (!fill(j, 1)) {
            return false;
        }
    }
    return true;
}

static inline bool drain_to(struct journal *j, size_t left)
{
    while (mproc_queue_qsize(j->q) > left) {
        if (!drain(j, 1)) {
            return false;
        }
    }
    return true;
}

static inline bool load_ballast(struct journal *j, unsigned count)
{
    compose(j->is.size, ANY, 0);
    for (; count > 0; count--) {
        if (put_out(j, j->is.size, MPROC_NOWAIT) < 0) {
            return false;
        }
        atomic_fetch_add(&j->ballast, 1);
    }
    return true;
}

/* With one message put and got before, so that its memory is used again. */
static inline void *set_up_filled(const struct scenario *is, int count)
{
    struct journal *j = set_up(is);
    return j != NULL && fill(j, 1) && drain(j, 1) && fill(j, count) ? j : NULL;
}

static inline void *small_empty(void)
{
    return set_up_filled(&(struct scenario){.size = SMALL}, 0);
}

static inline void *large_empty(void)
{
    return set_up_filled(&(struct scenario){.size = LARGE}, 0);
}

/* Empty, and the next message needs a segment of its own. */
static inline void *segment_is_full(void)
{
    struct journal *j = set_up(&(struct scenario){.size = INLINE_MOST});
    if (j == NULL) {
        return NULL;
    }
    struct mpr_log_end *tail = &j->q->log.tail;
    while (tail->offset + INLINE_MOST + 16 <= tail->segment->capacity) {
        if (!fill(j, 1) || !drain(j, 1)) {
            return NULL;
        }
    }
    return j;
}

static inline void *small_full(void)
{
    return set_up_filled(&(struct scenario){.size = SMALL, .opts.maxsize = 2},
                         2);
}

static inline void *large_full(void)
{
    return set_up_filled(&(struct scenario){.size = LARGE, .opts.maxsize = 2},
                         2);
}

/* One less, and the second chunk is not needed any more. */
static inline void *joinable_one(void)
{
    return set_up_filled(
        &(struct scenario){.size = SMALL, .opts.joinable = true}, 1);
}

static inline void *small_one_place(void)
{
    return set_up_filled(&(struct scenario){.size = SMALL, .opts.maxsize = 1},
                         0);
}

static inline void *large_four(void)
{
    return set_up_filled(&(struct scenario){.size = LARGE}, 4);
}

static inline void *joinable_four(void)
{
    return set_up_filled(
        &(struct scenario){.size = SMALL, .opts.joinable = true}, 4);
}

static inline size_t region(void *ctx, struct sweep_range *range)
{
    (void)ctx;
    range[0] = (struct sweep_range){mpr_family, mpr_family->size};
    return 1;
}

#endif
