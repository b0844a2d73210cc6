// How the program fails: InputError for what the user gave (exit code 2), RunError for what went wrong while running
// (exit code 1). main() prints the message; nothing else in the program exits.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "flash_mla/status.h"

namespace flash_mla::tools {

enum ExitCode : int { kSuccess = 0, kFailure = 1, kWrongInput = 2 };

struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct RunError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Turns the library's failures into exceptions of this program. `what` names the call.
inline void must(const Status& status, std::string_view what) {
  if (!status.ok()) throw RunError(fmt::format("{}: {}: {}", what, to_string(status.code()), status.message()));
}

// The same for calls whose arguments come straight from flags: an invalid one is the user's.
inline void accept(const Status& status) {
  if (status.code() == StatusCode::invalid_argument) throw InputError(status.message());
}

template <class T>
T must(Result<T> result, std::string_view what) {
  must(result.status(), what);
  return std::move(result).value();
}

}  // namespace flash_mla::tools
