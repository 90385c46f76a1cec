/* SPDX-License-Identifier: MIT */
/*
 * By system calls of our own, with the kernel's own layouts: libcs have no
 * calls for these, and differ in the size of time on 32 bit.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/deadline.h"
#include "os/os.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

/* As the kernel lays it out; absent from the headers of older systems. */
struct waitv {
    uint64_t seen;
    uint64_t word;
    uint32_t flags;
    uint32_t reserved;
};

enum { WAITV_SIZE_32 = 2 };

/* Operations of the system call futex. */
enum { WAKE = 1, WAKE_OP = 5, WAIT_BITSET = 9 };
#define ALL_BITS UINT32_MAX

/* Of struct timespec; the libc's may have 32 bits in each. */
struct kernel_time {
    int64_t sec;
    int64_t nsec;
};

static const struct kernel_time *time_of(mproc_deadline until,
                                         struct kernel_time *storage)
{
    if (mpr_deadline_is_forever(until)) {
        return NULL;
    }
    int64_t at = until.at_ns > 0 ? until.at_ns : 0;
    storage->sec = at / 1000000000;
    storage->nsec = at % 1000000000;
    return storage;
}

/* WAIT_BITSET: its time-out is absolute and of the monotonic clock. */
static long futex_wait(_Atomic uint32_t *word, uint32_t seen,
                       const struct kernel_time *until)
{
#if UINTPTR_MAX > 0xffffffffu
    return syscall(SYS_futex, word, WAIT_BITSET, seen, until, NULL, ALL_BITS);
#else
    enum { FUTEX_TIME64 = 422 };
    long result =
        syscall(FUTEX_TIME64, word, WAIT_BITSET, seen, until, NULL, ALL_BITS);
    if (result == 0 || errno != ENOSYS) {
        return result;
    }
    int32_t brief[2]; /* before Linux 5.1 */
    if (until != NULL) {
        brief[0] = until->sec < INT32_MAX ? (int32_t)until->sec : INT32_MAX;
        brief[1] = (int32_t)until->nsec;
    }
    return syscall(SYS_futex, word, WAIT_BITSET, seen,
                   until != NULL ? brief : NULL, NULL, ALL_BITS);
#endif
}

int mpr_os_wait(_Atomic uint32_t *word, uint32_t seen, mproc_deadline until)
{
    struct kernel_time storage;
    long result = futex_wait(word, seen, time_of(until, &storage));
    return result != 0 && errno == ETIMEDOUT ? MPROC_ETIMEDOUT : 0;
}

int mpr_os_wake(_Atomic uint32_t *word, int n)
{
    int saved = errno;
    long woken = syscall(SYS_futex, word, WAKE, n, NULL, NULL, 0);
    errno = saved;
    return woken > 0 ? (int)woken : 0;
}

void mpr_os_add_and_wake_all(_Atomic uint32_t *word, uint32_t n)
{
    const uint32_t add = UINT32_C(1) << 28 | n << 12;
    int saved = errno;
    if (syscall(SYS_futex, word, WAKE_OP, INT32_MAX, NULL, word, add) < 0) {
        atomic_fetch_add(word, n); /* refused: in two steps then */
        mpr_os_wake(word, INT32_MAX);
    }
    errno = saved;
}

int mpr_os_wait_any(const struct mpr_os_word *words, unsigned count,
                    mproc_deadline until)
{
    static atomic_bool missing;
    struct waitv vector[MPR_OS_WORDS_MAX];
    struct kernel_time storage;

    if (atomic_load_explicit(&missing, memory_order_relaxed)) {
        return MPROC_ENOTSUP;
    }
    for (unsigned i = 0; i < count; i++) {
        vector[i] = (struct waitv){.seen = words[i].seen,
                                   .word = (uint64_t)(uintptr_t)words[i].word,
                                   .flags = WAITV_SIZE_32};
    }
    long result = syscall(SYS_futex_waitv, vector, count, 0,
                          time_of(until, &storage), CLOCK_MONOTONIC);
    if (result >= 0 || errno == EAGAIN || errno == EINTR) {
        return 0;
    }
    if (errno == ETIMEDOUT) {
        return MPROC_ETIMEDOUT;
    }
    atomic_store_explicit(&missing, true, memory_order_relaxed);
    return MPROC_ENOTSUP;
}
