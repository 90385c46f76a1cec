# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'join returns after the last task_done' '
    NR == 1 { next }
    /^all are put$/ { put++; next }
    /^task [1-4] is done$/ { bad = bad || joined || $2 != ++tasks; next }
    /^joined: 4 of 4 are done$/ { joined++; bad = bad || tasks != 4; next }
    /^once too often: MPROC_EINVAL$/ { told++; next }
    { bad = 1 }
    END { exit bad || put != 1 || joined != 1 || told != 1 }'
