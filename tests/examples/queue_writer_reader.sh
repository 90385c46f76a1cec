# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'all three are read in order, then the reader is ended' '
    NR == 1 { next }
    /^put [ABC]$/ { put = put $2; next }
    /^got [ABC]$/ { got = got $2; bad = bad || index(put, got) != 1; next }
    /^the reader was ended by signal 15$/ {
        ended++
        bad = bad || got != "ABC"
        next
    }
    { bad = 1 }
    END { exit bad || put != "ABC" || ended != 1 }'
