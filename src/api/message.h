// Error messages, written piece by piece into a buffer of Status's size; nothing is allocated:
//
//   return invalid("q.shape[", axis, "] is ", value, "; expected ", expected);
//
// A message names the argument, then its value, then the rule.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "flash_mla/status.h"
#include "flash_mla/types.h"

// Leaves the function with the Status of `call` if that is an error.
#define FLASH_MLA_RETURN_IF_ERROR(call)                                                           \
  if (const ::flash_mla::Status flash_mla_status_ = (call); !flash_mla_status_.ok()) [[unlikely]] \
  return ::flash_mla::passed_on(flash_mla_status_)

namespace flash_mla {

// Text past the buffer's end is dropped.
class Message {
 public:
  void add(std::string_view text) noexcept;
  void add(const char* text) noexcept { add(std::string_view(text)); }
  template <std::integral T>
  void add(T value) noexcept {
    add_integer(static_cast<std::int64_t>(value));
  }
  void add(float value) noexcept;
  void add(const void* address) noexcept;
  void add(DType dtype) noexcept;
  void add(Device device) noexcept;

  [[nodiscard]] std::string_view text() const noexcept { return {text_, size_}; }

 private:
  void add_integer(std::int64_t value) noexcept;

  char text_[256];
  std::size_t size_ = 0;
};

// A copy, whose code is out of the way of calls that succeed.
[[gnu::cold, gnu::noinline]] inline Status passed_on(const Status& status) noexcept { return status; }

template <class... Pieces>
[[gnu::cold, gnu::noinline]] Status failure(StatusCode code, const Pieces&... pieces) noexcept {
  Message message;
  (message.add(pieces), ...);
  return Status(code, message.text());
}

template <class... Pieces>
[[gnu::cold, gnu::noinline]] Status invalid(const Pieces&... pieces) noexcept {
  return failure(StatusCode::invalid_argument, pieces...);
}

}  // namespace flash_mla
