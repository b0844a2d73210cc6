// The built-in distribution of requests: percentiles of one hour of a production chat service (Azure LLM inference
// trace 2023, conversation; P. Patel et al., "Splitwise", ISCA 2024), joined by straight lines and inverted.
#include <array>
#include <cmath>

#include "replay/trace.h"
#include "support/errors.h"
#include "support/random.h"

namespace flash_mla::tools {
namespace {

struct Quantile {
  double share;
  double tokens;
};

constexpr std::array kContext = {
    Quantile{0, 2},      Quantile{0.01, 29},   Quantile{0.05, 181},  Quantile{0.1, 207},    Quantile{0.25, 396},
    Quantile{0.4, 703},  Quantile{0.5, 1020},  Quantile{0.75, 1189}, Quantile{0.8, 1315},   Quantile{0.85, 1877},
    Quantile{0.9, 2734}, Quantile{0.92, 4073}, Quantile{0.99, 4142}, Quantile{0.999, 6212}, Quantile{1, 14050},
};
constexpr std::array kGenerated = {
    Quantile{0, 7},     Quantile{0.01, 16},  Quantile{0.05, 41},  Quantile{0.1, 54},    Quantile{0.25, 85},
    Quantile{0.4, 103}, Quantile{0.5, 129},  Quantile{0.65, 217}, Quantile{0.7, 384},   Quantile{0.75, 395},
    Quantile{0.9, 424}, Quantile{0.95, 451}, Quantile{0.99, 601}, Quantile{0.999, 954}, Quantile{1, 1000},
};

template <std::size_t n>
std::int64_t draw(const std::array<Quantile, n>& quantiles, double share) {
  std::size_t upper = 1;
  while (upper + 1 < n && quantiles[upper].share < share) ++upper;
  const Quantile& low = quantiles[upper - 1];
  const Quantile& high = quantiles[upper];
  const double position = (share - low.share) / (high.share - low.share);
  return std::llround(low.tokens + position * (high.tokens - low.tokens));
}

}  // namespace

Trace built_in_trace(std::int64_t num_requests, std::uint64_t seed) {
  Trace trace{"built-in distribution (one hour of a production chat service)", {}};
  Random random(hash(seed, 0x7472616365));
  for (std::int64_t i = 0; i < num_requests; ++i) {
    const std::int64_t context = draw(kContext, random.uniform());
    trace.requests.push_back({context, draw(kGenerated, random.uniform()), 0});
  }
  return trace;
}

}  // namespace flash_mla::tools
