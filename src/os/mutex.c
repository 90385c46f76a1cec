/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sched.h>
#include <time.h>

#include "base/check.h"
#include "base/deadline.h"
#include "os/os.h"

void mpr_os_mutex_init(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;
    MPR_CHECK(pthread_mutexattr_init(&attr) == 0);
    MPR_CHECK(pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) == 0);
    MPR_CHECK(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0);
    MPR_CHECK(pthread_mutex_init(mutex, &attr) == 0);
    pthread_mutexattr_destroy(&attr);
}

static enum mpr_os_lock outcome(int err)
{
    if (err == 0) {
        return MPR_OS_LOCKED;
    }
    if (err == EOWNERDEAD) {
        return MPR_OS_OWNER_DIED;
    }
    MPR_CHECK(err == EBUSY || err == ETIMEDOUT);
    return MPR_OS_BUSY;
}

enum mpr_os_lock mpr_os_mutex_trylock(pthread_mutex_t *mutex)
{
    return outcome(pthread_mutex_trylock(mutex));
}

/* ThreadSanitizer does not see clocklock, then misses the owner in unlock. */
#ifdef __SANITIZE_THREAD__
static int clock_lock(pthread_mutex_t *mutex, const struct timespec *until)
{
    int64_t until_ns = (int64_t)until->tv_sec * 1000000000 + until->tv_nsec;
    int err = pthread_mutex_trylock(mutex);
    while (err == EBUSY && mpr_os_now() < until_ns) {
        sched_yield();
        err = pthread_mutex_trylock(mutex);
    }
    return err;
}
#elif defined(__GLIBC__)
static int clock_lock(pthread_mutex_t *mutex, const struct timespec *until)
{
    return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, until);
}
#else
/*
 * There is no lock with a deadline of a clock that nobody sets. The unlocker,
 * or the kernel at its death, wakes one who set the flag; another may take the
 * mutex and clear the flag, hence the slices.
 */
static void wait_for_unlock(pthread_mutex_t *mutex, int64_t until_ns)
{
    int64_t slice_ns = mpr_os_now() + 5000000;
    mproc_deadline slice =
        mproc_deadline_at_(slice_ns < until_ns ? slice_ns : until_ns);
    _Atomic uint32_t *word = mpr_os_mutex_word(mutex);
    _Atomic uint32_t none = 0;
    uint32_t seen = word != NULL ? atomic_load(word) : 0;
    if (word == NULL) {
        mpr_os_wait(&none, 0, slice);
    } else if (seen != 0 && !(seen & MPR_OS_WORD_DIED) &&
               ((seen & MPR_OS_WORD_WAITERS) ||
                atomic_compare_exchange_strong(word, &seen,
                                               seen | MPR_OS_WORD_WAITERS))) {
        mpr_os_wait(word, seen | MPR_OS_WORD_WAITERS, slice);
    }
}

static int clock_lock(pthread_mutex_t *mutex, const struct timespec *until)
{
    int64_t until_ns = (int64_t)until->tv_sec * 1000000000 + until->tv_nsec;
    int err = pthread_mutex_trylock(mutex);
    while (err == EBUSY && mpr_os_now() < until_ns) {
        wait_for_unlock(mutex, until_ns);
        err = pthread_mutex_trylock(mutex);
    }
    return err;
}
#endif

/*
 * In slices: kernels before 6.2 may lose the notice of an owner's death when
 * the one it was sent to dies as well.
 */
enum mpr_os_lock mpr_os_mutex_lock(pthread_mutex_t *mutex, mproc_deadline until)
{
    for (;;) {
        mproc_deadline slice = mpr_deadline_after(mpr_os_now(), 1, 1e9);
        bool last = until.at_ns <= slice.at_ns;
        int64_t at = last ? until.at_ns : slice.at_ns;
        at = at > 0 ? at : 0;
        struct timespec t = {.tv_sec = (time_t)(at / 1000000000),
                             .tv_nsec = (long)(at % 1000000000)};
        int err = clock_lock(mutex, &t);
        if ((err != ETIMEDOUT && err != EBUSY) || last) {
            return outcome(err);
        }
    }
}

void mpr_os_mutex_repaired(pthread_mutex_t *mutex)
{
    MPR_CHECK(pthread_mutex_consistent(mutex) == 0);
}

void mpr_os_mutex_unlock(pthread_mutex_t *mutex)
{
    MPR_CHECK(pthread_mutex_unlock(mutex) == 0);
}

/*
 * The owner's thread id stands in that word (first field of glibc's mutex,
 * second of musl's): found by locking one and looking for one's own.
 */
static ptrdiff_t find_word(void)
{
    pthread_mutex_t probe;
    const uint32_t *words = (const uint32_t *)&probe;
    ptrdiff_t found = -1;
    mpr_os_mutex_init(&probe);
    pthread_mutex_lock(&probe);
    for (size_t i = 0; i < sizeof probe / sizeof *words; i++) {
        if (words[i] == (uint32_t)mpr_os_tid()) {
            found = (ptrdiff_t)i;
            break;
        }
    }
    pthread_mutex_unlock(&probe);
    if (found >= 0 && words[found] != 0) {
        found = -1;
    }
    pthread_mutex_destroy(&probe);
    return found;
}

_Atomic uint32_t *mpr_os_mutex_word(pthread_mutex_t *mutex)
{
    enum { UNKNOWN = -2 };
    static _Atomic ptrdiff_t known = UNKNOWN;
    ptrdiff_t word = atomic_load_explicit(&known, memory_order_relaxed);
    if (mpr_unlikely(word == UNKNOWN)) {
        word = find_word();
        atomic_store_explicit(&known, word, memory_order_relaxed);
    }
    return word < 0 ? NULL : (_Atomic uint32_t *)mutex + word;
}
