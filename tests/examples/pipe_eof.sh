# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'ten items, then the end, however the producer ended' <<'END'
10 items, then MPROC_EOF
the producer ended with 0
10 items, then MPROC_EOF
the producer ended with -9
END
