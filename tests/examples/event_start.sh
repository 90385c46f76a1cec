# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'all are ready before the start, and run after it' '
    NR == 1 { next }
    /^runner [0-3] is ready$/ { bad = bad || gone || ready[$2]++; n++; next }
    /^go!$/ { gone++; bad = bad || n != 4; next }
    /^runner [0-3] runs$/ { bad = bad || !gone || ran[$2]++; runs++; next }
    { bad = 1 }
    END { exit bad || gone != 1 || runs != 4 }'
