"""Wrong arguments: ValueError or TypeError with a message that names the argument and its value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy_problem import LATENT, Problem, make_problem

import flash_mla
from flash_mla import flash_mla_with_kvcache, get_mla_metadata


@pytest.fixture
def problem() -> Problem:
    return make_problem([100, 3])


def call(problem: Problem, **changes: Any) -> Any:
    meta = changes.pop("meta", None) or get_mla_metadata(problem.seqlens, problem.queries_per_head_k, 1)
    arguments = {
        "q": problem.q, "k_cache": problem.cache, "block_table": problem.block_table, "cache_seqlens": problem.seqlens,
        "head_dim_v": LATENT, "tile_scheduler_metadata": meta[0], "num_splits": meta[1],
    }  # fmt: skip
    return flash_mla_with_kvcache(**{**arguments, **changes})


@pytest.mark.parametrize(
    "change, exception, message",
    [
        (lambda p: {"q": p.q[..., :500]}, ValueError, r"q\.shape\[3\] is 500; expected 576"),
        (lambda p: {"q": p.q[0]}, ValueError, "q has 3 dimensions"),
        (lambda p: {"q": "q"}, TypeError, "q is a builtins.str; expected an array"),
        (lambda p: {"q": p.q.astype(np.float64)}, TypeError, "q.dtype is float64"),
        (lambda p: {"q": p.q.astype(np.float16)}, ValueError, r"k_cache\.dtype is bf16; expected f16"),
        (lambda p: {"k_cache": p.cache[0]}, ValueError, "k_cache has 3 dimensions"),
        (lambda p: {"k_cache": np.repeat(p.cache, 3, axis=2)}, ValueError, "num_heads_q is 16"),
        (lambda p: {"k_cache": p.cache[:, :63]}, ValueError, "page_size is 63"),
        (lambda p: {"block_table": p.block_table[:1]}, ValueError, r"block_table\.shape\[0\] is 1; expected 2"),
        (
            lambda p: {"block_table": p.block_table.astype(np.int64)},
            ValueError,
            r"block_table\.dtype is i64; expected i32",
        ),
        (lambda p: {"block_table": p.block_table + 1000}, ValueError, r"block_table\[0, 0\] is 10\d\d; expected 0 to"),
        (lambda p: {"block_table": p.block_table[:, :1]}, ValueError, r"block_table\.shape\[1\] is 1"),
        (lambda p: {"cache_seqlens": p.seqlens[:1]}, ValueError, r"cache_seqlens"),
        (lambda p: {"cache_seqlens": p.seqlens - 50}, ValueError, r"cache_seqlens\[1\] is -47"),
        (lambda p: {"cache_seqlens": p.seqlens + 1}, ValueError, "tile_scheduler_metadata .* cache_seqlens"),
        (lambda p: {"cache_seqlens": [100, 3]}, TypeError, "cache_seqlens"),
        (lambda p: {"head_dim_v": 256}, ValueError, "head_dim_v is 256; expected 512"),
        (lambda p: {"softmax_scale": -1.0}, ValueError, "softmax_scale is -1"),
        (lambda p: {"meta": (np.zeros((4, 8), np.int32), None)}, ValueError, "tile_scheduler_metadata begins with 0"),
        (lambda p: {"meta": (np.zeros((4, 7), np.int32), None)}, ValueError, r"shape \(4, 7\)"),
        (lambda p: {"meta": get_mla_metadata(p.seqlens, 999, 1)}, ValueError, "tile_scheduler_metadata has shape hash"),
        (lambda p: {"meta": ("metadata", None)}, TypeError, "tile_scheduler_metadata is a builtins.str"),
    ],
)
def test_of_the_decode(problem, change, exception, message):
    with pytest.raises(exception, match=message):
        call(problem, **change(problem))


@pytest.mark.parametrize(
    "arguments, exception, message",
    [
        ((np.array([1], np.int32), 0, 1), ValueError, "num_q_tokens_per_head_k is 0"),
        ((np.array([1], np.int32), 16, -1), ValueError, "num_heads_k is -1"),
        ((np.array([1], np.int32), 16), TypeError, "num_heads_k"),
        ((np.array([1], np.int64), 16, 1), ValueError, r"cache_seqlens\.dtype is i64; expected i32"),
        ((np.array([-1], np.int32), 16, 1), ValueError, r"cache_seqlens\[0\] is -1"),
        ((np.array([[1]], np.int32), 16, 1), ValueError, "cache_seqlens has 2 dimensions"),
    ],
)
def test_of_the_metadata(arguments, exception, message):
    with pytest.raises(exception, match=message):
        get_mla_metadata(*arguments)


@pytest.mark.parametrize(
    "name", ["indices", "attn_sink", "extra_k_cache", "extra_indices_in_kvcache", "topk_length", "extra_topk_length"]
)
def test_what_is_not_built_yet_is_named(problem, name):
    with pytest.raises(NotImplementedError, match=name):
        call(problem, **{name: problem.seqlens})


def test_fp8_and_sparse_metadata_are_not_built_yet(problem):
    with pytest.raises(NotImplementedError, match="is_fp8_kvcache.*FP8"):
        call(problem, is_fp8_kvcache=True)
    with pytest.raises(NotImplementedError, match="is_fp8_kvcache.*FP8"):
        get_mla_metadata(problem.seqlens, 16, 1, is_fp8_kvcache=True)
    with pytest.raises(NotImplementedError, match="topk.*sparse"):
        get_mla_metadata(problem.seqlens, 16, 1, num_heads_q=16, topk=2048)


@pytest.mark.parametrize(
    "name",
    [
        "flash_mla_sparse_fwd", "flash_attn_varlen_func", "flash_attn_varlen_qkvpacked_func",
        "flash_attn_varlen_kvpacked_func",
    ],
)  # fmt: skip
def test_functions_that_are_not_built_yet(name):
    with pytest.raises(NotImplementedError, match=name):
        getattr(flash_mla, name)(None, None, causal=True)


def test_of_a_plan():
    for arguments, exception, message in (
        (
            {"num_heads_q": 3, "num_heads_kv": 2},
            ValueError,
            "num_heads_q is 3; expected a multiple of num_heads_kv = 2",
        ),
        ({"page_size": 20}, ValueError, "page_size is 20"),
        ({"num_heads_q": 2**40}, ValueError, "num_heads_q = 2147483647"),
        ({"dtype": "int8"}, TypeError, "dtype is int8"),
        ({"device": "tpu"}, ValueError, "device is 'tpu'"),
        ({"device": "cuda:99"}, (ValueError, RuntimeError), "(?i)cuda"),
    ):
        with pytest.raises(exception, match=message):
            flash_mla.plan(**{"max_batch": 1, "num_heads_q": 16, **arguments})
