// See compare.h.
#include "reference/compare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <limits>
#include <utility>

#include "reference/float_format.h"
#include "reference/random.h"

namespace flash_mla::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...) {
  std::array<char, 320> text;
  std::va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(text.data(), text.size(), pattern, arguments);
  va_end(arguments);
  return text.data();
}

// Both NaN, the same infinity, or both finite.
bool same_kind(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return true;
}

struct Norms {
  double error = 0, model = 0, row = 0;  // over the finite columns
  int worst_column = 0;
};

Norms norms_of(const ReferenceRow& want, const Row& got) {
  double error = 0, model = 0, row = 0, worst = -1;
  Norms norms;
  for (int column = 0; column < kLatentDim; ++column) {
    if (!std::isfinite(want.exact.out[column])) continue;
    const double difference = got.out[column] - want.exact.out[column];
    const double model_difference = want.model.out[column] - want.exact.out[column];
    error += difference * difference;
    model += model_difference * model_difference;
    row += want.exact.out[column] * want.exact.out[column];
    if (std::fabs(difference) > worst) worst = std::fabs(difference), norms.worst_column = column;
  }
  norms.error = std::sqrt(error), norms.model = std::sqrt(model), norms.row = std::sqrt(row);
  return norms;
}

// error / bound, where 0 / 0 is right.
double share(double error, double bound) { return error == 0 ? 0 : error / bound; }

template <class Want>
Comparison compare_each(const DecodeArgs& args, bool causal, std::span<const RowId> rows, Want want) {
  const Reference reference(args, causal);
  const Bound bound = bound_of(args);
  Comparison comparison;
  double worst = -1;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const RowId id = rows[i];
    const RowVerdict verdict = judge_row(want(i), reference.result(id), bound);
    ++comparison.rows;
    if (!verdict.ok) ++comparison.wrong_rows;
    if (verdict.used <= worst) continue;
    worst = comparison.used = verdict.used, comparison.worst = id;
    comparison.message = format("request %d, query %d, head %d (length %d, sees %d): ", id.request, id.query, id.head,
                                reference.length(id.request), reference.visible(id.request, id.query)) +
                         verdict.message;
  }
  comparison.ok = comparison.wrong_rows == 0;
  if (!comparison.ok) {
    comparison.message = format("%lld of %lld rows wrong; worst: ", static_cast<long long>(comparison.wrong_rows),
                                static_cast<long long>(comparison.rows)) +
                         comparison.message;
  }
  return comparison;
}

}  // namespace

Bound bound_of(const DecodeArgs& args) {
  Bound bound;
  if (args.q.dtype == DType::f32) bound.slack = 0x1p-14;
  bound.check_lse = args.lse.given();
  return bound;
}

RowVerdict judge_row(const ReferenceRow& want, const Row& got, const Bound& bound) {
  for (int column = 0; column < kLatentDim; ++column) {
    if (!same_kind(want.exact.out[column], got.out[column])) {
      return {false, kInfinity, format("out[%d] is %g, want %g", column, got.out[column], want.exact.out[column])};
    }
  }
  if (bound.check_lse && !same_kind(want.exact.lse, got.lse)) {
    return {false, kInfinity, format("lse is %g, want %g", got.lse, want.exact.lse)};
  }

  RowVerdict verdict;
  const Norms norms = norms_of(want, got);
  const double allowed = bound.model_factor * norms.model + bound.slack * norms.row;
  verdict.used = share(norms.error, allowed);
  verdict.message = format("|error| %.3g of %.3g allowed (model %.3g, row %.3g), worst out[%d] is %.7g, want %.7g",
                           norms.error, allowed, norms.model, norms.row, norms.worst_column,
                           got.out[norms.worst_column], want.exact.out[norms.worst_column]);
  if (bound.check_lse && std::isfinite(want.exact.lse)) {
    const double error = std::fabs(got.lse - want.exact.lse);
    const double lse_allowed = bound.lse_absolute + bound.lse_relative * std::fabs(want.exact.lse);
    if (share(error, lse_allowed) > verdict.used) {
      verdict.used = share(error, lse_allowed);
      verdict.message =
          format("lse is %.9g, want %.9g (error %.3g of %.3g allowed)", got.lse, want.exact.lse, error, lse_allowed);
    }
  }
  verdict.ok = verdict.used <= 1;
  return verdict;
}

Comparison compare_rows(const DecodeArgs& args, bool causal, std::span<const RowId> rows) {
  Reference reference(args, causal);
  return compare_each(args, causal, rows, [&](std::size_t i) { return reference.row(rows[i]); });
}

Comparison compare_rows(const DecodeArgs& args, bool causal, std::span<const RowId> rows,
                        std::span<const ReferenceRow> want) {
  return compare_each(args, causal, rows, [&](std::size_t i) -> const ReferenceRow& { return want[i]; });
}

std::vector<RowId> sample_rows(const DecodeArgs& args, bool causal, std::int64_t max_rows, std::uint64_t seed) {
  std::vector<RowId> rows = Reference(args, causal).all_rows();
  Random random(seed);
  std::vector<RowId> sample;
  // Each row is taken with the chance that leaves max_rows in the end; the order stays.
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto left = static_cast<std::int64_t>(rows.size() - i);
    const auto wanted = max_rows - static_cast<std::int64_t>(sample.size());
    if (wanted >= left || random.below(left) < wanted) sample.push_back(rows[i]);
  }
  return sample;
}

Comparison compare(const DecodeArgs& args, bool causal, std::int64_t max_rows, std::uint64_t seed) {
  return compare_rows(args, causal, sample_rows(args, causal, max_rows, seed));
}

std::int64_t count_nan(const TensorView& view) {
  std::int64_t elements = 1;
  for (int axis = 0; axis < view.rank; ++axis) elements *= view.shape[axis];
  std::int64_t nans = 0;
  for (std::int64_t i = 0; i < elements; ++i) {
    std::int64_t rest = i, offset = 0;
    for (int axis = view.rank - 1; axis >= 0; --axis) {
      offset += rest % view.shape[axis] * view.strides[axis];
      rest /= view.shape[axis];
    }
    const char* data = static_cast<const char*>(view.data) + offset * size_in_bytes(view.dtype);
    if (std::isnan(load_element(view.dtype, data))) ++nans;
  }
  return nans;
}

std::string nan_in_results(const DecodeArgs& args) {
  for (const TensorView* view : {&args.out, &args.lse}) {
    if (!view->given()) continue;
    if (const std::int64_t nans = count_nan(*view); nans != 0) {
      return format("%lld elements of %s are NaN or were not written", static_cast<long long>(nans),
                    view == &args.out ? "out" : "lse");
    }
  }
  return {};
}

}  // namespace flash_mla::reference
