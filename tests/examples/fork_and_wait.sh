# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'each end is told' <<EOF
returns 7: exit code 7
is killed: exit code -9
calls exit(0): exit code 0
nobody is left to wait for
EOF
