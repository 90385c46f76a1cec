# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'each outcome' <<EOF
main takes it: MPROC_OK
another tries: MPROC_ETIMEDOUT
another waits a little: MPROC_ETIMEDOUT
another releases it: MPROC_OK
main takes it again: MPROC_OK
main releases it: MPROC_OK
main releases it twice: MPROC_EINVAL
EOF
