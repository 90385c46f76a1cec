#!/bin/sh
# SPDX-License-Identifier: MIT
# Build and run a user's program, as a user would.
# usage: run.sh <build directory of libmproc> install
#        run.sh <build directory of libmproc> readme
#        run.sh <build directory of libmproc> <way> <C|CXX>
# ways: find_package pkg_config_shared pkg_config_static add_subdirectory
# Everything is made below <build directory>/consumer. $KIND: what mproc::mproc
# means, static or shared.
set -eu

build=$1 way=$2 language=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
prefix=$build/consumer/prefix
work=$build/consumer/$way-$language
unset LD_LIBRARY_PATH

fail()
{
    echo "$*"
    exit 1
}

skip()
{
    echo "skipped: $*"
    exit 77
}

# Run a program, see what it says, see whether it carries the library itself.
check()
{
    out=$("$1") || fail "$1: status $?"
    echo "$1: $out"
    case $out in
        'libmproc '[0-9]*.[0-9]*.[0-9]*': no room') ;;
        *) fail "$1: not what it should say" ;;
    esac
    command -v readelf >/dev/null || return 0
    needed=static
    if readelf -d "$1" | grep -q 'NEEDED.*libmproc\.so\.0\]'; then
        needed=shared
    fi
    test "$needed" = "$2" || fail "$1: linked $needed, not $2"
}

with_cmake()
{
    cmake -S "$here" -B "$work" -DLANGUAGE="$language" "$@"
    cmake --build "$work"
    check "$work/use_mproc" "${KIND:-static}"
    check "$work/use_mproc_static" static
    check "$work/use_mproc_shared" shared
}

# The first program of the README, by the line there that compiles and runs it.
with_readme()
{
    command -v cc >/dev/null || skip 'no cc'
    command -v pkg-config >/dev/null || skip 'no pkg-config'
    mkdir -p "$work"
    cp "$source/examples/hello.c" "$work/"
    PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name mproc.pc)")
    export PKG_CONFIG_PATH
    LD_LIBRARY_PATH=$(pkg-config --variable=libdir mproc)
    export LD_LIBRARY_PATH
    line=$(sed -n '/^\$ cc /{s/^\$ //p;q;}' "$source/README.md")
    out=$(cd "$work" && eval "$line") || fail "$line: status $?"
    echo "$line: $out"
    test "$out" = "$(cat "$source/tests/examples/hello.out")" ||
        fail 'not what it should say'
}

# What pkg-config says, and nothing else.
with_pkg_config()
{
    command -v pkg-config >/dev/null || skip 'no pkg-config'
    PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name mproc.pc)")
    export PKG_CONFIG_PATH
    if test "$language" = CXX; then
        compile="${CXX:-c++} -std=c++11 $here/consumer.cpp"
    else
        compile="${CC:-cc} -std=c11 $here/consumer.c"
    fi
    mkdir -p "$work"
    libdir=$(pkg-config --variable=libdir mproc)
    if test "$1" = shared; then
        # shellcheck disable=SC2046
        $compile -o "$work/use" $(pkg-config --cflags --libs mproc) \
            "-Wl,-rpath,$libdir"
    else
        # Found first: a folder that holds no shared library. (-static would
        # do, but asks for a static libc too.)
        mkdir -p "$work/lib"
        cp "$libdir/libmproc.a" "$work/lib/"
        # shellcheck disable=SC2046
        $compile -o "$work/use" "-L$work/lib" \
            $(pkg-config --static --cflags --libs mproc)
    fi
    check "$work/use" "$1"
}

rm -rf "$work"
if test "$language" = CXX; then
    command -v "${CXX:-c++}" >/dev/null || skip 'no C++ compiler'
fi
case $way in
    install)
        rm -rf "$prefix"
        cmake --install "$build" --prefix "$prefix"
        ;;
    find_package) with_cmake -DCMAKE_PREFIX_PATH="$prefix" ;;
    readme) with_readme ;;
    add_subdirectory)
        shared=OFF
        test "${KIND:-static}" = static || shared=ON
        with_cmake -DMPROC_SOURCE="$source" -DBUILD_SHARED_LIBS=$shared
        ;;
    pkg_config_shared) with_pkg_config shared ;;
    pkg_config_static) with_pkg_config static ;;
    *) fail "unknown way: $way" ;;
esac
