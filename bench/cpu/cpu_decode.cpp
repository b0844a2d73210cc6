// Measures CPU decode against two yardsticks in one run, interleaved round by round:
//   ceiling    oneDNN on the tile products alone (ceiling.h), the faster of bf16 and fp32
//   baseline   plain fp32 loops (baseline_decode.h)
// Prints a table and, with --out, writes JSON. Figures are medians over the rounds.
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cpu/baseline_decode.h"
#include "cpu/ceiling.h"
#include "cpu/problem.h"

namespace flash_mla::bench {
namespace {

struct Options {
  int rounds = 7;
  bool with_baseline = true;
  std::string out, commit, only;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 == argc) throw std::runtime_error(flag + " needs a value");
      return argv[++i];
    };
    if (flag == "--rounds") {
      options.rounds = std::max(1, std::stoi(value()));
    } else if (flag == "--out") {
      options.out = value();
    } else if (flag == "--commit") {
      options.commit = value();
    } else if (flag == "--only") {
      options.only = value();
    } else if (flag == "--no-baseline") {
      options.with_baseline = false;
    } else {
      throw std::runtime_error("unknown flag " + flag +
                               "; known: --rounds N, --out FILE, --commit ID, --only NAME, --no-baseline");
    }
  }
  return options;
}

std::vector<Shape> shapes() {
  const auto uniform = [](int batch, std::int32_t length) { return std::vector<std::int32_t>(batch, length); };
  return {
      {"h128 b32 len4096", 128, 1, uniform(32, 4096)},
      {"h128 b64 conversation", 128, 1, conversation_lengths(64, 1)},
      {"h128 b1 len8192", 128, 1, uniform(1, 8192)},
      {"h16 b32 len4096", 16, 1, uniform(32, 4096)},
      {"h16 b64 conversation", 16, 1, conversation_lengths(64, 1)},
      {"h16 b1 len8192", 16, 1, uniform(1, 8192)},
      {"h16 s_q2 b32 len4096", 16, 2, uniform(32, 4096)},
  };
}

double seconds_of(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The largest difference of a row of `out` from the baseline's, by the row's norm: what was timed was right.
double relative_difference(const Problem& problem) {
  double worst = 0;
  for (std::int64_t row = 0; row < problem.rows(); ++row) {
    double difference = 0, norm = 0;
    for (std::int64_t i = row * kLatentDim; i < (row + 1) * kLatentDim; ++i) {
      const std::uint32_t bits = std::uint32_t{problem.out[i]} << 16;
      const double ours = std::bit_cast<float>(bits), theirs = problem.out_f32[i];
      difference += (ours - theirs) * (ours - theirs), norm += theirs * theirs;
    }
    worst = std::max(worst, std::sqrt(difference / std::max(norm, 1e-30)));
  }
  return worst;
}

class Measurement {
 public:
  Measurement(const Shape& shape, const Options& options)
      : options_(options), problem_(shape), step_(problem_), ceiling_(std::min(128, shape.heads * shape.seqlen_q)) {
    step_.schedule();
    step_.decode();
    if (options.with_baseline) baseline_decode(problem_);
  }

  nlohmann::json run() {
    // Short steps are repeated, so that a round is not a single glance at the clock.
    const int repeats = std::clamp(static_cast<int>(0.1 / seconds_of([&] { step_.decode(); })), 1, 200);
    for (int round = 0; round < options_.rounds; ++round) {
      for (const Ceiling& c : ceiling_.measure(0.004)) note(c);
      decode_s_.push_back(seconds_of([&] {
                            for (int i = 0; i < repeats; ++i) step_.decode();
                          }) /
                          repeats);
      schedule_s_.push_back(seconds_of([&] { step_.schedule(); }));
      if (options_.with_baseline && round < 3) baseline_s_.push_back(seconds_of([&] { baseline_decode(problem_); }));
    }
    return report();
  }

 private:
  void note(const Ceiling& c) {
    ceiling_rates_[c.dtype].push_back(c.gflops);
    ceiling_setups_[c.dtype] = c.scores.setup + "; " + c.values.setup;
  }

  nlohmann::json report() const {
    double best = 0;
    nlohmann::json ceilings;
    for (const auto& [dtype, rates] : ceiling_rates_) {
      ceilings[dtype] = {{"gflops", median(rates)}, {"setup", ceiling_setups_.at(dtype)}};
      best = std::max(best, median(rates));
    }
    const double seconds = median(decode_s_), gflops = problem_.flop() / seconds * 1e-9;
    nlohmann::json result = {{"shape", problem_.shape.name},
                             {"heads", problem_.shape.heads},
                             {"seqlen_q", problem_.shape.seqlen_q},
                             {"batch", problem_.shape.lengths.size()},
                             {"tokens", problem_.cache_bytes() / (2 * kHeadDim)},
                             {"cache_mib", problem_.cache_bytes() / 1048576},
                             {"ceilings", ceilings},
                             {"decode_ms", seconds * 1e3},
                             {"schedule_us", median(schedule_s_) * 1e6},
                             {"gflops", gflops},
                             {"gbytes_per_s", problem_.cache_bytes() / seconds * 1e-9},
                             {"of_ceiling", gflops / best}};
    if (!baseline_s_.empty()) {
      result["baseline_ms"] = median(baseline_s_) * 1e3;
      result["baseline_gflops"] = problem_.flop() / median(baseline_s_) * 1e-9;
      result["times_baseline"] = median(baseline_s_) / seconds;
      result["difference_from_baseline"] = relative_difference(problem_);
    }
    return result;
  }

  const Options& options_;
  Problem problem_;
  Step step_;
  CeilingBench ceiling_;
  std::vector<double> decode_s_, schedule_s_, baseline_s_;
  std::map<std::string, std::vector<double>> ceiling_rates_;
  std::map<std::string, std::string> ceiling_setups_;
};

nlohmann::json machine(const Options& options) {
  nlohmann::json about = {{"threads", omp_get_max_threads()}, {"version", version()}, {"commit", options.commit}};
  if (const Result<DeviceInfo> info = device_info({}); info.ok()) {
    about["cpu"] = info->name;
    about["instruction_set"] = info->instruction_set;
    about["last_level_cache_mib"] = info->l2_bytes / 1048576;
  }
  return about;
}

void print_row(const nlohmann::json& r) {
  const auto number = [&](const char* key) { return r.contains(key) ? r[key].get<double>() : 0.0; };
  double bf16 = 0, f32 = 0;
  if (r["ceilings"].contains("bf16")) bf16 = r["ceilings"]["bf16"]["gflops"];
  if (r["ceilings"].contains("f32")) f32 = r["ceilings"]["f32"]["gflops"];
  fmt::print("{:24} {:9.3f} {:8.1f} {:7.1f} {:8.1f} {:8.1f} {:7.1f}% {:9.1f} {:7.1f}x {:9.1e}\n",
             r["shape"].get<std::string>(), number("decode_ms"), number("gflops"), number("gbytes_per_s"), bf16, f32,
             100 * number("of_ceiling"), number("baseline_ms"), number("times_baseline"),
             number("difference_from_baseline"));
  std::fflush(stdout);
}

int run(const Options& options) {
  nlohmann::json report = machine(options);
  fmt::print("{:24} {:>9} {:>8} {:>7} {:>8} {:>8} {:>8} {:>9} {:>8} {:>9}\n", "shape", "ms", "GFLOP/s", "GB/s", "bf16",
             "f32", "of ceil", "base ms", "x base", "diff");
  for (const Shape& shape : shapes()) {
    if (shape.name.find(options.only) == std::string::npos) continue;
    report["results"].push_back(Measurement(shape, options).run());
    print_row(report["results"].back());
  }
  if (!options.out.empty()) std::ofstream(options.out) << report.dump(2) << '\n';
  return 0;
}

}  // namespace
}  // namespace flash_mla::bench

int main(int argc, char** argv) {
  try {
    return flash_mla::bench::run(flash_mla::bench::parse(argc, argv));
  } catch (const std::exception& error) {
    fmt::print(stderr, "cpu_decode: {}\n", error.what());
    return 2;
  }
}
