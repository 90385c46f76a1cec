/* SPDX-License-Identifier: MIT */
/* Between the files of this layer that deal with forks. */
#ifndef MPR_OS_PROCESS_H
#define MPR_OS_PROCESS_H

/* Threads of this process that the library made and that touch no stdio. */
unsigned mpr_os_helper_threads(void);

/* Drop what stdout and stderr have buffered. */
void mpr_os_stdio_forget(void);

#endif
