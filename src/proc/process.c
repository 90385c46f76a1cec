/* SPDX-License-Identifier: MIT */
#include "proc/process.h"

#include <stdio.h>

#include "base/options.h"
#include "chan/pump.h"
#include "proc/children.h"
#include "proc/who.h"

static int look(struct mpr_thread *self, const void *handle, uint64_t tag,
                uint32_t *moment);
static int hold(const void *handle, void **hold);
static void release(void *hold);

static const struct mpr_object_wait process_wait = {
    .look = look, .hold = hold, .release = release};

static const struct mpr_object_class process_class = {
    .type = MPR_PROCESS,
    .size = sizeof(struct mproc_process),
    .end = NULL, /* what it owns is its maker's private memory */
    .wait = &process_wait};

__attribute__((constructor)) static void register_class(void)
{
    mpr_object_register(&process_class);
}

/* A handle that was not freed. */
static bool is_process(const mproc_process *p)
{
    return mpr_who_is_static(p) || mpr_object_is(p, MPR_PROCESS);
}

/* ---- the state word --------------------------------------------------- */

enum { CODE_SHIFT = 8, CODE_BIAS = 256 };

void mpr_process_has_ended(struct mproc_process *p, int err, int code)
{
    uint32_t state = MPR_PROCESS_LOST;
    if (err == 0) {
        state = (uint32_t)(code + CODE_BIAS) << CODE_SHIFT | MPR_PROCESS_ENDED;
    }
    atomic_store(&p->state, state);
}

static int code_of(uint32_t state)
{
    return (int)(state >> CODE_SHIFT) - CODE_BIAS;
}

void mpr_process_runs(struct mproc_process *p, pid_t pid)
{
    uint32_t starting = MPR_PROCESS_STARTING;
    atomic_store(&p->since_boot_ns, mpr_os_boot_now());
    atomic_store(&p->pid, pid);
    atomic_compare_exchange_strong(&p->state, &starting, MPR_PROCESS_RUNS);
}

void mpr_process_not_started(struct mproc_process *p)
{
    atomic_store(&p->state, MPR_PROCESS_MADE);
    atomic_store(&p->id, 0);
    atomic_store(&p->pid, 0);
}

void mpr_process_begins(struct mproc_process *p, uint64_t tag, mpr_id id)
{
    if (mpr_object_unchanged(p, tag)) {
        atomic_store(&p->id, id);
        mpr_process_runs(p, mpr_os_pid());
    }
}

/* ---- making one ------------------------------------------------------- */

static void name_it(struct mproc_process *p, const char *name)
{
    char by_ordinal[MPR_NAME_SIZE];
    mpr_who_next_path(p->path);
    if (name == NULL) {
        snprintf(by_ordinal, sizeof by_ordinal, "Process-%s", p->path);
        name = by_ordinal;
    }
    mpr_who_copy_name(p->name, name);
}

static int check_options(mproc_main_fn *fn, const void *arg,
                         const mproc_process_opts *opts)
{
    bool absurd =
        opts->start < MPROC_START_FORK || opts->start > MPROC_START_SPAWN;
    bool elsewhere = opts->start == MPROC_START_SPAWN ||
                     opts->start == MPROC_START_FORKSERVER;
    bool half =
        arg == NULL ? opts->arg_size > 0 : elsewhere && opts->arg_size == 0;
    return fn == NULL || absurd || half ? MPROC_EINVAL : 0;
}

static void give_record(struct mproc_process *p,
                        struct mpr_child_record *record)
{
    p->maker = mpr_process_page_->id;
    p->record = record;
    mpr_process_not_started(p);
    record->handle = p;
    record->daemon = p->daemon != 0;
    mpr_children_enter();
    mpr_children_add(record);
    mpr_children_leave();
}

int mproc_process_new_sized(mproc_process **out, mproc_main_fn *fn, void *arg,
                            const mproc_process_opts *theirs, size_t size)
{
    mproc_process_opts opts;
    struct mpr_thread *self;
    int err = mpr_options_read(&opts, sizeof opts, theirs, size);
    if (err == 0) {
        err = out == NULL ? MPROC_EINVAL : check_options(fn, arg, &opts);
    }
    if (err < 0) {
        return err;
    }
    err = mpr_self(&self);
    if (err < 0) {
        return err;
    }
    struct mpr_child_record *record = mpr_children_record(arg, opts.arg_size);
    if (record == NULL) {
        return MPROC_ENOMEM;
    }
    struct mproc_process *p = mpr_object_new(self, MPR_PROCESS);
    if (p == NULL) {
        mpr_children_free_record(record);
        return MPROC_ENOMEM;
    }
    p->fn = fn;
    p->arg = record->arg != NULL ? record->arg : arg;
    p->daemon = opts.daemon != 0;
    p->start = (uint32_t)opts.start;
    name_it(p, opts.name);
    give_record(p, record);
    mpr_object_publish(self, p);
    *out = p;
    return 0;
}

int mpr_process_enter(const mproc_process *p)
{
    struct mpr_thread *self;
    int err = MPROC_EINVAL;
    if (!is_process(p)) {
        return err;
    }
    (void)mpr_self(&self); /* whoever has no record is no maker */
    mpr_children_enter();
    if (is_process(p)) {
        bool mine = !mpr_who_is_static(p) && mpr_children_mine(p);
        err = mine ? 0 : MPROC_EPERM;
    }
    if (err == 0 && p->record == NULL) { /* another thread is freeing it */
        err = MPROC_EINVAL;
    }
    if (err < 0) {
        mpr_children_leave();
    }
    return err;
}

/*
 * As above, for a process that was started. (The child may tell that it runs
 * before its record does.)
 */
static int enter_started(const mproc_process *p)
{
    int err = mpr_process_enter(p);
    if (err == 0 && p->record->pid == 0) {
        mpr_children_leave();
        err = MPROC_EINVAL;
    }
    return err;
}

/*
 * A child that still runs has its own copies of what it needs. A handle whose
 * maker has died may be freed by anyone.
 */
void mproc_process_free(mproc_process *p)
{
    struct mpr_thread *self;
    if (!mpr_object_is(p, MPR_PROCESS) || mpr_self(&self) < 0) {
        return;
    }
    switch (mpr_process_enter(p)) {
    case 0:
        mpr_children_orphan(p->record);
        p->record = NULL; /* another thread may have got here too */
        mpr_children_leave();
        mpr_pump_kick(); /* who waits for it among many looks again */
        break;
    case MPROC_EPERM:
        if (!mpr_id_is_dead(p->maker)) {
            return;
        }
        break;
    default:
        return;
    }
    mpr_object_end(self, p, MPR_PROCESS);
}

/* ---- its end ---------------------------------------------------------- */

/* As enter_started. EDEADLK: it is the caller. */
static int enter_to_await(const mproc_process *p)
{
    int err = enter_started(p);
    if (err == 0 && mpr_children_is_caller(p->record)) {
        mpr_children_leave();
        err = MPROC_EDEADLK;
    }
    bool myself = err == MPROC_EPERM && p == mproc_process_current();
    return myself ? MPROC_EDEADLK : err;
}

static int look(struct mpr_thread *self, const void *handle, uint64_t tag,
                uint32_t *moment)
{
    (void)self;
    (void)moment;
    const mproc_process *p = handle;
    if (mpr_object_tag(p, MPR_PROCESS) != tag) {
        return MPROC_EINVAL;
    }
    int err = enter_to_await(p);
    if (err == 0) {
        err = mpr_children_collect(p->record) ? 0 : MPROC_ETIMEDOUT;
        mpr_children_leave();
    }
    return err;
}

/* The record stays, and its pidfd, while it has a user. */
static int hold(const void *handle, void **hold)
{
    const mproc_process *p = handle;
    *hold = NULL;
    if (enter_started(p) < 0) {
        return -1; /* freed: the next look tells */
    }
    *hold = p->record;
    int fd = mpr_children_hold(p->record);
    mpr_children_leave();
    return fd;
}

static void release(void *hold)
{
    if (hold != NULL) {
        mpr_children_enter();
        mpr_children_release(hold);
        mpr_children_leave();
    }
}

int mproc_process_join(mproc_process *p, mproc_deadline until)
{
    int err = enter_to_await(p);
    if (err < 0) {
        return err;
    }
    bool ended = mpr_children_await(p->record, until);
    mpr_children_leave();
    return ended ? 0 : MPROC_ETIMEDOUT;
}

/* Asked by another than the maker, or of a process whose maker has died. */
static bool lives(const mproc_process *p)
{
    mpr_id id = atomic_load(&p->id);
    pid_t pid = atomic_load(&p->pid);
    if (id != 0) {
        return !mpr_id_is_dead(id);
    }
    return pid == mpr_os_pid() ||
           !mpr_os_process_gone(pid, atomic_load(&p->since_boot_ns));
}

bool mproc_process_is_alive(mproc_process *p)
{
    int err = enter_started(p);
    if (err == 0) {
        bool ended = mpr_children_collect(p->record);
        mpr_children_leave();
        return !ended;
    }
    return err == MPROC_EPERM && mpr_process_phase(p) == MPR_PROCESS_RUNS &&
           lives(p);
}

int mproc_process_exitcode(mproc_process *p, int *out)
{
    int err = out == NULL ? MPROC_EINVAL : enter_started(p);
    if (err < 0) {
        return err;
    }
    mpr_children_collect(p->record);
    uint32_t state = atomic_load(&p->state);
    mpr_children_leave();
    switch ((enum mpr_process_phase)(state & 0xff)) {
    case MPR_PROCESS_ENDED:
        *out = code_of(state);
        return 0;
    case MPR_PROCESS_LOST:
        return MPROC_ECHILD;
    default:
        return MPROC_EAGAIN;
    }
}

static int send_signal(mproc_process *p, int sig)
{
    int err = enter_started(p);
    if (err == 0) {
        err = mpr_children_signal(p->record, sig);
        mpr_children_leave();
    }
    return err;
}

int mproc_process_terminate(mproc_process *p)
{
    return send_signal(p, SIGTERM);
}

int mproc_process_kill(mproc_process *p)
{
    return send_signal(p, SIGKILL);
}

int mproc_process_interrupt(mproc_process *p)
{
    return send_signal(p, SIGINT);
}

int mproc_process_fd(mproc_process *p)
{
    int err = enter_started(p);
    if (err < 0) {
        return err;
    }
    int fd = mpr_children_fd(p->record);
    mpr_children_leave();
    return fd;
}

/* ---- what it is ------------------------------------------------------- */

pid_t mproc_process_pid(const mproc_process *p)
{
    return is_process(p) ? atomic_load(&p->pid) : 0;
}

const char *mproc_process_name(const mproc_process *p)
{
    return is_process(p) ? p->name : "";
}

bool mproc_process_daemon(const mproc_process *p)
{
    return is_process(p) && p->daemon;
}

size_t mproc_active_children(mproc_process **out, size_t capacity)
{
    size_t count = 0;
    mpr_children_enter();
    mpr_children_collect_all(false);
    for (struct mpr_child_record *c = mpr_children_first(); c; c = c->next) {
        if (c->handle == NULL) {
            continue;
        }
        if (out != NULL && count < capacity) {
            out[count] = c->handle;
        }
        count++;
    }
    mpr_children_leave();
    return count;
}
