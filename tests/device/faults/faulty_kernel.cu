// See faulty_kernel.h.
#define FLASH_MLA_FAULTS
#include <cstddef>
#include <cstdio>

#include "cuda/sm90/common/launch.h"
#include "cuda/sm90/dense_decode/kernel.h"
#include "device/faults/faulty_kernel.h"
#include "device/gpu.h"

namespace flash_mla::sm90 {

// The linker finds it here and leaves the library's variant out.
DecodeKernel dense_decode_bf16_576_512() {
  static std::atomic<std::uint64_t> prepared_devices;
  return {reinterpret_cast<const void*>(&flash_fwd_splitkv_mla_kernel<__nv_bfloat16>), &prepared_devices, kThreads,
          static_cast<int>(sizeof(SharedMemory)), kRows};
}

}  // namespace flash_mla::sm90

namespace flash_mla::test {
namespace {

using ptx::Operation;
using sm90::SharedMemory;

FaultCase fault(const char* name, Operation operation, std::size_t first, std::size_t last, const char* excuse = "") {
  return {name, static_cast<int>(operation), static_cast<unsigned>(first), static_cast<unsigned>(last), excuse};
}

}  // namespace

#define FLASH_MLA_BARRIER_FAULT(barrier, operation, ...)                                \
  fault(#barrier "_" #operation, Operation::operation, offsetof(SharedMemory, barrier), \
        offsetof(SharedMemory, barrier) + sizeof(SharedMemory::barrier) - 1, ##__VA_ARGS__)

const std::vector<FaultCase>& fault_cases() {
  static const std::vector<FaultCase> cases = {
      FLASH_MLA_BARRIER_FAULT(tile_dealt, wait),
      FLASH_MLA_BARRIER_FAULT(tile_dealt, arrive),
      FLASH_MLA_BARRIER_FAULT(tile_finished, wait),
      FLASH_MLA_BARRIER_FAULT(tile_finished, arrive),
      FLASH_MLA_BARRIER_FAULT(q_landed, wait),
      FLASH_MLA_BARRIER_FAULT(q_landed, arrive),
      FLASH_MLA_BARRIER_FAULT(q_released, wait),
      FLASH_MLA_BARRIER_FAULT(q_released, arrive),
      FLASH_MLA_BARRIER_FAULT(k_landed, wait),
      FLASH_MLA_BARRIER_FAULT(k_landed, arrive),
      FLASH_MLA_BARRIER_FAULT(k_released, wait),
      FLASH_MLA_BARRIER_FAULT(k_released, arrive),
      FLASH_MLA_BARRIER_FAULT(scores_done, wait, "it orders two products for speed; no result depends on it"),
      FLASH_MLA_BARRIER_FAULT(scores_done, arrive),
      FLASH_MLA_BARRIER_FAULT(p_published, wait),
      FLASH_MLA_BARRIER_FAULT(p_published, arrive),
      FLASH_MLA_BARRIER_FAULT(p_fetched, wait),
      FLASH_MLA_BARRIER_FAULT(p_fetched, arrive),
      // Warpgroup 0 gathers queries, 1 and 2 set rows of V to zero; then wgmma reads them.
      fault("gathered_queries_fence", Operation::fence, 0, 0, "10,000 runs with random sleeps show no difference"),
      fault("zeroed_values_left_fence", Operation::fence, 1, 1, "10,000 runs with random sleeps show no difference"),
      fault("zeroed_values_right_fence", Operation::fence, 2, 2, "10,000 runs with random sleeps show no difference"),
      fault("gathered_queries_meet", Operation::meet, sm90::kScoresBarrier, sm90::kScoresBarrier),
      fault("zeroed_values_left_meet", Operation::meet, sm90::kValuesBarrier, sm90::kValuesBarrier),
      fault("zeroed_values_right_meet", Operation::meet, sm90::kValuesBarrier + 1, sm90::kValuesBarrier + 1),
  };
  return cases;
}

void select_fault(const FaultCase* fault, const Sleeps& sleeps) {
  ptx::Fault selected = {};
  if (fault != nullptr) {
    selected.operation = static_cast<Operation>(fault->operation);
    selected.first = fault->first, selected.last = fault->last;
  }
  selected.longest_sleep_ns = sleeps.longest_ns;
  selected.late_warp = sleeps.late_warp, selected.late_ns = sleeps.late_ns;
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  FLASH_MLA_REQUIRE(cudaMemcpyToSymbol(ptx::selected_fault, &selected, sizeof selected));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
}

}  // namespace flash_mla::test
