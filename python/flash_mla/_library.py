"""Loads the package's shared library, without compiling anything. Used by every other file of the package.

tvm-ffi imports PyTorch if that is installed, and for PyTorch before 2.10 without a torch-c-dlpack-ext that fits it
would compile one at import. A flag keeps it from doing so; PyTorch's tensors then take a slower way into the library.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import sys
from typing import Any

_NO_COMPILATION = "TVM_FFI_DISABLE_TORCH_C_DLPACK"


def _would_compile() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    try:
        version = re.findall(r"\d+", importlib.metadata.version("torch"))
        if (int(version[0]), int(version[1])) >= (2, 10):
            return False
        importlib.import_module("torch_c_dlpack_ext")  # imports PyTorch and gives it what 2.10 has by itself
    except Exception:  # not installed, or made for another version of PyTorch
        return True
    tensor = sys.modules["torch"].Tensor
    return not (hasattr(tensor, "__dlpack_c_exchange_api__") or hasattr(tensor, "__c_dlpack_exchange_api__"))


def _import_tvm_ffi() -> Any:
    if _NO_COMPILATION in os.environ or not _would_compile():
        return importlib.import_module("tvm_ffi")
    os.environ[_NO_COMPILATION] = "1"
    try:
        return importlib.import_module("tvm_ffi")
    finally:
        del os.environ[_NO_COMPILATION]


tvm_ffi = _import_tvm_ffi()
LIBRARY_PATH = pathlib.Path(__file__).parent / "lib" / "libflash_mla_python.so"
library = tvm_ffi.load_module(str(LIBRARY_PATH))
