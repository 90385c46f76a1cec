/* SPDX-License-Identifier: MIT */
#include "proc/who.h"

#include <stdio.h>
#include <string.h>

/*
 * `first` describes the first process of the family in every descendant too;
 * `own` the calling process where it is another one, with the name of the first
 * until it gets another.
 */
#define FIRST_NAME "MainProcess"
static struct mproc_process first = {.name = FIRST_NAME};
static struct mproc_process own = {.name = FIRST_NAME};

static struct {
    pid_t pid; /* of the process that the rest is about */
    pid_t parent;
    struct mproc_process *shown; /* &first or &own */
    struct mproc_process *handle;
    uint64_t tag; /* of the handle */
    _Atomic unsigned children;
} me;

/* Of a thread that has a role of its own. */
static _Thread_local struct {
    pid_t pid; /* of the process it is a thread of; not of a fork of it */
    struct mproc_process *shown;
    struct mproc_process *handle;
    uint64_t tag;
} thread;

/* Of `first` alone others may ask whether it lives: that has its date too. */
static void describe(struct mproc_process *p)
{
    atomic_store(&p->pid, mpr_os_pid());
    atomic_store(&p->state, MPR_PROCESS_RUNS);
}

static void be_first(void)
{
    me.pid = mpr_os_pid();
    me.parent = 0;
    me.shown = &first;
    atomic_store(&first.since_boot_ns, mpr_os_boot_now());
    describe(&first);
}

/* What a plain fork has made; runs after each of them, in the child. */
static void be_forked(void)
{
    if (mpr_family == NULL) {
        be_first();
        return;
    }
    me.parent = me.pid;
    me.pid = mpr_os_pid();
    me.shown = &own;
    me.handle = NULL;
    describe(&own);
}

/* Its handle tells of it from here on, should its maker not have told. */
static void on_claim(mpr_id id)
{
    if (me.handle != NULL && me.pid == mpr_os_pid()) {
        mpr_process_begins(me.handle, me.tag, id);
    }
}

__attribute__((constructor)) static void begin(void)
{
    be_first();
    mpr_slots_on_claim(on_claim);
    pthread_atfork(NULL, NULL, be_forked); /* refused: the pid tells */
}

static void look(void)
{
    if (me.pid != mpr_os_pid()) {
        be_forked();
    }
}

/* The caller is a thread with a role. */
static bool is_thread(void)
{
    return thread.pid == me.pid && thread.pid != 0;
}

static const struct mproc_process *shown(void)
{
    look();
    return is_thread() ? thread.shown : me.shown;
}

bool mpr_who_is_static(const mproc_process *p)
{
    return p == &first || p == &own || (p == shown() && p != NULL);
}

bool mpr_who_is_daemonic(void)
{
    return shown()->daemon != 0 || me.shown->daemon != 0;
}

void mpr_who_next_path(char path[static MPR_PATH_SIZE])
{
    const char *mine = shown()->path;
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

/* A name, and nothing else. */
static void take_name(struct mproc_process *p, const char *name)
{
    mpr_who_copy_name(p->name, name);
    memset(p->path, 0, sizeof p->path);
    p->daemon = 0;
}

static void take_role(struct mproc_process *p, const struct mpr_role *role)
{
    memcpy(p->name, role->name, sizeof p->name);
    memcpy(p->path, role->path, sizeof p->path);
    p->daemon = role->daemon;
}

void mpr_who_become_named(const char *name)
{
    look();
    take_name(&own, name);
    atomic_store(&me.children, 0);
}

void mpr_who_become(const struct mpr_role *role)
{
    look();
    take_role(&own, role);
    describe(&own);
    me.shown = &own;
    atomic_store(&me.children, 0);
    me.handle = role->handle;
    me.tag = role->tag;
}

void mpr_who_be_thread(const struct mpr_role *role, struct mproc_process *p)
{
    look();
    memset(p, 0, sizeof *p);
    take_role(p, role);
    describe(p);
    thread.shown = p;
    thread.handle = role->handle;
    thread.tag = role->tag;
    thread.pid = me.pid;
}

void mpr_who_end_thread(void)
{
    thread.pid = 0;
}

void mpr_who_set_parent(pid_t pid)
{
    look();
    me.parent = pid;
}

mproc_process *mproc_process_current(void)
{
    look();
    mproc_process *handle = is_thread() ? thread.handle : me.handle;
    uint64_t tag = is_thread() ? thread.tag : me.tag;
    bool live = handle != NULL && mpr_object_unchanged(handle, tag);
    return live ? handle : is_thread() ? thread.shown : me.shown;
}

pid_t mproc_process_parent_pid(void)
{
    look();
    return is_thread() ? me.pid : me.parent;
}
