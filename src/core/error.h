// A Status with a printf-style message, built without allocating.
#pragma once

#include <cstdarg>
#include <cstdio>

#include "flash_mla/status.h"

namespace flash_mla {

[[gnu::format(printf, 2, 3)]] inline Status make_error(StatusCode code, const char* format, ...) noexcept {
  char message[256];
  std::va_list args;
  va_start(args, format);
  std::vsnprintf(message, sizeof message, format, args);
  va_end(args);
  return Status(code, message);
}

}  // namespace flash_mla
