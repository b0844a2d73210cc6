// Times decode on the GPU, row by row of a peers file, by the protocol of protocol.h, and writes
// bench/results/<gpu>.json: date, commit, clocks, this run's ceilings, our times; prints the table with the peers'
// times and the floor beside. With --sweep measures what sweep.h has instead.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "protocol.h"
#include "rows.h"
#include "sweep.h"
#include "workload.h"

namespace {

using bench::Row;
using nlohmann::json;

struct Options {
  std::string peers_path, roof_path, out_path, commit = "unknown", only;
  bool skip_sustained = false, sweep = false;
};

std::string run_program(const std::string& command) {
  std::string text;
  if (FILE* pipe = popen(command.c_str(), "r")) {
    char piece[256];
    while (std::fgets(piece, sizeof piece, pipe)) text += piece;
    pclose(pipe);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::string utc_date() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

std::int64_t largest_row_pages(const std::vector<Row>& rows) {
  std::int64_t most = 0;
  for (const Row& row : rows) most = std::max(most, row.pages());
  return most;
}

// The faster peer's time on this row; 0 when the file has none.
double faster_peer_us(const Row& row, const char* suffix) {
  double best = 0;
  for (const char* peer : {"flashmla", "fa3"}) {
    const double us = row.source.value(std::string(peer) + suffix, 0.0);
    if (us > 0 && (best == 0 || us < best)) best = us;
  }
  return best;
}

json measure_row(const Row& row, const bench::PagePool& pool, bool sustained) {
  bench::Workload workload(row, pool);
  bench::CallGraph graph(workload);
  const double first = graph.burst_round_us(), second = graph.burst_round_us();
  json result = {{"b", row.batch},
                 {"s_q", row.seqlen_q},
                 {"h", row.heads},
                 {"s_k", row.nominal_length},
                 {"lens", row.lens},
                 {"regime", row.regime},
                 {"us", std::min(first, second)}};
  if (sustained && row.sustained) {
    const bench::CallGraph::Sustained times = graph.sustained();
    result["sustained_us"] = times.us;
    if (times.joules >= 0) result["sustained_joules"] = times.joules;
  }
  return result;
}

void print_row(const Row& row, const json& result, const json& roof,
               std::map<std::string, std::pair<double, int>>& sums) {
  const double us = result.at("us"), peer = faster_peer_us(row, "_us"), floor = row.floor_us(roof);
  fmt::print("{:<44} {:9.1f} us  peers {:8.1f} {:8.1f}  floor {:7.1f}  x peer {:5.3f}  x floor {:5.2f}", row.name(), us,
             row.source.value("flashmla_us", 0.0), row.source.value("fa3_us", 0.0), floor, peer / us, us / floor);
  fmt::print("  {:6.0f} TFLOPS {:6.0f} GB/s", row.flop() / us / 1e6, row.bytes() / us / 1e3);
  if (result.contains("sustained_us")) {
    const double sustained = result.at("sustained_us"), peer_sustained = faster_peer_us(row, "_sustained_us");
    fmt::print("  sustained {:8.1f} ({:5.3f}) {:7.3f} J", sustained, peer_sustained / sustained,
               result.value("sustained_joules", 0.0));
  }
  fmt::print("\n");
  std::fflush(stdout);
  if (peer > 0)
    for (const std::string& key : {row.regime, std::string("all rows")}) {
      auto& [log_sum, count] = sums[key];
      log_sum += std::log(peer / us), ++count;
    }
}

// What every results file begins with.
json describe_run(const Options& options, const json& roof) {
  auto info = flash_mla::device_info({flash_mla::DeviceType::cuda, 0});
  bench::check(info.status(), "device_info");
  return {{"device", info->name},
          {"date", utc_date()},
          {"commit", options.commit},
          {"clocks", run_program("nvidia-smi --query-gpu=clocks.sm,clocks.mem,clocks.max.sm,power.limit,"
                                 "temperature.gpu,driver_version --format=csv,noheader")},
          {"roof", roof}};
}

json read_roof(const Options& options, const json& peers) {
  return options.roof_path.empty() ? peers.at("roof") : bench::read_json(options.roof_path);
}

json sweep(const Options& options) {
  const json peers = bench::read_json(options.peers_path), roof = read_roof(options, peers);
  json out = describe_run(options, roof);
  if (options.only.empty()) out["pairs"] = bench::measure_pairs(bench::read_rows(peers));
  out["sweep"] = bench::measure_sweep(roof, std::regex(options.only));
  return out;
}

json measure(const Options& options) {
  const json peers = bench::read_json(options.peers_path);
  const std::vector<Row> rows = bench::read_rows(peers);
  const json roof = read_roof(options, peers);
  json out = describe_run(options, roof);
  out["rows"] = json::array();
  const bench::PagePool pool(std::max<std::int64_t>(largest_row_pages(rows), 4096));
  std::map<std::string, std::pair<double, int>> sums;
  for (const Row& row : rows) {
    if (!std::regex_search(row.name(), std::regex(options.only))) continue;
    json result = measure_row(row, pool, !options.skip_sustained);
    print_row(row, result, roof, sums);
    out["rows"].push_back(std::move(result));
  }
  for (const auto& [regime, sum] : sums) {
    fmt::print("geometric mean, {:<14} {:.3f} x the faster peer over {} rows\n", regime,
               std::exp(sum.first / sum.second), sum.second);
    out["geomean_vs_faster_peer"][regime] = std::exp(sum.first / sum.second);
  }
  for (const auto& [name, ours] : roof.items())
    if (peers.at("roof").contains(name))
      fmt::print("ceiling {:<32} {:7.0f} this run, {:5.3f} x the peers' run\n", name, ours.get<double>(),
                 ours.get<double>() / peers.at("roof").at(name).get<double>());

  Row small;
  small.batch = 256, small.heads = 128, small.regime = "host", small.seqlens.assign(256, 1000);
  bench::Workload workload(small, pool);
  const bench::HostTime host = bench::host_time(workload);
  out["host_us_per_decode"] = host.decode_us;
  out["host_us_per_empty_launch"] = host.empty_launch_us;
  out["schedule_us_b256"] = bench::schedule_us(workload);
  fmt::print("host time a decode call {:.2f} us, an empty launch {:.2f} us; schedule at b=256 {:.2f} us\n",
             host.decode_us, host.empty_launch_us, out["schedule_us_b256"].get<double>());
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Times decode on the GPU against bench/peers/<gpu>.json");
  app.add_option("--peers", options.peers_path, "rows and the peers' times")->required()->check(CLI::ExistingFile);
  app.add_option("--roof", options.roof_path, "this run's ceilings, as roofline prints them")->check(CLI::ExistingFile);
  app.add_option("--out", options.out_path, "where the JSON goes");
  app.add_option("--commit", options.commit, "commit of the build");
  app.add_option("--only", options.only, "regular expression: only rows (or points of the sweep) whose name it finds");
  app.add_flag("--no-sustained", options.skip_sustained, "burst times only");
  app.add_flag("--sweep", options.sweep, "in place of the rows: pairs (without --only), then batch x length");
  CLI11_PARSE(app, argc, argv);
  try {
    const json result = options.sweep ? sweep(options) : measure(options);
    if (!options.out_path.empty()) std::ofstream(options.out_path) << result.dump(options.sweep ? -1 : 1) << "\n";
  } catch (const std::exception& error) {
    fmt::print(stderr, "decode_bench: {}\n", error.what());
    return 1;
  }
}
