/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/os.h"
#include "os/process.h"

#ifdef __has_include
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define KNOWN_SINGLE __libc_single_threaded
#endif
#endif
#ifndef KNOWN_SINGLE
#define KNOWN_SINGLE 0
#endif

/* By the links of a directory that has one entry a thread. */
bool mpr_os_single_threaded(void)
{
    struct stat tasks;
    unsigned links = 3 + mpr_os_helper_threads();
    return KNOWN_SINGLE ||
           (stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink == links);
}

static void flush_if_idle(FILE *stream)
{
    if (ftrylockfile(stream) == 0) {
        fflush(stream);
        funlockfile(stream);
    }
}

void mpr_os_stdio_flush(void)
{
    int cancel; /* writing is a cancellation point */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    if (mpr_os_single_threaded()) {
        fflush(NULL);
    } else {
        flush_if_idle(stdout);
        flush_if_idle(stderr);
    }
    pthread_setcancelstate(cancel, NULL);
}

bool mpr_os_stdio_buffers(void)
{
    return __fpending(stdout) > 0 || __fpending(stderr) > 0 ||
           !mpr_os_single_threaded();
}

void mpr_os_stdio_forget(void)
{
    __fpurge(stdout);
    __fpurge(stderr);
}

static void (*exit_hook)(int status);

#ifdef __GLIBC__
static void call_exit_hook(int status, void *unused)
{
    (void)unused;
    exit_hook(status);
}

static int register_exit_hook(void)
{
    return on_exit(call_exit_hook, NULL);
}
#else
static void call_exit_hook(void)
{
    exit_hook(0);
}

static int register_exit_hook(void)
{
    return atexit(call_exit_hook);
}
#endif

int mpr_os_on_exit(void (*fn)(int status))
{
    exit_hook = fn;
    return register_exit_hook() == 0 ? 0 : MPROC_ENOMEM;
}
