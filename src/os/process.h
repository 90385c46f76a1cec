/* SPDX-License-Identifier: MIT */
/* Between the files of this layer that deal with forks. */
#ifndef MPR_OS_PROCESS_H
#define MPR_OS_PROCESS_H

#include <stdbool.h>

/* Threads of this process that the library made and that touch no stdio. */
unsigned mpr_os_helper_threads(void);

/*
 * The descriptor, or what it was moved to where it had the number of a standard
 * stream. An error, then it is closed: EMFILE.
 */
int mpr_os_beyond_standard(int fd);

/* Is there no thread of the user's beside the caller? */
bool mpr_os_single_threaded(void);

/* Whether stdout or stderr have, or may get, something buffered. */
bool mpr_os_stdio_buffers(void);

/* Drop what stdout and stderr have buffered. */
void mpr_os_stdio_forget(void);

#endif
