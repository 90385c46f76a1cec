/* SPDX-License-Identifier: MIT */
/*
 * What the sweeps of queues share: a queue and those who use it.
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

/* That of the victim comes before all others. */
static inline int64_t priority_of(const struct head *head)
{
    switch (head->who) {
    case VICTIM:
        return -1;
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

static inline size_t region(void *ctx, struct sweep_range *range)
{
    (void)ctx;
    range[0] = (struct sweep_range){mpr_family, mpr_family->size};
    return 1;
}

/* ---- the sleepers ----------------------------------------------------- */

static inline int end_sleep(struct journal *j, int outcome)
{
    atomic_store(&j->outcome, outcome);
    atomic_store(&j->sleeper_done, 1);
    return outcome;
}

static inline int asleep_in_get(void *ctx)
{
    struct journal *j = ctx;
    int err = get(j, SLEEPER, MPROC_FOREVER);
    return end_sleep(j, err < 0 || intact(j->is.size) ? err : 1);
}

static inline int asleep_in_put(void *ctx)
{
    struct journal *j = ctx;
    return end_sleep(j, put(j, SLEEPER, j->is.size, MPROC_FOREVER));
}

static inline int asleep_in_join(void *ctx)
{
    struct journal *j = ctx;
    return end_sleep(j, mproc_queue_join(j->q, MPROC_FOREVER));
}

/* Of a queue that is freed or shut down. */
static inline int asleep_until_refused(void *ctx)
{
    struct journal *j = ctx;
    int err = get(j, SLEEPER, MPROC_FOREVER);
    end_sleep(j, err);
    return err != MPROC_EINVAL && err != MPROC_ESHUTDOWN;
}

static inline int asleep_until_no_room_will_be(void *ctx)
{
    struct journal *j = ctx;
    int err = put(j, SLEEPER, j->is.size, MPROC_FOREVER);
    end_sleep(j, err);
    return err != MPROC_EINVAL;
}

/*
 * What was not done by the killed one cannot end the sleep: then somebody else
 * does it. To tell, nothing is touched, so as not to wake anybody.
 */
static inline bool is_done(struct journal *j)
{
    return atomic_load(&j->sleeper_done) != 0;
}

static inline const char *put_if_empty(void *ctx)
{
    struct journal *j = ctx;
    if (mproc_queue_empty(j->q) && !is_done(j) &&
        put(j, ROUND, j->is.size, SOON) < 0) {
        return "nothing can be put";
    }
    return NULL;
}

static inline const char *get_if_full(void *ctx)
{
    struct journal *j = ctx;
    if (mproc_queue_full(j->q) && !is_done(j) && get(j, ROUND, SOON) < 0) {
        return "nothing can be got";
    }
    return NULL;
}

static inline const char *finish_if_unfinished(void *ctx)
{
    struct journal *j = ctx;
    if (!mproc_queue_empty(j->q) && !is_done(j)) {
        if (get(j, ROUND, SOON) < 0 || mproc_queue_task_done(j->q) < 0) {
            return "nothing can be got and acknowledged";
        }
    }
    return NULL;
}

/* What is freed too early is no longer what it was. */
static inline const char *reap_and_scribble(void *ctx)
{
    static const size_t sizes[] = {SMALL + 1, 16 * 96, 64 * 1024, 192 * 1024,
                                   LARGE + 1};
    (void)ctx;
    mpr_slots_reap(mpr_self_.thread);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *block[3];
        for (int k = 0; k < 3; k++) {
            block[k] = mproc_alloc(sizes[i]);
            if (block[k] == NULL) {
                return "no memory";
            }
            memset(block[k], 0xee, sizes[i]);
        }
        for (int k = 0; k < 3; k++) {
            mproc_free(block[k]);
        }
    }
    return NULL;
}

/* ---- the victims ------------------------------------------------------ */

static inline void claim(void)
{
    struct mpr_thread *self;
    if (mpr_self(&self) < 0) {
        _exit(1);
    }
}

/* Also for a second victim, after the first. */
static inline void be_ready(void *ctx)
{
    struct journal *j = ctx;
    bool first = atomic_fetch_add(&j->prepared, 1) == 0;
    claim();
    compose(j->is.size, first ? VICTIM : SECOND, 0);
}

/* ---- bystanders and second victims ------------------------------------ */

/* A stopped one keeps what it has locked: then nothing goes on, as it may. */
static inline void give_up(int signal)
{
    (void)signal;
    _exit(SWEEP_WOULD_BLOCK);
}

static inline void allow_ms(int ms)
{
    const struct itimerval after = {.it_value = {ms / 1000, ms % 1000 * 1000}};
    signal(SIGALRM, give_up);
    setitimer(ITIMER_REAL, &after, NULL);
}

static inline bool may_be(int err)
{
    return err == 0 || err == MPROC_EFULL || err == MPROC_EEMPTY;
}

static inline int bad(const char *what, int err)
{
    fprintf(stderr, "%s: %s\n", what, mproc_error_name(err));
    return 1;
}

static inline int get_intact(struct journal *j, enum who who)
{
    int err = get(j, who, MPROC_NOWAIT);
    if (!may_be(err) || (err == 0 && !intact(j->is.size))) {
        return bad("get", err);
    }
    return err == 0 ? 0 : SWEEP_WOULD_BLOCK;
}

static inline int put_and_get(struct journal *j, enum who who)
{
    int err = put(j, who, j->is.size, MPROC_NOWAIT);
    if (!may_be(err)) {
        return bad("put", err);
    }
    int got = get_intact(j, who);
    return err == 0 ? got : SWEEP_WOULD_BLOCK;
}

static inline int put_and_get_beside(void *ctx)
{
    allow_ms(10);
    return put_and_get(ctx, BYSTANDER);
}

/* As far as a full queue allows. */
static inline int get_and_put_beside(void *ctx)
{
    struct journal *j = ctx;
    allow_ms(10);
    int got = get_intact(j, BYSTANDER);
    int err = put(j, BYSTANDER, j->is.size, MPROC_NOWAIT);
    return may_be(err) ? got : bad("put", err);
}

/* It is never full, and never empty where two messages are in it, meanwhile. */
static inline int move_on_beside(void *ctx)
{
    struct journal *j = ctx;
    int err = 0;
    allow_ms(10);
    for (int i = 0; err == 0 && i < 4; i++) {
        if (mproc_queue_qsize(j->q) == 2) {
            err = get_intact(j, BYSTANDER);
        }
        err = err == 0 ? put(j, BYSTANDER, j->is.size, MPROC_NOWAIT) : err;
        if (mproc_queue_qsize(j->q) == 1) {
            err = err == 0 ? get_intact(j, BYSTANDER) : err;
        }
    }
    return err == 0 ? 0 : may_be(err) ? SWEEP_WOULD_BLOCK : err;
}

/* A queue that has nothing to do with the one that is made or ended. */
static inline int use_another(void *ctx)
{
    struct journal j = {.is = ((struct journal *)ctx)->is};
    allow_ms(10);
    int err = mproc_queue_new(&j.q, &(mproc_queue_opts){.order = order});
    for (int i = 0; err == 0 && i < 3; i++) {
        err = put_and_get(&j, BYSTANDER);
    }
    bool empty = err == 0 && mproc_queue_empty(j.q);
    mproc_queue_free(j.q);
    return empty ? 0 : bad("use of another queue", err);
}

/* Repairs what it locks, then reaps. */
static inline int use_and_reap(void *ctx)
{
    struct journal *j = ctx;
    bool good = may_be(put_composed(j, SECOND, j->is.size, MPROC_NOWAIT)) &&
                may_be(get(j, SECOND, MPROC_NOWAIT));
    mpr_slots_reap(mpr_self_.thread);
    return good ? 0 : 1;
}

static inline int reap(void *ctx)
{
    (void)ctx;
    mpr_slots_reap(mpr_self_.thread);
    return 0;
}

/* ---- what must hold --------------------------------------------------- */

static inline struct head *all_got(struct journal *j, enum who who,
                                   uint32_t *count)
{
    *count = atomic_load(&j->of[who].got);
    return j->of[who].message;
}

static inline unsigned times_got(struct journal *j, enum who by,
                                 uint32_t number)
{
    unsigned times = 0;
    for (enum who who = 0; who < WHO_COUNT; who++) {
        uint32_t count;
        struct head *got = all_got(j, who, &count);
        for (uint32_t i = 0; i < count; i++) {
            times += got[i].who == by && got[i].number == number;
        }
    }
    return times;
}

/* Of one putter, and of one priority. */
static inline bool in_order(struct journal *j)
{
    for (enum who who = 0; who < WHO_COUNT && order != MPROC_LIFO; who++) {
        uint32_t count, next[WHO_COUNT][4] = {{0}};
        struct head *got = all_got(j, who, &count);
        for (uint32_t i = 0; i < count; i++) {
            if (got[i].who >= WHO_COUNT) {
                return false;
            }
            bool priority = order == MPROC_PRIORITY;
            uint32_t *least =
                &next[got[i].who][priority ? priority_of(&got[i]) + 1 : 0];
            if (got[i].number < *least) {
                return false;
            }
            *least = got[i].number + 1;
        }
    }
    return true;
}

/* Gets that were killed, each of which may have had a message in hand. */
static inline unsigned gets_cut(struct journal *j)
{
    unsigned cut = 0;
    for (enum who who = 0; who < WHO_COUNT; who++) {
        cut += atomic_load(&j->of[who].gets_begun) -
               atomic_load(&j->of[who].gets_done);
    }
    return cut;
}

/* With nobody else putting or getting: may `b` come behind `a`? */
static inline bool may_follow(const struct head *a, const struct head *b)
{
    switch (order) {
    case MPROC_LIFO:
        return a->who != b->who || a->number > b->number || a->who == ANY;
    case MPROC_PRIORITY:
        return priority_of(a) <= priority_of(b);
    default:
        return true; /* in_order sees to that */
    }
}

/* Who was killed with a message in hand had taken the first of them. */
static inline bool was_first(struct journal *j, enum who by, uint32_t number)
{
    const struct head missing = {by, number};
    uint32_t count;
    struct head *got = all_got(j, ROUND, &count);
    for (uint32_t i = j->rest; i < count; i++) {
        bool equal = priority_of(&got[i]) == priority_of(&missing);
        bool earlier = got[i].number < number && order != MPROC_LIFO &&
                       (equal || order == MPROC_FIFO);
        if (got[i].who == by && (earlier || !may_follow(&missing, &got[i]))) {
            return false;
        }
    }
    return true;
}

static inline const char *each_exactly_once(struct journal *j)
{
    unsigned missing = 0;
    for (enum who by = 0; by < WHO_COUNT; by++) {
        uint32_t begun = atomic_load(&j->of[by].puts_begun);
        uint32_t done = atomic_load(&j->of[by].puts_done);
        for (uint32_t number = 0; number < begun; number++) {
            unsigned times = times_got(j, by, number);
            if (times > 1) {
                return "a message was got twice";
            }
            missing += times == 0 && number < done;
            if (times == 0 && number < done && !was_first(j, by, number)) {
                return "another message is lost than was taken";
            }
        }
        if (times_got(j, by, begun) > 0) {
            return "a message was got that nobody put";
        }
    }
    missing += atomic_load(&j->ballast);
    return missing > gets_cut(j) ? "a message is lost" : NULL;
}

/* The round takes the rest: as many as the queue says there are. */
static inline const char *take_the_rest(struct journal *j)
{
    size_t said = mproc_queue_qsize(j->q), took = 0;
    struct head last, now;
    int err;
    j->rest = atomic_load(&j->of[ROUND].got);
    for (; (err = get(j, ROUND, MPROC_NOWAIT)) == 0; took++, last = now) {
        memcpy(&now, in, sizeof now);
        if (took > 0 && !may_follow(&last, &now)) {
            return "not the next";
        }
        if (!intact(j->is.size)) {
            return "half a message";
        }
        if (j->is.opts.joinable && mproc_queue_task_done(j->q) < 0) {
            return "what was got cannot be acknowledged";
        }
    }
    if (err != MPROC_EEMPTY && err != MPROC_ESHUTDOWN) {
        return "get fails";
    }
    return took == said ? NULL : "qsize is wrong";
}

/* By a process that is new, so that it takes over what the dead one left. */
static inline int put_and_get_anew(struct journal *j)
{
    static const size_t size[] = {SMALL, LARGE, LARGE, SMALL};
    for (int i = 0; i < 4; i++) {
        if (put(j, FRESH, size[i], SOON) < 0) {
            return 1;
        }
    }
    for (int i = 0; i < 4; i++) {
        size_t got = 0;
        if (mproc_queue_get(j->q, in, sizeof in, &got, SOON) < 0 ||
            got != size[i] || !intact(got)) {
            return 2;
        }
        if (j->is.opts.joinable && mproc_queue_task_done(j->q) < 0) {
            return 3;
        }
    }
    return 0;
}

static inline const char *works_on(struct journal *j)
{
    int status;
    j->q->log.max_items = UINT64_MAX; /* for the four that are put now */
    pid_t pid = fork();
    if (pid == 0) {
        _exit(put_and_get_anew(j));
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        return "no process";
    }
    atomic_store(&j->of[FRESH].puts_begun, 0);
    atomic_store(&j->of[FRESH].puts_done, 0);
    return status == 0 ? NULL : "the queue does not work on";
}

/* Nobody else lives, and what the dead had is given back. */
static inline const char *reap_all(void)
{
    struct mpr_census census;
    mproc_deadline until = SOON;
    do {
        census = mpr_slots_reap(mpr_self_.thread);
        if (mpr_os_now() > until.at_ns) {
            return "somebody does not get reaped";
        }
    } while (census.dying || census.reaped > 0);
    uint32_t top = atomic_load(&mpr_family->threads_top);
    for (uint32_t i = 1; i < top; i++) {
        for (int hand = 0; hand < MPR_HAND_COUNT; hand++) {
            if (mpr_hand(&mpr_family->threads[i], (enum mpr_hand)hand)) {
                return "something was left in a hand";
            }
        }
    }
    return NULL;
}

static inline const char *heap_is_as_before(const struct journal *j)
{
    mproc_heap_info now;
    if (mproc_heap_stats(&now) < 0) {
        return "no stats";
    }
    static char text[100];
    snprintf(text, sizeof text, "%zu bytes in %zu blocks leaked",
             now.in_use - j->before.in_use, now.blocks - j->before.blocks);
    return now.in_use == j->before.in_use && now.blocks == j->before.blocks
               ? NULL
               : text;
}

/* No cell is handed out twice. */
static inline const char *cells_are_good(void)
{
    mproc_queue *q[40];
    for (int i = 0; i < 40; i++) {
        if (mproc_queue_new(&q[i], NULL) < 0) {
            return "no queue can be made";
        }
        for (int k = 0; k < i; k++) {
            if (q[k] == q[i]) {
                return "two queues in one place";
            }
        }
    }
    for (int i = 0; i < 40; i++) {
        mproc_queue_free(q[i]);
    }
    return NULL;
}

static inline const char *all_is_given_back(struct journal *j)
{
    const char *wrong = reap_all();
    if (wrong == NULL) {
        wrong = cells_are_good();
    }
    return wrong == NULL ? heap_is_as_before(j) : wrong;
}

static inline const char *check_queue(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    const char *wrong = take_the_rest(j);
    if (wrong == NULL) {
        wrong = each_exactly_once(j);
    }
    if (wrong == NULL && !in_order(j)) {
        wrong = "out of order";
    }
    if (wrong == NULL && at->finished && at->second_step == 0 &&
        atomic_load(&j->of[VICTIM].puts_begun) !=
            atomic_load(&j->of[VICTIM].puts_done)) {
        wrong = "put ended and is not done";
    }
    if (wrong == NULL && !j->q->log.tail.closed) {
        wrong = works_on(j);
    }
    if (wrong == NULL && j->is.opts.joinable &&
        mproc_queue_join(j->q, SOON) < 0) {
        wrong = "join does not end";
    }
    if (wrong != NULL) {
        return wrong;
    }
    mproc_queue_free(j->q);
    return all_is_given_back(j);
}

static inline int read_order(const char *name)
{
    return strcmp(name, "lifo") == 0       ? MPROC_LIFO
           : strcmp(name, "priority") == 0 ? MPROC_PRIORITY
                                           : -1;
}

#endif
