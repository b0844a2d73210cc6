// What this library can do on this machine.
#pragma once

#include <cstdint>
#include <span>

#include "flash_mla/export.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

struct BackendInfo {
  DeviceType type = DeviceType::cpu;
  const char* name = "";    // "cpu", "cuda"
  bool available = false;   // can run on this machine now
  const char* reason = "";  // when not available: why, in a sentence; else how it would run
  int device_count = 0;
};

struct DeviceInfo {
  char name[128] = {};            // processor or GPU as the system names it
  char instruction_set[64] = {};  // what the kernels would use: "avx512_core_bf16", "sm_90a"
  std::int32_t workers = 0;       // CPU threads, or streaming multiprocessors
  std::int64_t memory_bytes = 0;
  std::int64_t l2_bytes = 0;  // last-level cache; 0 when unknown
};

// One compiled kernel.
struct KernelInfo {
  DeviceType type = DeviceType::cpu;
  const char* name = "";  // e.g. "dense_decode bf16 576/512 sm_90a"
};

// Backends and kernels that were compiled in; static storage. Thread-safe.
[[nodiscard]] FLASH_MLA_API std::span<const BackendInfo> backends() noexcept;
[[nodiscard]] FLASH_MLA_API std::span<const KernelInfo> kernels() noexcept;
[[nodiscard]] FLASH_MLA_API Result<DeviceInfo> device_info(Device device) noexcept;

}  // namespace flash_mla
