#include "rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <stdexcept>

namespace bench {

double Row::tokens() const { return std::accumulate(seqlens.begin(), seqlens.end(), 0.0); }
std::int64_t Row::pages() const {
  std::int64_t pages = 0;
  for (const std::int64_t length : seqlens) pages += (length + 63) / 64;
  return pages;
}
double Row::flop() const { return 2.0 * seqlen_q * heads * tokens() * (576 + 512); }
double Row::bytes() const { return 1152.0 * tokens() + 2.0 * batch * seqlen_q * heads * (576 + 512); }

double Row::floor_us(const nlohmann::json& roof) const {
  return std::max(bytes() / (roof.at("hbm_paged_read_gbps").get<double>() * 1e3),
                  flop() / (roof.at("mma_mix_multicast_l2_tflops").get<double>() * 1e6));
}

std::string Row::name() const {
  return fmt::format("{:<13} b={:<3} s_q={} h={:<3} {:>6} {}", regime, batch, seqlen_q, heads, nominal_length, lens);
}

nlohmann::json read_json(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  return nlohmann::json::parse(file);
}

std::vector<Row> read_rows(const nlohmann::json& file) {
  std::vector<Row> rows;
  for (const auto& entry : file.at("rows")) {
    Row row;
    row.batch = entry.at("b"), row.seqlen_q = entry.at("s_q"), row.heads = entry.at("h");
    row.nominal_length = entry.at("s_k"), row.lens = entry.at("lens"), row.regime = entry.value("regime", "");
    row.sustained = entry.contains("flashmla_sustained_us");
    if (entry.contains("seqlens")) {
      row.seqlens = entry.at("seqlens").get<std::vector<std::int32_t>>();
    } else {
      row.seqlens.assign(row.batch, row.nominal_length);
    }
    row.source = entry;
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace bench
