/* SPDX-License-Identifier: MIT */
/* Between the two sides of the forkserver. */
#ifndef MPR_PROC_PRIVATE_H
#define MPR_PROC_PRIVATE_H

#include <stdint.h>

/* How a child of the server ended; the code as by mpr_os_child_reap. */
struct mpr_server_word {
    uint64_t serial;
    int32_t code;
    int32_t padding;
};

#endif
