# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
for process in 1 2 3 4 5; do
    echo "process $process begins"
    echo "  thread of process $process"
    echo "process $process ends"
done >"$tmp/order"
prints 'one process after the other, each with its thread' <"$tmp/order"
