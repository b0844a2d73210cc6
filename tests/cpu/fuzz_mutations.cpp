// The ways in which the fuzz test breaks a decode call.
#include <algorithm>
#include <array>
#include <climits>
#include <limits>

#include "cpu/fuzz_trial.h"

namespace flash_mla::test {
namespace {

TensorView& any_view(FuzzTrial& trial, Random& random) { return *random.pick(trial.given_views()); }

MemoryView& any_memory(FuzzTrial& trial, Random& random) {
  return random.below(2) ? trial.schedule_memory : trial.scratch;
}

bool add_view(FuzzTrial& trial, Random& random) {
  std::vector<TensorView*> missing = trial.views();
  std::erase_if(missing, [](const TensorView* view) { return view->given(); });
  if (missing.empty()) return false;
  *random.pick(missing) = any_view(trial, random);
  return true;
}

bool swap_views(FuzzTrial& trial, Random& random) {
  std::swap(any_view(trial, random), any_view(trial, random));
  return true;
}

bool output_on_input(FuzzTrial& trial, Random& random) {
  TensorView& output = trial.args.lse.given() && random.below(2) ? trial.args.lse : trial.args.out;
  const TensorView& other = any_view(trial, random);
  if (&other == &output) return false;
  output.data = other.data;
  return true;
}

bool change_length(FuzzTrial& trial, Random& random) {
  if (trial.lengths().empty()) return false;
  std::int32_t& length = trial.lengths()[random.below(trial.lengths().size())];
  const std::int64_t old = tame(length);
  length = static_cast<std::int32_t>(one_of<7>({-1, INT_MIN, INT_MAX, old + 1, old - 1, 64, 1000}, random));
  return true;
}

bool change_length_after_schedule(FuzzTrial& trial, Random& random) {
  if (trial.lengths().empty()) return false;
  trial.late_request = static_cast<std::int32_t>(random.below(trial.lengths().size()));
  const std::int64_t length = tame(trial.lengths()[trial.late_request]);
  trial.late_length =
      static_cast<std::int32_t>(one_of<4>({0, length + 1, std::max<std::int64_t>(length - 1, 0), 1}, random));
  return true;
}

bool change_cu(FuzzTrial& trial, Random& random) {
  if (trial.cu().empty()) return false;
  std::int32_t& sum = trial.cu()[random.below(trial.cu().size())];
  const std::int64_t old = tame(sum);
  sum = static_cast<std::int32_t>(one_of<6>({-1, INT_MIN, INT_MAX, old + 1, old - 1, 0}, random));
  return true;
}

// The table as it is, whatever other mutations made of the view.
std::int32_t& entry(FuzzTrial& trial, std::int64_t request, std::int64_t column) {
  const DecodeArgs& args = trial.base.problem.decode_args();
  return trial.table()[request * args.block_table.strides[0] + column];
}

// Entries in use of `request`, and the width of the table, before anything was broken.
std::int64_t used_columns(FuzzTrial& trial, std::int64_t request) {
  const std::int64_t page = trial.base.config.page_size;
  return (trial.base.problem.spec().lengths[request] + page - 1) / page;
}

bool change_page_id(FuzzTrial& trial, Random& random) {
  if (trial.lengths().empty()) return false;
  const std::int64_t request = random.below(trial.base.problem.batch());
  const std::int64_t used = used_columns(trial, request);
  if (used == 0) return false;
  entry(trial, request, random.below(used)) =
      static_cast<std::int32_t>(one_of<5>({-1, INT_MIN, INT_MAX, trial.base.problem.num_pages(), 0}, random));
  return true;
}

bool change_unused_page_id(FuzzTrial& trial, Random& random) {
  if (trial.lengths().empty()) return false;
  const std::int64_t request = random.below(trial.base.problem.batch());
  const std::int64_t used = used_columns(trial, request);
  const std::int64_t columns = trial.base.problem.decode_args().block_table.shape[1];
  if (used == columns) return false;
  entry(trial, request, random.between(used, columns - 1)) = static_cast<std::int32_t>(random.next());
  return true;
}

bool shrink_memory(FuzzTrial& trial, Random& random) {
  MemoryView& memory = any_memory(trial, random);
  const std::int64_t old = tame(memory.bytes);
  memory.bytes = one_of<6>({-1, 0, old - 1, old / 2, kInt64Min, 16}, random);
  return true;
}

bool null_memory(FuzzTrial& trial, Random& random) {
  any_memory(trial, random).data = nullptr;
  return true;
}

bool misalign_memory(FuzzTrial& trial, Random& random) {
  MemoryView& memory = any_memory(trial, random);
  // Odd whatever came before: two steps could add up to an aligned address, with too little memory behind it.
  memory.data = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(memory.data) | (2 * random.below(8) + 1));
  return true;
}

bool move_memory(FuzzTrial& trial, Random& random) {
  any_memory(trial, random).device = {DeviceType::cuda, static_cast<int>(random.below(2))};
  return true;
}

bool share_memory(FuzzTrial& trial, Random&) {
  trial.schedule_memory.data = trial.scratch.data;
  return true;
}

bool skip_schedule(FuzzTrial& trial, Random&) { return trial.skip_schedule = true; }

bool change_scale(FuzzTrial& trial, Random& random) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr std::array<float, 7> kScales = {0, -1, kInf, -kInf, std::numeric_limits<float>::quiet_NaN(), 0.25f, 1e-4f};
  trial.args.softmax_scale = random.pick(kScales);
  return true;
}

bool change_seqlen_q(FuzzTrial& trial, Random& random) {
  trial.seqlen_q = static_cast<std::int32_t>(one_of<6>({-1, 0, 1, tame(trial.seqlen_q) + 1, INT_MAX, INT_MIN}, random));
  return true;
}

bool drop_plan(FuzzTrial& trial, Random& random) {
  (random.below(2) ? trial.schedule_plan : trial.decode_plan) = Plan();
  return true;
}

// Another plan for one of the two calls or both.
bool change_plan(FuzzTrial& trial, Random& random) {
  PlanConfig config = trial.base.config;
  switch (random.below(8)) {
    case 0:
      config.dtype = config.dtype == DType::bf16 ? DType::f16 : DType::bf16;
      break;
    case 1:
      config.num_heads_q *= 2;
      break;
    case 2:
      config.num_heads_q = config.num_heads_kv = config.num_heads_q;
      break;
    case 3:
      config.page_size = config.page_size == 64 ? 16 : 64;
      break;
    case 4:
      config.num_parts = trial.base.plan.num_parts() + 1;
      break;
    case 5:
      config.max_batch = std::max(0, config.max_batch - 1);
      break;
    case 6:
      config.max_seqlen_q += 1;
      break;
    default:
      config.causal = !config.causal;
      break;
  }
  const Result<Plan> plan = flash_mla::plan(config);
  if (!plan.ok()) return false;
  const std::int64_t which = random.below(3);
  if (which != 0) trial.schedule_plan = *plan;
  if (which != 1) trial.decode_plan = *plan;
  return true;
}

constexpr Mutation kMutations[] = {
    {"add a tensor", add_view},
    {"swap two tensors", swap_views},
    {"output on an input", output_on_input},
    {"length", change_length},
    {"length after schedule", change_length_after_schedule},
    {"cu_seqlens_q", change_cu},
    {"page id", change_page_id},
    {"unused page id", change_unused_page_id, true},
    {"small memory", shrink_memory},
    {"null memory", null_memory},
    {"misaligned memory", misalign_memory},
    {"memory of another device", move_memory},
    {"schedule memory in scratch", share_memory},
    {"no schedule", skip_schedule},
    {"softmax_scale", change_scale},
    {"seqlen_q of schedule", change_seqlen_q},
    {"no plan", drop_plan},
    {"another plan", change_plan},
};

}  // namespace

std::span<const Mutation> mutations() { return kMutations; }

}  // namespace flash_mla::test
