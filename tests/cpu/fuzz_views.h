// Random arguments for the fuzz tests: how a tensor view is broken, and memory for what a broken view reaches.
#pragma once

#include <omp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <span>

#include "flash_mla/types.h"
#include "reference/buffer.h"
#include "reference/random.h"

namespace flash_mla::test {

using reference::Buffer;
using reference::Random;

inline constexpr std::int64_t kInt64Max = std::numeric_limits<std::int64_t>::max();
inline constexpr std::int64_t kInt64Min = std::numeric_limits<std::int64_t>::min();

std::int64_t fuzz_iterations();  // FLASH_MLA_FUZZ_ITERATIONS, default 100000
std::uint64_t fuzz_seed();       // FLASH_MLA_FUZZ_SEED, default 1

// Small tensors: more threads than one only wait for each other.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

template <std::size_t N>
std::int64_t one_of(const std::array<std::int64_t, N>& values, Random& random) {
  return random.pick(values);
}

// `value`, or 0 where a mutation before made it so wild that its neighbours may not be numbers.
std::int64_t tame(std::int64_t value);

// Breaks one view. Wild values are such that no memory could be behind them; nearby ones may be legal.
struct ViewMutation {
  const char* name;
  void (*apply)(TensorView&, Random&);
};
[[nodiscard]] std::span<const ViewMutation> view_mutations();

// Bytes from the view's first element to behind its last; false: no array that could exist.
bool reach_bytes(const TensorView& view, std::int64_t* bytes);

// Sub-views of known memory may be broken so that they reach past it. That is no fault of the library, so they get a
// buffer of exactly what they reach.
class MemoryProvider {
 public:
  void know(const void* data, std::int64_t bytes) { known_.push_back({static_cast<const std::byte*>(data), bytes}); }
  // Points `view` to a buffer full of `fill` if it reaches past what is known. Null if it does not.
  const Buffer* provide(TensorView* view, std::byte fill);

 private:
  struct Region {
    const std::byte* data;
    std::int64_t bytes;
  };
  std::deque<Region> known_;
  std::deque<Buffer> provided_;
};

}  // namespace flash_mla::test
