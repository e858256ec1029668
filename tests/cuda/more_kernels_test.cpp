// The kernels of the device that the table of kernels does not have: products, attention, rotation,
// optimizers, copies.
#include <array>
#include <numeric>
#include <random>

#include "tests/cuda/device_cases.h"

using namespace graft;
using graft::testing::apart;
using graft::testing::device_is_there;

namespace {

using std::int64_t;

Array random(Shape shape, Dtype dtype, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<double> normal;
  Array x = Array::empty(std::move(shape), dtype);
  dispatch(x, [&]<class T>(T) {
    for (int64_t i = 0; i < x.numel(); ++i) x.data<T>()[i] = static_cast<T>(normal(bits));
  });
  return x;
}
Array poisoned(Shape shape, ArrayKind kind) { return Array::full(std::move(shape), NAN, kind); }
Array ints(int64_t n, int from, int step, int below) {
  std::vector<std::int32_t> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(static_cast<std::int32_t>((from + i * step) % below));
  return Array::of(x);
}
double limit(Dtype dtype) { return dtype == Dtype::f64 ? 1e-12 : 1e-5; }

// A view of the numbers with that layout: as they lie, turned over, a part of wider rows.
using Layout = Array (*)(const Array&);
const Layout kLayouts[] = {[](const Array& x) { return x; },
                           [](const Array& x) {
                             Array turned = Array::empty({x.dim(1), x.dim(0)}, x.kind());
                             Array view = turned.transpose();
                             view.copy_from(x);
                             return view;
                           },
                           [](const Array& x) {
                             Array wide = Array::full({x.dim(0), x.dim(1) + 3}, NAN, x.kind());
                             Array part = wide.slice(1, 2, 2 + x.dim(1));
                             part.copy_from(x);
                             return part;
                           }};

}  // namespace

TEST_CASE("copies to the device, on it and back keep every bit, in any layout and type") {
  if (!device_is_there()) return;
  for (const Layout from : kLayouts)
    for (const Layout to : kLayouts)
      for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
        const Array x = random({7, 5}, dtype, 3);
        const Array there = from(x).to(Device::cuda);
        CHECK(there.device() == Device::cuda);
        CHECK(same_bits(there.to(Device::cpu), x));
        Array other = to(Array::zeros({7, 5}, {dtype, Device::cuda}));
        other.copy_from(from(there));
        CHECK(same_bits(other, x));
        Array home = to(Array::zeros({7, 5}, dtype));
        home.copy_from(other);
        CHECK(same_bits(home, x));
        CHECK(there.hash() == x.hash());
        CHECK(there.at(11) == x.at(11));
      }
  const Array x = random({300, 7}, Dtype::f32, 4);
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16, Dtype::f64})
    CHECK(same_bits(x.to(Device::cuda).to(dtype).to(Device::cpu), x.to(dtype)));
  CHECK(Array::full({3, 2}, 1.5, {Dtype::bf16, Device::cuda}).at(5) == 1.5);
  CHECK(Array::zeros({4}, {Dtype::i32, Device::cuda}).at(3) == 0);
}

TEST_CASE("memory of the device is counted, given back and handed out again") {
  if (!device_is_there()) return;
  const std::size_t before = pool::live_bytes(Device::cuda), host = pool::live_bytes();
  {
    const Array x = Array::empty({1000}, {Dtype::f32, Device::cuda});
    CHECK(pool::live_bytes(Device::cuda) == before + 4000);
    CHECK(pool::live_bytes() == host);
    const Array on_host = Array::zeros({1}, Dtype::f32);
    CHECK_THROWS_WITH((void)x.data<float>(),
                      "array: [1000] lies on cuda, read on cpu; copy it with to()");
    CHECK_THROWS_WITH((void)on_host.device_data<float>(),
                      "array: [1] lies on cpu, read on cuda; copy it with to()");
  }
  CHECK(pool::live_bytes(Device::cuda) == before);
}

TEST_CASE("products of the device are the host's, in every layout") {
  if (!device_is_there()) return;
  unsigned seed = 0;
  const std::array<int64_t, 3> shapes[] = {{1, 1, 1}, {3, 5, 7},    {1, 9, 4}, {9, 1, 4},
                                           {4, 6, 1}, {33, 20, 65}, {2, 3, 0}, {0, 3, 2}};
  for (const auto& [m, n, k] : shapes)
    for (const Layout left : kLayouts)
      for (const Layout right : kLayouts)
        for (const double beta : {0.0, 1.0})
          for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
            const Array a = left(random({m, k}, dtype, ++seed)),
                        b = right(random({k, n}, dtype, seed + 1)), c = random({m, n}, dtype, 5);
            Array want = beta == 0 ? poisoned({m, n}, dtype) : c.clone();
            Array got = want.to(Device::cuda).clone();
            kernels::gemm(want, a, b, 0.75, beta);
            kernels::gemm(got, left(a.to(Device::cuda)), right(b.to(Device::cuda)), 0.75, beta);
            CHECK(apart(got, want) < limit(dtype));
          }
  for (const Dtype half : {Dtype::f16, Dtype::bf16}) {
    const Array a = random({6, 10}, Dtype::f32, 1), b = random({10, 4}, Dtype::f32, 2).to(half),
                row = random({4}, Dtype::f32, 3);
    Array want = poisoned({6, 4}, Dtype::f32), got = want.to(Device::cuda);
    kernels::gemm_from_row(want, a, b, row);
    kernels::gemm_from_row(got, a.to(Device::cuda), b.to(Device::cuda), row.to(Device::cuda));
    CHECK(apart(got, want) < 1e-5);
  }
}

namespace {

struct Attention {
  const char* name;
  AttentionShape shape;
  int heads = 2, kv_heads = 2, width = 16;
  int bias_rows = 0, places = 0;  // of biases; 0: there are none
};

std::vector<Attention> attentions() {
  std::vector<Attention> all;
  const auto add = [&](const char* name, AttentionShape s, auto&&... more) {
    s.scale = 0.3;
    all.push_back({name, std::move(s), more...});
  };
  add("plain", {.q_length = {5, 33, 1, 64}});
  add("causal", {.causal = true, .q_length = {40, 1, 70}});
  add("grouped", {.causal = true, .q_length = {9, 37}}, 4, 2, 8);
  add("wide", {.q_length = {35}}, 1, 1, 80);
  add("as wide as half of what a thread keeps", {.causal = true, .q_length = {33, 2}}, 1, 1, 128);
  add("wider", {.causal = true, .q_length = {2, 33}}, 1, 1, 200);
  add("more keys", {.causal = true, .q_length = {3, 1, 40}, .k_length = {50, 1, 45}});
  add("fewer keys", {.causal = true, .q_length = {40}, .k_length = {7}});
  add("shared keys", {.q_length = {4, 6}, .k_length = {9, 9}, .k_start = {0, 0}});
  add("bias", {.causal = true, .q_length = {12, 40}, .bias_zero = 60}, 2, 2, 16, 2, 121);
  add("own biases", {.q_length = {12, 40}, .bias_zero = 60}, 2, 1, 16, 4, 121);
  add("unbiased", {.q_length = {5, 7}, .k_length = {9, 11}, .unbiased = 4, .bias_zero = 30}, 2, 2,
      16, 2, 61);
  for (const int unbiased : {0, 3}) {
    AttentionShape s{.causal = true, .q_length = {6, 45}, .k_length = {9, 48}};
    s.unbiased = unbiased, s.bias_zero = 60;
    s.dropout = 0.4, s.stream = {{3, 5}, 77};
    s.example = ints(51, 4, 0, 9), s.position = ints(51, 2, 3, 100);
    add("dropout", s, 2, 2, 16, unbiased ? 2 : 0, unbiased ? 121 : 0);
  }
  return all;
}

}  // namespace

namespace {

// Everything that the two kernels write. q and the like are parts of wider rows, as fused
// projections leave them.
std::vector<Array> attend(const Attention& a, ArrayKind kind, Dtype drawn) {
  const auto& keys = a.shape.k_length.empty() ? a.shape.q_length : a.shape.k_length;
  const int queries = std::accumulate(a.shape.q_length.begin(), a.shape.q_length.end(), 0);
  const int rows =
      a.shape.k_start.empty() ? std::accumulate(keys.begin(), keys.end(), 0) : keys.front();
  const int wide = a.heads * a.width, narrow = a.kv_heads * a.width;
  const auto input = [&](Shape shape, unsigned seed) {
    const Dtype from = is_half(drawn) ? Dtype::f32 : drawn;
    return random(std::move(shape), from, seed).to(drawn).to(kind);
  };
  const auto part = [](const Array& x) { return kLayouts[2](x); };
  const Array q = part(input({queries, wide}, 1)), k = part(input({rows, narrow}, 2)),
              v = part(input({rows, narrow}, 3)), dy = part(input({queries, wide}, 4));
  const Array places = a.places ? input({a.bias_rows, a.places}, 5) : Array();
  Array y = poisoned({queries, wide}, kind), lse = poisoned({queries, a.heads}, widened(kind));
  kernels::sdpa(y, lse, q, k, v, places, a.heads, a.kv_heads, a.shape);
  Array dq = poisoned({queries, wide}, kind), dk = poisoned({rows, narrow}, kind),
        dv = poisoned({rows, narrow}, kind),
        dbias = a.places ? poisoned(places.shape(), kind) : places;
  if (a.shape.k_start.empty())
    kernels::sdpa_grad(dq, dk, dv, dbias, q, k, v, places, y, lse, dy, a.heads, a.kv_heads,
                       a.shape);
  std::vector<Array> all{y, lse, dq, dk, dv};
  if (a.places) all.push_back(dbias);
  return all;
}

}  // namespace

TEST_CASE("attention of the device and its gradients are the host's") {
  if (!device_is_there()) return;
  for (const Attention& a : attentions())
    for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16}) {
#ifdef GRAFT_SANITIZED  // bf16 goes the same ways
      if (dtype == Dtype::f16) continue;
#endif
      // In f64 heads so wide have room on sm_90 alone.
      if (dtype == Dtype::f64 && a.width > 128) continue;
      CAPTURE(a.name);
      CAPTURE(std::string(name(dtype)));
      const auto want = attend(a, widened(dtype), dtype);
      const auto got = attend(a, {dtype, Device::cuda}, dtype);
      const auto again = attend(a, {dtype, Device::cuda}, dtype);
      for (std::size_t i = 0; i < want.size(); ++i) {
        CAPTURE(i);
        // Gradients in half precision read y as it was rounded.
        const double most = dtype == Dtype::bf16  ? (i < 2 ? 1e-2 : 3e-2)
                            : dtype == Dtype::f16 ? (i < 2 ? 1.5e-3 : 4e-3)
                                                  : limit(dtype);
        CHECK(apart(got[i], want[i]) < most);
        CHECK(same_bits(got[i], again[i]));
      }
    }
}

TEST_CASE("what is not finite among the queries shows in attention's result, on the device, too") {
  if (!device_is_there()) return;
  for (const double wrong : {NAN, INFINITY})
    for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
      CAPTURE(wrong);
      CAPTURE(std::string(name(dtype)));
      const auto run = [&](ArrayKind kind) {
        std::vector<Array> in;
        for (unsigned i = 0; i < 3; ++i)
          in.push_back(random({6, 32}, Dtype::f32, i).to(dtype).to(Dtype::f32));
        in[0].data<float>()[2 * 32 + 5] = static_cast<float>(wrong);
        Array y = poisoned({6, 32}, kind), lse = poisoned({6, 2}, widened(kind));
        kernels::sdpa(y, lse, in[0].to(kind), in[1].to(kind), in[2].to(kind), {}, 2, 2,
                      {.scale = 0.3, .q_length = {6}});
        return y;
      };
      const Array want = run(Dtype::f32), got = run({dtype, Device::cuda});
      CHECK(std::isnan(got.at(2 * 32)));
      CHECK(apart(got, want) < (is_half(dtype) ? 1e-2 : 1e-5));
    }
}

TEST_CASE("one pass over more arrays than a kernel is handed gives each the host's step") {
  if (!device_is_there()) return;
  for (const Dtype dtype : {Dtype::f64, Dtype::f32}) {
    const auto tensors = [&](Device device) {
      std::vector<AdamWTensor> all;
      for (unsigned i = 0; i < 120; ++i) {
        const std::int64_t n = i == 57 ? 20000 : i % 7 == 3 ? 0 : 1 + 11 * (i % 40);
        const auto some = [&](unsigned which) {
          return random({n}, dtype, 4 * i + which).to(device).clone();
        };
        AdamWTensor x{some(0), some(1), some(2), some(3), 0.001 * i, 0.01 * (i % 3)};
        kernels::binary(Binary::mul, x.v, x.v, x.v);
        all.push_back(x);
      }
      return all;
    };
    const auto want = tensors(Device::cpu), got = tensors(Device::cuda);
    std::vector<std::vector<double>> squares;
    for (const auto* all : {&want, &got}) {
      std::vector<Array> grads;
      for (const AdamWTensor& x : *all) grads.push_back(x.grad);
      const Array sums = kernels::sum_squares(grads);
      squares.push_back(sums.to_vector());
      kernels::adamw(*all, {0.9, 0.999, 1e-8, 2, 40}, sums);
    }
    for (std::size_t i = 0; i < want.size(); ++i) {
      CHECK(squares[1][i] == doctest::Approx(squares[0][i]).epsilon(1e-12));
      CHECK(apart(got[i].w, want[i].w) < limit(dtype));
      CHECK(apart(got[i].m, want[i].m) < limit(dtype));
      CHECK(apart(got[i].v, want[i].v) < limit(dtype));
    }
  }
}

TEST_CASE("rotations, and steps of the optimizers, are the host's") {
  if (!device_is_there()) return;
  for (const Dtype dtype : {Dtype::f64, Dtype::f32}) {
    const Array x = random({37, 24}, dtype, 1), turns = random({4}, dtype, 2);
    for (const bool inverse : {false, true})
      for (const int step : {1, 2500}) {
        Array want = poisoned(x.shape(), dtype), got = want.to(Device::cuda).clone();
        const Array position = ints(37, 3, step, 90001);
        kernels::rotate(want, x, position, turns, 3, inverse);
        kernels::rotate(got, x.to(Device::cuda), position, turns.to(Device::cuda), 3, inverse);
        CHECK(apart(got, want) < limit(dtype));
      }
    const auto moved = [&](Device device) {
      std::vector<Array> w;
      for (unsigned i = 0; i < 5; ++i) w.push_back(random({700}, dtype, i).to(device).clone());
      kernels::scale(w[2], w[2], 0);
      const Array g = random({700}, dtype, 9).to(device);
      for (int step = 1; step < 4; ++step) {
        kernels::binary(Binary::mul, w[2], w[2], w[2]);  // squares are not negative
        kernels::adamw({{w[0], w[1], w[2], g, 0.01, 0.1}}, {0.9, 0.999, 1e-8, step, 0.37},
                       step == 3 ? Array() : kernels::sum_squares({g}));
        kernels::sgd(w[3], w[4], g, 0.1, 0.9, 0.01);
      }
      return w;
    };
    const auto want = moved(Device::cpu), got = moved(Device::cuda);
    for (std::size_t i = 0; i < want.size(); ++i) CHECK(apart(got[i], want[i]) < limit(dtype));
  }
}
