/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/futex.h>
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

static const struct timespec *timespec_of(mproc_deadline until,
                                          struct timespec *storage)
{
    if (mpr_deadline_is_forever(until)) {
        return NULL;
    }
    int64_t at = until.at_ns > 0 ? until.at_ns : 0;
    storage->tv_sec = (time_t)(at / 1000000000);
    storage->tv_nsec = (long)(at % 1000000000);
    return storage;
}

int mpr_os_wait(_Atomic uint32_t *word, uint32_t seen, mproc_deadline until)
{
    struct timespec storage;
    /* WAIT_BITSET: its time-out is absolute and of the monotonic clock */
    long result =
        syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen,
                timespec_of(until, &storage), NULL, FUTEX_BITSET_MATCH_ANY);
    return result != 0 && errno == ETIMEDOUT ? MPROC_ETIMEDOUT : 0;
}

int mpr_os_wake(_Atomic uint32_t *word, int n)
{
    int saved = errno;
    long woken = syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
    errno = saved;
    return woken > 0 ? (int)woken : 0;
}

int mpr_os_wait_any(const struct mpr_os_word *words, unsigned count,
                    mproc_deadline until)
{
    static atomic_bool missing;
    struct waitv vector[MPR_OS_WORDS_MAX];
    struct timespec storage;

    if (atomic_load_explicit(&missing, memory_order_relaxed)) {
        return MPROC_ENOTSUP;
    }
    for (unsigned i = 0; i < count; i++) {
        vector[i] = (struct waitv){.seen = words[i].seen,
                                   .word = (uint64_t)(uintptr_t)words[i].word,
                                   .flags = WAITV_SIZE_32};
    }
    long result = syscall(SYS_futex_waitv, vector, count, 0,
                          timespec_of(until, &storage), CLOCK_MONOTONIC);
    if (result >= 0 || errno == EAGAIN || errno == EINTR) {
        return 0;
    }
    if (errno == ETIMEDOUT) {
        return MPROC_ETIMEDOUT;
    }
    atomic_store_explicit(&missing, true, memory_order_relaxed);
    return MPROC_ENOTSUP;
}
