// Modelled times of the scheduler's cuts on the rows of a peers' file, with the costs that are given. Needs no GPU.
//   schedule_model [--peers bench/peers/h100.json] [--fit bench/results/h100.json] [--fixed N ...]
// --fit first fits the machine's constants to measured times; the schedules must be those of the version that was
// measured, so it belongs to a checkout of that version.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <map>
#include <optional>

#include "bench/gpu/rows.h"
#include "bench/schedule/machine.h"
#include "core/int_math.h"
#include "cuda/step_costs.h"
#include "cuda/tile/column_order.h"
#include "schedule/layout.h"
#include "schedule/partition.h"
#include "schedule/tile_cursor.h"

namespace bench {
namespace {

using namespace flash_mla;

constexpr int kMultiprocessors = 132;

struct Options {
  std::string peers = "bench/peers/h100.json", fit;
  std::optional<std::int32_t> fixed, merge, partial;  // else as the backend has them
};

struct Tuning {
  CostModel cost;
  std::int32_t num_parts, rows_per_unit;
};

// With one thread block a multiprocessor, up to four of which share a unit of many rows.
Tuning tune(const Row& row, const Options& options) {
  const int rows = row.seqlen_q * row.heads;
  const bool few_rows = rows <= tile::kMaxTransposedRows;
  const int tile_rows = rows <= 16 ? 16 : few_rows ? 32 : 64;
  const int tiles = ceil_div(rows, tile_rows), cohort = ceil_div(tiles, ceil_div(tiles, 4));
  CostModel cost = cuda::step_costs(few_rows, cohort);
  cost.fixed = options.fixed.value_or(cost.fixed);
  cost.merge = options.merge.value_or(cost.merge);
  cost.partial = options.partial.value_or(cost.partial);
  return {cost, kMultiprocessors / cohort, cohort * tile_rows};
}

void add(const Tile& tile, StepLoad* load, PartLoad* part) {
  const int blocks = tile.block_end - tile.block_begin;
  part->tiles += 1, part->blocks += blocks, part->ramp_blocks += std::clamp(blocks - 1, 0, 3);
  if (tile.whole()) return;
  part->cut_tiles += 1;
  load->most_splits = std::max(load->most_splits, tile.num_splits());
}

StepLoad load_of(const Row& row, const Tuning& tuning) {
  const Work work = {.batch = row.batch,
                     .seqlen_q = row.seqlen_q,
                     .cache_seqlens = row.seqlens.data(),
                     .heads_per_kv = row.heads,
                     .rows_per_unit = tuning.rows_per_unit};
  std::vector<char> memory(static_cast<std::size_t>(ScheduleLayout{tuning.num_parts}.total_bytes()));
  make_schedule(work, tuning.cost, tuning.num_parts, memory.data());
  const void* schedule = memory.data();
  const ScheduleHeader& header = *ScheduleLayout::header(schedule);
  StepLoad load{.rows = std::min(row.seqlen_q * row.heads, tuning.rows_per_unit), .bytes = row.bytes()};
  load.parts.resize(static_cast<std::size_t>(tuning.num_parts));
  load.partials = header.num_slots;
  for (int part = 0; part < tuning.num_parts; ++part) {
    TileCursor cursor(work, header, ScheduleLayout::parts(schedule), part);
    for (Tile tile; cursor.next(&tile);) add(tile, &load, &load.parts[static_cast<std::size_t>(part)]);
  }
  return load;
}

// Root mean square of the relative errors.
double error(const Machine& machine, const std::vector<StepLoad>& loads, const std::vector<double>& measured) {
  double sum = 0;
  for (std::size_t i = 0; i < loads.size(); ++i) {
    sum += std::pow(std::log(machine.step_us(loads[i]) / measured[i]), 2);
  }
  return std::sqrt(sum / static_cast<double>(loads.size()));
}

// One constant at a time, by ever smaller steps.
void fit(const std::vector<StepLoad>& loads, const std::vector<double>& measured, Machine* machine) {
  double best = error(*machine, loads, measured);
  for (double step = 0.3; step > 0.001; step *= 0.8) {
    for (int round = 0; round < 40; ++round) {
      for (double& constant : machine->of) {
        for (const double factor : {1 - step, 1 + step}) {
          const double before = constant;
          constant *= factor;
          const double now = error(*machine, loads, measured);
          now < best ? best = now : constant = before;
        }
      }
    }
  }
  for (const double constant : machine->of) fmt::print("{:.4g} ", constant);
  fmt::print("\nroot mean square error {:.1f} %\n", 100 * best);
}

void run(const Options& options) {
  const std::vector<Row> rows = read_rows(read_json(options.peers));
  std::vector<StepLoad> loads;
  for (const Row& row : rows) loads.push_back(load_of(row, tune(row, options)));
  Machine machine;
  std::vector<double> measured;
  if (!options.fit.empty()) {
    const nlohmann::json results = read_json(options.fit);
    for (const auto& entry : results.at("rows")) measured.push_back(entry.at("us"));
    fit(loads, measured, &machine);
  }
  std::map<std::string, std::vector<double>> logs;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double us = machine.step_us(loads[i]);
    logs[rows[i].regime].push_back(std::log(us));
    fmt::print("{} {:7.1f} us {:4} partials", rows[i].name(), us, loads[i].partials);
    if (!measured.empty()) fmt::print(" {:7.1f} us measured, {:.2f}", measured[i], us / measured[i]);
    fmt::print("\n");
  }
  for (const auto& [regime, values] : logs) {
    double sum = 0;
    for (const double value : values) sum += value;
    fmt::print("{}: geometric mean {:.2f} us\n", regime, std::exp(sum / static_cast<double>(values.size())));
  }
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  CLI::App app("Modelled times of the scheduler's cuts");
  bench::Options options;
  app.add_option("--peers", options.peers);
  app.add_option("--fit", options.fit);
  app.add_option("--fixed", options.fixed);
  app.add_option("--merge", options.merge);
  app.add_option("--partial", options.partial);
  CLI11_PARSE(app, argc, argv);
  try {
    bench::run(options);
  } catch (const std::exception& problem) {
    fmt::print(stderr, "schedule_model: {}\n", problem.what());
    return 1;
  }
  return 0;
}
