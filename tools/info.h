// `flash-mla info`: what this build can do on this machine, and what would run for a given shape.
#pragma once

#include <cstdint>
#include <string>

namespace flash_mla::tools {

struct InfoOptions {
  std::string backend, dtype = "bf16";
  std::int32_t batch = 64, heads = 128, seqlen_q = 1, page_size = 64;
  std::string json_path;
};

int run_info(const InfoOptions& options);

}  // namespace flash_mla::tools
