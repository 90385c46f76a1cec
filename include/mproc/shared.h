/* SPDX-License-Identifier: MIT */
/*
 * The shared heap: memory that every process of the family sees at one address.
 * A pointer into it may be handed to any other process of the family, also as
 * bytes in a message. C11 atomics in such memory, or a lock beside it, are what
 * Python calls Value, Array and Manager().list().
 *
 * On deaths. A block is the family's from the moment the call that made it
 * returned: the death of its maker does not free it. A process killed inside a
 * call, at any instruction, leaves the heap good; what that call had taken is
 * given back, except that a block whose allocation was killed on its way out
 * may stay the family's.
 *
 * Memory is taken from the system as it is touched and goes back when freed in
 * bulk, but for some 64 MiB at most, which are kept for the next blocks. The
 * limit is heap_max of mproc_configure. Any process of the family and
 * any thread may call everything here, a signal handler nothing. No call waits
 * for other processes' doings.
 */
#ifndef MPROC_SHARED_H
#define MPROC_SHARED_H

#include <mproc/base.h>
#include <mproc/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A block of at least `size` bytes, aligned for any type; of n * size bytes,
 * all zero; or a copy of the string `s`. NULL: the heap is full, or n * size is
 * more than a size_t. End it with mproc_free, in any process of the family.
 */
MPROC_API void *mproc_alloc(size_t size);
MPROC_API void *mproc_calloc(size_t n, size_t size);
MPROC_API char *mproc_strdup(const char *s);

/*
 * A block of at least `size` bytes with the content of `p` as far as both go;
 * `p` is freed, the new block may lie elsewhere. `p` NULL: as mproc_alloc.
 * NULL: the heap is full, and `p` is as it was.
 */
MPROC_API void *mproc_realloc(void *p, size_t size);

/*
 * Free a block, in whatever process of the family it was made; NULL is taken.
 * It must be a block that is in use.
 */
MPROC_API void mproc_free(void *p);

/*
 * in_use      bytes of the blocks in use, rounded as the heap rounds them
 * blocks      how many blocks those are
 * high_water  the most bytes of heap memory ever taken for blocks and objects
 *             together
 * resident    bytes of the family's memory that the system holds now
 * limit       heap_max, in bytes
 */
typedef struct mproc_heap_info {
    size_t in_use;
    size_t blocks;
    size_t high_water;
    size_t resident;
    size_t limit;
} mproc_heap_info;
MPROC_NO_PADDING_(mproc_heap_info, 5 * sizeof(size_t));

/* mproc_heap_stats with the size of the caller's struct; call that. */
MPROC_API int mproc_heap_stats_sized(mproc_heap_info *out, size_t out_size);

/*
 * How full the heap is; other processes may change it meanwhile.
 *
 * 0             *out is stored
 * MPROC_EINVAL  out is NULL
 */
static inline int mproc_heap_stats(mproc_heap_info *out)
{
    return mproc_heap_stats_sized(out, sizeof *out);
}

#ifdef __cplusplus
}
#endif

#endif
