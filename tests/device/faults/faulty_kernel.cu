// See faulty_kernel.h. What the excuses mean is in docs/conventions.md.
#define FLASH_MLA_FAULTS
#include <cstddef>

// The linker finds these variants here and leaves the library's out.
#include "dense_decode_bf16_576_512.cu"
#include "device/faults/faulty_kernel.h"
#include "device/gpu.h"
#include "few_rows_decode_bf16_576_512.cu"

namespace flash_mla::test {
namespace {

using ptx::Operation;

constexpr const char* kKernelNames[] = {"dense", "few_rows_16", "few_rows_32"};
constexpr const char* kProductWaits = "the product waits for all warps of its warpgroup";
constexpr const char* kOnlySpeed = "it orders two products for speed; no result depends on it";
constexpr const char* kOnlyWhen = "it says when to look for partials; that they are there they say by themselves";
constexpr const char* kLongBefore = "what it says is so some microseconds before a tile has results";
constexpr const char* kOnItsWay = "the copy engine begins to read some hundred cycles after the stores";
constexpr const char* kNotSeen = "10,000 runs, warps asleep or late or shared memory busy, show no difference";

class Cases {
 public:
  explicit Cases(FaultyKernel kernel) : kernel_(kernel) {}

  // Waits for and arrivals on the barriers in these bytes of shared memory.
  void leave_out_barriers(const char* name, std::size_t first, std::size_t bytes, const char* wait_excuse = "") {
    add(std::string(name) + "_wait", Operation::wait, first, bytes, wait_excuse);
    add(std::string(name) + "_arrive", Operation::arrive, first, bytes, "");
  }
  // What this function calls.
  void leave_out_fence(const char* function, const char* excuse = "") {
    add(std::string(function) + "_fence", Operation::fence, ptx::place_named(function), 1, excuse);
  }
  void leave_out_meeting(const char* function, const char* excuse = "") {
    add(std::string(function) + "_meet", Operation::meet, ptx::place_named(function), 1, excuse);
  }
  void append_to(std::vector<FaultCase>& all) const { all.insert(all.end(), cases_.begin(), cases_.end()); }

 private:
  void add(const std::string& name, Operation operation, std::size_t first, std::size_t count, const char* excuse) {
    cases_.push_back({kernel_, std::string(kKernelNames[static_cast<int>(kernel_)]) + "_" + name,
                      static_cast<int>(operation), static_cast<unsigned>(first),
                      static_cast<unsigned>(first + count - 1), excuse});
  }
  FaultyKernel kernel_;
  std::vector<FaultCase> cases_;
};

// Barriers that every kernel has.
template <class SharedMemory>
Cases common_cases(FaultyKernel kernel) {
  using Ring = decltype(SharedMemory::ring);
  using Pipeline = decltype(SharedMemory::kv);
  constexpr std::size_t kRing = offsetof(SharedMemory, ring), kKv = offsetof(SharedMemory, kv);
  Cases cases(kernel);
  cases.leave_out_barriers("tile_dealt", kRing + offsetof(Ring, tile_dealt), sizeof(Ring::tile_dealt));
  cases.leave_out_barriers("tile_finished", kRing + offsetof(Ring, tile_finished), sizeof(Ring::tile_finished));
  cases.leave_out_barriers("k_landed", kKv + offsetof(Pipeline, k_landed), sizeof(Pipeline::k_landed));
  cases.leave_out_barriers("k_released", kKv + offsetof(Pipeline, k_released), sizeof(Pipeline::k_released));
  constexpr std::size_t kCut = offsetof(SharedMemory, cut);
  using Cut = sm90::CutUnits;
  cases.leave_out_barriers("gates_answered", kCut + offsetof(Cut, gates_answered), sizeof(Cut::gates_answered));
  cases.leave_out_barriers("partials_landed", kCut + offsetof(Cut, partials_landed), sizeof(Cut::partials_landed));
  cases.leave_out_meeting("wait_for_partials");
  cases.leave_out_meeting("meet");
  cases.leave_out_fence("merge_rows", kNotSeen);
  return cases;
}

Cases dense_cases() {
  using sm90::SharedMemory;
  constexpr std::size_t kBytes = sizeof(ptx::Barrier);
  Cases cases = common_cases<SharedMemory>(FaultyKernel::dense);
  cases.leave_out_barriers("q_landed", offsetof(SharedMemory, q_landed), kBytes);
  cases.leave_out_barriers("q_released", offsetof(SharedMemory, q_released), kBytes);
  cases.leave_out_barriers("scores_done", offsetof(SharedMemory, scores_done), kBytes, kOnlySpeed);
  cases.leave_out_barriers("p_published", offsetof(SharedMemory, p_published), kBytes);
  cases.leave_out_barriers("p_fetched", offsetof(SharedMemory, p_fetched), kBytes);
  cases.leave_out_fence("gather_queries", kNotSeen);
  cases.leave_out_fence("zero_rows_from", kNotSeen);
  cases.leave_out_meeting("gather_queries");
  cases.leave_out_meeting("zero_rows_from", kProductWaits);
  return cases;
}

template <int Rows>
Cases few_rows_cases(FaultyKernel kernel) {
  using SharedMemory = sm90::few_rows::SharedMemory<Rows>;
  constexpr std::size_t kBytes = sizeof(ptx::Barrier);
  Cases cases = common_cases<SharedMemory>(kernel);
  constexpr std::size_t kRolled = offsetof(SharedMemory, rolled);
  using Rolled = sm90::few_rows::RolledUnits<Rows>;
  cases.leave_out_barriers("partials_blank", kRolled + offsetof(Rolled, partials_blank), kBytes, kLongBefore);
  cases.leave_out_barriers("partials_written", kRolled + offsetof(Rolled, partials_written), kBytes, kOnlyWhen);
  cases.leave_out_barriers("roll_called", kRolled + offsetof(Rolled, roll_called), kBytes, kLongBefore);
  cases.leave_out_meeting("merge_shared_items");
  cases.leave_out_barriers("q_landed", offsetof(SharedMemory, q_landed), kBytes);
  cases.leave_out_barriers("q_released", offsetof(SharedMemory, q_released), kBytes);
  cases.leave_out_fence("gather_queries", kNotSeen);
  cases.leave_out_fence("write_probabilities");
  cases.leave_out_meeting("gather_queries", kProductWaits);
  cases.leave_out_fence("write_results", kOnItsWay);
  cases.leave_out_meeting("reduce_rows");
  cases.leave_out_meeting("write_results");
  cases.leave_out_meeting("write_probabilities", kProductWaits);
  return cases;
}

}  // namespace

const std::vector<FaultCase>& fault_cases() {
  static const std::vector<FaultCase> all = [] {
    std::vector<FaultCase> cases;
    dense_cases().append_to(cases);
    few_rows_cases<16>(FaultyKernel::few_rows_16).append_to(cases);
    few_rows_cases<32>(FaultyKernel::few_rows_32).append_to(cases);
    return cases;
  }();
  return all;
}

void select_fault(const FaultCase* fault, const Disturbance& disturbance, bool reports) {
  ptx::Fault selected = {};
  if (fault != nullptr) {
    selected.operation = static_cast<Operation>(fault->operation);
    selected.first = fault->first, selected.last = fault->last;
  }
  selected.longest_sleep_ns = disturbance.longest_sleep_ns;
  selected.sleeping_warp = disturbance.sleeping_warp;
  selected.noise = disturbance.noise;
  selected.reports = reports;
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
  FLASH_MLA_REQUIRE(cudaMemcpyToSymbol(ptx::selected_fault, &selected, sizeof selected));
  FLASH_MLA_REQUIRE(cudaDeviceSynchronize());
}

bool fault_was_reached() {
  int reached = 0;
  FLASH_MLA_REQUIRE(cudaMemcpyFromSymbol(&reached, ptx::fault_reached, sizeof reached));
  return reached != 0;
}

}  // namespace flash_mla::test
