#!/bin/sh
# SPDX-License-Identifier: MIT
# Search all states of a model, and see that its wrong variants are told from
# the right one: those that its comment lists as "n  what is wrong" must fail.
# usage: check.sh <model>.pml [-D<name>=<value>]...
set -u
model=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
command -v spin >/dev/null || {
    echo 'skipped: spin is not installed'
    exit 77
}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1

# search <option>...: the report is in "report"
search()
{
    spin -a "$@" "$model" >report 2>&1 &&
        "${CC:-cc}" -w -O2 -DSAFETY -DCOLLAPSE -DMEMLIM=8000 -o pan pan.c &&
        ./pan -E -m1000000 >report 2>&1 || {
        cat report
        exit 1
    }
}

search "$@"
grep -q 'errors: 0$' report || {
    cat report
    spin -t -p -g "$@" "$model" | tail -n 100
    exit 1
}
grep -qE 'max search depth too small|Search not completed' report && {
    cat report
    exit 1
}
echo "right: $(awk '/states, stored/ { print $1 }' report) states"

for bug in $(sed -n 's/^ \*   \([0-9]*\)  .*/\1/p' "$model"); do
    search "-DBUG=$bug" "$@"
    grep -q 'assertion violated' report || {
        echo "wrong variant $bug is not found wrong"
        exit 1
    }
    echo "wrong variant $bug: found"
done
test -n "${bug:-}" || {
    echo 'the model has no wrong variants'
    exit 1
}
