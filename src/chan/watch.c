/* SPDX-License-Identifier: MIT */
#include "chan/watch.h"

#include <stdlib.h>

#include "chan/pump.h"
#include "shm/sleep.h"

/*
 * `next`, `users` and `closed` under the mutex of all: what has users stays in
 * its list. The rest under `turn`, so that looking and raising or lowering are
 * one. While it is raised the bell need not be marked: that costs those who
 * ring nothing.
 */
struct watch {
    struct watch *next;
    unsigned users;
    bool closed;
    const struct mpr_object_wait *wait;
    const void *handle;
    uint64_t tag;
    pthread_mutex_t turn;
    int flag; /* -1: closed */
    bool raised;
    uint32_t mark;
    uint32_t moment;
};

enum { LISTS = 64 };

static struct {
    pthread_mutex_t mutex;
    pid_t pid; /* of the process whose watches these are */
    struct watch *first[LISTS];
} mine = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static _Atomic unsigned watches; /* of this process */
_Atomic uint64_t mpr_watch_lists_;

bool mpr_watch_any(void)
{
    return atomic_load(&watches) != 0;
}

/* ---- the lists -------------------------------------------------------- */

static void lock(void)
{
    pthread_mutex_lock(&mine.mutex);
}

static void unlock(void)
{
    pthread_mutex_unlock(&mine.mutex);
}

/* The descriptors stay as they were inherited: they are the parent's. */
static void begin_anew(void)
{
    mine.pid = mpr_os_pid();
    atomic_store(&watches, 0);
    atomic_store(&mpr_watch_lists_, 0);
    for (int i = 0; i < LISTS; i++) {
        for (struct watch *w = mine.first[i], *next; w != NULL; w = next) {
            next = w->next;
            free(w);
        }
        mine.first[i] = NULL;
    }
}

static void unlock_in_child(void)
{
    begin_anew();
    unlock();
}

__attribute__((constructor)) static void begin(void)
{
    mine.pid = mpr_os_pid();
    MPR_CHECK(pthread_atfork(lock, unlock, unlock_in_child) == 0);
}

static void enter(void)
{
    lock();
    if (mpr_unlikely(mine.pid != mpr_os_pid())) {
        begin_anew();
    }
}

static struct watch **list_of(const void *handle)
{
    return &mine.first[mpr_watch_list_of_(handle)];
}

/* After its first has changed. */
static void tell_list(const void *handle)
{
    uint64_t bit = UINT64_C(1) << mpr_watch_list_of_(handle);
    if (*list_of(handle) != NULL) {
        atomic_fetch_or(&mpr_watch_lists_, bit);
    } else {
        atomic_fetch_and(&mpr_watch_lists_, ~bit);
    }
}

/* The one that is not closed; it gets a user. */
static struct watch *find(const void *handle)
{
    struct watch *w = *list_of(handle);
    while (w != NULL && (w->handle != handle || w->closed)) {
        w = w->next;
    }
    if (w != NULL) {
        w->users++;
    }
    return w;
}

static void release(struct watch *w)
{
    if (--w->users > 0 || !w->closed) {
        return;
    }
    struct watch **at = list_of(w->handle);
    while (*at != w) {
        at = &(*at)->next;
    }
    *at = w->next;
    tell_list(w->handle);
    pthread_mutex_destroy(&w->turn);
    free(w);
}

static struct watch *enter_and_find(const void *handle)
{
    enter();
    struct watch *w = find(handle);
    unlock();
    return w;
}

static void enter_and_release(struct watch *w)
{
    enter();
    release(w);
    unlock();
}

static void count_one_less(void)
{
    if (atomic_fetch_sub(&watches, 1) == 1) {
        mpr_pump_recede();
    }
}

/* ---- one -------------------------------------------------------------- */

/* Freed, or not to be used: then a call on it does not wait either. */
static bool is_ready(struct mpr_thread *self, struct watch *w)
{
    return w->wait->look(self, w->handle, w->tag, &w->moment) !=
           MPROC_ETIMEDOUT;
}

static void set_flag(struct watch *w, bool raised)
{
    if (raised != w->raised) {
        w->raised = raised;
        (raised ? mpr_os_flag_raise : mpr_os_flag_lower)(w->flag);
    }
}

/* `again`: look also at one that is raised. */
static void settle(struct mpr_thread *self, struct watch *w, bool again)
{
    pthread_mutex_lock(&w->turn);
    bool done = w->flag < 0 || (w->raised && (!again || is_ready(self, w)));
    if (!done) {
        w->mark = mpr_bell_mark(w->wait->bell(w->handle), w->mark);
        set_flag(w, is_ready(self, w));
    }
    pthread_mutex_unlock(&w->turn);
}

static void close_flag(struct watch *w)
{
    pthread_mutex_lock(&w->turn);
    set_flag(w, true);
    mpr_os_close(w->flag);
    w->flag = -1;
    pthread_mutex_unlock(&w->turn);
}

/* ---- all -------------------------------------------------------------- */

void mpr_watch_settle_(struct mpr_thread *self, const void *handle)
{
    struct watch *w = enter_and_find(handle);
    if (w != NULL) {
        settle(self, w, true);
        enter_and_release(w);
    }
}

static void settle_list(struct mpr_thread *self, struct watch *const *first)
{
    enter();
    for (struct watch *w = *first, *next; w != NULL; w = next) {
        w->users++;
        unlock();
        settle(self, w, false);
        enter();
        next = w->next;
        release(w);
    }
    unlock();
}

void mpr_watch_settle_all(struct mpr_thread *self)
{
    uint64_t lists = atomic_load(&mpr_watch_lists_);
    for (int i = 0; i < LISTS; i++) {
        if (lists >> i & 1) {
            settle_list(self, &mine.first[i]);
        }
    }
}

/* That of the object with the tag, or that of any other at this address. */
static void close_watch(const void *handle, uint64_t tag, bool any_other)
{
    enter();
    struct watch *w = find(handle);
    bool ours = w != NULL && (w->tag != tag) == any_other;
    if (ours) {
        w->closed = true;
    }
    unlock();
    if (ours) {
        close_flag(w);
        count_one_less();
    }
    if (w != NULL) {
        enter_and_release(w);
    }
}

void mpr_watch_close(const void *handle, uint64_t tag)
{
    if (mpr_watch_any()) {
        close_watch(handle, tag, false);
    }
}

/* ---- making one ------------------------------------------------------- */

/* NULL: *err says why. */
static struct watch *make(enum mpr_object_type type, const void *handle,
                          uint64_t tag, int *err)
{
    struct watch *w = calloc(1, sizeof *w);
    int flag = w != NULL ? mpr_os_flag(false) : MPROC_ENOMEM;
    if (flag < 0) {
        *err = flag;
        free(w);
        return NULL;
    }
    struct watch **first = list_of(handle);
    *w = (struct watch){.next = *first,
                        .users = 1,
                        .wait = mpr_object_wait_of(type),
                        .handle = handle,
                        .tag = tag,
                        .flag = flag};
    pthread_mutex_init(&w->turn, NULL);
    *first = w;
    tell_list(handle);
    return w;
}

/* The same. What is made is counted before, so that the pump does not end. */
static struct watch *find_or_make(enum mpr_object_type type, const void *handle,
                                  uint64_t tag, int *err)
{
    struct watch *w = NULL;
    bool made = false;
    enter(); /* those of a parent do not count */
    atomic_fetch_add(&watches, 1);
    unlock();
    *err = mpr_pump_run();
    if (*err == 0) {
        enter();
        w = find(handle);
        made = w == NULL;
        w = made ? make(type, handle, tag, err) : w;
        unlock();
    }
    if (w == NULL || !made) {
        count_one_less();
    }
    return w;
}

int mpr_watch_fd(struct mpr_thread *self, enum mpr_object_type type,
                 const void *handle, uint64_t tag)
{
    int err;
    close_watch(handle, tag, true); /* freed by another process */
    struct watch *w = find_or_make(type, handle, tag, &err);
    if (w == NULL) {
        return err;
    }
    settle(self, w, true);
    int fd = w->flag;
    enter_and_release(w);
    return fd >= 0 ? fd : MPROC_EINVAL; /* closed at the same time */
}
