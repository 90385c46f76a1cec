# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'the sum, then the end of the server' <<'END'
30
server done
END
