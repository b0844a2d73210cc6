// How the thread blocks that share a cut unit come to know that all its partials are written, within one kernel and
// without memory that somebody must clear beforehand.
//
// Each cut unit (and thread block of a cohort) has a word in scratch, its gate:
//
//   tag of the launch | done | started | published
//
//   1. open       at its beginning, a thread block makes sure that the word is of this launch: a word with
//                 another tag, or with counts that cannot be, becomes (tag, 0, 0, 0). The first one does it, for all.
//                 Then it counts itself as started.
//   2. publish    one more partial is written. Whoever publishes last never waits.
//   3. wait       the others wait until all are published. Where not all thread blocks fit the GPU, some can only begin
//                 once others have ended: as long as not all have started, a thread block waits no longer than
//                 kPatienceCycles, then leaves.
//   4. done       a thread block looks at the word no more. Done before all were published, it has left, and the last
//                 one to publish merges everything instead; so nothing is lost, and results do not depend on who waits.
//                 The last one done clears the word, for a graph that is replayed brings the same tag again.
#pragma once

#include <cstdint>

#include "cuda/combine/merge_params.h"
#include "cuda/ptx/global_atomic.h"

namespace flash_mla::cuda {

// Which of a unit's shares (one for each split) the thread block merges.
struct Shares {
  std::int32_t first = 0, last = -1;
};

class Gate {
 public:
  __device__ explicit Gate(std::uint64_t* word) : word_(word) {}

  // `n`: splits of the unit.
  __device__ void open(std::uint64_t tag, int n) {
    const std::uint64_t found = ptx::load_acquire(word_);
    const bool possible = started(found) < n && published(found) <= started(found) && done(found) <= published(found);
    if (found >> kGateTagBit != tag >> kGateTagBit || !possible) {
      ptx::compare_exchange_relaxed(word_, found, tag);  // if it fails, another one has opened it
    }
    ptx::fetch_add_relaxed(word_, std::uint64_t{1} << kGateCountBits);
  }

  // Both tell whether it is known what the part with split `split` of `n` merges; until then look() is called again.
  __device__ bool publish(int n, int split, Shares* shares) {
    const std::uint64_t word = ptx::fetch_add_acq_rel(word_, 1);
    began_to_wait_ = now();
    if (published(word) + 1 != n) return false;
    *shares = done(word) > 0 ? Shares{0, n - 1} : Shares{split, split};
    return true;
  }
  __device__ bool look(int n, int split, Shares* shares) {
    std::uint64_t word = ptx::load_acquire(word_);
    const bool impatient = started(word) != n && now() - began_to_wait_ > kPatienceCycles;
    if (published(word) != n && !impatient) return false;
    if (published(word) != n) word = leave(n);
    *shares = published(word) == n ? Shares{split, split} : Shares{};
    return true;
  }

  // Step 4 in two parts, so that nobody waits for the answer from memory: count() asks, clear() looks at it.
  __device__ void count() {
    if (!left_) answer_ = ptx::fetch_add_relaxed(word_, kOneDone);
  }
  __device__ void clear(int n) {
    if (!left_) clear_if_last(answer_, n);
  }

 private:
  static __device__ std::uint32_t now() { return static_cast<std::uint32_t>(clock()); }

  static constexpr std::uint64_t kOneDone = std::uint64_t{1} << (2 * kGateCountBits);
  static constexpr std::uint32_t kPatienceCycles = 1 << 15;  // some 18 us

  __device__ std::uint64_t leave(int n) {
    left_ = true;  // it may turn out that all have published: then their partials are read
    const std::uint64_t word = ptx::fetch_add_acq_rel(word_, kOneDone);
    clear_if_last(word, n);
    return word;
  }
  __device__ void clear_if_last(std::uint64_t before, int n) {
    if (done(before) + 1 == n) ptx::store_relaxed(word_, 0);
  }
  static __device__ int count(std::uint64_t word, int bit) {
    return static_cast<int>(static_cast<std::uint32_t>(word >> bit) & ((1u << kGateCountBits) - 1));
  }
  static __device__ int published(std::uint64_t word) { return count(word, 0); }
  static __device__ int started(std::uint64_t word) { return count(word, kGateCountBits); }
  static __device__ int done(std::uint64_t word) { return count(word, 2 * kGateCountBits); }

  std::uint64_t* word_;
  std::uint32_t began_to_wait_ = 0;
  std::uint64_t answer_ = 0;
  bool left_ = false;
};

}  // namespace flash_mla::cuda
