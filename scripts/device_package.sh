#!/usr/bin/env bash
# Builds all that the device check needs into one folder that can be carried to a machine with a GPU:
#   bin/  programs      lib/  the shared libraries that a Debian package brought      share/  the peers' rows
# and into FOLDER.tar.gz, a third of its size.
# Usage: scripts/device_package.sh [FOLDER]      (default build/device)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/device}
build=build/device-build

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DFLASH_MLA_CUDA=ON -DFLASH_MLA_INSTALL=OFF \
  -DFLASH_MLA_BUILD_EXAMPLES=OFF '-DCMAKE_BUILD_RPATH=$ORIGIN/../lib' -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON >/dev/null
programs=(flash-mla decode_bench roofline)
mapfile -t tests < <(ninja -C "$build" -t targets all | sed -n 's|^tests/device/\(test_device[a-z_]*\): .*EXECUTABLE_LINKER.*|\1|p')
ninja -C "$build" "${programs[@]}" "${tests[@]}"

rm -rf "$folder"
mkdir -p "$folder"/{bin,lib,share,scripts}
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
git describe --always --dirty --abbrev=12 >"$folder/share/commit"
tar -C "$(dirname "$folder")" -czf "$folder.tar.gz" "$(basename "$folder")"
du -sh "$folder" "$folder.tar.gz"
