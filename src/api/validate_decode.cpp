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

// [b, s_q, h_q, d] (uniform) or [total_q, h_q, d] (ragged).
RowsView rows_of(const TensorView& view, std::int64_t first_column) {
  const int token_axis = view.rank - 3;
  return {column_address(view, first_column), token_axis == 1 ? stride_of(view, 0) : 0, stride_of(view, token_axis),
          stride_of(view, token_axis + 1)};
}

// [b, h_q, s_q] or [h_q, total_q].
RowsView lse_rows_of(const TensorView& view) {
  if (!view.given()) return {};
  const int head_axis = view.rank - 2;
  return {view.data, head_axis == 1 ? stride_of(view, 0) : 0, stride_of(view, head_axis + 1),
          stride_of(view, head_axis)};
}

Status check_queries(const Plan& plan, const DecodeArgs& args, DecodeProblem* problem) {
  const PlanConfig& config = plan.config();
  const bool ragged = args.cu_seqlens_q.given();
  const Tensor q{"q", args.q};
  const Tensor q_rope{"q_rope", args.q_rope};
  FLASH_MLA_RETURN_IF_ERROR(
      ragged
          ? check_form(q, 3, "[total_q, h_q, 576 or 512], as cu_seqlens_q is given", config.dtype, config.device)
          : check_form(q, 4, "[b, s_q, h_q, 576 or 512], as cu_seqlens_q is not given", config.dtype, config.device));
  BatchView& batch = problem->batch;
  if (ragged) {
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
  FLASH_MLA_RETURN_IF_ERROR(check_dim(q, args.q.rank - 2, config.num_heads_q, "the plan's num_heads_q"));
  FLASH_MLA_RETURN_IF_ERROR(check_columns(q, q_rope, ragged ? "[total_q, h_q, 64]" : "[b, s_q, h_q, 64]"));

  const MemoryRule rule{.tma_aligned = needs_tma(config.device)};
  FLASH_MLA_RETURN_IF_ERROR(check_memory(q, rule));
  if (args.q_rope.given()) FLASH_MLA_RETURN_IF_ERROR(check_memory(q_rope, rule));
  problem->q_joint = !args.q_rope.given();
  problem->q_latent = rows_of(args.q, 0);
  problem->q_rope = problem->q_joint ? rows_of(args.q, kLatentDim) : rows_of(args.q_rope, 0);
  return {};
}

Status check_block_table(const Plan& plan, const DecodeArgs& args, DecodeProblem* problem) {
  const Tensor table{"block_table", args.block_table};
  FLASH_MLA_RETURN_IF_ERROR(check_form(table, 2, "[b, max_pages]", DType::i32, plan.config().device));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(table, 0, problem->batch.batch, "as cache_seqlens.shape[0]"));
  FLASH_MLA_RETURN_IF_ERROR(check_memory(table, {}));
  problem->block_table = static_cast<const std::int32_t*>(args.block_table.data);
  problem->block_table_stride = stride_of(args.block_table, 0);
  problem->block_table_columns = args.block_table.shape[1];
  return {};
}

Status check_outputs(const Plan& plan, const DecodeArgs& args, DecodeProblem* problem) {
  const PlanConfig& config = plan.config();
  const bool ragged = args.cu_seqlens_q.given();
  const Tensor out{"out", args.out};
  FLASH_MLA_RETURN_IF_ERROR(
      check_form(out, args.q.rank, ragged ? "[total_q, h_q, 512]" : "[b, s_q, h_q, 512]", config.dtype, config.device));
  static constexpr const char* kAsQ[] = {"as q.shape[0]", "as q.shape[1]", "as q.shape[2]"};
  for (int axis = 0; axis < args.q.rank - 1; ++axis) {
    FLASH_MLA_RETURN_IF_ERROR(check_dim(out, axis, args.q.shape[axis], kAsQ[axis]));
  }
  FLASH_MLA_RETURN_IF_ERROR(check_dim(out, args.q.rank - 1, kLatentDim, "the width of the latent part"));
  FLASH_MLA_RETURN_IF_ERROR(check_memory(out, {.written = true, .tma_aligned = needs_tma(config.device)}));
  problem->out = rows_of(args.out, 0);

  if (!args.lse.given()) return {};
  const Tensor lse{"lse", args.lse};
  const int rank = args.q.rank - 1;
  FLASH_MLA_RETURN_IF_ERROR(
      check_form(lse, rank, ragged ? "[h_q, total_q]" : "[b, h_q, s_q]", DType::f32, config.device));
  if (!ragged) FLASH_MLA_RETURN_IF_ERROR(check_dim(lse, 0, args.q.shape[0], "as q.shape[0]"));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(lse, rank - 2, config.num_heads_q, "the plan's num_heads_q"));
  FLASH_MLA_RETURN_IF_ERROR(
      check_dim(lse, rank - 1, args.q.shape[rank - 2], ragged ? "as q.shape[0]" : "as q.shape[1]"));
  FLASH_MLA_RETURN_IF_ERROR(check_memory(lse, {.written = true}));
  problem->lse = lse_rows_of(args.lse);
  return {};
}

// What decode writes must not share memory with what it reads or with each other.
Status check_all_apart(const Plan& plan, const DecodeArgs& args, const MemoryView& schedule_memory,
                       const MemoryView& scratch) {
  const Device device = plan.config().device;
  const std::array<Reach, 11> reaches = {
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
  constexpr std::size_t kWritten = 3;
  for (std::size_t output = 0; output < kWritten; ++output) {
    for (std::size_t other = output + 1; other < reaches.size(); ++other) {
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

  FLASH_MLA_RETURN_IF_ERROR(check_batch(plan, args.cache_seqlens, args.cu_seqlens_q, &problem->batch));
  FLASH_MLA_RETURN_IF_ERROR(check_queries(plan, args, problem));
  FLASH_MLA_RETURN_IF_ERROR(check_cache({"kv_cache", args.kv_cache}, {"k_rope_cache", args.k_rope_cache},
                                        {.dtype = config.dtype,
                                         .device = config.device,
                                         .page_size = config.page_size,
                                         .num_heads_kv = config.num_heads_kv},
                                        &problem->cache));
  FLASH_MLA_RETURN_IF_ERROR(check_block_table(plan, args, problem));
  FLASH_MLA_RETURN_IF_ERROR(check_outputs(plan, args, problem));
  if (!(args.softmax_scale > 0) || !std::isfinite(args.softmax_scale)) {
    return invalid("softmax_scale is ", args.softmax_scale, "; expected a finite number > 0");
  }
  FLASH_MLA_RETURN_IF_ERROR(
      check_lent_memory("schedule_memory", schedule_memory, plan.schedule_bytes(), 16, config.device));
  FLASH_MLA_RETURN_IF_ERROR(
      check_lent_memory("scratch", scratch, plan.scratch_bytes(), kScratchAlignmentBytes, config.device));
  FLASH_MLA_RETURN_IF_ERROR(check_all_apart(plan, args, schedule_memory, scratch));

  if (!host_readable(config.device)) return {};
  FLASH_MLA_RETURN_IF_ERROR(check_lengths(plan, problem->batch, problem->batch.total_q, "q.shape[0]"));
  FLASH_MLA_RETURN_IF_ERROR(check_pages(*problem));
  return check_schedule(plan, problem->batch, schedule_memory.data);
}

}  // namespace flash_mla
