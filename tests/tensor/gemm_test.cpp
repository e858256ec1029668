#include <cblas.h>
#include <doctest/doctest.h>
#include <omp.h>

#include <cmath>
#include <limits>
#include <random>

#include "tensor/kernels.h"

namespace graft {
namespace {

using std::int64_t;

Array random_array(Shape shape, Dtype dtype, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<double> normal;
  Array x = Array::empty(std::move(shape), dtype);
  dispatch(x, [&]<class T>(T) {
    for (int64_t i = 0; i < x.numel(); ++i) x.data<T>()[i] = static_cast<T>(normal(bits));
  });
  return x;
}

Array poisoned(Shape shape, Dtype dtype) {
  return Array::full(std::move(shape), std::numeric_limits<double>::quiet_NaN(), dtype);
}

// Four ways to lay out the same matrix; whatever lies between its numbers is NaN.
Array packed_rows(const Array& x) { return x; }
Array packed_columns(const Array& x) { return x.transpose().clone().transpose(); }
Array rows_with_gaps(const Array& x) {
  Array view = poisoned({x.dim(0), x.dim(1) + 5}, x.dtype()).slice(1, 2, 2 + x.dim(1));
  view.copy_from(x);
  return view;
}
Array nothing_adjacent(const Array& x) {  // a third dimension of one does no harm
  Array view = poisoned({x.dim(0), x.dim(1), 3}, x.dtype()).slice(2, 1, 2);
  view.copy_from(x.reshape({x.dim(0), x.dim(1), 1}));
  return view;
}
constexpr Array (*kLayouts[])(const Array&) = {packed_rows, packed_columns, rows_with_gaps,
                                               nothing_adjacent};

// The definition: one chain per element, along k.
template <class T>
Array by_definition(const Array& c, const Array& a, const Array& b, double alpha, double beta) {
  Array out = c.clone(), scaled = b.clone();
  const int64_t rows = c.dim(0), columns = c.dim(1), depth = a.dim(1);
  T *const y = scaled.data<T>(), *const sums = out.data<T>();
  for (int64_t i = 0; i < depth * columns; ++i) y[i] *= static_cast<T>(alpha);
  const Array rows_of_a = a.as_contiguous();
  const T* const x = rows_of_a.data<T>();
  for (int64_t i = 0; i < rows; ++i) {
    T* const sum = sums + i * columns;
    if (beta == 0) std::fill(sum, sum + columns, T{0});
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t j = 0; j < columns; ++j)
        sum[j] = std::fma(x[i * depth + k], y[k * columns + j], sum[j]);
  }
  return out;
}

void check_close(const Array& got, const Array& want, double tolerance) {
  const std::vector<double> x = got.to_vector(), y = want.to_vector();
  double scale = 1e-30, error = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    REQUIRE(std::isfinite(x[i]));
    scale = std::max(scale, std::abs(y[i]));
    error = std::max(error, std::abs(x[i] - y[i]));
  }
  CHECK(error <= tolerance * scale);
}

// Without fused multiply-adds in the processor the chains round differently.
void check_chains(const Array& got, const Array& want) {
#if defined(__FMA__) || defined(__aarch64__)
  CHECK(same_bits(got, want));
#endif
  check_close(got, want, got.dtype() == Dtype::f32 ? 1e-4 : 1e-12);
}

void check_shape(int64_t rows, int64_t columns, int64_t depth, Dtype dtype, unsigned seed) {
  CAPTURE(rows);
  CAPTURE(columns);
  CAPTURE(depth);
  const Array a = kLayouts[seed % 4](random_array({rows, depth}, dtype, seed));
  const Array b = kLayouts[seed / 4 % 4](random_array({depth, columns}, dtype, seed + 1));
  const double alpha = seed % 3 ? 1 : 0.3, beta = seed % 2;
  const Array start =
      beta == 0 ? poisoned({rows, columns}, dtype) : random_array({rows, columns}, dtype, seed + 2);
  Array holder = poisoned({rows + 2, columns + 3}, dtype);
  Array c = holder.slice(0, 1, 1 + rows).slice(1, 2, 2 + columns);
  c.copy_from(start);
  cpu::gemm(c, a, b, alpha, beta);
  dispatch(c, [&]<class T>(T) {
    check_chains(c.clone(), by_definition<T>(start, a.slice(0, 0, rows), b, alpha, beta));
  });
  c.fill(0);
  int64_t poison = 0;
  for (double v : holder.to_vector()) poison += std::isnan(v);
  CHECK(poison == holder.numel() - c.numel());
}

class Threads {
 public:
  explicit Threads(int n) : before_(omp_get_max_threads()) { omp_set_num_threads(n); }
  ~Threads() { omp_set_num_threads(before_); }

 private:
  int before_;
};

}  // namespace

TEST_CASE("gemm computes one chain of fused multiply-adds per element, whatever the strides") {
  const int64_t rows[] = {1, 2, 5, 6, 7, 11, 12, 13, 23, 24, 25, 120, 241};
  const int64_t columns[] = {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 49, 96, 100};
  const int64_t depths[] = {0, 1, 2, 3, 8, 15, 16, 17, 33, 100, 384, 385};
  std::mt19937 bits(7);
  for (unsigned i = 0; i < 400; ++i)
    check_shape(rows[bits() % std::size(rows)], columns[bits() % std::size(columns)],
                depths[bits() % std::size(depths)], i % 3 ? Dtype::f32 : Dtype::f64, bits());
}

TEST_CASE("gemm computes the same chains across blocks of depth, columns and rows") {
  check_shape(14, 33, 768, Dtype::f32, 1);
  check_shape(14, 33, 769, Dtype::f32, 2);
  check_shape(500, 40, 1600, Dtype::f32, 3);
  check_shape(3, 2001, 1600, Dtype::f32, 4);
  check_shape(13, 1400, 800, Dtype::f64, 5);
  check_shape(1000, 8, 192, Dtype::f32, 8);
  check_shape(1000, 192, 8, Dtype::f32, 13);
}

TEST_CASE("a product that begins from a row has the bits of adding to a matrix of such rows") {
  unsigned seed = 0;
  for (const int64_t rows : {1, 3, 5, 12, 190})
    for (const int64_t columns : {1, 9, 33, 96, 600})
      for (const int64_t depth : {0, 1, 40, 1100})
        for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
          CAPTURE(rows);
          CAPTURE(columns);
          CAPTURE(depth);
          const Array a = random_array({rows, depth}, dtype, ++seed),
                      b = kLayouts[seed % 4](random_array({depth, columns}, dtype, seed + 1)),
                      row = random_array({columns}, dtype, seed + 2);
          Array want = row.expand({rows, columns}).clone(), got = poisoned({rows, columns}, dtype);
          cpu::gemm(want, a, b, 1, 1);
          cpu::gemm_from_row(got, a, b, row);
          CHECK(same_bits(got, want));
        }
}

TEST_CASE("gemm computes the same chains for a few rows, where b is not packed") {
  for (unsigned layout = 0; layout < 16; ++layout)
    for (const int64_t rows : {1, 2, 3, 4, 5}) {
      check_shape(rows, 1100, 45, Dtype::f32, layout);
      check_shape(rows, 531, 17, Dtype::f32, layout + 16);
      check_shape(rows, 519, 41, Dtype::f64, layout + 32);
      check_shape(rows, 2048, 512, Dtype::f32, layout + 48);
    }
}

TEST_CASE("gemm computes the same chains when the rows of a are whole pages apart") {
  for (const int64_t rows : {1, 7, 13, 181, 400})
    for (const int64_t columns : {96, 97, 128, 200}) {
      check_shape(rows, columns, 1024, Dtype::f32, 16 * static_cast<unsigned>(rows));
      check_shape(rows, columns, 2048, Dtype::f32, 16 * static_cast<unsigned>(rows) + 4);
      check_shape(rows, columns, 512, Dtype::f64, 16 * static_cast<unsigned>(rows) + 8);
    }
}

TEST_CASE("gemm without rows, columns or depth writes what the definition says") {
  Array none = Array::empty({0, 4});
  cpu::gemm(none, Array::empty({0, 3}), Array::zeros({3, 4}), 1, 0);
  Array narrow = Array::empty({4, 0});
  cpu::gemm(narrow, Array::zeros({4, 3}), Array::empty({3, 0}), 1, 0);
  Array c = poisoned({2, 3}, Dtype::f32);
  cpu::gemm(c, Array::empty({2, 0}), Array::empty({0, 3}), 1, 0);
  CHECK(same_bits(c, Array::zeros({2, 3})));
  c.fill(5);
  cpu::gemm(c, Array::empty({2, 0}), Array::empty({0, 3}), 1, 1);
  CHECK(same_bits(c, Array::full({2, 3}, 5)));
}

TEST_CASE("gemm gives the same bits for any number of threads") {
  for (const int64_t rows : {13, 97, 300, 1000}) {
    const Array x = random_array({rows, 200}, Dtype::f32, 1);
    const Array w = random_array({330, 200}, Dtype::f32, 2);
    const Array dy = random_array({rows, 330}, Dtype::f32, 3);
    Array y1 = poisoned({rows, 330}, Dtype::f32), dw1 = Array::full({330, 200}, 0.5);
    {
      const Threads one(1);
      cpu::gemm(y1, x, w.transpose(), 1, 0);
      cpu::gemm(dw1, dy.transpose(), x, 1, 1);
    }
    for (const int n : {2, 3, 8}) {
      const Threads many(n);
      for (int repeat = 0; repeat < 5; ++repeat) {
        Array y = poisoned({rows, 330}, Dtype::f32), dw = Array::full({330, 200}, 0.5);
        cpu::gemm(y, x, w.transpose(), 1, 0);
        cpu::gemm(dw, dy.transpose(), x, 1, 1);
        CHECK(same_bits(y, y1));
        CHECK(same_bits(dw, dw1));
      }
    }
  }
}

TEST_CASE("gemm may be called by several threads at once") {
  const Array x = random_array({300, 192}, Dtype::f32, 1),
              w = random_array({192, 200}, Dtype::f32, 2);
  Array want = Array::empty({300, 200});
  cpu::gemm(want, x, w, 1, 0);
  std::vector<Array> got(8);
  for (Array& y : got) y = poisoned({300, 200}, Dtype::f32);
#pragma omp parallel for num_threads(3)
  for (int i = 0; i < 8; ++i) cpu::gemm(got[i], x, w, 1, 0);
  for (const Array& y : got) CHECK(same_bits(y, want));
}

TEST_CASE("a row of a product does not depend on the other rows of the batch") {
  const Array x = random_array({301, 770}, Dtype::f32, 1),
              w = random_array({97, 770}, Dtype::f32, 2);
  Array whole = Array::empty({301, 97});
  cpu::gemm(whole, x, w.transpose(), 1, 0);
  for (const int64_t begin : {0, 1, 12, 150, 300})
    for (const int64_t n : {1, 2, 13, 40}) {
      const int64_t end = std::min<int64_t>(301, begin + n);
      Array part = Array::empty({end - begin, 97});
      cpu::gemm(part, x.slice(0, begin, end), w.transpose(), 1, 0);
      CHECK(same_bits(part, whole.slice(0, begin, end)));
    }
}

TEST_CASE("adding a sum over rows in several calls gives the bits of one call") {
  const Array x = random_array({1000, 96}, Dtype::f32, 1),
              dy = random_array({1000, 50}, Dtype::f32, 2);
  Array once = Array::zeros({50, 96});
  cpu::gemm(once, dy.transpose(), x, 0.7, 1);
  for (const int64_t step : {1, 37, 500, 999}) {
    Array parts = Array::zeros({50, 96});
    for (int64_t i = 0; i < 1000; i += step) {
      const int64_t end = std::min<int64_t>(1000, i + step);
      cpu::gemm(parts, dy.slice(0, i, end).transpose(), x.slice(0, i, end), 0.7, 1);
    }
    CHECK(same_bits(parts, once));
  }
}

TEST_CASE("gemm agrees with OpenBLAS") {
  for (const auto& [m, n, k] : {std::array{300, 192, 768}, {1000, 8, 192}, {65, 257, 1029}}) {
    const Array a = random_array({m, k}, Dtype::f32, 1), b = random_array({n, k}, Dtype::f32, 2);
    Array ours = poisoned({m, n}, Dtype::f32), theirs = poisoned({m, n}, Dtype::f32);
    cpu::gemm(ours, a, b.transpose(), 1, 0);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, a.data<float>(), k,
                b.data<float>(), k, 0, theirs.data<float>(), n);
    check_close(ours, theirs, 1e-5);
  }
}

}  // namespace graft
