# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'the parent is first, and all four start before any ends' '
    NR == 1 { next }
    NR == 2 { bad = bad || $0 != "the parent starts 4 processes"; next }
    /^process [0-3] starts$/ { bad = bad || ends || s[$2]++; starts++; next }
    /^process [0-3] ends$/ { bad = bad || starts != 4 || e[$2]++; ends++; next }
    NR == 11 { bad = bad || $0 != "the parent has joined them"; next }
    { bad = 1 }
    END { exit bad || ends != 4 || NR != 11 }'
