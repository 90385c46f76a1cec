/* SPDX-License-Identifier: MIT */
/*
 * Options of any age. A struct that a caller lays out travels with its size, so
 * a program built against an older or a newer header works with this library: a
 * shorter one is filled up with zeros (defaults), of a longer one what this
 * library does not know must be zero.
 */
#ifndef MPR_BASE_OPTIONS_H
#define MPR_BASE_OPTIONS_H

#include <stddef.h>

/*
 * Copies `theirs` into `own`. NULL means all defaults.
 * MPROC_ENOTSUP: an unknown field is set.
 */
int mpr_options_read(void *own, size_t own_size, const void *theirs,
                     size_t theirs_size);

/* Copies `own` out into `theirs`: what fits, zeros behind it. */
void mpr_info_write(void *theirs, size_t theirs_size, const void *own,
                    size_t own_size);

#endif
