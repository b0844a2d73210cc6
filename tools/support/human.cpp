// Formatting of numbers and tables for people; see human.h.
#include "support/human.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace flash_mla::tools {
namespace {

// Three significant digits.
std::string short_number(double value) {
  const double size = std::fabs(value);
  return size >= 99.95 ? fmt::format("{:.0f}", value)
                       : (size >= 9.995 ? fmt::format("{:.1f}", value) : fmt::format("{:.2f}", value));
}

template <std::size_t n>
std::string scaled(double value, double base, const std::array<const char*, n>& units) {
  std::size_t unit = 0;
  while (unit + 1 < n && std::fabs(value) >= base * 0.9995) value /= base, ++unit;
  return fmt::format("{} {}",
                     unit == 0 && value == std::floor(value) ? fmt::format("{:.0f}", value) : short_number(value),
                     units[unit]);
}

// Digits in groups of three.
std::string grouped(const std::string& digits) {
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && digits[i - 1] != '-' && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

}  // namespace

std::string human_bytes(double bytes) {
  return scaled(bytes, 1024, std::array{"B", "KiB", "MiB", "GiB", "TiB", "PiB"});
}

std::string human_seconds(double seconds) {
  if (seconds >= 3600) {
    const auto minutes = static_cast<std::int64_t>(std::llround(seconds / 60));
    return fmt::format("{} h {:02} min", minutes / 60, minutes % 60);
  }
  if (seconds >= 99.5) {
    const auto whole = static_cast<std::int64_t>(std::llround(seconds));
    return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  }
  if (seconds >= 0.9995) return short_number(seconds) + " s";
  if (seconds >= 0.9995e-3) return short_number(seconds * 1e3) + " ms";
  return seconds == 0 ? "0 s" : short_number(seconds * 1e6) + " us";
}

std::string human_flops(double flop) {
  return scaled(flop, 1000, std::array{"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"});
}

std::string human_flop_rate(double flop_rate) {
  return scaled(flop_rate, 1000, std::array{"FLOPS", "kFLOPS", "MFLOPS", "GFLOPS", "TFLOPS", "PFLOPS"});
}

std::string human_byte_rate(double byte_rate) {
  return scaled(byte_rate, 1000, std::array{"B/s", "kB/s", "MB/s", "GB/s", "TB/s"});
}

std::string human_count(std::int64_t count) { return grouped(fmt::format("{}", count)); }

std::string human_count(double count) {
  return std::fabs(count) < 100 ? fmt::format("{:.1f}", count) : grouped(fmt::format("{:.0f}", count));
}

std::string human_percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

double percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  const double last = static_cast<double>(values.size() - 1);
  const auto rank = static_cast<std::ptrdiff_t>(std::llround(std::clamp(p, 0.0, 1.0) * last));
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return values[static_cast<std::size_t>(rank)];
}

std::string Table::text() const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += i == 0 ? fmt::format("{:<{}}", row[i], widths[i]) : fmt::format("  {:>{}}", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace flash_mla::tools
