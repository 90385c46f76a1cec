#!/bin/sh
# SPDX-License-Identifier: MIT
# The shared library exports exactly mproc_*: every such function that there
# is, and nothing else; and each is declared in a public header.
# usage: symbols.sh <root of the sources> <libmproc.so> <libmproc.a>
. "$(dirname "$0")/lib.sh"

command -v nm >/dev/null || skip 'no nm'
exported=$(nm -D --defined-only "$2" | awk '
    $2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u)
test -n "$exported" || complain "$2: exports nothing"

for symbol in $exported; do
    case $symbol in
        mproc_*) ;;
        # put there by sanitizers and by some linkers
        __asan_* | __odr_asan* | __tsan_* | __ubsan_* | __sancov_*) continue ;;
        *) complain "$symbol: exported, but not mproc_*" ;;
    esac
    grep -qw "$symbol" include/*.h include/*/*.h ||
        complain "$symbol: exported, but in no public header"
done

for symbol in $(nm -g --defined-only "$3" 2>/dev/null | awk '
    $3 ~ /^mproc_/ { print $3 }'); do
    echo "$exported" | grep -qx "$symbol" ||
        complain "$symbol: in the static library, but not exported"
done
exit $bad
