# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'a hundred results of five threads' <<END
100 results, 100 of them right, all of this process: yes
5 threads
END
