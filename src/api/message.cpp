#include "api/message.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace flash_mla {

void Message::add(std::string_view text) noexcept {
  const std::size_t n = std::min(text.size(), sizeof text_ - size_);
  std::memcpy(text_ + size_, text.data(), n);
  size_ += n;
}

void Message::add_integer(std::int64_t value) noexcept {
  char digits[24];
  add(std::string_view(digits, std::to_chars(digits, digits + sizeof digits, value).ptr - digits));
}

void Message::add(float value) noexcept {
  char digits[32];
  add(std::string_view(digits, std::to_chars(digits, digits + sizeof digits, value).ptr - digits));
}

void Message::add(const void* address) noexcept {
  char digits[24];
  const auto value = reinterpret_cast<std::uintptr_t>(address);
  add("0x");
  add(std::string_view(digits, std::to_chars(digits, digits + sizeof digits, value, 16).ptr - digits));
}

void Message::add(DType dtype) noexcept {
  add(to_string(dtype));
  if (size_in_bytes(dtype) == 0) add(" "), add_integer(static_cast<std::int64_t>(dtype));
}

void Message::add(Device device) noexcept { add(to_string(device.type)), add(":"), add_integer(device.index); }

}  // namespace flash_mla
