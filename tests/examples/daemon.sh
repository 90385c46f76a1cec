# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'the daemon may have no child, and ends with its parent in both ways' '
    NR == 1 { next }
    $0 == "daemon: a child of mine: MPROC_EPERM" { refused++; next }
    $0 == "parent: join for 0.0001 s: MPROC_ETIMEDOUT" { in_vain++; next }
    $0 == "the parent returned, the daemon is gone" { returned++; next }
    $0 == "the parent was killed, the daemon is gone" { killed++; next }
    { bad = 1 }
    END {
        exit bad || refused != 2 || in_vain != 2 || returned != 1 || killed != 1
    }'
