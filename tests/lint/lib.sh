# SPDX-License-Identifier: MIT
# Shared by the checks: each is called as <check>.sh [root of the sources].
set -u
LC_ALL=C
export LC_ALL
root=${1:-$(dirname "$0")/../..}
cd "$root" || exit 1
bad=0

complain()
{
    echo "$*"
    bad=1
}

skip()
{
    echo "skipped: $*"
    exit 77
}

# The files of the project that match one of the -name patterns.
files()
{
    find . \( -path ./build -o -path './build-*' -o -path ./.git \) -prune -o \
        -type f \( "$@" \) -print | sed 's,^\./,,' | sort
}
