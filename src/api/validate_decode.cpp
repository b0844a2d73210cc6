// decode: the tensors of a layer, the two memories and, on the CPU, the values of lengths, table and schedule.
#include <array>
#include <cmath>

#include "api/batch_checks.h"
#include "api/cache_checks.h"
#include "api/limits.h"
#include "api/message.h"
#include "api/schedule_checks.h"
#include "api/tensor_checks.h"
#include "api/validate.h"

namespace flash_mla {
namespace {

// What the arguments reach. Before kWritten: what decode writes.
enum Argument {
  kOut,
  kLse,
  kScratch,
  kWritten,
  kScheduleMemory = kWritten,
  kQ,
  kQRope,
  kKvCache,
  kKRopeCache,
  kBlockTable,
  kCacheSeqlens,
  kCuSeqlensQ,
  kArguments
};
using Spans = std::array<Span, kArguments>;

// [b, s_q, h_q, d] (uniform) or [total_q, h_q, d] (ragged).
template <bool kRagged>
RowsView rows_of(const TensorView& view, std::int64_t first_column) {
  constexpr int kTokenAxis = kRagged ? 0 : 1;
  return {column_address(view, first_column), kRagged ? 0 : stride_of(view, 0), stride_of(view, kTokenAxis),
          stride_of(view, kTokenAxis + 1)};
}

// [b, h_q, s_q] or [h_q, total_q].
template <bool kRagged>
RowsView lse_rows_of(const TensorView& view) {
  constexpr int kHeadAxis = kRagged ? 0 : 1;
  return {view.data, kRagged ? 0 : stride_of(view, 0), stride_of(view, kHeadAxis + 1), stride_of(view, kHeadAxis)};
}

template <bool kRagged>
Status check_queries(const Plan& plan, const DecodeArgs& args, DecodeProblem* problem, Spans* spans) {
  constexpr int kRank = kRagged ? 3 : 4;
  const PlanConfig& config = plan.config();
  const Tensor q{"q", args.q, &(*spans)[kQ]};
  const Tensor q_rope{"q_rope", args.q_rope, &(*spans)[kQRope]};
  FLASH_MLA_RETURN_IF_ERROR(check_form(q, kRank,
                                       kRagged ? "[total_q, h_q, 576 or 512], as cu_seqlens_q is given"
                                               : "[b, s_q, h_q, 576 or 512], as cu_seqlens_q is not given",
                                       config.dtype, config.device));
  BatchView& batch = problem->batch;
  if constexpr (kRagged) {
    const std::int64_t bound = config.max_total_q < kInt32Max ? config.max_total_q : kInt32Max;
    if (args.q.shape[0] > bound) {
      return invalid("q.shape[0] is ", args.q.shape[0], "; the plan allows max_total_q = ", bound);
    }
    batch.seqlen_q = config.max_seqlen_q;
    batch.total_q = args.q.shape[0];
  } else {
    FLASH_MLA_RETURN_IF_ERROR(check_dim(q, 0, batch.batch, "as cache_seqlens.shape[0]"));
    FLASH_MLA_RETURN_IF_ERROR(check_uniform_queries(plan, batch.batch, args.q.shape[1], "q.shape[1]"));
    batch.seqlen_q = static_cast<std::int32_t>(args.q.shape[1]);
    batch.total_q = args.q.shape[0] * args.q.shape[1];
  }
  FLASH_MLA_RETURN_IF_ERROR(check_dim(q, kRank - 2, config.num_heads_q, "the plan's num_heads_q"));
  FLASH_MLA_RETURN_IF_ERROR(check_columns(q, q_rope, kRagged ? "[total_q, h_q, 64]" : "[b, s_q, h_q, 64]"));

  const MemoryRule rule{.tma_aligned = needs_tma(config.device)};
  FLASH_MLA_RETURN_IF_ERROR(check_memory<kRank>(q, rule));
  if (args.q_rope.given()) FLASH_MLA_RETURN_IF_ERROR(check_memory<kRank>(q_rope, rule));
  problem->q_joint = !args.q_rope.given();
  problem->q_latent = rows_of<kRagged>(args.q, 0);
  problem->q_rope = problem->q_joint ? rows_of<kRagged>(args.q, kLatentDim) : rows_of<kRagged>(args.q_rope, 0);
  return {};
}

Status check_block_table(const Plan& plan, const DecodeArgs& args, DecodeProblem* problem, Spans* spans) {
  const Tensor table{"block_table", args.block_table, &(*spans)[kBlockTable]};
  FLASH_MLA_RETURN_IF_ERROR(check_form(table, 2, "[b, max_pages]", DType::i32, plan.config().device));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(table, 0, problem->batch.batch, "as cache_seqlens.shape[0]"));
  FLASH_MLA_RETURN_IF_ERROR(check_memory<2>(table, {}));
  problem->block_table = static_cast<const std::int32_t*>(args.block_table.data);
  problem->block_table_stride = stride_of(args.block_table, 0);
  problem->block_table_columns = args.block_table.shape[1];
  return {};
}

template <bool kRagged>
Status check_outputs(const Plan& plan, const DecodeArgs& args, DecodeProblem* problem, Spans* spans) {
  constexpr int kRank = kRagged ? 3 : 4, kLseRank = kRank - 1;
  static constexpr const char* kAsQ[] = {"as q.shape[0]", "as q.shape[1]", "as q.shape[2]"};
  const PlanConfig& config = plan.config();
  const Tensor out{"out", args.out, &(*spans)[kOut]};
  FLASH_MLA_RETURN_IF_ERROR(
      check_form(out, kRank, kRagged ? "[total_q, h_q, 512]" : "[b, s_q, h_q, 512]", config.dtype, config.device));
  for (int axis = 0; axis < kRank - 1; ++axis) {
    FLASH_MLA_RETURN_IF_ERROR(check_dim(out, axis, args.q.shape[axis], kAsQ[axis]));
  }
  FLASH_MLA_RETURN_IF_ERROR(check_dim(out, kRank - 1, kLatentDim, "the width of the latent part"));
  FLASH_MLA_RETURN_IF_ERROR(check_memory<kRank>(out, {.written = true, .tma_aligned = needs_tma(config.device)}));
  problem->out = rows_of<kRagged>(args.out, 0);

  if (!args.lse.given()) return {};
  const Tensor lse{"lse", args.lse, &(*spans)[kLse]};
  FLASH_MLA_RETURN_IF_ERROR(
      check_form(lse, kLseRank, kRagged ? "[h_q, total_q]" : "[b, h_q, s_q]", DType::f32, config.device));
  if (!kRagged) FLASH_MLA_RETURN_IF_ERROR(check_dim(lse, 0, args.q.shape[0], kAsQ[0]));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(lse, kLseRank - 2, config.num_heads_q, "the plan's num_heads_q"));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(lse, kLseRank - 1, args.q.shape[kLseRank - 2], kAsQ[kLseRank - 2]));
  FLASH_MLA_RETURN_IF_ERROR(check_memory<kLseRank>(lse, {.written = true}));
  problem->lse = lse_rows_of<kRagged>(args.lse);
  return {};
}

// What decode writes must not share memory with what it reads or with each other.
Status check_all_apart(const Plan& plan, const DecodeArgs& args, const MemoryView& schedule_memory,
                       const MemoryView& scratch, const Spans& spans) {
  bool all_apart = true;
  for (std::size_t output = 0; output < kWritten; ++output) {
    for (std::size_t other = output + 1; other < kArguments; ++other) all_apart &= !meet(spans[output], spans[other]);
  }
  if (all_apart) return {};
  const Device device = plan.config().device;
  const std::array<Reach, kArguments> reaches = {
      reach_of({"out", args.out}),
      reach_of({"lse", args.lse}),
      reach_of("scratch", {scratch.data, plan.scratch_bytes(), device}),
      reach_of("schedule_memory", {schedule_memory.data, plan.schedule_bytes(), device}),
      reach_of({"q", args.q}),
      reach_of({"q_rope", args.q_rope}),
      reach_of({"kv_cache", args.kv_cache}),
      reach_of({"k_rope_cache", args.k_rope_cache}),
      reach_of({"block_table", args.block_table}),
      reach_of({"cache_seqlens", args.cache_seqlens}),
      reach_of({"cu_seqlens_q", args.cu_seqlens_q}),
  };
  for (std::size_t output = 0; output < kWritten; ++output) {
    for (std::size_t other = output + 1; other < kArguments; ++other) {
      FLASH_MLA_RETURN_IF_ERROR(check_apart(reaches[output], reaches[other]));
    }
  }
  return {};
}

// Each request's pages: enough columns, and ids that exist. Entries past the last page in use are not read.
Status check_pages(const DecodeProblem& problem) {
  const std::int64_t page_size = problem.cache.page_size;
  for (std::int64_t r = 0; r < problem.batch.batch; ++r) {
    const std::int64_t length = problem.batch.cache_seqlens[r * problem.batch.cache_seqlens_stride];
    const std::int64_t pages = (length + page_size - 1) / page_size;
    if (pages > problem.block_table_columns) {
      return invalid("block_table.shape[1] is ", problem.block_table_columns, "; cache_seqlens[", r, "] = ", length,
                     " takes ", pages, " pages of ", page_size, " tokens");
    }
    const std::int32_t* row = problem.block_table + r * problem.block_table_stride;
    for (std::int64_t i = 0; i < pages; ++i) {
      if (row[i] < 0 || row[i] >= problem.cache.num_pages) {
        return invalid("block_table[", r, ", ", i, "] is ", row[i], "; expected 0 to ", problem.cache.num_pages - 1,
                       " (kv_cache.shape[0] - 1)");
      }
    }
  }
  return {};
}

}  // namespace

Status validate_decode(const Plan& plan, const DecodeArgs& args, const MemoryView& schedule_memory,
                       const MemoryView& scratch, DecodeProblem* problem) noexcept {
  FLASH_MLA_RETURN_IF_ERROR(check_plan_made(plan));
  const PlanConfig& config = plan.config();
  problem->dtype = config.dtype;
  problem->num_heads_q = config.num_heads_q;
  problem->num_heads_kv = config.num_heads_kv;
  problem->causal = config.causal;
  problem->softmax_scale = args.softmax_scale;

  Spans spans;  // of what is not optional check_memory fills in
  spans[kLse] = spans[kQRope] = spans[kKRopeCache] = spans[kCuSeqlensQ] = {};
  FLASH_MLA_RETURN_IF_ERROR(check_batch(plan, {"cache_seqlens", args.cache_seqlens, &spans[kCacheSeqlens]},
                                        {"cu_seqlens_q", args.cu_seqlens_q, &spans[kCuSeqlensQ]}, &problem->batch));
  const bool ragged = args.cu_seqlens_q.given();
  FLASH_MLA_RETURN_IF_ERROR(ragged ? check_queries<true>(plan, args, problem, &spans)
                                   : check_queries<false>(plan, args, problem, &spans));
  FLASH_MLA_RETURN_IF_ERROR(check_cache({"kv_cache", args.kv_cache, &spans[kKvCache]},
                                        {"k_rope_cache", args.k_rope_cache, &spans[kKRopeCache]},
                                        {.dtype = config.dtype,
                                         .device = config.device,
                                         .page_size = config.page_size,
                                         .num_heads_kv = config.num_heads_kv},
                                        &problem->cache));
  FLASH_MLA_RETURN_IF_ERROR(check_block_table(plan, args, problem, &spans));
  FLASH_MLA_RETURN_IF_ERROR(ragged ? check_outputs<true>(plan, args, problem, &spans)
                                   : check_outputs<false>(plan, args, problem, &spans));
  if (!(args.softmax_scale > 0) || !std::isfinite(args.softmax_scale)) {
    return invalid("softmax_scale is ", args.softmax_scale, "; expected a finite number > 0");
  }
  FLASH_MLA_RETURN_IF_ERROR(
      check_lent_memory("schedule_memory", schedule_memory, plan.schedule_bytes(), 16, config.device));
  FLASH_MLA_RETURN_IF_ERROR(
      check_lent_memory("scratch", scratch, plan.scratch_bytes(), kScratchAlignmentBytes, config.device));
  spans[kScheduleMemory] = span_of({schedule_memory.data, plan.schedule_bytes()});
  spans[kScratch] = span_of({scratch.data, plan.scratch_bytes()});
  FLASH_MLA_RETURN_IF_ERROR(check_all_apart(plan, args, schedule_memory, scratch, spans));

  if (!host_readable(config.device)) return {};
  FLASH_MLA_RETURN_IF_ERROR(check_lengths(plan, problem->batch, problem->batch.total_q, "q.shape[0]"));
  FLASH_MLA_RETURN_IF_ERROR(check_pages(*problem));
  return check_schedule(plan, problem->batch, schedule_memory.data);
}

}  // namespace flash_mla
