// How the thread blocks that share a cut unit come to know that all its partials are written, within one kernel and
// without memory that somebody must clear beforehand.
//
// Each cut unit (and thread block of a cohort) has a word in scratch, its gate:
//
//   tag of the launch | done | started | published
//
//   1. open       at its beginning, a thread block makes sure that the word has the launch's tag: whatever else is
//   there
//                 becomes (tag, 0, 0, 0). The first one does it, for all. Then it counts itself as started.
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
  __device__ Gate(std::uint64_t* word, GateFormat format) : word_(word), format_(format) {}

  __device__ void open() {
    const std::uint64_t found = ptx::load_acquire(word_);
    if (found >> (3 * format_.bits) != format_.tag >> (3 * format_.bits)) {
      ptx::compare_exchange_relaxed(word_, found, format_.tag);  // if it fails, another one has opened it
    }
    ptx::fetch_add_acq_rel(word_, std::uint64_t{1} << format_.bits);
  }

  // Steps 2 and 3 for the part with split `split` of `n`.
  __device__ Shares publish_and_wait(int n, int split) {
    constexpr long long kPatienceCycles = 1 << 15;  // some 18 us
    std::uint64_t word = ptx::fetch_add_acq_rel(word_, 1);
    if (published(word) + 1 == n) return done(word) > 0 ? Shares{0, n - 1} : Shares{split, split};
    const long long begin = clock64();
    do {
      word = ptx::load_acquire(word_);
      if (published(word) == n) return {split, split};
    } while (started(word) == n || clock64() - begin < kPatienceCycles);
    word = finish(n);
    return published(word) == n ? Shares{split, split} : Shares{};
  }

  // Step 4, unless it has been done while waiting.
  __device__ void finish_once(int n) {
    if (!finished_) finish(n);
  }

 private:
  __device__ std::uint64_t finish(int n) {
    finished_ = true;
    const std::uint64_t word = ptx::fetch_add_acq_rel(word_, std::uint64_t{1} << (2 * format_.bits));
    if (done(word) + 1 == n) ptx::store_relaxed(word_, 0);
    return word;
  }
  __device__ int published(std::uint64_t word) const { return static_cast<int>(word & mask()); }
  __device__ int started(std::uint64_t word) const { return static_cast<int>(word >> format_.bits & mask()); }
  __device__ int done(std::uint64_t word) const { return static_cast<int>(word >> (2 * format_.bits) & mask()); }
  __device__ std::uint64_t mask() const { return (std::uint64_t{1} << format_.bits) - 1; }

  std::uint64_t* word_;
  GateFormat format_;
  bool finished_ = false;
};

}  // namespace flash_mla::cuda
