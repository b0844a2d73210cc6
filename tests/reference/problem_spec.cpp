// See problem_spec.h.
#include "reference/problem_spec.h"

#include <algorithm>
#include <cstddef>

namespace flash_mla::reference {
namespace {

const char* name_of(DType dtype) { return dtype == DType::bf16 ? "bf16" : dtype == DType::f16 ? "f16" : "f32"; }

// The first few entries.
std::string list(const std::vector<std::int32_t>& values) {
  constexpr std::size_t kShown = 8;
  std::string text = "[";
  for (std::size_t i = 0; i < std::min(values.size(), kShown); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(values[i]);
  }
  return text + (values.size() > kShown ? ", ...]" : "]");
}

}  // namespace

std::string describe(const ProblemSpec& spec) {
  std::string text = name_of(spec.dtype);
  text += " b " + std::to_string(spec.lengths.size()) + " " + list(spec.lengths);
  text += spec.ragged ? " queries " + list(spec.queries) : " s_q " + std::to_string(spec.seqlen_q);
  text += " heads " + std::to_string(spec.num_heads_q) + "/" + std::to_string(spec.num_heads_kv);
  text += " page " + std::to_string(spec.page_size) + (spec.causal ? " causal" : " full");
  text += " parts " + std::to_string(spec.num_parts);
  if (!spec.joint_q) text += " separate q";
  if (!spec.joint_cache) text += " separate cache";
  if (spec.padding_queries != 0) text += " padding " + std::to_string(spec.padding_queries);
  if (spec.row_gap != 0) text += " row gap " + std::to_string(spec.row_gap);
  if (spec.layers != 1) text += " layers " + std::to_string(spec.layers);
  if (spec.heads_first) text += " heads first";
  if (spec.offset_elements != 0) text += " offset " + std::to_string(spec.offset_elements);
  if (!spec.exact_table) text += " wide table";
  if (spec.q_scale != 1) text += " q scale " + std::to_string(spec.q_scale);
  return text + " seed " + std::to_string(spec.seed);
}

}  // namespace flash_mla::reference
