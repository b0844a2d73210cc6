// `flash-mla check`: decodes a grid of shapes, poisoned wherever nothing may be read, and compares with the fp64
// reference.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reference/problem.h"

namespace flash_mla::tools {

struct CheckOptions {
  bool quick = false;
  std::string backend, dtype;  // empty: all that the backend offers
  std::int64_t max_rows = 48;  // compared in each shape
  std::uint64_t seed = 1;
  std::string json_path;
};

// The shapes, in the order of the table.
std::vector<reference::ProblemSpec> check_grid(const CheckOptions& options);

int run_check(const CheckOptions& options);

}  // namespace flash_mla::tools
