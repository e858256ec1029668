#include "peft/low_rank.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/error.h"

namespace graft {

Matrix::Matrix(const Array& a) : Matrix(a.dim(0), a.dim(1)) { at = a.to_vector(); }

Array Matrix::array() const { return Array::of(at, {rows, columns}).to(Dtype::f32); }

Matrix product(const Matrix& a, const Matrix& b) {
  check(a.columns == b.rows, "product: {} columns, {} rows", a.columns, b.rows);
  Matrix c(a.rows, b.columns);
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t k = 0; k < a.columns; ++k)
      for (std::int64_t j = 0; j < b.columns; ++j) c(i, j) += a(i, k) * b(k, j);
  return c;
}

Matrix transposed(const Matrix& a) {
  Matrix t(a.columns, a.rows);
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t j = 0; j < a.columns; ++j) t(j, i) = a(i, j);
  return t;
}

namespace {

double dot(const double* a, const double* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void turn(double* a, double* b, std::int64_t n, double c, double s) {
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = a[i], y = b[i];
    a[i] = c * x - s * y;
    b[i] = s * x + c * y;
  }
}

// Turns pairs of rows of `m` until all are orthogonal, and the same rows of `with` along.
void make_orthogonal(Matrix& m, Matrix& with) {
  constexpr int kSweeps = 60;
  constexpr double kSmall = 1e-13;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    bool turned = false;
    for (std::int64_t i = 0; i < m.rows; ++i)
      for (std::int64_t j = i + 1; j < m.rows; ++j) {
        double *a = &m(i, 0), *b = &m(j, 0);
        const double aa = dot(a, a, m.columns), bb = dot(b, b, m.columns),
                     ab = dot(a, b, m.columns);
        if (std::abs(ab) <= kSmall * std::sqrt(aa * bb)) continue;
        turned = true;
        const double zeta = (bb - aa) / (2 * ab);
        const double t = std::copysign(1, zeta) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
        const double c = 1 / std::sqrt(1 + t * t), s = c * t;
        turn(a, b, m.columns, c, s);
        turn(&with(i, 0), &with(j, 0), with.columns, c, s);
      }
    if (!turned) return;
  }
  fail("svd: rows are not orthogonal after {} sweeps; are the numbers finite?", kSweeps);
}

// m = q r with orthonormal columns of q, by reflections (Householder 1958); q [rows, columns].
void factor(const Matrix& m, Matrix& q, Matrix& r) {
  Matrix work = m;
  std::vector<std::vector<double>> mirrors;
  const auto reflect = [](Matrix& of, const std::vector<double>& v, std::int64_t from) {
    for (std::int64_t j = 0; j < of.columns; ++j) {
      double along = 0;
      for (std::int64_t i = from; i < of.rows; ++i)
        along += v[static_cast<std::size_t>(i - from)] * of(i, j);
      for (std::int64_t i = from; i < of.rows; ++i)
        of(i, j) -= 2 * along * v[static_cast<std::size_t>(i - from)];
    }
  };
  for (std::int64_t k = 0; k < m.columns; ++k) {
    std::vector<double> v;
    for (std::int64_t i = k; i < m.rows; ++i) v.push_back(work(i, k));
    v[0] += std::copysign(std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0)), v[0]);
    const double size = std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0));
    for (double& x : v) x = size > 0 ? x / size : 0;
    reflect(work, v, k);
    mirrors.push_back(std::move(v));
  }
  for (std::int64_t i = 0; i < m.columns; ++i) {
    q(i, i) = 1;
    for (std::int64_t j = i; j < m.columns; ++j) r(i, j) = work(i, j);
  }
  for (std::int64_t k = m.columns; k-- > 0;) reflect(q, mirrors[static_cast<std::size_t>(k)], k);
}

}  // namespace

Svd svd(const Matrix& m) {
  if (m.rows > m.columns) {
    Svd t = svd(transposed(m));
    return {transposed(t.vt), std::move(t.s), transposed(t.u)};
  }
  // Q M has orthogonal rows, Q a rotation: M = Q^T diag(s) V^T.
  Matrix rows = m, turned(m.rows, m.rows);
  for (std::int64_t i = 0; i < m.rows; ++i) turned(i, i) = 1;
  make_orthogonal(rows, turned);
  std::vector<double> size;
  for (std::int64_t i = 0; i < m.rows; ++i)
    size.push_back(std::sqrt(dot(&rows(i, 0), &rows(i, 0), m.columns)));
  std::vector<std::int64_t> order(size.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return size[static_cast<std::size_t>(a)] > size[static_cast<std::size_t>(b)];
  });
  Svd out{Matrix(m.rows, m.rows), {}, Matrix(m.rows, m.columns)};
  for (std::int64_t k = 0; k < m.rows; ++k) {
    const std::int64_t from = order[static_cast<std::size_t>(k)];
    const double s = size[static_cast<std::size_t>(from)];
    out.s.push_back(s);
    for (std::int64_t i = 0; i < m.rows; ++i) out.u(i, k) = turned(from, i);
    for (std::int64_t j = 0; s > 0 && j < m.columns; ++j) out.vt(k, j) = rows(from, j) / s;
  }
  return out;
}

Svd svd_of_product(const Matrix& b, const Matrix& a) {
  const std::int64_t k = b.columns;
  if (k >= std::min(b.rows, a.columns)) return svd(product(b, a));
  Matrix qb(b.rows, k), rb(k, k), qa(a.columns, k), ra(k, k);
  factor(b, qb, rb);
  factor(transposed(a), qa, ra);
  const Svd core = svd(product(rb, transposed(ra)));
  return {product(qb, core.u), core.s, product(core.vt, transposed(qa))};
}

}  // namespace graft
