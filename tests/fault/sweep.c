/* SPDX-License-Identifier: MIT */
/*
 * Rounds and sweeps; sweep.h is the manual.
 *
 * The test program forks one process per round and waits for it by its
 * pidfd, so that a round that hangs, in `check` say, is itself only a failed
 * point. What a round leaves behind dies with it: victims by
 * PTRACE_O_EXITKILL, helpers by PR_SET_PDEATHSIG, and the rest comes to the
 * program as to a subreaper and is killed there.
 */
#include "sweep.h"
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
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

enum { WRONG_LINES = 10 }; /* printed of each sweep */

enum kind { KILL, PAUSE, TWO };

/* What a round tells the program, in shared memory. */
struct report {
    const char *volatile stage; /* static texts only */
    bool early, strayed, blocked;
    char wrong[200];
};

struct round {
    const struct sweep_case *c;
    enum kind kind;
    size_t step, second_step;
    int observe; /* 1: the operation, 2: the second; 0: a real round */
    bool plain;
    /* Inside of the round only: */
    void *ctx;
    pid_t sleeper;
    struct victim victim, second;
    struct sweep_point at;
};

static struct report *report;
static struct trace *trace[2]; /* of the operation, of the second */
static cpu_set_t all_cpus;

static unsigned limit_of(const struct sweep_case *c)
{
    return c->limit_ms != 0 ? c->limit_ms : 10000;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pin_to_one_cpu(void)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
}

/* --- one round, in its own process --- */

static _Noreturn void leave_round(const char *wrong)
{
    if (wrong != NULL) {
        snprintf(report->wrong, sizeof report->wrong, "%s", wrong);
    }
    _exit(0);
}

static pid_t start_child(int (*run)(void *), void *ctx)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
        sched_setaffinity(0, sizeof all_cpus, &all_cpus);
        _exit(run(ctx));
    }
    if (pid < 0) {
        leave_round("fork failed");
    }
    return pid;
}

/* Waits for the end of a child; false: killed after the limit. */
static bool await_child(pid_t pid, unsigned limit_ms, int *status)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    double until = now() + limit_ms / 1e3;
    int got = 0, left = (int)limit_ms;
    while (got <= 0 && left >= 0) {
        got = poll(&p, 1, left);
        left = got == 0 ? -1 : (int)((until - now()) * 1e3);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (got <= 0) {
        kill(pid, SIGKILL);
    }
    waitpid(pid, status, 0);
    return got > 0;
}

static bool in_futex(pid_t pid)
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
    return size > 0 && (number == SYS_futex || number == 449 /* waitv */);
}

static void start_sleeper(struct round *r)
{
    const struct timespec pause = {0, 200000};
    double until = now() + 10;
    r->sleeper = start_child(r->c->sleeper, r->ctx);
    while (!in_futex(r->sleeper) || trace_state(r->sleeper, NULL) != 'S') {
        int status;
        if (waitpid(r->sleeper, &status, WNOHANG) == r->sleeper) {
            leave_round("the sleeper ended instead of falling asleep");
        }
        if (now() > until) {
            leave_round("the sleeper did not fall asleep");
        }
        nanosleep(&pause, NULL);
    }
}

static void end_sleeper(struct round *r)
{
    int status;
    if (r->sleeper == 0) {
        return;
    }
    report->stage = "sleeper";
    if (!await_child(r->sleeper, limit_of(r->c), &status)) {
        leave_round("sleeper hung");
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        leave_round("the sleeper ended badly");
    }
}

static void observe(struct round *r, struct victim *v, struct trace *t)
{
    enum trace_stop why = trace_observe(v, r->c, r->ctx, t);
    if (why == TRACE_FINISHED || why == TRACE_ASLEEP) {
        leave_round(NULL);
    }
    leave_round(why == TRACE_ENDED
                    ? "the operation ended its process under observation"
                    : "the operation did not come to an end");
}

/* Brings a victim to step `k`; leaves the round if it cannot be. */
static enum trace_stop place(struct round *r, struct victim *v,
                             int (*run)(void *), struct trace *t, size_t k)
{
    enum trace_stop why = trace_start(v, r->c, run, r->ctx);
    if (why != TRACE_AT) {
        leave_round("the victim did not come to the start");
    }
    if (r->observe == (t == trace[0] ? 1 : 2)) {
        observe(r, v, t);
    }
    why = trace_reach(v, t, k, r->plain);
    if (why == TRACE_LATE) {
        leave_round("a step of the operation did not come back");
    }
    if (why == TRACE_ENDED && WIFSIGNALED(v->status)) {
        leave_round("the operation died without being killed");
    }
    report->early |= why == TRACE_ENDED || why == TRACE_FINISHED;
    if (why == TRACE_AT && trace_instruction(v) != t->at[k].next) {
        report->strayed = true;
    }
    return why;
}

static void let_bystander_run(struct round *r)
{
    int status;
    report->stage = "bystander";
    pid_t pid = start_child(r->c->bystander, r->ctx);
    if (!await_child(pid, limit_of(r->c), &status)) {
        leave_round("bystander hung");
    }
    if (!WIFEXITED(status)) {
        leave_round("the bystander died");
    }
    int code = WEXITSTATUS(status);
    if (code != 0 && code != SWEEP_WOULD_BLOCK) {
        leave_round("the bystander ended badly");
    }
    r->at.would_block = code == SWEEP_WOULD_BLOCK;
    report->blocked = r->at.would_block;
}

static void let_victim_end(struct round *r)
{
    struct victim *v = &r->victim;
    report->stage = "resumed victim";
    v->wake_comes |= !trace[0]->asleep; /* it may wait for its deadline */
    enum trace_stop why = v->ended ? TRACE_ENDED : trace_finish(v);
    if (why == TRACE_ASLEEP && trace[0]->asleep) {
        trace_kill(v, false); /* it was asleep at its end alone, too */
        return;
    }
    if (why != TRACE_ENDED) {
        leave_round("the victim hung after the pause");
    }
    if (!WIFEXITED(v->status) || WEXITSTATUS(v->status) != 0) {
        leave_round("the victim ended badly after the pause");
    }
}

static void disturb(struct round *r)
{
    const struct sweep_case *c = r->c;
    report->stage = "victim";
    enum trace_stop why = place(r, &r->victim, c->operation, trace[0], r->step);
    size_t end = trace[0]->length;
    r->at.finished = why == TRACE_FINISHED || why == TRACE_ENDED ||
                     (r->step == end && !trace[0]->asleep);
    r->at.asleep = why == TRACE_ASLEEP;
    if (r->kind == PAUSE) {
        let_bystander_run(r);
        let_victim_end(r);
        return;
    }
    trace_kill(&r->victim, c->keep_zombie);
    if (r->kind == TWO) {
        report->stage = "second victim";
        place(r, &r->second, c->second, trace[1], r->second_step);
        trace_kill(&r->second, c->keep_zombie);
    }
}

static _Noreturn void round_main(struct round *r)
{
    const struct sweep_case *c = r->c;
    report->stage = "setup";
    r->ctx = c->setup();
    if (r->ctx == NULL) {
        leave_round("setup failed");
    }
    if (c->sleeper != NULL) {
        report->stage = "falling asleep";
        start_sleeper(r);
    }
    size_t done = r->step <= trace[0]->length ? r->step : trace[0]->length;
    r->at = (struct sweep_point){.step = r->step,
                                 .instruction =
                                     trace[0]->at[done > 0 ? done - 1 : 0].next,
                                 .second_step = r->second_step};
    pin_to_one_cpu();
    disturb(r);
    sched_setaffinity(0, sizeof all_cpus, &all_cpus);
    const char *wrong = NULL;
    if (c->follow_up != NULL) {
        report->stage = "follow_up";
        wrong = c->follow_up(r->ctx);
    }
    if (wrong == NULL) {
        end_sleeper(r);
        report->stage = "check";
        wrong = c->check(r->ctx, &r->at);
    }
    trace_reap(&r->victim);
    trace_reap(&r->second);
    if (c->teardown != NULL && wrong == NULL) {
        report->stage = "teardown";
        c->teardown(r->ctx);
    }
    leave_round(wrong);
}

/* --- the program --- */

/* Kills and reaps what rounds have left to their subreaper. */
static void sweep_up(void)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    for (;;) {
        FILE *file = fopen(path, "re");
        char *got = file ? fgets(text, sizeof text, file) : NULL;
        if (file != NULL) {
            fclose(file);
        }
        pid_t pid = got ? (pid_t)strtol(text, NULL, 10) : 0;
        if (pid <= 0) {
            return;
        }
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

/* A round of its own process; what it found is in `report`. */
static void run_round(struct round *r)
{
    int status;
    unsigned steps_ms = r->observe || r->plain ? 180000 : 10000;
    memset(report, 0, sizeof *report);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        round_main(r);
    }
    if (pid < 0) {
        snprintf(report->wrong, sizeof report->wrong, "fork: %s",
                 strerror(errno));
        return;
    }
    bool ended = await_child(pid, 5 * limit_of(r->c) + steps_ms, &status);
    if (!ended || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        snprintf(report->wrong, sizeof report->wrong, "the round %s in: %s",
                 ended ? "died" : "hung", report->stage);
    }
    sweep_up();
}

static void note_wrong(struct sweep_result *result, const struct round *r,
                       const struct sweep_options *o)
{
    char symbol[120] = "", point[120] = "observation";
    size_t end = trace[0]->length;
    size_t k = r->step <= end ? r->step : end;
    if (!r->observe) {
        trace_symbol(trace[0]->at[k > 0 ? k - 1 : 0].next, symbol,
                     sizeof symbol);
        snprintf(point, sizeof point, "step %zu of %zu%s, after", r->step, end,
                 r->step > end ? " (asleep)" : "");
    }
    char second[40] = "", text[sizeof result->first];
    if (r->kind == TWO) {
        snprintf(second, sizeof second, ", second step %zu", r->second_step);
    }
    snprintf(text, sizeof text, "%s %s%s: %s", point, symbol, second,
             report->wrong);
    if (result->wrong++ == 0) {
        memcpy(result->first, text, sizeof text);
    }
    if (!o->quiet && (o->verbose || result->wrong <= WRONG_LINES)) {
        printf("  WRONG %s: %s\n", r->c->name, text);
    }
}

static bool observed(struct sweep_result *result, struct round *r,
                     const struct sweep_options *o, int which)
{
    r->observe = which;
    run_round(r);
    if (report->wrong[0] != 0) {
        note_wrong(result, r, o);
    } else {
        trace_sample_loops(trace[which - 1]);
    }
    r->observe = 0;
    return report->wrong[0] == 0;
}

static void try_point(struct sweep_result *result, struct round *r,
                      const struct sweep_options *o)
{
    r->plain = false;
    run_round(r);
    bool at_end = r->kind != TWO && r->step >= trace[0]->length;
    if (report->early && !at_end && report->wrong[0] == 0) {
        r->plain = true;
        run_round(r);
        result->early += report->early;
    }
    result->points++;
    result->strayed += report->strayed;
    result->blocked += report->blocked;
    if (report->wrong[0] != 0) {
        note_wrong(result, r, o);
    } else if (o->verbose && !o->quiet) {
        char symbol[120];
        const void *ip = trace[0]->at[r->step - 1].next;
        trace_symbol(ip, symbol, sizeof symbol);
        printf("  %s %zu/%zu %s%s\n", r->c->name, r->step, r->second_step,
               symbol, report->blocked ? " would block" : "");
    }
}

static bool is_point(const struct trace *t, size_t k, bool all, bool unsampled)
{
    const struct trace_step *at = &t->at[k];
    if (k >= t->length) {
        return true;
    }
    if (at->passed && !unsampled) {
        return false;
    }
    return all || at->changed || at[1].changed;
}

/* The last point: being asleep comes after the last step. */
static size_t last_point(const struct trace *t)
{
    return t->length + t->asleep;
}

static struct sweep_result sweep(const struct sweep_case *c, enum kind kind,
                                 const struct sweep_options *o)
{
    struct sweep_result result = {0};
    struct round r = {.c = c, .kind = kind};
    double start = now();
    if (observed(&result, &r, o, 1)) {
        struct trace *t = trace[0];
        result.steps = t->length;
        size_t to = o->to > 0 && o->to < last_point(t) ? o->to : last_point(t);
        if (kind == PAUSE && t->asleep && !c->wake_comes && to > t->length) {
            to = t->length;
        }
        size_t found = 0, stride = o->stride > 0 ? o->stride : 1;
        for (size_t k = 1; k <= t->length; k++) {
            result.changes += t->at[k].changed;
        }
        for (size_t k = o->from > 0 ? o->from : 1; k <= to; k++) {
            if (is_point(t, k, o->all, o->unsampled) && found++ % stride == 0) {
                r.step = k;
                try_point(&result, &r, o);
            }
        }
    }
    result.seconds = now() - start;
    return result;
}

static size_t count_points(const struct trace *t)
{
    size_t count = 0;
    for (size_t k = 1; k <= last_point(t); k++) {
        count += is_point(t, k, false, false);
    }
    return count;
}

/* One step of the first, and every `stride`-th point of the second. */
static void sweep_second(struct sweep_result *result, struct round *r,
                         const struct sweep_options *o, size_t budget)
{
    r->second_step = 0;
    if (!observed(result, r, o, 2)) {
        return;
    }
    struct trace *t = trace[1];
    size_t stride = count_points(t) / (budget > 0 ? budget : 1) + 1;
    size_t found = r->step % stride; /* other points for other steps */
    for (size_t j = 1; j <= last_point(t); j++) {
        if (is_point(t, j, false, false) && found++ % stride == 0) {
            r->second_step = j;
            try_point(result, r, o);
        }
    }
}

static struct sweep_result sweep_pairs(const struct sweep_case *c,
                                       const struct sweep_options *o)
{
    struct sweep_result result = {0};
    struct round r = {.c = c, .kind = TWO};
    double start = now();
    if (observed(&result, &r, o, 1)) {
        struct trace *t = trace[0];
        result.steps = t->length;
        size_t firsts = count_points(t), found = 0;
        size_t budget = o->pairs > 0 ? o->pairs : 2000;
        size_t stride = firsts * 10 / budget + 1;
        for (size_t k = 1; k <= last_point(t); k++) {
            result.changes += k <= t->length && t->at[k].changed;
            if (is_point(t, k, false, false) && found++ % stride == 0) {
                r.step = k;
                sweep_second(&result, &r, o, budget * stride / firsts);
            }
        }
    }
    result.seconds = now() - start;
    return result;
}

/* Called first by all: the shared things, once. */
static void get_ready(void)
{
    if (report != NULL) {
        return;
    }
    void *at[3];
    size_t bytes[3] = {sizeof *report, sizeof **trace, sizeof **trace};
    for (int i = 0; i < 3; i++) {
        at[i] = mmap(NULL, bytes[i], PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at[i] == MAP_FAILED) {
            perror("sweep: mmap");
            exit(1);
        }
    }
    report = at[0];
    trace[0] = at[1];
    trace[1] = at[2];
    sched_getaffinity(0, sizeof all_cpus, &all_cpus);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

bool sweep_supported(void)
{
#ifdef SANITIZED
    return false; /* most of the steps would be the sanitizer's */
#else
    return trace_supported();
#endif
}

struct sweep_result sweep_kill(const struct sweep_case *c,
                               const struct sweep_options *o)
{
    get_ready();
    return sweep(c, KILL, o);
}

struct sweep_result sweep_pause(const struct sweep_case *c,
                                const struct sweep_options *o)
{
    get_ready();
    return sweep(c, PAUSE, o);
}

struct sweep_result sweep_two(const struct sweep_case *c,
                              const struct sweep_options *o)
{
    get_ready();
    return sweep_pairs(c, o);
}

static size_t print_result(const char *name, const char *kind,
                           const struct sweep_result *r)
{
    printf("%s (%s): %zu points, %zu steps, %zu changes, %zu wrong, %.1f s",
           name, kind, r->points, r->steps, r->changes, r->wrong, r->seconds);
    if (r->blocked > 0) {
        printf(", %zu would block", r->blocked);
    }
    if (r->early + r->strayed > 0) {
        printf(", %zu early, %zu strayed", r->early, r->strayed);
    }
    printf("\n");
    fflush(stdout);
    return r->wrong;
}

static size_t run_case(const struct sweep_case *c,
                       const struct sweep_options *o)
{
    size_t wrong = 0;
    struct sweep_result r;
    if (!c->pause_only) {
        r = sweep_kill(c, o);
        wrong += print_result(c->name, "kill", &r);
    }
    if (c->bystander != NULL) {
        r = sweep_pause(c, o);
        wrong += print_result(c->name, "pause", &r);
    }
    if (c->second != NULL) {
        r = sweep_two(c, o);
        wrong += print_result(c->name, "two deaths", &r);
    }
    return wrong;
}

static bool read_flag(struct sweep_options *o, const char *word)
{
    if (strcmp(word, "--all") == 0 || strcmp(word, "--changes") == 0) {
        o->all = word[2] == 'a';
    } else if (strcmp(word, "--unsampled") == 0) {
        o->unsampled = true;
    } else if (strcmp(word, "--verbose") == 0) {
        o->verbose = true;
    } else {
        return false;
    }
    return true;
}

static bool read_value(struct sweep_options *o, const char *word,
                       const char *value)
{
    size_t number = (size_t)strtoul(value, NULL, 10);
    if (strcmp(word, "--case") == 0) {
        o->only = value;
    } else if (strcmp(word, "--from") == 0) {
        o->from = number;
    } else if (strcmp(word, "--to") == 0) {
        o->to = number;
    } else if (strcmp(word, "--step") == 0) {
        o->stride = number;
    } else if (strcmp(word, "--pairs") == 0) {
        o->pairs = number;
    } else {
        return false;
    }
    return true;
}

static bool read_options(struct sweep_options *o, int count, char **word)
{
    for (int i = 0; i < count; i++) {
        if (read_flag(o, word[i])) {
            continue;
        }
        if (i + 1 == count || !read_value(o, word[i], word[i + 1])) {
            fprintf(stderr, "sweep: what is %s?\n", word[i]);
            return false;
        }
        i++;
    }
    return true;
}

static bool read_environment(struct sweep_options *o)
{
    static char text[256];
    char *word[32], *rest = text;
    const char *options = getenv("SWEEP_OPTIONS");
    int count = 0;
    snprintf(text, sizeof text, "%s", options != NULL ? options : "");
    while (count < 32 && (word[count] = strtok_r(rest, " ", &rest)) != NULL) {
        count++;
    }
    return read_options(o, count, word);
}

int sweep_main(int argc, char **argv, const struct sweep_case *cases,
               size_t count)
{
    struct sweep_options o = {0};
    size_t wrong = 0, ran = 0;
    if (!read_environment(&o) || !read_options(&o, argc - 1, argv + 1)) {
        return 2;
    }
    if (!sweep_supported()) {
        printf("skipped: no single steps here\n");
        return SWEEP_SKIPPED;
    }
    for (size_t i = 0; i < count; i++) {
        if (o.only == NULL || strcmp(o.only, cases[i].name) == 0) {
            wrong += run_case(&cases[i], &o);
            ran++;
        }
    }
    if (ran == 0) {
        fprintf(stderr, "sweep: no case %s\n", o.only);
        return 2;
    }
    return wrong > 0;
}
