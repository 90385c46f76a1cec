/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os.h"
#include "os/process.h"

int mpr_os_beyond_standard(int fd)
{
    if (fd > STDERR_FILENO || fd < 0) {
        return fd;
    }
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int err = mpr_os_error();
    mpr_os_close(fd);
    return moved >= 0 ? moved : err;
}

int mpr_os_channel(int ends[2])
{
    int made[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, made) != 0) {
        return mpr_os_error();
    }
    made[0] = mpr_os_beyond_standard(made[0]);
    made[1] = mpr_os_beyond_standard(made[1]);
    if (made[0] < 0 || made[1] < 0) {
        mpr_os_close(made[0]);
        mpr_os_close(made[1]);
        return made[0] < 0 ? made[0] : made[1];
    }
    memcpy(ends, made, sizeof made);
    return 0;
}

/* What a call that has failed means for a channel. */
static int channel_error(void)
{
    switch (errno) {
    case EPIPE:
    case ECONNRESET:
        return MPROC_EOF;
    case EINTR:
        return MPROC_EAGAIN;
    default:
        return mpr_os_error();
    }
}

/* Part of it, without waiting; libc's calls are cancellation points. */
static ssize_t move_some(int channel, bool send_it, char *data, size_t size)
{
    long call = send_it ? SYS_sendto : SYS_recvfrom;
    ssize_t n = syscall(call, channel, data, size, MSG_DONTWAIT | MSG_NOSIGNAL,
                        NULL, NULL);
    if (n < 0) {
        return channel_error();
    }
    return n == 0 ? MPROC_EOF : n;
}

/* The other side died: what it had sent is there still. */
static int move_rest(int channel, bool send_it, char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = send_it ? MPROC_EOF : move_some(channel, false, data, size);
        if (n < 0) {
            return n == MPROC_EAGAIN ? MPROC_EOF : (int)n;
        }
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static int move_all(int channel, int death, bool send_it, char *data,
                    size_t size)
{
    short event = send_it ? POLLOUT : POLLIN;
    while (size > 0) {
        ssize_t n = move_some(channel, send_it, data, size);
        if (n < 0 && n != MPROC_EAGAIN) {
            return (int)n;
        }
        if (n > 0) {
            data += n;
            size -= (size_t)n;
            continue;
        }
        struct pollfd fds[] = {{.fd = channel, .events = event},
                               {.fd = death, .events = POLLIN}};
        if (poll(fds, 2, -1) > 0 && fds[0].revents == 0) {
            return move_rest(channel, send_it, data, size);
        }
    }
    return 0;
}

/* poll is a cancellation point. */
static int move_uncancelled(int channel, int death, bool send_it, char *data,
                            size_t size)
{
    int cancel;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    int err = move_all(channel, death, send_it, data, size);
    pthread_setcancelstate(cancel, NULL);
    return err;
}

int mpr_os_channel_send(int channel, int death, const void *data, size_t size)
{
    return move_uncancelled(channel, death, true, (char *)data, size);
}

int mpr_os_channel_receive(int channel, int death, void *data, size_t size)
{
    return move_uncancelled(channel, death, false, data, size);
}

/* So few that they come and go in one piece. */
int mpr_os_channel_try_send(int channel, const void *data, size_t size)
{
    ssize_t n = move_some(channel, true, (char *)data, size);
    return n < 0 ? (int)n : 0;
}

int mpr_os_channel_try_receive(int channel, void *data, size_t size)
{
    ssize_t n = move_some(channel, false, data, size);
    return n < 0 ? (int)n : 0;
}

/* ---- descriptors ------------------------------------------------------ */

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int mpr_os_channel_hand(int channel, int fd, uint64_t number)
{
    union control control = {.bytes = {0}};
    struct iovec data = {&number, sizeof number};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    ssize_t n =
        syscall(SYS_sendmsg, channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? channel_error() : 0;
}

int mpr_os_channel_take(int channel, int *fd, uint64_t *number)
{
    union control control;
    struct iovec data = {number, sizeof *number};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t n = syscall(SYS_recvmsg, channel, &message,
                        MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n <= 0) {
        return n == 0 ? MPROC_EOF : channel_error();
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *fd = -1; /* this process had no descriptor left */
    if (header != NULL && header->cmsg_type == SCM_RIGHTS) {
        memcpy(fd, CMSG_DATA(header), sizeof *fd);
    }
    return 0;
}
