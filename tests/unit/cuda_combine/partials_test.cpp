// The scratch of the GPU's decode and the scale of its partials.
#include "cuda/combine/partials.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace flash_mla::cuda {
namespace {

TEST(Partials, ScaleIsAPowerOfTwoThatFillsF16) {
  constexpr float kMost = std::numeric_limits<float>::max();
  for (const float largest :
       {0.0f, 1e-45f, 1e-38f, 3e-30f, 1e-6f, 0.75f, 1.0f, 1.5f, 8191.0f, 65504.0f, 1e20f, kMost}) {
    const PowerOfTwo power = scale_to_f16(largest);
    int exponent = 0;
    EXPECT_EQ(std::frexp(power.factor, &exponent), 0.5f) << largest;
    EXPECT_EQ(power.factor * power.inverse, 1.0f) << largest;
    EXPECT_TRUE(std::isnormal(power.factor) && std::isnormal(power.inverse)) << largest;
    EXPECT_LT(largest * power.factor, 16384.0f) << largest;
    if (largest >= 0x1p-112f) {
      EXPECT_GE(largest * power.factor, 8192.0f) << largest;
    }
  }
}

TEST(Partials, RegionsFollowOneAnother) {
  for (const PartialsLayout layout : {PartialsLayout{1, 16, 1}, PartialsLayout{132, 32, 1}, PartialsLayout{33, 256, 4},
                                      PartialsLayout{132, 16, 1, true}, PartialsLayout{7, 32, 1, true}}) {
    const std::int64_t rows = std::int64_t{2} * layout.num_parts * layout.rows_per_unit;
    EXPECT_EQ(layout.rows_offset_bytes(), rows * 512 * (layout.are_items ? 4 : 2));
    EXPECT_GE(layout.gates_offset_bytes() - layout.rows_offset_bytes(), rows * 32);
    EXPECT_EQ(layout.gates_offset_bytes() % kScratchAlignmentBytes, 0);
    EXPECT_GE(layout.total_bytes() - layout.gates_offset_bytes(), layout.num_parts * layout.cohort * 8);
  }
}

}  // namespace
}  // namespace flash_mla::cuda
