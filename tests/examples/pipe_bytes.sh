# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'whole messages, of which none is lost' <<'END'
at once: there is none
after a while: there is none
now: there is a message
into 4 bytes: MPROC_EMSGSIZE, it has 5
5 bytes: "whole"
21 bytes: "three whole messages"
0 bytes: ""
END
