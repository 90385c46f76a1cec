# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'each thread has its own, main is untouched' '
    NR == 1 { next }
    /^thread [1-4]: mine went from [1-4]000 to [2-5]000$/ {
        bad = bad || $6 != 1000 * $2 || $8 != $6 + 1000 || seen[$2 + 0]++
        threads++
        next
    }
    $0 == "main: mine is -1, ours is 4000" { main++; next }
    { bad = 1 }
    END { exit bad || threads != 4 || main != 1 }'
