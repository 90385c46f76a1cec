# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'each task that goes wrong is told twice, the others go well' '
    NR == 1 { next }
    { sub(/worker [0-9]+/, "worker PID"); lines[$0]++ }
    END {
        exit NR != 9 || lines["result: task that goes well: a bun"] != 2 ||
            lines["result: task that fails: no flour left"] != 1 ||
            lines["callback: task that fails: MPROC_ETASK, code 42"] != 1 ||
            lines["result: task that crashes: worker PID killed by signal 11" \
                " (SIGSEGV)"] != 1 ||
            lines["callback: task that crashes: MPROC_EWORKERLOST," \
                " code -11"] != 1 ||
            lines["result: task that is killed: worker PID killed by signal 9" \
                " (SIGKILL)"] != 1 ||
            lines["callback: task that is killed: MPROC_EWORKERLOST," \
                " code -9"] != 1
    }'
