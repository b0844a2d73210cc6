// Machines without AMX, bf16 instructions, AVX-512 or AVX2 get right results too: each test runs in a process of its
// own (a death test of the threadsafe style executes the program anew) in which oneDNN and Highway see a lesser
// machine.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>

#include "cpu/step.h"

namespace flash_mla::test {
namespace {

using reference::Problem;
using reference::ProblemSpec;

struct Machine {
  const char* name;             // of the test
  const char* onednn_max_isa;   // oneDNN's name
  const char* instruction_set;  // the library's
  std::int64_t best_target;     // Highway's; lower bits are better targets
};

constexpr Machine kMachines[] = {
    {"Avx512Bf16", "AVX512_CORE_BF16", "avx512_core_bf16", HWY_AVX3_DL},
    {"Avx512", "AVX512_CORE", "avx512_core", HWY_AVX3},
    {"Avx2", "AVX2", "avx2", HWY_AVX2},
    {"Sse4", "SSE41", "sse41", HWY_SSE4},
    {"Scalar", "SSE41", "sse41", HWY_SCALAR},
};

// Instruction sets from poor to rich.
int rank_of(const std::string& instruction_set) {
  constexpr const char* kNames[] = {
      "x86-64",           "sse41",          "avx", "avx2", "avx2_vnni", "avx512_core", "avx512_core_vnni",
      "avx512_core_bf16", "avx512_core_amx"};
  return static_cast<int>(std::find(std::begin(kNames), std::end(kNames), instruction_set) - std::begin(kNames));
}

// Exits with 0 when all is right.
[[noreturn]] void decode_on(const Machine& machine) {
  hwy::DisableTargets(machine.best_target - 1);
  const std::string used = device_info({})->instruction_set;
  bool right = used == machine.instruction_set;
  if (!right) std::cerr << "runs on " << used << "\n";
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const std::int32_t heads : {1, 16, 100}) {
      ProblemSpec spec;
      spec.dtype = dtype, spec.num_heads_q = heads, spec.lengths = {200, 0, 1, 63}, spec.seqlen_q = 2;
      spec.num_parts = 3;
      Problem problem(spec);
      const testing::AssertionResult result = runs_right(problem);
      if (!result) std::cerr << result.message() << "\n";
      right &= static_cast<bool>(result);
    }
  }
  std::exit(right ? 0 : 1);
}

class InstructionSets : public testing::TestWithParam<Machine> {};

TEST_P(InstructionSets, AreRight) {
  const Machine& machine = GetParam();
  const std::string mine = device_info({})->instruction_set;
  if (rank_of(mine) < rank_of(machine.instruction_set)) GTEST_SKIP() << "this machine has no more than " << mine;
  setenv("ONEDNN_MAX_CPU_ISA", machine.onednn_max_isa, 1);  // oneDNN reads it once, in the new process
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(decode_on(machine), testing::ExitedWithCode(0), "");
  unsetenv("ONEDNN_MAX_CPU_ISA");
}

INSTANTIATE_TEST_SUITE_P(Machines, InstructionSets, testing::ValuesIn(kMachines),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace flash_mla::test
