"""Wrong arguments: ValueError or TypeError with a message that names the argument, and nothing is computed."""

from __future__ import annotations

import pytest
import torch
from torch_problem import LATENT, Problem, make_problem

import flash_mla
from flash_mla import flash_mla_with_kvcache, get_mla_metadata


@pytest.fixture
def problem(device) -> Problem:
    return make_problem([100, 3], device=device, h_q=16)


def call(problem: Problem, meta: tuple | None = None, **changes: object) -> object:
    arguments = {
        "q": problem.q, "k_cache": problem.cache, "block_table": problem.block_table,
        "cache_seqlens": problem.seqlens, "head_dim_v": LATENT,
    }  # fmt: skip
    arguments["tile_scheduler_metadata"], arguments["num_splits"] = meta or get_mla_metadata()
    return flash_mla_with_kvcache(**{**arguments, **changes})


def test_query_of_another_dtype_than_the_cache(problem):
    with pytest.raises((ValueError, TypeError), match="dtype|bf16|f16"):
        call(problem, q=problem.q.to(torch.float16))


def test_query_of_a_dtype_that_nothing_serves(problem):
    with pytest.raises((ValueError, TypeError), match="float64|dtype"):
        call(problem, q=problem.q.double(), k_cache=problem.cache.double())


def test_head_dim(problem):
    with pytest.raises(ValueError, match=r"576"):
        call(problem, q=problem.q[..., :500])


def test_head_dim_v(problem):
    with pytest.raises(ValueError, match="head_dim_v"):
        call(problem, head_dim_v=256)


def test_lengths_of_another_batch(problem):
    with pytest.raises(ValueError, match="seqlens"):
        call(problem, cache_seqlens=problem.seqlens[:1])


def test_lengths_of_another_dtype(problem):
    with pytest.raises((ValueError, TypeError), match="seqlens"):
        call(problem, cache_seqlens=problem.seqlens.long())


def test_block_table_of_another_batch(problem):
    with pytest.raises(ValueError, match="block_table"):
        call(problem, block_table=problem.block_table[:1])


def test_query_that_is_no_tensor(problem):
    with pytest.raises(TypeError):
        call(problem, q="q")


def test_tensors_on_two_devices(problem, device):
    if device == "cpu":
        pytest.skip("needs two devices")
    with pytest.raises(ValueError, match="device"):
        call(problem, cache_seqlens=problem.seqlens.cpu())


@pytest.mark.parametrize(
    "name", ["indices", "attn_sink", "extra_k_cache", "extra_indices_in_kvcache", "topk_length", "extra_topk_length"]
)
def test_what_is_not_built_yet_is_named(problem, name):
    with pytest.raises(NotImplementedError):
        call(problem, **{name: problem.seqlens})


def test_fp8_is_not_built_yet(problem):
    with pytest.raises(NotImplementedError, match="(?i)fp8"):
        call(problem, is_fp8_kvcache=True)


def test_functions_that_are_not_built_yet():
    for name in ("flash_mla_sparse_fwd", "flash_attn_varlen_func", "flash_attn_varlen_qkvpacked_func",
                 "flash_attn_varlen_kvpacked_func"):  # fmt: skip
        with pytest.raises(NotImplementedError, match=name):
            getattr(flash_mla, name)(None, None, None)
