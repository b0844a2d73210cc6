// Dense matrices for the examples: row-major doubles, small and plain. An engine has its own.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace example {

struct Matrix {
  std::int64_t rows = 0, columns = 0;
  std::vector<double> values;

  Matrix(std::int64_t r, std::int64_t c) : rows(r), columns(c), values(r * c) {}
  std::span<double> row(std::int64_t i) { return std::span(values).subspan(i * columns, columns); }
  std::span<const double> row(std::int64_t i) const { return std::span(values).subspan(i * columns, columns); }
};

// Normal entries of the given standard deviation.
inline Matrix random_matrix(std::int64_t rows, std::int64_t columns, double deviation, std::mt19937& random) {
  Matrix m(rows, columns);
  std::normal_distribution<double> normal(0, deviation);
  for (double& x : m.values) x = normal(random);
  return m;
}

// c += a * b for rows of a and b.
inline void add_scaled(std::span<double> c, double a, std::span<const double> b) {
  for (std::size_t i = 0; i < c.size(); ++i) c[i] += a * b[i];
}

inline double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// x [n, k] times w [k, m].
inline Matrix multiply(const Matrix& x, const Matrix& w) {
  Matrix y(x.rows, w.columns);
  for (std::int64_t i = 0; i < x.rows; ++i) {
    for (std::int64_t k = 0; k < x.columns; ++k) add_scaled(y.row(i), x.row(i)[k], w.row(k));
  }
  return y;
}

// Rotary embedding in place: pair (2i, 2i + 1) turns by position * 10000^(-2i / d).
inline void rotate(std::span<double> x, std::int64_t position) {
  const double d = static_cast<double>(x.size());
  for (std::size_t i = 0; i + 1 < x.size(); i += 2) {
    const double angle = static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(i) / d);
    const double a = x[i], b = x[i + 1];
    x[i] = a * std::cos(angle) - b * std::sin(angle);
    x[i + 1] = a * std::sin(angle) + b * std::cos(angle);
  }
}

}  // namespace example
