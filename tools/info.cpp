// See info.h.
#include "info.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "flash_mla/flash_mla.h"
#include "support/device.h"
#include "support/element.h"
#include "support/errors.h"
#include "support/human.h"
#include "support/output.h"

namespace flash_mla::tools {
namespace {

using nlohmann::json;

json backends_json() {
  json list = json::array();
  for (const BackendInfo& backend : backends()) {
    json entry = {{"name", backend.name}, {"available", backend.available}, {"reason", backend.reason}};
    entry["devices"] = json::array();
    for (int i = 0; backend.available && i < backend.device_count; ++i) {
      const DeviceInfo device = must(device_info({backend.type, i}), "device_info");
      entry["devices"].push_back({{"index", i},
                                  {"name", device.name},
                                  {"instruction_set", device.instruction_set},
                                  {"workers", device.workers},
                                  {"memory_bytes", device.memory_bytes},
                                  {"last_level_cache_bytes", device.l2_bytes}});
    }
    entry["kernels"] = json::array();
    for (const KernelInfo& kernel : kernels()) {
      if (kernel.type == backend.type) entry["kernels"].push_back(kernel.name);
    }
    list.push_back(entry);
  }
  return list;
}

json choice_json(const InfoOptions& options) {
  const BackendChoice choice = choose_backend(options.backend);
  PlanConfig config;
  config.device.type = choice.name == "cuda" ? DeviceType::cuda : DeviceType::cpu;
  config.dtype = parse_dtype(options.dtype);
  config.max_batch = options.batch;
  config.max_seqlen_q = options.seqlen_q;
  config.num_heads_q = options.heads;
  config.page_size = options.page_size;
  json entry = {{"backend", choice.name},        {"why", choice.why},      {"dtype", options.dtype},
                {"batch", options.batch},        {"heads", options.heads}, {"seqlen_q", options.seqlen_q},
                {"page_size", options.page_size}};
  const Result<Plan> plan = flash_mla::plan(config);
  if (plan.ok()) {
    entry["parts"] = plan->num_parts();
    entry["rows_per_unit"] = plan->rows_per_unit();
    entry["schedule_bytes"] = plan->schedule_bytes();
    entry["scratch_bytes"] = plan->scratch_bytes();
  } else {
    accept(plan.status());
    entry["cannot_run"] = plan.status().message();
  }
  return entry;
}

std::string backend_text(const json& backend) {
  std::string text = fmt::format("{}: {}{}\n", backend["name"].get<std::string>(),
                                 backend["available"] ? "available" : "not available",
                                 backend["reason"] == "" ? "" : "; " + backend["reason"].get<std::string>());
  for (const json& device : backend["devices"]) {
    const double cache = device["last_level_cache_bytes"];
    text += fmt::format("  device {}: {}, {} {}, {}, {} of memory{}\n", device["index"].get<int>(),
                        device["name"].get<std::string>(), device["workers"].get<int>(),
                        backend["name"] == "cpu" ? "threads" : "multiprocessors",
                        device["instruction_set"].get<std::string>(), human_bytes(device["memory_bytes"]),
                        cache > 0 ? ", last-level cache " + human_bytes(cache) : "");
  }
  for (const json& kernel : backend["kernels"]) text += fmt::format("  kernel: {}\n", kernel.get<std::string>());
  return text;
}

std::string choice_text(const json& choice) {
  std::string text = fmt::format(
      "What would run for {} requests, {} heads, {} query token{}, {}, pages of {} tokens:\n",
      choice["batch"].get<int>(), choice["heads"].get<int>(), choice["seqlen_q"].get<int>(),
      choice["seqlen_q"] == 1 ? "" : "s", choice["dtype"].get<std::string>(), choice["page_size"].get<int>());
  text += fmt::format("  the {} backend: {}\n", choice["backend"].get<std::string>(), choice["why"].get<std::string>());
  if (choice.contains("cannot_run")) {
    return text + fmt::format("  but it cannot: {}\n", choice["cannot_run"].get<std::string>());
  }
  return text + fmt::format(
                    "  the work of a step is cut into {} balanced parts that take up to {} (query, head) rows at a "
                    "time\n  schedule memory {}, scratch {}\n",
                    choice["parts"].get<int>(), choice["rows_per_unit"].get<int>(),
                    human_bytes(choice["schedule_bytes"]), human_bytes(choice["scratch_bytes"]));
}

}  // namespace

int run_info(const InfoOptions& options) {
  const json list = backends_json(), choice = choice_json(options);
  if (!options.json_path.empty()) {
    write_json(options.json_path, {{"version", version()}, {"backends", list}, {"would_run", choice}});
    if (options.json_path == "-") return kSuccess;
  }
  fmt::print("flash-mla {}\n\n", version());
  bool has_cuda = false;
  for (const json& backend : list) {
    fmt::print("{}", backend_text(backend));
    has_cuda = has_cuda || backend["name"] == "cuda";
  }
  if (!has_cuda) fmt::print("cuda: not in this build\n");
  fmt::print("\n{}", choice_text(choice));
  return kSuccess;
}

}  // namespace flash_mla::tools
