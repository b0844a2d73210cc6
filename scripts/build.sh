#!/bin/sh
# Configures and builds a preset: build.sh PRESET [TARGET...]. The log of the configuration is shown if it fails.
set -eu
cd "$(dirname "$0")/.."
preset=$1
shift

mkdir -p "build/$preset"
log=build/$preset/configure.log
cmake --preset "$preset" >"$log" 2>&1 || { cat "$log"; exit 1; }
grep '^-- CUDA backend' "$log" | sed 's/^-- //' || true
cmake --build --preset "$preset" ${1:+--target "$@"}
