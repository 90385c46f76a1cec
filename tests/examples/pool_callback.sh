# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
last_line pool_callback
see 'tasks run in workers, callbacks in the parent, each once' '
    $1 == "pid" { parent = $2; next }
    $1 == "worker" && $3 == "downloaded" {
        bad = bad || $2 == parent || $4 in by
        by[$4] = $2
        pids[$2] = 1
        next
    }
    $1 == "parent" && $3 == "parsed" {
        sub(/",$/, "", $6)
        bad = bad || $2 != parent || parsed[$6]++ || by[$6] != $9
        pages++
        next
    }
    !/^gathered/ { bad = 1 }
    END {
        for (pid in pids) {
            workers++
        }
        exit bad || pages != 8 || workers < 1 || workers > 3
    }'
