// See bench.h.
#include "bench/bench.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/measure.h"
#include "flash_mla/flash_mla.h"
#include "support/element.h"
#include "support/errors.h"
#include "support/human.h"
#include "support/output.h"
#include "support/random.h"

namespace flash_mla::tools {
namespace {

using nlohmann::json;

constexpr double kGiB = 1 << 30;
constexpr double kLeastColdBytes = 160e6, kMostColdBytes = 512e6;

json row_json(const BenchRow& row, const Measurement& measured, int element_bytes) {
  json entry = {{"b", row.b}, {"s_q", row.s_q}, {"h", row.h}, {"s_k", row.s_k}, {"lens", row.lens}};
  if (!row.regime.empty()) entry["regime"] = row.regime;
  if (row.lens != "uniform" || row.seqlens_given) entry["seqlens"] = row.seqlens;
  entry["page_size"] = row.page_size;
  entry["causal"] = row.causal;
  entry["flop"] = row.flop();
  entry["bytes"] = row.bytes(element_bytes);
  if (!measured.skipped.empty()) {
    entry["skipped"] = measured.skipped;
    return entry;
  }
  entry["us"] = measured.seconds * 1e6;
  entry["us_lowest"] = measured.lowest * 1e6;
  entry["us_highest"] = measured.highest * 1e6;
  entry["calls"] = measured.calls;
  entry["copies"] = measured.copies;
  entry["cold"] = measured.cold;
  entry["tflops"] = row.flop() / measured.seconds * 1e-12;
  entry["gbps"] = row.bytes(element_bytes) / measured.seconds * 1e-9;
  return entry;
}

std::string line_text(const BenchRow& row, const Measurement& measured, int element_bytes) {
  const std::string shape = fmt::format("{:>6} {:>4} {:>4} {:>7} {:<8}", row.b, row.s_q, row.h,
                                        row.seqlens_given && row.s_k == 0 ? "-" : fmt::format("{}", row.s_k), row.lens);
  if (!measured.skipped.empty()) return fmt::format("{} skipped: {}\n", shape, measured.skipped);
  return fmt::format("{} {:>9} {:>12} {:>11} {:>6} {:>7}{}\n", shape, human_seconds(measured.seconds),
                     human_flop_rate(row.flop() / measured.seconds),
                     human_byte_rate(row.bytes(element_bytes) / measured.seconds), measured.calls, measured.copies,
                     measured.cold ? "" : "  (its caches may stay in the processor's)");
}

MeasureOptions measure_options(const BenchOptions& options, const DeviceInfo& device) {
  MeasureOptions measure;
  measure.dtype = parse_dtype(options.dtype);
  measure.budget_seconds = options.budget;
  measure.max_call_seconds = options.max_seconds;
  measure.max_memory_bytes =
      options.max_memory_gib > 0 ? options.max_memory_gib * kGiB : 0.4 * static_cast<double>(device.memory_bytes);
  // Some machines report the caches of all their sockets, so there is a most.
  measure.cold_bytes = std::clamp(4.0 * static_cast<double>(device.l2_bytes), kLeastColdBytes, kMostColdBytes);
  measure.seed = options.seed;
  return measure;
}

}  // namespace

std::vector<BenchRow> bench_rows(const BenchOptions& options) {
  if (!options.rows_path.empty()) return read_bench_rows(options.rows_path, options.seed);
  const bool given = !options.seqlens.empty();
  const std::vector<std::int64_t> batches =
      given ? std::vector{static_cast<std::int64_t>(options.seqlens.size())} : options.batch;
  const std::vector<std::int64_t> lengths = given ? std::vector<std::int64_t>{0} : options.seqlen_k;
  std::vector<BenchRow> rows;
  for (std::int64_t heads : options.heads) {
    for (std::int64_t seqlen_q : options.seqlen_q) {
      for (std::int64_t batch : batches) {
        for (std::int64_t length : lengths) {
          BenchRow row;
          row.b = batch, row.s_q = seqlen_q, row.h = heads, row.s_k = length;
          row.lens = given ? "given" : options.lens;
          row.page_size = options.page_size;
          row.causal = !options.full;
          row.seqlens_given = given;
          row.seqlens = options.seqlens;
          complete_row(row, hash(options.seed, rows.size() + 1), "bench");
          rows.push_back(row);
        }
      }
    }
  }
  return rows;
}

int run_bench(const BenchOptions& options) {
  std::FILE* out = options.json_path == "-" ? stderr : stdout;
  std::vector<BenchRow> rows = bench_rows(options);
  if (options.limit > 0 && static_cast<std::int64_t>(rows.size()) > options.limit) {
    fmt::print(out, "--limit: the first {} of {} rows\n", options.limit, rows.size());
    rows.resize(static_cast<std::size_t>(options.limit));
  }
  const std::unique_ptr<DeviceContext> device = open_device(options.backend);
  const DeviceInfo info = must(device_info(device->device()), "device_info");
  const MeasureOptions measure = measure_options(options, info);
  const int element_bytes = size_in_bytes(measure.dtype);
  const std::string protocol = fmt::format(
      "median of one decode call, scheduled beforehand; random normal data, pages shuffled; calls rotate over separate "
      "caches of {} together, where memory allows ({}), so that they come from memory",
      human_bytes(measure.cold_bytes), human_bytes(measure.max_memory_bytes));
  fmt::print(out, "flash-mla bench on {} ({}), {}\n{}\n\n", info.name, info.instruction_set, options.dtype, protocol);
  fmt::print(out, "{:>6} {:>4} {:>4} {:>7} {:<8} {:>9} {:>12} {:>11} {:>6} {:>7}\n", "b", "s_q", "h", "s_k", "lens",
             "time", "", "", "calls", "caches");
  json list = json::array();
  Measurer measurer(*device, measure);
  for (const BenchRow& row : rows) {
    const Measurement measured = measurer.measure(row);
    fmt::print(out, "{}", line_text(row, measured, element_bytes));
    std::fflush(out);
    list.push_back(row_json(row, measured, element_bytes));
  }
  if (!options.json_path.empty()) {
    write_json(options.json_path, {{"version", version()},
                                   {"backend", to_string(device->device().type)},
                                   {"device", info.name},
                                   {"instruction_set", info.instruction_set},
                                   {"workers", info.workers},
                                   {"dtype", options.dtype},
                                   {"protocol", protocol},
                                   {"rows", list}});
  }
  return kSuccess;
}

}  // namespace flash_mla::tools
