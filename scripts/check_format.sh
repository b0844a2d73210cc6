#!/bin/sh
# Checks that every C++ and CUDA file is formatted as .clang-format says; --fix formats them.
set -eu
cd "$(dirname "$0")/.."

if ! command -v clang-format >/dev/null; then
  echo "clang-format was not found. Debian and Ubuntu: apt-get install clang-format" >&2
  exit 1
fi

mode="--dry-run -Werror"
if [ "${1:-}" = "--fix" ]; then mode="-i"; fi

# shellcheck disable=SC2086  # $mode is a list of words
find include src python tools tests bench examples \
  \( -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' \) -print0 |
  xargs -0 clang-format $mode
