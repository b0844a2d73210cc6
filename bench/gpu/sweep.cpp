// See sweep.h.
#include "sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "protocol.h"
#include "workload.h"

namespace bench {
namespace {

using nlohmann::json;

constexpr int kMaxBatch = 256, kMaxLength = 32768, kPageTokens = 64;

Row uniform_row(int batch, int heads, int length) {
  Row row;
  row.batch = batch, row.heads = heads, row.nominal_length = length, row.lens = "uniform", row.regime = "sweep";
  row.seqlens.assign(batch, length);
  return row;
}

// first, 1.5 first, 2 first, 3 first, ... last; whole numbers only.
std::vector<int> steps(int first, int last) {
  std::vector<int> all;
  for (int power = first; power <= last; power *= 2) {
    all.push_back(power);
    if (power % 2 == 0 && power < last) all.push_back(power / 2 * 3);
  }
  return all;
}

double quick_us(const Row& row, const PagePool& pool) {
  Workload workload(row, pool);
  CallGraph graph(workload);
  return std::min(graph.quick_round_us(), graph.quick_round_us());
}

struct Pair {
  std::string name;
  Row row, base;
};

// One request of 16 x, the others x, together as many tokens as 4096 each.
Row skewed_row(int batch, int heads) {
  Row row = uniform_row(batch, heads, 4096);
  const int x = batch * 4096 / (batch + 15);
  std::fill(row.seqlens.begin(), row.seqlens.end(), x);
  row.seqlens[batch / 2] = batch * 4096 - (batch - 1) * x;
  row.lens = "skewed";
  return row;
}

std::vector<Pair> pairs_of(const std::vector<Row>& rows) {
  std::vector<Pair> pairs;
  for (const int heads : {16, 128}) {
    for (const int batch : {8, 32, 128}) {
      pairs.push_back(
          {fmt::format("skewed b={} h={}", batch, heads), skewed_row(batch, heads), uniform_row(batch, heads, 4096)});
    }
  }
  for (const Row& base : rows) {
    if (base.heads != 16 || base.seqlen_q != 1) continue;
    for (const int heads : {8, 4}) {
      Row row = base;
      row.heads = heads;
      pairs.push_back(
          {fmt::format("{} heads b={} {} {}", heads, base.batch, base.nominal_length, base.lens), row, base});
    }
  }
  return pairs;
}

// The best of both over rounds in turns.
json measure_pair(const Pair& pair, const PagePool& pool) {
  constexpr int kRounds = 3;
  Workload workload(pair.row, pool), base(pair.base, pool);
  CallGraph graph(workload), base_graph(base);
  double us = graph.quick_round_us(), base_us = base_graph.quick_round_us();
  for (int round = 1; round < kRounds; ++round) {
    us = std::min(us, graph.quick_round_us());
    base_us = std::min(base_us, base_graph.quick_round_us());
  }
  return {{"name", pair.name}, {"us", us}, {"base_us", base_us}, {"ratio", us / base_us}};
}

}  // namespace

json measure_sweep(const json& roof, const std::regex& only) {
  const PagePool pool(std::int64_t{kMaxBatch} * kMaxLength / kPageTokens);
  json points = json::array();
  for (const int heads : {16, 128}) {
    for (const int batch : steps(1, kMaxBatch)) {
      for (const int length : steps(kPageTokens, kMaxLength)) {
        const Row row = uniform_row(batch, heads, length);
        if (!std::regex_search(row.name(), only)) continue;
        points.push_back({{"b", batch},
                          {"h", heads},
                          {"s_k", length},
                          {"us", quick_us(row, pool)},
                          {"floor_us", row.floor_us(roof)}});
      }
    }
  }
  return points;
}

json measure_pairs(const std::vector<Row>& rows) {
  const std::vector<Pair> pairs = pairs_of(rows);
  std::int64_t most_pages = 4096;
  for (const Pair& pair : pairs) most_pages = std::max({most_pages, pair.row.pages(), pair.base.pages()});
  const PagePool pool(most_pages);
  json results = json::array();
  for (const Pair& pair : pairs) {
    results.push_back(measure_pair(pair, pool));
    const json& result = results.back();
    fmt::print("{:<36} {:9.1f} us against {:9.1f} us, x {:5.3f}\n", pair.name, result.at("us").get<double>(),
               result.at("base_us").get<double>(), result.at("ratio").get<double>());
    std::fflush(stdout);
  }
  return results;
}

}  // namespace bench
