# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # check.sh reads this file
run
prints 'they take turns' <<EOF
seeker: my eyes are shut, hide!
hider: I am hidden, come and find me!
seeker: found you!
hider: how did you know?
EOF
