// See step.h.
#include "cpu/step.h"

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>

namespace flash_mla::test {
namespace {

using reference::Problem;
using reference::RowId;

Plan make_plan(const PlanConfig& config) {
  const Result<Plan> plan = flash_mla::plan(config);
  if (!plan) throw std::runtime_error(std::string("plan: ") + plan.status().message());
  return *plan;
}

std::vector<std::byte> dense_bits(const TensorView& view) {
  std::vector<std::byte> bits;
  if (!view.given()) return bits;
  std::int64_t rows = 1;
  for (int axis = 0; axis < view.rank - 1; ++axis) rows *= view.shape[axis];
  const std::int64_t row_bytes = view.shape[view.rank - 1] * size_in_bytes(view.dtype);
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t rest = row, offset = 0;
    for (int axis = view.rank - 2; axis >= 0; --axis) {
      offset += rest % view.shape[axis] * view.strides[axis];
      rest /= view.shape[axis];
    }
    const auto* data = static_cast<const std::byte*>(view.data) + offset * size_in_bytes(view.dtype);
    bits.insert(bits.end(), data, data + row_bytes);
  }
  return bits;
}

}  // namespace

Step::Step(const PlanConfig& config)
    : plan_(make_plan(config)),
      schedule_memory_("schedule memory", plan_.schedule_bytes()),
      scratch_("scratch", plan_.scratch_bytes()) {}

Status Step::schedule(const ScheduleArgs& args) {
  schedule_memory_.fill_random(++garbage_);
  return flash_mla::schedule(plan_, args, schedule_memory_.memory());
}

Status Step::decode(const DecodeArgs& args) {
  scratch_.fill_random(++garbage_);
  return flash_mla::decode(plan_, args, schedule_memory_.memory(), scratch_.memory());
}

Status run(Problem& problem) {
  Step step(problem.plan_config());
  if (Status status = step.schedule(problem.schedule_args()); !status) return status;
  return step.decode(problem.decode_args());
}

testing::AssertionResult is_right(const Problem& problem, std::int64_t max_rows) {
  const DecodeArgs& args = problem.decode_args();
  const std::string what = " in " + describe(problem.spec());
  if (const std::string nan = reference::nan_in_results(args); !nan.empty()) {
    return testing::AssertionFailure() << nan << what;
  }
  if (const std::string damage = problem.damage(); !damage.empty())
    return testing::AssertionFailure() << damage << what;
  const reference::Comparison comparison =
      reference::compare(args, problem.spec().causal, max_rows, problem.spec().seed);
  if (!comparison.ok) return testing::AssertionFailure() << comparison.message << what;
  return testing::AssertionSuccess();
}

testing::AssertionResult runs_right(Problem& problem, std::int64_t max_rows) {
  problem.clear_results();
  if (const Status status = run(problem); !status) {
    return testing::AssertionFailure() << status.message() << " in " << describe(problem.spec());
  }
  return is_right(problem, max_rows);
}

Bits bits_of(const DecodeArgs& args) { return {dense_bits(args.out), dense_bits(args.lse)}; }

std::vector<std::byte> bits_of_row(const DecodeArgs& args, RowId id) {
  TensorView out = args.out;
  std::int64_t offset = 0;
  if (args.cu_seqlens_q.given()) {
    const std::int64_t token = static_cast<const std::int32_t*>(args.cu_seqlens_q.data)[id.request] + id.query;
    offset = token * out.strides[0] + id.head * out.strides[1];
  } else {
    offset = id.request * out.strides[0] + id.query * out.strides[1] + id.head * out.strides[2];
  }
  const auto* data = static_cast<const std::byte*>(out.data) + offset * size_in_bytes(out.dtype);
  std::vector<std::byte> bits(data, data + kLatentDim * size_in_bytes(out.dtype));
  if (args.lse.given()) {
    const auto lse = static_cast<float>(reference::Reference(args, true).result(id).lse);
    const auto* lse_bytes = reinterpret_cast<const std::byte*>(&lse);
    bits.insert(bits.end(), lse_bytes, lse_bytes + sizeof(lse));
  }
  return bits;
}

}  // namespace flash_mla::test
