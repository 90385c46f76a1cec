# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'it is alive, then ended by SIGTERM' '
    NR == 2 { bad = bad || $0 != "started: alive" }
    NR == 3 { bad = bad || $0 !~ /^terminated: (not )?alive$/ }
    NR == 4 { bad = bad || $0 != "joined: not alive, exit code -15" }
    END { exit bad || NR != 4 }'
