/* SPDX-License-Identifier: MIT */
/* This program started anew, as a child of this process. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/os.h"
#include "os/process.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/*
 * What is run is what this process runs, by its open file: also when that was
 * removed or replaced since.
 */
#define PROGRAM "/proc/self/exe"

/* Tells the new process what it is; it takes it out of its environment. */
#define VARIABLE "MPROC_STARTED_ANEW_"

enum { KEPT = 3, STACK_SIZE = 32768, VALUE_SIZE = 160 };

/* ---- in the child of the parent's memory ------------------------------ */

/*
 * The child runs in its parent's memory, on a stack of its own, while the
 * thread that made it waits and other threads go on: so nothing is copied, and
 * it makes system calls only. Signals are blocked until the program's own
 * constructors: a handler would run in the parent's memory.
 */
struct launch {
    char **argv;
    char **envp;
    int keep[KEPT]; /* ascending; -1: none */
    int error;      /* an errno, of what kept the program from being run */
    alignas(16) char stack[STACK_SIZE];
};

/* The thread sanitizer takes the child of every clone for a fork's. */
#ifdef __SANITIZE_THREAD__
#define CHILD_SHARES 0
#else
#define CHILD_SHARES CLONE_VM
#endif

#define UNINSTRUMENTED __attribute__((no_sanitize("address", "thread")))

struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

UNINSTRUMENTED static void close_unless_kept(const struct launch *launch,
                                             const char *name, int dir)
{
    int fd = 0;
    for (; *name >= '0' && *name <= '9'; name++) {
        fd = fd * 10 + (*name - '0');
    }
    bool kept = *name != '\0' || fd <= STDERR_FILENO || fd == dir;
    for (int i = 0; i < KEPT; i++) {
        kept |= launch->keep[i] == fd;
    }
    if (!kept) {
        syscall(SYS_close, fd);
    }
}

/* Before Linux 5.9. The list goes on behind a number that was closed. */
UNINSTRUMENTED static bool close_listed(const struct launch *launch)
{
    alignas(struct entry) char entries[2048];
    long got = -1;
    int dir = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/fd",
                           O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (dir >= 0 &&
           (got = syscall(SYS_getdents64, dir, entries, sizeof entries)) > 0) {
        for (long at = 0; at < got;) {
            const struct entry *entry = (const void *)(entries + at);
            close_unless_kept(launch, entry->name, dir);
            at += entry->size;
        }
    }
    return got == 0;
}

UNINSTRUMENTED static bool close_others(const struct launch *launch)
{
    unsigned from = STDERR_FILENO + 1;
    for (int i = 0; i < KEPT; i++) {
        int kept = launch->keep[i];
        if (kept < 0) {
            continue;
        }
        syscall(SYS_fcntl, kept, F_SETFD, 0);
        if ((unsigned)kept > from) {
            syscall(SYS_close_range, from, (unsigned)kept - 1, 0);
        }
        from = (unsigned)kept + 1;
    }
    return syscall(SYS_close_range, from, ~0U, 0) == 0 || close_listed(launch);
}

UNINSTRUMENTED static int run_program(void *user)
{
    struct launch *launch = user;
    if (close_others(launch)) {
        syscall(SYS_execve, PROGRAM, launch->argv, launch->envp);
    }
    launch->error = errno;
    return 127; /* as the status of this process */
}

/* ---- in the parent ---------------------------------------------------- */

/* The mask as a number: signals are at most 64. */
static uint64_t mask_number(const sigset_t *mask)
{
    uint64_t number = 0;
    for (int sig = 1; sig <= 64; sig++) {
        number |= (uint64_t)(sigismember(mask, sig) == 1) << (sig - 1);
    }
    return number;
}

static void write_value(char out[static VALUE_SIZE],
                        const struct mpr_os_seed *seed, uint64_t mask)
{
    snprintf(out, VALUE_SIZE, VARIABLE "=%d:%d:%d:%u:%llx:%llx", seed->channel,
             seed->region, seed->parent_pidfd, seed->tries,
             (unsigned long long)mask, (unsigned long long)seed->library);
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* This process's environment and the variable. NULL: no memory. */
static char **environment(char *variable)
{
    size_t count = 0;
    while (environ != NULL && environ[count] != NULL) {
        count++;
    }
    char **envp = malloc((count + 2) * sizeof *envp);
    if (envp != NULL) {
        envp[0] = variable;
        for (size_t i = 0; i < count; i++) {
            envp[i + 1] = environ[i];
        }
        envp[count + 1] = NULL;
    }
    return envp;
}

/* With all signals blocked. The child has ended where it could not run. */
static int launch_child(struct launch *launch, pid_t *pid)
{
    int saved = errno; /* the child's is this thread's */
    int flags = CHILD_SHARES | CLONE_VFORK | SIGCHLD;
    *pid = clone(run_program, launch->stack + STACK_SIZE, flags, launch);
    int err = *pid < 0 ? mpr_os_error() : 0;
    if (*pid > 0 && launch->error != 0) {
        siginfo_t info;
        while (syscall(SYS_waitid, P_PID, *pid, &info, WEXITED, NULL) != 0 &&
               errno == EINTR) {
        }
        errno = launch->error;
        err = mpr_os_error();
    }
    errno = saved;
    return err;
}

static int prepare_and_launch(struct launch *launch,
                              const struct mpr_os_seed *seed, pid_t *pid)
{
    char value[VALUE_SIZE];
    char *argv[] = {program_invocation_name, NULL};
    const int keep[] = {seed->channel, seed->region, seed->parent_pidfd};
    sigset_t all, before;
    launch->argv = argv;
    launch->envp = environment(value);
    if (launch->envp == NULL) {
        return MPROC_ENOMEM;
    }
    memcpy(launch->keep, keep, sizeof keep);
    qsort(launch->keep, KEPT, sizeof keep[0], compare);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    write_value(value, seed, mask_number(&before));
    int err = launch_child(launch, pid);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    free(launch->envp);
    return err;
}

/* In memory that the child shares also where it shares no other. */
int mpr_os_start_anew(const struct mpr_os_seed *seed, pid_t *pid)
{
    struct launch *launch =
        mmap(NULL, sizeof *launch, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (launch == MAP_FAILED) {
        return MPROC_ENOMEM;
    }
    int err = prepare_and_launch(launch, seed, pid);
    munmap(launch, sizeof *launch);
    return err;
}

bool mpr_os_may_start_anew(void)
{
    return getauxval(AT_SECURE) == 0;
}

/* ---- in the program started anew -------------------------------------- */

static struct mpr_os_seed sown;
static uint64_t mask_to_restore;
static enum { NOT_LOOKED, NOT_SOWN, SOWN } state;

static void restore_mask(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    for (int sig = 1; sig <= 64; sig++) {
        if (mask_to_restore >> (sig - 1) & 1) {
            sigaddset(&mask, sig);
        }
    }
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static bool keep_from_programs(int fd)
{
    return fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

/* Whatever else is in the variable: somebody plays. */
static bool read_value(const char *value)
{
    unsigned long long mask, library;
    int type;
    socklen_t size = sizeof type;
    if (sscanf(value, "%d:%d:%d:%u:%llx:%llx", &sown.channel, &sown.region,
               &sown.parent_pidfd, &sown.tries, &mask, &library) != 6 ||
        getsockopt(sown.channel, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
        sown.region < 0) {
        return false;
    }
    mask_to_restore = mask;
    sown.library = library;
    return keep_from_programs(sown.channel) &&
           keep_from_programs(sown.region) &&
           keep_from_programs(sown.parent_pidfd);
}

bool mpr_os_seed(struct mpr_os_seed *out)
{
    if (state == NOT_LOOKED) {
        const char *value = secure_getenv(VARIABLE);
        state = value != NULL && read_value(value) ? SOWN : NOT_SOWN;
        if (value != NULL) {
            unsetenv(VARIABLE);
        }
        if (state == SOWN) {
            prctl(PR_SET_NAME, program_invocation_short_name);
            restore_mask();
        }
    }
    *out = sown;
    return state == SOWN;
}

/* Without the descriptors' flags it would come back as a program of its own. */
int mpr_os_start_again(struct mpr_os_seed seed)
{
    char value[VALUE_SIZE];
    char *argv[] = {program_invocation_name, NULL};
    seed.tries++;
    write_value(value, &seed, mask_to_restore);
    char **envp = environment(value);
    if (envp == NULL) {
        return MPROC_ENOMEM;
    }
    fcntl(seed.channel, F_SETFD, 0);
    fcntl(seed.region, F_SETFD, 0);
    if (seed.parent_pidfd >= 0) {
        fcntl(seed.parent_pidfd, F_SETFD, 0);
    }
    execve(PROGRAM, argv, envp);
    int err = mpr_os_error();
    free(envp);
    return err;
}
