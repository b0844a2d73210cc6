// The bf16 decode kernel with faults that can be chosen at run time. It takes the place of the library's in this
// program.
#pragma once

#include <string>
#include <vector>

namespace flash_mla::test {

// One operation that can be left out.
struct FaultCase {
  std::string name;
  int operation = 0;
  unsigned first = 0, last = 0;  // places, see cuda/ptx/faults.h
  // Why a test need not notice: nobody was seen to. Empty: one must.
  std::string excuse;
};

[[nodiscard]] const std::vector<FaultCase>& fault_cases();

// For kernels launched from now on; null: no fault.
void select_fault(const FaultCase* fault, int longest_sleep_ns);

}  // namespace flash_mla::test
