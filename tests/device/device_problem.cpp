// See device_problem.h.
#include "device/device_problem.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "device/device_fill.h"
#include "device/device_reference.h"
#include "device/guarded_memory.h"

namespace flash_mla::test {
namespace {

using reference::Contents;
using reference::ProblemSpec;
using reference::RowId;

constexpr int kUnwritten = 0xff;  // as bytes: a NaN in every float type

void require(const Status& status, const char* call) {
  if (!status.ok()) throw std::runtime_error(std::string(call) + ": " + status.message());
}

std::shared_ptr<void> plain_memory(std::int64_t bytes) {
  void* data = nullptr;
  FLASH_MLA_REQUIRE(cudaMalloc(&data, static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1))));
  return {data, [](void* memory) { cudaFree(memory); }};
}

Plan make_plan(const reference::Problem& problem, Device device) {
  PlanConfig config = problem.plan_config();
  config.device = device;
  const Result<Plan> plan = flash_mla::plan(config);
  require(plan.status(), "plan");
  return *plan;
}

bool has_gaps(const ProblemSpec& spec) { return spec.row_gap != 0 || spec.offset_elements != 0; }

}  // namespace

DeviceProblem::DeviceProblem(const ProblemSpec& spec, bool guarded, int device)
    : layout_(spec, Contents::layout),
      queries_(spec.ragged ? spec.queries : Lengths(spec.lengths.size(), spec.seqlen_q)),
      plan_(make_plan(layout_, {DeviceType::cuda, device})) {
  FLASH_MLA_REQUIRE(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  const Device gpu = {DeviceType::cuda, device};
  const auto allocate = [&](std::int64_t bytes) {
    memory_.push_back(guarded ? guarded_memory(bytes) : plain_memory(bytes));
    return memory_.back().get();
  };
  for (const reference::Buffer& buffer : layout_.buffers()) bases_.push_back(allocate(buffer.bytes()));
  schedule_memory_ = {allocate(plan_.schedule_bytes()), plan_.schedule_bytes(), gpu};
  // Guarded memory ends where it should, so its start has the alignment of its size: a multiple of 128.
  scratch_ = {allocate(plan_.scratch_bytes()), plan_.scratch_bytes(), gpu};
  for (const MemoryView& memory : {schedule_memory_, scratch_}) {
    FLASH_MLA_REQUIRE(cudaMemsetAsync(memory.data, kUnwritten, static_cast<std::size_t>(memory.bytes), stream_));
  }
  args_ = layout_.relocate(layout_.decode_args(), bases_, gpu);
  schedule_args_ = layout_.relocate(layout_.schedule_args(), bases_, gpu);
  out_index_ = bases_.size() - (spec.want_lse ? 2 : 1);

  // Buffers of integers are as on the host; the others hold poison, and normal elements where rows may read.
  std::uint64_t seed = spec.seed * 16;
  for (std::size_t i = 0; i < out_index_; ++i) {
    const reference::Buffer& buffer = layout_.buffers()[i];
    if (buffer.name() == "block_table" || buffer.name() == "cache_seqlens" || buffer.name() == "cu_seqlens_q") {
      FLASH_MLA_REQUIRE(cudaMemcpyAsync(bases_[i], buffer.data(), static_cast<std::size_t>(buffer.bytes()),
                                        cudaMemcpyDefault, stream_));
    } else {
      fill_poison(bases_[i], buffer.bytes(), spec.dtype, spec.poison, ++seed, stream_);
    }
  }
  for (const TensorView* view : {&args_.q, &args_.q_rope}) {
    if (view->given()) fill_rows(*view, spec.q_scale, ++seed, stream_);
  }
  for (const TensorView* view : {&args_.kv_cache, &args_.k_rope_cache}) {
    if (view->given()) fill_tokens(*view, args_.block_table, args_.cache_seqlens, ++seed, stream_);
  }
  clear_results();
  accept_inputs();
}

DeviceProblem::~DeviceProblem() {
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

std::int64_t DeviceProblem::bytes_needed(const ProblemSpec& spec) {
  std::int64_t bytes = std::int64_t{1} << 30;  // schedule, scratch, the reference
  const reference::Problem layout(spec, Contents::layout);
  for (const reference::Buffer& buffer : layout.buffers()) bytes += buffer.bytes();
  return bytes;
}

void DeviceProblem::schedule() {
  require(flash_mla::schedule(plan_, schedule_args_, schedule_memory_, {stream_}), "schedule");
}

void DeviceProblem::decode() {
  require(flash_mla::decode(plan_, args_, schedule_memory_, scratch_, {stream_}), "decode");
}

void DeviceProblem::clear_results() {
  for (std::size_t i = out_index_; i < bases_.size(); ++i) {
    FLASH_MLA_REQUIRE(
        cudaMemsetAsync(bases_[i], kUnwritten, static_cast<std::size_t>(layout_.buffers()[i].bytes()), stream_));
  }
  // Partials of the run before must not pass for those of the next.
  FLASH_MLA_REQUIRE(cudaMemsetAsync(scratch_.data, kUnwritten, static_cast<std::size_t>(scratch_.bytes), stream_));
}

void DeviceProblem::upload(const TensorView& view, const Lengths& values) {
  FLASH_MLA_REQUIRE(
      cudaMemcpyAsync(view.data, values.data(), values.size() * sizeof(std::int32_t), cudaMemcpyDefault, stream_));
  synchronize();
}

void DeviceProblem::set_lengths(const Lengths& lengths) {
  upload(args_.cache_seqlens, lengths);
  accept_inputs();
}

void DeviceProblem::set_queries(const Lengths& queries) {
  queries_ = queries;
  Lengths cumulative(queries.size() + 1, 0);
  std::partial_sum(queries.begin(), queries.end(), cumulative.begin() + 1);
  upload(args_.cu_seqlens_q, cumulative);
  accept_inputs();
}

std::vector<RowId> DeviceProblem::rows(std::int64_t max_rows) const {
  std::vector<std::pair<std::int32_t, std::int32_t>> tokens;  // request, query
  for (std::int32_t request = 0; request < layout_.batch(); ++request) {
    for (std::int32_t query = 0; query < queries_[static_cast<std::size_t>(request)]; ++query)
      tokens.emplace_back(request, query);
  }
  const auto owned = static_cast<std::int64_t>(tokens.size());
  for (std::int64_t i = owned; i < layout_.total_q(); ++i)
    tokens.emplace_back(layout_.batch(), static_cast<std::int32_t>(i - owned));

  const std::int64_t heads = spec().num_heads_q, total = static_cast<std::int64_t>(tokens.size()) * heads;
  const std::int64_t wanted = std::min(total, max_rows);
  std::vector<RowId> rows;
  reference::Random random(spec().seed);
  for (std::int64_t i = 0; i < wanted; ++i) {
    // One row out of each of `wanted` runs of equal length.
    const std::int64_t first = i * total / wanted, last = (i + 1) * total / wanted - 1;
    const std::int64_t row = random.between(first, last);
    const auto& [request, query] = tokens[static_cast<std::size_t>(row / heads)];
    rows.push_back({request, query, static_cast<std::int32_t>(row % heads)});
  }
  return rows;
}

testing::AssertionResult DeviceProblem::is_right(std::int64_t max_rows) {
  const std::string what = " in " + describe(spec());
  const DeviceCount nans;
  for (const TensorView* view : {&args_.out, &args_.lse}) {
    if (view->given()) count_nans(*view, nans, stream_);
  }
  if (const std::int64_t count = nans.fetch(stream_); count != 0) {
    return testing::AssertionFailure() << count << " elements of out and lse are NaN or were not written" << what;
  }
  if (const testing::AssertionResult alone = left_all_else_alone(); !alone) return alone;
  const reference::Comparison comparison = reference::compare_on_device(args_, spec().causal, rows(max_rows));
  if (comparison.ok) return testing::AssertionSuccess();
  return testing::AssertionFailure() << comparison.wrong_rows << " of " << comparison.rows
                                     << " rows: " << comparison.message << what;
}

testing::AssertionResult DeviceProblem::runs_right(std::int64_t max_rows) {
  run();
  return is_right(max_rows);
}

testing::AssertionResult DeviceProblem::left_all_else_alone() {
  if (hash_inputs() != input_hash_) {
    return testing::AssertionFailure() << "an input was changed in " << describe(spec());
  }
  return left_gaps_alone();
}

// Erases all rows in a copy of the results; what is not NaN then lies between them.
testing::AssertionResult DeviceProblem::left_gaps_alone() {
  if (!has_gaps(spec())) return testing::AssertionSuccess();
  const DeviceCount others;
  for (std::size_t i = out_index_; i < bases_.size(); ++i) {
    const std::int64_t bytes = layout_.buffers()[i].bytes();
    const DeviceMemory copy(bytes);
    FLASH_MLA_REQUIRE(
        cudaMemcpyAsync(copy.data(), bases_[i], static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream_));
    TensorView view = i == out_index_ ? args_.out : args_.lse;
    view.data = static_cast<char*>(copy.data()) + (static_cast<char*>(view.data) - static_cast<char*>(bases_[i]));
    fill_rows_with_byte(view, kUnwritten, stream_);
    count_other_bytes(copy.data(), bytes, kUnwritten, others, stream_);
    synchronize();
  }
  if (const std::int64_t count = others.fetch(stream_); count != 0) {
    return testing::AssertionFailure() << count << " bytes between rows of out or lse were written in "
                                       << describe(spec());
  }
  return testing::AssertionSuccess();
}

std::int64_t DeviceProblem::hash_inputs() {
  const DeviceCount sum;
  for (std::size_t i = 0; i < out_index_; ++i) add_hash(bases_[i], layout_.buffers()[i].bytes(), sum, stream_);
  return sum.fetch(stream_);
}

Snapshot DeviceProblem::snapshot() {
  Snapshot copy;
  for (std::size_t i = out_index_; i < bases_.size(); ++i) {
    const std::int64_t bytes = layout_.buffers()[i].bytes();
    copy.parts.emplace_back(bytes);
    FLASH_MLA_REQUIRE(cudaMemcpyAsync(copy.parts.back().data(), bases_[i], static_cast<std::size_t>(bytes),
                                      cudaMemcpyDefault, stream_));
  }
  synchronize();
  return copy;
}

void DeviceProblem::count_differing(const Snapshot& expected, const DeviceCount& count) {
  for (std::size_t i = 0; i < expected.parts.size(); ++i) {
    test::count_differing(bases_[out_index_ + i], expected.parts[i].data(), expected.parts[i].bytes(), count, stream_);
  }
}

std::int64_t DeviceProblem::words_differing(const Snapshot& expected) {
  const DeviceCount count;
  count_differing(expected, count);
  return count.fetch(stream_);
}

}  // namespace flash_mla::test
