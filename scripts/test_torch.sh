#!/bin/bash
# Tests the Python package with PyTorch and runs the transformers example, on the CPU (and the GPU where there is one).
# PyTorch and what the tests need are installed once into a folder that is kept between runs; its name changes with the
# versions below. Usage: scripts/test_torch.sh [PYTEST ARGUMENT ...]
#   FLASH_MLA_WHEEL        the package's wheel                (default: built by scripts/python_wheel.sh)
#   PYTHON                 the interpreter                    (default: python3)
#   FLASH_MLA_CACHE        where the environment is kept      (default: $XDG_CACHE_HOME/flash_mla or ~/.cache/flash_mla)
#   FLASH_MLA_TORCH        another version of PyTorch         (without transformers, so without the example)
set -euo pipefail
cd "$(dirname "$0")/.."

torch=${FLASH_MLA_TORCH:-2.11.0}
pins=("torch==$torch" 'pytest>=8,<10' 'apache-tvm-ffi>=0.1,<0.2')
if [ -n "${FLASH_MLA_TORCH:-}" ]; then
  pins+=('numpy<2.3')
  case $torch in 2.[0-9].*) pins+=(torch-c-dlpack-ext) ;; esac
else
  pins+=(transformers==5.17.0 numpy==2.4.6)
fi
cache=${FLASH_MLA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flash_mla}
python=${PYTHON:-python3}
identity=$("$python" -c 'import sys; print(sys.executable, *sys.version_info[:2])')
venv=$cache/torch-$(printf '%s\n' "$identity" "${pins[@]}" | sha256sum | cut -c1-12)

mkdir -p "$cache"
(
  flock 9
  if [ ! -e "$venv/complete" ]; then
    echo "test-torch: installing ${pins[*]} into $venv (about 5 GB, once)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --no-cache-dir "${pins[@]}"
    touch "$venv/complete"
  fi
) 9>"$cache/lock"

wheel=${FLASH_MLA_WHEEL:-$(scripts/python_wheel.sh)}
site=build/test-torch/site
rm -rf "$site"
"$venv/bin/python" -m pip install --quiet --no-index --no-deps --target "$site" "$wheel"
echo "test-torch: $(basename "$wheel") with PyTorch $torch, $("$venv/bin/python" --version)"
export PYTHONPATH=$PWD/$site HF_HUB_OFFLINE=1
exec "$venv/bin/python" -m pytest -o addopts= -q -p no:cacheprovider tests/python/torch "$@"
