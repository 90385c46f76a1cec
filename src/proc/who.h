/* SPDX-License-Identifier: MIT */
/*
 * Who the calling process is: private knowledge, right also in a child that
 * was forked past the library.
 *
 * Such a child is a process of its own: with its own pid, with its forker as
 * parent where there was a family already, else the first of a family to come;
 * with its forker's name, and daemonic if that is, as in Python.
 */
#ifndef MPR_PROC_WHO_H
#define MPR_PROC_WHO_H

#include "proc/process.h"

/* Handles that are no objects: the first process, or one forked plainly. */
bool mpr_who_is_static(const mproc_process *p);

/* May the calling process start children? */
bool mpr_who_is_daemonic(void);

/* The ordinals of the caller's next child, "2" or "1:2:2". */
void mpr_who_next_path(char path[static MPR_PATH_SIZE]);

/*
 * In a forked child: from now on it is the process that `p` started, or, with
 * NULL, one with the name alone. Copies what it needs: `p` may end.
 */
void mpr_who_become(struct mproc_process *p, uint64_t tag);
void mpr_who_become_named(const char *name);

/* In a forked child: who its parent is to be for the user. */
void mpr_who_set_parent(pid_t pid);

/* As much of `name` as a handle holds, cut between characters of UTF-8. */
void mpr_who_copy_name(char out[static MPR_NAME_SIZE], const char *name);

#endif
