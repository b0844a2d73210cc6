"""PagedKVCache with NumPy arrays: growth, sharing, copy-on-write, block tables, and decode over it."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from numpy_problem import DTYPES, Problem, assert_right

import flash_mla


def random_tokens(count: int, dtype: np.dtype, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, 576)).astype(dtype)


def parts(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(tokens[..., :512]), np.ascontiguousarray(tokens[..., 512:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_decode_over_a_cache_that_grows(dtype):
    cache = flash_mla.PagedKVCache(20, num_layers=2, dtype=dtype)
    requests = [cache.add() for _ in range(3)]
    for step, counts in enumerate([[70, 1, 64], [1, 1, 1], [5, 0, 60]]):
        cache.grow(requests, counts)
        for layer in range(2):
            cache.write(layer, requests, counts, *parts(random_tokens(sum(counts), dtype, 10 * step + layer)))
        block_table, seqlens = cache.tables(requests)
        assert [cache.length(request) for request in requests] == seqlens.tolist()
        for layer in range(2):
            q = np.random.default_rng(step).standard_normal((3, 2, 16, 576)).astype(dtype)
            problem = Problem(q, cache.layer(layer), block_table, seqlens, causal=True)
            assert_right(problem, *flash_mla.decode(q, cache.layer(layer), block_table, seqlens))


def test_layers_share_the_caches_memory_and_keep_it():
    cache = flash_mla.PagedKVCache(3, dtype="float32")
    layer = cache.layer(0)
    assert layer.shape == (3, 64, 1, 576) and layer.dtype == np.float32 and layer.flags.writeable
    layer[...] = 7
    assert (cache.layer(0) == 7).all()
    del cache
    gc.collect()
    assert (layer == 7).all()


def test_append_fork_and_copy_on_write():
    cache = flash_mla.PagedKVCache(4, dtype="float32")
    parent = cache.add()
    tokens = random_tokens(70, np.float32, 1)
    cache.append([parent], [70], *parts(tokens))
    child = cache.fork(parent)
    assert cache.stats().pages_shared == 2 and cache.free_pages() == 2 and cache.length(child) == 70
    assert cache.pages_needed([child], [1]) == 1  # a copy of the page that is partly filled
    cache.append([child], [1], *parts(random_tokens(1, np.float32, 2)))
    table, lengths = cache.tables([parent, child])
    assert lengths.tolist() == [70, 71] and table[0, 0] == table[1, 0] and table[0, 1] != table[1, 1]
    pages = cache.layer(0)[table[1]].reshape(-1, 1, 576)
    assert np.array_equal(pages[:70], tokens) and np.array_equal(pages[70:71], random_tokens(1, np.float32, 2))
    cache.remove(parent)
    assert cache.stats().pages_shared == 0 and cache.stats().requests == 1
    cache.truncate(child, 10)
    assert cache.stats().pages_in_use == 1
    cache.remove(child)
    assert cache.free_pages() == 4


def test_slots_and_tables():
    cache = flash_mla.PagedKVCache(5, page_size=32)
    a, b = cache.add(), cache.add()
    cache.grow([a, b], [33, 2])
    table, lengths = cache.tables([b, a], columns=4)
    assert table.shape == (2, 4) and table.dtype == np.int32 and (table[0, 1:] == -1).all()
    assert lengths.tolist() == [2, 33] and cache.max_pages([a, b]) == 2
    slots = cache.slots([a], [2])
    assert slots.dtype == np.int64 and slots.tolist() == [table[1, 0] * 32 + 31, table[1, 1] * 32]
    assert cache.tables([])[0].shape == (0, 0)


def test_a_call_that_is_refused_changes_nothing():
    cache = flash_mla.PagedKVCache(2)
    request = cache.add()
    cache.grow([request], [64])
    for call, exception, message in (
        (lambda: cache.grow([request], [65]), RuntimeError, "2 pages are needed, 1 of 2 are free"),
        (lambda: cache.grow([request], [1, 2]), ValueError, "num_tokens has 2 entries"),
        (lambda: cache.grow([request, request], [1, 1]), ValueError, "requests"),
        (lambda: cache.grow([request], [-1]), ValueError, "num_tokens"),
        (lambda: cache.grow([12345], [1]), ValueError, "12345"),
        (lambda: cache.remove(12345), ValueError, "12345"),
        (lambda: cache.fork(12345), ValueError, "12345"),
        (lambda: cache.truncate(request, 65), ValueError, "65"),
        (lambda: cache.layer(1), ValueError, "1"),
        (lambda: cache.tables([request], columns=0), ValueError, "columns"),
        (lambda: cache.write(0, [request], [1], *parts(random_tokens(2, np.float32, 0))), ValueError, "c_kv"),
    ):
        with pytest.raises(exception, match=message):
            call()
    assert cache.length(request) == 64 and cache.stats().pages_in_use == 1


def test_wrong_configurations():
    for arguments, exception, message in (
        ({"page_size": 63}, ValueError, "page_size is 63"),
        ({"num_pages": -1}, ValueError, "num_pages is -1"),
        ({"num_layers": 0}, ValueError, "num_layers is 0"),
        ({"dtype": "int8"}, TypeError, "dtype is int8"),
        ({"framework": "tinygrad"}, ValueError, "framework is 'tinygrad'"),
        ({"device": "cuda:99"}, (RuntimeError, ValueError), "(?i)cuda|99"),
    ):
        with pytest.raises(exception, match=message):
            flash_mla.PagedKVCache(**{"num_pages": 4, **arguments})
