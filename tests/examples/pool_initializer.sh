# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
# A worker that has nothing to do has run the initializer too.
see 'it runs once a worker, and after three tasks there is a fresh one' '
    NR == 1 { next }
    !/^12 tasks, by [0-9]+ workers; the initializer ran [0-9]+ times$/ {
        bad = 1
    }
    NR == 2 { bad = bad || $4 > 2 || $9 != 2 }
    NR == 3 { bad = bad || $4 < 4 || $9 < $4 }
    END { exit bad || NR != 3 }'
