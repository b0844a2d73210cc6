"""CuPy and JAX arrays, on a CUDA stream that each call names: these packages pass none with their arrays."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from ._frameworks import CURRENT_STREAM, DLPACK_CPU, DLPACK_CUDA, Framework
from ._library import library, tvm_ffi

_LEGACY_DEFAULT_STREAM = 1  # DLPack's name of CUDA's stream 0


def _required(stream: Optional[int], framework: str) -> int:
    if stream is None:
        raise ValueError(f"stream is not given; {framework} arrays do not say on which CUDA stream to work")
    if not isinstance(stream, int) or stream < 0:
        raise ValueError(f"stream is {stream!r}; expected the address of a CUDA stream as an integer")
    return stream or _LEGACY_DEFAULT_STREAM


class CupyFramework(Framework):
    """bf16 as uint16, or as ml_dtypes.bfloat16 where CuPy has that."""

    name = "cupy"
    has_bfloat16 = False
    int32, float32 = np.dtype("int32"), np.dtype("float32")

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy

    def empty(self, shape: tuple[int, ...], dtype: Any, device: int, stream: Optional[int] = None) -> Any:
        with self.cupy.cuda.Device(device), self.cupy.cuda.ExternalStream(stream):
            return self.cupy.empty(shape, dtype)

    def device_named(self, kind: int, index: int) -> int:
        if kind != DLPACK_CUDA:
            raise ValueError("device is the CPU; CuPy has arrays on CUDA devices alone")
        return index

    def device_of(self, array: Any) -> int:
        return array.device.id

    def dlpack_device(self, device: int) -> tuple[int, int]:
        return (DLPACK_CUDA, device)

    def stream(self, stream: Optional[int]) -> int:
        return _required(stream, "CuPy")

    def export(self, array: Any, stream: int) -> Any:
        if isinstance(array, np.ndarray):  # of host_empty
            return array
        if array.dtype.name == "bfloat16":
            array = array.view(np.uint16)
        return tvm_ffi.from_dlpack(array.__dlpack__(stream=stream))

    def wrap(self, tensor: Any) -> Any:
        return self.cupy.from_dlpack(tensor)

    def scratch(self, plan: Any, device: int, stream: int) -> Any:
        return self.empty((plan.scratch_bytes,), np.uint8, device, stream)

    def host_empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.empty(shape, dtype)

    def to_device(self, array: np.ndarray, device: int, stream: int) -> Any:
        with self.cupy.cuda.Device(device), self.cupy.cuda.ExternalStream(stream):
            return self.cupy.asarray(array)

    def stack(self, arrays: list[Any]) -> Any:
        return self.cupy.stack(arrays)

    def contiguous(self, array: Any) -> Any:
        return self.cupy.ascontiguousarray(array)


class JaxFramework(Framework):
    """Results are new arrays, complete when a call returns: JAX cannot be told which stream writes them."""

    name = "jax"
    int32, float32 = np.dtype("int32"), np.dtype("float32")

    def __init__(self) -> None:
        import jax
        import jax.dlpack
        import jax.numpy

        self.jax, self.jnp = jax, jax.numpy

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Any, stream: Optional[int] = None) -> Any:
        with self.jax.default_device(device):
            return self.jnp.empty(shape, dtype).block_until_ready()

    def device_named(self, kind: int, index: int) -> Any:
        return self.jax.devices("cpu" if kind == DLPACK_CPU else "cuda")[index]

    def device_of(self, array: Any) -> Any:
        (device,) = array.devices()
        return device

    def dlpack_device(self, device: Any) -> tuple[int, int]:
        return (DLPACK_CPU, 0) if device.platform == "cpu" else (DLPACK_CUDA, device.local_hardware_id)

    def stream(self, stream: Optional[int]) -> int:
        if stream is None and self.jax.default_backend() == "cpu":
            return CURRENT_STREAM
        return _required(stream, "JAX")

    def export(self, array: Any, stream: int) -> Any:
        if isinstance(array, np.ndarray):  # of host_empty
            return array
        array.block_until_ready()
        return tvm_ffi.from_dlpack(array.__dlpack__())

    def wrap(self, tensor: Any) -> Any:
        return self.jax.dlpack.from_dlpack(tensor)

    def scratch(self, plan: Any, device: Any, stream: int) -> Any:
        return None if device.platform == "cpu" else self.empty((plan.scratch_bytes,), np.uint8, device)

    def finish(self, stream: int) -> None:
        if stream != CURRENT_STREAM:
            library.synchronize(stream)

    def host_empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.empty(shape, dtype)

    def to_device(self, array: np.ndarray, device: Any, stream: int) -> Any:
        return self.jax.device_put(array, device)

    def stack(self, arrays: list[Any]) -> Any:
        return self.jnp.stack(arrays)


def make(name: str) -> Framework:
    return CupyFramework() if name == "cupy" else JaxFramework()
