# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
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
