/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <unistd.h>

#include "os/os.h"
#include "os/process.h"

/* {pid:32 | helpers:32}: those of another process are not this one's. */
static _Atomic uint64_t helpers;

unsigned mpr_os_helper_threads(void)
{
    uint64_t now = atomic_load(&helpers);
    return now >> 32 == (uint64_t)getpid() ? (unsigned)(uint32_t)now : 0;
}

static void count_helper(int32_t n)
{
    uint64_t now = atomic_load(&helpers), next;
    do {
        uint32_t count = mpr_os_helper_threads() + (uint32_t)n;
        next = (uint64_t)getpid() << 32 | count;
    } while (!atomic_compare_exchange_weak(&helpers, &now, next));
}

struct helper {
    void *(*fn)(void *);
    void *arg;
};

/* It is counted for too short rather than too long a time. */
static void *run_helper(void *arg)
{
    struct helper helper = *(struct helper *)arg;
    free(arg);
    void *result = helper.fn(helper.arg);
    count_helper(-1);
    return result;
}

static bool create_detached(struct helper *helper)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    if (pthread_attr_init(&attr) != 0) {
        return false;
    }
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool created = pthread_create(&thread, &attr, run_helper, helper) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return created;
}

int mpr_os_helper_start(void *(*fn)(void *), void *arg)
{
    struct helper *helper = malloc(sizeof *helper);
    if (helper == NULL) {
        return MPROC_ENOMEM;
    }
    *helper = (struct helper){fn, arg};
    if (!create_detached(helper)) {
        free(helper);
        return MPROC_EAGAIN;
    }
    count_helper(1);
    return 0;
}

int mpr_os_thread_start(struct mpr_os_thread *out, void *(*fn)(void *),
                        void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&out->id, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err == 0 ? 0 : MPROC_EAGAIN;
}

/* No cancellation point. */
void mpr_os_thread_join(const struct mpr_os_thread *thread)
{
    int cancel;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    pthread_join(thread->id, NULL);
    pthread_setcancelstate(cancel, NULL);
}

void mpr_os_thread_detach(const struct mpr_os_thread *thread)
{
    pthread_detach(thread->id);
}
