"""torch.compile traces through the API without a graph break, and the operators that it meets keep PyTorch's rules."""

from __future__ import annotations

import pytest
import torch
from torch_problem import LATENT, Problem, assert_right, make_problem, set_lengths

import flash_mla
from flash_mla import flash_mla_with_kvcache, get_mla_metadata


BACKEND = "aot_eager"  # all of tracing; the inductor has a test of its own, since it takes long


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def with_lengths(q, cache, block_table, seqlens, scale: float):
    """A layer in miniature: something before decode, something after, metadata of the first generation."""
    meta, splits = get_mla_metadata(seqlens, q.shape[1] * q.shape[2], 1)
    out, lse = flash_mla_with_kvcache(
        q * 1, cache, block_table, seqlens, LATENT, meta, splits, softmax_scale=scale, causal=True
    )
    return out * 1, lse * 1


def with_object(q, cache, block_table, seqlens, scale: float):
    meta, splits = get_mla_metadata()
    results = None
    for _ in range(2):  # the first call fills it, the second takes it
        results = flash_mla_with_kvcache(
            q * 1, cache, block_table, seqlens, LATENT, meta, splits, softmax_scale=scale, causal=True
        )
    return results[0] * 1, results[1] * 1


def native(q, cache, block_table, seqlens, scale: float):
    out, lse = flash_mla.decode(q * 1, cache, block_table, seqlens, softmax_scale=scale, causal=True)
    return out * 1, lse * 1


def arguments(problem: Problem) -> tuple:
    return problem.q, problem.cache, problem.block_table, problem.seqlens, problem.scale


@pytest.mark.parametrize("layer", [with_lengths, with_object, native])
@pytest.mark.parametrize("dynamic", [None, True])
def test_full_graph(device, layer, dynamic):
    compiled = torch.compile(layer, fullgraph=True, backend=BACKEND, dynamic=dynamic)
    for batch in (3, 5, 6):  # the later ones with the batch as a symbol
        problem = make_problem([100, 3, 0, 64, 7, 9][:batch], device=device, s_q=2, h_q=16, causal=True, seed=batch)
        assert_right(problem, *compiled(*arguments(problem)))


@pytest.mark.parametrize("layer", [with_lengths, with_object, native])
def test_no_grad_and_inference_mode(device, layer):
    compiled = torch.compile(layer, fullgraph=True, backend=BACKEND)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            problem = make_problem([100, 3], device=device, h_q=16, causal=True)
            assert_right(problem, *compiled(*arguments(problem)))


@pytest.mark.gpu
def test_inductor():
    problem = make_problem([100, 3, 0], device="cuda", s_q=2, h_q=16, causal=True)
    assert_right(problem, *torch.compile(with_lengths, fullgraph=True)(*arguments(problem)))


@pytest.mark.gpu
def test_graphs_of_the_compiler():
    """mode="reduce-overhead" replays the layer as a CUDA graph: other lengths in the same tensors are followed."""
    compiled = torch.compile(with_lengths, fullgraph=True, mode="reduce-overhead")
    problem = make_problem([500] * 6, device="cuda", h_q=16, causal=True)
    for seed, lengths in enumerate([[500] * 6, [1] * 6, [0, 500, 3, 64, 65, 0], [500] * 6, [7] * 6]):
        set_lengths(problem, lengths, seed)
        torch.compiler.cudagraph_mark_step_begin()
        assert_right(problem, *compiled(*arguments(problem)))


def test_operators_keep_the_rules(device):
    problem = make_problem([100, 3, 0], device=device, s_q=2, h_q=16, causal=True)
    rows, splits = get_mla_metadata(problem.seqlens, 32, 1)
    ops = torch.ops.flash_mla
    torch.library.opcheck(ops.get_mla_metadata.default, (problem.seqlens, 32, 1))
    torch.library.opcheck(
        ops.flash_mla_with_kvcache.default,
        (problem.q, problem.cache, problem.block_table, problem.seqlens, rows, 0.1, True),
    )


def test_eager_calls_pass_the_dispatcher_by(device):
    """No operator of ours is dispatched in an eager call: that would cost more than the call itself."""
    problem = make_problem([100, 3], device=device, h_q=16)
    seen = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    with Recorder():
        meta = get_mla_metadata(problem.seqlens, 16, 1)
        flash_mla_with_kvcache(problem.q, problem.cache, problem.block_table, problem.seqlens, LATENT, *meta)
    assert not [name for name in seen if name.startswith("flash_mla")]


def test_metadata_object_between_compiled_and_eager_code(device):
    """Whichever fills it, both take it."""
    problem = make_problem([100, 3, 0], device=device, s_q=2, h_q=16, causal=True)

    def decode(meta):
        q, cache, block_table, seqlens, scale = arguments(problem)
        return flash_mla_with_kvcache(q, cache, block_table, seqlens, LATENT, meta, softmax_scale=scale, causal=True)

    compiled = torch.compile(decode, fullgraph=True, backend=BACKEND)
    for first, second in ((compiled, decode), (decode, compiled)):
        meta, _ = get_mla_metadata()
        assert_right(problem, *first(meta))
        assert meta.have_initialized and isinstance(meta.tile_scheduler_metadata, torch.Tensor)
        assert_right(problem, *second(meta))


def test_native_functions_in_a_full_graph(device):
    """A step as an engine writes it: append, one schedule, decode into static outputs, merge of two shards."""
    dtype = torch.bfloat16
    problem = make_problem([100, 70], device=device, h_q=16, causal=True, dtype=dtype)
    step = flash_mla.plan(max_batch=2, num_heads_q=16, dtype=dtype, device=device)
    c_kv, k_pe = torch.randn(2, 1, 512, device=device).to(dtype), torch.randn(2, 1, 64, device=device).to(dtype)
    last = torch.tensor([99, 69], device=device)
    slots = problem.block_table.gather(1, (last // 64)[:, None])[:, 0].long() * 64 + last % 64
    static = torch.empty(2, 1, 16, 512, dtype=dtype, device=device)

    def layer(q, cache, block_table, seqlens, scale):
        flash_mla.append_kv(c_kv * 1, k_pe, cache, slots)
        schedule = flash_mla.schedule(step, seqlens)
        out, lse = flash_mla.decode(
            (q[..., :512], q[..., 512:]), cache, block_table, seqlens, softmax_scale=scale, plan=step,
            schedule=schedule, out=static,
        )  # fmt: skip
        return flash_mla.merge([(out, lse), (torch.zeros_like(out), torch.full_like(lse, float("inf")))])

    problem.cache.view(-1, 576)[slots] = 0
    before = problem.cache.clone()
    out, lse = torch.compile(layer, fullgraph=True, backend=BACKEND)(*arguments(problem))
    assert torch.equal(problem.cache.view(-1, 576)[slots], torch.cat([c_kv, k_pe], dim=-1)[:, 0])
    assert_right(problem, out, lse)
    assert_right(problem, static, lse)
    problem.cache.copy_(before)
    again, _ = layer(*arguments(problem))
    assert torch.equal(again, out), "eager and compiled differ"


def test_native_operators_keep_the_rules(device):
    problem = make_problem([100, 3, 0], device=device, s_q=2, h_q=16, causal=True)
    q, cache, block_table, seqlens, scale = arguments(problem)
    out, lse = torch.randn_like(q[..., :512]).contiguous(), torch.randn(3, 16, 2, device=device)
    ops = torch.ops.flash_mla
    torch.library.opcheck(
        ops.decode.default,
        (q, None, cache, None, block_table, seqlens, scale, True, None, None, None, None, out, lse),
    )
    torch.library.opcheck(ops.merge.default, ([out * 1, out * 2], [lse * 1, lse * 2]))
    cache = torch.zeros_like(cache)
    slots = torch.tensor([0, 70], device=device)
    torch.library.opcheck(ops.append_kv.default, (q[:2, 0, :1, :512], q[:2, 0, :1, 512:], cache, None, slots))
    torch.library.opcheck(ops.copy_pages.default, (cache, torch.tensor([[0, 1]], device=device)))
