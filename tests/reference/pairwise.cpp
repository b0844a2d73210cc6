// See pairwise.h.
#include "reference/pairwise.h"

#include <cstddef>
#include <utility>

#include "reference/random.h"

namespace flash_mla::reference {
namespace {

constexpr int kFree = -1;

// Which pairs of (axis, choice) have met.
class Pairs {
 public:
  explicit Pairs(const std::vector<int>& sizes) : sizes_(sizes) {
    for (int size : sizes) first_.push_back(choices_), choices_ += static_cast<std::size_t>(size);
    met_.assign(choices_ * choices_, false);
  }

  // Pairs of the case that have not met.
  [[nodiscard]] int gain(const std::vector<int>& chosen) const {
    int count = 0;
    for_each(chosen, [&](std::size_t pair) { count += met_[pair] ? 0 : 1; });
    return count;
  }
  void add(const std::vector<int>& chosen) {
    for_each(chosen, [&](std::size_t pair) { met_[pair] = true; });
  }
  // A case with kFree in all places but two, whose choices have not met. Empty when all have.
  [[nodiscard]] std::vector<int> find_unmet() const {
    std::vector<int> chosen(sizes_.size(), kFree);
    for (std::size_t a = 0; a < sizes_.size(); ++a) {
      for (std::size_t b = a + 1; b < sizes_.size(); ++b) {
        for (chosen[a] = 0; chosen[a] < sizes_[a]; ++chosen[a]) {
          for (chosen[b] = 0; chosen[b] < sizes_[b]; ++chosen[b]) {
            if (!met_[pair(chosen, a, b)]) return chosen;
          }
        }
        chosen[b] = kFree;
      }
      chosen[a] = kFree;
    }
    return {};
  }

 private:
  [[nodiscard]] std::size_t pair(const std::vector<int>& chosen, std::size_t a, std::size_t b) const {
    return (first_[a] + static_cast<std::size_t>(chosen[a])) * choices_ + first_[b] +
           static_cast<std::size_t>(chosen[b]);
  }
  template <class Visit>
  void for_each(const std::vector<int>& chosen, Visit visit) const {
    for (std::size_t a = 0; a < sizes_.size(); ++a) {
      for (std::size_t b = a + 1; b < sizes_.size(); ++b) visit(pair(chosen, a, b));
    }
  }

  std::vector<int> sizes_;
  std::vector<std::size_t> first_;  // number of the axis' choice 0 among all choices
  std::size_t choices_ = 0;
  std::vector<bool> met_;
};

}  // namespace

std::vector<std::vector<int>> pairwise_cases(const std::vector<int>& sizes, std::uint64_t seed) {
  constexpr int kCandidates = 50;
  Random random(seed);
  Pairs pairs(sizes);
  std::vector<std::vector<int>> cases;
  for (std::vector<int> unmet = pairs.find_unmet(); !unmet.empty(); unmet = pairs.find_unmet()) {
    std::vector<int> best;
    int best_gain = 0;
    for (int candidate = 0; candidate < kCandidates; ++candidate) {
      std::vector<int> chosen = unmet;
      for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
        if (chosen[axis] == kFree) chosen[axis] = static_cast<int>(random.below(sizes[axis]));
      }
      if (const int gain = pairs.gain(chosen); gain > best_gain) best = chosen, best_gain = gain;
    }
    pairs.add(best);
    cases.push_back(std::move(best));
  }
  return cases;
}

}  // namespace flash_mla::reference
