"""The drop-in API with PyTorch tensors, as FlashMLA documents it: loops, shapes, lengths, heads, poisoned caches."""

from __future__ import annotations

import pytest
import torch
from torch_problem import LATENT, Problem, assert_right, make_problem

from flash_mla import FlashMLASchedMeta, flash_mla_with_kvcache, get_mla_metadata

GENERATIONS = ["lengths", "object"]


def dtypes_of(device: str) -> list[torch.dtype]:
    return [torch.bfloat16, torch.float16] + ([torch.float32] if device == "cpu" else [])


def metadata(problem: Problem, generation: str) -> tuple:
    if generation == "object":
        return get_mla_metadata()
    return get_mla_metadata(problem.seqlens, problem.queries_per_head_k, problem.num_heads_kv)


def decode(problem: Problem, meta: tuple, **arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
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


def test_the_loop_of_the_readme(device):
    """The loop that FlashMLA's users have, letter by letter."""
    h_q, h_kv, s_q, dv, num_layers = 128, 1, 2, 512, 3
    layers = [make_problem([70, 1, 200], device=device, s_q=s_q, h_q=h_q, causal=True) for _ in range(num_layers)]
    block_table, cache_seqlens = layers[0].block_table, layers[0].seqlens

    tile_scheduler_metadata, num_splits = get_mla_metadata(cache_seqlens, s_q * h_q // h_kv, h_kv)

    for i in range(num_layers):
        q_i, kvcache_i = layers[i].q, layers[i].cache
        o_i, lse_i = flash_mla_with_kvcache(
            q_i, kvcache_i, block_table, cache_seqlens, dv,
            tile_scheduler_metadata, num_splits, causal=True,
        )  # fmt: skip
        assert_right(layers[i], o_i, lse_i)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("causal", [False, True])
def test_lengths_of_all_kinds(device, dtype, causal, generation):
    if dtype not in dtypes_of(device):
        pytest.skip("not on this device")
    problem = make_problem([0, 1, 63, 64, 65, 0, 700, 2, 0], device=device, dtype=dtype, s_q=3, h_q=16, causal=causal)
    assert_right(problem, *decode(problem, metadata(problem, generation)))


@pytest.mark.parametrize("h_q", [1, 3, 9, 63, 64, 126, 128])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_query_heads(device, h_q, generation):
    problem = make_problem([130, 5, 0], device=device, h_q=h_q)
    assert_right(problem, *decode(problem, metadata(problem, generation)))


@pytest.mark.parametrize("h_kv", [1, 2, 3, 8])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_kv_heads(device, h_kv, generation):
    problem = make_problem([130, 5, 0], device=device, s_q=2, h_q=2 * h_kv, h_kv=h_kv, causal=True)
    assert_right(problem, *decode(problem, metadata(problem, generation)))


@pytest.mark.parametrize("s_q", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_query_tokens_see_no_successor(device, s_q, generation):
    problem = make_problem([300, 4, 64, 1], device=device, s_q=s_q, h_q=32, causal=True)
    assert_right(problem, *decode(problem, metadata(problem, generation)))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_many_requests(device, generation):
    lengths = [(37 * i * i) % 500 for i in range(200)]
    problem = make_problem(lengths, device=device, h_q=16)
    assert_right(problem, *decode(problem, metadata(problem, generation)))


def test_all_lengths_zero(device):
    problem = make_problem([0, 0], device=device, columns=1)
    for generation in GENERATIONS:
        out, lse = decode(problem, metadata(problem, generation))
        assert bool((out == 0).all()) and bool(lse.isposinf().all())


def test_metadata_of_the_first_generation(device):
    shapes = set()
    for lengths in ([1], [100, 0, 7], [64 * i for i in range(40)]):
        seqlens = torch.tensor(lengths, dtype=torch.int32, device=device)
        rows, num_splits = get_mla_metadata(seqlens, 128, 1)
        assert rows.dtype == num_splits.dtype == torch.int32 and rows.device == num_splits.device == seqlens.device
        assert rows.shape[1] == 8 and num_splits.shape == (len(lengths) + 1,)
        splits = num_splits.tolist()
        assert splits[0] == 0 and splits == sorted(splits)
        shapes.add(tuple(rows.shape))
    assert len(shapes) == 1, f"the shape depends on the batch: {shapes}"


@pytest.mark.parametrize("keyword", ["num_heads_per_head_k", "num_q_tokens_per_head_k"])
def test_both_keywords_of_the_second_argument(device, keyword):
    problem = make_problem([100, 3], device=device, s_q=2, h_q=8)
    meta = get_mla_metadata(problem.seqlens, num_heads_k=1, **{keyword: problem.queries_per_head_k})
    assert_right(problem, *decode(problem, meta))


def test_metadata_object_serves_all_layers(device):
    meta, none = get_mla_metadata()
    assert isinstance(meta, FlashMLASchedMeta) and none is None
    for seed in range(3):
        problem = make_problem([100, 3, 0], device=device, seed=seed)
        assert_right(problem, *decode(problem, (meta, none)))


def test_metadata_copied_into_larger_static_buffers(device):
    """Engines copy metadata for fewer requests into buffers of the captured batch; the tail of num_splits repeats."""
    problem = make_problem([100, 3, 0, 0], device=device, columns=3)
    rows, splits = get_mla_metadata(problem.seqlens[:2].contiguous(), problem.queries_per_head_k, 1)
    static_rows, static_splits = torch.zeros_like(rows), torch.zeros(5, dtype=torch.int32, device=device)
    static_rows.copy_(rows)
    static_splits[:3].copy_(splits)
    static_splits[3:] = splits[-1]
    out, lse = decode(problem, (static_rows, static_splits))
    assert_right(problem, out, lse)


def test_scale_and_strided_views(device):
    problem = make_problem([100, 3], device=device, s_q=2, h_q=8)
    problem.scale = 0.3
    wide = torch.randn(*problem.q.shape[:3], 640, device=device).to(problem.q.dtype)
    wide[..., :576] = problem.q
    layers = torch.full((problem.cache.shape[0], 2, *problem.cache.shape[1:]), float("nan"), dtype=problem.q.dtype)
    layers = layers.to(device)
    layers[:, 1] = problem.cache
    problem.q, problem.cache = wide[..., :576], layers[:, 1]
    for generation in GENERATIONS:
        assert_right(problem, *decode(problem, metadata(problem, generation), softmax_scale=0.3))


def test_under_inference_mode_and_no_grad(device):
    for context in (torch.inference_mode, torch.no_grad):
        with context():
            problem = make_problem([100, 3], device=device)
            for generation in GENERATIONS:
                out, lse = decode(problem, metadata(problem, generation))
                assert_right(problem, out, lse)
                out.add_(1)  # an engine may go on with it in place


def test_tensors_made_in_inference_mode_serve_outside_it(device):
    with torch.inference_mode():
        problem = make_problem([100, 3], device=device)
        meta = metadata(problem, "lengths")
    assert_right(problem, *decode(problem, meta))


def test_query_that_requires_grad_is_detached(device):
    """There is no backward pass: as upstream, the result carries no graph."""
    problem = make_problem([100, 3], device=device)
    problem.q.requires_grad_()
    out, lse = decode(problem, metadata(problem, "lengths"))
    assert not out.requires_grad and not lse.requires_grad
    problem.q.requires_grad_(False)
    assert_right(problem, out, lse)
