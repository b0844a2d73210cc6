#!/bin/bash
# Builds the Python package's wheel, installs it into a fresh environment and tests it there, as a user would have it:
# with NumPy, on the CPU. Usage: scripts/test_python.sh [PYTEST ARGUMENT ...]     (what is installed lies in build/)
# FLASH_MLA_WHEEL=FILE tests that wheel instead; PYTHON=python3.9 tests with another Python.
set -euo pipefail
cd "$(dirname "$0")/.."
wheel=${FLASH_MLA_WHEEL:-$(scripts/python_wheel.sh)}
python=${PYTHON:-python3}
venv=build/test-python/venv-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

if ! [ -e "$venv/complete" ]; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --no-cache-dir pytest numpy ml_dtypes 'apache-tvm-ffi>=0.1,<0.2'
  touch "$venv/complete"
fi
"$venv/bin/python" -m pip install --quiet --force-reinstall --no-deps "$wheel"
"$venv/bin/python" -m pip check
tests=$PWD/tests/python/numpy
cd "$venv"  # nothing of the source tree in the way
exec bin/python -m pytest --no-header -p no:cacheprovider "$tests" "$@"
