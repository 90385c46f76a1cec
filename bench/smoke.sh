#!/bin/sh
# SPDX-License-Identifier: MIT
# smoke.sh <runner> <bench_quick>: with tiny counts it ends well, and each row
# is in its table and in its JSON, with numbers above zero for both sides. A
# peer that is not installed is skipped and says so, and so is Python when it
# cannot be found. A name picks rows.
set -u
runner=$1
bench=$2
bad=0

complain()
{
    echo "$1"
    bad=1
}

table=$("$runner" 50 "$bench" --smoke) || exit 1
json=$(PYTHON=/nowhere/python3 "$runner" 50 "$bench" --smoke --json) || exit 1

number='[0-9.]*[1-9][0-9.]*'
range="$number \($number to $number\)"
ratio='[0-9.]+ \([0-9.]+ to [0-9.]+\)'
target='( \| |[0-9.]+ \| (yes|no) )\|'
values="\{\"median\": $number, \"min\": $number, \"max\": $number\}"
ratios='\{"median": [0-9.]+, "min": [0-9.]+, "max": [0-9.]+\}'

# in_table <row> <peer> <rest>, in_json likewise: regular expressions
in_table()
{
    echo "$table" | tr -s ' ' | grep -qE "^\| $1 \| $range \| $2 \| $3\$"
}

in_json()
{
    echo "$json" | grep -qE "\"row\": \"$1\", \"peer\": \"$2\", \
\"libmproc\": $values, $3\},?\$"
}

lines=2
while IFS='|' read -r row peer needs; do
    lines=$((lines + 1))
    in_table "$row" "$peer" "($number|$range) \| $ratio \| ?$target" ||
        { test -n "$needs" &&
            in_table "$row" "$peer" "skipped: needs $needs( \|)*"; } ||
        complain "not in the table: $row, $peer"
    skipped="\"skipped\": \"needs $needs\""
    figures="\"its\": $values, \"ratio\": $ratios(, \"target\": $number, \
\"met\": (true|false))?"
    case $needs in
        '') rest=$figures ;;
        python3) rest=$skipped ;;
        *) rest="($skipped|$figures)" ;;
    esac
    in_json "$row" "$peer" "$rest" || complain "not in the JSON: $row, $peer"
done <<'END'
64 B, 1 to 1, no limit|pipe
64 B, 1 to 1, no limit|Python Queue|python3
64 B, 1 to 1, maxsize 1000|pipe
64 B, 1 to 1, maxsize 1000|Boost message_queue|Boost.Interprocess and a C\+\+ compiler
64 B, 4 to 4, maxsize 1000|pipe
64 B, 4 to 4, maxsize 1000|Boost message_queue|Boost.Interprocess and a C\+\+ compiler
64 B, 4 to 4, maxsize 1000|1 to 1
64 B, 64 in a call|one by one
1 MiB message, 1 to 1|memcpy of 1 MiB
loan to release, 64 B|limit
loan to release, 64 B|put, get
loan to release, 16 MiB|limit
loan to release, 16 MiB|put, get
pool task|prefork on pipes
pool task|OpenMP, mostly at once|a compiler with OpenMP
pool task|OpenMP, outstanding|a compiler with OpenMP
pool task|Python map, chunk 1|python3
pool task and its result|Python apply_async|python3
pool map, chunk 1|Python map, chunk 1|python3
pool apply, awake|limit
pool apply, awake|prefork on pipes
pool apply, awake|Python apply|python3
pool apply, asleep|prefork on pipes
pool map of 10 million, an item|limit
pool map of 10 million, an item|OpenMP dynamic|a compiler with OpenMP
pool map of 10 million, an item|OpenMP static|a compiler with OpenMP
pool map of 10 million, an item|Python map of 1 million|python3
pool map in shared heap, an item|limit
pool map in shared heap, an item|OpenMP static|a compiler with OpenMP
pool map of 1000, a call|OpenMP dynamic|a compiler with OpenMP
pool map of 1000, a call|Python map|python3
bytes of a waiting pool task|limit
bytes of a pool task and result|Python apply_async|python3
start and join a process|fork, waitpid
by forkserver, small|fork, waitpid
by forkserver, 1 GiB|limit
by forkserver, 1 GiB|fork, waitpid
by spawn, 1 GiB|fork, waitpid
lock and unlock|robust mutex
lock and unlock|plain mutex
lock and unlock, 2 want it|plain mutex
END
test "$(echo "$table" | wc -l)" -eq $lines || complain 'other lines in the table'

picked=$("$runner" 50 "$bench" --smoke 'lock and' 'by spawn' | cut -d'|' -f2 |
    sed 1,2d | sort -u | sed 's/ *$//' | tr '\n' ',')
test "$picked" = \
    ' by spawn, 1 GiB, lock and unlock, lock and unlock, 2 want it,' ||
    complain "picked by name: $picked"
"$runner" 50 "$bench" --smoke 'no such row' 2>/dev/null >&2
test $? -eq 2 || complain 'a name that no row has is taken'

test $bad = 0 || printf '%s\n%s\n' "$table" "$json"
exit $bad
