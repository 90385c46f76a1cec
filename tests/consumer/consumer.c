/* SPDX-License-Identifier: MIT */
/* The smallest program of a user. */
#include <stdio.h>

#include <mproc.h>

int main(void)
{
    printf("libmproc %s: %s\n", mproc_version(), mproc_strerror(MPROC_EFULL));
    return 0;
}
