/* SPDX-License-Identifier: MIT */
/*
 * MPR_CHECK: our own bugs. On in every build; ends the process where going on
 * would corrupt memory that others use. Never for what a caller, a peer or the
 * system did: those are error codes.
 */
#ifndef MPR_BASE_CHECK_H
#define MPR_BASE_CHECK_H

_Noreturn void mpr_check_failed(const char *what, const char *file, int line);

#define MPR_CHECK(condition)                                  \
    do {                                                      \
        if (__builtin_expect(!(condition), 0)) {              \
            mpr_check_failed(#condition, __FILE__, __LINE__); \
        }                                                     \
    } while (0)

#define mpr_likely(x) __builtin_expect(!!(x), 1)
#define mpr_unlikely(x) __builtin_expect(!!(x), 0)

/*
 * The last thing a thread does that spins on a word of another CPU before it
 * looks again.
 */
#if defined(__x86_64__) || defined(__i386__)
#define mpr_pause() __builtin_ia32_pause()
#elif defined(__aarch64__) || defined(__arm__)
#define mpr_pause() __asm__ __volatile__("yield")
#else
#define mpr_pause() ((void)0)
#endif

#endif
