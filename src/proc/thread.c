/* SPDX-License-Identifier: MIT */
#include "proc/thread.h"

#include <stdlib.h>

#include "proc/child.h"
#include "proc/who.h"

struct life {
    struct mpr_role role;
    struct mpr_child_record *record;
    struct mproc_process shown; /* what it is, without its handle */
    pid_t pid;                  /* of the process whose thread it is */
    int code;
};

/* Also where the function calls pthread_exit. */
static void end(void *user)
{
    struct life *life = user;
    if (life->pid == mpr_os_pid()) {
        mpr_who_end_thread();
        mpr_children_thread_ended(life->record, life->code & 0xff);
    } /* else a fork of this thread has come to its end */
    free(life);
}

static void run(void *user)
{
    struct life *life = user;
    struct mpr_thread *self;
    mpr_who_be_thread(&life->role, &life->shown);
    mpr_process_begins(life->role.handle, life->role.tag,
                       mpr_self(&self) == 0 ? mpr_self_id() : 0);
    life->code = life->role.fn(life->role.arg);
}

static void *live(void *user)
{
    struct life *life = user;
    mpr_children_be_thread(life->record);
    mpr_os_run_to_end(run, end, life);
    return NULL;
}

/* Locked, so that it does not end before it is known to run. */
static int make_thread(struct life *life)
{
    pthread_t thread;
    int err = pthread_create(&thread, NULL, live, life);
    if (err != 0) {
        return -err;
    }
    mpr_children_thread_runs(life->record, thread);
    return 0;
}

int mpr_thread_start(const struct mpr_role *role,
                     struct mpr_child_record *record)
{
    int err = mpr_child_end_at_exit();
    struct life *life = malloc(sizeof *life);
    mpr_children_enter();
    if (err < 0 || life == NULL) {
        free(life);
        return MPROC_ENOMEM;
    }
    *life = (struct life){.role = *role, .record = record, .pid = mpr_os_pid()};
    err = make_thread(life);
    if (err < 0) {
        free(life);
    }
    return err;
}
