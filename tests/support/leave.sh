#!/bin/sh
# SPDX-License-Identifier: MIT
# Behaves badly towards the runner, or well, to see it noticed.
# usage: leave.sh <runner> <expected status> <what>
runner=$1 expected=$2 what=$3
case $what in
    well)   program='exit 3' ;;
    orphan) program='(sleep 300 & (sleep 301 & sleep 302) &) ; exit 0' ;;
    hang)   program='sleep 303 & sleep 304; exit 0' ;;
    signal) program='kill -SEGV $$' ;;
    brief)  program='(sleep 0.2 &) ; exit 0' ;;
    *)      echo "unknown: $what" >&2; exit 1 ;;
esac
"$runner" 1 sh -c "$program"
got=$?
echo "status $got, expected $expected"
test "$got" -eq "$expected"
