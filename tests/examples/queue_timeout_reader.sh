# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'all are read, then the reader ends by itself' <<'END'
got 1
got 2
got 3
got 4
got 5
nothing more: MPROC_EEMPTY
the reader ended with 0
END
