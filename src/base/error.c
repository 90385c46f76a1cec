/* SPDX-License-Identifier: MIT */
#include <mproc/error.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

#define MPR_VERSION_(major, minor, patch) #major "." #minor "." #patch
#define MPR_VERSION(major, minor, patch) MPR_VERSION_(major, minor, patch)

const char *mproc_version(void)
{
    return MPR_VERSION(MPROC_VERSION_MAJOR, MPROC_VERSION_MINOR,
                       MPROC_VERSION_PATCH);
}

const char *mproc_strerror(int error)
{
    switch (error) {
#define MPR_TEXT(name, value, text) \
    case value:                     \
        return text;
        MPROC_ERROR_MAP(MPR_TEXT)
#undef MPR_TEXT
    default:
        return "unknown error";
    }
}

const char *mproc_error_name(int error)
{
    switch (error) {
#define MPR_NAME(name, value, text) \
    case value:                     \
        return #name;
        MPROC_ERROR_MAP(MPR_NAME)
#undef MPR_NAME
    default:
        return "MPROC_E?";
    }
}

void mpr_check_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "libmproc: broken invariant: %s (%s:%d)\n", what, file,
            line);
    abort();
}
