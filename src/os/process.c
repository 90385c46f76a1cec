/* SPDX-License-Identifier: MIT */
#include "os/process.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/deadline.h"
#include "os/os.h"

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum {
    WAIT_FOR_PIDFD = 3, /* P_PIDFD, absent from older headers */
    LOOK_MS = 5,        /* where nothing tells of a child's end */
    DISTRUST_MS = 1000  /* of a descriptor that user code can close */
};

/* ---- forks ------------------------------------------------------------ */

pid_t mpr_os_fork(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
    bool buffered = mpr_os_stdio_buffers();
    pid_t pid = fork();
    if (pid == 0 && buffered) {
        mpr_os_stdio_forget();
    }
    return pid < 0 ? mpr_os_error() : pid;
}

void mpr_os_fork_end(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

void mpr_os_end(int status)
{
    _exit(status & 0xff);
}

static void end_killed(void)
{
    kill(getpid(), SIGKILL);
    _exit(128 + SIGKILL); /* the first of a pid namespace kills itself so */
}

static bool wait_readable(int fd, mproc_deadline until)
{
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    return mpr_os_poll(&ended, 1, until) == 0 && (ended.revents & POLLIN);
}

/*
 * What the system says counts, not the pidfd: the user may have closed that, or
 * given its number to something else. Only of a parent of another pid
 * namespace, which has the pid 0 here, nothing else tells.
 */
bool mpr_os_parent_gone(const struct mpr_os_parent *parent)
{
    if (parent->fostered) {
        return mpr_os_process_gone(parent->pid, parent->since_boot_ns);
    }
    pid_t now = getppid();
    return now != 0 ? now != parent->pid
                    : parent->pidfd >= 0 &&
                          wait_readable(parent->pidfd, MPROC_NOWAIT);
}

static struct mpr_os_parent watched;

/*
 * A pidfd that is readable too early is none any more; one that never is may be
 * none either.
 */
static void *watch_parent(void *unused)
{
    while (!mpr_os_parent_gone(&watched)) {
        mproc_deadline look =
            mpr_deadline_after(mpr_os_now(), DISTRUST_MS, 1e6);
        if (mpr_os_child_wait(watched.pidfd, look) == 0 &&
            !mpr_os_parent_gone(&watched)) {
            watched.pidfd = -1;
        }
    }
    end_killed();
    return unused;
}

static bool start_watcher(const struct mpr_os_parent *parent)
{
    watched = *parent;
    return mpr_os_helper_start(watch_parent, NULL) == 0;
}

/*
 * The kernel's own signal comes when the thread that forked ends, which for any
 * but the parent's main one is too early: those are watched for by a thread
 * here. It comes too early rather than never where that thread cannot be had.
 */
void mpr_os_end_with_parent(const struct mpr_os_parent *parent)
{
    bool kernel_knows = parent->main_thread && !parent->fostered;
    if (kernel_knows || !start_watcher(parent)) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (mpr_os_parent_gone(parent)) {
            end_killed();
        }
        mpr_os_close(parent->pidfd);
    }
}

void mpr_os_continue_with_parent(void)
{
    prctl(PR_SET_PDEATHSIG, SIGCONT);
}

/* ---- children --------------------------------------------------------- */

int mpr_os_pidfd(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0) {
        return mpr_os_beyond_standard(fd);
    }
    switch (errno) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ESRCH:
        return mpr_os_error();
    default:
        return MPROC_ENOTSUP;
    }
}

static int code_of(const siginfo_t *info)
{
    return info->si_code == CLD_EXITED ? info->si_status : -info->si_status;
}

static int wait_id(int type, int id, siginfo_t *info, int what)
{
    info->si_pid = 0;
    long result = syscall(SYS_waitid, type, id, info, WNOHANG | what, NULL);
    return result == 0 ? 0 : errno;
}

int mpr_os_child_reap(pid_t pid, int pidfd, int *code)
{
    siginfo_t info;
    int err = EINVAL;
    if (pidfd >= 0) {
        err = wait_id(WAIT_FOR_PIDFD, pidfd, &info, WEXITED);
    }
    if (err == EINVAL || err == EBADF) { /* Linux 5.3, or closed by a user */
        err = wait_id(P_PID, pid, &info, WEXITED);
    }
    if (err != 0) {
        return MPROC_ECHILD;
    }
    if (info.si_pid == 0) {
        return MPROC_EAGAIN;
    }
    *code = code_of(&info);
    return 0;
}

enum mpr_os_change mpr_os_child_change(void)
{
    siginfo_t info;
    if (wait_id(P_ALL, 0, &info, WEXITED | WSTOPPED | WNOWAIT) != 0) {
        return MPR_OS_ENDED;
    }
    if (info.si_pid == 0) {
        return MPR_OS_NO_CHANGE;
    }
    if (info.si_code != CLD_STOPPED && info.si_code != CLD_TRAPPED) {
        return MPR_OS_ENDED;
    }
    wait_id(P_PID, info.si_pid, &info, WSTOPPED);
    return MPR_OS_STOPPED;
}

int mpr_os_child_reap_any(pid_t *pid, int *code)
{
    siginfo_t info;
    if (wait_id(P_ALL, 0, &info, WEXITED) != 0) {
        return MPROC_ECHILD;
    }
    if (info.si_pid == 0) {
        return MPROC_EAGAIN;
    }
    *pid = info.si_pid;
    *code = code_of(&info);
    return 0;
}

bool mpr_os_has_ended(pid_t pid, int pidfd, int64_t since_boot_ns)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    int cancel;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    int looked = ppoll(&ended, 1, &(struct timespec){0}, NULL);
    pthread_setcancelstate(cancel, NULL);
    if (pidfd >= 0 && looked >= 0 && !(ended.revents & POLLNVAL)) {
        return ended.revents != 0;
    }
    return mpr_os_process_gone(pid, since_boot_ns);
}

static void look_later(mproc_deadline until)
{
    static _Atomic uint32_t never;
    mproc_deadline look = mpr_deadline_after(mpr_os_now(), LOOK_MS, 1e6);
    mpr_os_wait(&never, 0, mpr_deadline_earlier(look, until));
}

/* NOLINTNEXTLINE(readability-function-size): of what libc's macros make */
void mpr_os_run_to_end(void (*run)(void *user), void (*end)(void *user),
                       void *user)
{
    pthread_cleanup_push(end, user);
    run(user);
    pthread_cleanup_pop(1);
}

void mpr_os_await_single_thread(void)
{
    while (!mpr_os_single_threaded()) {
        look_later(MPROC_FOREVER);
    }
}

void mpr_os_await_any(const int *fds, unsigned count, bool writable,
                      mproc_deadline until)
{
    enum { MOST = 4 };
    struct pollfd poll[MOST];
    for (unsigned i = 0; i < count && i < MOST; i++) {
        bool both = i == 0 && writable;
        poll[i] = (struct pollfd){.fd = fds[i],
                                  .events = both ? POLLIN | POLLOUT : POLLIN};
    }
    (void)mpr_os_poll(poll, count, until);
}

int mpr_os_child_wait(int pidfd, mproc_deadline until)
{
    bool ended = pidfd >= 0 && wait_readable(pidfd, until);
    if (!ended && mpr_os_now() < until.at_ns) {
        look_later(until); /* no pidfd, or no more */
        ended = true;
    }
    return ended ? 0 : MPROC_ETIMEDOUT;
}

int mpr_os_child_signal(pid_t pid, int pidfd, int sig)
{
    long result = -1;
    errno = ENOSYS;
    if (pidfd >= 0) {
        result = syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
    }
    if (result != 0 && (errno == ENOSYS || errno == EBADF)) {
        result = kill(pid, sig);
    }
    return result == 0 ? 0 : mpr_os_error();
}
