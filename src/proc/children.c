/* SPDX-License-Identifier: MIT */
#include "proc/children.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/deadline.h"
#include "proc/server.h"

enum { GRACE_S = 2 }; /* between asking a daemonic child to end and ending it */

struct list {
    struct mpr_child_record *first;
    struct mpr_child_record *last;
};

static struct {
    pthread_mutex_t mutex;
    pid_t pid; /* of the process whose children these are */
    mpr_id id;
    struct list running; /* by start */
    uint32_t running_count;
    struct list others;
    unsigned found_dead;
    mpr_id dead; /* the last of these; 0: unknown */
} mine = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void lock(void)
{
    pthread_mutex_lock(&mine.mutex);
}

static void unlock(void)
{
    pthread_mutex_unlock(&mine.mutex);
}

/* The list stays, for mpr_children_forget. */
static void unlock_in_child(void)
{
    mine.pid = -1;
    unlock();
}

__attribute__((constructor)) static void begin(void)
{
    pthread_atfork(lock, unlock, unlock_in_child);
}

/*
 * A child that was forked plainly does not close the descriptors: it may have
 * closed them itself, and given their numbers to something else.
 */
static void disown(void)
{
    mine.pid = mpr_os_pid();
    mine.id = 0;
    mine.running = (struct list){NULL, NULL};
    mine.running_count = 0;
    mine.others = (struct list){NULL, NULL};
    mine.found_dead = 0;
}

void mpr_children_enter(void)
{
    lock();
    if (mine.pid != mpr_os_pid()) {
        disown();
    }
}

void mpr_children_leave(void)
{
    struct mpr_thread *self;
    unsigned found_dead = mine.found_dead;
    mpr_id dead = mine.dead;
    mine.found_dead = 0;
    unlock();
    if (found_dead == 0 || mpr_self(&self) < 0) {
        return;
    }
    if (found_dead == 1 && dead != 0) {
        mpr_id_reap(self, dead);
    } else {
        mpr_slots_reap(self);
    }
}

bool mpr_children_mine(const struct mproc_process *p)
{
    if (mine.id == 0) {
        mine.id = mpr_process_page_->id;
    }
    return p->maker == mine.id;
}

/* ---- records ---------------------------------------------------------- */

static void append(struct list *list, struct mpr_child_record *child)
{
    child->next = NULL;
    child->prev = list->last;
    *(list->last != NULL ? &list->last->next : &list->first) = child;
    list->last = child;
}

static void take_out(struct list *list, struct mpr_child_record *child)
{
    *(child->prev != NULL ? &child->prev->next : &list->first) = child->next;
    *(child->next != NULL ? &child->next->prev : &list->last) = child->prev;
}

static void move(struct mpr_child_record *child, bool running)
{
    take_out(running ? &mine.others : &mine.running, child);
    append(running ? &mine.running : &mine.others, child);
    mine.running_count += running ? 1 : UINT32_MAX;
    child->running = running;
}

void mpr_children_free_record(struct mpr_child_record *child)
{
    free(child->arg);
    free(child);
}

struct mpr_child_record *mpr_children_record(const void *arg, size_t arg_size)
{
    struct mpr_child_record *child = calloc(1, sizeof *child);
    if (child == NULL) {
        return NULL;
    }
    child->pidfd = -1;
    if (arg_size > 0) {
        child->arg = malloc(arg_size);
        if (child->arg == NULL) {
            free(child);
            return NULL;
        }
        memcpy(child->arg, arg, arg_size);
        child->arg_size = arg_size;
    }
    return child;
}

void mpr_children_add(struct mpr_child_record *child)
{
    append(&mine.others, child);
}

void mpr_children_runs(struct mpr_child_record *child,
                       const struct mpr_born *born)
{
    child->kind = born->serial != 0 ? MPR_CHILD_SERVED : MPR_CHILD_PROCESS;
    child->pid = born->pid;
    child->pidfd = born->pidfd;
    child->serial = born->serial;
    child->since_boot_ns = mpr_os_boot_now();
    move(child, true);
}

static void close_unused(struct mpr_child_record *child)
{
    if (!child->running && child->users == 0 && !child->shown) {
        mpr_os_close(child->pidfd);
        child->pidfd = -1;
    }
}

void mpr_children_release(struct mpr_child_record *child)
{
    child->users--;
    close_unused(child);
    if (!child->running && child->users == 0 && child->handle == NULL) {
        take_out(&mine.others, child);
        mpr_children_free_record(child);
    }
}

void mpr_children_orphan(struct mpr_child_record *child)
{
    child->handle = NULL;
    child->shown = false;
    if (child->joinable) {
        child->joinable = false;
        pthread_detach(child->thread);
    }
    child->users++;
    mpr_children_release(child);
}

/* Who has no slot yet and may come to need one; or quickly, a bound of it. */
static uint32_t expected(bool exactly)
{
    mpr_children_enter();
    uint32_t count = exactly ? 0 : mine.running_count;
    for (const struct mpr_child_record *c = mine.running.first; c && exactly;
         c = c->next) {
        count += c->kind != MPR_CHILD_THREAD && c->handle != NULL &&
                 atomic_load(&c->handle->id) == 0;
    }
    mpr_children_leave();
    return count;
}

bool mpr_children_room(struct mpr_thread *self, uint32_t more)
{
    return mpr_slots_room(self, expected(false) + more) ||
           mpr_slots_room(self, expected(true) + more);
}

struct mpr_child_record *mpr_children_first(void)
{
    return mine.running.first;
}

/* ---- their ends ------------------------------------------------------- */

static void has_ended(struct mpr_child_record *child, int err, int code)
{
    move(child, false);
    if (child->handle != NULL) {
        mpr_process_has_ended(child->handle, err, code);
    }
    close_unused(child);
}

bool mpr_children_collect(struct mpr_child_record *child)
{
    int code = 0;
    if (!child->running || child->kind == MPR_CHILD_THREAD) {
        return !child->running; /* a thread tells of its end itself */
    }
    int err = child->kind == MPR_CHILD_SERVED
                  ? mpr_server_reap(child, &code)
                  : mpr_os_child_reap(child->pid, child->pidfd, &code);
    if (err == MPROC_EAGAIN) {
        return false;
    }
    bool known = child->kind == MPR_CHILD_PROCESS && child->handle != NULL;
    mine.found_dead++;
    mine.dead = known ? atomic_load(&child->handle->id) : 0;
    has_ended(child, err, code);
    return true;
}

bool mpr_children_collect_all(bool orphans)
{
    bool any = false;
    for (struct mpr_child_record *c = mine.running.first, *next; c != NULL;
         c = next) {
        next = c->next;
        if (orphans && c->handle != NULL) {
            continue;
        }
        c->users++;
        any |= mpr_children_collect(c);
        mpr_children_release(c);
    }
    return any;
}

/*
 * A tracer's eyes on the child may keep it from being reaped although its pidfd
 * says that it has ended: the pidfd is not asked twice then.
 */
static bool await(struct mpr_child_record *child, mproc_deadline until)
{
    bool expired = mpr_deadline_is_nowait(until);
    bool ask_pidfd = true;
    while (!mpr_children_collect(child)) {
        if (expired) {
            return false;
        }
        int pidfd = ask_pidfd ? child->pidfd : -1;
        unlock();
        int err = child->kind == MPR_CHILD_THREAD
                      ? mpr_os_wait(&child->thread_ended, 0, until)
                      : mpr_os_child_wait(pidfd, until);
        expired = err == MPROC_ETIMEDOUT;
        lock();
        ask_pidfd = expired;
    }
    return true;
}

/*
 * So that all of a thread that has ended is gone, and its memory. Unlocked:
 * what it runs at its very end may call the library.
 */
static void join_thread(struct mpr_child_record *child)
{
    int cancel;
    child->joinable = false;
    unlock();
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    pthread_join(child->thread, NULL);
    pthread_setcancelstate(cancel, NULL);
    lock();
}

bool mpr_children_await(struct mpr_child_record *child, mproc_deadline until)
{
    child->users++;
    bool ended = await(child, until);
    if (ended && child->joinable) {
        join_thread(child);
    }
    mpr_children_release(child);
    return ended;
}

int mpr_children_signal(struct mpr_child_record *child, int sig)
{
    if (child->kind == MPR_CHILD_THREAD) {
        return MPROC_ENOTSUP;
    }
    if (mpr_children_collect(child)) {
        return 0;
    }
    int err = mpr_os_child_signal(child->pid, child->pidfd, sig);
    return err == MPROC_ESRCH ? 0 : err;
}

int mpr_children_fd(struct mpr_child_record *child)
{
    if (child->pidfd < 0) {
        bool ended = mpr_children_collect(child);
        int fd = ended || child->kind == MPR_CHILD_THREAD
                     ? mpr_os_flag(ended)
                     : mpr_os_pidfd(child->pid);
        if (fd < 0) {
            return fd;
        }
        child->pidfd = fd;
    }
    child->shown = true;
    return child->pidfd;
}

int mpr_children_hold(struct mpr_child_record *child)
{
    child->users++;
    if (child->pidfd < 0 && child->kind == MPR_CHILD_THREAD) {
        int fd = mpr_os_flag(!child->running);
        child->pidfd = fd >= 0 ? fd : -1;
    }
    return child->pidfd;
}

/* ---- threads ---------------------------------------------------------- */

static _Thread_local const struct mpr_child_record *thread_is;

void mpr_children_be_thread(struct mpr_child_record *child)
{
    thread_is = child;
}

bool mpr_children_is_caller(const struct mpr_child_record *child)
{
    return child == thread_is && child->kind == MPR_CHILD_THREAD;
}

void mpr_children_thread_runs(struct mpr_child_record *child, pthread_t thread)
{
    const struct mpr_born born = {.pid = mpr_os_pid(), .pidfd = -1};
    mpr_children_runs(child, &born);
    child->kind = MPR_CHILD_THREAD;
    child->thread = thread;
    child->joinable = true;
    child->users++;
}

void mpr_children_thread_ended(struct mpr_child_record *child, int code)
{
    lock();
    thread_is = NULL;
    mpr_os_flag_raise(child->pidfd);
    has_ended(child, 0, code);
    atomic_store(&child->thread_ended, 1);
    mpr_os_wake(&child->thread_ended, INT_MAX);
    mpr_children_release(child);
    unlock();
}

/* ---- the end of this process ------------------------------------------ */

/*
 * The first that this process has to wait for: of the daemonic processes, or of
 * all but daemonic threads.
 */
static struct mpr_child_record *first_to_end(bool daemons)
{
    struct mpr_child_record *c = mine.running.first;
    for (; c != NULL; c = c->next) {
        bool thread = c->kind == MPR_CHILD_THREAD;
        if (c->daemon ? !thread : !daemons && !mpr_children_is_caller(c)) {
            break;
        }
    }
    return c;
}

/* A thread that has ended, and that nobody has joined. */
static struct mpr_child_record *first_to_join(void)
{
    struct mpr_child_record *c = mine.others.first;
    while (c != NULL && !(c->joinable && !mpr_children_is_caller(c))) {
        c = c->next;
    }
    return c;
}

static void signal_daemons(int sig)
{
    for (struct mpr_child_record *c = mine.running.first; c != NULL;
         c = c->next) {
        if (c->daemon && c->kind != MPR_CHILD_THREAD) {
            mpr_os_child_signal(c->pid, c->pidfd, sig);
        }
    }
}

static void end_daemons(void)
{
    struct mpr_child_record *c;
    mproc_deadline grace = mpr_deadline_after(mpr_os_now(), GRACE_S, 1e9);
    signal_daemons(SIGTERM);
    while ((c = first_to_end(true)) != NULL && mpr_children_await(c, grace)) {
    }
    signal_daemons(SIGKILL);
    while ((c = first_to_end(true)) != NULL) {
        mpr_children_await(c, MPROC_FOREVER);
    }
}

void mpr_children_end(void)
{
    struct mpr_child_record *c;
    mpr_children_enter();
    while ((c = first_to_end(false)) != NULL) {
        if (first_to_end(true) != NULL) {
            end_daemons();
        } else {
            mpr_children_await(c, MPROC_FOREVER);
        }
    }
    while ((c = first_to_join()) != NULL) {
        mpr_children_await(c, MPROC_FOREVER);
    }
    mpr_server_end();
    mpr_children_leave();
}

/* What has users stays: this process's own argument is among it. */
static void forget(struct list *list)
{
    for (struct mpr_child_record *c = list->first, *next; c; c = next) {
        next = c->next;
        mpr_os_close(c->pidfd);
        if (c->users == 0) {
            mpr_children_free_record(c);
        }
    }
}

void mpr_children_forget(void)
{
    lock();
    if (mine.pid != mpr_os_pid()) {
        forget(&mine.running);
        forget(&mine.others);
        mpr_server_forget();
        disown();
    }
    unlock();
}
