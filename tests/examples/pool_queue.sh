# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'each of six squares comes once' '
    NR == 1 { next }
    /^the square of [1-6] is [0-9]+$/ {
        bad = bad || $6 != $4 * $4 || seen[$4]++
        n++
        next
    }
    { bad = 1 }
    END { exit bad || n != 6 }'
