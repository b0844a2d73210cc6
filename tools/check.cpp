// See check.h.
#include "check.h"

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <span>

#include "flash_mla/flash_mla.h"
#include "reference/compare.h"
#include "support/device.h"
#include "support/element.h"
#include "support/errors.h"
#include "support/human.h"
#include "support/output.h"
#include "support/random.h"

namespace flash_mla::tools {
namespace {

using nlohmann::json;
using reference::Problem;
using reference::ProblemSpec;

struct Lengths {
  const char* name;
  std::vector<std::int32_t> tokens;
};

const std::vector<Lengths>& length_sets() {
  static const std::vector<Lengths> sets = {
      {"0 and 1", {0, 1, 0, 2}},
      {"short", {3, 20, 63, 7, 31}},
      {"around a block", {64, 65, 128, 127, 129}},
      {"varied", {0, 700, 5, 140, 1023, 64}},
      {"one long", {4097}},
      {"long and short", {2048, 1, 333, 0, 90, 17, 64, 1}},
  };
  return sets;
}

const char* lengths_name(const ProblemSpec& spec) {
  for (const Lengths& set : length_sets()) {
    if (set.tokens == spec.lengths) return set.name;
  }
  return "?";
}

struct Verdict {
  bool ok = false;
  bool skipped = false;
  std::int64_t rows = 0;
  double worst = 0;  // share of the error bound
  double seconds = 0;
  std::string message;
};

Verdict check_shape(DeviceContext& device, const ProblemSpec& spec, const CheckOptions& options) {
  Problem problem(spec);
  PlanConfig config = problem.plan_config();
  config.device = device.device();
  const Result<Plan> plan = flash_mla::plan(config);
  if (!plan.ok() && plan.status().code() == StatusCode::unsupported) {
    return {.ok = true, .skipped = true, .message = plan.status().message()};
  }
  must(plan.status(), "plan");
  std::vector<Buffer> buffers;
  std::vector<void*> bases;
  for (const reference::Buffer& host : problem.buffers()) {
    Buffer& copy = buffers.emplace_back(device, host.bytes());
    copy.assign(host.data(), host.bytes());
    bases.push_back(copy.data());
  }
  const Buffer schedule_memory(device, plan->schedule_bytes()), scratch(device, plan->scratch_bytes());
  const auto start = std::chrono::steady_clock::now();
  must(schedule(*plan, problem.relocate(problem.schedule_args(), bases, device.device()), schedule_memory.memory(),
                device.stream()),
       "schedule");
  must(decode(*plan, problem.relocate(problem.decode_args(), bases, device.device()), schedule_memory.memory(),
              scratch.memory(), device.stream()),
       "decode");
  device.synchronize();
  Verdict verdict;
  verdict.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const reference::Buffer& host = problem.buffers()[i];
    if (host.bytes() > 0) device.download(host.data(), buffers[i].data(), host.bytes());
  }
  const reference::Comparison comparison =
      reference::compare(problem.decode_args(), spec.causal, options.max_rows, options.seed);
  const std::string damage = problem.damage();
  verdict.ok = comparison.ok && damage.empty();
  verdict.rows = comparison.rows;
  verdict.worst = comparison.used;
  verdict.message = damage.empty() ? comparison.message : fmt::format("{} was changed", damage);
  return verdict;
}

std::string shape_text(const ProblemSpec& spec) {
  return fmt::format("{:<5} h {:>3}/{:<2} s_q {:<6} {:<6} page {:<4} {:<12} {:<15}", to_string(spec.dtype),
                     spec.num_heads_q, spec.num_heads_kv, spec.ragged ? "ragged" : fmt::format("{}", spec.seqlen_q),
                     spec.causal ? "causal" : "full", spec.page_size,
                     fmt::format("{}{}", spec.joint_cache ? "576" : "512+64", spec.layers > 1 ? " strided" : ""),
                     lengths_name(spec));
}

json shape_json(const ProblemSpec& spec, const Verdict& verdict) {
  return {{"dtype", to_string(spec.dtype)},
          {"h_q", spec.num_heads_q},
          {"h_kv", spec.num_heads_kv},
          {"s_q", spec.ragged ? json("ragged") : json(spec.seqlen_q)},
          {"causal", spec.causal},
          {"page_size", spec.page_size},
          {"joint_cache", spec.joint_cache},
          {"layers", spec.layers},
          {"lengths", spec.lengths},
          {"result", verdict.skipped ? "skipped" : (verdict.ok ? "ok" : "wrong")},
          {"rows", verdict.rows},
          {"worst_share_of_bound", verdict.worst},
          {"message", verdict.message}};
}

// The properties that take turns along the grid instead of multiplying it.
void vary(ProblemSpec& spec, std::uint64_t draw) {
  constexpr std::int32_t kPages[] = {64, 16, 32, 128};
  spec.page_size = kPages[draw % 4];
  spec.causal = (draw >> 2) % 3 != 0;
  spec.joint_cache = (draw >> 4) % 3 != 0;
  spec.joint_q = (draw >> 6) % 3 != 0;
  spec.row_gap = (draw >> 8) % 3 == 0 ? 8 : 0;
  spec.layers = (draw >> 10) % 3 == 0 ? 3 : 1;
  if (spec.num_heads_q % 8 == 0 && (draw >> 12) % 5 == 0) spec.num_heads_kv = 8;
  spec.ragged = (draw >> 16) % 4 == 0;
  if (spec.ragged) {
    for (std::size_t i = 0; i < spec.lengths.size(); ++i) {
      spec.queries.push_back(static_cast<std::int32_t>((draw >> (20 + 2 * i)) % 4));
    }
  }
}

}  // namespace

std::vector<ProblemSpec> check_grid(const CheckOptions& options) {
  std::vector<DType> dtypes = {DType::bf16, DType::f16, DType::f32};
  if (!options.dtype.empty()) dtypes = {parse_dtype(options.dtype)};
  const std::vector<std::int32_t> heads = options.quick ? std::vector{16, 128} : std::vector{1, 9, 16, 64, 126, 128};
  const std::vector<std::int32_t> queries = options.quick ? std::vector{1} : std::vector{1, 2, 5};
  std::vector<ProblemSpec> grid;
  for (DType dtype : dtypes) {
    for (std::int32_t num_heads : heads) {
      for (std::int32_t seqlen_q : queries) {
        for (const Lengths& lengths : length_sets()) {
          ProblemSpec spec;
          spec.dtype = dtype;
          spec.num_heads_q = num_heads;
          spec.seqlen_q = seqlen_q;
          spec.lengths = lengths.tokens;
          spec.seed = hash(options.seed, grid.size());
          vary(spec, hash(spec.seed, 1));
          grid.push_back(spec);
        }
      }
    }
  }
  return grid;
}

int run_check(const CheckOptions& options) {
  std::FILE* out = options.json_path == "-" ? stderr : stdout;
  const std::unique_ptr<DeviceContext> device = open_device(options.backend);
  const std::vector<ProblemSpec> grid = check_grid(options);
  fmt::print(out, "{} shapes on {}; up to {} rows of each against the fp64 reference\n\n", grid.size(),
             to_string(device->device().type), options.max_rows);
  json rows = json::array();
  std::int64_t wrong = 0, skipped = 0, compared = 0;
  double worst = 0;
  for (const ProblemSpec& spec : grid) {
    const Verdict verdict = check_shape(*device, spec, options);
    const char* word = verdict.skipped ? "skipped" : (verdict.ok ? "ok" : "WRONG");
    fmt::print(out, "{} {:>4} rows  {:>6} of the bound  {:>8}  {}\n", shape_text(spec), verdict.rows,
               human_percent(verdict.worst), human_seconds(verdict.seconds), word);
    if (!verdict.ok || verdict.skipped) fmt::print(out, "    {}\n", verdict.message);
    std::fflush(out);
    wrong += verdict.ok ? 0 : 1, skipped += verdict.skipped ? 1 : 0, compared += verdict.rows;
    worst = std::max(worst, verdict.worst);
    rows.push_back(shape_json(spec, verdict));
  }
  fmt::print(out,
             "\n{} of {} shapes right, {} wrong, {} skipped; {} rows compared, the worst uses {} of its error bound\n",
             static_cast<std::int64_t>(grid.size()) - wrong - skipped, grid.size(), wrong, skipped,
             human_count(compared), human_percent(worst));
  if (!options.json_path.empty()) {
    write_json(options.json_path, {{"version", version()},
                                   {"backend", to_string(device->device().type)},
                                   {"wrong", wrong},
                                   {"skipped", skipped},
                                   {"shapes", rows}});
  }
  return wrong > 0 ? kFailure : kSuccess;
}

}  // namespace flash_mla::tools
