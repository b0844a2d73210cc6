#!/bin/bash
# Builds the Python package's wheel, installs it into two fresh environments, with the newest and the oldest of what it
# needs, and tests it there, as a user would have it: with NumPy, on the CPU.
# Usage: scripts/test_python.sh [PYTEST ARGUMENT ...]      (all that is installed lies in build/test-python)
# FLASH_MLA_WHEEL=FILE tests that wheel instead; PYTHON=python3.9 tests with another Python.
set -euo pipefail
cd "$(dirname "$0")/.."
wheel=${FLASH_MLA_WHEEL:-$(scripts/python_wheel.sh)}
python=${PYTHON:-python3}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
tests=$PWD/tests/python/numpy

# Tests in an environment NAME with these packages.
test_in() {
  local name=$1 venv=build/test-python/$version-$1
  shift
  if ! [ -e "$venv/complete" ]; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --no-cache-dir pytest ml_dtypes "$@"
    touch "$venv/complete"
  fi
  "$venv/bin/python" -m pip install --quiet --force-reinstall --no-deps "$wheel"
  "$venv/bin/python" -m pip check >/dev/null
  echo "==== $(basename "$wheel"), Python $version, $name packages"
  # Run in the environment: nothing of the source tree in the way.
  (cd "$venv" && bin/python -m pytest --no-header -p no:cacheprovider "$tests" "${arguments[@]}")
}

arguments=("$@")
test_in newest 'apache-tvm-ffi>=0.1,<0.2' numpy
test_in oldest apache-tvm-ffi==0.1.0 'numpy<2;python_version<"3.13"' 'numpy;python_version>="3.13"'
