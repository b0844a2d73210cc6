"""Plans: how steps of a given size are cut up on a device, and the dict of plans that calls without one make."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from ._frameworks import DLPACK_CUDA, Framework
from ._library import library

LATENT_DIM = 512  # width of an output row
ROPE_DIM = 64
HEAD_DIM = LATENT_DIM + ROPE_DIM  # width of a query row and of a cached token
DEFAULT_SCALE = HEAD_DIM**-0.5
BOUNDED_PARTS = -1  # as num_parts: see bounded_plan
RECORD_INTS = 8  # a schedule is int32 [num_parts + 2, 8]: a header, a record per part, the end

# uint16: the bits of bf16, for frameworks without it
_DTYPES = {"float32": 0, "f32": 0, "bfloat16": 1, "bf16": 1, "uint16": 1, "float16": 2, "f16": 2}
_NAMES = ("float32", "bfloat16", "float16")


def dtype_name(dtype: Any, argument: str = "dtype") -> str:
    """ "float32", "bfloat16" or "float16" from any framework's dtype or a string; TypeError for others."""
    name = getattr(dtype, "__name__", None) or str(dtype).rpartition(".")[2]
    if name not in _DTYPES:
        raise TypeError(f"{argument} is {name}; expected bfloat16, float16 or, on the CPU, float32")
    return _NAMES[_DTYPES[name]]


class PlanConfig(NamedTuple):
    """Upper bounds and constants of a problem; lengths are no part of it."""

    device: tuple[int, int]  # DLPack's type (1: CPU, 2: CUDA) and index
    dtype: str
    max_batch: int
    max_total_q: int
    max_seqlen_q: int
    num_heads_q: int
    num_heads_kv: int
    page_size: int
    causal: bool
    num_parts: int  # 0: the library's choice


class Plan:
    """A plan serves every step within its bounds and every replay of a CUDA graph. Made by `plan()`.

    Attributes:
        config: the bounds it was made from.
        num_parts: parts that a step is cut into: CPU threads, or (groups of) thread blocks.
        rows_per_unit: packed (query token, head) rows of one kv head that a part takes at a time.
        schedule_bytes, scratch_bytes: sizes of the two memories of a decode.
        schedule_shape: shape of a schedule, an int32 array: (num_parts + 2, 8).
    """

    def __init__(self, config: PlanConfig) -> None:
        (device_type, device_index), dtype, *bounds = config
        self.config = config
        self.handle = library.plan(device_type, device_index, _DTYPES[dtype], *bounds)
        self.num_parts, self.rows_per_unit, self.schedule_bytes, self.scratch_bytes = map(
            int, library.describe_plan(self.handle)
        )
        self.address = library.address_of_plan(self.handle)
        self.on_cuda = device_type == DLPACK_CUDA
        self.schedule_shape = (self.schedule_bytes // (4 * RECORD_INTS), RECORD_INTS)

    def __repr__(self) -> str:
        return f"Plan({self.config}, num_parts={self.num_parts}, rows_per_unit={self.rows_per_unit})"


def parse_device(device: Any) -> tuple[int, int]:
    """DLPack's (type, index) of "cpu", "cuda", "cuda:1", a torch.device or anything that says `__dlpack_device__`."""
    if hasattr(device, "__dlpack_device__"):
        kind, index = device.__dlpack_device__()
        return (int(kind), int(index))
    kind, _, index = str(device).partition(":")
    if kind == "cpu":
        return (1, 0)
    if kind == "cuda" and (not index or index.isdigit()):
        return (DLPACK_CUDA, int(index or 0))
    raise ValueError(f"device is {device!r}; expected 'cpu', 'cuda' or 'cuda:N'")


def plan(
    *,
    max_batch: int,
    num_heads_q: int,
    num_heads_kv: int = 1,
    dtype: Any = "bfloat16",
    device: Any = "cpu",
    max_seqlen_q: int = 1,
    max_total_q: int = 0,
    page_size: int = 64,
    causal: bool = True,
    num_parts: int = 0,
) -> Plan:
    """Decides, from upper bounds and the device alone, how decoding is cut up. Cheap; a plan holds no tensor.

    Args:
        max_batch: requests in a step, at most.
        num_heads_q: query heads; a multiple of num_heads_kv.
        num_heads_kv: heads of the cache, 1 for MLA.
        dtype: of q, cache and out: bfloat16, float16 or, on the CPU, float32; of any framework, or its name.
        device: "cpu", "cuda", "cuda:1", a torch.device or an array that lies there.
        max_seqlen_q: query tokens of one request, at most (s_q of a uniform batch).
        max_total_q: query tokens of a step summed over its requests, at most; 0: max_batch * max_seqlen_q.
        page_size: tokens a page: 16, 32, 64 or a multiple of 64.
        causal: bottom-right aligned mask: query token j of s_q sees tokens t <= length - s_q + j.
        num_parts: workers that share a step; 0: one per CPU thread, or what fills the GPU.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it and its value.
        RuntimeError: the device cannot be used; the message says why.
    """
    return Plan(
        PlanConfig(
            parse_device(device),
            dtype_name(dtype),
            max_batch,
            max_total_q,
            max_seqlen_q,
            num_heads_q,
            num_heads_kv,
            page_size,
            bool(causal),
            num_parts,
        )  # fmt: skip
    )


def backends() -> list[dict[str, Any]]:
    """What was built in: name, available here, reason (how it runs, or why it cannot) and device_count of each."""
    return [{str(name): _plain(value) for name, value in facts.items()} for facts in library.backends()]


def device_info(device: Any = "cpu") -> dict[str, Any]:
    """A device's name, instruction_set, workers (threads or multiprocessors), memory_bytes and l2_bytes.

    Raises:
        ValueError, RuntimeError: there is no such device, or it cannot be used.
    """
    return {str(name): _plain(value) for name, value in library.device_info(*parse_device(device)).items()}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


_plans: dict[Any, Plan] = {}
MAX_PLANS = 4096


@functools.lru_cache(maxsize=64)
def _workers(device: tuple[int, int]) -> int:
    return int(library.device_info(*device)["workers"])


def bounded_plan(config: PlanConfig) -> Plan:
    """A plan whose schedule has no more rows than the GPU has multiprocessors: what engines provide for metadata."""
    made = Plan(config)
    if not made.on_cuda or made.schedule_shape[0] <= _workers(config.device):
        return made
    return Plan(config._replace(num_parts=_workers(config.device) - (made.schedule_shape[0] - made.num_parts)))


def remember(key: Any, config: PlanConfig) -> Plan:
    """Makes a plan and keeps it under a key; with BOUNDED_PARTS a bounded one."""
    bounded = config.num_parts == BOUNDED_PARTS
    made = bounded_plan(config._replace(num_parts=0)) if bounded else Plan(config)
    if len(_plans) >= MAX_PLANS:
        _plans.clear()
    _plans[key] = made
    return made


def plan_for(
    framework: Framework, q: Any, cache: Any, causal: bool, ragged: bool, batch: int, max_seqlen_q: int, num_parts: int
) -> Plan:
    """The plan that fits the shapes of one call: kept from call to call."""
    key = (q.shape, cache.shape, q.dtype, framework.device_of(q), causal, ragged, batch, max_seqlen_q, num_parts)
    found = _plans.get(key)
    if found is not None:
        return found
    check_rank("q", q, 3 if ragged else 4, "[total_q, h_q, 576]" if ragged else "[b, s_q, h_q, 576]")
    check_rank("kv_cache", cache, 4, "[num_pages, page_size, h_kv, 576]")
    return remember(
        key,
        PlanConfig(
            device=framework.dlpack_device(framework.device_of(q)),
            dtype=dtype_name(q.dtype, "q.dtype"),
            max_batch=batch,
            max_total_q=q.shape[0] if ragged else 0,
            max_seqlen_q=max(max_seqlen_q if ragged else q.shape[1], 1),
            num_heads_q=q.shape[-2],
            num_heads_kv=cache.shape[2],
            page_size=cache.shape[1],
            causal=causal,
            num_parts=num_parts,
        ),
    )


def check_rank(name: str, array: Any, rank: int, shape: str) -> None:
    if len(array.shape) != rank:
        raise ValueError(f"{name} has {len(array.shape)} dimensions; expected {shape}")
