#!/bin/sh
# SPDX-License-Identifier: MIT
# What the README shows is quoted from files that are compiled and run: its
# first program is examples/hello.c, its other blocks of C name the file they
# are quoted from, and what is said to be printed is what tests/examples/*.out
# say, which the examples are checked against. Every name of the library in it
# exists.
. "$(dirname "$0")/lib.sh"

# block <kind>: the first ```<kind> block
block()
{
    awk -v open="\`\`\`$1" '
        $0 == open && !done { inside = 1; next }
        /^```/ { if (inside) done = 1; inside = 0 }
        inside' README.md
}

program=$(block c)
output=$(block console)
# but for its first line, which is its licence
test "$program" = "$(sed 1d examples/hello.c)" ||
    complain 'README.md: the first program is not examples/hello.c'
test "$(printf '%s\n' "$output" | sed 1d)" = \
    "$(cat tests/examples/hello.out)" ||
    complain 'README.md: does not show what examples/hello prints'
test "$(printf '%s\n' "$program" | grep -c .)" -le 20 ||
    complain 'README.md: the first program has more than 20 lines of text'
head -n 30 README.md | grep -qFx "$(cat tests/examples/hello.out)" ||
    complain 'README.md: it and what it prints are not in the first 30 lines'

# What each example prints last.
for file in tests/examples/*.out; do
    tr '\n' ' ' <README.md | grep -qF "$(cat "$file")" ||
        complain "README.md: does not say what $file says"
done

# Blocks of C: each line for line in the file that the line above names.
found=$(awk '
    function block_is_quoted(    i, at, n, line, text) {
        n = 0
        while ((getline line < source) > 0) {
            text[++n] = line
        }
        close(source)
        for (at = 1; at + lines - 1 <= n; at++) {
            for (i = 1; i <= lines && text[at + i - 1] == quote[i]; i++) {
            }
            if (i > lines) {
                return 1
            }
        }
        return 0
    }
    /^<!-- quoted from .* -->$/ { source = $4; next }
    inside && /^```$/ {
        inside = 0
        if (blocks++ > 0 && (lines == 0 || !block_is_quoted())) {
            print "README.md:" begin ": not quoted from " \
                (source == "" ? "any file" : source)
        }
        source = ""
        next
    }
    /^```c$/ { inside = 1; begin = NR; lines = 0; next }
    inside { quote[++lines] = $0 }
    END { if (inside) print "README.md:" begin ": a block without an end" }
' README.md)
test -z "$found" || complain "$found"

for name in $(grep -oE '\b(mproc|MPROC)_[A-Za-z_]*[A-Za-z]\b' README.md |
    sort -u); do
    grep -qrw -- "$name" include CMakeLists.txt src/CMakeLists.txt ||
        complain "README.md: no such name: $name"
done

# What it links to is there.
for target in $(grep -oE '\]\([^)#:]+\)' README.md | sed 's/^](//; s/)$//'); do
    test -e "$target" || complain "README.md: no such file: $target"
done
exit $bad
