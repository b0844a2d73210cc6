"""FlashMLA's interface with NumPy arrays, as FlashMLA documents it."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from numpy_problem import BFLOAT16, DTYPES, LATENT, Problem, assert_right, make_problem

import flash_mla
from flash_mla import FlashMLASchedMeta, flash_mla_with_kvcache, get_mla_metadata

GENERATIONS = ["lengths", "object"]


def metadata(problem: Problem, generation: str) -> tuple[Any, Any]:
    if generation == "object":
        return get_mla_metadata()
    return get_mla_metadata(problem.seqlens, problem.queries_per_head_k, problem.num_heads_kv)


def decode(problem: Problem, meta: tuple[Any, Any], **arguments: Any) -> tuple[np.ndarray, np.ndarray]:
    return flash_mla_with_kvcache(
        problem.q,
        problem.cache,
        problem.block_table,
        problem.seqlens,
        LATENT,
        *meta,
        causal=problem.causal,
        **arguments,
    )


def check(problem: Problem, generation: str = "lengths") -> None:
    assert_right(problem, *decode(problem, metadata(problem, generation)))


def test_names_order_and_defaults_are_flash_mlas():
    def described(function: Any) -> list[tuple[str, Any]]:
        return [(name, parameter.default) for name, parameter in inspect.signature(function).parameters.items()]

    required = inspect.Parameter.empty
    assert described(flash_mla_with_kvcache) == [
        ("q", required), ("k_cache", required), ("block_table", required), ("cache_seqlens", required),
        ("head_dim_v", required), ("tile_scheduler_metadata", required), ("num_splits", None), ("softmax_scale", None),
        ("causal", False), ("is_fp8_kvcache", False), ("indices", None), ("attn_sink", None), ("extra_k_cache", None),
        ("extra_indices_in_kvcache", None), ("topk_length", None), ("extra_topk_length", None),
    ]  # fmt: skip
    names = [name for name, _ in described(get_mla_metadata)]
    assert names[:1] + names[2:6] == ["cache_seqlens", "num_heads_k", "num_heads_q", "is_fp8_kvcache", "topk"]


def test_the_loop_of_the_readme():
    s_q, h_q, h_kv, dv, num_layers = 2, 128, 1, 512, 3
    layers = [make_problem([70, 1, 200], s_q=s_q, h_q=h_q, causal=True) for _ in range(num_layers)]
    block_table, cache_seqlens = layers[0].block_table, layers[0].seqlens

    tile_scheduler_metadata, num_splits = get_mla_metadata(cache_seqlens, s_q * h_q // h_kv, h_kv)

    for i in range(num_layers):
        o_i, lse_i = flash_mla_with_kvcache(
            layers[i].q, layers[i].cache, block_table, cache_seqlens, dv,
            tile_scheduler_metadata, num_splits, causal=True,
        )  # fmt: skip
        assert_right(layers[i], o_i, lse_i)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_lengths_of_all_kinds(dtype, causal, generation):
    check(make_problem([0, 1, 63, 64, 65, 0, 700, 2, 0], dtype=dtype, s_q=3, causal=causal), generation)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("h_q", [1, 3, 9, 63, 64, 126, 128])
def test_query_heads(h_q, generation):
    check(make_problem([130, 5, 0], h_q=h_q), generation)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("h_kv", [1, 2, 3, 8])
@pytest.mark.parametrize("s_q", [1, 3])
def test_kv_heads(h_kv, s_q, generation):
    check(make_problem([130, 5, 0], s_q=s_q, h_q=4 * h_kv, h_kv=h_kv, causal=True), generation)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("s_q", [1, 2, 5, 9, 70])
def test_query_tokens_see_no_successor(s_q, generation):
    """70 tokens of 32 heads are many units of rows, which a mask cuts differently."""
    check(make_problem([300, 4, 64, 1], s_q=s_q, h_q=32, causal=True), generation)


@pytest.mark.parametrize("page_size", [16, 32, 128])
def test_page_sizes(page_size):
    check(make_problem([130, 5, 0, 600], page_size=page_size))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_unused_memory_may_hold_anything(poison):
    problem = make_problem([100, 1, 64, 0], poison=poison)
    problem.block_table[problem.block_table < 0] = 2**31 - 1
    check(problem)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_all_lengths_zero(generation):
    problem = make_problem([0, 0])
    out, lse = decode(problem, metadata(problem, generation))
    assert (out == 0).all() and np.isposinf(lse).all()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_requests(generation):
    problem = make_problem([])
    out, lse = decode(problem, metadata(problem, generation))
    assert out.shape == (0, 1, 16, 512) and lse.shape == (0, 16, 1)


def test_metadata_of_the_first_generation():
    shapes = set()
    for lengths in ([1], [100, 0, 7], [64 * i for i in range(40)]):
        rows, num_splits = get_mla_metadata(np.array(lengths, np.int32), 128, 1)
        assert rows.dtype == num_splits.dtype == np.int32
        assert rows.shape[1] == 8 and num_splits.shape == (len(lengths) + 1,)
        assert num_splits[0] == 0 and (np.diff(num_splits) >= 1).all()
        shapes.add(rows.shape)
    assert len(shapes) == 1, f"the shape depends on the batch: {shapes}"


def test_long_requests_have_several_splits():
    plan = flash_mla.plan(max_batch=2, num_heads_q=16)
    if plan.num_parts < 2:
        pytest.skip("one thread cuts nothing")
    _, num_splits = get_mla_metadata(np.array([100_000, 10], np.int32), 16, 1)
    assert num_splits[1] > 1


@pytest.mark.parametrize("keyword", ["num_heads_per_head_k", "num_q_tokens_per_head_k"])
def test_both_keywords_of_the_second_argument(keyword):
    problem = make_problem([100, 3], s_q=2, h_q=8)
    assert_right(
        problem,
        *decode(problem, get_mla_metadata(problem.seqlens, num_heads_k=1, **{keyword: problem.queries_per_head_k})),
    )


def test_metadata_object_serves_all_layers_and_is_filled():
    meta, none = get_mla_metadata()
    assert isinstance(meta, FlashMLASchedMeta) and none is None and not meta.have_initialized
    for seed in range(3):
        problem = make_problem([100, 3, 0], seed=seed)
        assert_right(problem, *decode(problem, (meta, none)))
    assert meta.tile_scheduler_metadata.shape[1] == 8 and meta.num_splits.shape == (4,)


def test_metadata_object_refuses_other_shapes():
    meta = get_mla_metadata()
    decode(make_problem([100, 3, 0]), meta)
    with pytest.raises(ValueError, match="tile_scheduler_metadata was filled by a decode of other shapes"):
        decode(make_problem([100, 3, 0], h_q=8), meta)


def test_metadata_copied_into_larger_static_buffers():
    """Engines copy metadata for fewer requests into buffers of the captured batch; the tail of num_splits repeats."""
    problem = make_problem([100, 3, 0, 0])
    rows, splits = get_mla_metadata(problem.seqlens[:2], problem.queries_per_head_k, 1)
    static_rows, static_splits = np.zeros_like(rows), np.full(5, splits[-1], np.int32)
    static_rows[...] = rows
    static_splits[:3] = splits
    assert_right(problem, *decode(problem, (static_rows, static_splits)))


def test_num_splits_is_not_read():
    problem = make_problem([100, 3])
    rows, splits = metadata(problem, "lengths")
    for other in (None, splits, np.full_like(splits, -7)):
        assert_right(problem, *decode(problem, (rows, other)))


def test_scale_and_strided_views():
    problem = make_problem([100, 3], s_q=2, h_q=8, causal=True)
    problem.scale = 0.3
    wide = np.full((*problem.q.shape[:3], 640), np.nan).astype(problem.q.dtype)
    wide[..., :576] = problem.q
    layers = np.full((problem.cache.shape[0], 2, *problem.cache.shape[1:]), np.nan).astype(problem.q.dtype)
    layers[:, 1] = problem.cache
    problem.q, problem.cache = wide[..., :576], layers[:, 1]
    for generation in GENERATIONS:
        assert_right(problem, *decode(problem, metadata(problem, generation), softmax_scale=0.3))


def test_bf16_as_bits():
    """NumPy without ml_dtypes passes bf16 as uint16."""
    problem = make_problem([100, 3])
    out, lse = flash_mla_with_kvcache(
        problem.q.view(np.uint16), problem.cache.view(np.uint16), problem.block_table, problem.seqlens, LATENT,
        *metadata(problem, "lengths"),
    )  # fmt: skip
    assert out.dtype == np.uint16
    assert_right(problem, out.view(BFLOAT16), lse)


def test_inputs_may_be_read_only():
    if np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("DLPack of this NumPy has no read-only arrays")
    problem = make_problem([100, 3])
    for array in (problem.q, problem.cache, problem.block_table, problem.seqlens):
        array.flags.writeable = False
    check(problem)


def test_same_inputs_same_bits():
    problem = make_problem([1000, 3, 500], h_q=64)
    meta = metadata(problem, "lengths")
    first = decode(problem, meta)
    for _ in range(3):
        again = decode(problem, meta)
        assert first[0].tobytes() == again[0].tobytes() and first[1].tobytes() == again[1].tobytes()
