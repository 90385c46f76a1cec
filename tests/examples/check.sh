#!/bin/sh
# SPDX-License-Identifier: MIT
# Run one example and see that it shows what it is there to show.
# usage: check.sh <runner> <name of the example> <program>
# <name>.out beside this script is the last line that <name> prints.
set -u
LC_ALL=C
export LC_ALL
runner=$1 name=$2 program=$3
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
out=$tmp/out

fail()
{
    echo "$name: $*"
    cat "$out"
    exit 1
}

# run <argument>...: the output is in $out, its first line "pid <the program's>"
run()
{
    # shellcheck disable=SC2016
    "$runner" 60 sh -c 'echo "pid $$"; exec "$0" "$@"' "$program" "$@" \
        >"$out" 2>"$tmp/err" </dev/null
    status=$?
    cat "$tmp/err"
    test $status -eq 0 || fail "status $status"
    test ! -s "$tmp/err" || fail 'wrote to stderr'
}

# last_line <name>: it is what <name>.out says
last_line()
{
    test "$(tail -n 1 "$out")" = "$(cat "$here/$1.out")" ||
        fail "the last line is not that of $1.out"
}

# see <what must hold> <awk program>: that ends well on the output
see()
{
    awk "$2" "$out" || fail "not so: $1"
}

check_hello()
{
    run
    last_line hello
    see 'nothing else is printed' 'END { exit NR != 2 }'
}

check_producer_consumer()
{
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
}

# One line a buyer, and one at the end.
each_buyer_once='
    NR == 1 || /^[0-9]+ of 10 got/ { next }
    !/^buyer [0-9]+: (got a ticket|sold out)$/ { bad = 1 }
    seen[$2]++ { bad = 1 }
    { buyers++ }
    / got a ticket$/ { sold++ }'

check_ticket_grab()
{
    run
    last_line ticket_grab
    see 'two of ten buyers get a ticket' "$each_buyer_once
        END { exit bad || buyers != 10 || sold != 2 }"
    run --no-lock
    last_line ticket_grab_no_lock
    see 'without the lock more than two get a ticket' "$each_buyer_once
        END { exit bad || buyers != 10 || sold <= 2 }"
}

"check_$name"
