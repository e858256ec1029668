// Fastfood: the transform at its definition, the transpose, and what the draws promise.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>

#include "tensor/kernels.h"
#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"
#include "tests/tensor/fastfood_naive.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr Key kKey{5, 0};

std::vector<double> numbers(std::int64_t n, std::uint32_t stream) {
  std::vector<double> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = normal({8, 0}, stream, i);
  return x;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

// P x and P^T y.
std::vector<double> forward(const Fastfood& p, const std::vector<double>& x) {
  Array y = Array::full({p.out}, NAN, Dtype::f64);
  kernels::fastfood(y, Array::of(x), p);
  return y.to_vector();
}
std::vector<double> transposed(const Fastfood& p, const std::vector<double>& y) {
  Array dx = Array::zeros({p.in}, Dtype::f64);
  kernels::fastfood_adjoint(dx, Array::of(y), p);
  return dx.to_vector();
}

}  // namespace

TEST_CASE("the transform is the Walsh-Hadamard matrix, entry by entry") {
  for (std::int64_t n = 1; n <= 512; n *= 2) {
    const std::vector<double> x = numbers(3 * n, 1);
    std::vector<double> want(x.size());
    for (std::int64_t r = 0; r < 3; ++r)
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < n; ++j)
          want[r * n + i] +=
              (std::popcount(std::uint64_t(i & j)) % 2 ? -1 : 1) * x[r * n + j];  // Sylvester's
    Array y = Array::of(x, {3, n});
    kernels::hadamard(y);
    CHECK(largest_difference(y.to_vector(), want) < 1e-11);
  }
}

TEST_CASE("at every size the transform is the plain one; twice, it is n times what was there") {
  for (std::int64_t n = 1; n <= std::int64_t{1} << 21; n *= 2) {
    CAPTURE(n);
    const std::vector<double> x = numbers(n, 2);
    std::vector<double> want = x;
    plain_hadamard(want);
    Array y = Array::of(x);
    kernels::hadamard(y);
    CHECK(largest_difference(y.to_vector(), want) < 1e-9);
    kernels::hadamard(y);
    kernels::scale(y, y, 1 / double(n));
    CHECK(largest_difference(y.to_vector(), x) < 1e-9);
    Array once = Array::of(x).to(Dtype::f32), again = once.clone();
    kernels::hadamard(once);
    const Threads three(3);
    kernels::hadamard(again);
    CHECK(same_bits(once, again));
  }
}

TEST_CASE("<P x, y> is <x, P^T y>, and both are what is written") {
  struct Size {
    std::int64_t in, out;
  };
  for (const Size& size : std::vector<Size>{{1, 1},
                                            {1, 9},
                                            {3, 2},
                                            {7, 8},
                                            {40, 12},
                                            {100, 36864},
                                            {5000, 192},
                                            {4096, 4097},
                                            {4097, 65536},
                                            {20000, 147456},
                                            {300, 1573000}}) {
    const auto [in, out] = size;
    CAPTURE(size.in);
    CAPTURE(size.out);
    const Fastfood p = draw_fastfood(in, out, 1, kKey, 3);
    const std::vector<double> x = numbers(in, 4), y = numbers(out, 5);
    const std::vector<double> px = forward(p, x);
    CHECK(largest_difference(px, plain_fastfood(x, p)) < 1e-9);
    const double a = dot(px, y), b = dot(x, transposed(p, y));
    CHECK(std::abs(a - b) <= 1e-11 * std::sqrt(dot(px, px) * dot(y, y)));
  }
}

TEST_CASE("the projection keeps lengths, times `norm`") {
  for (const std::int64_t in : {10, 1000, 5000}) {
    const std::vector<double> x = numbers(in, 6);
    for (const double norm : {1.0, 0.25}) {
      double sum = 0;
      for (std::uint32_t stream = 0; stream < 8; ++stream) {
        const std::vector<double> y = forward(draw_fastfood(in, 37000, norm, kKey, stream), x);
        sum += dot(y, y) / dot(x, x) / 8;
      }
      // A sum of 37,000 squares, most of them nearly independent: 0.7 % each, 0.26 % of eight.
      CHECK(std::abs(sum / (norm * norm) - 1) < 0.02);
    }
  }
}

TEST_CASE("a projection's draws are what they are called, and its own") {
  const Fastfood p = draw_fastfood(1000, 40000, 1, kKey, 9);
  CHECK(p.inner == 1024);
  CHECK(p.length == 65536);
  std::vector<int> times(1024);
  for (double place : p.place.to_vector()) ++times[static_cast<std::size_t>(place)];
  for (int n : times) CHECK(n == 64);  // of a permutation mod 1024
  int falls = 0;
  const std::vector<double> place = p.place.to_vector();
  for (std::size_t i = 1; i < place.size(); ++i) falls += place[i] < place[i - 1];
  CHECK(std::abs(falls - 32736) < 600);  // half of all pairs; in order it would be 63
  double mean = 0, square = 0, sign = 0;
  for (double g : p.gaussian.to_vector()) mean += g / 65536, square += g * g / 65536;
  for (double s : p.sign.to_vector()) {
    CHECK(std::abs(s) == 1);
    sign += s;
  }
  CHECK(std::abs(mean) < 0.02);
  CHECK(std::abs(square - 1) < 0.03);
  CHECK(std::abs(sign) < 130);
  const Fastfood again = draw_fastfood(1000, 40000, 1, kKey, 9),
                 other = draw_fastfood(1000, 40000, 1, kKey, 10);
  CHECK(same_bits(p.place, again.place));
  CHECK(same_bits(p.gaussian, again.gaussian));
  CHECK(same_bits(p.sign, again.sign));
  CHECK_FALSE(same_bits(p.place, other.place));
  CHECK_FALSE(same_bits(p.gaussian, other.gaussian));
  CHECK_FALSE(same_bits(p.sign, other.sign));
  contains(error_of([] { draw_fastfood(0, 3, 1, kKey, 0); }), "from 0 numbers to 3");
}
