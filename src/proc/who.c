/* SPDX-License-Identifier: MIT */
#include "proc/who.h"

#include <stdio.h>
#include <string.h>

/*
 * `first` describes the first process of the family in every descendant too;
 * `own` the calling process where it is another one.
 */
static struct mproc_process first = {.name = "MainProcess"};
static struct mproc_process own;

static struct {
    pid_t pid; /* of the process that the rest is about */
    pid_t parent;
    struct mproc_process *shown; /* &first or &own */
    struct mproc_process *handle;
    uint64_t tag; /* of the handle */
    _Atomic unsigned children;
} me;

static void describe(struct mproc_process *p)
{
    atomic_store(&p->since_boot_ns, mpr_os_boot_now());
    atomic_store(&p->pid, me.pid);
    atomic_store(&p->state, MPR_PROCESS_RUNS);
}

static void be_first(void)
{
    me.pid = mpr_os_pid();
    me.parent = 0;
    me.shown = &first;
    describe(&first);
}

/* What a plain fork has made; runs after each of them, in the child. */
static void be_forked(void)
{
    if (mpr_family == NULL) {
        be_first();
        return;
    }
    if (me.shown == &first) {
        mpr_who_copy_name(own.name, first.name);
    }
    me.parent = me.pid;
    me.pid = mpr_os_pid();
    me.shown = &own;
    me.handle = NULL;
    describe(&own);
}

__attribute__((constructor)) static void begin(void)
{
    be_first();
    pthread_atfork(NULL, NULL, be_forked); /* refused: the pid tells */
}

static void look(void)
{
    if (me.pid != mpr_os_pid()) {
        be_forked();
    }
}

bool mpr_who_is_static(const mproc_process *p)
{
    return p == &first || p == &own;
}

bool mpr_who_is_daemonic(void)
{
    look();
    return me.shown->daemon != 0;
}

void mpr_who_next_path(char path[static MPR_PATH_SIZE])
{
    look();
    const char *mine = me.shown->path;
    snprintf(path, MPR_PATH_SIZE, "%.*s%s%u", MPR_PATH_SIZE - 12, mine,
             *mine != '\0' ? ":" : "", atomic_fetch_add(&me.children, 1) + 1);
}

void mpr_who_copy_name(char out[static MPR_NAME_SIZE], const char *name)
{
    size_t size = strnlen(name, MPR_NAME_SIZE);
    if (size == MPR_NAME_SIZE) {
        size--;
        while (size > 0 && ((unsigned char)name[size] & 0xc0) == 0x80) {
            size--;
        }
    }
    memmove(out, name, size);
    memset(out + size, 0, MPR_NAME_SIZE - size);
}

void mpr_who_become_named(const char *name)
{
    look();
    mpr_who_copy_name(own.name, name);
    memset(own.path, 0, sizeof own.path);
    own.daemon = 0;
    atomic_store(&me.children, 0);
}

void mpr_who_become(struct mproc_process *p, uint64_t tag)
{
    mpr_who_become_named(p->name);
    memcpy(own.path, p->path, sizeof own.path);
    own.daemon = p->daemon;
    me.handle = p;
    me.tag = tag;
}

void mpr_who_set_parent(pid_t pid)
{
    look();
    me.parent = pid;
}

mproc_process *mproc_process_current(void)
{
    look();
    bool live = me.handle != NULL && mpr_object_unchanged(me.handle, me.tag);
    return live ? me.handle : me.shown;
}

pid_t mproc_process_parent_pid(void)
{
    look();
    return me.parent;
}
