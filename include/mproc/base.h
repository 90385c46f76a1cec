/* SPDX-License-Identifier: MIT */
/*
 * Conventions shared by every header of libmproc: visibility, limits, version.
 *
 * Results are `int`: negative is failure, 0 is success, positive is success
 * with news. `if (err < 0)` is the only test ever needed. Outputs are untouched
 * on failure unless a comment names them as information about the failure.
 *
 * Handles are opaque pointers into memory that all processes of the family see
 * at one address, so a handle may be handed to any other process of the family,
 * also as bytes in a message. A family is the process that first called the
 * library and everything forked from it since.
 */
#ifndef MPROC_BASE_H
#define MPROC_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(__GNUC__) || defined(__clang__)
#define MPROC_API __attribute__((visibility("default")))
#define MPROC_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define MPROC_API
#define MPROC_PRINTF(fmt, first)
#endif

/*
 * For these headers only. A struct that a caller lays out holds nothing but its
 * fields: `bytes` is their sum. So what a program leaves zero is zero in every
 * byte, and a later version can tell a set field from an unset one.
 */
#ifdef __cplusplus
#define MPROC_NO_PADDING_(type, bytes) \
    static_assert(sizeof(type) == (bytes), #type " has padding")
#else
#define MPROC_NO_PADDING_(type, bytes) \
    _Static_assert(sizeof(type) == (bytes), #type " has padding")
#endif

#define MPROC_VERSION_MAJOR 0
#define MPROC_VERSION_MINOR 1
#define MPROC_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The version of the library in use, "major.minor.patch"; constant, never NULL.
 * Any thread, any time.
 */
MPROC_API const char *mproc_version(void);

/*
 * The CPUs this process may use (its affinity mask, where the system has one),
 * at least 1. Does not block; any thread, any time.
 * Python: os.process_cpu_count().
 */
MPROC_API unsigned mproc_cpu_count(void);

/*
 * Limits of the family, for mproc_configure. A field left zero keeps its
 * default.
 *
 * heap_max       bytes that the shared heap may hold: blocks, messages and
 *                objects. Default: the memory of the machine, or what the
 *                address range takes where that is less (64 GiB of addresses
 *                are reserved, less where the system refuses).
 *                Met: MPROC_ENOMEM.
 * processes_max  processes of the family that live at one time, 2 to 32768.
 *                Default 4096; eight times as many threads may use the library
 *                at one time. Met: MPROC_EAGAIN.
 * dump           1: the shared memory is part of core dumps. Default 0: it is
 *                not.
 */
typedef struct mproc_config {
    size_t heap_max;
    size_t processes_max;
    int dump;
    int reserved;
} mproc_config;
MPROC_NO_PADDING_(mproc_config, 2 * sizeof(size_t) + 2 * sizeof(int));

/* mproc_configure with the size of the struct; call mproc_configure. */
MPROC_API int mproc_configure_sized(const mproc_config *config,
                                    size_t config_size);

/*
 * Set the limits of the family, before anything else of the library is used.
 * Optional. Does not block.
 *
 * 0             the limits hold from now on
 * MPROC_EINVAL  the library has been used already, config is NULL, or a limit
 *               is absurd
 * MPROC_ENOTSUP a field that this version does not know is set
 */
static inline int mproc_configure(const mproc_config *config)
{
    return mproc_configure_sized(config, sizeof *config);
}

#ifdef __cplusplus
}
#endif

#endif
