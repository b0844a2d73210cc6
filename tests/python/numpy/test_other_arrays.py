"""JAX (on the CPU, and on a GPU where JAX has one) and CuPy arrays, where those packages are installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy_problem import BFLOAT16, Problem, assert_right, make_problem

import flash_mla


def in_jax(problem: Problem, device: Any) -> list[Any]:
    jax = pytest.importorskip("jax")
    return [jax.device_put(array, device) for array in (problem.q, problem.cache, problem.block_table, problem.seqlens)]


def jax_devices() -> list[str]:
    try:
        import jax

        return sorted({device.platform for device in jax.devices()} | {"cpu"})
    except (ImportError, RuntimeError):
        return ["cpu"]


@pytest.mark.parametrize("platform", jax_devices())
@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float16)], ids=str)
def test_jax(platform, dtype):
    jax = pytest.importorskip("jax")
    device = jax.devices(platform)[0]
    stream = None if platform == "cpu" and jax.default_backend() == "cpu" else 1
    problem = make_problem([100, 0, 3], dtype=dtype, s_q=2, causal=True)
    q, cache, block_table, seqlens = in_jax(problem, device)
    out, lse = flash_mla.decode(q, cache, block_table, seqlens, stream=stream)
    assert isinstance(out, jax.Array) and out.devices() == {device}
    assert_right(problem, out, lse)
    merged = flash_mla.merge([(out, lse)], stream=stream)
    assert np.allclose(np.asarray(merged[0], np.float32), np.asarray(out, np.float32))
    plan = flash_mla.plan(max_batch=3, num_heads_q=16, max_seqlen_q=2, dtype=dtype, device=q)
    schedule = flash_mla.schedule(plan, seqlens, stream=stream)
    assert_right(
        problem, *flash_mla.decode(q, cache, block_table, seqlens, plan=plan, schedule=schedule, stream=stream)
    )


def cupy_or_skip() -> Any:
    cupy = pytest.importorskip("cupy")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        pytest.skip("CuPy has no GPU here")
    return cupy


def test_cupy():
    cupy = cupy_or_skip()
    problem = make_problem([100, 0, 3], dtype=np.float16, s_q=2, causal=True)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        arrays = [cupy.asarray(array) for array in (problem.q, problem.cache, problem.block_table, problem.seqlens)]
        for handle in (stream.ptr,):
            out, lse = flash_mla.decode(*arrays, stream=handle)
            merged = flash_mla.merge([(out, lse)], stream=handle)
    stream.synchronize()
    assert isinstance(out, cupy.ndarray)
    assert_right(problem, out.get(), lse.get())
    assert np.allclose(merged[0].get(), out.get())


def test_cupy_cache_and_bits_of_bf16():
    cupy = cupy_or_skip()
    stream = cupy.cuda.Stream(non_blocking=True)
    cache = flash_mla.PagedKVCache(4, device="cuda", framework="cupy")
    requests = [cache.add(), cache.add()]
    cache.grow(requests, [70, 3], stream=stream.ptr)
    tokens = np.random.default_rng(0).standard_normal((73, 1, 576)).astype(BFLOAT16).view(np.uint16)
    with stream:
        cache.write(0, requests, [70, 3], *(cupy.asarray(part) for part in np.split(tokens, [512], axis=-1)),
                    stream=stream.ptr)  # fmt: skip
        block_table, seqlens = cache.tables(requests, stream=stream.ptr)
        q = np.random.default_rng(1).standard_normal((2, 1, 16, 576)).astype(BFLOAT16)
        out, lse = flash_mla.decode(cupy.asarray(q.view(np.uint16)), cache.layer(0), block_table, seqlens,
                                    stream=stream.ptr)  # fmt: skip
    stream.synchronize()
    problem = Problem(q, cache.layer(0).get().view(BFLOAT16), block_table.get(), seqlens.get(), causal=True)
    assert_right(problem, out.get().view(BFLOAT16), lse.get())


def test_cupy_wants_a_stream():
    cupy = cupy_or_skip()
    with pytest.raises(ValueError, match="stream is not given"):
        flash_mla.schedule(flash_mla.plan(max_batch=1, num_heads_q=1, device="cuda"), cupy.zeros(1, np.int32))
