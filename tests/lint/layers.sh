#!/bin/sh
# SPDX-License-Identifier: MIT
# A file in src/<layer>/ includes, as "layer/file.h", only its own or a lower
# layer. Every source file is listed in src/CMakeLists.txt.
. "$(dirname "$0")/lib.sh"

layers='base os shm sync chan proc pool inspect'

found=$(find src -name '*.[ch]' | sort | xargs awk -v layers="$layers" '
    BEGIN {
        n = split(layers, name, " ")
        for (i = 1; i <= n; i++) {
            rank[name[i]] = i
        }
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        split(FILENAME, path, "/")
        split($0, quoted, "\"")
        parts = split(quoted[2], target, "/")
        at = FILENAME ":" FNR ": "
        if (!(path[2] in rank)) {
            print at "no layer: " path[2]
        } else if (parts != 2 || !(target[1] in rank)) {
            print at "not \"layer/file.h\": " quoted[2]
        } else if (rank[target[1]] > rank[path[2]]) {
            print at path[2] " may not include " target[1] ": " quoted[2]
        }
    }')
test -z "$found" || complain "$found"

for file in $(find src -name '*.c' | sort); do
    grep -qE "^ *${file#src/}\$" src/CMakeLists.txt ||
        complain "$file: not listed in src/CMakeLists.txt"
done
exit $bad
