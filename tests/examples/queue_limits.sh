# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'three fit, and each refusal comes at once or after its time' <<'END'
put: MPROC_OK, qsize 1
put: MPROC_OK, qsize 2
put: MPROC_OK, qsize 3, full
put at once: MPROC_EFULL, qsize 3, full
put for a while: MPROC_EFULL, qsize 3, full
got one
get: MPROC_OK, qsize 2
got two
get: MPROC_OK, qsize 1
got three
get: MPROC_OK, qsize 0, empty
get at once: MPROC_EEMPTY, qsize 0, empty
get for a while: MPROC_EEMPTY, qsize 0, empty
END
