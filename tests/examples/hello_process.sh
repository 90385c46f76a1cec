# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'it lives between start and join, and knows who it is' '
    $1 == "pid" { parent = $2; next }
    $1 == "MainProcess" { bad = bad || $4 != parent; next }
    /^before its start: not alive$/ { before++; next }
    /^started pid [0-9]+: alive$/ { child = $3 + 0; started++; next }
    $1 == "greeter" {
        hello++
        said = $3 + 0
        bad = bad || $0 !~ /says hello to Bob$/ || $6 + 0 != parent
        next
    }
    /^joined: not alive, exit code 0$/ { joined++; next }
    { bad = 1 }
    END {
        exit bad || said != child || child == parent ||
            before != 1 || started != 1 || hello != 1 || joined != 1
    }'
