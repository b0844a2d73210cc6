// Where results go: "-" is standard output, anything else a file.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace flash_mla::tools {

// Throws RunError when the file cannot be written.
void write_text(const std::string& path, const std::string& text);
void write_json(const std::string& path, const nlohmann::json& json);

}  // namespace flash_mla::tools
