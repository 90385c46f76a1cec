# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'each holds both locks once' '
    /^process [12] holds both$/ { n[$2]++ }
    END {
        exit n[1] != 1 || n[2] != 1 || NR != 4 || $0 != "both have finished"
    }'
