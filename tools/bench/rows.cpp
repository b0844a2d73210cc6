// See rows.h.
#include "bench/rows.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "flash_mla/plan.h"
#include "replay/trace.h"
#include "support/errors.h"
#include "support/random.h"

namespace flash_mla::tools {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxLength = std::numeric_limits<std::int32_t>::max();

std::string shortened(const json& value) {
  constexpr std::size_t kShown = 60;
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  return text.size() > kShown ? text.substr(0, kShown) + "..." : text;
}

void require(bool fine, const std::string& where, const char* key, const json& value, const char* rule) {
  if (!fine) throw InputError(fmt::format("{}: {} is {}; it must be {}", where, key, shortened(value), rule));
}

std::int64_t integer_of(const json& row, const char* key, std::int64_t fallback, const std::string& where) {
  if (!row.contains(key)) {
    if (fallback < 0) throw InputError(fmt::format("{}: {} is missing", where, key));
    return fallback;
  }
  const json& value = row.at(key);
  require(value.is_number_integer() && (!value.is_number_unsigned() || value.get<std::uint64_t>() <= kMaxLength), where,
          key, value, "an integer below 2^31");
  return value.get<std::int64_t>();
}

std::string text_of(const json& row, const char* key, const char* fallback, const std::string& where) {
  if (!row.contains(key)) return fallback;
  require(row.at(key).is_string(), where, key, row.at(key), "a string");
  return row.at(key).get<std::string>();
}

std::vector<std::int32_t> lengths_of(const json& row, const std::string& where) {
  std::vector<std::int32_t> lengths;
  require(row.at("seqlens").is_array(), where, "seqlens", row.at("seqlens"), "an array");
  for (const json& value : row.at("seqlens")) {
    require(value.is_number_integer() && value >= 0 && value <= kMaxLength, where, "an entry of seqlens", value,
            "an integer from 0 to 2^31 - 1");
    lengths.push_back(value.get<std::int32_t>());
  }
  return lengths;
}

BenchRow row_of(const json& entry, const std::string& where) {
  require(entry.is_object(), where, "the row", entry, "an object");
  BenchRow row;
  row.b = integer_of(entry, "b", -1, where);
  row.s_q = integer_of(entry, "s_q", 1, where);
  row.h = integer_of(entry, "h", -1, where);
  row.s_k = integer_of(entry, "s_k", 0, where);
  row.page_size = integer_of(entry, "page_size", 64, where);
  row.lens = text_of(entry, "lens", "uniform", where);
  row.regime = text_of(entry, "regime", "", where);
  if (entry.contains("causal")) {
    require(entry.at("causal").is_boolean(), where, "causal", entry.at("causal"), "true or false");
    row.causal = entry.at("causal").get<bool>();
  }
  row.seqlens_given = entry.contains("seqlens");
  if (row.seqlens_given) row.seqlens = lengths_of(entry, where);
  return row;
}

std::vector<std::int32_t> normal_lengths(const BenchRow& row, Random& random) {
  std::vector<std::int32_t> lengths;
  for (std::int64_t i = 0; i < row.b; ++i) {
    const double length = static_cast<double>(row.s_k) * (1 + 0.5 * random.normal());
    lengths.push_back(static_cast<std::int32_t>(std::max(static_cast<double>(row.s_q), std::round(length))));
  }
  return lengths;
}

// A running batch: each request with its context and half of its output.
std::vector<std::int32_t> serving_lengths(const BenchRow& row, std::uint64_t seed) {
  std::vector<std::int32_t> lengths;
  for (const TraceRequest& request : built_in_trace(row.b, seed).requests) {
    lengths.push_back(static_cast<std::int32_t>(request.context_tokens + request.generated_tokens / 2));
  }
  return lengths;
}

}  // namespace

double BenchRow::total_tokens() const {
  return std::accumulate(seqlens.begin(), seqlens.end(), 0.0, [](double sum, std::int32_t n) { return sum + n; });
}

double BenchRow::flop() const { return 2.0 * static_cast<double>(s_q * h) * total_tokens() * (kHeadDim + kLatentDim); }

double BenchRow::bytes(int element_bytes) const {
  return element_bytes * (kHeadDim * total_tokens() + static_cast<double>(b * s_q * h) * (kHeadDim + kLatentDim));
}

std::string BenchRow::text() const { return fmt::format("b {}, s_q {}, h {}, s_k {} {}", b, s_q, h, s_k, lens); }

void complete_row(BenchRow& row, std::uint64_t seed, const std::string& where) {
  const auto in_range = [&](const char* key, std::int64_t value, std::int64_t lowest, std::int64_t highest) {
    if (value < lowest || value > highest) {
      throw InputError(fmt::format("{}: {} is {}; it must be {} to {}", where, key, value, lowest, highest));
    }
  };
  in_range("b", row.b, 1, 1 << 20);
  in_range("s_q", row.s_q, 1, 1 << 16);
  in_range("h", row.h, 1, 1 << 12);
  in_range("s_k", row.s_k, 0, 1 << 28);
  in_range("page_size", row.page_size, 16, 1 << 20);
  if (row.seqlens_given) {
    if (static_cast<std::int64_t>(row.seqlens.size()) != row.b) {
      throw InputError(fmt::format("{}: seqlens has {} entries and b is {}", where, row.seqlens.size(), row.b));
    }
  } else if (row.lens == "uniform") {
    row.seqlens.assign(static_cast<std::size_t>(row.b), static_cast<std::int32_t>(row.s_k));
  } else if (row.lens == "normal") {
    Random random(seed);
    row.seqlens = normal_lengths(row, random);
  } else if (row.lens == "conv") {
    row.seqlens = serving_lengths(row, seed);
  } else {
    throw InputError(
        fmt::format("{}: lens is \"{}\"; it must be uniform, normal or conv, or seqlens be given", where, row.lens));
  }
}

std::vector<BenchRow> parse_bench_rows(std::istream& input, const std::string& name, std::uint64_t seed) {
  json document;
  try {
    document = json::parse(input);
  } catch (const json::parse_error& error) {
    throw InputError(fmt::format("{}: no valid JSON: {}", name, error.what()));
  }
  const json* list = document.is_object() && document.contains("rows") ? &document.at("rows") : &document;
  if (!list->is_array() || list->empty())
    throw InputError(fmt::format("{}: holds no array \"rows\" with rows in it", name));
  std::vector<BenchRow> rows;
  for (const json& entry : *list) {
    const std::string where = fmt::format("{}: row {}", name, rows.size() + 1);
    rows.push_back(row_of(entry, where));
    complete_row(rows.back(), hash(seed, rows.size()), where);
  }
  return rows;
}

std::vector<BenchRow> read_bench_rows(const std::string& path, std::uint64_t seed) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(fmt::format("--rows {}: cannot be opened", path));
  return parse_bench_rows(file, path, seed);
}

}  // namespace flash_mla::tools
