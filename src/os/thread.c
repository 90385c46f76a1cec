/* SPDX-License-Identifier: MIT */
#include <signal.h>

#include "os/os.h"

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
