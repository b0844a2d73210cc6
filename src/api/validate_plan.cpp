// plan: bounds, heads, page size; devices, for all calls that name one.
#include "api/limits.h"
#include "api/message.h"
#include "api/validate.h"

namespace flash_mla {
namespace {

Status check_at_least(const char* name, std::int64_t value, std::int64_t least) {
  if (value >= least) return {};
  return invalid("config.", name, " is ", value, "; expected at least ", least);
}

Status check_bounds(const PlanConfig& config) {
  FLASH_MLA_RETURN_IF_ERROR(check_at_least("max_batch", config.max_batch, 0));
  FLASH_MLA_RETURN_IF_ERROR(check_at_least("max_seqlen_q", config.max_seqlen_q, 1));
  FLASH_MLA_RETURN_IF_ERROR(check_at_least("max_total_q", config.max_total_q, 0));
  if (config.max_total_q > kInt32Max) {
    return invalid("config.max_total_q is ", config.max_total_q, "; expected at most ", kInt32Max);
  }
  return {};
}

Status check_heads(const PlanConfig& config) {
  FLASH_MLA_RETURN_IF_ERROR(check_at_least("num_heads_kv", config.num_heads_kv, 1));
  FLASH_MLA_RETURN_IF_ERROR(check_at_least("num_heads_q", config.num_heads_q, 1));
  if (config.num_heads_q % config.num_heads_kv != 0) {
    return invalid("config.num_heads_q is ", config.num_heads_q,
                   "; expected a multiple of num_heads_kv = ", config.num_heads_kv);
  }
  if (std::int64_t{config.max_seqlen_q} * config.num_heads_q > kMaxRowsPerRequest) {
    return invalid("config.max_seqlen_q is ", config.max_seqlen_q, " with num_heads_q = ", config.num_heads_q,
                   "; expected a product of at most ", kMaxRowsPerRequest);
  }
  return {};
}

}  // namespace

Status validate_plan(const PlanConfig& config) noexcept {
  if (config.dtype != DType::bf16 && config.dtype != DType::f16 && config.dtype != DType::f32) {
    return invalid("config.dtype is ", config.dtype, "; expected bf16, f16 or f32");
  }
  FLASH_MLA_RETURN_IF_ERROR(check_bounds(config));
  FLASH_MLA_RETURN_IF_ERROR(check_heads(config));
  if (!is_page_size(config.page_size)) {
    return invalid("config.page_size is ", config.page_size, "; expected 16, 32, 64 or a multiple of 64 tokens");
  }
  if (config.num_parts < 0 || config.num_parts > kMaxParts) {
    return invalid("config.num_parts is ", config.num_parts, "; expected 0 (the backend's choice) to ", kMaxParts);
  }
  if (config.dtype == DType::f32 && config.device.type == DeviceType::cuda) {
    return failure(StatusCode::unsupported, "config.dtype is f32; CUDA devices take bf16 and f16");
  }
  return {};
}

Status validate_device(Device device, const char* name, const Backend& backend) noexcept {
  const BackendInfo info = backend.info();
  if (!info.available) {
    return failure(StatusCode::unsupported, name, " is ", device, ", which cannot be used here: ", info.reason);
  }
  if (device.index < 0 || device.index >= info.device_count) {
    return invalid(name, ".index is ", device.index, "; this machine has ", info.device_count, " devices of type ",
                   to_string(device.type));
  }
  return {};
}

}  // namespace flash_mla
