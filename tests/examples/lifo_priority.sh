# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'each in its order' <<END
fifo     3a 1b 4c 1d 5e 9f 2g 6h
lifo     6h 2g 9f 5e 1d 4c 1b 3a
priority 1b 1d 2g 3a 4c 5e 6h 9f
END
