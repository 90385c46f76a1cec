# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'the copies of the parent are unchanged' <<EOF
parent: global 1, shared 1, list 1
child: global 100, shared 100, list 100 1
parent: global 1, shared 100, list 1
EOF
