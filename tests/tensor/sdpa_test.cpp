#include <doctest/doctest.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "tensor/kernels.h"
#include "tensor/vmath.h"

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

int total(const std::vector<int>& length) {
  return std::accumulate(length.begin(), length.end(), 0);
}

struct Case {
  AttentionShape shape;
  int heads = 1, kv_heads = 1, width = 32;
  const std::vector<int>& keys() const {
    return shape.k_length.empty() ? shape.q_length : shape.k_length;
  }
};

struct Tensors {
  Array q, k, v, dy, y, lse, dq, dk, dv;
};

// q, k and v lie side by side in one array, as a fused projection leaves them, when they can.
Tensors tensors(const Case& c, Dtype dtype, unsigned seed) {
  const int queries = total(c.shape.q_length), keys = total(c.keys());
  const int wide = c.heads * c.width, narrow = c.kv_heads * c.width;
  Tensors t;
  if (queries == keys) {
    const Array fused = random_array({queries, wide + 2 * narrow}, dtype, seed);
    t.q = fused.slice(1, 0, wide);
    t.k = fused.slice(1, wide, wide + narrow);
    t.v = fused.slice(1, wide + narrow, wide + 2 * narrow);
  } else {
    t.q = random_array({queries, wide}, dtype, seed);
    t.k = random_array({keys, narrow}, dtype, seed + 1);
    t.v = random_array({keys, narrow}, dtype, seed + 2);
  }
  t.dy = random_array({queries, wide}, dtype, seed + 3);
  t.y = poisoned({queries, wide}, dtype);
  t.lse = poisoned({queries, c.heads}, dtype);
  t.dq = poisoned({queries, wide + 2}, dtype).slice(1, 1, 1 + wide);
  t.dk = poisoned({keys, narrow}, dtype);
  t.dv = poisoned({keys, narrow}, dtype);
  return t;
}

void run(const Case& c, Tensors& t, bool grad = true) {
  cpu::sdpa(t.y, t.lse, t.q, t.k, t.v, {}, c.heads, c.kv_heads, c.shape);
  Array none;
  if (grad)
    cpu::sdpa_grad(t.dq, t.dk, t.dv, none, t.q, t.k, t.v, {}, t.y, t.lse, t.dy, c.heads, c.kv_heads,
                   c.shape);
}

// The definition, one query at a time, in f64; also returns sum(y dy), whose gradient is dq, dk,
// dv.
struct Reference {
  std::vector<double> y, lse;
  double value = 0;
};

Reference by_definition(const Case& c, const Tensors& t) {
  const std::vector<double> q = t.q.to_vector(), k = t.k.to_vector(), v = t.v.to_vector(),
                            dy = t.dy.to_vector();
  const int wide = c.heads * c.width, narrow = c.kv_heads * c.width;
  Reference out{std::vector<double>(q.size()), std::vector<double>(t.lse.numel())};
  int first_query = 0, first_key = 0;
  for (std::size_t s = 0; s < c.keys().size(); ++s) {
    const int queries = c.shape.q_length[s], keys = c.keys()[s];
    for (int i = 0; i < queries; ++i)
      for (int h = 0; h < c.heads; ++h) {
        const int row = first_query + i, kv = h / (c.heads / c.kv_heads);
        const int seen = c.shape.causal ? std::clamp(keys - queries + i + 1, 0, keys) : keys;
        std::vector<double> p(seen);
        double sum = 0;
        for (int j = 0; j < seen; ++j) {
          double score = 0;
          for (int d = 0; d < c.width; ++d)
            score +=
                q[row * wide + h * c.width + d] * k[(first_key + j) * narrow + kv * c.width + d];
          sum += p[j] = std::exp(score * c.shape.scale);
        }
        out.lse[row * c.heads + h] = std::log(sum);
        for (int d = 0; d < c.width; ++d) {
          double& y = out.y[row * wide + h * c.width + d];
          for (int j = 0; j < seen; ++j)
            y += p[j] / sum * v[(first_key + j) * narrow + kv * c.width + d];
          out.value += y * dy[row * wide + h * c.width + d];
        }
      }
    first_query += queries;
    first_key += keys;
  }
  return out;
}

void check_close(const std::vector<double>& got, const std::vector<double>& want,
                 double tolerance) {
  REQUIRE(got.size() == want.size());
  double scale = 1e-3, error = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i]) continue;  // both may be -inf
    REQUIRE(std::isfinite(got[i]));
    scale = std::max(scale, std::abs(want[i]));
    error = std::max(error, std::abs(got[i] - want[i]));
  }
  CHECK(error <= tolerance * scale);
}

Case attention(bool causal, std::vector<int> queries, std::vector<int> keys, int heads,
               int kv_heads, int width) {
  Case c;
  c.shape = {causal, 1 / std::sqrt(width), std::move(queries), std::move(keys)};
  c.heads = heads;
  c.kv_heads = kv_heads;
  c.width = width;
  return c;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool causal : {false, true}) {
    all.push_back(attention(causal, {1}, {}, 1, 1, 1));
    all.push_back(attention(causal, {5, 1, 12, 13, 0, 33, 64}, {}, 3, 3, 32));
    all.push_back(attention(causal, {31, 32, 33, 24, 25}, {}, 4, 2, 64));
    all.push_back(attention(causal, {7, 20, 40}, {}, 6, 2, 5));
    all.push_back(attention(causal, {3, 17}, {}, 2, 1, 80));
    all.push_back(attention(causal, {4, 1, 30}, {9, 50, 31}, 2, 2, 16));
    all.push_back(attention(causal, {300}, {}, 2, 1, 8));
    all.push_back(attention(causal, {255, 257, 512}, {}, 1, 1, 32));
    all.push_back(attention(causal, {20, 3, 4}, {6, 0, 4}, 2, 2, 16));  // queries without keys
  }
  return all;
}

// Every sequence of a case alone, joined again.
bool same_alone(const Case& c, const Tensors& whole) {
  bool same = true;
  int query = 0, key = 0;
  for (std::size_t s = 0; s < c.keys().size(); ++s) {
    Case one = c;
    one.shape.q_length = {c.shape.q_length[s]};
    one.shape.k_length = {c.keys()[s]};
    const int last_query = query + c.shape.q_length[s], last_key = key + c.keys()[s];
    Tensors t;
    t.q = whole.q.slice(0, query, last_query);
    t.k = whole.k.slice(0, key, last_key);
    t.v = whole.v.slice(0, key, last_key);
    t.dy = whole.dy.slice(0, query, last_query);
    for (Array* x : {&t.y, &t.dq}) *x = poisoned(t.q.shape(), t.q.dtype());
    for (Array* x : {&t.dk, &t.dv}) *x = poisoned(t.k.shape(), t.q.dtype());
    t.lse = poisoned({last_query - query, c.heads}, t.q.dtype());
    run(one, t);
    same = same && same_bits(t.y, whole.y.slice(0, query, last_query)) &&
           same_bits(t.lse, whole.lse.slice(0, query, last_query)) &&
           same_bits(t.dq, whole.dq.slice(0, query, last_query)) &&
           same_bits(t.dk, whole.dk.slice(0, key, last_key)) &&
           same_bits(t.dv, whole.dv.slice(0, key, last_key));
    query = last_query;
    key = last_key;
  }
  return same;
}

// The distance in units in the last place of the exact value.
double ulps(float got, double want) {
  const float rounded = static_cast<float>(want);
  if (got == rounded || (std::isnan(got) && std::isnan(rounded))) return 0;
  const float size = std::abs(rounded);
  const double unit = static_cast<double>(std::nextafter(size, INFINITY)) - size;
  return std::abs(got - want) / unit;  // infinite when one of them is
}

double sum_of_products(const Array& a, const Array& b) {
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

}  // namespace

TEST_CASE("attention is the definition, whatever the lengths, heads and widths") {
  unsigned seed = 1;
  for (const Case& c : cases())
    for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
      CAPTURE(seed);
      Tensors t = tensors(c, dtype, ++seed);
      run(c, t, false);
      const Reference want = by_definition(c, t);
      check_close(t.y.to_vector(), want.y, dtype == Dtype::f32 ? 3e-6 : 1e-13);
      check_close(t.lse.to_vector(), want.lse, dtype == Dtype::f32 ? 2e-6 : 1e-13);
    }
}

TEST_CASE("the gradient of attention is the slope along random directions") {
  unsigned seed = 100;
  for (const Case& c : cases()) {
    CAPTURE(seed);
    Tensors t = tensors(c, Dtype::f64, ++seed);
    run(c, t);
    for (const auto& pair : {std::pair{&Tensors::q, &Tensors::dq},
                             {&Tensors::k, &Tensors::dk},
                             {&Tensors::v, &Tensors::dv}}) {
      const auto at = pair.first, grad = pair.second;
      const Array base = (t.*at).clone(), direction = random_array(base.shape(), Dtype::f64, seed);
      const double h = 1e-4;
      const auto value = [&](double step) {
        Tensors moved = t;
        moved.*at = base.clone();
        for (int64_t i = 0; i < base.numel(); ++i)
          (moved.*at).data<double>()[i] += step * direction.data<double>()[i];
        return by_definition(c, moved).value;
      };
      const double slope = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h);
      const double got = sum_of_products(t.*grad, direction);
      CHECK(std::abs(got - slope) <= 1e-8 * (1 + std::abs(slope)));
    }
  }
}

TEST_CASE("each element of the gradient of attention is right on a small case") {
  const Case c = attention(true, {3, 2}, {4, 2}, 4, 2, 3);
  Tensors t = tensors(c, Dtype::f64, 9);
  run(c, t);
  for (const auto& pair : {std::pair{&Tensors::q, &Tensors::dq},
                           {&Tensors::k, &Tensors::dk},
                           {&Tensors::v, &Tensors::dv}}) {
    const auto at = pair.first, grad = pair.second;
    const std::vector<double> got = (t.*grad).to_vector();
    for (std::size_t i = 0; i < got.size(); ++i) {
      const auto value = [&](double step) {
        Tensors moved = t;
        moved.*at = (t.*at).clone();
        (moved.*at).data<double>()[i] += step;
        return by_definition(c, moved).value;
      };
      CHECK(got[i] == doctest::Approx((value(1e-5) - value(-1e-5)) / 2e-5).epsilon(1e-7));
    }
  }
}

TEST_CASE("the f32 gradient of attention is close to the f64 gradient") {
  unsigned seed = 200;
  for (const Case& c : cases()) {
    Tensors t = tensors(c, Dtype::f32, ++seed), d = tensors(c, Dtype::f64, seed);
    for (Array Tensors::*at : {&Tensors::q, &Tensors::k, &Tensors::v, &Tensors::dy})
      d.*at = (t.*at).clone().to(Dtype::f64);
    run(c, t);
    run(c, d);
    for (Array Tensors::*at : {&Tensors::dq, &Tensors::dk, &Tensors::dv})
      check_close((t.*at).to_vector(), (d.*at).to_vector(), 1e-5);
  }
}

TEST_CASE("a sequence in a batch has the bits of the sequence alone") {
  unsigned seed = 300;
  for (const Case& c : cases()) {
    Tensors t = tensors(c, Dtype::f32, ++seed);
    run(c, t);
    CHECK(same_alone(c, t));
  }
}

TEST_CASE("a causal sequence computed query by query has the bits of the whole") {
  Case c = attention(true, {100}, {}, 4, 2, 32);
  Tensors t = tensors(c, Dtype::f32, 5);
  run(c, t, false);
  for (int i = 0; i < 100; ++i) {
    c.shape.q_length = {1};
    c.shape.k_length = {i + 1};
    Array y = poisoned({1, 128}, Dtype::f32), lse = poisoned({1, 4}, Dtype::f32);
    cpu::sdpa(y, lse, t.q.slice(0, i, i + 1), t.k.slice(0, 0, i + 1), t.v.slice(0, 0, i + 1), {}, 4,
              2, c.shape);
    CHECK(same_bits(y, t.y.slice(0, i, i + 1)));
    CHECK(same_bits(lse, t.lse.slice(0, i, i + 1)));
  }
}

TEST_CASE("attention gives the same bits for any number of threads") {
  const int before = omp_get_max_threads();
  for (const bool causal : {false, true})
    for (const Case& c : {attention(causal, {40, 64, 1, 90, 128, 16}, {}, 6, 2, 32),
                          attention(causal, {1100}, {}, 2, 1, 32)}) {
      Tensors one = tensors(c, Dtype::f32, 3);
      omp_set_num_threads(1);
      run(c, one);
      for (const int n : {2, 3}) {
        Tensors many = tensors(c, Dtype::f32, 3);
        omp_set_num_threads(n);
        run(c, many);
        for (Array Tensors::*at :
             {&Tensors::y, &Tensors::lse, &Tensors::dq, &Tensors::dk, &Tensors::dv})
          CHECK(same_bits(many.*at, one.*at));
      }
    }
  omp_set_num_threads(before);
}

TEST_CASE("attention survives scores of any size") {
  const Case c = attention(false, {20}, {}, 1, 1, 32);
  Tensors t = tensors(c, Dtype::f32, 3);
  const Array q = t.q.clone();
  t.q = Array::empty(q.shape());
  cpu::scale(t.q, q, 1e4);
  run(c, t);
  for (Array Tensors::*at : {&Tensors::y, &Tensors::lse, &Tensors::dq, &Tensors::dk, &Tensors::dv})
    for (const double x : (t.*at).to_vector()) CHECK(std::isfinite(x));
}

TEST_CASE("rotating turns each pair by its position, and the inverse turns it back") {
  const int heads = 3, half = 16;
  for (const int last : {20, 5000}) {  // positions below and above the number of rows
    std::vector<std::int32_t> position(50);
    for (int i = 0; i < 50; ++i) position[i] = (i * 7 + 3) % 20;
    position[10] = last;
    std::vector<double> frequency(half);
    for (int i = 0; i < half; ++i) frequency[i] = std::pow(10000.0, -i / double(half));
    const Array at = Array::of(position), f = Array::of(frequency);
    const Array x = random_array({50, heads * 2 * half}, Dtype::f64, 4);
    Array y = poisoned(x.shape(), Dtype::f64), back = poisoned(x.shape(), Dtype::f64);
    cpu::rotate(y, x, at, f, heads, false);
    cpu::rotate(back, y, at, f, heads, true);
    check_close(back.to_vector(), x.to_vector(), 1e-14);
    std::vector<double> want(x.numel());
    for (int r = 0; r < 50; ++r)
      for (int h = 0; h < heads; ++h)
        for (int i = 0; i < half; ++i) {
          const int a = (r * heads + h) * 2 * half + i, b = a + half;
          const double angle = position[r] * frequency[i];
          want[a] = x.at(a) * std::cos(angle) - x.at(b) * std::sin(angle);
          want[b] = x.at(b) * std::cos(angle) + x.at(a) * std::sin(angle);
        }
    check_close(y.to_vector(), want, 1e-14);
    const Array x32 = x.to(Dtype::f32);
    Array y32 = poisoned(x.shape(), Dtype::f32);
    cpu::rotate(y32, x32, at, f.to(Dtype::f32), heads, false);
    check_close(y32.to_vector(), want, 1e-3);
    cpu::rotate(y32, x32, at, f, heads, false);
    check_close(y32.to_vector(), want, 1e-6);
  }
}

TEST_CASE("exp, tanh and erf are exact to two units, with the same bits alone and in a vector") {
  std::vector<float> x = {0.0f,   -0.0f,  INFINITY, -INFINITY, NAN,     1e38f, -1e38f,
                          88.72f, 88.73f, -87.4f,   -103.9f,   -104.1f, 1e-40f};
  for (std::uint32_t bits = 0; x.size() < 100003; bits += 42949)
    x.push_back(std::bit_cast<float>(bits));
  std::vector<float> e(x.size()), t(x.size()), f(x.size());
#pragma omp simd
  for (std::size_t i = 0; i < x.size(); ++i) e[i] = vmath::exp(x[i]);
#pragma omp simd
  for (std::size_t i = 0; i < x.size(); ++i) t[i] = vmath::tanh(x[i]);
#pragma omp simd
  for (std::size_t i = 0; i < x.size(); ++i) f[i] = vmath::erf(x[i]);
  double worst[3] = {};
  bool same = true;
  for (std::size_t i = 0; i < x.size(); ++i) {
    worst[0] = std::max(worst[0], ulps(e[i], std::exp(double{x[i]})));
    worst[1] = std::max(worst[1], ulps(t[i], std::tanh(double{x[i]})));
    worst[2] = std::max(worst[2], ulps(f[i], std::erf(double{x[i]})));
    const volatile float alone = x[i];
    if (std::isnan(x[i])) continue;
    same = same && vmath::exp(float{alone}) == e[i] && vmath::tanh(float{alone}) == t[i] &&
           vmath::erf(float{alone}) == f[i];
  }
  for (const double w : worst) CHECK(w <= 2);
#if defined(__FMA__) || defined(__aarch64__)
  CHECK(same);
#endif
}

}  // namespace graft
