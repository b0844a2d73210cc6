// What the host passes to the decode kernels.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "core/problem.h"
#include "cuda/combine/merge_params.h"
#include "schedule/records.h"

namespace flash_mla::sm90 {

// How the copy engine sees the tensors, innermost dimension first.
struct TensorMaps {
  CUtensorMap k_latent;  // [64, page_size, 8 slices, h_kv, num_pages], box [64, 64, 2, 1, 1], of shorter pages
                         // [64, page_size, 1, 1, 1]
  CUtensorMap k_rope;    // with 1 slice
  CUtensorMap q_latent;  // [64, rows of a period, periods, 8 slices, batch], box of 8 or 2 slices of a thread block's
                         // rows (see DecodeParams::q_period); with several kv heads [512, .., .., h_kv, batch], of one
  CUtensorMap q_rope;    // with 1 slice
};

struct DecodeParams : cuda::MergeParams {
  const ScheduleHeader* header = nullptr;
  std::int32_t cohort = 1;      // thread blocks that share a part, each with its rows of a unit
  bool blocks_at_once = false;  // a block is asked for when there is room for all of it

  const std::int32_t* block_table = nullptr;  // [b, columns]
  std::int64_t block_table_stride = 0;
  std::int64_t block_table_columns = 0;
  std::int32_t page_size = 64;
  std::int32_t num_pages = 0;
  std::int64_t total_q = 0;  // ragged: query tokens with padding

  // Q through the copy engine: packed row r is row r mod q_period of period r / q_period. 0: 64 packed rows are no
  // box of the tensor; gathered by ordinary loads.
  std::int32_t q_period = 0;
  RowsView q_latent;
  RowsView q_rope;

  float scale_log2 = 0.f;  // softmax_scale log2(e), > 0
};

}  // namespace flash_mla::sm90
