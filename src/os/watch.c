/* SPDX-License-Identifier: MIT */
#include <sys/epoll.h>

#include "os/os.h"
#include "os/process.h"

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
