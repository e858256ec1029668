// The promises at the top of kernels.inc, put to every kernel of the table in kernel_cases.h.
#include "tests/tensor/kernel_cases.h"

#include <doctest/doctest.h>
#include <omp.h>

#include "tensor/vmath.h"

using namespace graft;
using namespace graft::kernel_cases;

namespace {

// Both sides of a vector, of the 32 lanes, of eight rows, and of what is worth a second thread.
const std::vector<Shape> kShapes{
    {1, 1},    {1, 2},    {2, 3},    {3, 7},     {7, 8},     {8, 9},     {9, 15},   {15, 16},
    {16, 17},  {17, 31},  {5, 32},   {6, 33},    {3, 63},    {4, 64},    {5, 65},   {11, 100},
    {64, 64},  {65, 64},  {85, 48},  {86, 48},   {16, 1024}, {17, 1024}, {2, 4097}, {1, 16385},
    {300, 70}, {25, 192}, {5000, 5}, {43, 4096}, {30, 257}};

void check_near(const Array& got, const Values& want, double tolerance) {
  const Values values = got.to_vector();
  REQUIRE(values.size() == want.size());
  double most = 1, worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(values[i])) worst = INFINITY;
    most = std::max(most, std::abs(want[i]));
    worst = std::max(worst, std::abs(values[i] - want[i]));
  }
  CHECK(worst <= tolerance * most);
}

std::string where(const Case& c, const Shape& s) {
  return fmt::format("{} of [{}, {}]", c.name, s[0], s[1]);
}

// Row r alone, as an input of its own.
Input one_row(const Input& in, std::int64_t r) {
  const auto row = [r](const Array& a) { return a.slice(0, r, r + 1).clone(); };
  return {1,       in.columns, in.dtype,       row(in.x),     row(in.y),       row(in.z),
          in.gain, in.bias,    row(in.column), row(in.label), row(in.example), row(in.position)};
}

}  // namespace

TEST_CASE("every kernel agrees with a naive loop in f64, into poisoned outputs") {
  for (const Case& c : cases())
    for (const Shape& s : kShapes)
      for (Dtype dtype : {Dtype::f64, Dtype::f32}) {
        if (!c.naive) continue;
        const std::string at = where(c, s);
        CAPTURE(at);
        const Input in = input(s[0], s[1], dtype);
        const Arrays got = c.run(in);
        const std::vector<Values> want = c.naive(in);
        for (std::size_t i = 0; i < want.size(); ++i)
          check_near(got[i], want[i], dtype == Dtype::f32 ? 5e-6 : 1e-12);
      }
}

TEST_CASE("every kernel, gradients too, gives in f32 what it gives in f64") {
  for (const Case& c : cases())
    for (const Shape& s : kShapes) {
      const std::string at = where(c, s);
      CAPTURE(at);
      const Arrays small = c.run(input(s[0], s[1], Dtype::f32));
      const Arrays large = c.run(input(s[0], s[1], Dtype::f64));
      for (std::size_t i = 0; i < small.size(); ++i)
        check_near(small[i], large[i].to_vector(), 1e-5);
    }
}

TEST_CASE("every kernel gives the same bits for any thread count") {
  const int before = omp_get_max_threads();
  for (const Case& c : cases())
    for (const Shape& s : kShapes) {
      const std::string at = where(c, s);
      CAPTURE(at);
      const Input in = input(s[0], s[1], Dtype::f32);
      omp_set_num_threads(1);
      const Arrays one = c.run(in);
      for (int threads : {2, 3}) {
        omp_set_num_threads(threads);
        const Arrays many = c.run(in);
        for (std::size_t i = 0; i < one.size(); ++i) CHECK(same_bits(one[i], many[i]));
      }
    }
  omp_set_num_threads(before);
}

TEST_CASE("a row alone has the bits of the same row in a batch") {
  for (const Case& c : cases())
    for (const Shape& s : kShapes) {
      if (!c.by_row) continue;
      const std::string at = where(c, s);
      CAPTURE(at);
      const Input in = input(s[0], s[1], Dtype::f32);
      const Arrays batch = c.run(in);
      const std::int64_t step = std::max<std::int64_t>(1, s[0] / 16);
      for (std::int64_t r = 0; r < s[0]; r += step) {
        const Arrays alone = c.run(one_row(in, r));
        for (std::size_t i = 0; i < batch.size(); ++i)
          CHECK(same_bits(alone[i], batch[i].slice(0, r, r + 1)));
      }
    }
}

TEST_CASE("adding rows in two calls gives the bits of one") {
  for (const Shape& s : kShapes) {
    const Input in = input(s[0], s[1], Dtype::f32);
    const auto sums = [&](const std::vector<std::int64_t>& cuts) {
      Arrays sum{in.gain.clone(), in.bias.clone(), in.gain.clone(),
                 in.bias.clone(), in.bias.clone(), in.y.clone()};
      for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        const Array x = in.x.slice(0, cuts[i], cuts[i + 1]);
        const Array y = in.y.slice(0, cuts[i], cuts[i + 1]);
        Array index = in.example.slice(0, cuts[i], cuts[i + 1]).clone(), no;
        kernels::add_rows(sum[0], x);
        kernels::add_rows_of_product(sum[1], x, y);
        kernels::layer_norm_grad(no, sum[2], sum[3], x, in.gain, y, kEps);
        kernels::rms_norm_grad(no, sum[4], x, in.gain, y, kEps);
        for (std::int64_t r = 0; r < index.numel(); ++r)
          index.data<std::int32_t>()[r] %= static_cast<std::int32_t>(s[0]);
        kernels::scatter_add(sum[5], x, index);
      }
      return sum;
    };
    const Arrays once = sums({0, s[0]}), twice = sums({0, s[0] / 3, s[0]});
    for (std::size_t i = 0; i < once.size(); ++i) {
      CAPTURE(i);
      CHECK(same_bits(once[i], twice[i]));
    }
  }
}

TEST_CASE("a sum over rows is the plain loop in row order, to the bit") {
  for (const Shape& s : kShapes) {
    const Input in = input(s[0], s[1], Dtype::f32);
    Array sum = in.gain.clone(), product = in.bias.clone();
    kernels::add_rows(sum, in.x);
    kernels::add_rows_of_product(product, in.x, in.y);
    Array want = in.gain.clone(), wanted = in.bias.clone();
    const float *x = in.x.data<float>(), *y = in.y.data<float>();
    for (std::int64_t i = 0; i < in.x.numel(); ++i) {
      want.data<float>()[i % s[1]] += x[i];
      float& chain = wanted.data<float>()[i % s[1]];
      chain = vmath::fma(x[i], y[i], chain);
    }
    CHECK(same_bits(sum, want));
    CHECK(same_bits(product, wanted));
  }
}
