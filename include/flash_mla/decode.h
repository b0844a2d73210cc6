// schedule() once per step, decode() once per layer: Multi-head Latent Attention over a paged latent cache.
//
//   s[i][t] = softmax_scale * <q[i], k[t]>        q, k: 576 wide = 512 latent + 64 rope
//   out[i]  = sum_t softmax(s[i])[t] * k[t][0:512]
//   lse[i]  = ln sum_t exp(s[i][t])               natural logarithm
//
// (DeepSeek-V2, arXiv:2405.04434, section 2.1, with W_UK absorbed into q and W_UV applied to out by the caller.)
// A row that sees no token gives out = 0 and lse = +inf. Every element of out and lse is written.
#pragma once

#include "flash_mla/export.h"
#include "flash_mla/plan.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

// The lengths of one step. b <= max_batch requests.
struct ScheduleArgs {
  TensorView cache_seqlens;   // i32 [b], tokens in the cache of each request, the step's own included; >= 0
  TensorView cu_seqlens_q;    // i32 [b + 1], ragged queries only: request r owns query tokens cu[r] .. cu[r + 1] - 1
  std::int32_t seqlen_q = 0;  // uniform queries only: s_q; 0 means the plan's max_seqlen_q
};

// The tensors of one layer. Uniform queries: q [b, s_q, h_q, d]. Ragged queries: q [total_q, h_q, d].
// d is 576, or 512 with the rope part in a tensor of its own. The last dimension is contiguous everywhere; all other
// strides are free, on CUDA devices where bases and strides of q, cache and out are multiples of 16 bytes. Elements of
// outputs must not overlap. Ragged queries: tokens of q past cu_seqlens_q[b] are padding; they get out = 0, lse = +inf.
struct DecodeArgs {
  TensorView q;              // dtype [b, s_q, h_q, 576 or 512] or [total_q, h_q, 576 or 512]
  TensorView q_rope;         // dtype, as q with 64 columns; given exactly if q has 512
  TensorView kv_cache;       // dtype [num_pages, page_size, h_kv, 576 or 512]
  TensorView k_rope_cache;   // dtype [num_pages, page_size, h_kv, 64]; given exactly if kv_cache has 512
  TensorView block_table;    // i32 [b, max_pages]; entries past ceil(length / page_size) are never read
  TensorView cache_seqlens;  // i32 [b], as given to schedule
  TensorView cu_seqlens_q;   // i32 [b + 1], ragged queries only, as given to schedule
  TensorView out;            // dtype [b, s_q, h_q, 512] or [total_q, h_q, 512]
  TensorView lse;            // f32 [b, h_q, s_q] or [h_q, total_q]; optional
  float softmax_scale = 0;   // > 0; usually 1 / sqrt(128 + 64) of the uncompressed head (times YaRN's factor)
};

// Cuts the step's work into plan.num_parts() balanced parts. Asynchronous on CUDA; needs no copy to the host.
// Errors: invalid_argument. On the CPU lengths are checked; on CUDA they are on the device and a negative one counts
// as 0. Thread-safe for distinct schedule memories.
FLASH_MLA_API Status schedule(const Plan& plan, const ScheduleArgs& args, MemoryView schedule_memory,
                              Stream stream = {}) noexcept;

// How many parts share each request, as FlashMLA's callers know it: num_splits i32 [b + 1], contiguous, on the plan's
// device; num_splits[0] = 0 and num_splits[r + 1] - num_splits[r] = parts that work on request r, at least 1, or 0 for
// requests past those of the schedule. For callers' statistics; decode needs no such tensor. Errors: invalid_argument.
FLASH_MLA_API Status num_splits(const Plan& plan, MemoryView schedule_memory, const TensorView& num_splits,
                                Stream stream = {}) noexcept;

// Decodes one layer. `schedule_memory` is only read: layers and streams may share it. `scratch` belongs to this call
// until it has finished. Thread-safe for distinct scratch and outputs. On CUDA its kernel begins early (programmatic
// dependent launch), and reads the schedule and cache_seqlens before the kernel before it in the stream has finished:
// the kernel that writes these must not itself let others begin early. Of the block table it may look up pages to fetch
// into the L2 cache; should they still change, nothing depends on that. All else waits. Errors: invalid_argument names
// the argument and its value, and nothing was written; on the CPU also a schedule made for other lengths and a page id
// that is out of range. On CUDA those two give undefined values in `out` and `lse` for the requests concerned, never an
// access outside the given tensors in the case of changed lengths.
FLASH_MLA_API Status decode(const Plan& plan, const DecodeArgs& args, MemoryView schedule_memory, MemoryView scratch,
                            Stream stream = {}) noexcept;

// Merges n results of disjoint shards of the same sequences (context parallelism):
//   lse = ln sum_i exp(lse_i), out = sum_i exp(lse_i - lse) * out_i.
// n >= 1. The last dimensions of 512 are contiguous; on CUDA devices bases and strides of the outs are multiples of 16
// bytes. A shard in which a row saw no token carries lse_i = +inf (as decode writes it) or -inf and is skipped.
struct MergeArgs {
  TensorView partial_out;  // f32, bf16 or f16 [n, rows, 512]
  TensorView partial_lse;  // f32 [n, rows]
  TensorView out;          // any of the float types [rows, 512]
  TensorView lse;          // f32 [rows]; optional
};

// Thread-safe for distinct outputs.
FLASH_MLA_API Status merge(const MergeArgs& args, Stream stream = {}) noexcept;

}  // namespace flash_mla
