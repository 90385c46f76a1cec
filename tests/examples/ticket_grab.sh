# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
# One line a buyer, and one at the end.
each_buyer_once='
    NR == 1 || /^[0-9]+ of 10 got/ { next }
    !/^buyer [0-9]+: (got a ticket|sold out)$/ { bad = 1 }
    seen[$2]++ { bad = 1 }
    { buyers++ }
    / got a ticket$/ { sold++ }'

run
last_line ticket_grab
see 'two of ten buyers get a ticket' "$each_buyer_once
    END { exit bad || buyers != 10 || sold != 2 }"
run --no-lock
last_line ticket_grab_no_lock
see 'without the lock more than two get a ticket' "$each_buyer_once
    END { exit bad || buyers != 10 || sold <= 2 }"
