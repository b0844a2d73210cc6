"""A random decode problem in PyTorch, its exact result in float64, and what counts as right.

Shares nothing with the library. Tokens past a request's length, unused pages and unused block-table entries are
poisoned, so whatever reads them shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

HEAD_DIM, LATENT = 576, 512


@dataclasses.dataclass
class Problem:
    q: Tensor  # [b, s_q, h_q, 576]
    cache: Tensor  # [num_pages, page_size, h_kv, 576]
    block_table: Tensor  # int32 [b, columns]
    seqlens: Tensor  # int32 [b]
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
    device: str,
    dtype: torch.dtype = torch.bfloat16,
    s_q: int = 1,
    h_q: int = 16,
    h_kv: int = 1,
    page_size: int = 64,
    causal: bool = False,
    columns: int | None = None,
    seed: int = 0,
) -> Problem:
    """Pages in random order; `columns` widens the block table, as engines do that size it for the longest request."""
    generator = torch.Generator().manual_seed(seed)
    pages = [-(-length // page_size) for length in lengths]
    num_pages = sum(pages) + 2
    cache = torch.full((num_pages, page_size, h_kv, HEAD_DIM), float("nan"))
    columns = columns or max(pages, default=0)
    block_table = torch.full((len(lengths), columns), -1, dtype=torch.int32)
    order = torch.randperm(num_pages, generator=generator).tolist()
    for request, length in enumerate(lengths):
        for column in range(pages[request]):
            page = order.pop()
            block_table[request, column] = page
            used = min(page_size, length - column * page_size)
            cache[page, :used] = torch.randn(used, h_kv, HEAD_DIM, generator=generator)
    q = torch.randn(len(lengths), s_q, h_q, HEAD_DIM, generator=generator)
    return Problem(
        q.to(device, dtype), cache.to(device, dtype), block_table.to(device),
        torch.tensor(lengths, dtype=torch.int32, device=device), causal,
    )  # fmt: skip


def set_lengths(problem: Problem, lengths: Sequence[int], seed: int) -> None:
    """New lengths, pages and values in the same tensors: what an engine does between two replays of a graph."""
    _, page_size, h_kv, _ = problem.cache.shape
    _, s_q, h_q, _ = problem.q.shape
    device = str(problem.q.device)
    other = make_problem(
        lengths, device=device, dtype=problem.q.dtype, s_q=s_q, h_q=h_q, h_kv=h_kv, page_size=page_size,
        columns=problem.block_table.shape[1], seed=seed,
    )  # fmt: skip
    problem.cache.fill_(float("nan"))
    problem.cache[: len(other.cache)].copy_(other.cache)
    problem.block_table.copy_(other.block_table)
    problem.seqlens.copy_(other.seqlens)
    problem.q.copy_(other.q)


def exact(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """(out, out of a model that rounds what every kernel must, lse) in float64.

    [b, s_q, h_q, 512] twice and [b, h_q, s_q]. The model rounds the weights and its result to the tensors' dtype.
    """
    b, s_q, h_q, _ = problem.q.shape
    page_size, h_kv = problem.cache.shape[1:3]
    out = torch.zeros(b, s_q, h_q, LATENT, dtype=torch.float64, device=problem.q.device)
    model = torch.zeros_like(out)
    lse = torch.full((b, h_q, s_q), float("inf"), dtype=torch.float64, device=problem.q.device)
    for request, length in enumerate(problem.seqlens.tolist()):
        if length == 0:
            continue
        pages = problem.block_table[request, : -(-length // page_size)].long()
        k = problem.cache[pages].reshape(-1, h_kv, HEAD_DIM)[:length].double()
        k = k.repeat_interleave(h_q // h_kv, dim=1)
        scores = torch.einsum("qhd,khd->hqk", problem.q[request].double(), k) * problem.scale
        if problem.causal:
            last = length - s_q + torch.arange(s_q, device=k.device)
            scores.masked_fill_(torch.arange(length, device=k.device) > last[:, None], float("-inf"))
        sums = scores.logsumexp(-1)
        sees = sums > float("-inf")
        weights = torch.where(sees[..., None], (scores - scores.amax(-1, keepdim=True)).exp(), 0.0)
        for result, w in ((out, weights), (model, weights.to(problem.q.dtype).double())):
            total = torch.where(sees[..., None], w.sum(-1, keepdim=True), 1.0)
            result[request] = torch.einsum("hqk,khd->qhd", w / total, k[..., :LATENT])
        lse[request] = torch.where(sees, sums, float("inf"))
    return out, model.to(problem.q.dtype).double(), lse


def assert_right(problem: Problem, out: Tensor, lse: Tensor, requests: slice = slice(None)) -> None:
    """Per row: no further from exact than 1.5 x what rounding alone costs, plus a slack for sums in fp32."""
    want, model, want_lse = exact(problem)
    assert out.dtype == problem.q.dtype and out.shape == want.shape, (out.dtype, out.shape)
    assert lse.dtype == torch.float32 and lse.shape == want_lse.shape, (lse.dtype, lse.shape)
    out, lse = out.double()[requests], lse.double()[requests]
    want, want_lse, model = want[requests], want_lse[requests], model[requests]
    assert bool(out.isfinite().all()), "out is not finite"
    slack = 2.0**-14 if problem.q.dtype == torch.float32 else 2.0**-10
    error = (out - want).norm(dim=-1)
    bound = 1.5 * (model - want).norm(dim=-1) + slack * want.norm(dim=-1)
    assert bool((error <= bound).all()), (
        f"{int((error > bound).sum())} rows wrong, worst {float((error - bound).max())}"
    )
    assert torch.equal(lse.isposinf(), want_lse.isposinf()), "lse is +inf in other rows"
    rows = want_lse.isfinite()
    difference = (lse - want_lse)[rows].abs()
    assert bool((difference <= 1e-5 + 3e-5 * want_lse[rows].abs()).all()), f"lse off by {float(difference.max())}"
