// How the thread blocks that share a cut unit agree on how it is merged, within one kernel and without memory that
// somebody must clear beforehand. Each cut unit has a word in scratch, its roll:
//
//   tag of the launch | closed | done | started | published
//
//   1. open      once a thread block has made its partial's memory blank, it counts itself as started. A word with
//                another tag, or with counts that cannot be, first becomes (tag, 0, 0, 0).
//   2. look      all have started: each merges its share, as soon as the partials are no longer blank.
//   3. close     where not all thread blocks fit the GPU, some begin only when others have ended. Who has waited for
//                long closes the roll, unless all have started by then. Then nobody waits, and
//   4. publish   who publishes its partial last merges everything.
//   5. count     a thread block looks at the word no more. The last one clears it, for a graph that is replayed brings
//                the same tag again.
//
// Which of both happens depends on the word alone, so all see the same; the bits of the result are the same either way.
#pragma once

#include <cstdint>

#include "cuda/combine/merge_params.h"
#include "cuda/ptx/global_atomic.h"

namespace flash_mla::cuda {

class RollCall {
 public:
  enum class State { waiting, all_started, closed };

  __device__ explicit RollCall(std::uint64_t* word) : word_(word) {}

  // `n`: parts that share the unit. Releases what the warp wrote before.
  __device__ void open(std::uint64_t tag, int n) {
    const std::uint64_t found = ptx::load_acquire(word_);
    const bool possible = started(found) < n && published(found) <= started(found) && done(found) <= started(found);
    if (found >> kGateTagBit != tag >> kGateTagBit || !possible) {
      ptx::compare_exchange_relaxed(word_, found, tag);  // if it fails, another one has opened it
    }
    ptx::fetch_add_acq_rel(word_, std::uint64_t{1} << kGateCountBits);
  }

  __device__ State look(int n) const { return state_of(ptx::load_acquire(word_), n); }

  __device__ State close(int n) {
    std::uint64_t word = ptx::load_acquire(word_);
    while (state_of(word, n) == State::waiting) {
      const std::uint64_t found = ptx::compare_exchange_relaxed(word_, word, word | kClosed);
      word = found == word ? word | kClosed : ptx::load_acquire(word_);
    }
    return state_of(word, n);
  }

  // Whether this one was the last of `n`; then it sees what all have written.
  __device__ bool publish(int n) { return published(ptx::fetch_add_acq_rel(word_, 1)) + 1 == n; }

  // Step 5 in two parts, so that nobody waits for the answer from memory: count() asks, clear() looks at it.
  __device__ void count() { answer_ = ptx::fetch_add_relaxed(word_, std::uint64_t{1} << (2 * kGateCountBits)); }
  __device__ void clear(int n) {
    if (done(answer_) + 1 == n) ptx::store_relaxed(word_, 0);
  }

 private:
  static constexpr std::uint64_t kClosed = std::uint64_t{1} << kRollClosedBit;

  static __device__ State state_of(std::uint64_t word, int n) {
    return (word & kClosed) != 0 ? State::closed : started(word) == n ? State::all_started : State::waiting;
  }
  static __device__ int count(std::uint64_t word, int bit) {
    return static_cast<int>(static_cast<std::uint32_t>(word >> bit) & ((1u << kGateCountBits) - 1));
  }
  static __device__ int published(std::uint64_t word) { return count(word, 0); }
  static __device__ int started(std::uint64_t word) { return count(word, kGateCountBits); }
  static __device__ int done(std::uint64_t word) { return count(word, 2 * kGateCountBits); }

  std::uint64_t* word_;
  std::uint64_t answer_ = 0;
};

}  // namespace flash_mla::cuda
