// See output.h.
#include "support/output.h"

#include <cstdio>
#include <fstream>

#include "support/errors.h"

namespace flash_mla::tools {

void write_text(const std::string& path, const std::string& text) {
  if (path == "-") {
    fmt::print("{}", text);
    return;
  }
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) throw RunError(fmt::format("{}: cannot be written", path));
}

void write_json(const std::string& path, const nlohmann::json& json) {
  write_text(path, json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace flash_mla::tools
