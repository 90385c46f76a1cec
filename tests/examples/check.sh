#!/bin/sh
# SPDX-License-Identifier: MIT
# Run one example and see that it shows what it is there to show.
# usage: check.sh <runner> <name of the example> <program>
# <name>.sh beside this script runs it and says what must be seen; <name>.out is
# the last line of those that the README quotes.
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

# prints <what>: the whole output, without the first line, is the standard input
prints()
{
    cat >"$tmp/expected"
    sed 1d "$out" | diff "$tmp/expected" - || fail "not so: $1"
}

# see <what must hold> <awk program>: that ends well on the output
see()
{
    awk "$2" "$out" || fail "not so: $1"
}

# shellcheck source=/dev/null
. "$here/$name.sh"
