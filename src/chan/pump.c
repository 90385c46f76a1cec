/* SPDX-License-Identifier: MIT */
#include "chan/pump.h"

#include "base/deadline.h"
#include "chan/watch.h"
#include "shm/sleep.h"

enum { LINGER_MS = 1000 };

static struct {
    pthread_mutex_t mutex;
    pthread_mutex_t starting; /* held by who starts the pump */
    pid_t pid;                /* of the process whose pollers these are */
    struct mpr_poller *pollers;
    bool runs;
} mine = {.mutex = PTHREAD_MUTEX_INITIALIZER,
          .starting = PTHREAD_MUTEX_INITIALIZER};

static void lock(void)
{
    pthread_mutex_lock(&mine.mutex);
}

static void unlock(void)
{
    pthread_mutex_unlock(&mine.mutex);
}

static void begin_anew(void)
{
    mine.pid = mpr_os_pid();
    mine.pollers = NULL;
    mine.runs = false;
}

/* Its pump is another process's thread, and so may be who was starting it. */
static void unlock_in_child(void)
{
    begin_anew();
    pthread_mutex_init(&mine.starting, NULL);
    unlock();
}

__attribute__((constructor)) static void begin(void)
{
    MPR_CHECK(pthread_atfork(lock, unlock, unlock_in_child) == 0);
}

static void enter(void)
{
    lock();
    if (mpr_unlikely(mine.pid != mpr_os_pid())) {
        begin_anew();
    }
}

/* ---- those who poll --------------------------------------------------- */

int mpr_pump_enter(struct mpr_poller *poller)
{
    poller->flag = mpr_os_flag(false);
    if (poller->flag < 0) {
        return poller->flag;
    }
    enter();
    poller->next = mine.pollers;
    mine.pollers = poller;
    unlock();
    return 0;
}

void mpr_pump_leave(struct mpr_poller *poller)
{
    enter();
    struct mpr_poller **at = &mine.pollers;
    while (*at != NULL && *at != poller) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = poller->next;
    }
    unlock();
    mpr_os_close(poller->flag);
}

void mpr_pump_kick(void)
{
    enter();
    for (struct mpr_poller *p = mine.pollers; p != NULL; p = p->next) {
        mpr_os_flag_raise(p->flag);
    }
    unlock();
}

/* ---- the pump --------------------------------------------------------- */

/* False: there is somebody to serve. */
static bool end_if_idle(void)
{
    enter();
    bool idle = mine.pollers == NULL && !mpr_watch_any();
    mine.runs = !idle;
    unlock();
    return idle;
}

/* Until it is time to see whether anybody is to be served. */
static void serve(struct mpr_thread *self)
{
    struct mpr_sleep sleep;
    bool watched = mpr_watch_any();
    mproc_deadline linger = mpr_deadline_after(mpr_os_now(), LINGER_MS, 1e6);
    uint32_t seen;
    mpr_sleep_begin(&sleep, watched ? MPROC_FOREVER : linger);
    do {
        seen = mpr_bell_watch(&mpr_family->many);
        mpr_pump_kick();
        mpr_watch_settle_all(self);
        mpr_sleep_on(&sleep, &mpr_family->many, seen);
    } while (!sleep.expired && atomic_load(&mpr_family->many) == seen &&
             watched == mpr_watch_any());
}

struct start {
    _Atomic uint32_t done;
    int err;
};

static void *run(void *arg)
{
    struct start *start = arg;
    struct mpr_thread *self;
    int err = mpr_self(&self);
    if (err == 0) {
        enter();
        mine.runs = true;
        unlock();
    }
    start->err = err;
    atomic_store(&start->done, 1);
    mpr_os_wake(&start->done, 1);
    if (err == 0) {
        do {
            serve(self);
        } while (!end_if_idle());
    }
    return NULL;
}

int mpr_pump_run(void)
{
    struct start start = {0, 0};
    pthread_mutex_lock(&mine.starting);
    enter();
    bool runs = mine.runs;
    unlock();
    int err = runs ? 0 : mpr_os_helper_start(run, &start);
    while (!runs && err == 0 && !atomic_load(&start.done)) {
        mpr_os_wait(&start.done, 0, MPROC_FOREVER);
    }
    pthread_mutex_unlock(&mine.starting);
    return err < 0 ? err : start.err;
}

void mpr_pump_recede(void)
{
    mpr_os_wake(&mpr_family->many, INT_MAX);
}
