// Messages: every kind of piece, cut at the buffer's end; names of the enumerations.
#include "api/message.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

namespace flash_mla::test {
namespace {

TEST(Message, JoinsPieces) {
  const Status status = invalid("x[", 3, "] is ", -1.5f, "; ", DType::bf16, " on ", Device{DeviceType::cuda, 2}, " at ",
                                reinterpret_cast<const void*>(0x1f0), ", ", std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(status.code(), StatusCode::invalid_argument);
  EXPECT_STREQ(status.message(), "x[3] is -1.5; bf16 on cuda:2 at 0x1f0, -9223372036854775808");
}

TEST(Message, IsCutAtTheBuffersEnd) {
  const std::string text(200, 'a');
  const Status status = failure(StatusCode::internal, text.c_str(), text.c_str(), 12345);
  EXPECT_EQ(std::strlen(status.message()), 255u);
  EXPECT_EQ(status.code(), StatusCode::internal);
}

TEST(ToString, NamesEveryValue) {
  EXPECT_STREQ(to_string(StatusCode::ok), "ok");
  EXPECT_STREQ(to_string(StatusCode::out_of_pages), "out_of_pages");
  EXPECT_STREQ(to_string(StatusCode::unsupported), "unsupported");
  EXPECT_STREQ(to_string(DType::f16), "f16");
  EXPECT_STREQ(to_string(DType{99}), "unknown dtype");
  EXPECT_STREQ(to_string(DeviceType::cpu), "cpu");
}

}  // namespace
}  // namespace flash_mla::test
