/* SPDX-License-Identifier: MIT */
#include "base/options.h"

#include <string.h>

#include <mproc/error.h>

int mpr_options_read(void *own, size_t own_size, const void *theirs,
                     size_t theirs_size)
{
    if (theirs == NULL) {
        memset(own, 0, own_size);
        return 0;
    }
    const unsigned char *bytes = theirs;
    for (size_t i = own_size; i < theirs_size; i++) {
        if (bytes[i] != 0) {
            return MPROC_ENOTSUP;
        }
    }
    mpr_info_write(own, own_size, theirs, theirs_size);
    return 0;
}

void mpr_info_write(void *theirs, size_t theirs_size, const void *own,
                    size_t own_size)
{
    size_t known = theirs_size < own_size ? theirs_size : own_size;
    memcpy(theirs, own, known);
    memset((char *)theirs + known, 0, theirs_size - known);
}
