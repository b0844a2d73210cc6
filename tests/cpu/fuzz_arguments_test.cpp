// Random arguments at plan, schedule and decode: each combination is either refused, with a message and untouched
// outputs, or its result is right. Sanitizers watch for the rest. FLASH_MLA_FUZZ_ITERATIONS sets how many combinations
// are tried (default 100000), FLASH_MLA_FUZZ_SEED which.
#include <gtest/gtest.h>

#include <array>
#include <climits>
#include <map>
#include <memory>

#include "cpu/fuzz_trial.h"

namespace flash_mla::test {
namespace {

struct Counts {
  std::int64_t accepted = 0;
  std::int64_t refused = 0;
};

void report(const FuzzTrial& trial, std::int64_t iteration, const std::string& broken) {
  for (const std::string& complaint : trial.complaints) {
    ADD_FAILURE() << "trial " << iteration << " (" << describe(trial.base.problem.spec()) << "; broken: " << broken
                  << "): " << complaint << "\n  schedule: " << trial.scheduled.message()
                  << "\n  decode: " << trial.decoded.message();
  }
}

// Returns what it did.
const char* break_something(FuzzTrial& trial, Random& random) {
  while (true) {
    if (random.below(2)) {
      const ViewMutation& mutation = random.pick(view_mutations());
      mutation.apply(*random.pick(trial.given_views()), random);
      return mutation.name;
    }
    const Mutation& mutation = random.pick(mutations());
    if (mutation.apply(trial, random)) return mutation.name;
  }
}

TEST(FuzzArguments, DecodeRefusesOrIsRight) {
  constexpr int kTrialsPerBase = 40;
  const OneThread one_thread;
  Random random(fuzz_seed());
  Counts untouched, all;
  std::map<std::string, Counts> alone;  // of trials with just one mutation
  std::unique_ptr<FuzzBase> base;
  for (std::int64_t i = 0; i < fuzz_iterations() && !testing::Test::HasFailure(); ++i) {
    const bool fresh = i % kTrialsPerBase == 0;
    // The first trial of a base is valid and full of poison; the others start from a tame one.
    if (fresh) base = std::make_unique<FuzzBase>(random, false);
    if (i % kTrialsPerBase == 1) base = std::make_unique<FuzzBase>(random, true);
    FuzzTrial trial(*base);
    std::vector<const char*> applied;
    const std::int64_t wanted = fresh ? 0 : random.pick(std::array{0, 0, 1, 1, 1, 1, 1, 1, 2, 3});
    while (static_cast<std::int64_t>(applied.size()) < wanted && !trial.given_views().empty()) {
      applied.push_back(break_something(trial, random));
    }
    trial.run();

    std::string broken;
    for (const char* name : applied) broken += std::string(broken.empty() ? "" : ", ") + name;
    report(trial, i, broken);
    const bool ok = trial.decoded.ok();
    const auto count = [&](Counts& counts) { ++(ok ? counts.accepted : counts.refused); };
    count(all);
    if (applied.empty()) count(untouched);
    if (applied.size() == 1) count(alone[applied[0]]);
  }
  std::printf("decode: %ld accepted and right, %ld refused\n", static_cast<long>(all.accepted),
              static_cast<long>(all.refused));
  EXPECT_EQ(untouched.refused, 0) << "valid calls were refused";
  if (fuzz_iterations() < 20000) return;  // too few to expect each kind
  EXPECT_GT(all.accepted, fuzz_iterations() / 10);
  EXPECT_GT(all.refused, fuzz_iterations() / 4);
  for (const ViewMutation& mutation : view_mutations()) EXPECT_GT(alone[mutation.name].refused, 0) << mutation.name;
  for (const Mutation& mutation : mutations()) {
    const Counts& counts = alone[mutation.name];
    EXPECT_GT(mutation.always_legal ? counts.accepted : counts.refused, 0) << mutation.name;
    EXPECT_TRUE(!mutation.always_legal || counts.refused == 0) << mutation.name;
  }
}

template <class T>
T any_of(Random& random, std::initializer_list<std::int64_t> values) {
  return static_cast<T>(random.pick(values));
}

TEST(FuzzArguments, PlanRefusesOrHasSizes) {
  Random random(fuzz_seed() + 1);
  Counts counts;
  for (std::int64_t i = 0; i < fuzz_iterations() / 5; ++i) {
    PlanConfig config;
    const auto odd = [&] { return random.below(6) == 0; };  // per field
    config.device.type = odd() ? any_of<DeviceType>(random, {1, 2, 255}) : DeviceType::cpu;
    config.device.index = odd() ? any_of<int>(random, {-1, 1, INT_MAX}) : 0;
    config.dtype = any_of<DType>(random, odd() ? std::initializer_list<std::int64_t>{3, 4, 5, 255}
                                               : std::initializer_list<std::int64_t>{0, 1, 2});
    config.max_batch = any_of<std::int32_t>(random, {0, 1, 5, 70000, odd() ? INT_MAX : 3, odd() ? -1 : 2});
    config.max_total_q = any_of<std::int64_t>(random, {0, 1, 1000, odd() ? LLONG_MAX : 7, odd() ? -1 : 0});
    config.max_seqlen_q = any_of<std::int32_t>(random, {1, 2, 9, odd() ? INT_MAX : 1, odd() ? 0 : 1});
    config.num_heads_kv = any_of<std::int32_t>(random, {1, 2, 8, odd() ? 3 : 1, odd() ? 0 : 1, odd() ? INT_MAX : 1});
    config.num_heads_q = any_of<std::int32_t>(random, {8, 16, 128, odd() ? 5 : 24, odd() ? INT_MIN : 8});
    config.page_size = any_of<std::int32_t>(random, {16, 32, 64, 128, odd() ? 48 : 192, odd() ? INT_MIN : 1 << 30});
    config.causal = random.below(2);
    config.num_parts = any_of<std::int32_t>(random, {0, 1, 7, 200, odd() ? INT_MAX : 3, odd() ? -1 : 65536});
    const Result<Plan> plan = flash_mla::plan(config);
    if (!plan.ok()) {
      ++counts.refused;
      ASSERT_NE(plan.status().message()[0], '\0');
      continue;
    }
    ++counts.accepted;
    ASSERT_GE(plan->num_parts(), 1);
    ASSERT_GE(plan->rows_per_unit(), 1);
    ASSERT_GT(plan->schedule_bytes(), 0);
    ASSERT_GT(plan->scratch_bytes(), 0);
    ASSERT_TRUE(config.num_parts == 0 || plan->num_parts() == config.num_parts);
  }
  EXPECT_GT(counts.accepted, fuzz_iterations() / 100);
  EXPECT_GT(counts.refused, fuzz_iterations() / 100);
}

}  // namespace
}  // namespace flash_mla::test
