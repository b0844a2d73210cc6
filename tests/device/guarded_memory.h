// GPU memory whose last byte is the last byte of a mapping: an access behind it is a fault on every run, with no tool.
#pragma once

#include <cstdint>
#include <memory>

namespace flash_mla::test {

// On the current device. What lies behind the buffer is reserved and not mapped. The start is aligned to 16 bytes if
// the size is a multiple of 16, else to 4.
[[nodiscard]] std::shared_ptr<void> guarded_memory(std::int64_t bytes);

}  // namespace flash_mla::test
