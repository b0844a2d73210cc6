#include "device/device_step.h"

#include <cstring>

#include "reference/compare.h"

namespace flash_mla::test {
namespace {

constexpr Device kGpu{DeviceType::cuda, 0};

Plan make_plan(const reference::Problem& problem, std::int32_t num_parts) {
  PlanConfig config = problem.plan_config();
  config.device = kGpu;
  config.num_parts = num_parts;
  const Result<Plan> plan = flash_mla::plan(config);
  if (!plan.ok()) throw std::runtime_error(plan.status().message());
  return *plan;
}

}  // namespace

DeviceStep::OwnStream::OwnStream() { FLASH_MLA_REQUIRE(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking)); }
DeviceStep::OwnStream::~OwnStream() { cudaStreamDestroy(handle); }

DeviceStep::DeviceStep(const reference::Problem& problem, std::int32_t num_parts)
    : problem_(problem),
      plan_(make_plan(problem, num_parts)),
      schedule_memory_(plan_.schedule_bytes()),
      scratch_(plan_.scratch_bytes()) {
  for (const reference::Buffer& buffer : problem.buffers()) {
    buffers_.emplace_back(buffer.bytes());
    bases_.push_back(buffers_.back().data());
  }
  upload();
  args_ = problem.relocate(problem.decode_args(), bases_, kGpu);
  schedule_args_ = problem.relocate(problem.schedule_args(), bases_, kGpu);
  schedule_memory_.fill(0xff);
  scratch_.fill(0xff);  // NaN
}

void DeviceStep::upload() {
  synchronize();
  for (std::size_t i = 0; i < buffers_.size(); ++i) buffers_[i].upload(problem_.buffers()[i].data());
}

Status DeviceStep::schedule() {
  return flash_mla::schedule(plan_, schedule_args_, {schedule_memory_.data(), schedule_memory_.bytes(), kGpu},
                             stream());
}

Status DeviceStep::decode() {
  return flash_mla::decode(plan_, args_, {schedule_memory_.data(), schedule_memory_.bytes(), kGpu},
                           {scratch_.data(), scratch_.bytes(), kGpu}, stream());
}

void DeviceStep::synchronize() { FLASH_MLA_REQUIRE(cudaStreamSynchronize(stream_.handle)); }

void DeviceStep::fetch_results() {
  synchronize();
  // The inputs too, so that damage() sees what the kernels may have done to them.
  for (std::size_t i = 0; i < buffers_.size(); ++i) buffers_[i].download(problem_.buffers()[i].data());
}

testing::AssertionResult is_right(const reference::Problem& problem, std::int64_t max_rows) {
  const DecodeArgs& args = problem.decode_args();
  const std::string what = " in " + describe(problem.spec());
  if (const std::string nan = reference::nan_in_results(args); !nan.empty()) {
    return testing::AssertionFailure() << nan << what;
  }
  return matches_reference(problem, max_rows);
}

testing::AssertionResult matches_reference(const reference::Problem& problem, std::int64_t max_rows) {
  const std::string what = " in " + describe(problem.spec());
  if (const std::string damage = problem.damage(); !damage.empty())
    return testing::AssertionFailure() << damage << what;
  const reference::Comparison comparison =
      reference::compare(problem.decode_args(), problem.spec().causal, max_rows, problem.spec().seed);
  if (!comparison.ok) {
    return testing::AssertionFailure() << comparison.wrong_rows << " of " << comparison.rows
                                       << " rows: " << comparison.message << what;
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult run(reference::Problem& problem, std::int32_t num_parts) {
  problem.clear_results();
  DeviceStep step(problem, num_parts);
  for (const Status& status : {step.schedule(), step.decode()}) {
    if (!status.ok()) return testing::AssertionFailure() << status.message() << " in " << describe(problem.spec());
  }
  step.fetch_results();
  return testing::AssertionSuccess();
}

testing::AssertionResult runs_right(reference::Problem& problem, std::int64_t max_rows) {
  const testing::AssertionResult ran = run(problem, problem.spec().num_parts);
  return ran ? is_right(problem, max_rows) : ran;
}

}  // namespace flash_mla::test
