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

/* May the caller start no children? */
bool mpr_who_is_daemonic(void);

/* The ordinals of the caller's next child, "2" or "1:2:2". */
void mpr_who_next_path(char path[static MPR_PATH_SIZE]);

/*
 * In a new process: from now on it has this role, or the name alone. Copies
 * what it needs.
 */
void mpr_who_become(const struct mpr_role *role);
void mpr_who_become_named(const char *name);

/*
 * In a new thread: from now on it, and it alone, has this role; its parent is
 * the process whose thread it is. `shown` lasts until mpr_who_end_thread.
 */
void mpr_who_be_thread(const struct mpr_role *role,
                       struct mproc_process *shown);
void mpr_who_end_thread(void);

/* In a forked child: who its parent is to be for the user. */
void mpr_who_set_parent(pid_t pid);

/* As much of `name` as a handle holds, cut between characters of UTF-8. */
void mpr_who_copy_name(char out[static MPR_NAME_SIZE], const char *name);

#endif
