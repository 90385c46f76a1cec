/* SPDX-License-Identifier: MIT */
/*
 * Crash tests at every instruction.
 *
 * A *case* names an operation on shared memory. A sweep runs the operation
 * in a process of its own, the victim, again and again, stops it by single
 * steps after its k-th instruction, for k = 1, 2, 3 ..., does something
 * unkind there, and lets the case look at what is left:
 *
 *   kill sweep   the victim is killed with SIGKILL.
 *   pause sweep  the victim stays stopped while a bystander runs to its end,
 *                then goes on to its own end. It finds what no kill finds:
 *                a decision that somebody else made untrue meanwhile. Run if
 *                the case has a `bystander`.
 *   two deaths   the victim is killed after step k, a second process, often
 *                the one that recovers, after its step j. Run if the case has
 *                a `second`.
 *
 * Each round is a process forked from the test program. It calls `setup`
 * (so what `setup` makes is fresh, and whatever the round breaks ends with
 * it), forks sleeper, victim and bystander, which share its memory at the
 * same addresses, and calls `check`. Order of a round:
 *
 *   setup; sleeper falls asleep; victim runs k instructions;
 *   it is killed (or: bystander runs, victim ends);
 *   [second runs j instructions and is killed]; follow_up;
 *   sleeper ends; check; teardown
 *
 * The round does nothing in shared memory between kill and the sleeper's end
 * unless the case has a `follow_up`: the sleeper is the only one who can
 * notice the death. Let it sleep without a time-out, since a timed look hides
 * a lost wake.
 *
 * How to write a case: a static struct with designated initializers, a main
 * that calls sweep_main(). See test_sweep.c. Return values of functions run
 * in a child are its exit status: 0 is good. Take care that
 *   - the program is linked with -static, or at least with -z now: otherwise
 *     the first call of a function steps through the dynamic linker;
 *   - `prepare` does what is not to be swept (a first call that allocates a
 *     place for the process, a warm cache);
 *   - the test program has no children of its own: what is left of a round
 *     is found as an orphan of the program, killed and reaped.
 * Victim and round share one CPU (a step then costs a third); sleeper and
 * bystander may run on all. No wait is without a limit, and reaching one is
 * a fault: `limit_ms` for those two, 10 s or `limit_ms` for the others.
 *
 * Where it stops. First the operation is stepped through once and observed.
 * Points are then either all instructions (`--all`) or, by default, those
 * after which shared bytes had changed, the one before each, and the last.
 * Inside a loop (same at most 64 addresses, more than 64 times) only the
 * first 8 steps, every 512th and the last 8 are points, in both modes.
 * Other steps are passed at full speed by a debug register. `rep movs` and
 * `rep stos` count as one step per element. If the operation falls asleep for
 * good, being asleep is its last point; else the last is its return.
 * A round may take another path than the observed one: it is stopped
 * somewhere else then, which is no error; one that ends too early is repeated
 * in single steps and counts as `early` if it ends again.
 *
 * x86-64 Linux only: elsewhere, where ptrace is forbidden, and in a build
 * with the address or thread sanitizer, sweep_main() returns 77. (On aarch64
 * a step clears the exclusive monitor, so a lock made with ldxr/stxr would
 * never be taken under single steps.)
 */
#ifndef FAULT_SWEEP_H
#define FAULT_SWEEP_H

#include <stdbool.h>
#include <stddef.h>

enum {
    SWEEP_RANGES = 8,       /* ranges a case may name */
    SWEEP_WOULD_BLOCK = 75, /* bystander: timed out, as it may */
    SWEEP_SKIPPED = 77      /* sweep_main(): not on this machine */
};

/* Where a round was stopped. */
struct sweep_point {
    size_t step;             /* instructions the victim has executed */
    const void *instruction; /* the last of them, as observed */
    bool finished;           /* the operation had returned */
    bool asleep;             /* it was asleep in the kernel */
    bool would_block;        /* the bystander said SWEEP_WOULD_BLOCK */
    size_t second_step;      /* two deaths: instructions of the second */
};

struct sweep_range {
    void *begin;
    size_t bytes;
};

/* Functions get what `setup` returned. Only those marked * are needed. */
struct sweep_case {
    const char *name;                    /* * */
    void *(*setup)(void);                /* * in the round; NULL fails it */
    void (*prepare)(void *ctx);          /* in the victim, before step 1 */
    int (*operation)(void *ctx);         /* * in the victim: what is swept */
    int (*sleeper)(void *ctx);           /* must sleep in a futex, then end */
    int (*bystander)(void *ctx);         /* 0, SWEEP_WOULD_BLOCK, or a fault */
    int (*second)(void *ctx);            /* in the second victim */
    const char *(*follow_up)(void *ctx); /* NULL, or what is wrong */
    const char *(*check)(void *ctx, const struct sweep_point *at); /* * same */
    void (*teardown)(void *ctx);
    /*
     * Stores the ranges whose changes matter, SWEEP_RANGES at most, and
     * returns how many. Shared mappings; huge ones are fine as long as most
     * pages are untouched (64 GiB: 0.8 s for the one observation).
     */
    size_t (*shared)(void *ctx, struct sweep_range *ranges); /* * */
    unsigned limit_ms; /* for sleeper and bystander to end; 0 = 10 s */
    bool wake_comes;   /* a victim asleep will be woken: wait for it */
    bool keep_zombie;  /* reap the victims only at the end of the round */
    bool pause_only;   /* no kill sweep, e.g. without meaning */
};

struct sweep_options {
    bool all;         /* points: all instructions, not only changes */
    bool unsampled;   /* all steps of loops too */
    bool verbose;     /* a line per point */
    bool quiet;       /* nothing printed, for tests of the harness */
    size_t from, to;  /* steps; to 0 = to the end */
    size_t stride;    /* every n-th point; 0 = 1 */
    size_t pairs;     /* two deaths: budget; 0 = 2000 */
    const char *only; /* name of the one case; NULL = all */
};

struct sweep_result {
    size_t steps;   /* of the observed operation */
    size_t changes; /* of them, those that changed shared bytes */
    size_t points;  /* rounds tried */
    size_t wrong;   /* rounds that went wrong */
    size_t early;   /* rounds whose operation ended before its point */
    size_t strayed; /* rounds stopped at another instruction than observed */
    size_t blocked; /* rounds whose bystander would have blocked */
    double seconds;
    char first[512]; /* what was wrong first */
};

/* False: skip, there is no single stepping here. */
bool sweep_supported(void);

/* Each runs one sweep of one case. An observation that fails is 1 wrong. */
struct sweep_result sweep_kill(const struct sweep_case *c,
                               const struct sweep_options *o);
struct sweep_result sweep_pause(const struct sweep_case *c,
                                const struct sweep_options *o);
struct sweep_result sweep_two(const struct sweep_case *c,
                              const struct sweep_options *o);

/*
 * The main function of a test program: all sweeps of all cases, a line for
 * each. Options in argv, and before them in the environment variable
 * SWEEP_OPTIONS: --all --changes --unsampled --case NAME --from K --to K
 * --step N --pairs N --verbose. Returns 0, 1 (something is wrong), 2 (usage),
 * or SWEEP_SKIPPED.
 */
int sweep_main(int argc, char **argv, const struct sweep_case *cases,
               size_t count);

#endif
