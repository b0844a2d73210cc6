// Do tests notice when a barrier or a fence is missing? Each is left out in turn in a process of its own, since a
// kernel that waits for ever ends in the watchdog's trap, after which a process can do nothing more on the GPU.
//
//   test_device_faults --fault N     runs case N and exits with 0 (no run differed), 1 (one did) or 2 (the GPU failed)
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/backend.h"
#include "device/device_problem.h"
#include "device/faults/faulty_kernel.h"

extern char** environ;

namespace flash_mla::test {
namespace {

using reference::ProblemSpec;

constexpr int kRuns = 10000, kRunsBetweenLooks = 100;
constexpr unsigned kMostSeconds = 180;
constexpr int kWarps = 16, kProblems = 6;
enum Outcome : int { kUnseen = 0, kDiffered = 1, kGpuFailed = 2, kWaited = 3, kBroken = 4 };
constexpr const char* kOutcomeNames[] = {"not noticed", "results differ", "the GPU fails", "it waits for ever",
                                         "broken"};

// Many tiles a thread block, tails with poison, masks, splits, rescaling; of as many rows as make a plan choose the
// kernel. The dense one gets queries that the copy engine brings and ones that are gathered.
std::vector<ProblemSpec> specs(FaultyKernel kernel) {
  struct Heads {
    std::int32_t q, kv, seqlen_q;
  };
  const auto heads_of = [kernel](int spec) -> Heads {
    constexpr Heads kHeads[3][kProblems] = {{{64, 1, 1}, {126, 2, 2}, {128, 1, 1}, {64, 1, 1}, {64, 1, 1}, {128, 1, 1}},
                                            {{16, 1, 1}, {9, 3, 2}, {4, 1, 3}, {16, 1, 1}, {16, 1, 1}, {8, 1, 2}},
                                            {{32, 1, 1}, {20, 2, 3}, {17, 1, 1}, {32, 1, 1}, {32, 1, 1}, {32, 1, 1}}};
    return kHeads[static_cast<int>(kernel)][spec];
  };
  const auto drawn = [](std::int32_t requests) {
    std::vector<std::int32_t> lengths;
    for (std::int32_t r = 0; r < requests; ++r) lengths.push_back(r % 7 == 3 ? 0 : 1 + r * 37 % 400);
    return lengths;
  };
  std::vector<ProblemSpec> all(kProblems);
  all[0].lengths = drawn(40), all[0].num_parts = 10;
  all[1].lengths = {700, 64, 130, 65, 3, 300, 90, 1}, all[1].num_parts = 6, all[1].page_size = 128;
  // A unit in many splits; of few rows, of too few parts in all for a plan of small steps.
  all[2].lengths = {2000, 77, 5}, all[2].page_size = 32, all[2].q_scale = 30;
  if (kernel != FaultyKernel::dense) all[2].num_parts = 20;
  all[3].lengths = drawn(264);  // as many thread blocks on each multiprocessor as there is room for
  // Units in two and three splits, of which one has nearly all weight: little to add up once the factors are known, so
  // the merge soon wants what the copy engine brings.
  all[4].lengths.assign(66, 1280), all[4].lengths[0] = 1900, all[4].num_parts = 132, all[4].q_scale = 30;
  all[5].lengths = {700, 90, 0, 1000, 1, 2000};  // few units, of which some are in very many splits
  if (kernel == FaultyKernel::dense) all[5].lengths = {1, 0, 32768};  // so many that warps share a row of the merge
  for (int i = 0; i < kProblems; ++i) {
    const Heads heads = heads_of(i);
    all[i].num_heads_q = heads.q, all[i].num_heads_kv = heads.kv, all[i].seqlen_q = heads.seqlen_q;
  }
  return all;
}

// A problem and what it gives without faults.
struct Judged {
  explicit Judged(const ProblemSpec& spec) : problem(spec) {
    if (const testing::AssertionResult right = problem.runs_right(500); !right) {
      throw std::runtime_error(std::string("without a fault: ") + right.message());
    }
    expected = problem.snapshot();
    problem.synchronize();
  }
  DeviceProblem problem;
  Snapshot expected;
};

// Leaves the process if the stream is still busy after so long.
void wait_or_leave(cudaStream_t stream, std::chrono::seconds patience) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + patience;
  cudaError_t state = cudaStreamQuery(stream);
  for (; state == cudaErrorNotReady && Clock::now() < end; state = cudaStreamQuery(stream)) usleep(1000);
  if (state == cudaErrorNotReady) _exit(kWaited);
  FLASH_MLA_REQUIRE(state);
}

// By turns: none, sleeps of two lengths, of one warp after the other, noise.
Disturbance disturbance_of(int look) {
  switch (look % 5) {
    case 0:
      return {};
    case 1:
      return {.longest_sleep_ns = 2000};
    case 2:
      return {.longest_sleep_ns = 500};
    case 3:
      return {.longest_sleep_ns = 2000, .sleeping_warp = look / 5 % kWarps};
    default:
      return {.noise = true};
  }
}

// The words that differed within so many runs of each problem.
std::int64_t run_all(std::vector<std::unique_ptr<Judged>>& all, int runs, std::chrono::seconds patience) {
  std::int64_t differing = 0;
  for (const auto& judged : all) {
    const DeviceCount count;
    for (int i = 0; i < runs; ++i) {
      judged->problem.clear_results();
      judged->problem.decode();
      judged->problem.count_differing(judged->expected, count);
    }
    wait_or_leave(judged->problem.stream(), patience);
    differing += count.fetch(judged->problem.stream());
  }
  return differing;
}

// The same with this fault. Waits without an end mostly come at once, so the first look comes soon.
std::int64_t words_that_differ(std::vector<std::unique_ptr<Judged>>& all, const FaultCase* fault, int runs) {
  select_fault(fault, {}, /*reports=*/true);
  std::int64_t differing = run_all(all, 1, std::chrono::seconds(1));
  if (fault != nullptr && !fault_was_reached()) {
    std::printf("no kernel came to the place of %s\n", fault->name.c_str());
    std::fflush(stdout);
    _exit(kBroken);
  }
  for (int look = 0; look < runs / kRunsBetweenLooks && differing == 0; ++look) {
    select_fault(fault, disturbance_of(look));
    differing = run_all(all, kRunsBetweenLooks, std::chrono::seconds(20));
  }
  return differing;
}

std::vector<std::unique_ptr<Judged>> judged_problems(FaultyKernel kernel) {
  select_fault(nullptr, {});
  std::vector<std::unique_ptr<Judged>> all;
  for (const ProblemSpec& spec : specs(kernel)) all.push_back(std::make_unique<Judged>(spec));
  return all;
}

int run_case(const FaultCase& fault) {
  alarm(kMostSeconds);
  std::vector<std::unique_ptr<Judged>> all;
  try {
    all = judged_problems(fault.kernel);
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    std::fflush(stdout);
    _exit(kBroken);
  }
  Outcome outcome = kUnseen;
  try {
    outcome = words_that_differ(all, &fault, kRuns) == 0 ? kUnseen : kDiffered;
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    outcome = kGpuFailed;
  }
  std::fflush(stdout);
  _exit(outcome);  // nothing that was allocated can be freed after a failure
}

int run_in_own_process(std::size_t index) {
  std::string program = "/proc/self/exe", flag = "--fault", number = std::to_string(index);
  char* arguments[] = {program.data(), flag.data(), number.data(), nullptr};
  pid_t child = 0;
  if (posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments, environ) != 0) return -1;
  int status = 0;
  if (waitpid(child, &status, 0) != child) return -1;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) return kBroken;  // it took too long to tell
  return WIFEXITED(status) ? WEXITSTATUS(status) : kGpuFailed;
}

// The sleeps alone do no harm.
TEST(Faults, NoFaultNoDifference) {
  for (const FaultyKernel kernel : {FaultyKernel::dense, FaultyKernel::few_rows_16, FaultyKernel::few_rows_32}) {
    std::vector<std::unique_ptr<Judged>> all = judged_problems(kernel);
    EXPECT_EQ(words_that_differ(all, nullptr, 800), 0);
  }
}

class FaultsAreNoticed : public testing::TestWithParam<std::size_t> {};

TEST_P(FaultsAreNoticed, InAProcessOfItsOwn) {
  const FaultCase& fault = fault_cases()[GetParam()];
  const int outcome = run_in_own_process(GetParam());
  ASSERT_TRUE(outcome >= kUnseen && outcome < kBroken) << outcome;
  std::printf("[          ] %s left out: %s\n", fault.name.c_str(), kOutcomeNames[outcome]);
  if (!fault.excuse.empty()) {
    std::printf("[          ] excused: %s\n", fault.excuse.c_str());
  } else {
    EXPECT_NE(outcome, kUnseen) << fault.name;
  }
}

std::vector<std::size_t> indices() {
  std::vector<std::size_t> all;
  for (std::size_t i = 0; i < fault_cases().size(); ++i) all.push_back(i);
  return all;
}

INSTANTIATE_TEST_SUITE_P(LeftOut, FaultsAreNoticed, testing::ValuesIn(indices()),
                         [](const auto& info) { return fault_cases()[info.param].name; });

}  // namespace
}  // namespace flash_mla::test

int main(int argc, char** argv) {
  using namespace flash_mla;
  if (argc == 3 && std::strcmp(argv[1], "--fault") == 0) {
    return test::run_case(test::fault_cases().at(static_cast<std::size_t>(std::atoi(argv[2]))));
  }
  testing::InitGoogleTest(&argc, argv);
  const BackendInfo info = cuda_backend()->info();
  if (!info.available && !testing::GTEST_FLAG(list_tests)) {
    std::printf("[  SKIPPED ] device tests: %s\n", info.reason);
    return 0;
  }
  return RUN_ALL_TESTS();
}
