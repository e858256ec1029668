// Products with weights in half precision: the bits of widening the matrix first.
#include <doctest/doctest.h>
#include <omp.h>

#include <limits>
#include <random>

#include "tensor/kernels.h"

namespace graft {
namespace {

using std::int64_t;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Array random_array(Shape shape, Dtype dtype, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count(shape)));
  for (float& x : values) x = normal(bits);
  return Array::of(values, std::move(shape)).to(dtype);
}

// Four ways to lay out the same matrix; whatever lies between its numbers is NaN.
Array laid_out(const Array& x, unsigned how) {
  if (how % 4 == 0) return x;
  if (how % 4 == 1) return x.transpose().clone().transpose();
  const Shape shape = how % 4 == 2 ? Shape{x.dim(0), x.dim(1) + 5} : Shape{x.dim(1), x.dim(0) + 3};
  Array view = Array::full(shape, kNaN, x.dtype());
  view = how % 4 == 2 ? view.slice(1, 2, 2 + x.dim(1)) : view.slice(1, 1, 1 + x.dim(0)).transpose();
  view.copy_from(x);
  return view;
}

class Threads {
 public:
  explicit Threads(int n) : before_(omp_get_max_threads()) { omp_set_num_threads(n); }
  ~Threads() { omp_set_num_threads(before_); }

 private:
  int before_;
};

void check_shape(int64_t rows, int64_t columns, int64_t depth, unsigned seed) {
  CAPTURE(rows);
  CAPTURE(columns);
  CAPTURE(depth);
  CAPTURE(seed);
  const Dtype dtype = seed % 2 ? Dtype::f16 : Dtype::bf16;
  const Array a = laid_out(random_array({rows, depth}, Dtype::f32, seed), seed / 2);
  const Array b = laid_out(random_array({depth, columns}, dtype, seed + 1), seed / 8);
  const double alpha = seed % 3 ? 1 : 0.3, beta = seed % 5 == 0;
  const Array start = beta == 0 ? Array::full({rows, columns}, kNaN)
                                : random_array({rows, columns}, Dtype::f32, seed + 2);
  Array want = start.clone();
  cpu::gemm(want, a, b.to(Dtype::f32), alpha, beta);
  for (const int threads : {1, 2, 3}) {
    const Threads so_many(threads);
    Array got = start.clone();
    cpu::gemm(got, a, b, alpha, beta);
    CHECK(same_bits(got, want));
  }
}

}  // namespace

TEST_CASE("a product with half-precision weights has the bits of widening them first") {
  const int64_t rows[] = {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 24, 25, 120, 181};
  const int64_t columns[] = {1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 64, 65, 100, 130};
  const int64_t depths[] = {0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 100, 384, 385};
  std::mt19937 bits(17);
  for (int i = 0; i < 400; ++i)
    check_shape(rows[bits() % std::size(rows)], columns[bits() % std::size(columns)],
                depths[bits() % std::size(depths)], bits());
}

TEST_CASE("half-precision weights of several blocks, for any number of threads") {
  for (unsigned seed = 0; seed < 32; seed += 3) {
    check_shape(1, 2100, 1025, seed);
    check_shape(3, 1100, 2048, seed);
    check_shape(14, 33, 1024, seed);
    check_shape(40, 1030, 1030, seed);
  }
}

TEST_CASE("half-precision weights that a few rows read where they lie") {
  for (unsigned seed = 0; seed < 32; ++seed)
    for (const int64_t rows : {1, 2, 3, 4, 5}) {
      check_shape(rows, 1100, 45, seed);
      check_shape(rows, 531, 17, seed);
      check_shape(rows, 2048, 512, seed);
    }
}

TEST_CASE("every half is the same factor in a product as the f32 it widens to") {
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    std::vector<float> ones(4, 1.0f);
    Array halves = Array::empty({65536, 1}, dtype);
    for (std::uint32_t i = 0; i < 65536; ++i)
      reinterpret_cast<std::uint16_t*>(halves.storage()->data)[i] = static_cast<std::uint16_t>(i);
    for (const int64_t rows : {1, 4}) {
      const Array a = Array::of(std::vector<float>(ones.begin(), ones.begin() + rows), {rows, 1});
      Array got = Array::empty({rows, 65536}), want = got.clone();
      cpu::gemm(got, a, halves.transpose(), 1, 0);
      cpu::gemm(want, a, halves.to(Dtype::f32).transpose(), 1, 0);
      CHECK(same_bits(got, want));
      const Array along = halves.reshape({1, 65536});  // now packed along its columns
      cpu::gemm(got, a, along, 1, 0);
      CHECK(same_bits(got, want));
    }
  }
}

}  // namespace graft
