/* SPDX-License-Identifier: MIT */
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>

#include "base/deadline.h"
#include "os/os.h"
#include "os/process.h"

int mpr_os_timer(void)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return fd >= 0 ? fd : mpr_os_error();
}

/* All zeros mean never. */
void mpr_os_timer_set(int fd, mproc_deadline at)
{
    struct itimerspec spec = {{0}, {0}};
    if (!mpr_deadline_is_forever(at)) {
        int64_t ns = at.at_ns > 0 ? at.at_ns : 1;
        spec.it_value.tv_sec = (time_t)(ns / 1000000000);
        spec.it_value.tv_nsec = (long)(ns % 1000000000);
    }
    timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

int mpr_os_watch(void)
{
    int watch = epoll_create1(EPOLL_CLOEXEC);
    return watch >= 0 ? mpr_os_beyond_standard(watch) : mpr_os_error();
}

int mpr_os_watch_add(int watch, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    int result = epoll_ctl(watch, EPOLL_CTL_ADD, fd, &event);
    return result == 0 ? 0 : mpr_os_error();
}

void mpr_os_watch_remove(int watch, int fd)
{
    struct epoll_event unused = {0};
    epoll_ctl(watch, EPOLL_CTL_DEL, fd, &unused);
}
