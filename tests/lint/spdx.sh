#!/bin/sh
# SPDX-License-Identifier: MIT
# Each source file says its license in its first three lines, and no line of
# C is longer than 80 characters.
. "$(dirname "$0")/lib.sh"

sources=$(files -name '*.[ch]' -o -name '*.cc' -o -name '*.cpp' \
    -o -name '*.sh' -o -name CMakeLists.txt -o -name '*.cmake' \
    -o -name '*.in' -o -name '*.map' -o -name '*.py' -o -name '*.pml' \
    -o -name '*.[13457]' -o -path './script/*' -o -path './.ci/*' \
    -o -name .clang-format -o -name .clang-tidy)
for file in $sources; do
    head -n 3 "$file" | grep -q 'SPDX-License-Identifier: MIT' ||
        complain "$file: no SPDX-License-Identifier: MIT"
done

# In characters, not bytes: continuation bytes of UTF-8 do not count.
for file in $(files -name '*.[ch]' -o -name '*.cc' -o -name '*.cpp'); do
    long=$(tr -d '\200-\277' <"$file" | grep -nE '.{81,}' | cut -d: -f1)
    for line in $long; do
        complain "$file:$line: longer than 80 characters"
    done
done
exit $bad
