# SPDX-License-Identifier: MIT
# Shared by the scripts, which have gone to the root of the repository.

jobs=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

# quietly <command>...: its output only where it fails
quietly()
{
    mkdir -p build
    log=build/last-command.$$
    if "$@" >"$log" 2>&1; then
        rm -f "$log"
    else
        status=$?
        cat "$log" >&2
        rm -f "$log"
        return $status
    fi
}
