#!/bin/sh
# SPDX-License-Identifier: MIT
# smoke.sh <runner> <bench_quick>: with tiny counts it ends well, and each row
# is in its table and in its JSON, with a number above zero for both sides.
set -u
runner=$1
bench=$2
bad=0

table=$("$runner" 50 "$bench" --smoke) || exit 1
json=$("$runner" 50 "$bench" --smoke --json) || exit 1

while IFS='|' read -r row peer; do
    number='[0-9.]*[1-9][0-9.]*'
    cells="$number \($number to $number\)"
    echo "$table" | tr -s ' ' |
        grep -qE "^\| $row \| $cells \| $peer \| $cells \| [0-9.]+ \|$" || {
        echo "not in the table: $row, $peer"
        bad=1
    }
    side="\{\"median\": $number, \"min\": $number, \"max\": $number\}"
    echo "$json" | grep -qE "\"row\": \"$row\", \"peer\": \"$peer\", \
\"libmproc_ns\": $side, \"peer_ns\": $side, \"ratio\": [0-9.]+\}" || {
        echo "not in the JSON: $row, $peer"
        bad=1
    }
done <<'END'
64 B, 1 to 1, no limit|pipe
64 B, 1 to 1, maxsize 1000|pipe
64 B, 4 to 4, maxsize 1000|pipe
64 B, 64 in a call|one by one
loan to release, 64 B|put, get
loan to release, 16 MiB|put, get
lock and unlock|robust mutex
lock and unlock|plain mutex
lock and unlock, 2 want it|plain mutex
start and join a process|fork, waitpid
by forkserver, small|fork, waitpid
by forkserver, 1 GiB|fork, waitpid
by spawn, 1 GiB|fork, waitpid
pool task, 2 workers|prefork on pipes
1 MiB message, 1 to 1|memcpy of 1 MiB
END
test $bad = 0 || printf '%s\n%s\n' "$table" "$json"
exit $bad
