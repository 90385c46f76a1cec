# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'the program ends after its child' <<EOF
main returns
the child is done
EOF
