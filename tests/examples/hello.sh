# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
last_line hello
see 'nothing else is printed' 'END { exit NR != 2 }'
