# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'each receives what the other sent' '
    NR == 1 { next }
    /^MainProcess received: hello, parent$/ { parent++; next }
    /^Process-1 received: hello, child$/ { child++; next }
    { bad = 1 }
    END { exit bad || parent != 1 || child != 1 }'
