#!/bin/sh
# SPDX-License-Identifier: MIT
# The shared library exports exactly what the public headers declare, and
# nothing that is not mproc_*.
# usage: symbols.sh <root of the sources> <libmproc.so>
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
exit $bad
