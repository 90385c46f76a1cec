/* SPDX-License-Identifier: MIT */
/* The objects that there are, which blocks of the heap do not tell. */
#ifndef MPROC_TEST_LIVE_OBJECTS_H
#define MPROC_TEST_LIVE_OBJECTS_H

#include "shm/object.h"

static inline void count_object(struct mpr_object *object, void *count)
{
    (void)object;
    ++*(int *)count;
}

/* Of all types: also what its maker has lost. */
static inline int live_objects(void)
{
    int count = 0;
    for (int type = 0; type < MPR_OBJECT_TYPES; type++) {
        mpr_object_each((enum mpr_object_type)type, count_object, &count);
    }
    return count;
}

#endif
