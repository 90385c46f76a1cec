/* SPDX-License-Identifier: MIT */
/*
 * The children of the calling process: private memory under one mutex. A
 * forked child has none.
 *
 * Each handle that is made here has a record, which lasts until the handle is
 * freed and its process reaped. Only who holds the mutex reaps, so a status is
 * taken once, and a pid in a running record is not another process's, unless
 * somebody outside the library reaps children that are not theirs.
 */
#ifndef MPR_PROC_CHILDREN_H
#define MPR_PROC_CHILDREN_H

#include "proc/process.h"

enum mpr_child_kind {
    MPR_CHILD_PROCESS, /* a child of this process for the system too */
    MPR_CHILD_SERVED,  /* a child of its forkserver */
    MPR_CHILD_THREAD
};

/* What comes of the start of a process. */
struct mpr_born {
    pid_t pid;
    int pidfd;       /* -1: none */
    int channel;     /* it awaits the go by (errand.h); -1: it runs */
    uint64_t serial; /* a forkserver's child; else 0 */
};

/*
 * Fields change only under the mutex; `kind`, `pid`, `daemon` not once it runs.
 */
struct mpr_child_record {
    struct mpr_child_record *next; /* in one of the lists */
    struct mpr_child_record *prev;
    struct mproc_process *handle; /* NULL: freed */
    void *arg;                    /* the copy of the argument, or NULL */
    size_t arg_size;
    unsigned users; /* threads that use it unlocked */
    enum mpr_child_kind kind;
    pthread_t thread;
    bool joinable;                 /* the thread was not joined yet */
    _Atomic uint32_t thread_ended; /* those who wait for a thread sleep on it */
    pid_t pid;                     /* 0: not started */
    int pidfd; /* -1: none, or no longer; a thread's: raised at its end */
    bool daemon;
    bool running;
    bool shown;      /* the user was told the pidfd */
    bool told;       /* its server has told the code */
    int code;        /* if told */
    uint64_t serial; /* as its server knows it */
    int64_t since_boot_ns;
};

/*
 * Lock. From here until mpr_children_leave no user code runs, and nothing is
 * waited for.
 */
void mpr_children_enter(void);

/* Unlock, and give back what those who were found dead had in hand. */
void mpr_children_leave(void);

/* All below: locked. */

/* The record of a handle that belongs to the calling process. */
bool mpr_children_mine(const struct mproc_process *p);

/* The record of a handle that is being made belongs to this process now. */
void mpr_children_add(struct mpr_child_record *child);

/* Set the child's start in its record and put it among those that run. */
void mpr_children_runs(struct mpr_child_record *child,
                       const struct mpr_born *born);

/* As above, of a thread of this process. It is a user of the record. */
void mpr_children_thread_runs(struct mpr_child_record *child, pthread_t thread);

/* Is the caller this thread? */
bool mpr_children_is_caller(const struct mpr_child_record *child);

/* True once it has ended: reaps it, and writes its end into the handle. */
bool mpr_children_collect(struct mpr_child_record *child);

/*
 * Collect all that have ended; with `orphans` only those whose handle was
 * freed. True if any.
 */
bool mpr_children_collect_all(bool orphans);

/*
 * Unlocks while it waits for the child's end. False: the deadline passed.
 * Afterwards the record is gone if its handle is.
 */
bool mpr_children_await(struct mpr_child_record *child, mproc_deadline until);

/* MPROC_ESRCH counts as sent. MPROC_ENOTSUP: a thread. */
int mpr_children_signal(struct mpr_child_record *child, int sig);

/*
 * One user more: until mpr_children_release the descriptor that tells of its
 * end stays. -1: there is none.
 */
int mpr_children_hold(struct mpr_child_record *child);

/* A descriptor to show to the user. EMFILE, ENFILE, ENOMEM, ENOTSUP. */
int mpr_children_fd(struct mpr_child_record *child);

/* The handle is gone. Frees the record once nobody needs it. */
void mpr_children_orphan(struct mpr_child_record *child);

/* One user less. As above. */
void mpr_children_release(struct mpr_child_record *child);

/*
 * Is there room for `more` processes, and for the children that run and have
 * not made their first call yet? Locks. Not with a guard locked.
 */
bool mpr_children_room(struct mpr_thread *self, uint32_t more);

/* The first of those that run; NULL: there is none. */
struct mpr_child_record *mpr_children_first(void);

/* ---- not locked ------------------------------------------------------- */

/* A record, with a copy of the argument if that has a size. NULL: no memory. */
struct mpr_child_record *mpr_children_record(const void *arg, size_t arg_size);
void mpr_children_free_record(struct mpr_child_record *child);

/* By a thread, when it begins, and as the last it does with its record. */
void mpr_children_be_thread(struct mpr_child_record *child);
void mpr_children_thread_ended(struct mpr_child_record *child, int code);

/*
 * Terminate the daemonic ones, then wait for all; but not for daemonic threads,
 * which end with the process, nor for the caller. Last ends the forkserver.
 */
void mpr_children_end(void);

/* In a new child: close and forget what its parent knew of its children. */
void mpr_children_forget(void);

#endif
