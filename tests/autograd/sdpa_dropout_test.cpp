// Dropout of attention's weights against its composition from smaller ops, at sizes on both sides
// of the kernels' blocks; where its draws lie.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <vector>

#include "autograd/graph.h"
#include "autograd/ops.h"
#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

Tensor leaf(std::int64_t rows, std::int64_t columns, std::uint32_t stream,
            Dtype dtype = Dtype::f64) {
  return Tensor::leaf(random_array({rows, columns}, stream, dtype));
}

// One sequence, causal or not, of which the first so many keys have no place.
AttentionShape shape_of(bool causal, int queries, int keys, int unbiased, double p) {
  AttentionShape shape{causal, 0.4, {queries}, {keys}};
  shape.unbiased = unbiased;
  shape.dropout = p, shape.stream = {{3, 9}, 77};
  std::vector<std::int32_t> example(static_cast<std::size_t>(queries), 5), position;
  for (int i = 0; i < queries; ++i) position.push_back(100 + i);
  shape.example = Array::of(example), shape.position = Array::of(position);
  return shape;
}

// What the weights [queries, keys] of one head are multiplied by.
Array factors(const AttentionShape& s, int head) {
  const int queries = s.q_length[0], keys = s.k_length[0];
  Array f = Array::zeros({queries, keys}, Dtype::f64);
  for (int i = 0; i < queries; ++i)
    for (int j = 0; j < keys; ++j) {
      const auto n = static_cast<std::uint32_t>(j - s.unbiased);
      const Counter bits =
          philox(address(77, 5, static_cast<std::uint32_t>(100 + i),
                         static_cast<std::uint32_t>(head) << 22 | (n >> 2 & 0x3fffff)),
                 {3, 9});
      if (uniform(bits[n % 4]) >= static_cast<float>(s.dropout))
        f.data<double>()[i * keys + j] = 1 / (1 - s.dropout);
    }
  return f;
}

}  // namespace

TEST_CASE("attention with dropout is (softmax(scores) mask / (1 - p)) v, gradients too") {
  for (const bool causal : {false, true})
    for (const auto& sizes :
         {std::array{1, 1, 0}, {7, 7, 0}, {20, 33, 4}, {300, 300, 0}, {1, 290, 3}, {530, 530, 9}}) {
      const auto [queries, keys, unbiased] = sizes;
      CAPTURE(sizes);
      CAPTURE(causal);
      const int width = 6, heads = 2;
      const Tensor q = leaf(queries, heads * width, 1), k = leaf(keys, heads * width, 2),
                   v = leaf(keys, heads * width, 3);
      const AttentionShape shape = shape_of(causal, queries, keys, unbiased, 0.35);
      const Tensor fast = sdpa(q, k, v, heads, heads, shape);
      Array hidden = Array::zeros({queries, keys}, Dtype::f64);
      for (int i = 0; i < queries; ++i)
        for (int j = 0; j < keys; ++j)
          if (causal && j > keys - queries + i) hidden.data<double>()[i * keys + j] = -1e30;
      std::vector<Tensor> each;
      for (int h = 0; h < heads; ++h) {
        const auto part = [&](const Tensor& x) { return slice(x, 1, h * width, (h + 1) * width); };
        const Tensor weight = softmax(0.4 * linear(part(q), part(k)) + Tensor(hidden));
        each.push_back(matmul(weight * Tensor(factors(shape, h)), part(v)));
      }
      const Tensor slow = concat(each, 1);
      CHECK(difference(fast.value(), slow.value()) < 1e-12);
      const Tensor by = leaf(queries, heads * width, 5).detach();
      const Gradients a = backward(sum(fast * by)), b = backward(sum(slow * by));
      for (const Tensor& x : {q, k, v}) {  // of one key alone, q's and k's are rounding
        const std::vector<double> g = a[x].to_vector(), h = b[x].to_vector();
        double most = 0, size = 1;
        for (std::size_t i = 0; i < g.size(); ++i)
          most = std::max(most, std::abs(g[i] - h[i])), size = std::max(size, std::abs(h[i]));
        CHECK(most < 1e-11 * size);
      }
    }
}

TEST_CASE("keys without a place move no other key's draws, and dropout keeps weights on average") {
  const int keys = 40;
  const AttentionShape plain = shape_of(false, 16, keys, 0, 0.5),
                       more = shape_of(false, 16, keys + 3, 3, 0.5);
  const Array a = factors(plain, 1), b = factors(more, 1);
  CHECK(same_bits(a, b.slice(1, 3, keys + 3).clone()));
  const Tensor q = leaf(16, 8, 1), k = leaf(keys, 8, 2),
               ones(Array::full({keys, 8}, 1, Dtype::f64));
  double mean = 0;
  for (std::uint32_t step = 0; step < 200; ++step) {
    AttentionShape shape = plain;
    shape.stream.key.step = step;
    mean += sum(sdpa(q, k, ones, 2, 2, shape)).item() / (16 * 8 * 200);
  }
  CHECK(mean == doctest::Approx(1).epsilon(0.02));
  AttentionShape all = plain;
  all.dropout = 1;
  CHECK(sum(square(sdpa(q, k, ones, 2, 2, all))).item() == 0);
}

TEST_CASE("a dropout of attention without addresses, or no probability, is refused") {
  const Tensor x = leaf(4, 2, 1);
  AttentionShape shape{false, 1, {4}, {}};
  shape.dropout = 0.1;
  contains(error_of([&] { sdpa(x, x, x, 1, 1, shape); }), "needs an address for each row");
  shape.dropout = 1.5;
  contains(error_of([&] { sdpa(x, x, x, 1, 1, shape); }), "dropout of 1.5; need 0 to 1");
}
