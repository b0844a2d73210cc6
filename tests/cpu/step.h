// Runs a Problem through the library on the CPU as an engine would, in lent memories of exactly the size that the plan
// asks for, full of garbage before every call.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "flash_mla/flash_mla.h"
#include "reference/compare.h"
#include "reference/problem.h"

namespace flash_mla::test {

class Step {
 public:
  explicit Step(const PlanConfig& config);

  [[nodiscard]] const Plan& plan() const { return plan_; }
  Status schedule(const ScheduleArgs& args);
  Status decode(const DecodeArgs& args);  // with the schedule made last

  [[nodiscard]] reference::Buffer& schedule_memory() { return schedule_memory_; }

 private:
  Plan plan_;
  reference::Buffer schedule_memory_;
  reference::Buffer scratch_;
  std::uint64_t garbage_ = 0;
};

// plan, schedule, decode with the problem's own bounds.
Status run(reference::Problem& problem);

// run(), then: every element of out and lse is written, nothing else is, and of the rows at most max_rows are compared
// with the reference.
testing::AssertionResult runs_right(reference::Problem& problem, std::int64_t max_rows = INT64_MAX);
// The same of results that are there already.
testing::AssertionResult is_right(const reference::Problem& problem, std::int64_t max_rows = INT64_MAX);

// Bits of out and lse, without gaps, to be compared.
struct Bits {
  std::vector<std::byte> out, lse;
  friend bool operator==(const Bits&, const Bits&) = default;
};
[[nodiscard]] Bits bits_of(const DecodeArgs& args);
[[nodiscard]] std::vector<std::byte> bits_of_row(const DecodeArgs& args, reference::RowId id);

}  // namespace flash_mla::test
