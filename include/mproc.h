/* SPDX-License-Identifier: MIT */
/* All of libmproc; each topic has a header of its own. */
#ifndef MPROC_H
#define MPROC_H

#include <mproc/base.h>
#include <mproc/deadline.h>
#include <mproc/error.h>

#endif
