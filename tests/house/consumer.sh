#!/bin/sh
# Installs the library into a prefix of its own, builds tests/consumer against it as a separate project, and runs it.
#
#   consumer.sh static SOURCE BUILD WORK     installs from BUILD, which holds a static library
#   consumer.sh shared SOURCE BUILD WORK     builds a shared library under WORK first, and checks what it exports
set -eu
kind=$1 source=$2 build=$3 work=$4
prefix=$work/prefix

rm -rf "$prefix" "$work/consumer"
if [ "$kind" = shared ]; then
  build=$work/build
  cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DFLASH_MLA_CUDA=OFF \
    -DFLASH_MLA_BUILD_TOOLS=OFF -DFLASH_MLA_BUILD_EXAMPLES=OFF -DFLASH_MLA_BUILD_BENCH=OFF -DFLASH_MLA_BUILD_TESTS=OFF
  cmake --build "$build"
fi
cmake --install "$build" --prefix "$prefix"

if [ "$kind" = shared ]; then
  library=$(find "$prefix" -name 'libflash_mla.so')
  nm --dynamic --defined-only --demangle "$library" | cut -d' ' -f3- | sed 's/(.*//' | LC_ALL=C sort -u >"$work/exports.txt"
  diff "$source/tests/house/exports.txt" "$work/exports.txt"
fi

cmake -S "$source/tests/consumer" -B "$work/consumer" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix"
cmake --build "$work/consumer"
"$work/consumer/consumer"
