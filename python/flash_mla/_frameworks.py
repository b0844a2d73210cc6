"""The array packages that the library takes its tensors from: what it must know of each.

`framework_of(array)` finds one by the array's type. NumPy is in _numpy.py, PyTorch in _torch.py, CuPy and JAX in
_gpu_arrays.py; each is imported when an array of it comes.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from typing import Any, Callable, Optional

CURRENT_STREAM = -1  # what the library takes for "the stream that the framework works on"
DLPACK_CPU, DLPACK_CUDA = 1, 2
_PACKAGES = {
    "numpy": "._numpy",
    "torch": "._torch",
    "cupy": "._gpu_arrays",
    "jax": "._gpu_arrays",
    "jaxlib": "._gpu_arrays",
}


Maker = Callable[[], Any]


class Framework:
    """One array package. `int32` and `float32` are its dtypes."""

    name = ""
    direct = False  # arrays go to tvm-ffi as they are, without export()
    has_bfloat16 = True  # else bf16 passes as uint16
    decode_directly: Optional[Callable[..., bool]] = None  # of _direct.py; with it comes what the next two lines name
    device_index: Callable[[Any], int]  # of an array
    keep_scratch = True  # decode_directly's last argument
    int32: Any
    float32: Any

    def compiling(self) -> bool:
        """Whether a compiler is tracing this call; then `compiled` has the operators to call instead."""
        return False

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Any, stream: Optional[int] = None) -> Any:
        """A new array, not initialised. `device` is what device_of returned."""
        raise NotImplementedError

    def device_named(self, kind: int, index: int) -> Any:
        """The framework's own name of a device that DLPack calls (kind, index)."""
        return None

    def device_of(self, array: Any) -> Any:
        """The framework's own name of the device; hashable."""
        return None

    def dlpack_device(self, device: Any) -> tuple[int, int]:
        """(type, index) of DLPack."""
        return (DLPACK_CPU, 0)

    def stream(self, stream: Optional[int]) -> int:
        """The stream that a call uses, from its argument `stream`."""
        return CURRENT_STREAM

    def export(self, array: Any, stream: int) -> Any:
        """What tvm-ffi takes in place of an array."""
        return array

    def maker(self, like: Any, shape: tuple[int, ...], dtype: Any = None) -> Maker:
        """Makes arrays like another, not initialised, but of this shape and, if given, dtype."""
        return partial(self.empty, shape, like.dtype if dtype is None else dtype, self.device_of(like))

    def quick_maker(self, maker: Maker) -> Maker:
        """A quicker one, whose arrays lie on the wrong device where another has become the current one."""
        return maker

    def wrap(self, tensor: Any) -> Any:
        """An array that shares the memory of a tvm-ffi tensor and keeps it alive."""
        raise NotImplementedError

    def host_empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A new array on the host, which export() takes and to_device() copies. `dtype`: "int32" or "int64"."""
        raise NotImplementedError

    def to_device(self, array: Any, device: Any, stream: int) -> Any:
        """A copy on a device of what host_empty returned; the array itself where that is the host."""
        raise NotImplementedError

    def scratch(self, plan: Any, device: Any, stream: int) -> Any:
        """Scratch of plan.scratch_bytes, or None where the library finds it itself."""
        return None

    def finish(self, stream: int) -> None:
        """Called when a call has enqueued its work."""

    def stack(self, arrays: list[Any]) -> Any:
        """Stacks arrays of equal shape along a new first axis."""
        raise NotImplementedError

    def swap_axes(self, array: Any, a: int, b: int) -> Any:
        """A view with two axes exchanged."""
        return array.swapaxes(a, b)

    def contiguous(self, array: Any) -> Any:
        """The array, or a copy without gaps in row-major order."""
        return array


_by_type: dict[type, Framework] = {}  # by the type of their arrays
_by_name: dict[str, Framework] = {}


def framework_named(name: str) -> Framework:
    """The framework "numpy", "torch", "cupy" or "jax"; ImportError if that package is not installed."""
    if name not in _by_name:
        if name not in ("numpy", "torch", "cupy", "jax"):
            raise ValueError(f"framework is {name!r}; expected 'numpy', 'torch', 'cupy' or 'jax'")
        _by_name[name] = importlib.import_module(_PACKAGES[name], __package__).make(name)
    return _by_name[name]


def framework_of(array: Any, argument: str) -> Framework:
    """The framework of an array; TypeError names `argument` if it is no array of a known package."""
    found = _by_type.get(type(array))
    return found if found is not None else _find(array, argument)


def _find(array: Any, argument: str) -> Framework:
    for base in type(array).__mro__:
        package = base.__module__.partition(".")[0]
        if package in _PACKAGES and hasattr(array, "__dlpack__"):
            found = framework_named("jax" if package == "jaxlib" else package)
            _by_type[type(array)] = found
            return found
    raise TypeError(
        f"{argument} is a {type(array).__module__}.{type(array).__qualname__}; "
        "expected an array of PyTorch, NumPy, CuPy or JAX"
    )


def prepare_torch() -> None:
    """Makes PyTorch known, if it is loaded, before a first call that a compiler traces: tracing cannot import."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "Tensor"):
        for kind in (torch.Tensor, torch.nn.Parameter):
            _by_type[kind] = framework_named("torch")
