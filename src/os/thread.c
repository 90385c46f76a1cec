/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <unistd.h>

#include "os/os.h"
#include "os/process.h"

/* Its signals are blocked, so that handlers run in the user's threads. */
static bool create(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool created = pthread_create(thread, NULL, fn, arg) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return created;
}

int mpr_os_thread_start(struct mpr_os_thread *out, void *(*fn)(void *),
                        void *arg)
{
    return create(&out->id, fn, arg) ? 0 : MPROC_EAGAIN;
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

/* ---- helpers ---------------------------------------------------------- */

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

int mpr_os_helper_start(void *(*fn)(void *), void *arg)
{
    pthread_t thread;
    struct helper *helper = malloc(sizeof *helper);
    if (helper == NULL) {
        return MPROC_ENOMEM;
    }
    *helper = (struct helper){fn, arg};
    if (!create(&thread, run_helper, helper)) {
        free(helper);
        return MPROC_EAGAIN;
    }
    pthread_detach(thread);
    count_helper(1);
    return 0;
}
