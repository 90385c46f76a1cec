/* SPDX-License-Identifier: MIT */
/*
 * Whether a process can still run user code, asked of the system. The memory
 * of a dying process goes at once, its pid and pidfd only after all of it is
 * unmapped (55 ms a GiB), so its threads' sizes are what is looked at.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum thread_state { THREAD_GONE, THREAD_RUNS, THREAD_YOUNGER, THREAD_UNKNOWN };

/* Fields of /proc/PID/task/TID/stat, counted from 1; the name may hold
 * anything, so counting starts behind its last parenthesis, at field 3. */
static enum thread_state parse_stat(const char *text, int64_t since_boot_ns)
{
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] == '\0') {
        return THREAD_UNKNOWN;
    }
    at += 2;
    char letter = *at;
    unsigned long long start = 0, vsize = 0;
    int field = 3;
    for (; *at != '\0' && field < 23; field++) {
        if (field == 22) {
            start = strtoull(at, NULL, 10);
        }
        at += strcspn(at, " ");
        at += *at == ' ';
    }
    if (field < 23) {
        return THREAD_UNKNOWN;
    }
    vsize = strtoull(at, NULL, 10);
    int64_t tick_ns = 1000000000 / sysconf(_SC_CLK_TCK);
    if ((int64_t)start * tick_ns > since_boot_ns + tick_ns) {
        return THREAD_YOUNGER;
    }
    return vsize == 0 || letter == 'X' ? THREAD_GONE : THREAD_RUNS;
}

static enum thread_state thread_state(int task_dir, const char *tid,
                                      int64_t since_boot_ns)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "%.20s/stat", tid);
    int fd = openat(task_dir, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? THREAD_GONE : THREAD_UNKNOWN;
    }
    ssize_t size = read(fd, text, sizeof text - 1);
    int err = errno;
    close(fd);
    if (size <= 0) {
        return size < 0 && err == ESRCH ? THREAD_GONE : THREAD_UNKNOWN;
    }
    text[size] = '\0';
    return parse_stat(text, since_boot_ns);
}

/*
 * The first thread's date is the process's. A younger one further on is a
 * thread that was started since: it runs.
 */
static enum thread_state all_threads(DIR *tasks, pid_t pid,
                                     int64_t since_boot_ns)
{
    enum thread_state all = THREAD_GONE;
    for (const struct dirent *e; (e = readdir(tasks)) != NULL;) {
        if (e->d_name[0] == '.') {
            continue;
        }
        bool leader = strtol(e->d_name, NULL, 10) == pid;
        enum thread_state one = thread_state(
            dirfd(tasks), e->d_name, leader ? since_boot_ns : INT64_MAX / 2);
        if (one == THREAD_YOUNGER) {
            return THREAD_GONE;
        }
        if (one != THREAD_GONE) {
            all = one;
        }
    }
    return all;
}

static bool gone_by_pidfd(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        return errno == ESRCH || (kill(pid, 0) != 0 && errno == ESRCH);
    }
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    bool gone = poll(&ended, 1, 0) == 1;
    close(fd);
    return gone;
}

bool mpr_os_process_gone(pid_t pid, int64_t since_boot_ns)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
    int saved = errno;
    DIR *tasks = opendir(path);
    bool gone;
    if (tasks != NULL) {
        enum thread_state all = all_threads(tasks, pid, since_boot_ns);
        closedir(tasks);
        gone =
            all == THREAD_GONE || (all == THREAD_UNKNOWN && gone_by_pidfd(pid));
    } else {
        gone = gone_by_pidfd(pid);
    }
    errno = saved;
    return gone;
}
