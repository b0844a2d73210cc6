"""Loads the package's shared library, without compiling anything. Used by every other file of the package.

tvm-ffi imports PyTorch if that is installed, and for torch <= 2.9 without torch-c-dlpack-ext it would compile an
extension at import. The flag below keeps it from doing so; PyTorch tensors then go through a slower path.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
from typing import Any

_NO_COMPILATION = "TVM_FFI_DISABLE_TORCH_C_DLPACK"


def _needs_no_compilation() -> bool:
    """Whether PyTorch is absent, or has the C exchange interface by itself or by torch-c-dlpack-ext."""
    if importlib.util.find_spec("torch") is None:
        return True
    import torch

    names = ("__dlpack_c_exchange_api__", "__c_dlpack_exchange_api__")
    if not any(hasattr(torch.Tensor, name) for name in names):
        try:
            import torch_c_dlpack_ext  # noqa: F401  (sets the attribute)
        except Exception:  # absent, or made for another version of PyTorch
            return False
    return any(hasattr(torch.Tensor, name) for name in names)


def _import_tvm_ffi() -> Any:
    if _NO_COMPILATION in os.environ or _needs_no_compilation():
        import tvm_ffi

        return tvm_ffi
    os.environ[_NO_COMPILATION] = "1"
    try:
        import tvm_ffi

        return tvm_ffi
    finally:
        del os.environ[_NO_COMPILATION]


tvm_ffi = _import_tvm_ffi()
LIBRARY_PATH = pathlib.Path(__file__).parent / "lib" / "libflash_mla_python.so"
library = tvm_ffi.load_module(str(LIBRARY_PATH))
