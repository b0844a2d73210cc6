#!/bin/bash
# Builds the Python package's wheel and names it after the glibc that it needs: python_wheel.sh [FOLDER]
# (default build/wheel). Prints the wheel's path. FLASH_MLA_CUDA=OFF leaves the CUDA backend out; by default it is built
# when nvcc is there. What building takes is installed once into build/wheel-tools; objects are kept in build/python.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/wheel}
tools=build/wheel-tools
exec 3>&1 1>&2  # only the path goes to standard output

mkdir -p "$folder" build
(
  flock 9
  if [ ! -e "$tools/complete" ]; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet 'scikit-build-core>=0.10' 'apache-tvm-ffi>=0.1,<0.2' wheel
    touch "$tools/complete"
  fi
  rm -rf "$folder"/*
  "$tools/bin/python" -m pip wheel --quiet . --no-deps --no-build-isolation --wheel-dir "$folder" \
    --config-settings cmake.define.FLASH_MLA_CUDA="${FLASH_MLA_CUDA:-AUTO}"  # not -C, which pip has since 23.1
) 9>build/wheel-tools.lock
wheel=$(echo "$folder"/flash_mla-*-linux_x86_64.whl)

# The newest glibc whose symbols any of its libraries asks for.
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
"$tools/bin/python" -m zipfile -e "$wheel" "$unpacked"
glibc=$(find "$unpacked" -type f -name '*.so*' -exec objdump -T {} + | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1)
"$tools/bin/python" -m wheel tags --remove --platform-tag "manylinux_2_${glibc#GLIBC_2.}_x86_64" "$wheel" >/dev/null
realpath "$folder"/flash_mla-*.whl >&3
