// The validated form of each call's arguments: raw pointers, int64 strides in elements, every shape already consistent.
// Made by api/validate, consumed by the backends. A tensor that came joined (576 wide) is two views into it.
#pragma once

#include <cstdint>

#include "flash_mla/types.h"

namespace flash_mla {

// Rows of one tensor: base + batch * batch_stride + token * token_stride + head * head_stride. Ragged queries have
// batch_stride 0 and count tokens over the whole step.
struct RowsView {
  void* data = nullptr;
  std::int64_t batch_stride = 0;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
};

// Of the caller's scratch, and of the regions that backends make in it.
inline constexpr std::int64_t kScratchAlignmentBytes = 128;

// One part (latent or rope) of a paged cache: base + page * page_stride + row * token_stride + head * head_stride.
struct PagesView {
  void* data = nullptr;
  std::int64_t page_stride = 0;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
};

struct CacheView {
  PagesView latent;    // [num_pages, page_size, h_kv, 512]
  PagesView rope;      // [num_pages, page_size, h_kv, 64]
  bool joint = false;  // both lie in one tensor of 576
  std::int64_t num_pages = 0;
  std::int32_t page_size = 0;
};

// The requests of a step and their lengths. Pointers are on the plan's device.
struct BatchView {
  std::int32_t batch = 0;
  std::int32_t seqlen_q = 0;  // s_q when uniform; the plan's bound when ragged
  // Query tokens of the step. Ragged decode: rows of q; tokens from cu_seqlens_q[b] on belong to no request and are
  // written as rows that see nothing (out = 0, lse = +inf).
  std::int64_t total_q = 0;
  const std::int32_t* cache_seqlens = nullptr;  // [b]
  std::int64_t cache_seqlens_stride = 1;
  const std::int32_t* cu_seqlens_q = nullptr;  // [b + 1], null when uniform
};

struct DecodeProblem {
  DType dtype = DType::bf16;
  BatchView batch;
  std::int32_t num_heads_q = 0;
  std::int32_t num_heads_kv = 1;
  bool causal = true;
  float softmax_scale = 0;

  RowsView q_latent;  // [.., h_q, 512]
  RowsView q_rope;    // [.., h_q, 64]
  bool q_joint = false;
  CacheView cache;
  const std::int32_t* block_table = nullptr;  // [b, block_table_columns]
  std::int64_t block_table_stride = 0;
  std::int64_t block_table_columns = 0;
  RowsView out;  // [.., h_q, 512]
  RowsView lse;  // f32, one element a row; data null when not wanted
};

struct MergeProblem {
  DType partial_dtype = DType::f32;
  DType out_dtype = DType::f32;
  std::int64_t shards = 0;
  std::int64_t rows = 0;
  const void* partial_out = nullptr;  // [shards, rows, 512]
  std::int64_t partial_out_shard_stride = 0;
  std::int64_t partial_out_row_stride = 0;
  const float* partial_lse = nullptr;  // [shards, rows]
  std::int64_t partial_lse_shard_stride = 0;
  std::int64_t partial_lse_row_stride = 0;
  void* out = nullptr;  // [rows, 512]
  std::int64_t out_row_stride = 0;
  float* lse = nullptr;  // [rows] or null
  std::int64_t lse_stride = 0;
};

struct AppendProblem {
  DType dtype = DType::bf16;
  std::int64_t tokens = 0;
  std::int32_t num_heads_kv = 1;
  RowsView c_kv;  // [n, h_kv, 512]; batch_stride unused
  RowsView k_pe;  // [n, h_kv, 64]
  CacheView cache;
  const std::int64_t* slots = nullptr;  // [n]
  std::int64_t slots_stride = 1;
};

struct CopyPagesProblem {
  PagesView pages;  // rows of `columns` elements
  std::int32_t element_bytes = 2;
  std::int32_t page_size = 0;
  std::int32_t num_heads_kv = 1;
  std::int32_t columns = 0;
  std::int64_t num_pages = 0;
  std::int64_t pairs = 0;
  const std::int64_t* page_pairs = nullptr;  // [pairs, 2], contiguous
};

}  // namespace flash_mla
