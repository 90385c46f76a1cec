/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/deadline.h"
#include "os/os.h"

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t mpr_os_now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

int64_t mpr_os_boot_now(void)
{
    return clock_ns(CLOCK_BOOTTIME);
}

mproc_deadline mproc_in_ms(double ms)
{
    return mpr_deadline_after(mpr_os_now(), ms, 1e6);
}

mproc_deadline mproc_in_s(double s)
{
    return mpr_deadline_after(mpr_os_now(), s, 1e9);
}

void mpr_os_yield(void)
{
    sched_yield();
}

/* The affinity mask may be wider than cpu_set_t: grow until it fits. */
unsigned mproc_cpu_count(void)
{
    for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (set == NULL) {
            break;
        }
        size_t size = CPU_ALLOC_SIZE((size_t)cpus);
        int failed = sched_getaffinity(0, size, set);
        int count = failed ? 0 : CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (count > 0) {
            return (unsigned)count;
        }
        if (errno != EINVAL) {
            break;
        }
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

pid_t mpr_os_pid(void)
{
    return getpid();
}

pid_t mpr_os_parent_pid(void)
{
    return getppid();
}

pid_t mpr_os_tid(void)
{
    return (pid_t)syscall(SYS_gettid);
}

uint64_t mpr_os_pid_namespace(void)
{
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

int mpr_os_error(void)
{
    return errno > 0 ? -errno : MPROC_EIO;
}
