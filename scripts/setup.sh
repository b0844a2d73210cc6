#!/bin/sh
# Installs what the build and the tests need and this machine lacks, with apt; quick when nothing is missing.
# Usage: scripts/setup.sh [MORE-PACKAGES]
set -eu

packages="cmake ninja-build g++ libdnnl-dev ocl-icd-opencl-dev libhwy-dev libcli11-dev libfmt-dev nlohmann-json3-dev
          libgtest-dev libbenchmark-dev clang-format python3 python3-venv $*"

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup: no apt on this machine; these Debian packages, or what matches them, are needed:" $packages
  exit 0
fi

missing=""
for package in $packages; do
  if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
    missing="$missing $package"
  fi
done
if [ -z "$missing" ]; then exit 0; fi

echo "setup: installing$missing"
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: not root, and there is no sudo. As root: apt-get install$missing" >&2
    exit 1
  fi
  as_root="sudo"
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get -q update
# shellcheck disable=SC2086  # a list of words
$as_root apt-get -q -y install --no-install-recommends $missing
