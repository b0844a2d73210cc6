// Status and Result: how every call of the library reports failure. No exception crosses the library's border and
// nothing is printed. A Status is a plain value without allocations, so it can also report being out of memory.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "flash_mla/export.h"

namespace flash_mla {

enum class StatusCode : int {
  ok = 0,
  invalid_argument,  // the caller passed something wrong; nothing was changed
  out_of_pages,      // the page pool cannot serve the request; nothing was changed
  out_of_memory,     // the host or the device is out of memory
  unsupported,       // valid, but not built into this library or not offered by this machine
  device_error,      // a call of the device's runtime failed; the message names the call
  internal,          // a defect of the library
};

[[nodiscard]] FLASH_MLA_API const char* to_string(StatusCode code) noexcept;

class [[nodiscard]] Status {
 public:
  Status() noexcept : code_(StatusCode::ok) { message_[0] = '\0'; }

  // `message` is cut to the buffer's length, never allocated.
  Status(StatusCode code, std::string_view message) noexcept : code_(code) {
    const std::size_t n = message.size() < message_.size() - 1 ? message.size() : message_.size() - 1;
    for (std::size_t i = 0; i < n; ++i) message_[i] = message[i];
    message_[n] = '\0';
  }

  Status(const Status& other) noexcept { *this = other; }
  Status& operator=(const Status& other) noexcept {
    code_ = other.code_;
    for (std::size_t i = 0; i < message_.size() && (message_[i] = other.message_[i]) != '\0'; ++i) {
    }
    return *this;
  }

  [[nodiscard]] bool ok() const noexcept { return code_ == StatusCode::ok; }
  explicit operator bool() const noexcept { return ok(); }
  [[nodiscard]] StatusCode code() const noexcept { return code_; }
  // Names the argument at fault and its value, e.g. "cache_seqlens[3] is -1; lengths must be >= 0". Empty when ok.
  [[nodiscard]] const char* message() const noexcept { return message_.data(); }

 private:
  StatusCode code_;
  std::array<char, 256> message_;
};

// A value, or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(const Status& failure) noexcept : status_(failure) {}

  [[nodiscard]] bool ok() const noexcept { return value_.has_value(); }
  explicit operator bool() const noexcept { return ok(); }
  [[nodiscard]] const Status& status() const noexcept { return status_; }

  // Precondition: ok().
  [[nodiscard]] T& value() & noexcept { return *value_; }
  [[nodiscard]] const T& value() const& noexcept { return *value_; }
  [[nodiscard]] T&& value() && noexcept { return *std::move(value_); }
  T& operator*() & noexcept { return *value_; }
  const T& operator*() const& noexcept { return *value_; }
  T&& operator*() && noexcept { return *std::move(value_); }
  T* operator->() noexcept { return &*value_; }
  const T* operator->() const noexcept { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace flash_mla
