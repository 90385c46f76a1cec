/* SPDX-License-Identifier: MIT */
/* A process as its handle shows it. */
#ifndef MPR_PROC_PROCESS_H
#define MPR_PROC_PROCESS_H

#include <mproc/process.h>

#include "shm/object.h"

struct mpr_child_record;

enum {
    MPR_NAME_SIZE = 64, /* with the zero; longer names are cut */
    MPR_PATH_SIZE = 40
};

/* The low byte of `state`; behind ENDED the exit code stands above it. */
enum mpr_process_phase {
    MPR_PROCESS_MADE,
    MPR_PROCESS_STARTING,
    MPR_PROCESS_RUNS,
    MPR_PROCESS_ENDED,
    MPR_PROCESS_LOST /* ended, and the code is unknown */
};

/*
 * All but the words named below are written before the handle is live and do
 * not change. `path` is the ordinals that a default name ends with. `record`
 * points into the maker's private memory (children.h) and means nothing
 * elsewhere.
 * `state`: by the maker, under its children's mutex. `pid`, `since_boot_ns` and
 * RUNS are written by the maker and by the child in its first call, who ever is
 * first, with like values; `id` by the child, of a thread its process's.
 * Publishes: `state`, after `pid` and `since_boot_ns`. Survives: a maker killed
 * while STARTING leaves what the child writes; one killed later leaves RUNS for
 * ever, so others ask the system whether the process lives.
 */
struct mproc_process {
    struct mpr_object object;
    mpr_id maker;
    mproc_main_fn *fn;
    void *arg;
    struct mpr_child_record *record;
    uint32_t daemon;
    uint32_t start; /* an MPROC_START_… */
    _Atomic uint32_t state;
    _Atomic mpr_id id;
    _Atomic int64_t since_boot_ns;
    _Atomic int32_t pid;
    char path[MPR_PATH_SIZE];
    char name[MPR_NAME_SIZE];
};

static inline enum mpr_process_phase
mpr_process_phase(const struct mproc_process *p)
{
    return (enum mpr_process_phase)(atomic_load(&p->state) & 0xff);
}

/* What a child knows of itself: its handle may be freed any time. */
struct mpr_role {
    struct mproc_process *handle;
    uint64_t tag; /* of the handle, while that is live */
    mproc_main_fn *fn;
    void *arg;
    uint32_t daemon;
    char path[MPR_PATH_SIZE];
    char name[MPR_NAME_SIZE];
};

/*
 * Lock (children.h), for a call that is the maker's: EINVAL, EPERM: not locked.
 * The handle stays live until mpr_children_leave.
 */
int mpr_process_enter(const struct mproc_process *p);

/* `err` is what mpr_os_child_reap answered: 0, or ECHILD. */
void mpr_process_has_ended(struct mproc_process *p, int err, int code);

/* In a live handle: its start has failed; it may be started still. */
void mpr_process_not_started(struct mproc_process *p);

/* In a live handle: this is its pid, and it runs. */
void mpr_process_runs(struct mproc_process *p, pid_t pid);

/*
 * By the process itself, once it has its slot: as above, in its handle, if that
 * has its tag still.
 */
void mpr_process_begins(struct mproc_process *p, uint64_t tag, mpr_id id);

#endif
