/* SPDX-License-Identifier: MIT */
/* The processes of a pool, as the system sees them. */
#ifndef MPROC_POOL_KIN_H
#define MPROC_POOL_KIN_H

#include "pool_support.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct stat_line {
    char state;
    int ppid;
};

/* State X: there is no such process. */
static inline struct stat_line stat_of(pid_t pid)
{
    struct stat_line line = {'X', 0};
    char path[32], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (f != NULL) {
        const char *end =
            fgets(text, sizeof text, f) != NULL ? strrchr(text, ')') : NULL;
        if (end != NULL) {
            sscanf(end + 1, " %c %d", &line.state, &line.ppid);
        }
        fclose(f);
    }
    return line;
}

static inline bool runs(pid_t pid)
{
    return strchr("XZ", stat_of(pid).state) == NULL;
}

static inline void expect_gone(pid_t pid)
{
    for (int i = 0; i < 3000 && runs(pid); i++) {
        usleep(10000);
    }
    assert_false(runs(pid));
}

/* The nursery is the parent of the workers; 0: it is gone, or was just now. */
static inline pid_t nursery_of(mproc_pool *p)
{
    pid_t worker[16];
    size_t count = mproc_pool_worker_pids(p, worker, 16);
    for (size_t i = 0; i < count && i < 16; i++) {
        int parent = stat_of(worker[i]).ppid;
        if (parent > 1 && stat_of(parent).ppid == getpid()) {
            return parent;
        }
    }
    return 0;
}

#endif
