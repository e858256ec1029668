// Attention on tensor cores where sequences have several tiles: every width of tiles and kind of
// weights, tiles that some queries see in part, blocks of 64 and of 128 rows.
#include <numeric>
#include <random>

#include "tests/cuda/device_cases.h"

using namespace graft;
using graft::testing::apart;
using graft::testing::device_is_there;

namespace {

struct Tiles {
  const char* name;
  AttentionShape shape;
  int heads, kv_heads, width;
  int aside = 0;  // columns that q, k, v and dy have more than they use
  int places = 0;
};

Array drawn(std::int64_t rows, std::int64_t columns, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  Array x = Array::empty({rows, columns}, Dtype::f32);
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] = normal(bits);
  return x;
}

int sum(const std::vector<int>& x) { return std::accumulate(x.begin(), x.end(), 0); }

// y, lse, dq, dk, dv. What is drawn for a row does not depend on how many rows there are.
std::vector<Array> attend(const Tiles& t, Dtype half, ArrayKind kind) {
  const AttentionShape& shape = t.shape;
  const int queries = sum(shape.q_length);
  const int keys = shape.k_length.empty() ? queries : sum(shape.k_length);
  const auto input = [&](int rows, int heads, unsigned seed) {
    const Array x = drawn(rows, heads * t.width, seed).to(half).to(kind);
    Array wide = Array::full({rows, x.dim(1) + t.aside}, NAN, kind);
    Array part = wide.slice(1, t.aside, wide.dim(1));
    part.copy_from(x);
    return part;
  };
  const auto output = [&](int rows, int heads) {
    return Array::full({rows, heads * t.width}, NAN, kind);
  };
  const Array q = input(queries, t.heads, 1), k = input(keys, t.kv_heads, 2),
              v = input(keys, t.kv_heads, 3), dy = input(queries, t.heads, 4);
  const Array bias = t.places ? drawn(t.heads, t.places, 5).to(half).to(kind) : Array();
  Array y = output(queries, t.heads), lse = Array::full({queries, t.heads}, NAN, widened(kind)),
        dq = output(queries, t.heads), dk = output(keys, t.kv_heads), dv = output(keys, t.kv_heads),
        none;
  kernels::sdpa(y, lse, q, k, v, bias, t.heads, t.kv_heads, shape);
  kernels::sdpa_grad(dq, dk, dv, none, q, k, v, bias, y, lse, dy, t.heads, t.kv_heads, shape);
  return {y, lse, dq, dk, dv};
}

std::vector<Tiles> all_tiles() {
  std::vector<Tiles> all;
  const auto add = [&](const char* name, AttentionShape s, auto... more) {
    if (s.scale == 1) s.scale = 0.2;
    all.push_back({name, std::move(s), more...});
  };
  add("causal, in blocks of 128", {.causal = true, .q_length = {200}}, 2, 1, 64);
  add("the same, not at multiples of 16 bytes", {.causal = true, .q_length = {130}}, 1, 1, 64, 3);
  add("not causal", {.q_length = {128, 135}}, 1, 1, 64, 8);
  add("in blocks of 64", {.causal = true, .q_length = {100, 1, 5}}, 2, 1, 64);
  add("wide", {.causal = true, .q_length = {100}}, 2, 1, 128);
  add("narrower than a tile", {.causal = true, .q_length = {100}}, 1, 1, 72);
  add("narrow", {.causal = true, .q_length = {100}}, 2, 1, 32);
  add("prefix", {.causal = true, .q_length = {130}, .k_length = {150}}, 1, 1, 64);
  add("fewer keys", {.causal = true, .q_length = {140}, .k_length = {70}}, 1, 1, 64);
  add("a scale below 0", {.causal = true, .scale = -0.2, .q_length = {80}}, 1, 1, 64);
  add("biases", {.causal = true, .q_length = {90}, .bias_zero = 90}, 2, 1, 64, 0, 181);
  for (const int unbiased : {0, 3, 4}) {
    AttentionShape s{.causal = true, .q_length = {80}, .k_length = {90}};
    s.unbiased = unbiased, s.dropout = 0.3, s.stream = {{3, 5}, 77};
    std::vector<std::int32_t> row(80);
    std::iota(row.begin(), row.end(), 0);
    s.example = s.position = Array::of(row);
    add("dropout", s, 2, 1, 64);
  }
  return all;
}

}  // namespace

TEST_CASE("attention of halves over several tiles is the host's, and the same twice") {
  if (!device_is_there()) return;
  for (const Tiles& t : all_tiles())
    for (const Dtype half : {Dtype::f16, Dtype::bf16}) {
      CAPTURE(t.name);
      CAPTURE(std::string(name(half)));
      const auto want = attend(t, half, Dtype::f32);
      const auto got = attend(t, half, {half, Device::cuda});
      const auto again = attend(t, half, {half, Device::cuda});
      for (std::size_t i = 0; i < want.size(); ++i) {
        CAPTURE(i);
        const double limit = half == Dtype::f16 ? 2e-3 : 1.5e-2;
        CHECK(apart(got[i], want[i]) < limit);
        CHECK(same_bits(got[i], again[i]));
      }
    }
}

TEST_CASE("a sequence's attention has the same bits in blocks of 64 rows and of 128") {
  if (!device_is_there()) return;
  const int n = 150;
  const AttentionShape alone{.causal = true, .scale = 0.2, .q_length = {n}};
  AttentionShape beside = alone;
  beside.q_length = {n, 1, 1};  // in blocks of 64 rows: sequences are short on average
  const ArrayKind kind{Dtype::bf16, Device::cuda};
  const auto want = attend({"", alone, 2, 1, 64}, Dtype::bf16, kind);
  const auto got = attend({"", beside, 2, 1, 64}, Dtype::bf16, kind);
  for (std::size_t i = 0; i < want.size(); ++i) {
    CAPTURE(i);
    CHECK(same_bits(got[i].slice(0, 0, n).to(Device::cpu), want[i].to(Device::cpu)));
  }
}
