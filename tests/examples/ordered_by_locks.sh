# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
for round in 1 2 3; do
    for process in 1 2 3 4; do
        echo "round $round: process $process"
    done
done >"$tmp/order"
prints 'the order, round after round' <"$tmp/order"
