"""What only a GPU can show: CUDA graphs, streams, no synchronisation, the kernel's name in a profile."""

from __future__ import annotations

import pytest
import torch
from torch_problem import LATENT, Problem, assert_right, make_problem, set_lengths

from flash_mla import flash_mla_with_kvcache, get_mla_metadata

pytestmark = pytest.mark.gpu
BATCH, LONGEST = 12, 6000


def decode(problem: Problem, meta: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    return flash_mla_with_kvcache(
        problem.q, problem.cache, problem.block_table, problem.seqlens, LATENT, *meta, causal=problem.causal
    )


def metadata(problem: Problem) -> tuple:
    return get_mla_metadata(problem.seqlens, problem.queries_per_head_k, problem.num_heads_kv)


# Captured at length 1; replayed longer, shorter, with gaps and with nothing at all.
REPLAYS = [
    [LONGEST] + [1] * (BATCH - 1),
    [300] * BATCH,
    [0] * BATCH,
    [1] * BATCH,
    [i * 137 % 900 for i in range(BATCH)],
]


def static_problem() -> Problem:
    problem = make_problem([LONGEST // 4] * BATCH, device="cuda", s_q=2, h_q=16, causal=True, columns=-(-LONGEST // 64))
    set_lengths(problem, [1] * BATCH, seed=99)
    return problem


@pytest.mark.parametrize("rows_per_head", [1, 16, 64, 128, 512])
def test_metadata_fits_the_buffers_of_engines(rows_per_head):
    """They have a row for each multiprocessor, whatever the batch."""
    seqlens = torch.ones(3, dtype=torch.int32, device="cuda")
    rows, _ = get_mla_metadata(seqlens, rows_per_head, 1)
    assert rows.shape[0] <= torch.cuda.get_device_properties(0).multi_processor_count


def test_graph_with_the_schedule_inside():
    problem = static_problem()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        decode(problem, metadata(problem))  # warm up
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        out, lse = decode(problem, metadata(problem))
    for seed, lengths in enumerate(REPLAYS):
        set_lengths(problem, lengths, seed)
        graph.replay()
        assert_right(problem, out, lse)


def test_graph_with_metadata_in_static_buffers():
    """As serving engines do: metadata computed outside for the real requests, copied in, the rest is padding."""
    problem = static_problem()
    rows, splits = (tensor.clone() for tensor in metadata(problem))
    decode(problem, (rows, splits))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = decode(problem, (rows, splits))
    for seed, lengths in enumerate(REPLAYS):
        used = BATCH - 3 * (seed % 2)
        lengths = lengths[:used] + [0] * (BATCH - used)
        set_lengths(problem, lengths, seed)
        new_rows, new_splits = get_mla_metadata(problem.seqlens[:used], problem.queries_per_head_k, 1)
        rows.copy_(new_rows)
        splits[: used + 1].copy_(new_splits)
        splits[used + 1 :] = new_splits[-1]
        graph.replay()
        assert_right(problem, out, lse)


def test_graph_with_the_metadata_object():
    problem = static_problem()
    decode(problem, get_mla_metadata())
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        meta = get_mla_metadata()
        results = [decode(problem, meta) for _ in range(2)]
    for seed, lengths in enumerate(REPLAYS):
        set_lengths(problem, lengths, seed)
        graph.replay()
        for out, lse in results:
            assert_right(problem, out, lse)


def test_work_goes_to_the_current_stream():
    """Decode waits for what its stream still has to do: the queries arrive after a long sleep."""
    problem = make_problem([300, 70], device="cuda", h_q=64)
    queries, problem.q = problem.q, torch.full_like(problem.q, float("nan"))
    decode(problem, metadata(problem))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        problem.q.copy_(queries)
        out, lse = decode(problem, metadata(problem))
    assert not stream.query(), "the call waited for the device"
    stream.synchronize()
    assert_right(problem, out, lse)


def test_two_streams_at_once():
    problems = [make_problem([2000 + 100 * i] * 8, device="cuda", seed=i) for i in range(4)]
    streams = [torch.cuda.Stream() for _ in problems]
    torch.cuda.synchronize()
    results = []
    for _ in range(5):
        results = []
        for problem, stream in zip(problems, streams):
            with torch.cuda.stream(stream):
                results.append(decode(problem, metadata(problem)))
    torch.cuda.synchronize()
    for problem, (out, lse) in zip(problems, results):
        assert_right(problem, out, lse)


def test_memory_is_reused_safely():
    """Scratch and results come from PyTorch's allocator: many calls in flight whose tensors are dropped at once."""
    problem = make_problem([5000, 40, 900], device="cuda", h_q=128)
    meta = metadata(problem)
    first, first_lse = decode(problem, meta)
    for _ in range(200):
        out, lse = decode(problem, meta)
        torch.full_like(out, float("nan"))
    assert torch.equal(first, out) and torch.equal(first_lse, lse)
    assert_right(problem, out, lse)


def test_kernel_name_in_a_profile():
    problem = make_problem([300, 70], device="cuda")
    meta = metadata(problem)
    decode(problem, meta)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        decode(problem, meta)
        torch.cuda.synchronize()
    names = [event.name for event in profile.events()]
    assert any("flash_fwd_splitkv_mla_kernel" in name for name in names), names


def test_large_batch_of_many_heads():
    problem = make_problem([(i * 379) % 3000 for i in range(64)], device="cuda", s_q=2, h_q=128, causal=True)
    assert_right(problem, *decode(problem, metadata(problem)))


def test_graph_replays_beside_eager_calls():
    """A graph captured on a stream is replayed on another, while the first one goes on with eager calls."""
    graphed, eager = (make_problem([3000 + 500 * i] * 4, device="cuda", h_q=128, seed=i) for i in range(2))
    for problem in (graphed, eager):
        decode(problem, metadata(problem))
    torch.cuda.synchronize()
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph):
        out, lse = decode(graphed, metadata(graphed))
    results = []
    for _ in range(20):
        with torch.cuda.stream(side):
            graph.replay()
        results.append(decode(eager, metadata(eager)))
    torch.cuda.synchronize()
    assert_right(graphed, out, lse)
    for result in results:
        assert torch.equal(result[0], results[0][0])
    assert_right(eager, *results[0])
