// One random decode call, for the fuzz test: a valid call on a small Problem, with some of its arguments then broken.
// Memory that a broken view would reach is provided, exactly sized, so the library may touch whatever it accepts, and
// AddressSanitizer sees it touch anything else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "cpu/fuzz_views.h"
#include "flash_mla/flash_mla.h"
#include "reference/buffer.h"
#include "reference/problem.h"
#include "reference/random.h"

namespace flash_mla::test {

// A problem with a plan and memories of exactly the plan's sizes; shared by many trials.
struct FuzzBase {
  FuzzBase(Random& random, bool to_be_broken);

  reference::Problem problem;
  PlanConfig config;
  Plan plan;
  Buffer schedule_memory;
  Buffer scratch;
};

class FuzzTrial {
 public:
  explicit FuzzTrial(FuzzBase& base);

  // schedule(), then decode(). A refused call must have a message and leave its outputs; errors are in `complaints`.
  void run();

  FuzzBase& base;
  Plan schedule_plan, decode_plan;
  DecodeArgs args;
  std::int32_t seqlen_q;
  MemoryView schedule_memory, scratch;
  bool skip_schedule = false;
  // Lengths that change between schedule and decode: value `late_length` of request `late_request`.
  std::int32_t late_request = -1, late_length = 0;

  Status scheduled, decoded;
  std::vector<std::string> complaints;

  // Views that a mutation may break; given or not.
  [[nodiscard]] std::vector<TensorView*> views();
  [[nodiscard]] std::vector<TensorView*> given_views();
  // The trial's own copies, as the problem's are shared.
  [[nodiscard]] std::span<std::int32_t> lengths() { return integers(0); }
  [[nodiscard]] std::span<std::int32_t> table() { return integers(1); }
  [[nodiscard]] std::span<std::int32_t> cu() { return integers(2); }  // empty when uniform

 private:
  std::span<std::int32_t> integers(std::size_t index) { return {integers_[index]}; }
  void own_integers(TensorView* view);
  void provide_memory();
  void judge_decode();
  bool outputs_untouched() const;

  std::vector<std::vector<std::int32_t>> integers_;
  MemoryProvider provider_;
  std::vector<const Buffer*> outputs_;
};

// Breaks something beyond single views (fuzz_views.h); false if this trial has nothing of the kind. Not every value is
// an error every time.
struct Mutation {
  const char* name;
  bool (*apply)(FuzzTrial&, Random&);
  bool always_legal = false;
};
[[nodiscard]] std::span<const Mutation> mutations();

}  // namespace flash_mla::test
