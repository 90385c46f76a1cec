/* SPDX-License-Identifier: MIT */
/*
 * One victim under ptrace: started, observed, brought to its k-th step,
 * killed. Used by sweep.c only; sweep.h is the manual.
 */
#ifndef FAULT_TRACE_H
#define FAULT_TRACE_H

#include "sweep.h"

#include <stdint.h>
#include <sys/types.h>

enum { TRACE_STEPS = 1 << 22 };

/*
 * State i of an observed operation: i instructions done, `next` is to come.
 * `bulk` is 1 for a rep instruction before its first element, 2 before its
 * second, and so on; 0 elsewhere.
 */
struct trace_step {
    const uint8_t *next;
    uint32_t occurrence; /* `next` is reached for the n-th time */
    uint32_t bulk;
    bool changed; /* the instruction before changed shared bytes */
    bool passed;  /* inside a loop, not a point */
};

/* In memory shared by all rounds; untouched pages cost nothing. */
struct trace {
    size_t length; /* last state */
    bool asleep;   /* it ended by falling asleep, not by returning */
    struct trace_step at[TRACE_STEPS + 1];
};

enum trace_stop {
    TRACE_AT,       /* stopped where it should */
    TRACE_FINISHED, /* the operation has returned, the victim is stopped */
    TRACE_ENDED,    /* the process has ended; see status */
    TRACE_ASLEEP,   /* asleep in the kernel, and nobody will wake it */
    TRACE_LATE      /* not back after the limit, or too many steps */
};

struct victim {
    pid_t pid;
    int status;
    bool stepping; /* how it was resumed last */
    bool ended;    /* reaped */
    bool running;
    bool no_debug_registers;
    unsigned limit_ms;
    bool wake_comes;
};

bool trace_supported(void);

/* Forks the victim and brings it to the start of `run`. */
enum trace_stop trace_start(struct victim *v, const struct sweep_case *c,
                            int (*run)(void *), void *ctx);

/* Steps to the end, filling `t`. TRACE_FINISHED and TRACE_ASLEEP are good. */
enum trace_stop trace_observe(struct victim *v, const struct sweep_case *c,
                              void *ctx, struct trace *t);

/* From the start to state `k` of `t`; `plain`: in single steps all the way. */
enum trace_stop trace_reach(struct victim *v, const struct trace *t, size_t k,
                            bool plain);

/* Lets it run to its end. */
enum trace_stop trace_finish(struct victim *v);

/* Kills it if it lives. It is reaped, or with `zombie` only dead. */
void trace_kill(struct victim *v, bool zombie);
void trace_reap(struct victim *v);

/* Marks in `t` what loops pass over, as the manual says. */
void trace_sample_loops(struct trace *t);

/* The state letter of /proc/PID/stat and its count of minor faults. */
char trace_state(pid_t pid, unsigned long *faults);

const uint8_t *trace_instruction(const struct victim *v);

/* Writes "symbol+0x12 (0x401234)" for an address of this program. */
void trace_symbol(const void *address, char *text, size_t size);

#endif
