"""decode() for a framework with DLPack's exchange API in C, made a built-in function: a call through tvm-ffi costs more
microseconds than it is worth. See python/src/direct_decode.cpp, whose struct Interpreter is filled here.
"""

from __future__ import annotations

import atexit
import ctypes
import sys
from typing import Any, Callable, Optional

from ._library import library

_EXCHANGE_API = "__dlpack_c_exchange_api__"
_FUNCTIONS = (
    "PyObject_Type", "Py_IncRef", "Py_DecRef", "PyLong_AsVoidPtr", "PyFloat_AsDouble", "PyErr_Clear",
    "PyEval_SaveThread", "PyEval_RestoreThread",
)  # fmt: skip


def make_direct_decode(tensor: type, parameter: type) -> Optional[Callable[..., bool]]:
    """decode(plan.address, q, q_rope, cache, rope_cache, block_table, cache_seqlens, cu_seqlens_q, out, lse,
    softmax_scale, schedule, keep_scratch): whether it has run; if not, the ordinary way says why.

    None where Python or the framework lacks what this takes.
    """
    if sys.implementation.name != "cpython" or not hasattr(tensor, _EXCHANGE_API):
        return None
    python = ctypes.pythonapi
    capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", python)
    )
    framework = getattr(tensor, _EXCHANGE_API)
    if not isinstance(framework, int):
        framework = capsule_pointer(framework, b"dlpack_exchange_api")
    functions = (ctypes.cast(getattr(python, name), ctypes.c_void_p).value for name in _FUNCTIONS)
    # An object's id is its address; these live as long as the interpreter.
    definition = library.prepare_direct_decode(
        (framework, id(tensor), id(parameter), id(None), id(False), id(True), *functions)
    )
    if definition == 0:
        return None
    atexit.register(library.leave_scratch_behind)
    new_function = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        ("PyCFunction_NewEx", python)
    )
    decode: Any = new_function(definition, None, None)
    return decode
