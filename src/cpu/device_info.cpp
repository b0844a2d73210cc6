#include "cpu/device_info.h"

#include <hwy/highway.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>

namespace flash_mla::cpu {
namespace {

const char* instruction_set() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41:
      return "sse41";
    case dnnl::cpu_isa::avx:
      return "avx";
    case dnnl::cpu_isa::avx2:
      return "avx2";
    case dnnl::cpu_isa::avx2_vnni:
      return "avx2_vnni";
    case dnnl::cpu_isa::avx512_core:
      return "avx512_core";
    case dnnl::cpu_isa::avx512_core_vnni:
      return "avx512_core_vnni";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "avx512_core_bf16";
    case dnnl::cpu_isa::avx512_core_amx:
      return "avx512_core_amx";
    default:
      return "x86-64";
  }
}

// The value of the first line of /proc/cpuinfo that begins with `key`.
std::string cpuinfo(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const std::size_t value = line.find(": ");
    if (value != std::string::npos) return line.substr(value + 2);
  }
  return "unknown processor";
}

template <std::size_t n>
void copy_text(const std::string& from, char (&to)[n]) {
  const std::size_t length = std::min(from.size(), n - 1);
  std::memcpy(to, from.data(), length);
  to[length] = '\0';
}

// Of the cache that this process's cores share; sysconf adds up those of all sockets, of the host's in virtual
// machines. "32768K"; 0 when unknown.
std::int64_t last_level_cache_bytes() {
  std::int64_t kib = 0;
  for (const int index : {3, 2}) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
    if (file >> kib) break;
  }
  return kib * 1024;
}

std::int64_t positive(long value) { return value > 0 ? value : 0; }

}  // namespace

DeviceInfo describe_machine() {
  DeviceInfo info;
  copy_text(cpuinfo("model name"), info.name);
  copy_text(instruction_set(), info.instruction_set);
  info.workers = omp_get_max_threads();
  info.memory_bytes = positive(sysconf(_SC_PHYS_PAGES)) * positive(sysconf(_SC_PAGESIZE));
  info.l2_bytes = last_level_cache_bytes();
  return info;
}

const char* how_it_runs() {
  static const std::array<char, 128> text = [] {
    std::array<char, 128> line = {};
    const std::int64_t targets = hwy::SupportedTargets();
    const std::int64_t best = targets & -targets;  // lower bits are better targets
    std::snprintf(line.data(), line.size(), "products by oneDNN for %s, vectors by Highway for %s, threads by OpenMP",
                  instruction_set(), hwy::TargetName(best));
    return line;
  }();
  return text.data();
}

}  // namespace flash_mla::cpu
