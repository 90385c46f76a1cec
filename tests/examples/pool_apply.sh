# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
# Of the times only what can never be shorter: tasks of 20 ms, three at once.
see 'apply runs one task at a time, apply_async at most three' '
    NR == 1 { next }
    { squares = $2 " " $3 " " $4 " " $5 " " $6 " " $7 " " $8 " " $9 " " $10 \
        " " $11 }
    squares != "0 1 4 9 16 25 36 49 64 81" { bad = 1 }
    $12 " " $13 " " $14 != "- at most" || $16 " " $17 != "at once," { bad = 1 }
    $1 == "apply:" { bad = bad || $15 != 1 || $18 < 199; apply++ }
    $1 == "apply_async:" { bad = bad || $15 > 3 || $18 < 79; async++ }
    END { exit bad || NR != 3 || apply != 1 || async != 1 }'
