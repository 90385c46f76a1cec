# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
last_line producer_consumer
see 'every bun is baked once, then eaten once, in order per baker' '
    NR == 1 || /^the consumer is done$/ { next }
    !/^(baked|ate) bun [0-9]+ of baker [A-Z]$/ { bad = 1 }
    $1 == "baked" && $3 != ++baked[$6] { bad = 1 }
    $1 == "ate" && ($3 != ++eaten[$6] || $3 > baked[$6]) { bad = 1 }
    END {
        for (baker in baked) {
            bakers++
            bad = bad || baked[baker] != 5 || eaten[baker] != 5
        }
        exit bad || bakers != 3
    }'
