/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/deadline.h"
#include "os/os.h"
#include "os/process.h"

/*
 * By system calls of our own: those of libc are cancellation points.
 */

int mpr_os_flag(bool raised)
{
    int fd = (int)syscall(SYS_eventfd2, raised, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd >= 0 ? mpr_os_beyond_standard(fd) : mpr_os_error();
}

void mpr_os_flag_raise(int fd)
{
    const uint64_t one = 1;
    int saved = errno;
    syscall(SYS_write, fd, &one, sizeof one);
    errno = saved;
}

void mpr_os_flag_lower(int fd)
{
    uint64_t count;
    int saved = errno;
    syscall(SYS_read, fd, &count, sizeof count);
    errno = saved;
}

/* But for the thread sanitizer what it does not see closed is still in use. */
void mpr_os_close(int fd)
{
    if (fd >= 0) {
#ifdef __SANITIZE_THREAD__
        close(fd);
#else
        syscall(SYS_close, fd);
#endif
    }
}

static int try_poll(struct pollfd *fds, size_t count, mproc_deadline until)
{
    struct timespec left = {0};
    int64_t now = mpr_os_now();
    if (now < until.at_ns) {
        left.tv_sec = (time_t)((until.at_ns - now) / 1000000000);
        left.tv_nsec = (long)((until.at_ns - now) % 1000000000);
    }
    return ppoll(fds, (nfds_t)count,
                 mpr_deadline_is_forever(until) ? NULL : &left, NULL);
}

int mpr_os_poll(struct pollfd *fds, size_t count, mproc_deadline until)
{
    int cancel, n;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    do {
        n = try_poll(fds, count, until);
    } while (n < 0 && errno == EINTR);
    int err = n < 0 ? mpr_os_error() : 0;
    pthread_setcancelstate(cancel, NULL);
    return n == 0 ? MPROC_ETIMEDOUT : err;
}
