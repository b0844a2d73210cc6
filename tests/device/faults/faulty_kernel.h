// The bf16 decode kernels with faults that can be chosen at run time. They take the place of the library's in this
// program.
#pragma once

#include <string>
#include <vector>

namespace flash_mla::test {

enum class FaultyKernel { dense, few_rows_16, few_rows_32 };

// One operation that can be left out.
struct FaultCase {
  FaultyKernel kernel = FaultyKernel::dense;
  std::string name;
  int operation = 0;
  unsigned first = 0, last = 0;  // places, see cuda/ptx/faults.h
  // Why a test need not notice: nobody was seen to. Empty: one must.
  std::string excuse;
};

[[nodiscard]] const std::vector<FaultCase>& fault_cases();

// What disturbs the warps: random sleeps at barriers and fences, loads from shared memory where others wait.
struct Disturbance {
  unsigned longest_sleep_ns = 0;
  int sleeping_warp = -1;  // the only one that sleeps; -1: all do
  bool noise = false;
};

// For kernels launched from now on; null: no fault. `reports`: fault_was_reached() may be asked once they have run.
void select_fault(const FaultCase* fault, const Disturbance& disturbance, bool reports = false);
// Did a kernel come to the place of the fault?
[[nodiscard]] bool fault_was_reached();

}  // namespace flash_mla::test
