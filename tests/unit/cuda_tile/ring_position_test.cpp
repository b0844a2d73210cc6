// Positions in a ring against division.
#include "cuda/tile/ring_position.h"

#include <gtest/gtest.h>

namespace flash_mla::tile {
namespace {

template <std::uint32_t Places>
void expect_positions_of_any_step() {
  for (std::uint32_t step = 1; step <= Places; ++step) {
    RingPosition<Places> at;
    for (std::uint32_t n = 0; n < 5 * Places * Places; n += step, at.advance(step)) {
      for (std::uint32_t ahead = 0; ahead <= Places; ++ahead) {
        ASSERT_EQ(at.place(ahead), (n + ahead) % Places) << n << " + " << ahead;
        ASSERT_EQ(at.parity(ahead), (n + ahead) / Places % 2) << n << " + " << ahead;
      }
    }
  }
}

TEST(RingPosition, IsTheRemainderAndTheParityOfTheQuotient) {
  expect_positions_of_any_step<1>();
  expect_positions_of_any_step<2>();
  expect_positions_of_any_step<9>();
  expect_positions_of_any_step<11>();
}

}  // namespace
}  // namespace flash_mla::tile
