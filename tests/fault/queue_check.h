/* SPDX-License-Identifier: MIT */
/* What must hold of a queue after each round, and the main function. */
#ifndef FAULT_QUEUE_CHECK_H
#define FAULT_QUEUE_CHECK_H

#include "queue_cast.h"

/* ---- each message exactly once ---------------------------------------- */

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

/* All that is out is that of the dead: it is back first. */
static inline const char *check_out(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    const char *wrong = reap_all();
    return wrong == NULL ? check_queue(j, at) : wrong;
}

/* ---- of one that is freed --------------------------------------------- */

static inline const char *free_if_untouched(void *ctx)
{
    struct journal *j = ctx;
    if (mpr_object_is(j->q, MPR_QUEUE)) {
        mproc_queue_free(j->q);
    }
    return NULL;
}

static inline const char *check_freed(void *ctx, const struct sweep_point *at)
{
    struct journal *j = ctx;
    (void)at;
    if (atomic_load(&j->outcome) != MPROC_EINVAL) {
        return "who waited for a freed queue was not told so";
    }
    const char *wrong = reap_all();
    if (wrong == NULL &&
        mproc_queue_put(j->q, "", 1, MPROC_NOWAIT) != MPROC_EINVAL) {
        wrong = "it is not freed";
    }
    return wrong == NULL ? all_is_given_back(j) : wrong;
}

static inline const char *check_freed_at_once(void *ctx,
                                              const struct sweep_point *at)
{
    struct journal *j = ctx;
    (void)at;
    mproc_queue_free(j->q);
    return all_is_given_back(j);
}

/* ---- running them ----------------------------------------------------- */

struct cases {
    const struct sweep_case *first;
    size_t count;
};

#define CASES(array) ((struct cases){array, sizeof array / sizeof *array})

static inline int read_order(const char *name)
{
    return strcmp(name, "lifo") == 0       ? MPROC_LIFO
           : strcmp(name, "priority") == 0 ? MPROC_PRIORITY
                                           : -1;
}

/*
 * The main function: of queues of the order that is named first in argv, if one
 * is. To those of all orders come those of its own. A case that says nothing
 * else of it is prepared by be_ready.
 */
static inline int play(int argc, char **argv, struct cases of_all,
                       struct cases of_fifo, struct cases of_others)
{
    static struct sweep_case cases[64];
    struct cases own = of_fifo;
    if (argc > 1 && argv[1][0] != '-') {
        order = read_order(argv[1]);
        own = of_others;
        argv[1] = argv[0];
        argv++;
        argc--;
    }
    size_t count = of_all.count + own.count;
    if (order < 0 || count > sizeof cases / sizeof *cases) {
        return 2;
    }
    for (size_t i = 0; i < count; i++) {
        cases[i] =
            i < of_all.count ? of_all.first[i] : own.first[i - of_all.count];
        cases[i].shared = region;
        if (cases[i].prepare == NULL) {
            cases[i].prepare = be_ready;
        }
    }
    return sweep_main(argc, argv, cases, count);
}

#endif
