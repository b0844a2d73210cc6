"""PyTorch tensors, on the CPU and on CUDA devices, on the current stream. The one file that imports torch.

An eager call goes straight to the library. While torch.compile or torch.export traces a call, it becomes one of the
operators torch.ops.flash_mla.*, whose fake kernels say what shapes come out; when the compiled code runs, an operator
makes the same eager call. Operators are for compilers; people call the functions of the package.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ._direct import make_direct_decode
from ._frameworks import CURRENT_STREAM, DLPACK_CPU, DLPACK_CUDA, Framework, Maker
from ._plan import DEFAULT_SCALE, LATENT_DIM, Plan, PlanConfig, bounded_plan

# What code that torch.compile has made allocates with, at a third of the time of torch.empty; on the current device.
_empty_strided: dict[str, Optional[Callable[..., Tensor]]] = {
    kind: getattr(getattr(torch._C._dynamo, "guards", None), "_empty_strided_" + kind, None) for kind in ("cpu", "cuda")
}


class TorchFramework(Framework):
    name = "torch"
    direct = True
    int32, float32 = torch.int32, torch.float32
    # Since 2.10, or with torch-c-dlpack-ext, the library asks PyTorch's allocator itself.
    lends_memory = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")

    @property
    def compiled(self) -> type[Compiled]:
        """What to call instead while `compiling()`."""
        return Compiled

    compiling = staticmethod(torch.compiler.is_compiling)
    decode_directly = make_direct_decode(Tensor, torch.nn.Parameter)
    device_index = staticmethod(Tensor.get_device)
    operators_running = 0

    def enter_operator(self, entered: int) -> None:
        """A compiler's graphs keep account of their memory, so an operator keeps none."""
        self.operators_running += entered
        self.keep_scratch = self.operators_running == 0

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Any, stream: Optional[int] = None) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    def maker(self, like: Tensor, shape: tuple[int, ...], dtype: Optional[torch.dtype] = None) -> Maker:
        made = like.new_empty(shape, dtype=dtype)
        made.untyped_storage().resize_(0)  # it holds no memory, which may be a CUDA graph's
        return functools.partial(torch.empty_like, made)  # half the time of torch.empty

    def quick_maker(self, maker: Maker) -> Maker:
        like = maker.args[0]  # type: ignore[attr-defined]
        device = like.device
        make = _empty_strided.get(device.type)
        if make is None or (device.type == "cuda" and device.index != torch.cuda.current_device()):
            return maker
        return functools.partial(make, tuple(like.shape), like.stride(), like.dtype)

    def device_named(self, kind: int, index: int) -> torch.device:
        return torch.device("cpu") if kind == DLPACK_CPU else torch.device("cuda", index)

    def device_of(self, array: torch.Tensor) -> torch.device:
        return array.device

    def dlpack_device(self, device: Any) -> tuple[int, int]:
        device = torch.device(device)
        if device.type == "cpu":
            return (DLPACK_CPU, 0)
        if device.type != "cuda":
            raise TypeError(f"device is {device}; expected cpu or cuda")
        return (DLPACK_CUDA, torch.cuda.current_device() if device.index is None else device.index)

    def stream(self, stream: Optional[int]) -> int:
        if stream is not None:
            raise ValueError("stream is given; PyTorch tensors use the current stream, see torch.cuda.stream")
        return CURRENT_STREAM

    def wrap(self, tensor: Any) -> torch.Tensor:
        return torch.from_dlpack(tensor)

    def scratch(self, plan: Any, device: torch.device, stream: int) -> Optional[Tensor]:
        if not plan.on_cuda or self.lends_memory:
            return None
        return torch.empty(plan.scratch_bytes, dtype=torch.uint8, device=device)

    def stack(self, arrays: list[Any]) -> torch.Tensor:
        return torch.stack(arrays)

    def contiguous(self, array: torch.Tensor) -> torch.Tensor:
        return array.contiguous()

    def host_empty(self, shape: tuple[int, ...], dtype: Any) -> torch.Tensor:
        return torch.empty(shape, dtype=getattr(torch, dtype))

    def to_device(self, array: torch.Tensor, device: Any, stream: int) -> torch.Tensor:
        return array.to(device)


# ---- What a traced call becomes ----------------------------------------------------------------------------------


class Compiled:
    """The package's functions as a compiler traces them: arguments taken apart until operators can carry them."""

    @staticmethod
    def get_mla_metadata(cache_seqlens: Tensor, rows_per_head_k: int, num_heads_k: int) -> tuple[Tensor, Tensor]:
        return torch.ops.flash_mla.get_mla_metadata(cache_seqlens, rows_per_head_k, num_heads_k)

    @staticmethod
    def flash_mla_with_kvcache(
        q: Tensor,
        k_cache: Tensor,
        block_table: Tensor,
        cache_seqlens: Tensor,
        metadata: Any,
        softmax_scale: float,
        causal: bool,
    ) -> tuple[Tensor, Tensor]:
        if not isinstance(metadata, Tensor):  # a FlashMLASchedMeta; the first decode fills it
            if not metadata.have_initialized:
                num_heads_k = k_cache.shape[2]
                metadata.tile_scheduler_metadata, metadata.num_splits = torch.ops.flash_mla.get_mla_metadata(
                    cache_seqlens, q.shape[1] * q.shape[2] // num_heads_k, num_heads_k
                )
                metadata.have_initialized = True
            metadata = metadata.tile_scheduler_metadata
        return torch.ops.flash_mla.flash_mla_with_kvcache(
            q, k_cache, block_table, cache_seqlens, metadata, softmax_scale, causal
        )

    @staticmethod
    def schedule(plan: Plan, cache_seqlens: Tensor, cu_seqlens_q: Optional[Tensor], seqlen_q: int, out: Any) -> Tensor:
        if out is None:
            out = torch.empty(plan.schedule_shape, dtype=torch.int32, device=cache_seqlens.device)
        torch.ops.flash_mla.schedule(bounds_of(plan), cache_seqlens, cu_seqlens_q, seqlen_q, out)
        return out

    @staticmethod
    def decode(
        q: Tensor,
        q_rope: Optional[Tensor],
        cache: Tensor,
        rope_cache: Optional[Tensor],
        block_table: Tensor,
        cache_seqlens: Tensor,
        softmax_scale: Optional[float],
        causal: bool,
        cu_seqlens_q: Optional[Tensor],
        max_seqlen_q: Optional[int],
        plan: Optional[Plan],
        schedule: Optional[Tensor],
        out: Optional[Tensor],
        lse: Optional[Tensor],
    ) -> tuple[Tensor, Tensor]:
        if out is None:
            out = q.new_empty((*q.shape[:-1], LATENT_DIM))
        if lse is None:
            rows = (q.shape[1], q.shape[0]) if cu_seqlens_q is not None else (q.shape[0], q.shape[2], q.shape[1])
            lse = q.new_empty(rows, dtype=torch.float32)
        scale = DEFAULT_SCALE if softmax_scale is None else softmax_scale
        bounds = None if plan is None else bounds_of(plan)
        torch.ops.flash_mla.decode(
            q, q_rope, cache, rope_cache, block_table, cache_seqlens, scale, causal, cu_seqlens_q, max_seqlen_q, bounds,
            schedule, out, lse,
        )  # fmt: skip
        return out, lse

    @staticmethod
    def merge(partials: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return torch.ops.flash_mla.merge([out for out, _ in partials], [lse for _, lse in partials])

    @staticmethod
    def append_kv(c_kv: Tensor, k_pe: Tensor, cache: Tensor, rope_cache: Optional[Tensor], slots: Tensor) -> None:
        torch.ops.flash_mla.append_kv(c_kv, k_pe, cache, rope_cache, slots)

    @staticmethod
    def copy_pages(cache: Tensor, page_pairs: Tensor) -> None:
        torch.ops.flash_mla.copy_pages(cache, page_pairs)


_DTYPES = ("float32", "bfloat16", "float16")


def bounds_of(plan: Plan) -> list[int]:
    """A plan as integers, which operators can carry."""
    config = plan.config
    (kind, index), dtype = config.device, config.dtype
    return [
        kind, index, _DTYPES.index(dtype), config.max_batch, config.max_total_q, config.max_seqlen_q,
        config.num_heads_q, config.num_heads_kv, config.page_size, int(config.causal), config.num_parts,
    ]  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _plan_of(bounds: tuple[int, ...]) -> Plan:
    kind, index, dtype, *rest, causal, num_parts = bounds
    return Plan(PlanConfig((kind, index), _DTYPES[dtype], *rest, bool(causal), num_parts))


# ---- Operators ---------------------------------------------------------------------------------------------------


def _operator(
    schema: str, fake: Callable[..., Any], mutates: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Any]:
    """Registers a function as torch.ops.flash_mla.<its name>. PyTorch before 2.4 has no such operators."""

    def register(function: Callable[..., Any]) -> Any:
        if not hasattr(torch.library, "custom_op"):
            return function

        def run(*arguments: Any) -> Any:
            _framework.enter_operator(1)
            try:
                return function(*arguments)
            finally:
                _framework.enter_operator(-1)

        name = "flash_mla::" + function.__name__
        operator = torch.library.custom_op(name, run, mutates_args=mutates, schema=schema)
        operator.register_fake(fake)
        return operator

    return register


@functools.lru_cache(maxsize=256)
def _metadata_rows(device: torch.device, rows_per_head_k: int, num_heads_k: int) -> int:
    config = PlanConfig(
        _framework.dlpack_device(device), "bfloat16", 1, 0, 1, rows_per_head_k * num_heads_k, num_heads_k, 64, False, 0
    )
    return bounded_plan(config).schedule_shape[0]


def _fake_metadata(cache_seqlens: Tensor, rows_per_head_k: int, num_heads_k: int) -> tuple[Tensor, Tensor]:
    rows = _metadata_rows(cache_seqlens.device, int(rows_per_head_k), int(num_heads_k))
    return cache_seqlens.new_empty((rows, 8)), cache_seqlens.new_empty((cache_seqlens.shape[0] + 1,))


@_operator(
    "(Tensor cache_seqlens, SymInt num_q_tokens_per_head_k, SymInt num_heads_k) -> (Tensor, Tensor)", _fake_metadata
)
def get_mla_metadata(cache_seqlens: Tensor, rows_per_head_k: int, num_heads_k: int) -> tuple[Tensor, Tensor]:
    return _interface().get_mla_metadata(cache_seqlens, rows_per_head_k, num_heads_k)


def _fake_drop_in(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    b, s_q, h_q, _width = q.shape
    return q.new_empty((b, s_q, h_q, LATENT_DIM)), q.new_empty((b, h_q, s_q), dtype=torch.float32)


@_operator(
    "(Tensor q, Tensor k_cache, Tensor block_table, Tensor cache_seqlens, Tensor tile_scheduler_metadata, "
    "float softmax_scale, bool causal) -> (Tensor, Tensor)",
    _fake_drop_in,
)
def flash_mla_with_kvcache(
    q: Tensor, cache: Tensor, block_table: Tensor, seqlens: Tensor, metadata: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    return _interface().flash_mla_with_kvcache(
        q, cache, block_table, seqlens, LATENT_DIM, metadata, None, scale, causal
    )


def _fake_nothing(*_: Any) -> None:
    return None


@_operator(
    "(SymInt[] plan, Tensor cache_seqlens, Tensor? cu_seqlens_q, SymInt seqlen_q, Tensor(a!) out) -> ()",
    _fake_nothing,
    mutates=("out",),
)
def schedule(
    bounds: Sequence[int], cache_seqlens: Tensor, cu_seqlens_q: Optional[Tensor], seqlen_q: int, out: Tensor
) -> None:
    _native().schedule(_plan_of(tuple(bounds)), cache_seqlens, cu_seqlens_q=cu_seqlens_q, seqlen_q=seqlen_q, out=out)


@_operator(
    "(Tensor q, Tensor? q_rope, Tensor cache, Tensor? rope_cache, Tensor block_table, Tensor cache_seqlens, "
    "float softmax_scale, bool causal, Tensor? cu_seqlens_q, SymInt? max_seqlen_q, SymInt[]? plan, Tensor? schedule, "
    "Tensor(a!) out, Tensor(b!) lse) -> ()",
    _fake_nothing,
    mutates=("out", "lse"),
)
def decode(
    q: Tensor,
    q_rope: Optional[Tensor],
    cache: Tensor,
    rope_cache: Optional[Tensor],
    block_table: Tensor,
    cache_seqlens: Tensor,
    softmax_scale: float,
    causal: bool,
    cu_seqlens_q: Optional[Tensor],
    max_seqlen_q: Optional[int],
    bounds: Optional[Sequence[int]],
    made_schedule: Optional[Tensor],
    out: Tensor,
    lse: Tensor,
) -> None:
    _native().decode(
        q if q_rope is None else (q, q_rope), cache if rope_cache is None else (cache, rope_cache), block_table,
        cache_seqlens, softmax_scale=softmax_scale, causal=causal, cu_seqlens_q=cu_seqlens_q, max_seqlen_q=max_seqlen_q,
        plan=None if bounds is None else _plan_of(tuple(bounds)), schedule=made_schedule, out=out, lse=lse,
    )  # fmt: skip


def _fake_merge(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.empty_like(outs[0]), torch.empty_like(lses[0])


@_operator("(Tensor[] outs, Tensor[] lses) -> (Tensor, Tensor)", _fake_merge)
def merge(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    out, lse = _native().merge(list(zip(outs, lses)))
    return out, lse.contiguous()


@_operator(
    "(Tensor c_kv, Tensor k_pe, Tensor(a!) cache, Tensor(b!)? rope_cache, Tensor slot_mapping) -> ()",
    _fake_nothing,
    mutates=("cache", "rope_cache"),
)
def append_kv(c_kv: Tensor, k_pe: Tensor, cache: Tensor, rope_cache: Optional[Tensor], slots: Tensor) -> None:
    _native().append_kv(c_kv, k_pe, cache if rope_cache is None else (cache, rope_cache), slots)


@_operator("(Tensor(a!) cache, Tensor page_pairs) -> ()", _fake_nothing, mutates=("cache",))
def copy_pages(cache: Tensor, page_pairs: Tensor) -> None:
    _native().copy_pages(cache, page_pairs)


def _interface() -> Any:
    from . import flash_mla_interface

    return flash_mla_interface


def _native() -> Any:
    from . import _decode

    return _decode


_framework = TorchFramework()


def make(name: str) -> TorchFramework:
    return _framework
