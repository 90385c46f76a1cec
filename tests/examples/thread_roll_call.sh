# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'each name is called once' '
    NR == 1 { next }
    !/^caller [0-2]: [A-Z][a-z]+$/ || called[$3]++ { bad = 1 }
    END { exit bad || NR != 9 }'
