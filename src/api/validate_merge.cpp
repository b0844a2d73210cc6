// merge: the partial results and where they go.
#include "api/cache_checks.h"
#include "api/limits.h"
#include "api/message.h"
#include "api/tensor_checks.h"
#include "api/validate.h"

namespace flash_mla {
namespace {

// A form whose dtype is any float type.
Status check_float_form(const Tensor& tensor, int rank, const char* shape_text, Device device) {
  FLASH_MLA_RETURN_IF_ERROR(check_float_dtype(tensor));
  return check_form(tensor, rank, shape_text, tensor.view.dtype, device);
}

Status check_partials(const Tensor& out, const Tensor& lse) {
  const Device device = out.view.device;
  FLASH_MLA_RETURN_IF_ERROR(check_float_form(out, 3, "[n, rows, 512]", device));
  if (out.view.shape[0] < 1 || out.view.shape[0] > kInt32Max) {
    return invalid(out.name, ".shape[0] is ", out.view.shape[0], "; expected 1 to ", kInt32Max, " shards");
  }
  FLASH_MLA_RETURN_IF_ERROR(check_dim(out, 2, kLatentDim, "the width of the latent part"));
  FLASH_MLA_RETURN_IF_ERROR(check_memory<3>(out, {.tma_aligned = needs_tma(device)}));
  FLASH_MLA_RETURN_IF_ERROR(check_form(lse, 2, "[n, rows]", DType::f32, device));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(lse, 0, out.view.shape[0], "as partial_out.shape[0]"));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(lse, 1, out.view.shape[1], "as partial_out.shape[1]"));
  return check_memory<2>(lse, {.last_contiguous = false});
}

Status check_merged(const Tensor& out, const Tensor& lse, const TensorView& partial_out) {
  const Device device = partial_out.device;
  FLASH_MLA_RETURN_IF_ERROR(check_float_form(out, 2, "[rows, 512]", device));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(out, 0, partial_out.shape[1], "as partial_out.shape[1]"));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(out, 1, kLatentDim, "the width of the latent part"));
  FLASH_MLA_RETURN_IF_ERROR(check_memory<2>(out, {.written = true, .tma_aligned = needs_tma(device)}));
  if (!lse.view.given()) return {};
  FLASH_MLA_RETURN_IF_ERROR(check_form(lse, 1, "[rows]", DType::f32, device));
  FLASH_MLA_RETURN_IF_ERROR(check_dim(lse, 0, partial_out.shape[1], "as partial_out.shape[1]"));
  return check_memory<1>(lse, {.written = true, .last_contiguous = false});
}

}  // namespace

Status validate_merge(const MergeArgs& args, MergeProblem* problem) noexcept {
  const Tensor partial_out{"partial_out", args.partial_out};
  const Tensor partial_lse{"partial_lse", args.partial_lse};
  const Tensor out{"out", args.out};
  const Tensor lse{"lse", args.lse};
  FLASH_MLA_RETURN_IF_ERROR(check_partials(partial_out, partial_lse));
  FLASH_MLA_RETURN_IF_ERROR(check_merged(out, lse, args.partial_out));
  for (const Tensor* input : {&partial_out, &partial_lse}) {
    FLASH_MLA_RETURN_IF_ERROR(check_apart(reach_of(out), reach_of(*input)));
    FLASH_MLA_RETURN_IF_ERROR(check_apart(reach_of(lse), reach_of(*input)));
  }
  FLASH_MLA_RETURN_IF_ERROR(check_apart(reach_of(out), reach_of(lse)));

  *problem = {.partial_dtype = args.partial_out.dtype,
              .out_dtype = args.out.dtype,
              .shards = args.partial_out.shape[0],
              .rows = args.partial_out.shape[1],
              .partial_out = args.partial_out.data,
              .partial_out_shard_stride = stride_of(args.partial_out, 0),
              .partial_out_row_stride = stride_of(args.partial_out, 1),
              .partial_lse = static_cast<const float*>(args.partial_lse.data),
              .partial_lse_shard_stride = stride_of(args.partial_lse, 0),
              .partial_lse_row_stride = stride_of(args.partial_lse, 1),
              .out = args.out.data,
              .out_row_stride = stride_of(args.out, 0),
              .lse = args.lse.given() ? static_cast<float*>(args.lse.data) : nullptr,
              .lse_stride = args.lse.given() ? stride_of(args.lse, 0) : 0};
  return {};
}

}  // namespace flash_mla
