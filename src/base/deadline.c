/* SPDX-License-Identifier: MIT */
#include "base/deadline.h"

mproc_deadline mpr_deadline_after(int64_t now_ns, double count, double unit_ns)
{
    double ns = count * unit_ns;
    if (!(ns > 0)) { /* NaN too */
        return mproc_deadline_at_(now_ns);
    }
    if (ns >= (double)(INT64_MAX - now_ns)) {
        return MPROC_FOREVER;
    }
    return mproc_deadline_at_(now_ns + (int64_t)ns);
}
