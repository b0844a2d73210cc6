#!/usr/bin/env bash
# Builds all that the device check needs into one folder that can be carried to a machine with a GPU:
#   bin/  programs      lib/  the shared libraries that a Debian package brought      share/  the peers' rows
#   wheels/  the Python package and tvm-ffi      python/  its tests, examples and measurements
# and into FOLDER.tar.gz, a third of its size.
# Usage: scripts/device_package.sh [FOLDER]      (default build/device)
# FLASH_MLA_DEVICE_PYTHON: Python of the GPU machine (default: 3.12); the wheel of tvm-ffi is for that one and python3's.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/device}
build=build/device-build

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DFLASH_MLA_CUDA=ON -DFLASH_MLA_INSTALL=OFF \
  -DFLASH_MLA_LINE_INFO=ON \
  -DFLASH_MLA_BUILD_EXAMPLES=OFF '-DCMAKE_BUILD_RPATH=$ORIGIN/../lib' -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON >/dev/null
programs=(flash-mla decode_bench roofline)
mapfile -t tests < <(ninja -C "$build" -t targets all | sed -n 's|^tests/device/\(test_device[a-z_]*\): .*EXECUTABLE_LINKER.*|\1|p')
ninja -C "$build" "${programs[@]}" "${tests[@]}"

rm -rf "$folder"
mkdir -p "$folder"/{bin,lib,share,scripts,wheels,python}
for program in "${programs[@]}" "${tests[@]}"; do
  install -s "$(find "$build" -type f -name "$program" -perm -u+x | head -n 1)" "$folder/bin/$program"
done
# What the GPU machine may lack: everything but the C and C++ run-time libraries and the driver's.
for program in "$folder"/bin/*; do ldd "$program"; done |
  awk '/=> \//{print $3}' | sort -u | grep -Ev '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|libcuda)\.so' |
  while read -r library; do install -s "$(readlink -f "$library")" "$folder/lib/$(basename "$library")"; done
for library in "$folder"/lib/*; do patchelf --set-rpath '$ORIGIN' "$library"; done
cp bench/peers/*.json "$folder/share/"
cp tests/device/sanitizer_exceptions.txt "$folder/share/"
cp scripts/device_check.sh scripts/sanitizer_findings.py "$folder/scripts/"
cp "$(scripts/python_wheel.sh)" "$folder/wheels/"
for version in "${FLASH_MLA_DEVICE_PYTHON:-3.12}" "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; do
  python3 -m pip download --quiet --only-binary=:all: --no-deps --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --dest "$folder/wheels" 'apache-tvm-ffi>=0.1,<0.2'
done
tar -c --exclude=__pycache__ tests/python examples/*.py bench/python | tar -x -C "$folder/python"
git describe --always --dirty --abbrev=12 >"$folder/share/commit"
tar -C "$(dirname "$folder")" -czf "$folder.tar.gz" "$(basename "$folder")"
du -sh "$folder" "$folder.tar.gz"
