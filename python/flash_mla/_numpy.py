"""NumPy arrays, on the CPU. bf16 is ml_dtypes.bfloat16, which DLPack does not let NumPy pass: it goes as uint16."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from ._frameworks import Framework
from ._library import library, tvm_ffi

try:
    import ml_dtypes

    _BFLOAT16: Optional[np.dtype] = np.dtype(ml_dtypes.bfloat16)
except ImportError:
    _BFLOAT16 = None


class NumpyFramework(Framework):
    name = "numpy"
    has_bfloat16 = False
    int32 = np.dtype(np.int32)
    float32 = np.dtype(np.float32)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Any, stream: Optional[int] = None) -> np.ndarray:
        return np.empty(shape, dtype)

    def export(self, array: Any, stream: int) -> Any:
        if array.dtype == _BFLOAT16:
            array = array.view(np.uint16)
        if array.flags.writeable:
            return array
        # Only DLPack 1 can say that an array is read-only.
        try:
            return tvm_ffi.from_dlpack(array.__dlpack__(max_version=(1, 0)))
        except TypeError:
            raise ValueError("an array is read-only, which NumPy before 2.1 cannot pass on; give a copy") from None

    def wrap(self, tensor: Any) -> np.ndarray:
        array = np.asarray(_Memory(tensor))  # np.from_dlpack makes read-only arrays before NumPy 2.1
        if array.dtype != np.uint16:
            return array
        if _BFLOAT16 is None:
            raise ImportError("NumPy has no bf16 of its own; install ml_dtypes")
        return array.view(_BFLOAT16)

    def host_empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.empty(shape, dtype)

    def to_device(self, array: np.ndarray, device: Any, stream: int) -> np.ndarray:
        return array

    def stack(self, arrays: list[Any]) -> np.ndarray:
        return np.stack(arrays)

    def contiguous(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array)


class _Memory:
    """A tvm-ffi tensor of the host, contiguous, in NumPy's array protocol."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    @property
    def __array_interface__(self) -> dict[str, Any]:
        dtype = np.dtype(str(self.tensor.dtype)).str
        return {
            "version": 3,
            "shape": tuple(self.tensor.shape),
            "typestr": dtype,
            "data": (library.address_of(self.tensor), False),
        }


def make(name: str) -> NumpyFramework:
    return NumpyFramework()
