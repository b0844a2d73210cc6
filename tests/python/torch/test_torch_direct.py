"""Calls that resemble a recent one take a shorter way: the same results, and the same words about what is wrong."""

from __future__ import annotations

import threading

import pytest
import torch
from torch_problem import LATENT, Problem, assert_right, make_problem

import flash_mla
from flash_mla import _torch, flash_mla_with_kvcache, get_mla_metadata

pytestmark = pytest.mark.skipif(_torch.TorchFramework.decode_directly is None, reason="PyTorch lacks the exchange API")


class Watched:
    """Stands in for decode_directly and keeps what it returned."""

    def __init__(self) -> None:
        self.decode = _torch.TorchFramework.decode_directly
        self.results: list[bool] = []

    def __call__(self, *arguments: object) -> bool:
        self.results.append(self.decode(*arguments))
        return self.results[-1]


@pytest.fixture
def watched(monkeypatch) -> Watched:
    stand_in = Watched()
    monkeypatch.setattr(_torch.TorchFramework, "decode_directly", staticmethod(stand_in))
    return stand_in


def decode(problem: Problem, **changes: object) -> tuple[torch.Tensor, torch.Tensor]:
    arguments = {
        "q": problem.q, "k_cache": problem.cache, "block_table": problem.block_table,
        "cache_seqlens": problem.seqlens, "head_dim_v": LATENT, "causal": problem.causal,
    }  # fmt: skip
    if "tile_scheduler_metadata" not in changes:
        arguments["tile_scheduler_metadata"] = metadata(problem)[0]
    return flash_mla_with_kvcache(**{**arguments, **changes})


def metadata(problem: Problem) -> tuple:
    return get_mla_metadata(problem.seqlens, problem.queries_per_head_k, problem.num_heads_kv)


def test_a_second_call_goes_straight_to_the_library(device, watched):
    problem = make_problem([100, 3, 0], device=device, h_q=24)
    for _ in range(3):
        assert_right(problem, *decode(problem))
    assert watched.results[-2:] == [True, True]
    assert len(watched.results) <= 4  # the first call may have tried what a test before has left


@pytest.mark.parametrize("held", [False, True])
def test_calls_of_other_kinds_in_turn(device, watched, held):
    """Equal shapes of q, but another dtype, page size, mask or number of kv heads."""
    kinds = [
        make_problem([130, 70], device=device, h_q=16, s_q=2, causal=True),
        make_problem([130, 70], device=device, h_q=16, s_q=2, causal=True, dtype=torch.float16),
        make_problem([130, 70], device=device, h_q=16, s_q=2, causal=True, page_size=128),
        make_problem([130, 70], device=device, h_q=16, s_q=2, causal=False),
        make_problem([130, 70], device=device, h_q=16, s_q=2, causal=True, h_kv=2),
    ]
    metas = [get_mla_metadata() if held else metadata(problem) for problem in kinds]
    for _ in range(3):
        for problem, meta in zip(kinds, metas):
            assert_right(problem, *decode(problem, tile_scheduler_metadata=meta[0]))
    for _ in range(2):
        assert_right(kinds[0], *decode(kinds[0], tile_scheduler_metadata=metas[0][0]))
    assert watched.results[-1] is True


def test_layers_in_turn(device):
    """Tensors that differ in their addresses alone."""
    layers = [make_problem([200, 70], device=device, h_q=16, seed=seed) for seed in range(6)]
    for _ in range(2):
        for layer in layers:
            assert_right(layer, *decode(layer))


def test_parameters_and_views(device, watched):
    problem = make_problem([100, 3], device=device, h_q=16)
    decode(problem)
    with torch.no_grad():
        assert_right(problem, *decode(problem, q=torch.nn.Parameter(problem.q)))
        padded = torch.zeros(2, 1, 20, 640, dtype=problem.q.dtype, device=device)
        padded[:, :, :16, :576] = problem.q
        assert_right(problem, *decode(problem, q=padded[:, :, :16, :576]))
    assert watched.results[-2:] == [True, True]


def test_a_subclass_goes_the_ordinary_way(device, watched):
    class Own(torch.Tensor):
        pass

    problem = make_problem([100, 3], device=device, h_q=16)
    decode(problem)
    out, lse = decode(problem, block_table=problem.block_table.as_subclass(Own))
    assert watched.results[-1] is False
    assert_right(problem, out, lse)


WRONG = {
    "q": lambda p: (p.q.double(), "dtype"),
    "k_cache": lambda p: (p.cache[:, :48], "page|shape"),
    "block_table": lambda p: (p.block_table[:1], "block_table"),
    "cache_seqlens": lambda p: (p.seqlens.long(), "cache_seqlens"),
    "softmax_scale": lambda p: (-1.0, "softmax_scale"),
    "tile_scheduler_metadata": lambda p: (metadata(p)[0][:-1], "tile_scheduler_metadata"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_call_like_a_recent_one_but_wrong(device, name):
    problem = make_problem([100, 3], device=device, h_q=16)
    right = decode(problem)
    value, message = WRONG[name](problem)
    with pytest.raises((ValueError, TypeError), match=message):
        decode(problem, **{name: value})
    with pytest.raises((ValueError, TypeError)):
        decode(problem, **{name: "text"})
    for again, first in zip(decode(problem), right):
        assert torch.equal(again, first)


def test_native_decode(device, watched):
    problem = make_problem([100, 3], device=device, h_q=16)
    plan = flash_mla.plan(
        max_batch=2, num_heads_q=16, dtype=problem.q.dtype, device=problem.q.device, causal=problem.causal
    )
    schedule = flash_mla.schedule(plan, problem.seqlens)
    latent, rope = problem.q[..., :LATENT].contiguous(), problem.q[..., LATENT:].contiguous()
    out, lse = flash_mla.decode(
        (latent, rope), problem.cache, problem.block_table, problem.seqlens, plan=plan, schedule=schedule
    )
    assert watched.results == [True]
    assert_right(problem, out, lse)
    with pytest.raises(ValueError, match="q_rope"):
        flash_mla.decode(latent, problem.cache, problem.block_table, problem.seqlens, plan=plan, schedule=schedule)


def test_results_are_ordinary_tensors(device):
    problem = make_problem([100, 3], device=device, h_q=16)
    for _ in range(2):
        with torch.inference_mode():
            inside = decode(problem)
        outside = decode(problem)
        for tensor in (*inside, *outside):
            assert type(tensor) is torch.Tensor
            assert tensor.untyped_storage().resizable() and tensor.is_contiguous()
            assert tensor.device == problem.q.device and not tensor.requires_grad
        assert all(tensor.is_inference() for tensor in inside)
        assert not any(tensor.is_inference() for tensor in outside)
        outside[0].mul_(2)  # which nothing but a tensor of its own memory allows


def test_threads(device):
    problems = [make_problem([100 + 7 * i, 3], device=device, h_q=16) for i in range(4)]
    failures: list[BaseException] = []

    def work(problem: Problem) -> None:
        try:
            meta = metadata(problem)[0]
            for _ in range(20):
                results = decode(problem, tile_scheduler_metadata=meta)
            assert_right(problem, *results)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(problem,)) for problem in problems]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
