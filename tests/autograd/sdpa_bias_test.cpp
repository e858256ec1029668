// Attention with relative biases against its composition from smaller ops, at sizes on both sides
// of the kernels' blocks.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "autograd/graph.h"
#include "autograd/ops.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

Tensor leaf(Shape shape, int seed) {
  Array a = Array::empty(std::move(shape), Dtype::f64);
  for (std::int64_t i = 0; i < a.numel(); ++i)
    a.data<double>()[i] =
        std::sin(0.7 * double(i) + 1.3 * seed) + 0.3 * std::cos(double(i * i % 101));
  return Tensor::leaf(a);
}

double apart(const Array& a, const Array& b) {
  const auto x = a.to_vector(), y = b.to_vector();
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    worst = std::max(worst, std::abs(x[i] - y[i]));
    largest = std::max(largest, std::abs(y[i]));
  }
  return largest > 0 ? worst / largest : worst;
}

}  // namespace

TEST_CASE("attention with a bias is softmax(scores + bias by place) v, gradients too") {
  for (const bool causal : {false, true})
    for (const auto& sizes :
         {std::array{1, 1, 0}, {7, 7, 0}, {20, 33, 4}, {300, 300, 0}, {1, 290, 2}, {260, 530, 9}}) {
      const auto [queries, keys, unbiased] = sizes;
      CAPTURE(sizes);
      CAPTURE(causal);
      const int width = 6, zero = keys, places = 2 * keys + 1;
      const Tensor q = leaf({queries, width}, 1), k = leaf({keys, width}, 2),
                   v = leaf({keys, width}, 3), bias = leaf({1, places}, 4);
      AttentionShape shape{causal, 0.4, {queries}, {keys}};
      shape.unbiased = unbiased, shape.bias_zero = zero;
      const Tensor fast = sdpa(q, k, v, 1, 1, shape, bias);

      std::vector<std::int32_t> place;  // of each pair; the last column is for none
      Array hidden = Array::zeros({queries, keys}, Dtype::f64);
      for (int i = 0; i < queries; ++i)
        for (int j = 0; j < keys; ++j) {
          place.push_back(j < unbiased ? places : zero + j - (keys - queries + i));
          if (causal && j > keys - queries + i) hidden.data<double>()[i * keys + j] = -1e30;
        }
      const Tensor table = concat({transpose(bias), Tensor(Array::zeros({1, 1}, Dtype::f64))}, 0);
      for (std::int32_t& p : place) p = std::clamp(p, 0, places);
      const Tensor added = reshape(gather(table, Array::of(place)), {queries, keys});
      const Tensor slow = matmul(softmax(0.4 * linear(q, k) + added + Tensor(hidden)), v);
      CHECK(apart(fast.value(), slow.value()) < 1e-12);

      const Tensor weight = leaf({queries, width}, 5).detach();
      const Gradients a = backward(sum(fast * weight)), b = backward(sum(slow * weight));
      for (const Tensor& x : {q, k, v, bias}) CHECK(apart(a[x], b[x]) < 1e-11);
    }
}

TEST_CASE("a bias that lacks a place that is needed is refused") {
  const Tensor x = leaf({4, 2}, 1);
  AttentionShape shape{false, 1, {4}, {}};
  shape.bias_zero = 3;
  CHECK(sdpa(x, x, x, 1, 1, shape, leaf({1, 7}, 2)).dim(0) == 4);
  contains(error_of([&] { sdpa(x, x, x, 1, 1, shape, leaf({1, 6}, 2)); }), "need places 0 to 6");
  contains(error_of([&] {
             sdpa(x, x, x, 1, 1, shape, leaf({2, 7}, 2));
           }),
           "need [1 heads, places]");
  shape.bias_zero = 2;
  contains(error_of([&] { sdpa(x, x, x, 1, 1, shape, leaf({1, 7}, 2)); }), "need places -1 to 5");
}
