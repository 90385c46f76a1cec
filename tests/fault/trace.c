/* SPDX-License-Identifier: MIT */
/*
 * Single steps cost 15 to 60 us each, so nothing is stepped twice that can
 * be passed: a debug register stops the victim at the n-th occurrence of an
 * address observed before, and a rep instruction is cut short by its count.
 *
 * A step that does not come back is told from a slow one by a timer that
 * interrupts waitpid(): asleep in the kernel at every tick for ASLEEP_MS is
 * asleep for good.
 */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    TICK_MS = 20,
    ASLEEP_MS = 200,
    LATE_MS = 10000,
    PAGE = 4096,
    LOOP_LONGEST = 64, /* addresses */
    LOOP_TURNS = 64,
    LOOP_EDGE = 8,
    LOOP_STRIDE = 512
};

/* The marks. They differ, so that no compiler makes one of them. */
__attribute__((noinline)) void sweep_begin(void);
__attribute__((noinline)) void sweep_end(void);

void sweep_begin(void)
{
    __asm__ volatile("" ::: "memory");
}

void sweep_end(void)
{
    __asm__ volatile("nop" ::: "memory");
}

static const uint8_t *code(void (*function)(void))
{
    return (const uint8_t *)(uintptr_t)function;
}

char trace_state(pid_t pid, unsigned long *faults)
{
    char path[64], text[512], state = '?';
    unsigned long count = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[size > 0 ? size : 0] = 0;
    const char *end = strrchr(text, ')');
    if (end != NULL) {
        sscanf(end + 1, " %c %*d %*d %*d %*d %*d %*u %lu", &state, &count);
    }
    if (faults != NULL) {
        *faults = count;
    }
    return state;
}

/* --- what depends on the CPU --- */

#if defined(__x86_64__)

const uint8_t *trace_instruction(const struct victim *v)
{
    long ip = ptrace(PTRACE_PEEKUSER, v->pid,
                     offsetof(struct user_regs_struct, rip), NULL);
    return (const uint8_t *)ip;
}

static bool set_debug_register(struct victim *v, int number, uintptr_t value)
{
    size_t offset =
        offsetof(struct user, u_debugreg) + (size_t)number * sizeof(long);
    return ptrace(PTRACE_POKEUSER, v->pid, offset, value) == 0;
}

/* The length of a rep movs or rep stos at `ip`, else 0. */
static size_t rep_length(const uint8_t *ip)
{
    size_t at = ip[0] == 0xf3;
    if (at == 0) {
        return 0;
    }
    at += (ip[at] & 0xf0) == 0x40;
    bool moves = ip[at] == 0xa4 || ip[at] == 0xa5;
    bool stores = ip[at] == 0xaa || ip[at] == 0xab;
    return moves || stores ? at + 1 : 0;
}

static uint32_t rep_elements(struct victim *v, const uint8_t *ip)
{
    if (rep_length(ip) == 0) {
        return 0;
    }
    long count = ptrace(PTRACE_PEEKUSER, v->pid,
                        offsetof(struct user_regs_struct, rcx), NULL);
    return count < TRACE_STEPS ? (uint32_t)count : 0;
}

/* Sets the elements to do and the instruction to do them with. */
static void set_rep(struct victim *v, const uint8_t *ip, uint32_t elements)
{
    struct user_regs_struct r;
    ptrace(PTRACE_GETREGS, v->pid, NULL, &r);
    r.rcx = elements;
    r.rip = (unsigned long long)ip;
    ptrace(PTRACE_SETREGS, v->pid, NULL, &r);
}

#else /* trace_supported() says no, so these are never called */

const uint8_t *trace_instruction(const struct victim *v)
{
    return v->ended ? NULL : code(sweep_end);
}

static bool set_debug_register(struct victim *v, int number, uintptr_t value)
{
    (void)v, (void)number, (void)value;
    return false;
}

static size_t rep_length(const uint8_t *ip)
{
    (void)ip;
    return 0;
}

static uint32_t rep_elements(struct victim *v, const uint8_t *ip)
{
    (void)v, (void)ip;
    return 0;
}

static void set_rep(struct victim *v, const uint8_t *ip, uint32_t elements)
{
    (void)v, (void)ip, (void)elements;
}

#endif

/* --- running and stopping --- */

static void on_tick(int signal_number)
{
    (void)signal_number;
}

static void tick(bool on)
{
    struct sigaction act = {.sa_handler = on ? on_tick : SIG_IGN};
    suseconds_t us = on ? TICK_MS * 1000 : 0;
    struct itimerval every = {{0, us}, {0, us}};
    if (on) {
        sigaction(SIGALRM, &act, NULL);
    }
    setitimer(ITIMER_REAL, &every, NULL);
    if (!on) {
        sigaction(SIGALRM, &act, NULL); /* drops a pending one */
        act.sa_handler = SIG_DFL;
        sigaction(SIGALRM, &act, NULL);
    }
}

static void resume(struct victim *v, bool stepping, int signal_number)
{
    void *data = (void *)(intptr_t)signal_number;
    v->stepping = stepping;
    v->running = true;
    if (stepping) {
        ptrace(PTRACE_SINGLESTEP, v->pid, NULL, data);
    } else {
        ptrace(PTRACE_CONT, v->pid, NULL, data);
    }
}

/* After waitpid() was interrupted: TRACE_AT means go on waiting. */
static enum trace_stop judge_wait(const struct victim *v, unsigned *asleep_ms,
                                  unsigned *waited_ms)
{
    bool asleep = trace_state(v->pid, NULL) == 'S';
    *asleep_ms = asleep ? *asleep_ms + TICK_MS : 0;
    *waited_ms += TICK_MS;
    if (*asleep_ms >= ASLEEP_MS && !v->wake_comes) {
        return TRACE_ASLEEP;
    }
    return *waited_ms >= v->limit_ms ? TRACE_LATE : TRACE_AT;
}

/* The next stop by a trap; other signals are passed on to the victim. */
static enum trace_stop await_stop(struct victim *v)
{
    unsigned asleep_ms = 0, waited_ms = 0;
    for (;;) {
        if (waitpid(v->pid, &v->status, __WALL) != v->pid) {
            enum trace_stop why = judge_wait(v, &asleep_ms, &waited_ms);
            if (why != TRACE_AT) {
                return why;
            }
            continue;
        }
        v->running = false;
        if (!WIFSTOPPED(v->status)) {
            v->ended = true;
            return TRACE_ENDED;
        }
        if (WSTOPSIG(v->status) == SIGTRAP) {
            return TRACE_AT;
        }
        resume(v, v->stepping, WSTOPSIG(v->status));
    }
}

static enum trace_stop step(struct victim *v)
{
    resume(v, true, 0);
    return await_stop(v);
}

/* Stops at `a` and at `b` from now on; with NULL, nowhere. */
static void set_stops(struct victim *v, const uint8_t *a, const uint8_t *b)
{
    if (v->no_debug_registers) {
        return;
    }
    bool ok = set_debug_register(v, 7, 0);
    if (a != NULL) {
        ok = ok && set_debug_register(v, 0, (uintptr_t)a) &&
             set_debug_register(v, 1, (uintptr_t)b) &&
             set_debug_register(v, 7, 1 | 4);
    }
    v->no_debug_registers = !ok;
}

/* Runs until it comes to `address` for the `nth` time from here. */
static enum trace_stop run_to(struct victim *v, const uint8_t *address,
                              uint32_t nth)
{
    const uint8_t *end = code(sweep_end);
    enum trace_stop why = TRACE_AT;
    set_stops(v, address, end);
    while (why == TRACE_AT && nth > 0) {
        resume(v, v->no_debug_registers, 0);
        why = await_stop(v);
        if (why == TRACE_AT) {
            const uint8_t *ip = trace_instruction(v);
            nth -= ip == address;
            if (ip == end && nth > 0) {
                why = TRACE_FINISHED;
            }
        }
    }
    if (!v->ended && !v->running) {
        set_stops(v, NULL, NULL);
    }
    return why;
}

static _Noreturn void victim_main(const struct sweep_case *c,
                                  int (*run)(void *), void *ctx)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
        _exit(SWEEP_SKIPPED);
    }
    raise(SIGSTOP);
    if (c->prepare != NULL) {
        c->prepare(ctx);
    }
    sweep_begin();
    int status = run(ctx);
    sweep_end();
    _exit(status);
}

enum trace_stop trace_start(struct victim *v, const struct sweep_case *c,
                            int (*run)(void *), void *ctx)
{
    unsigned limit_ms = c->limit_ms > LATE_MS ? c->limit_ms : LATE_MS;
    *v = (struct victim){.limit_ms = limit_ms, .wake_comes = c->wake_comes};
    v->pid = fork();
    if (v->pid == 0) {
        victim_main(c, run, ctx);
    }
    if (v->pid < 0 || waitpid(v->pid, &v->status, 0) != v->pid ||
        !WIFSTOPPED(v->status)) {
        v->ended = true;
        return TRACE_ENDED;
    }
    ptrace(PTRACE_SETOPTIONS, v->pid, NULL, (void *)PTRACE_O_EXITKILL);
    tick(true);
    enum trace_stop why = run_to(v, code(sweep_begin), 1);
    tick(false);
    return why;
}

/* At a rep instruction: executes `elements` of it, as single steps would. */
static enum trace_stop pass_elements(struct victim *v, uint32_t elements)
{
    const uint8_t *ip = trace_instruction(v);
    uint32_t all = rep_elements(v, ip);
    if (elements >= all) {
        return TRACE_AT; /* strayed */
    }
    set_rep(v, ip, elements);
    enum trace_stop why = run_to(v, ip + rep_length(ip), 1);
    if (why == TRACE_AT) {
        set_rep(v, ip, all - elements);
    }
    return why;
}

/*
 * What the victim may have changed. `copy[i]` is page i as last seen, NULL
 * for one that was a hole at the start. Only pages that the victim itself has
 * touched, hence mapped, are compared: `watched`.
 */
struct watch {
    struct sweep_range range;
    size_t pages;
    uint8_t **copy;
    bool *watched;
};

struct watches {
    struct watch of[SWEEP_RANGES];
    size_t count;
    size_t pages; /* watched in all ranges together */
    struct {
        uint8_t *page, *copy;
    } page[1 << 16];
    int pagemap;
    unsigned long faults;
};

static void snapshot(struct watch *w)
{
    uintptr_t begin = (uintptr_t)w->range.begin & ~(uintptr_t)(PAGE - 1);
    uintptr_t end = (uintptr_t)w->range.begin + w->range.bytes;
    w->range.begin = (void *)begin;
    w->pages = (end - begin + PAGE - 1) / PAGE;
    w->copy = calloc(w->pages, sizeof *w->copy);
    w->watched = calloc(w->pages, sizeof *w->watched);
    unsigned char *resident = calloc(w->pages, 1);
    mincore(w->range.begin, w->pages * PAGE, resident);
    for (size_t i = 0; i < w->pages; i++) {
        if (resident[i] & 1) {
            w->copy[i] = malloc(PAGE);
            memcpy(w->copy[i], (uint8_t *)begin + i * PAGE, PAGE);
        }
    }
    free(resident);
}

static void watch_page(struct watches *all, struct watch *w, size_t i)
{
    if (w->watched[i] || all->pages == sizeof all->page / sizeof *all->page) {
        return;
    }
    if (w->copy[i] == NULL) {
        w->copy[i] = calloc(1, PAGE);
    }
    w->watched[i] = true;
    all->page[all->pages].page = (uint8_t *)w->range.begin + i * PAGE;
    all->page[all->pages++].copy = w->copy[i];
}

/* A page fault of the victim may be its first touch of a page. */
static void watch_more(struct watches *all, pid_t pid)
{
    static uint64_t entry[8192];
    unsigned long faults;
    trace_state(pid, &faults);
    for (size_t n = 0; faults != all->faults && n < all->count; n++) {
        struct watch *w = &all->of[n];
        size_t first = (uintptr_t)w->range.begin / PAGE;
        for (size_t i = 0; i < w->pages; i += 8192) {
            ssize_t got = pread(all->pagemap, entry, sizeof entry,
                                (off_t)((first + i) * 8));
            for (size_t e = 0; got > 0 && e < (size_t)got / 8; e++) {
                if (entry[e] >> 63 && i + e < w->pages) {
                    watch_page(all, w, i + e);
                }
            }
        }
    }
    all->faults = faults;
}

static struct watches *watch(const struct sweep_case *c, void *ctx, pid_t pid)
{
    struct sweep_range range[SWEEP_RANGES];
    struct watches *all = calloc(1, sizeof *all);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)pid);
    all->pagemap = open(path, O_RDONLY | O_CLOEXEC);
    all->count = c->shared(ctx, range);
    for (size_t i = 0; i < all->count; i++) {
        all->of[i].range = range[i];
        snapshot(&all->of[i]);
    }
    watch_more(all, pid);
    return all;
}

static bool look_for_changes(struct watches *all, pid_t pid)
{
    bool changed = false;
    watch_more(all, pid);
    for (size_t i = 0; i < all->pages; i++) {
        if (memcmp(all->page[i].page, all->page[i].copy, PAGE) != 0) {
            memcpy(all->page[i].copy, all->page[i].page, PAGE);
            changed = true;
        }
    }
    return changed;
}

/* Records a whole rep instruction without stepping it. */
static enum trace_stop observe_rep(struct victim *v, struct trace *t,
                                   const uint8_t *ip, uint32_t elements)
{
    if (t->length + elements >= TRACE_STEPS) {
        return TRACE_LATE;
    }
    for (uint32_t i = 0; i < elements; i++) {
        t->at[t->length + i] =
            (struct trace_step){.next = ip, .bulk = i + 1, .changed = i > 0};
    }
    t->length += elements;
    return run_to(v, ip + rep_length(ip), 1);
}

static enum trace_stop observe(struct victim *v, struct trace *t,
                               struct watches *all)
{
    for (t->length = 0; t->length < TRACE_STEPS;) {
        struct trace_step *at = &t->at[t->length];
        bool changed = look_for_changes(all, v->pid);
        const uint8_t *ip = trace_instruction(v);
        *at = (struct trace_step){.next = ip, .changed = changed};
        if (ip == code(sweep_end)) {
            return TRACE_FINISHED;
        }
        uint32_t elements = rep_elements(v, ip);
        enum trace_stop why;
        if (elements > 1) {
            why = observe_rep(v, t, ip, elements);
            at->changed = changed;
        } else {
            why = step(v);
            t->length += why == TRACE_AT;
        }
        if (why != TRACE_AT) {
            return why;
        }
    }
    return TRACE_LATE;
}

/* How often was the `next` of each state reached up to it? */
static void count_occurrences(struct trace *t)
{
    size_t size = 1 << 16;
    struct {
        const uint8_t *address;
        uint32_t count;
    } * seen;
    while (size < 2 * t->length) {
        size *= 2;
    }
    seen = calloc(size, sizeof *seen);
    for (size_t k = 1; k <= t->length; k++) {
        const uint8_t *address = t->at[k].next;
        size_t i = ((uintptr_t)address * 0x9e3779b97f4a7c15u) & (size - 1);
        while (seen[i].address != NULL && seen[i].address != address) {
            i = (i + 1) & (size - 1);
        }
        seen[i].address = address;
        seen[i].count += t->at[k].bulk <= 1;
        t->at[k].occurrence = seen[i].count;
    }
    free(seen);
}

enum trace_stop trace_observe(struct victim *v, const struct sweep_case *c,
                              void *ctx, struct trace *t)
{
    struct watches *all = watch(c, ctx, v->pid); /* the round ends soon */
    tick(true);
    enum trace_stop why = observe(v, t, all);
    tick(false);
    t->asleep = why == TRACE_ASLEEP;
    count_occurrences(t);
    return why;
}

/* From which state is `k` the nearest, by occurrences and steps from it? */
static size_t best_anchor(const struct trace *t, size_t k)
{
    size_t best = 0, cost = k;
    for (size_t j = k; j > 0 && k - j < cost; j--) {
        size_t through = k - j + t->at[j].occurrence;
        if (t->at[j].bulk <= 1 && through < cost) {
            cost = through;
            best = j;
        }
    }
    return best;
}

static enum trace_stop reach(struct victim *v, const struct trace *t, size_t k)
{
    size_t inside = t->at[k].bulk > 1 ? t->at[k].bulk - 1 : 0;
    size_t from = best_anchor(t, k - inside);
    enum trace_stop why = TRACE_AT;
    if (from > 0) {
        why = run_to(v, t->at[from].next, t->at[from].occurrence);
    }
    for (; why == TRACE_AT && from < k - inside; from++) {
        if (trace_instruction(v) == code(sweep_end)) {
            return TRACE_FINISHED;
        }
        why = step(v);
    }
    if (why == TRACE_AT && inside > 0) {
        why = pass_elements(v, (uint32_t)inside);
    }
    return why;
}

static enum trace_stop reach_plainly(struct victim *v, size_t k)
{
    enum trace_stop why = TRACE_AT;
    for (; why == TRACE_AT && k > 0; k--) {
        if (trace_instruction(v) == code(sweep_end)) {
            return TRACE_FINISHED;
        }
        why = step(v);
    }
    return why;
}

enum trace_stop trace_reach(struct victim *v, const struct trace *t, size_t k,
                            bool plain)
{
    bool sleeps = t->asleep && k > t->length;
    size_t to = sleeps ? t->length : k;
    tick(true);
    enum trace_stop why = plain ? reach_plainly(v, to) : reach(v, t, to);
    if (why == TRACE_AT && sleeps) {
        why = step(v);
    }
    tick(false);
    return why;
}

enum trace_stop trace_finish(struct victim *v)
{
    tick(true);
    resume(v, false, 0);
    enum trace_stop why;
    while ((why = await_stop(v)) == TRACE_AT) {
        resume(v, false, 0);
    }
    tick(false);
    return why;
}

bool trace_supported(void)
{
#if !defined(__x86_64__)
    return false;
#endif
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(SWEEP_SKIPPED);
        }
        raise(SIGSTOP);
        _exit(0);
    }
    int status = 0;
    bool stopped =
        pid > 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status);
    bool stepped = stopped && ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0 &&
                   waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) &&
                   WSTOPSIG(status) == SIGTRAP;
    if (stopped && WIFSTOPPED(status)) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    return stepped;
}

void trace_kill(struct victim *v, bool zombie)
{
    siginfo_t info;
    if (v->ended) {
        return;
    }
    kill(v->pid, SIGKILL);
    v->running = false;
    while (waitid(P_PID, (id_t)v->pid, &info, WEXITED | WNOWAIT) != 0 &&
           errno == EINTR) {
    }
    if (!zombie) {
        trace_reap(v);
    }
}

void trace_reap(struct victim *v)
{
    if (!v->ended && v->pid > 0) {
        waitpid(v->pid, &v->status, 0);
        v->ended = true;
    }
}

static void sample_run(struct trace *t, size_t begin, size_t end)
{
    for (size_t k = begin; k < end; k++) {
        size_t at = k - begin;
        bool edge = at < LOOP_EDGE || end - k <= LOOP_EDGE;
        t->at[k].passed = !edge && at % LOOP_STRIDE != 0;
    }
}

void trace_sample_loops(struct trace *t)
{
    for (size_t turn = 1; turn <= LOOP_LONGEST; turn++) {
        size_t begin = 0;
        for (size_t k = turn; k <= t->length + 1; k++) {
            if (k <= t->length && t->at[k].next == t->at[k - turn].next) {
                continue;
            }
            if (k - begin > turn * LOOP_TURNS && !t->at[begin].passed) {
                sample_run(t, begin, k);
            }
            begin = k + 1 - turn;
        }
    }
}
