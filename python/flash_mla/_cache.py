"""PagedKVCache: an engine's page pool, with block tables and layers as arrays of the caller's framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from ._frameworks import CURRENT_STREAM, DLPACK_CUDA, framework_named
from ._library import library
from ._plan import _DTYPES, dtype_name, parse_device


class CacheStats(NamedTuple):
    """What a cache holds.

    pages_in_use counts a shared page once; pages_shared are those that two or more requests reference. tokens is summed
    over requests, tokens_stored counts shared ones once. internal_fragmentation is the share of the pages in use that
    holds no token.
    """

    pages_total: int
    pages_in_use: int
    pages_shared: int
    requests: int
    tokens: int
    tokens_stored: int
    internal_fragmentation: float


class PagedKVCache:
    """The paged latent cache of an engine: pages on demand, sharing with copy-on-write, append.

    Pages are handed out as requests grow, counted by reference when requests share them, copied on the first write to
    a shared one, and free again at once. All layers share one block table. A call does all that it was asked, or raises
    and changes nothing. Requests are integers that are never used again. One owner calls a cache, on one stream.

    Args:
        num_pages: pages of each layer.
        page_size: tokens a page: 16, 32, 64 or a multiple of 64.
        num_layers: layers; each is an array [num_pages, page_size, num_heads_kv, 576].
        num_heads_kv: heads of the cache, 1 for MLA.
        dtype: bfloat16, float16 or, on the CPU, float32; of any framework, or its name.
        device: "cpu", "cuda", "cuda:1" or a torch.device.
        framework: whose arrays `layer`, `tables` and `slots` return: "torch", "numpy", "cupy" or "jax"; if not given,
            PyTorch's for a torch dtype or device or a CUDA device, else NumPy's.

    Raises:
        ValueError, TypeError: an argument is wrong.
        MemoryError: the device has no room for it.
    """

    def __init__(
        self,
        num_pages: int,
        page_size: int = 64,
        num_layers: int = 1,
        num_heads_kv: int = 1,
        dtype: Any = "bfloat16",
        device: Any = "cpu",
        framework: Optional[str] = None,
    ) -> None:
        kind, index = parse_device(device)
        self._handle = library.cache_create(
            kind, index, _DTYPES[dtype_name(dtype)], num_layers, num_pages, page_size, num_heads_kv
        )
        if framework is None:
            of_torch = any(type(value).__module__.partition(".")[0] == "torch" for value in (dtype, device))
            framework = "torch" if of_torch or kind == DLPACK_CUDA else "numpy"
        self._framework = framework_named(framework)
        self._device = self._framework.device_named(kind, index)
        self.num_pages, self.page_size, self.num_layers = num_pages, page_size, num_layers
        self.num_heads_kv, self.dtype = num_heads_kv, dtype_name(dtype)

    def add(self) -> int:
        """A new, empty request."""
        return library.cache_add(self._handle)

    def fork(self, parent: int) -> int:
        """A request that shares every token of `parent` (beam search, common prefix). Copies no page."""
        return library.cache_fork(self._handle, parent)

    def remove(self, request: int) -> None:
        """Ends a request; pages that no other request references are free at once."""
        library.cache_remove(self._handle, request)

    def grow(self, requests: Sequence[int], num_tokens: Sequence[int], *, stream: Optional[int] = None) -> None:
        """Gives requests[i] room for num_tokens[i] more tokens in every layer, and counts them as its own.

        Raises RuntimeError if the pool has too few pages: it says how many were needed and free.
        """
        library.cache_grow(self._handle, *_integers(requests, num_tokens), self._stream(stream))

    def truncate(self, request: int, length: int) -> None:
        """Forgets the tokens of a request from `length` on (rejected draft tokens)."""
        library.cache_truncate(self._handle, request, length)

    def write(
        self,
        layer: int,
        requests: Sequence[int],
        num_tokens: Sequence[int],
        c_kv: Any,
        k_pe: Any,
        *,
        stream: Optional[int] = None,
    ) -> None:
        """Writes the last num_tokens[i] tokens of requests[i] in one layer, rows in the order of requests.

        c_kv [sum of num_tokens, num_heads_kv, 512] and k_pe [..., 64], of the cache's dtype and device.
        """
        handle = self._stream(stream)
        arrays = (self._framework.export(array, handle) for array in (c_kv, k_pe))
        library.cache_write(self._handle, layer, *_integers(requests, num_tokens), *arrays, handle)

    def append(
        self, requests: Sequence[int], num_tokens: Sequence[int], c_kv: Any, k_pe: Any, *, stream: Optional[int] = None
    ) -> None:
        """grow() and write() in one, for a cache of one layer."""
        handle = self._stream(stream)
        arrays = (self._framework.export(array, handle) for array in (c_kv, k_pe))
        library.cache_append(self._handle, *_integers(requests, num_tokens), *arrays, handle)

    def slots(self, requests: Sequence[int], num_tokens: Sequence[int], *, stream: Optional[int] = None) -> Any:
        """int64 [sum of num_tokens]: page * page_size + row of the last num_tokens[i] tokens of requests[i]."""
        ids, counts = _integers(requests, num_tokens)
        host = self._framework.host_empty((sum(max(count, 0) for count in counts),), "int64")
        library.cache_slots(self._handle, ids, counts, host)
        return self._framework.to_device(host, self._device, self._stream(stream))

    def tables(
        self, requests: Sequence[int], columns: Optional[int] = None, *, stream: Optional[int] = None
    ) -> tuple[Any, Any]:
        """What decode wants: (block_table int32 [n, columns], cache_seqlens int32 [n]) on the cache's device.

        columns: width of the block table, at least max_pages(requests), which is the default. Unused entries are -1.
        """
        (ids,) = _integers(requests)
        if columns is None:
            columns = library.cache_max_pages(self._handle, ids)
        block_table = self._framework.host_empty((len(ids), max(columns, 0)), "int32")
        cache_seqlens = self._framework.host_empty((len(ids),), "int32")
        library.cache_tables(self._handle, ids, columns, block_table, cache_seqlens)
        handle = self._stream(stream)
        return (
            self._framework.to_device(block_table, self._device, handle),
            self._framework.to_device(cache_seqlens, self._device, handle),
        )

    def max_pages(self, requests: Sequence[int]) -> int:
        """Pages of the longest of these requests."""
        return library.cache_max_pages(self._handle, *_integers(requests))

    def length(self, request: int) -> int:
        """Tokens of a request."""
        return library.cache_length(self._handle, request)

    def free_pages(self) -> int:
        """Pages that no request references."""
        return library.cache_free_pages(self._handle)

    def pages_needed(self, requests: Sequence[int], num_tokens: Sequence[int]) -> int:
        """Pages that growing these requests would take from the pool, copies of shared pages included."""
        return library.cache_pages_needed(self._handle, *_integers(requests, num_tokens))

    def stats(self) -> CacheStats:
        return CacheStats(**{str(name): value for name, value in library.cache_stats(self._handle).items()})

    def layer(self, layer: int) -> Any:
        """One layer as decode's cache: [num_pages, page_size, num_heads_kv, 576], sharing the cache's memory."""
        return self._framework.wrap(library.cache_layer(self._handle, layer, not self._framework.has_bfloat16))

    def _stream(self, stream: Optional[int]) -> int:
        return CURRENT_STREAM if stream is None and self._framework.name == "torch" else self._framework.stream(stream)


def _integers(*lists: Sequence[int]) -> tuple[list[int], ...]:
    """Python integers, of lists, arrays and tensors alike."""
    return tuple([int(value) for value in values] for values in lists)
