"""The native API with NumPy arrays: plan, schedule, decode, merge, writing to a cache that the caller owns."""

from __future__ import annotations

import numpy as np
import pytest
from numpy_problem import (
    BFLOAT16,
    DTYPES,
    Problem,
    assert_close,
    assert_right,
    exact,
    exact_request,
    make_problem,
)

import flash_mla


def decode(problem: Problem, **arguments):
    return flash_mla.decode(
        problem.q, problem.cache, problem.block_table, problem.seqlens, causal=problem.causal, **arguments
    )


def apart(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(array[..., :512]), np.ascontiguousarray(array[..., 512:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_decode_makes_what_is_not_given(dtype, causal):
    problem = make_problem([100, 0, 3, 700], dtype=dtype, s_q=2, causal=causal)
    assert_right(problem, *decode(problem))


def test_decode_is_causal_by_default():
    problem = make_problem([100, 3], s_q=3, causal=True)
    assert_right(problem, *flash_mla.decode(problem.q, problem.cache, problem.block_table, problem.seqlens))


def test_query_and_cache_in_two_tensors():
    problem = make_problem([100, 0, 3], s_q=2, h_kv=2)
    joint = decode(problem)
    for q in (problem.q, apart(problem.q)):
        for cache in (problem.cache, apart(problem.cache)):
            out, lse = flash_mla.decode(q, cache, problem.block_table, problem.seqlens, causal=False)
            assert out.tobytes() == joint[0].tobytes() and lse.tobytes() == joint[1].tobytes()


def test_plan_and_schedule_serve_many_calls():
    plan = flash_mla.plan(max_batch=8, num_heads_q=16, max_seqlen_q=4, causal=False)
    assert plan.schedule_shape == (plan.num_parts + 2, 8) and plan.scratch_bytes > 0 and "num_parts" in repr(plan)
    for lengths, s_q in (([100, 0, 3], 2), ([1, 2, 3, 4, 5, 6, 7, 8], 4), ([], 1)):
        problem = make_problem(lengths, s_q=s_q)
        schedule = flash_mla.schedule(plan, problem.seqlens, seqlen_q=s_q)
        assert schedule.shape == plan.schedule_shape and schedule.dtype == np.int32
        static = np.zeros(plan.schedule_shape, np.int32)
        assert flash_mla.schedule(plan, problem.seqlens, seqlen_q=s_q, out=static) is static
        assert np.array_equal(static[: plan.num_parts + 2, :6], schedule[:, :6])
        for _ in range(2):
            assert_right(problem, *decode(problem, plan=plan, schedule=schedule))


def test_num_splits_of_a_schedule():
    plan = flash_mla.plan(max_batch=4, num_heads_q=16, num_parts=5)
    schedule = flash_mla.schedule(plan, np.array([5000, 0, 70], np.int32))
    splits = flash_mla.num_splits(plan, schedule, 4)
    assert splits[0] == 0 and splits[1] > 1 and splits[2] == splits[1] + 1 and splits[4] == splits[3]


def test_outputs_to_write_to():
    problem = make_problem([100, 0, 3], s_q=2)
    wide = np.full((3, 2, 16, 600), np.nan, np.float32).astype(BFLOAT16)
    lse = np.full((3, 16, 2), np.nan, np.float32)
    got = decode(problem, out=wide[..., :512], lse=lse)
    assert got[1] is lse and np.isnan(wide[..., 512:].astype(np.float32)).all()
    assert_right(problem, wide[..., :512], lse)


@pytest.mark.parametrize("counts", [[1, 1, 1], [3, 0, 5], [0, 0, 70], [0, 0, 0]])
def test_ragged_queries(counts):
    """Each request has its own number of query tokens; two tokens of padding come last."""
    problem = make_problem([100, 8, 300], causal=True)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    rng = np.random.default_rng(1)
    q = rng.standard_normal((starts[-1] + 2, 16, 576)).astype(BFLOAT16)
    out, lse = flash_mla.decode(
        q, problem.cache, problem.block_table, problem.seqlens, cu_seqlens_q=starts, max_seqlen_q=max(*counts, 1)
    )
    assert out.shape == (len(q), 16, 512) and lse.shape == (16, len(q))
    assert (out[starts[-1] :] == 0).all() and np.isposinf(lse[:, starts[-1] :]).all()
    for request in range(3):
        own = slice(starts[request], starts[request + 1])
        want, want_lse = exact_request(problem, request, q[own], rounded=False)
        model = exact_request(problem, request, q[own], rounded=True)[0].astype(BFLOAT16).astype(np.float64)
        assert_close(out[own], lse[:, own], want, model, want_lse)


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("s_q", [1, 2])
def test_merge_of_shards(shards, s_q):
    """Shards of 64-token pages, dealt out in runs; empty ones among them."""
    problem = make_problem([300, 0, 3, 64], s_q=s_q, dtype=np.float32)
    partials = []
    for shard in range(shards):
        first = shard * 2
        last = problem.block_table.shape[1] if shard == shards - 1 else first + 2
        lengths = np.clip(problem.seqlens, first * 64, last * 64) - first * 64
        table = np.ascontiguousarray(problem.block_table[:, first:last])
        partials.append(flash_mla.decode(problem.q, problem.cache, table, lengths.astype(np.int32), causal=False))
    assert_right(problem, *flash_mla.merge(partials))


def test_merge_refuses_what_does_not_fit():
    out, lse = decode(make_problem([100, 3], s_q=2))
    with pytest.raises(ValueError, match="partials is empty"):
        flash_mla.merge([])
    with pytest.raises(ValueError, match="lse"):
        flash_mla.merge([(out, lse[:, :, :1])])
    with pytest.raises(TypeError, match=r"partials\[0\]"):
        flash_mla.merge([("out", lse)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_append_to_an_own_cache(dtype):
    problem = make_problem([100, 3], dtype=dtype)
    cache = np.full_like(problem.cache, np.nan)
    slots, rows = [], []
    for request, length in enumerate(problem.seqlens):
        for token in range(length):
            page, row = problem.block_table[request, token // 64], token % 64
            slots.append(int(page) * 64 + row)
            rows.append(problem.cache[page, row])
    tokens = np.stack([*rows, rows[0]])
    flash_mla.append_kv(*apart(tokens), cache, np.array([*slots, -1], np.int64))  # the last is skipped
    assert_right(problem, *flash_mla.decode(problem.q, cache, problem.block_table, problem.seqlens, causal=False))
    with pytest.raises(ValueError, match=r"slot_mapping\[0\] is 999999"):
        flash_mla.append_kv(*apart(tokens[:1]), cache, np.array([999999], np.int64))


def test_copy_pages():
    problem = make_problem([64, 64])
    flash_mla.copy_pages(problem.cache, np.array([[problem.block_table[0, 0], problem.block_table[1, 0]]], np.int64))
    problem.q[1] = problem.q[0]
    out, _ = decode(problem)
    assert np.array_equal(out[0], out[1])
    with pytest.raises(ValueError, match="page_pairs"):
        flash_mla.copy_pages(problem.cache, np.array([[0, 99]], np.int64))


def test_wrong_arguments():
    problem = make_problem([100, 3])
    plan = flash_mla.plan(max_batch=1, num_heads_q=16)
    with pytest.raises(ValueError, match="max_batch = 1"):
        decode(problem, plan=plan)
    with pytest.raises(ValueError, match="q is a tuple of 3"):
        flash_mla.decode((problem.q,) * 3, problem.cache, problem.block_table, problem.seqlens)
    with pytest.raises(ValueError, match="q_rope"):
        flash_mla.decode(apart(problem.q)[0], problem.cache, problem.block_table, problem.seqlens)
    with pytest.raises(TypeError, match="block_table is a builtins.list"):
        flash_mla.decode(problem.q, problem.cache, [[0]], problem.seqlens)
    with pytest.raises(ValueError, match=r"out\.shape\[3\] is 511"):
        decode(problem, out=np.zeros((2, 1, 16, 511), BFLOAT16))
    with pytest.raises(ValueError, match="schedule"):
        decode(problem, schedule=np.zeros((1, 8), np.int32))
    with pytest.raises(ValueError, match="schedule is not contiguous"):
        decode(problem, schedule=np.zeros((20, 16), np.int32)[:, ::2])


def test_of_many_threads():
    """Threads that decode at once, each with its own result."""
    import concurrent.futures

    problems = [make_problem([100 + 50 * seed, 3], seed=seed) for seed in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for problem, result in zip(problems, pool.map(decode, problems)):
                assert_right(problem, *result)


def test_exact_is_a_softmax():
    """The tests' own reference: weights that sum to one, a mask of the last tokens."""
    problem = make_problem([5], s_q=5, causal=True, dtype=np.float32)
    out, lse = exact(problem)
    first = problem.cache[problem.block_table[0, 0], 0, 0].astype(np.float64)
    assert np.allclose(out[0, 0, 0], first[:512]), "the first query token sees the first cached token alone"
    assert np.allclose(lse[0, 0, 0], problem.scale * (problem.q[0, 0, 0].astype(np.float64) @ first))
