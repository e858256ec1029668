// What the table of kernel_cases.h does not reach: strides, extremes, errors, hand-worked steps.
#include <doctest/doctest.h>

#include <omp.h>

#include <limits>

#include "tests/tensor/kernel_cases.h"

using namespace graft;
using namespace graft::kernel_cases;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

Array filled(Shape shape, unsigned seed) {
  std::mt19937 bits(seed);
  return random(std::move(shape), Dtype::f32, bits);
}

// The broadcast of a to `shape`, as numbers.
Values broadcast_values(const Array& a, const Shape& shape) { return a.expand(shape).to_vector(); }

void check_binary(const Array& a, const Array& b) {
  const Shape shape = broadcast(a.shape(), b.shape(), "test");
  CAPTURE(fmt::format("{} with {}", a.shape(), b.shape()));
  Array y = Array::full(shape, NAN);
  kernels::binary(Binary::sub, y, a, b);
  const Values got = y.to_vector(), l = broadcast_values(a, shape), r = broadcast_values(b, shape);
  for (std::size_t i = 0; i < got.size(); ++i)
    REQUIRE(got[i] == static_cast<float>(l[i]) - static_cast<float>(r[i]));
}

Array value_of(Map map, const Values& points, Dtype dtype) {
  const Array x = Array::of(points).to(dtype);
  Array y = Array::empty(x.shape(), dtype);
  kernels::map(map, y, x);
  return y;
}

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("binary broadcasts every pattern of repeated dimensions") {
  const Shape whole{3, 4, 5};
  for (unsigned left = 0; left < 8; ++left)
    for (unsigned right = 0; right < 8; ++right) {
      Shape a = whole, b = whole;
      for (int d = 0; d < 3; ++d) {
        if (left >> d & 1) a[d] = 1;
        if (right >> d & 1) b[d] = 1;
      }
      check_binary(filled(a, 1), filled(b, 2));
    }
  check_binary(filled({}, 1), filled({2, 3}, 2));
  check_binary(filled({4, 3, 1, 2, 1, 2}, 1), filled({2, 1, 3, 1}, 2));
  check_binary(filled({0, 3}, 1), filled({3}, 2));
  check_binary(filled({}, 1), filled({}, 2));
}

TEST_CASE("binary reads and writes strided arrays, beyond one thread's share too") {
  for (std::int64_t n : {3, 70, 300}) {
    const Array a = filled({n, n + 1}, 1), b = filled({n + 1, n}, 2);
    check_binary(a.transpose(), b);
    check_binary(a, b.transpose());
    check_binary(a.slice(1, 1, n), b.slice(1, 1, 2).slice(0, 0, n));
    check_binary(filled({n, 2, 60}, 3).transpose(0, 1), filled({n, 1}, 4));
    Array y = Array::full({n, 2 * n}, -7);
    Array right = y.slice(1, n, 2 * n);
    kernels::binary(Binary::add, right, filled({n, n}, 5), filled({n}, 6));
    CHECK(y.at(0) == -7);
    CHECK(y.at(n - 1) == -7);
    CHECK(y.at(n) == right.at(0));
    CHECK(right.at(0) == filled({n, n}, 5).slice(0, 0, 1).clone().data<float>()[0] +
                             filled({n}, 6).data<float>()[0]);
  }
}

TEST_CASE("binary refuses more dimensions than it walks") {
  const Shape many(7, 2), thin{2, 1, 2, 1, 2, 1, 2};
  Array y = Array::empty(many);
  const Array a = Array::zeros(many), b = Array::zeros(thin);
  CHECK(has(error_of([&] { kernels::binary(Binary::add, y, a, b); }), "dimensions"));
  const Array c = Array::zeros(many);  // merges into one
  CHECK(error_of([&] { kernels::binary(Binary::add, y, a, c); }).empty());
}

TEST_CASE("kernels take an array as input and output where each element is its own") {
  const Input in = input(7, 33, Dtype::f32);
  Array want = in.matrix(), same = in.x.clone();
  kernels::map(Map::gelu, want, in.x);
  kernels::map(Map::gelu, same, same);
  CHECK(same_bits(want, same));
  kernels::binary(Binary::mul, want, in.x, in.gain);
  same = in.x.clone();
  kernels::binary(Binary::mul, same, same, in.gain);
  CHECK(same_bits(want, same));
  kernels::softmax(want, in.x);
  same = in.x.clone();
  kernels::softmax(same, same);
  CHECK(same_bits(want, same));
}

TEST_CASE("maps keep NaN and end where their functions end") {
  for (Dtype dtype : {Dtype::f32, Dtype::f64}) {
    for (Map map : {Map::gelu, Map::gelu_tanh, Map::relu, Map::silu, Map::tanh, Map::sigmoid,
                    Map::exp, Map::log, Map::square, Map::sqrt})
      CHECK(std::isnan(value_of(map, {kInf - kInf}, dtype).item()));
    CHECK(value_of(Map::exp, {-kInf, kInf, 0}, dtype).to_vector() == Values{0, kInf, 1});
    CHECK(value_of(Map::sigmoid, {-kInf, kInf, 0}, dtype).to_vector() == Values{0, 1, 0.5});
    CHECK(value_of(Map::tanh, {-kInf, kInf, 0}, dtype).to_vector() == Values{-1, 1, 0});
    CHECK(value_of(Map::relu, {-kInf, kInf, -2}, dtype).to_vector() == Values{0, kInf, 0});
    CHECK(value_of(Map::gelu, {-50, 50, 0}, dtype).to_vector() == Values{0, 50, 0});
    CHECK(value_of(Map::gelu_tanh, {-50, 50, 0}, dtype).to_vector() == Values{0, 50, 0});
    const Values silu = value_of(Map::silu, {-80, 200, 0}, dtype).to_vector();
    CHECK(std::abs(silu[0]) < 1e-30);
    CHECK(silu[1] == 200);
  }
}

TEST_CASE("softmax and cross_entropy survive large and forbidden logits") {
  const Array x =
      Array::of<float>({1000, 999, static_cast<float>(-kInf), -1000, -1001, -999}, {2, 3});
  Array y = Array::empty({2, 3}), loss = Array::empty({2});
  kernels::softmax(y, x);
  CHECK(y.at(0) == doctest::Approx(1 / (1 + std::exp(-1.0))));
  CHECK(y.at(2) == 0);
  CHECK(y.at(5) == doctest::Approx(1 / (1 + std::exp(-1.0) + std::exp(-2.0))));
  kernels::cross_entropy(loss, x, Array::of<std::int32_t>({1, -1}));
  CHECK(loss.at(0) == doctest::Approx(1 + std::log(1 + std::exp(-1.0))));
  CHECK(loss.at(1) == 0);
}

TEST_CASE("a row without a label gets no gradient, whatever its logits hold") {
  Array logits = Array::full({2, 40}, kInf - kInf);
  kernels::cross_entropy_grad(logits, logits, Array::full({2}, -1, Dtype::i32),
                              Array::full({2}, 1));
  CHECK(logits.to_vector() == Values(80, 0));
}

TEST_CASE("a label or an index outside the table is named") {
  const Array table = Array::zeros({4, 3});
  Array y = Array::zeros({2, 3}), loss = Array::zeros({2});
  const Array bad = Array::of<std::int32_t>({1, 4}), worse = Array::of<std::int32_t>({-2, 0});
  CHECK(has(error_of([&] { kernels::gather(y, table, bad); }),
            "gather: index 4 (number 1) in a table of 4 rows"));
  Array sum = table.clone();
  CHECK(has(error_of([&] { kernels::scatter_add(sum, y, worse); }),
            "scatter_add: index -2 (number 0) in a table of 4 rows"));
  CHECK(sum.to_vector() == Values(12, 0));
  CHECK(has(error_of([&] {
              kernels::cross_entropy(loss, y, Array::of<std::int32_t>({0, 3}));
            }),
            "label 3 (number 1) of 3 classes"));
  CHECK(has(error_of([&] {
              kernels::segment_mean(y, table, {1, 2});
            }),
            "the lengths add up to 3; there are 4 rows"));
}

TEST_CASE("all_finite finds one bad element anywhere") {
  for (std::int64_t n : {1, 15, 16, 33, 100, 20000})
    for (Dtype dtype : {Dtype::f32, Dtype::f64}) {
      const Array good = Array::full({n}, 3e38, dtype);
      CHECK(kernels::all_finite(good));
      for (std::int64_t at : {std::int64_t{0}, n / 2, n - 1})
        for (double value : {kInf, -kInf, kInf - kInf}) {
          Array bad = good.clone();
          bad.slice(0, at, at + 1).fill(value);
          CHECK(!kernels::all_finite(bad));
        }
    }
  CHECK(kernels::all_finite(Array::zeros({0})));
}

TEST_CASE("sum_all runs in order in f64") {
  const Array x = Array::of<float>({1e30f, 1, -1e30f, 0.25f});
  Array y = Array::full({1}, NAN);
  kernels::sum_all(y, x);
  CHECK(y.item() == 0.25);
}

TEST_CASE("a large mean does not spoil the variance of layer_norm") {
  const Array x = Array::of<float>({10000, 10001, 10002, 10003}, {1, 4});
  Array y = Array::empty({1, 4});
  kernels::layer_norm(y, x, {}, {}, 0);
  CHECK(y.at(0) == doctest::Approx(-1.5 / std::sqrt(1.25)).epsilon(1e-5));
}

TEST_CASE("dropout keeps everything at zero, nothing at one, and its share between") {
  const Input in = input(200, 100, Dtype::f32);
  const Stream stream{{3, 1}, stream_id("test")};
  Array y = in.matrix();
  kernels::dropout(y, in.x, 0, stream, in.example, in.position);
  CHECK(same_bits(y, in.x));
  kernels::dropout(y, in.x, 1, stream, in.example, in.position);
  CHECK(y.to_vector() == Values(20000, 0));
  const Array ones = Array::full({200, 100}, 1);
  Array example = Array::empty({200}, Dtype::i32);
  for (int r = 0; r < 200; ++r) example.data<std::int32_t>()[r] = r;
  kernels::dropout(y, ones, 0.25, stream, example, in.position);
  int kept = 0;
  for (double v : y.to_vector()) kept += v != 0;
  CHECK(std::abs(kept - 15000) < 5 * std::sqrt(20000 * 0.25 * 0.75));
}

TEST_CASE("the dropout mask of a token does not move with the width of its row") {
  const Input in = input(3, 130, Dtype::f32);
  Array wide = in.matrix(), narrow = Array::empty({3, 61});
  const Stream stream{{3, 1}, 7};
  kernels::dropout(wide, in.x, 0.5, stream, in.example, in.position);
  kernels::dropout(narrow, in.x.slice(1, 0, 61).clone(), 0.5, stream, in.example, in.position);
  CHECK(same_bits(narrow, wide.slice(1, 0, 61)));
}

TEST_CASE("a step over many tensors is that over each, bit for bit, for any number of threads") {
  // Threads begin within tensors and, the second of two and the fifth of eight, at the empty one.
  const std::vector<std::int64_t> sizes{0, 64, 0, 4096, 1, 63, 17984, 0, 128, 22016, 5, 0};
  const int before = omp_get_max_threads();
  for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
    const auto tensors = [&] {
      std::vector<AdamWTensor> all;
      std::uint32_t seed = 0;
      for (const std::int64_t n : sizes) {
        const auto some = [&] {
          std::vector<double> v(static_cast<std::size_t>(n));
          ++seed;
          for (std::size_t i = 0; i < v.size(); ++i) v[i] = normal({23, 0}, seed, i);
          return Array::of(v).to(dtype);
        };
        AdamWTensor x{some(), some(), some(), some(), 0.01 * seed, 0.001 * seed};
        kernels::binary(Binary::mul, x.v, x.v, x.v);  // squares are not negative
        all.push_back(x);
      }
      return all;
    };
    const AdamW how{0.9, 0.999, 1e-8, 3, 40};
    std::vector<AdamWTensor> together = tensors(), alone = tensors();
    std::vector<Array> grads;
    for (const AdamWTensor& x : together) grads.push_back(x.grad);
    omp_set_num_threads(1);
    std::vector<double> squares;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      squares.push_back(kernels::sum_squares({grads[i]}).item());
    CHECK(std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0)) > how.clip);
    const Array sums = Array::of(squares);
    for (std::size_t i = 0; i < sizes.size(); ++i) kernels::adamw({alone[i]}, how, sums);
    CHECK(squares[2] == 0);
    CHECK(!same_bits(alone[3].w, together[3].w));
    for (const int threads : {1, 2, 3, 8}) {
      CAPTURE(threads);
      omp_set_num_threads(threads);
      together = tensors();
      CHECK(kernels::sum_squares(grads).to_vector() == squares);
      kernels::adamw(together, how, sums);
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        CAPTURE(i);
        CHECK(same_bits(together[i].w, alone[i].w));
        CHECK(same_bits(together[i].m, alone[i].m));
        CHECK(same_bits(together[i].v, alone[i].v));
      }
    }
    omp_set_num_threads(before);
  }
  CHECK(kernels::sum_squares({}).numel() == 0);
  kernels::adamw({}, {0.9, 0.999, 1e-8, 1}, {});
  const auto of = [](Dtype dtype) {
    const Array x = Array::full({2}, 1, dtype);
    return AdamWTensor{x.clone(), x.clone(), x.clone(), x, 0.1, 0};
  };
  const std::vector<AdamWTensor> mixed{of(Dtype::f32), of(Dtype::f64)};
  CHECK_THROWS_WITH_AS(kernels::adamw(mixed, {0.9, 0.999, 1e-8, 1}, {}),
                       doctest::Contains("tensor 1 is f64, the first f32"), Error);
  CHECK(mixed[0].w.at(0) == 1);
  CHECK_THROWS_WITH_AS(kernels::sum_squares({mixed[0].w, mixed[1].w}),
                       doctest::Contains("array 1 is f64, the first f32"), Error);
}

TEST_CASE("adamw clips by the norm it is told, and moves nothing where that is not finite") {
  const Array grad = Array::of(std::vector<double>{3, 4}), norm = kernels::sum_squares({grad});
  const auto moved = [&](double clip, const Array& squares) {
    AdamWTensor x{Array::full({2}, 1, Dtype::f64),
                  Array::zeros({2}, Dtype::f64),
                  Array::zeros({2}, Dtype::f64),
                  grad,
                  0.1,
                  0};
    kernels::adamw({x}, {0.9, 0.999, 1e-8, 1, clip}, squares);
    return x;
  };
  // The mean is a tenth of the gradient: of 5, of 5 clipped to 2.5, and of 5 that 7 leaves alone.
  for (const auto& [clip, mean] : {std::pair{0.0, 0.3}, {2.5, 0.15}, {7.0, 0.3}})
    CHECK(moved(clip, norm).m.at(0) == doctest::Approx(mean).epsilon(1e-12));
  CHECK(moved(2.5, {}).m.at(0) == doctest::Approx(0.3).epsilon(1e-12));
  for (const double bad : {double(INFINITY), double(NAN)}) {
    const AdamWTensor x = moved(2.5, Array::of(std::vector<double>{1, bad}));
    CHECK(x.w.to_vector() == std::vector<double>{1, 1});
    CHECK(x.m.to_vector() == std::vector<double>{0, 0});
    CHECK(x.v.to_vector() == std::vector<double>{0, 0});
  }
}

TEST_CASE("adamw takes the steps worked out by hand") {
  for (std::int64_t n : {1, 17, 20000})
    for (Dtype dtype : {Dtype::f32, Dtype::f64}) {
      Array w = Array::full({n}, 1, dtype), m = Array::zeros({n}, dtype), v = m.clone();
      const auto step = [&](double grad, int number) {
        kernels::adamw({{.w = w,
                         .m = m,
                         .v = v,
                         .grad = Array::full({n}, grad, dtype),
                         .lr = 0.1,
                         .decay = 0.01}},
                       {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = number}, {});
      };
      const double tight = dtype == Dtype::f32 ? 3e-7 : 1e-12;
      // m = 0.05, v = 0.00025; without bias 0.5 and 0.25: w = 1 - 0.001 - 0.1 0.5 / (0.5 + eps).
      step(0.5, 1);
      CHECK(m.at(n - 1) == doctest::Approx(0.05).epsilon(tight));
      CHECK(v.at(n - 1) == doctest::Approx(0.00025).epsilon(tight));
      CHECK(w.at(n - 1) == doctest::Approx(0.999 - 0.05 / (0.5 + 1e-8)).epsilon(tight));
      // m = 0.045 - 0.025 = 0.02, v = 0.00024975 + 0.0000625 = 0.00031225.
      const double first = 0.999 - 0.05 / (0.5 + 1e-8);
      step(-0.25, 2);
      CHECK(m.at(n - 1) == doctest::Approx(0.02).epsilon(3 * tight));
      CHECK(v.at(n - 1) == doctest::Approx(0.00031225).epsilon(tight));
      const double mean = 0.02 / (1 - 0.81), square = 0.00031225 / (1 - 0.998001);
      CHECK(
          w.at(n - 1) ==
          doctest::Approx(first * 0.999 - 0.1 * mean / (std::sqrt(square) + 1e-8)).epsilon(tight));
      CHECK(w.at(0) == w.at(n - 1));
    }
}

TEST_CASE("sgd takes the steps worked out by hand") {
  Array w = Array::full({19}, 2), v = Array::zeros({19});
  const Array grad = Array::full({19}, 0.5);
  kernels::sgd(w, v, grad, 0.5, 0.5, 0.25);
  CHECK(v.at(18) == 1);    // 0.5 + 0.25 2
  CHECK(w.at(18) == 1.5);  // 2 - 0.5 1
  kernels::sgd(w, v, grad, 0.5, 0.5, 0.25);
  CHECK(v.at(18) == 1.375);   // 0.5 1 + 0.5 + 0.25 1.5
  CHECK(w.at(18) == 0.8125);  // 1.5 - 0.5 1.375
}

TEST_CASE("kernels accept arrays without rows") {
  const Input in{0,
                 5,
                 Dtype::f32,
                 Array::zeros({0, 5}),
                 Array::zeros({0, 5}),
                 Array::zeros({0, 5}),
                 Array::zeros({5}),
                 Array::zeros({5}),
                 Array::zeros({0, 1}),
                 Array::zeros({0}, Dtype::i32),
                 Array::zeros({0}, Dtype::i32),
                 Array::zeros({0}, Dtype::i32)};
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    CHECK_NOTHROW(c.run(in));
  }
}
