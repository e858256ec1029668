// Matrices in f64 and their best approximation of a low rank.
#pragma once

#include <vector>

#include "tensor/array.h"

namespace graft {

// Rows one after another.
struct Matrix {
  std::int64_t rows = 0, columns = 0;
  std::vector<double> at;
  Matrix(std::int64_t rows, std::int64_t columns)
      : rows(rows), columns(columns), at(static_cast<std::size_t>(rows * columns), 0) {}
  explicit Matrix(const Array&);
  double& operator()(std::int64_t i, std::int64_t j) {
    return at[static_cast<std::size_t>(i * columns + j)];
  }
  double operator()(std::int64_t i, std::int64_t j) const {
    return at[static_cast<std::size_t>(i * columns + j)];
  }
  Array array() const;  // in f32
};
Matrix product(const Matrix&, const Matrix&);
Matrix transposed(const Matrix&);

// M = U diag(s) V^T, s falling; U [rows, k], V^T [k, columns] with k = min(rows, columns).
struct Svd {
  Matrix u;
  std::vector<double> s;
  Matrix vt;
};
// One-sided Jacobi (Hestenes 1958; Demmel and Veselic 1992): high relative accuracy. Takes
// rows columns min(rows, columns) steps a few times over.
Svd svd(const Matrix&);
// Of B A with an inner width below both outer ones: of that width's core alone.
Svd svd_of_product(const Matrix& b, const Matrix& a);

}  // namespace graft
