#!/bin/sh
# SPDX-License-Identifier: MIT
# Every public header compiles alone, in C11 and C++11, without a warning, and
# the umbrella includes it.
. "$(dirname "$0")/lib.sh"

tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
warnings='-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror'

# compile <language> <standard> <compiler> <header>
compile()
{
    printf '#include <%s>\n' "$4" >"$tmp/alone.$1"
    # shellcheck disable=SC2086
    $3 -std="$2" $warnings -Iinclude -c "$tmp/alone.$1" -o "$tmp/alone.o" ||
        complain "$4: does not compile alone as $2"
}

cc=${CC:-cc}
cxx=${CXX:-c++}
command -v $cc >/dev/null || skip "no C compiler ($cc)"
command -v $cxx >/dev/null || skip "no C++ compiler ($cxx)"

for file in include/*.h include/*/*.h; do
    header=${file#include/}
    compile c c11 "$cc" "$header"
    compile cc c++11 "$cxx" "$header"
    test "$header" = mproc.h || grep -q "^#include <$header>" include/mproc.h ||
        complain "$header: not included by mproc.h"
done
exit $bad
