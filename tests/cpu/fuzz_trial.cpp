#include "cpu/fuzz_trial.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "reference/compare.h"

namespace flash_mla::test {
namespace {

constexpr std::byte kUnwritten{0xff};  // as Problem fills its results
constexpr std::byte kFinite{0x3c};     // a moderate number in every float type
constexpr std::int64_t kRowsCompared = 4;

reference::ProblemSpec random_spec(Random& random, bool to_be_broken) {
  constexpr std::array kDTypes = {DType::bf16, DType::f16, DType::f32};
  constexpr std::array kHeads = {1, 2, 3, 4, 6, 16};
  constexpr std::array kPageSizes = {16, 16, 32, 64, 128};
  reference::ProblemSpec spec;
  spec.seed = random.next();
  spec.dtype = random.pick(kDTypes);
  spec.num_heads_kv = static_cast<std::int32_t>(random.between(1, 2));
  spec.num_heads_q = spec.num_heads_kv * random.pick(kHeads);
  spec.page_size = random.pick(kPageSizes);
  spec.causal = random.below(2);
  spec.num_parts = static_cast<std::int32_t>(random.below(5));
  spec.ragged = random.below(2);
  spec.seqlen_q = static_cast<std::int32_t>(random.between(1, 3));
  spec.padding_queries = static_cast<std::int32_t>(random.below(3));
  const std::int64_t batch = random.below(5);
  for (std::int64_t r = 0; r < batch; ++r) {
    spec.lengths.push_back(static_cast<std::int32_t>(random.below(4) ? random.below(150) : 0));
    if (spec.ragged) spec.queries.push_back(static_cast<std::int32_t>(random.below(4)));
  }
  spec.joint_q = random.below(2), spec.joint_cache = random.below(2);
  spec.row_gap = static_cast<std::int32_t>(random.below(3));
  spec.layers = static_cast<std::int32_t>(random.between(1, 2));
  spec.heads_first = random.below(2);
  spec.offset_elements = static_cast<std::int32_t>(random.below(4));
  spec.exact_table = random.below(2);
  spec.spare_pages = static_cast<std::int32_t>(random.below(3));
  spec.want_lse = random.below(4);
  // A broken view may make the unused parts of a buffer used ones.
  if (to_be_broken) spec.poison = reference::Poison::zero;
  return spec;
}

bool all_unwritten(const Buffer& buffer) {
  return std::all_of(buffer.data(), buffer.data() + buffer.bytes(), [](std::byte b) { return b == kUnwritten; });
}

}  // namespace

FuzzBase::FuzzBase(Random& random, bool to_be_broken)
    : problem(random_spec(random, to_be_broken)),
      config(problem.plan_config()),
      plan(flash_mla::plan(config).value()),
      schedule_memory("schedule_memory", plan.schedule_bytes()),
      scratch("scratch", plan.scratch_bytes()) {
  scratch.fill_random(random.next());
}

FuzzTrial::FuzzTrial(FuzzBase& base)
    : base(base),
      schedule_plan(base.plan),
      decode_plan(base.plan),
      args(base.problem.decode_args()),
      seqlen_q(base.problem.spec().ragged ? 0 : base.problem.spec().seqlen_q),
      schedule_memory(base.schedule_memory.memory()),
      scratch(base.scratch.memory()) {
  integers_.reserve(3);
  own_integers(&args.cache_seqlens);
  own_integers(&args.block_table);
  own_integers(&args.cu_seqlens_q);
  base.problem.clear_results();
  for (const Buffer& buffer : base.problem.buffers()) {
    provider_.know(buffer.data(), buffer.bytes());
    if (buffer.name() == "out" || buffer.name() == "lse") outputs_.push_back(&buffer);
  }
}

// A vector's memory is a heap block of exactly its size.
void FuzzTrial::own_integers(TensorView* view) {
  std::int64_t bytes = 0;
  if (!view->given() || !reach_bytes(*view, &bytes)) bytes = 0;
  auto& copy = integers_.emplace_back(static_cast<std::size_t>(bytes) / sizeof(std::int32_t));
  if (bytes > 0) std::memcpy(copy.data(), view->data, static_cast<std::size_t>(bytes));
  if (!view->given()) return;
  view->data = copy.data();
  provider_.know(copy.data(), bytes);
}

std::vector<TensorView*> FuzzTrial::views() {
  return {&args.q,           &args.q_rope,        &args.kv_cache,     &args.k_rope_cache,
          &args.block_table, &args.cache_seqlens, &args.cu_seqlens_q, &args.out,
          &args.lse};
}

std::vector<TensorView*> FuzzTrial::given_views() {
  std::vector<TensorView*> given = views();
  std::erase_if(given, [](const TensorView* view) { return !view->given(); });
  return given;
}

void FuzzTrial::provide_memory() {
  for (TensorView* view : given_views()) {
    const bool output = view == &args.out || view == &args.lse;
    const Buffer* provided = provider_.provide(view, output ? kUnwritten : kFinite);
    if (output && provided) outputs_.push_back(provided);
  }
}

bool FuzzTrial::outputs_untouched() const {
  return std::ranges::all_of(outputs_, [](const Buffer* buffer) { return all_unwritten(*buffer); });
}

void FuzzTrial::run() {
  provide_memory();
  base.schedule_memory.fill_random(1);
  if (!skip_schedule) {
    const std::uint64_t before = base.schedule_memory.hash();
    const ScheduleArgs lengths{args.cache_seqlens, args.cu_seqlens_q, seqlen_q};
    scheduled = flash_mla::schedule(schedule_plan, lengths, schedule_memory);
    if (!scheduled.ok() && scheduled.message()[0] == '\0') complaints.push_back("schedule: an error without a message");
    if (!scheduled.ok() && base.schedule_memory.hash() != before) complaints.push_back("schedule refused and wrote");
  }
  if (late_request >= 0) lengths()[static_cast<std::size_t>(late_request)] = late_length;

  const std::uint64_t schedule_before = base.schedule_memory.hash();
  decoded = flash_mla::decode(decode_plan, args, schedule_memory, scratch);
  if (base.schedule_memory.hash() != schedule_before) complaints.push_back("decode wrote to its schedule");
  judge_decode();
}

void FuzzTrial::judge_decode() {
  if (!decoded.ok()) {
    if (decoded.message()[0] == '\0') complaints.push_back("decode: an error without a message");
    if (!outputs_untouched()) complaints.push_back("decode refused and wrote");
    return;
  }
  const auto result = reference::compare(args, decode_plan.config().causal, kRowsCompared, base.problem.spec().seed);
  if (!result.ok) complaints.push_back("decode is wrong: " + result.message);
  const bool nan_in_q = reference::count_nan(args.q) > 0;  // q may have changed places with an unwritten output
  if (!nan_in_q && reference::count_nan(args.out) > 0) complaints.push_back("decode left elements of out unwritten");
}

}  // namespace flash_mla::test
