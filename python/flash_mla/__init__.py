"""FlashMLA: Multi-head Latent Attention decoding over a paged latent cache, on Hopper GPUs and x86-64 CPUs.

FlashMLA's own interface (get_mla_metadata, flash_mla_with_kvcache, ...) and a native one (plan, schedule, decode,
PagedKVCache, merge, ...). docs/python.md of the project describes both.
"""

from __future__ import annotations

from ._cache import CacheStats, PagedKVCache
from ._decode import append_kv, copy_pages, decode, merge, num_splits, schedule
from ._frameworks import prepare_torch as _prepare_torch
from ._library import library as _library
from ._plan import Plan, PlanConfig, backends, device_info, plan
from .flash_mla_interface import (
    FlashMLASchedMeta,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
    flash_mla_sparse_fwd,
    flash_mla_with_kvcache,
    get_mla_metadata,
)

__version__: str = str(_library.version())
_prepare_torch()

__all__ = [
    "CacheStats",
    "FlashMLASchedMeta",
    "PagedKVCache",
    "Plan",
    "PlanConfig",
    "append_kv",
    "backends",
    "copy_pages",
    "decode",
    "device_info",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_mla_sparse_fwd",
    "flash_mla_with_kvcache",
    "get_mla_metadata",
    "merge",
    "num_splits",
    "plan",
    "schedule",
]
