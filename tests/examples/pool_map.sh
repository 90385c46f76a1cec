# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
for chunk in 1 4 16; do
    for way in map map_async starmap imap imap_unordered; do
        echo "$way in chunks of $chunk: 0 1 4 9 16 25 36 49 64 81"
    done
done | prints 'every way, in every chunk size, gives the same results'
