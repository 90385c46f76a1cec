/* SPDX-License-Identifier: MIT */
/*
 * Whether a process can still run user code, asked of the system. The memory
 * of a dying process goes at once, its pid and pidfd only after all of it is
 * unmapped (55 ms a GiB), so its threads' sizes are what is looked at. Nothing
 * here allocates: in a child that was forked beside another thread, the locks
 * of an allocator other than libc's may be held for good.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum thread_state {
    THREAD_GONE,
    THREAD_RUNS,
    THREAD_YOUNGER, /* its pid was given to another process */
    THREAD_UNKNOWN
};

/* What is known of the process in question. */
struct wanted {
    pid_t pid;
    int64_t since_boot_ns;
    uint64_t program; /* 0: any */
};

/* Fields of /proc/PID/task/TID/stat, counted from 1. */
enum { STAT_STATE = 3, STAT_START = 22, STAT_SIZE = 23, STAT_STACK = 28 };

struct stat_fields {
    char state;
    unsigned long long start, size, stack;
};

/* The name, field 2, may hold anything: count from its last parenthesis. */
static bool read_fields(const char *text, struct stat_fields *out)
{
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] == '\0') {
        return false;
    }
    at += 2;
    out->state = *at;
    for (int field = STAT_STATE; *at != '\0'; field++) {
        unsigned long long value = strtoull(at, NULL, 10);
        if (field == STAT_START) {
            out->start = value;
        } else if (field == STAT_SIZE) {
            out->size = value;
        } else if (field == STAT_STACK) {
            out->stack = value;
            return true;
        }
        at += strcspn(at, " ");
        at += *at == ' ';
    }
    return false;
}

/*
 * Where the stack of a program begins is chosen when it is started, by chance,
 * and stays so in every fork. 0 where it is kept from us.
 */
static enum thread_state parse_stat(const char *text, bool leader,
                                    const struct wanted *wanted)
{
    struct stat_fields is;
    if (!read_fields(text, &is)) {
        return THREAD_UNKNOWN;
    }
    int64_t tick_ns = 1000000000 / sysconf(_SC_CLK_TCK);
    if (leader &&
        (int64_t)is.start * tick_ns > wanted->since_boot_ns + tick_ns) {
        return THREAD_YOUNGER;
    }
    bool other_program =
        wanted->program != 0 && is.stack != 0 && is.stack != wanted->program;
    bool gone = is.size == 0 || is.state == 'X' || other_program;
    return gone ? THREAD_GONE : THREAD_RUNS;
}

static ssize_t read_file(int dir, const char *path, char *text, size_t size)
{
    errno = 0;
    int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    ssize_t got = read(fd, text, size - 1);
    int err = errno;
    close(fd);
    errno = err;
    text[got > 0 ? got : 0] = '\0';
    return got;
}

static enum thread_state thread_state(int tasks, const char *tid,
                                      const struct wanted *wanted)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "%.20s/stat", tid);
    if (read_file(tasks, path, text, sizeof text) <= 0) {
        return errno == ENOENT || errno == ESRCH ? THREAD_GONE : THREAD_UNKNOWN;
    }
    return parse_stat(text, strtol(tid, NULL, 10) == wanted->pid, wanted);
}

/* An entry of a directory, as the kernel lays it out. */
struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

struct directory {
    int fd;
    long filled, at;
    alignas(struct entry) char entries[1024];
};

/* The name of the next entry, NULL when there is none. */
static const char *next_name(struct directory *dir)
{
    if (dir->at >= dir->filled) {
        dir->filled =
            syscall(SYS_getdents64, dir->fd, dir->entries, sizeof dir->entries);
        dir->at = 0;
        if (dir->filled <= 0) {
            return NULL;
        }
    }
    const struct entry *entry = (const void *)(dir->entries + dir->at);
    dir->at += entry->size;
    return entry->name;
}

/* `listing` gets a number that tells one list of threads from another. */
static enum thread_state all_threads(int tasks, const struct wanted *wanted,
                                     uint64_t *listing)
{
    enum thread_state all = THREAD_GONE;
    struct directory dir = {.fd = tasks};
    *listing = 0;
    for (const char *name; (name = next_name(&dir)) != NULL;) {
        if (name[0] == '.') {
            continue;
        }
        *listing +=
            (strtoull(name, NULL, 10) + 1) * UINT64_C(0x9e3779b97f4a7c15);
        enum thread_state one = thread_state(tasks, name, wanted);
        if (one == THREAD_YOUNGER) {
            return one;
        }
        if (one != THREAD_GONE) {
            all = one;
        }
    }
    if (dir.filled < 0 && errno != ENOENT) {
        return THREAD_UNKNOWN; /* the list may go on */
    }
    return all;
}

/*
 * A listed thread may start another and end before it is looked at. So nobody
 * is left only when a second list is the same as one whose threads were all
 * found gone.
 */
static enum thread_state listed_threads(int tasks, const struct wanted *wanted)
{
    enum { LOOKS = 4 };
    uint64_t before = 0;
    for (int i = 0; i < LOOKS; i++) {
        uint64_t listing;
        enum thread_state all = all_threads(tasks, wanted, &listing);
        if (all == THREAD_YOUNGER) {
            return THREAD_GONE;
        }
        if (all != THREAD_GONE || (i > 0 && listing == before)) {
            return all;
        }
        before = listing;
        lseek(tasks, 0, SEEK_SET);
    }
    return THREAD_RUNS;
}

static enum mpr_os_trace trace_by_pidfd(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        bool gone = errno == ESRCH || (kill(pid, 0) != 0 && errno == ESRCH);
        return gone ? MPR_OS_GONE : MPR_OS_UNTOLD;
    }
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    bool gone = poll(&ended, 1, 0) == 1;
    close(fd);
    return gone ? MPR_OS_GONE : MPR_OS_RUNS;
}

static enum mpr_os_trace trace_of(const struct wanted *wanted)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/task", (long)wanted->pid);
    int tasks = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tasks < 0) {
        return trace_by_pidfd(wanted->pid);
    }
    enum thread_state all = listed_threads(tasks, wanted);
    close(tasks);
    if (all == THREAD_UNKNOWN) {
        return trace_by_pidfd(wanted->pid);
    }
    return all == THREAD_GONE ? MPR_OS_GONE : MPR_OS_RUNS;
}

enum mpr_os_trace mpr_os_program_trace(pid_t pid, int64_t since_boot_ns,
                                       uint64_t program)
{
    struct wanted wanted = {pid, since_boot_ns, program};
    int saved = errno;
    enum mpr_os_trace trace = trace_of(&wanted);
    errno = saved;
    return trace;
}

bool mpr_os_process_gone(pid_t pid, int64_t since_boot_ns)
{
    return mpr_os_program_trace(pid, since_boot_ns, 0) == MPR_OS_GONE;
}

uint64_t mpr_os_program(void)
{
    static _Atomic uint64_t known; /* it is the same in every fork */
    uint64_t program = atomic_load_explicit(&known, memory_order_relaxed);
    struct stat_fields is;
    char text[1024];
    if (program != 0) {
        return program;
    }
    int saved = errno;
    if (read_file(AT_FDCWD, "/proc/self/stat", text, sizeof text) > 0 &&
        read_fields(text, &is)) {
        program = is.stack;
        atomic_store_explicit(&known, program, memory_order_relaxed);
    }
    errno = saved;
    return program;
}
