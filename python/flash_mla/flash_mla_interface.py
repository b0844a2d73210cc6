"""FlashMLA's own Python interface, both generations of it, on this library.

Names, order of arguments, defaults, shapes, dtypes and returns are FlashMLA's, so that code written for it runs
unchanged. What is not built yet raises NotImplementedError that names the feature.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from ._decode import check_arrays, run_decode, run_num_splits, run_schedule
from ._frameworks import Maker, framework_of
from ._plan import (
    BOUNDED_PARTS,
    DEFAULT_SCALE,
    LATENT_DIM,
    MAX_PLANS,
    RECORD_INTS,
    Plan,
    PlanConfig,
    _plans,
    check_rank,
    plan_for,
    remember,
)

# The library's names of arguments and this interface's.
_RENAMED = (
    ("kv_cache", "k_cache"),
    ("schedule_memory", "tile_scheduler_metadata"),
    ("schedule ", "tile_scheduler_metadata "),
    ("call schedule()", "call get_mla_metadata()"),
)


class FlashMLASchedMeta:
    """How the work of a step is cut up. Made by `get_mla_metadata()`, filled by the first decode that gets it.

    It serves all decodes of equal shapes and lengths, usually the layers of one step.

    Attributes:
        have_initialized: whether a decode has filled it.
        tile_scheduler_metadata: int32 [num_sm_parts, 8], once filled.
        num_splits: int32 [b + 1], once filled.
    """

    def __init__(self) -> None:
        self.have_initialized = False
        self.config: Optional[PlanConfig] = None
        self.tile_scheduler_metadata: Any = None
        self.num_splits: Any = None
        self._plan: Optional[Plan] = None


def get_mla_metadata(
    cache_seqlens: Any = None,
    num_q_tokens_per_head_k: Any = None,
    num_heads_k: Optional[int] = None,
    num_heads_q: Optional[int] = None,
    is_fp8_kvcache: bool = False,
    topk: Optional[int] = None,
    *,
    num_heads_per_head_k: Any = None,
) -> tuple[Any, Any]:
    """Metadata that the layers of one step share. Without arguments: an object that the first decode fills.

    Args:
        cache_seqlens: int32 [b], tokens in the cache of each request.
        num_q_tokens_per_head_k (also called num_heads_per_head_k): s_q * h_q / h_kv.
        num_heads_k: h_kv.
        num_heads_q, is_fp8_kvcache, topk: for sparse and FP8 caches, which are not built yet.

    Returns:
        (tile_scheduler_metadata, num_splits): int32 [num_sm_parts, 8], whose shape depends on the device and the head
        arguments alone (on a GPU num_sm_parts is at most its number of multiprocessors), and int32 [b + 1], from 0,
        never falling. Both may be copied to static buffers; a tail of num_splits that repeats its last value stands for
        padding. Without arguments: (FlashMLASchedMeta(), None).

    Raises:
        ValueError, TypeError: an argument is wrong.
        NotImplementedError: FP8 caches, sparse attention.
    """
    _refuse_unbuilt(is_fp8_kvcache=is_fp8_kvcache, topk=topk)
    if num_heads_per_head_k is not None:
        if num_q_tokens_per_head_k is not None:
            raise TypeError("num_heads_per_head_k and num_q_tokens_per_head_k are two names of one argument")
        num_q_tokens_per_head_k = num_heads_per_head_k
    if cache_seqlens is None and num_q_tokens_per_head_k is None and num_heads_k is None:
        return FlashMLASchedMeta(), None
    if num_q_tokens_per_head_k is None or num_heads_k is None:
        raise TypeError(
            "get_mla_metadata takes no arguments, or cache_seqlens, num_q_tokens_per_head_k and num_heads_k"
        )
    framework = framework_of(cache_seqlens, "cache_seqlens")
    if framework.compiling():
        return framework.compiled.get_mla_metadata(  # type: ignore[attr-defined]
            cache_seqlens, num_q_tokens_per_head_k, num_heads_k
        )
    stream = framework.stream(None)
    plan = _plan_of_rows(framework, cache_seqlens, num_q_tokens_per_head_k, num_heads_k)
    rows = run_schedule(framework, plan, cache_seqlens, None, 1, None, stream)
    return rows, run_num_splits(framework, plan, rows, cache_seqlens.shape[0], stream)


def _plan_of_rows(framework: Any, cache_seqlens: Any, rows_per_head_k: int, num_heads_k: int) -> Plan:
    """A plan known only by its rows: one query token of as many heads. No mask, which also covers a causal decode."""
    key = (cache_seqlens.shape, framework.device_of(cache_seqlens), rows_per_head_k, num_heads_k)
    found = _plans.get(key)
    if found is not None:
        return found
    check_rank("cache_seqlens", cache_seqlens, 1, "[b]")
    for name, value in (("num_q_tokens_per_head_k", rows_per_head_k), ("num_heads_k", num_heads_k)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected an integer of at least 1")
    return remember(
        key,
        PlanConfig(
            device=framework.dlpack_device(framework.device_of(cache_seqlens)),
            dtype="bfloat16",
            max_batch=cache_seqlens.shape[0],
            max_total_q=0,
            max_seqlen_q=1,
            num_heads_q=rows_per_head_k * num_heads_k,
            num_heads_kv=num_heads_k,
            page_size=64,
            causal=False,
            num_parts=BOUNDED_PARTS,
        ),
    )


def flash_mla_with_kvcache(
    q: Any,
    k_cache: Any,
    block_table: Any,
    cache_seqlens: Any,
    head_dim_v: int,
    tile_scheduler_metadata: Any,
    num_splits: Any = None,
    softmax_scale: Optional[float] = None,
    causal: bool = False,
    is_fp8_kvcache: bool = False,
    indices: Any = None,
    attn_sink: Any = None,
    extra_k_cache: Any = None,
    extra_indices_in_kvcache: Any = None,
    topk_length: Any = None,
    extra_topk_length: Any = None,
) -> tuple[Any, Any]:
    """Decodes one layer over a paged latent cache.

    Args:
        q: [b, s_q, h_q, 576], bf16 or f16, on the CPU also f32.
        k_cache: [num_blocks, page_block_size, h_kv, 576] of q's dtype; pages of 16, 32, 64 or a multiple of 64 tokens.
        block_table: int32 [b, max_num_blocks_per_seq]; entries past a request's last page are never read.
        cache_seqlens: int32 [b].
        head_dim_v: 512.
        tile_scheduler_metadata: from get_mla_metadata, for these lengths and for s_q * h_q / h_kv.
        num_splits: what get_mla_metadata returned beside it; not read.
        softmax_scale: 1 / sqrt(576) if not given.
        causal: bottom-right aligned mask: query token j of s_q sees tokens t <= length - s_q + j.
        is_fp8_kvcache, indices, attn_sink, extra_k_cache, extra_indices_in_kvcache, topk_length, extra_topk_length:
            FP8 caches and sparse attention, not built yet.

    Returns:
        (out, softmax_lse): [b, s_q, h_q, 512] of q's dtype and float32 [b, h_q, s_q], natural logarithm. A row that
        sees no token gets out = 0 and lse = +inf.

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it and its value.
        NotImplementedError: FP8 caches, sparse attention.
    """
    framework = framework_of(q, "q")
    if (
        is_fp8_kvcache or indices is not None or attn_sink is not None or extra_k_cache is not None
        or extra_indices_in_kvcache is not None or topk_length is not None or extra_topk_length is not None
    ):  # fmt: skip
        _refuse_unbuilt(
            is_fp8_kvcache=is_fp8_kvcache, indices=indices, attn_sink=attn_sink, extra_k_cache=extra_k_cache,
            extra_indices_in_kvcache=extra_indices_in_kvcache, topk_length=topk_length,
            extra_topk_length=extra_topk_length,
        )  # fmt: skip
    if head_dim_v != LATENT_DIM:
        raise ValueError(f"head_dim_v is {head_dim_v}; expected {LATENT_DIM}")
    scale = DEFAULT_SCALE if softmax_scale is None else softmax_scale
    if framework.compiling():
        return framework.compiled.flash_mla_with_kvcache(  # type: ignore[attr-defined]
            q, k_cache, block_table, cache_seqlens, tile_scheduler_metadata, scale, causal
        )
    causal = bool(causal)
    metadata = tile_scheduler_metadata
    decode_directly = framework.decode_directly
    if decode_directly is not None:  # microseconds count from here
        call = _recent.get((q.shape, framework.device_index(q), causal))
        if call is not None and (type(metadata) is not FlashMLASchedMeta or metadata._plan is call.plan):
            plan, make_out, make_lse = call
            schedule = metadata.tile_scheduler_metadata if type(metadata) is FlashMLASchedMeta else metadata
            out, lse = make_out(), make_lse()
            # It refuses what does not fit the plan, so nothing else needs to be compared.
            if decode_directly(
                plan.address, q, None, k_cache, None, block_table, cache_seqlens, None, out, lse, scale, schedule,
                framework.keep_scratch,
            ):  # fmt: skip
                return out, lse
    try:
        return _decode(framework, q, k_cache, block_table, cache_seqlens, metadata, scale, causal)
    except ValueError as error:
        raise _in_this_interfaces_words(error) from None


class _Call(NamedTuple):
    """What calls of the same shapes share."""

    plan: Plan
    make_out: Maker
    make_lse: Maker


_calls: dict[Any, _Call] = {}
_recent: dict[Any, _Call] = {}  # by q's shape, device and mask alone, of frameworks that decode directly


def _decode(
    framework: Any,
    q: Any,
    k_cache: Any,
    block_table: Any,
    cache_seqlens: Any,
    metadata: Any,
    scale: float,
    causal: bool,
) -> tuple[Any, Any]:
    """A call that no recent one resembles, or that is wrong."""
    schedule, call = _find_call(framework, q, k_cache, cache_seqlens, metadata, causal)
    out, lse = call.make_out(), call.make_lse()
    run_decode(
        framework, call.plan, q, None, k_cache, None, block_table, cache_seqlens, None, out, lse, scale, schedule,
        framework.stream(None),
    )  # fmt: skip
    if framework.decode_directly is not None:
        quick = framework.quick_maker
        recent = _Call(call.plan, quick(call.make_out), quick(call.make_lse))
        _keep(_recent, (q.shape, framework.device_index(q), causal), recent)
    return out, lse


def _find_call(
    framework: Any, q: Any, k_cache: Any, cache_seqlens: Any, metadata: Any, causal: bool
) -> tuple[Any, _Call]:
    """The schedule and the rest of a call, which is kept."""
    is_object = type(metadata) is FlashMLASchedMeta
    schedule = metadata.tile_scheduler_metadata if is_object else metadata
    if schedule is not None:
        try:
            key = (q.shape, k_cache.shape, schedule.shape, q.dtype, framework.device_of(q), causal)
        except AttributeError:
            check_arrays(("k_cache", "tile_scheduler_metadata"), (k_cache, schedule))
            raise
        call = _calls.get(key)
        if call is not None and (not is_object or metadata._plan is call.plan):
            return schedule, call
    schedule, call = _prepare(framework, q, k_cache, cache_seqlens, metadata, causal)
    _keep(_calls, (q.shape, k_cache.shape, schedule.shape, q.dtype, framework.device_of(q), causal), call)
    return schedule, call


def _keep(calls: dict[Any, _Call], key: Any, call: _Call) -> None:
    if len(calls) >= MAX_PLANS:
        calls.clear()
    calls[key] = call


def _prepare(
    framework: Any, q: Any, k_cache: Any, cache_seqlens: Any, metadata: Any, causal: bool
) -> tuple[Any, _Call]:
    """The schedule and the rest of a call of shapes that are new, or with a metadata object that is to be filled."""
    if isinstance(metadata, FlashMLASchedMeta) and metadata.have_initialized and metadata.config is None:
        metadata = metadata.tile_scheduler_metadata  # filled by compiled code
    if isinstance(metadata, FlashMLASchedMeta):
        plan = plan_for(framework, q, k_cache, causal, False, q.shape[0], 0, BOUNDED_PARTS)
        schedule = _fill(framework, metadata, plan, q.shape[1], cache_seqlens, framework.stream(None))
    else:
        plan = _plan_of_metadata(framework, q, k_cache, causal, metadata)
        schedule = metadata
    b, s_q, h_q, _ = q.shape
    make_out = framework.maker(q, (b, s_q, h_q, LATENT_DIM))
    return schedule, _Call(plan, make_out, framework.maker(q, (b, h_q, s_q), framework.float32))


def _fill(
    framework: Any, metadata: FlashMLASchedMeta, plan: Plan, seqlen_q: int, cache_seqlens: Any, stream: int
) -> Any:
    """The schedule of a metadata object: made by its first decode, checked by the others."""
    if metadata.have_initialized:
        if metadata._plan is not plan and metadata.config != plan.config:
            raise ValueError(
                f"tile_scheduler_metadata was filled by a decode of other shapes: {metadata.config}; got {plan.config}"
            )
        return metadata.tile_scheduler_metadata
    rows = run_schedule(framework, plan, cache_seqlens, None, seqlen_q, None, stream)
    metadata.num_splits = run_num_splits(framework, plan, rows, cache_seqlens.shape[0], stream)
    metadata.tile_scheduler_metadata, metadata._plan, metadata.config = rows, plan, plan.config
    metadata.have_initialized = True
    return rows


def _plan_of_metadata(framework: Any, q: Any, k_cache: Any, causal: bool, metadata: Any) -> Plan:
    """The plan for these shapes with as many parts as the metadata has: on CUDA the only number that fits."""
    framework_of(metadata, "tile_scheduler_metadata")
    shape = metadata.shape
    if len(shape) != 2 or shape[1] != RECORD_INTS or shape[0] < 3:
        raise ValueError(
            f"tile_scheduler_metadata has shape {tuple(shape)}; expected [num_sm_parts, {RECORD_INTS}] as "
            "get_mla_metadata makes it"
        )
    plan = plan_for(framework, q, k_cache, causal, False, q.shape[0], 0, BOUNDED_PARTS)
    if plan.schedule_shape[0] == shape[0]:
        return plan
    if plan.on_cuda:
        raise ValueError(
            f"tile_scheduler_metadata.shape[0] is {shape[0]}; expected {plan.schedule_shape[0]}: it was made for "
            "another s_q * h_q / h_kv or another device"
        )
    return plan_for(framework, q, k_cache, causal, False, q.shape[0], 0, shape[0] - 2)  # threads have changed


def _in_this_interfaces_words(error: ValueError) -> ValueError:
    text = str(error)
    for theirs, ours in _RENAMED:
        text = text.replace(theirs, ours)
    return ValueError(text)


_FEATURES = {
    "is_fp8_kvcache": "FP8 caches",
    "topk": "sparse attention",
    "indices": "sparse attention",
    "attn_sink": "attention sinks",
    "extra_k_cache": "a second cache",
    "extra_indices_in_kvcache": "a second cache",
    "topk_length": "sparse attention",
    "extra_topk_length": "a second cache",
}


def _refuse_unbuilt(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise NotImplementedError(f"{name} is given; flash_mla has no {_FEATURES[name]} yet")


def _not_built(name: str, what: str) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{name}: flash_mla has no {what} yet")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Not built yet ({what}); raises NotImplementedError."
    return function


flash_mla_sparse_fwd = _not_built("flash_mla_sparse_fwd", "sparse prefill")
flash_attn_varlen_func = _not_built("flash_attn_varlen_func", "dense prefill")
flash_attn_varlen_qkvpacked_func = _not_built("flash_attn_varlen_qkvpacked_func", "dense prefill")
flash_attn_varlen_kvpacked_func = _not_built("flash_attn_varlen_kvpacked_func", "dense prefill")
