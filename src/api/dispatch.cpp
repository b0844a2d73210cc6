// The public calls: validate, then hand the problem to the backend. Backends let no exception out (core/backend.h), and
// validation throws none, so none crosses the library's border.
#include "api/message.h"
#include "api/registry.h"
#include "api/validate.h"
#include "flash_mla/decode.h"
#include "flash_mla/paged_kv_cache.h"

namespace flash_mla {

Status schedule(const Plan& plan, const ScheduleArgs& args, MemoryView schedule_memory, Stream stream) noexcept {
  BatchView batch;
  FLASH_MLA_RETURN_IF_ERROR(validate_schedule(plan, args, schedule_memory, &batch));
  return plan.backend()->schedule(plan, batch, schedule_memory.data, stream);
}

Status num_splits(const Plan& plan, MemoryView schedule_memory, const TensorView& num_splits, Stream stream) noexcept {
  FLASH_MLA_RETURN_IF_ERROR(validate_num_splits(plan, schedule_memory, num_splits));
  return plan.backend()->num_splits(plan, schedule_memory.data, static_cast<std::int32_t>(num_splits.shape[0] - 1),
                                    static_cast<std::int32_t*>(num_splits.data), stream);
}

Status decode(const Plan& plan, const DecodeArgs& args, MemoryView schedule_memory, MemoryView scratch,
              Stream stream) noexcept {
  DecodeProblem problem;
  FLASH_MLA_RETURN_IF_ERROR(validate_decode(plan, args, schedule_memory, scratch, &problem));
  if (problem.batch.total_q == 0) return {};
  return plan.backend()->decode(plan, problem, schedule_memory.data, scratch.data, stream);
}

Status merge(const MergeArgs& args, Stream stream) noexcept {
  const Device device = args.partial_out.device;
  const Backend* backend = nullptr;
  MergeProblem problem;
  FLASH_MLA_RETURN_IF_ERROR(find_backend(device, "partial_out.device", &backend));
  FLASH_MLA_RETURN_IF_ERROR(validate_merge(args, &problem));
  if (problem.rows == 0) return {};
  return backend->merge(problem, device, stream);
}

Status append_kv(const AppendArgs& args, Stream stream) noexcept {
  const Device device = args.kv_cache.device;
  const Backend* backend = nullptr;
  AppendProblem problem;
  FLASH_MLA_RETURN_IF_ERROR(find_backend(device, "kv_cache.device", &backend));
  FLASH_MLA_RETURN_IF_ERROR(validate_append(args, &problem));
  if (problem.tokens == 0) return {};
  return backend->append(problem, device, stream);
}

Status copy_pages(const TensorView& cache, const TensorView& page_pairs, Stream stream) noexcept {
  const Device device = cache.device;
  const Backend* backend = nullptr;
  CopyPagesProblem problem;
  FLASH_MLA_RETURN_IF_ERROR(find_backend(device, "cache.device", &backend));
  FLASH_MLA_RETURN_IF_ERROR(validate_copy_pages(cache, page_pairs, &problem));
  if (problem.pairs == 0) return {};
  return backend->copy_pages(problem, device, stream);
}

}  // namespace flash_mla
