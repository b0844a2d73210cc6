"""A random decode problem in NumPy, its exact result in float64, and what counts as right.

Shares nothing with the library. Tokens past a request's length, unused pages and unused block-table entries are
poisoned, so whatever reads them shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

HEAD_DIM, LATENT = 576, 512
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [BFLOAT16, np.dtype(np.float16), np.dtype(np.float32)]


@dataclasses.dataclass
class Problem:
    q: np.ndarray  # [b, s_q, h_q, 576]
    cache: np.ndarray  # [num_pages, page_size, h_kv, 576]
    block_table: np.ndarray  # int32 [b, columns]
    seqlens: np.ndarray  # int32 [b]
    causal: bool
    scale: float = HEAD_DIM**-0.5

    @property
    def num_heads_kv(self) -> int:
        return self.cache.shape[2]

    @property
    def queries_per_head_k(self) -> int:
        return self.q.shape[1] * self.q.shape[2] // self.num_heads_kv


def make_problem(
    lengths: Sequence[int],
    *,
    dtype: Any = BFLOAT16,
    s_q: int = 1,
    h_q: int = 16,
    h_kv: int = 1,
    page_size: int = 64,
    causal: bool = False,
    poison: float = float("nan"),
    seed: int = 0,
) -> Problem:
    """Pages in random order."""
    rng = np.random.default_rng(seed)
    pages = [-(-length // page_size) for length in lengths]
    num_pages = sum(pages) + 2
    cache = np.full((num_pages, page_size, h_kv, HEAD_DIM), poison, np.float32)
    block_table = np.full((len(lengths), max(pages, default=0)), -1, np.int32)
    order = list(rng.permutation(num_pages))
    for request, length in enumerate(lengths):
        for column in range(pages[request]):
            page = order.pop()
            block_table[request, column] = page
            used = min(page_size, length - column * page_size)
            cache[page, :used] = rng.standard_normal((used, h_kv, HEAD_DIM))
    q = rng.standard_normal((len(lengths), s_q, h_q, HEAD_DIM))
    return Problem(q.astype(dtype), cache.astype(dtype), block_table, np.array(lengths, np.int32), causal)


def exact_request(problem: Problem, request: int, q: np.ndarray, rounded: bool) -> tuple[np.ndarray, np.ndarray]:
    """(out [n, h_q, 512], lse [h_q, n]) in float64 of query tokens q [n, h_q, 576], the last of the request."""
    n, h_q, _ = q.shape
    length, (page_size, h_kv) = int(problem.seqlens[request]), problem.cache.shape[1:3]
    if length == 0 or n == 0:
        return np.zeros((n, h_q, LATENT)), np.full((h_q, n), np.inf)
    pages = problem.block_table[request, : -(-length // page_size)]
    k = problem.cache[pages].reshape(-1, h_kv, HEAD_DIM)[:length].astype(np.float64)
    k = np.repeat(k, h_q // h_kv, axis=1)
    scores = np.einsum("qhd,khd->hqk", q.astype(np.float64), k) * problem.scale
    if problem.causal:
        last = length - n + np.arange(n)
        scores[:, np.arange(length) > last[:, None]] = -np.inf
    most = scores.max(-1, keepdims=True)
    sees = most > -np.inf
    weights = np.where(sees, np.exp(scores - np.where(sees, most, 0)), 0)
    if rounded:
        weights = weights.astype(q.dtype).astype(np.float64)
    total = np.where(sees, weights.sum(-1, keepdims=True), 1)
    out = np.einsum("hqk,khd->qhd", weights / total, k[..., :LATENT])
    return out, np.where(sees, most + np.log(total), np.inf)[..., 0]


def exact(problem: Problem, rounded: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(out [b, s_q, h_q, 512], lse [b, h_q, s_q]); with `rounded` out is the model of what every kernel must round."""
    b, s_q, h_q, _ = problem.q.shape
    if b == 0:
        return np.zeros((0, s_q, h_q, LATENT)), np.zeros((0, h_q, s_q))
    rows = [exact_request(problem, request, q, rounded) for request, q in enumerate(problem.q)]
    out, lse = np.stack([out for out, _ in rows]), np.stack([lse for _, lse in rows])
    return (out.astype(problem.q.dtype).astype(np.float64) if rounded else out), lse


def assert_close(out: np.ndarray, lse: np.ndarray, want: np.ndarray, model: np.ndarray, want_lse: np.ndarray) -> None:
    """Per row: no further from exact than 1.5 x what rounding alone costs, plus a slack for sums in fp32."""
    assert out.shape == want.shape and lse.dtype == np.float32 and lse.shape == want_lse.shape
    slack = 2.0**-14 if out.dtype == np.float32 else 2.0**-10
    out = out.astype(np.float64)
    assert np.isfinite(out).all(), "out is not finite"
    error = np.linalg.norm(out - want, axis=-1)
    bound = 1.5 * np.linalg.norm(model - want, axis=-1) + slack * np.linalg.norm(want, axis=-1)
    assert (error <= bound).all(), f"{(error > bound).sum()} rows are wrong, the worst by {(error - bound).max()}"
    assert np.array_equal(np.isposinf(lse), np.isposinf(want_lse)), "lse is +inf in other rows"
    rows = np.isfinite(want_lse)
    difference = np.abs(lse[rows] - want_lse[rows])
    assert (difference <= 1e-5 + 3e-5 * np.abs(want_lse[rows])).all(), f"lse is off by {difference.max()}"


def assert_right(problem: Problem, out: Any, lse: Any) -> None:
    out, lse = np.asarray(out), np.asarray(lse)
    assert out.dtype == problem.q.dtype, out.dtype
    want, want_lse = exact(problem)
    assert_close(out, lse, want, exact(problem, rounded=True)[0], want_lse)
