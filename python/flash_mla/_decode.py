"""The native API on arrays: schedule, decode, merge, and writing to a cache that the caller owns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional, Union

from ._frameworks import Framework, framework_of
from ._library import library
from ._plan import DEFAULT_SCALE, LATENT_DIM, Plan, plan_for

Parts = Union[Any, tuple[Any, Any]]  # one array of 576 columns, or (512 columns, 64 columns)


def run_schedule(
    framework: Framework, plan: Plan, cache_seqlens: Any, cu_seqlens_q: Any, seqlen_q: int, out: Any, stream: int
) -> Any:
    """Enqueues schedule; returns `out`, which is made if it is None."""
    if out is None:
        out = framework.empty(plan.schedule_shape, framework.int32, framework.device_of(cache_seqlens), stream)
    arrays = (cache_seqlens, cu_seqlens_q, out)
    try:
        lengths, cu, memory = arrays if framework.direct else export_all(framework, arrays, stream)
        library.schedule(plan.handle, lengths, cu, seqlen_q, memory, stream)
    except (AttributeError, TypeError):
        check_arrays(("cache_seqlens", "cu_seqlens_q", "out"), arrays)
        raise
    return out


def run_decode(
    framework: Framework,
    plan: Plan,
    q: Any,
    q_rope: Any,
    cache: Any,
    rope_cache: Any,
    block_table: Any,
    cache_seqlens: Any,
    cu_seqlens_q: Any,
    out: Any,
    lse: Any,
    softmax_scale: float,
    schedule: Any,
    stream: int,
) -> None:
    """Enqueues decode; every argument is there."""
    decode_directly = framework.decode_directly
    if decode_directly is not None and decode_directly(
        plan.address, q, q_rope, cache, rope_cache, block_table, cache_seqlens, cu_seqlens_q, out, lse, softmax_scale,
        schedule, framework.keep_scratch,
    ):  # fmt: skip
        return
    scratch = framework.scratch(plan, framework.device_of(q), stream)
    try:
        if framework.direct:
            library.decode(
                plan.handle, q, q_rope, cache, rope_cache, block_table, cache_seqlens, cu_seqlens_q, out, lse,
                softmax_scale, schedule, scratch, stream,
            )  # fmt: skip
            return
        arrays = (q, q_rope, cache, rope_cache, block_table, cache_seqlens, cu_seqlens_q, out, lse)
        arrays = export_all(framework, arrays, stream)
        library.decode(plan.handle, *arrays, softmax_scale, *export_all(framework, (schedule, scratch), stream), stream)
    except (AttributeError, TypeError):
        check_arrays(_DECODE_ARRAYS, (q, q_rope, cache, rope_cache, block_table, cache_seqlens, cu_seqlens_q, out, lse))
        raise


_DECODE_ARRAYS = ("q", "q_rope", "cache", "rope_cache", "block_table", "cache_seqlens", "cu_seqlens_q", "out", "lse")


def check_arrays(names: tuple[str, ...], arrays: tuple[Any, ...]) -> None:
    """TypeError for the first that is no array; for calls that have failed."""
    for name, array in zip(names, arrays):
        if array is not None:
            framework_of(array, name)


def export_all(framework: Framework, arrays: tuple[Any, ...], stream: int) -> tuple[Any, ...]:
    return tuple(None if array is None else framework.export(array, stream) for array in arrays)


def two_parts(name: str, value: Parts) -> tuple[Any, Any]:
    """(joint, None) or (latent, rope)."""
    if not isinstance(value, tuple):
        return value, None
    if len(value) != 2:
        raise ValueError(f"{name} is a tuple of {len(value)}; expected one array of 576 columns or two of 512 and 64")
    return value


def schedule(
    plan: Plan,
    cache_seqlens: Any,
    *,
    cu_seqlens_q: Any = None,
    seqlen_q: int = 0,
    out: Any = None,
    stream: Optional[int] = None,
) -> Any:
    """Cuts a step into plan.num_parts balanced parts: once per step, for all layers. Asynchronous on CUDA.

    Args:
        plan: made by `plan()`.
        cache_seqlens: int32 [b], tokens in the cache of each request, the step's own included.
        cu_seqlens_q: int32 [b + 1], ragged queries only: request r owns query tokens cu[r] .. cu[r + 1] - 1.
        seqlen_q: query tokens of each request, uniform queries only; 0: the plan's max_seqlen_q.
        out: int32 array of plan.schedule_shape to write to, contiguous; made if not given.
        stream: CUDA stream as an integer, for CuPy and JAX arrays; PyTorch uses its current stream.

    Returns:
        The schedule, `out`. It may be copied and kept in static buffers.

    Raises:
        ValueError, TypeError: an argument is wrong; on the CPU also a length that is negative.
    """
    framework = framework_of(cache_seqlens, "cache_seqlens")
    if framework.compiling():
        return framework.compiled.schedule(plan, cache_seqlens, cu_seqlens_q, seqlen_q, out)  # type: ignore[attr-defined]
    handle = framework.stream(stream)
    out = run_schedule(framework, plan, cache_seqlens, cu_seqlens_q, seqlen_q, out, handle)
    framework.finish(handle)
    return out


def num_splits(plan: Plan, schedule: Any, batch: int, *, stream: Optional[int] = None) -> Any:
    """How many parts share each request of a schedule: int32 [batch + 1], from 0, never falling. For statistics."""
    framework = framework_of(schedule, "schedule")
    handle = framework.stream(stream)
    counts = run_num_splits(framework, plan, schedule, batch, handle)
    framework.finish(handle)
    return counts


def run_num_splits(framework: Framework, plan: Plan, schedule: Any, batch: int, stream: int) -> Any:
    counts = framework.empty((batch + 1,), framework.int32, framework.device_of(schedule), stream)
    memory, out = export_all(framework, (schedule, counts), stream)
    library.num_splits(plan.handle, memory, out, stream)
    return counts


def decode(
    q: Parts,
    cache: Parts,
    block_table: Any,
    cache_seqlens: Any,
    *,
    softmax_scale: Optional[float] = None,
    causal: bool = True,
    cu_seqlens_q: Any = None,
    max_seqlen_q: Optional[int] = None,
    plan: Optional[Plan] = None,
    schedule: Any = None,
    out: Any = None,
    lse: Any = None,
    stream: Optional[int] = None,
) -> tuple[Any, Any]:
    """Decodes one layer: attention of a few query tokens a request over a paged latent cache.

        out[i] = sum_t softmax(softmax_scale * <q[i], k[t]>)[t] * k[t][0:512],   lse[i] = ln sum_t exp(...)

    Every element of out and lse is written; a row that sees no token gets out = 0 and lse = +inf. Tokens past a
    request's length, unused pages and unused entries of the block table may hold anything.

    Args:
        q: [b, s_q, h_q, 576], or with cu_seqlens_q [total_q, h_q, 576]; or a tuple of 512 and 64 columns.
        cache: [num_pages, page_size, h_kv, 576], of q's dtype; or a tuple of 512 and 64 columns.
        block_table: int32 [b, max_pages]: the pages of each request; entries past its last page are never read.
        cache_seqlens: int32 [b], tokens in the cache of each request, the step's own included.
        softmax_scale: > 0; 1 / sqrt(576) if not given (models want that of their uncompressed head).
        causal: query token j of s_q sees tokens t <= length - s_q + j.
        cu_seqlens_q: int32 [b + 1], ragged queries: request r owns query tokens cu[r] .. cu[r + 1] - 1.
        max_seqlen_q: ragged queries: most tokens of one request; total_q if not given. `plan` has its own.
        plan: made by `plan()`; if not given, one that fits the shapes, kept from call to call.
        schedule: made by `schedule(plan, ...)` for these lengths; if not given, made in this call.
        out: [b, s_q, h_q, 512] or [total_q, h_q, 512] of q's dtype to write to; made if not given.
        lse: float32 [b, h_q, s_q] or [h_q, total_q] to write to; made if not given.
        stream: CUDA stream as an integer, for CuPy and JAX arrays; PyTorch uses its current stream.

    dtypes: bfloat16 (NumPy: ml_dtypes.bfloat16 or its bits as uint16) and float16, on the CPU also float32.

    Returns:
        (out, lse).

    Raises:
        ValueError, TypeError: an argument is wrong; the message names it and its value.
        RuntimeError: the device cannot be used.
    """
    q, q_rope = two_parts("q", q)
    cache, rope_cache = two_parts("cache", cache)
    framework = framework_of(q, "q")
    if framework.compiling():
        return framework.compiled.decode(  # type: ignore[attr-defined]
            q, q_rope, cache, rope_cache, block_table, cache_seqlens, softmax_scale, causal, cu_seqlens_q, max_seqlen_q,
            plan, schedule, out, lse,
        )  # fmt: skip
    handle = framework.stream(stream)
    if plan is None or schedule is None or out is None or lse is None:
        check_arrays(("cache", "block_table", "cache_seqlens"), (cache, block_table, cache_seqlens))
        plan, schedule, out, lse = _complete(
            framework, q, cache, cache_seqlens, bool(causal), cu_seqlens_q, max_seqlen_q, plan, schedule, out, lse,
            handle,
        )  # fmt: skip
    scale = DEFAULT_SCALE if softmax_scale is None else softmax_scale
    run_decode(
        framework, plan, q, q_rope, cache, rope_cache, block_table, cache_seqlens, cu_seqlens_q, out, lse, scale,
        schedule, handle,
    )  # fmt: skip
    framework.finish(handle)
    return out, lse


def _complete(
    framework: Framework,
    q: Any,
    cache: Any,
    cache_seqlens: Any,
    causal: bool,
    cu_seqlens_q: Any,
    max_seqlen_q: Optional[int],
    plan: Optional[Plan],
    schedule: Any,
    out: Any,
    lse: Any,
    stream: int,
) -> tuple[Plan, Any, Any, Any]:
    """Plan, schedule, out and lse of a decode, those that are None made."""
    ragged = cu_seqlens_q is not None
    device = framework.device_of(q)
    shape = tuple(q.shape)
    if plan is None:
        batch = cache_seqlens.shape[0] if len(cache_seqlens.shape) else 0
        plan = plan_for(framework, q, cache, causal, ragged, batch, max_seqlen_q or shape[0] if ragged else 0, 0)
    if schedule is None:
        seqlen_q = 0 if ragged or len(shape) != 4 else shape[1]
        schedule = run_schedule(framework, plan, cache_seqlens, cu_seqlens_q, seqlen_q, None, stream)
    if out is None:
        out = framework.empty((*shape[:-1], LATENT_DIM), q.dtype, device, stream)
    if lse is None:
        rows = (shape[-2], shape[0]) if ragged else (shape[0], shape[-2], shape[1])
        lse = framework.empty(rows, framework.float32, device, stream)
    return plan, schedule, out, lse


def merge(partials: Sequence[tuple[Any, Any]], *, stream: Optional[int] = None) -> tuple[Any, Any]:
    """Merges the results of disjoint shards of the same sequences (context parallelism).

        lse = ln sum_i exp(lse_i),   out = sum_i exp(lse_i - lse) * out_i

    Args:
        partials: (out, lse) of each shard as decode returns them: [b, s_q, h_q, 512] and [b, h_q, s_q], or for ragged
            queries [total_q, h_q, 512] and [h_q, total_q]. A shard in which a row saw nothing carries lse = +inf (as
            decode writes it) or -inf there and is skipped.
        stream: CUDA stream as an integer, for CuPy and JAX arrays.

    Returns:
        (out, lse) of the same shapes; out in the dtype of the partials.

    Raises:
        ValueError, TypeError: no partials, or an argument is wrong.
    """
    if not partials:
        raise ValueError("partials is empty; expected at least one (out, lse)")
    framework = framework_of(partials[0][0], "partials[0][0]")
    if framework.compiling():
        return framework.compiled.merge(partials)  # type: ignore[attr-defined]
    handle = framework.stream(stream)
    outs = framework.stack([out for out, _ in partials])  # [n, b, s_q, h_q, 512] or [n, total_q, h_q, 512]
    # Rows of out are (query token, head); lse has the head first.
    lses = framework.swap_axes(framework.stack([lse for _, lse in partials]), -1, -2)
    shards, shape, device = outs.shape[0], tuple(outs.shape[1:]), framework.device_of(outs)
    if tuple(lses.shape[1:]) != shape[:-1]:
        raise ValueError(
            f"partials have out of shape {shape}, so that lse, its last dimensions exchanged, is {shape[:-1]}; "
            f"got {tuple(lses.shape[1:])}"
        )
    rows = math.prod(shape[:-1])
    out = framework.empty((rows, shape[-1]), outs.dtype, device, handle)
    lse = framework.empty((rows,), framework.float32, device, handle)
    arrays = (outs.reshape(shards, rows, shape[-1]), framework.contiguous(lses).reshape(shards, rows), out, lse)
    library.merge(*export_all(framework, arrays, handle), handle)
    framework.finish(handle)
    return out.reshape(shape), framework.swap_axes(lse.reshape(shape[:-1]), -1, -2)


def append_kv(c_kv: Any, k_pe: Any, cache: Parts, slot_mapping: Any, *, stream: Optional[int] = None) -> None:
    """Writes n tokens into their slots of one layer's cache.

    Args:
        c_kv: [n, h_kv, 512], of the cache's dtype.
        k_pe: [n, h_kv, 64].
        cache: [num_pages, page_size, h_kv, 576], or a tuple of 512 and 64 columns.
        slot_mapping: int64 [n]: page * page_size + row of each token; negative ones are skipped.
        stream: CUDA stream as an integer, for CuPy arrays. (JAX arrays cannot be written to.)

    Raises:
        ValueError, TypeError: an argument is wrong; on the CPU also a slot past the end of the cache.
    """
    joint, rope = two_parts("cache", cache)
    framework = framework_of(joint, "cache")
    if framework.compiling():
        return framework.compiled.append_kv(c_kv, k_pe, joint, rope, slot_mapping)  # type: ignore[attr-defined]
    handle = framework.stream(stream)
    library.append_kv(*export_all(framework, (c_kv, k_pe, joint, rope, slot_mapping), handle), handle)
    framework.finish(handle)


def copy_pages(cache: Any, page_pairs: Any, *, stream: Optional[int] = None) -> None:
    """Copies whole pages of a cache [num_pages, page_size, h_kv, d].

    Args:
        cache: the array to copy within.
        page_pairs: int64 [n, 2] of (source, destination) on the cache's device; no destination is a source, none
            occurs twice.
        stream: CUDA stream as an integer, for CuPy arrays.

    Raises:
        ValueError, TypeError: an argument is wrong; on the CPU also ids out of range.
    """
    framework = framework_of(cache, "cache")
    if framework.compiling():
        return framework.compiled.copy_pages(cache, page_pairs)  # type: ignore[attr-defined]
    handle = framework.stream(stream)
    library.copy_pages(*export_all(framework, (cache, page_pairs), handle), handle)
    framework.finish(handle)
