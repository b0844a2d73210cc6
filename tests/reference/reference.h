// Multi-head Latent Attention decoding in double precision, straight from its formula, without tiles, splits or tricks:
//   s[t] = softmax_scale * <q, k[t]>   over the tokens t that the row sees, k[t] found through the block table
//   out  = sum_t softmax(s)[t] * k[t][0:512]      lse = ln sum_t exp(s[t])      no token: out = 0, lse = +inf
// and the *rounding model*: the same with only those roundings that every kernel must make, P to the tensors' type
// before it meets the values, and `out` to its type. Its distance from the exact row scales the error bound
// (compare.h).
//
// The judge of right and wrong, so it shares no code with the library. Reads host memory only.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "flash_mla/decode.h"

namespace flash_mla::reference {

struct RowId {
  std::int32_t request = 0;
  std::int32_t query = 0;  // counts within the request
  std::int32_t head = 0;
  friend bool operator==(const RowId&, const RowId&) = default;
};

struct Row {
  std::array<double, kLatentDim> out = {};
  double lse = 0;
};

struct ReferenceRow {
  Row exact;
  Row model;
};

// Ragged tensors may hold query tokens past the last request's (padding). They are request number batch() here, of
// length 0.
//
// Keeps the tokens of the request and kv head it met last, so ask row by row in the order of requests and heads.
// Not thread-safe; one object a thread. The tensors that `args` describes must outlive it.
class Reference {
 public:
  Reference(const DecodeArgs& args, bool causal);

  [[nodiscard]] std::int32_t batch() const;
  [[nodiscard]] std::int32_t heads() const;
  [[nodiscard]] std::int32_t queries(std::int32_t request) const;
  [[nodiscard]] std::int32_t length(std::int32_t request) const;
  [[nodiscard]] std::int32_t visible(std::int32_t request, std::int32_t query) const;  // tokens that a row sees
  [[nodiscard]] std::vector<RowId> all_rows() const;

  [[nodiscard]] ReferenceRow row(RowId id);
  // The same row of the caller's results, args.out and args.lse (NaN when there is no lse).
  [[nodiscard]] Row result(RowId id) const;

 private:
  using Token = std::array<double, kHeadDim>;

  [[nodiscard]] Token query_vector(RowId id) const;
  void gather_tokens(std::int32_t request, std::int32_t kv_head);

  DecodeArgs args_;
  bool causal_;
  std::vector<Token> tokens_;  // of gathered_request_ and gathered_kv_head_
  std::int32_t gathered_request_ = -1;
  std::int32_t gathered_kv_head_ = -1;
};

// One row, for callers that need no more.
[[nodiscard]] ReferenceRow reference_row(const DecodeArgs& args, bool causal, RowId id);

}  // namespace flash_mla::reference
