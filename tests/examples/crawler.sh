# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
see 'every title is found, and each page that fails is reported, once' '
    NR == 1 { next }
    /^title: All about [0-9]+$/ { bad = bad || seen[$4]++; titles++; next }
    $0 == "page 8 has no title" { bad = bad || seen[8]++; next }
    $0 == "failed: page 5: HTTP status 404" { bad = bad || seen[5]++; next }
    $0 == "failed: page 10: no answer" { bad = bad || seen[10]++; next }
    $0 == "9 titles, 1 without, 2 failed, of 12 pages" { last = NR; next }
    { bad = 1 }
    END {
        for (page = 1; page <= 12; page++) {
            bad = bad || seen[page] != 1
        }
        exit bad || titles != 9 || last != 14 || NR != 14
    }'
