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

check_pool_callback()
{
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
}

# Texts where counting in pieces may go wrong.
make_texts()
{
    mkdir "$texts"
    : >"$texts/empty"
    printf ' \n\t\v\f\r ' >"$texts/space"
    printf 'no newline at the end' >"$texts/open"
    printf 'a\tb\vc\fd\re\nf  g' >"$texts/all_spaces"
    # chunks are 1 MiB: a word over four of them, a cut behind and before a
    # space, and words that are cut
    awk 'BEGIN { for (i = 0; i < 3145729; i++) printf "x" }' >"$texts/one_word"
    awk 'BEGIN { for (i = 0; i < 1048575; i++) printf "x"
        printf " y z" }' >"$texts/cut_at_space"
    awk 'BEGIN { for (i = 0; i < 1048576; i++) printf "x"
        printf " y z" }' >"$texts/cut_before_space"
    awk 'BEGIN { for (i = 0; i < 400000; i++)
        printf "word%d%s", i, i % 7 ? " " : "\n" }' >"$texts/many"
}

check_word_count()
{
    texts=$tmp/texts
    make_texts
    run "$texts"/*
    for file in "$texts"/*; do
        words=$(wc -w <"$file")
        grep -qx " *$((words)) $file" "$out" ||
            fail "$file: wc -w counts $((words))"
    done
    words=$(for file in "$texts"/*; do wc -w <"$file"; done |
        awk '{ n += $1 } END { print n }')
    grep -qx " *$words total, equal to what one process counts" "$out" ||
        fail "the total is $words"

    run
    see 'it counts what it made up and the text of the project' '
        $2 == "(made" && $1 > 1000000 { made_up = 1 }
        $2 == "CONTRIBUTING.md" && $1 > 100 { text = 1 }
        END { exit !made_up || !text }'

    "$program" "$texts/missing" >"$out" 2>&1 && fail 'a missing file passes'
    grep -q "cannot read $texts/missing" "$out" || fail 'what is missing is not said'

    # a terminal, where the system has any to give
    script -q -e -c true /dev/null >"$out" 2>&1 </dev/null || return 0
    script -q -e -c "$program $texts/many" /dev/null >"$out" </dev/null ||
        fail 'on a terminal it fails'
    grep -q '^.*[0-9] of 5 chunks' "$out" || fail 'no progress on a terminal'
}

"check_$name"
