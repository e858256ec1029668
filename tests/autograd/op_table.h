// The table of all differentiable ops: how each runs, and what it should give, written naively in
// f64. ops_test.cpp drives every check from it; a new op is one row. long: it is one table.
#pragma once

#include <functional>
#include <numbers>
#include <string>
#include <vector>

#include "tests/autograd/op_naive.h"
#include "tests/tensor/fastfood_naive.h"

namespace graft::op_table {

using Tensors = std::vector<Tensor>;

struct Op {
  std::string name;
  std::vector<Shape> in;  // shapes of the inputs that can have gradients
  std::function<Tensor(const Tensors&)> run;
  std::function<Values(const std::vector<Values>&)> naive;
  bool positive = false;  // inputs are drawn above 0.5
};

// Rows and columns that the shapes of one table are made from.
struct Size {
  int n, c;
  int vocab() const { return c + 3; }
  int half() const { return (c + 1) / 2; }  // pairs that rotate in one head
  std::vector<int> length() const { return {n / 3, n - n / 3}; }
};

inline Op each(std::string name, Tensor (*run)(const Tensor&), double (*f)(double), Size s,
               bool positive = false) {
  return {std::move(name),
          {{s.n, s.c}},
          [run](const Tensors& x) { return run(x[0]); },
          [f](const std::vector<Values>& x) {
            Values y = x[0];
            for (double& v : y) v = f(v);
            return y;
          },
          positive};
}

// Two inputs that broadcast; b's element for element i of the result is b[at(i)].
inline Op pair(std::string name, Shape b, Tensor (*run)(const Tensor&, const Tensor&),
               double (*f)(double, double), std::function<std::size_t(std::size_t)> at, Size s,
               bool positive = false) {
  return {std::move(name),
          {{s.n, s.c}, std::move(b)},
          [run](const Tensors& x) { return run(x[0], x[1]); },
          [=](const std::vector<Values>& x) {
            Values y = x[0];
            for (std::size_t i = 0; i < y.size(); ++i) y[i] = f(y[i], x[1][at(i)]);
            return y;
          },
          positive};
}

inline void add_arithmetic(std::vector<Op>& t, Size s) {
  using D = double;
  const std::size_t c = s.c;
  const auto same = [](std::size_t i) { return i; };
  const auto column = [c](std::size_t i) { return i % c; };
  const auto row = [c](std::size_t i) { return i / c; };
  const auto one = [](std::size_t) { return std::size_t{0}; };
  const auto add = [](const Tensor& a, const Tensor& b) { return a + b; };
  const auto sub = [](const Tensor& a, const Tensor& b) { return a - b; };
  const auto mul = [](const Tensor& a, const Tensor& b) { return a * b; };
  const auto div = [](const Tensor& a, const Tensor& b) { return a / b; };
  t.push_back(pair(
      "add", {s.n, s.c}, add, [](D a, D b) { return a + b; }, same, s));
  t.push_back(pair(
      "add a bias", {s.c}, add, [](D a, D b) { return a + b; }, column, s));
  t.push_back(pair(
      "sub a column", {s.n, 1}, sub, [](D a, D b) { return a - b; }, row, s));
  t.push_back(pair(
      "mul", {s.n, s.c}, mul, [](D a, D b) { return a * b; }, same, s));
  t.push_back(pair(
      "mul by a row", {1, s.c}, mul, [](D a, D b) { return a * b; }, column, s));
  t.push_back(pair(
      "mul by a number", {1}, mul, [](D a, D b) { return a * b; }, one, s));
  t.push_back(pair(
      "div", {s.n, s.c}, div, [](D a, D b) { return a / b; }, same, s, true));
  t.push_back(pair(
      "div by a column", {s.n, 1}, div, [](D a, D b) { return a / b; }, row, s, true));
  t.push_back(each(
      "scale", [](const Tensor& x) { return -0.7 * x; }, [](D x) { return -0.7 * x; }, s));
  t.push_back({"x times itself",
               {{s.n, s.c}},
               [](const Tensors& x) { return x[0] * x[0]; },
               [](const std::vector<Values>& x) {
                 Values y = x[0];
                 for (D& v : y) v *= v;
                 return y;
               }});
  const auto silu_of = [](D x) { return x / (1 + std::exp(-x)); };
  t.push_back(each(
      "gelu", gelu, [](D x) { return 0.5 * x * (1 + std::erf(x / std::numbers::sqrt2)); }, s));
  t.push_back(each(
      "gelu_tanh", gelu_tanh,
      [](D x) {
        return 0.5 * x *
               (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
      },
      s));
  t.push_back(each(
      "relu", relu, [](D x) { return std::max(x, 0.0); }, s));
  t.push_back(each("silu", silu, silu_of, s));
  t.push_back(each(
      "tanh", [](const Tensor& x) { return tanh(x); }, [](D x) { return std::tanh(x); }, s));
  t.push_back(each(
      "sigmoid", sigmoid, [](D x) { return 1 / (1 + std::exp(-x)); }, s));
  t.push_back(each(
      "exp", [](const Tensor& x) { return exp(x); }, [](D x) { return std::exp(x); }, s));
  t.push_back(each(
      "log", [](const Tensor& x) { return log(x); }, [](D x) { return std::log(x); }, s, true));
  t.push_back(each(
      "square", square, [](D x) { return x * x; }, s));
  t.push_back(each(
      "sqrt", [](const Tensor& x) { return sqrt(x); }, [](D x) { return std::sqrt(x); }, s, true));
  t.push_back(pair(
      "swiglu", {s.n, s.c}, swiglu, [](D a, D b) { return a / (1 + std::exp(-a)) * b; }, same, s));
  t.push_back({"dropout",
               {{s.n, s.c}},
               [s](const Tensors& x) {
                 return dropout(x[0], 0.3, {{17, 4}, 99}, address(s.n));
               },
               [s](const std::vector<Values>& x) {
                 Values y = x[0];
                 const RowAddress rows = address(s.n);
                 for (std::size_t i = 0; i < y.size(); ++i) {
                   const auto r = std::int64_t(i) / s.c;
                   const auto channel = std::uint32_t(std::int64_t(i) % s.c);
                   const Counter bits =
                       philox(graft::address(99, std::uint32_t(rows.example.at(r)),
                                             std::uint32_t(rows.position.at(r)), channel / 4),
                              {17, 4});
                   y[i] = uniform(bits[channel % 4]) >= 0.3f ? y[i] / 0.7 : 0;
                 }
                 return y;
               }});
}

inline void add_products(std::vector<Op>& t, Size s) {
  const int n = s.n, c = s.c, m = s.c + 2;
  using In = const std::vector<Values>&;
  t.push_back({"linear",
               {{n, c}, {m, c}, {m}},
               [](const Tensors& x) { return linear(x[0], x[1], x[2]); },
               [=](In x) { return plus_rows(product(x[0], x[1], n, c, m, true), x[2]); }});
  t.push_back({"linear of three dimensions, no bias",
               {{2, n, c}, {m, c}},
               [](const Tensors& x) { return linear(x[0], x[1]); },
               [=](In x) { return product(x[0], x[1], 2 * n, c, m, true); }});
  const auto added = [=](In x) {
    Values y = product(x[1], x[2], n, c, m, true);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = x[0][i] + 0.4 * y[i];
    return y;
  };
  t.push_back({"add_linear",
               {{n, m}, {n, c}, {m, c}},
               [](const Tensors& x) { return add_linear(x[0], x[1], x[2], 0.4); },
               added});
  t.push_back({"add_linear in place",
               {{n, m}, {n, c}, {m, c}},
               [](const Tensors& x) { return add_linear(1.0 * x[0], x[1], x[2], 0.4); },
               added});
  t.push_back({"matmul",
               {{n, c}, {c, m}},
               [](const Tensors& x) { return matmul(x[0], x[1]); },
               [=](In x) { return product(x[0], x[1], n, c, m, false); }});
  t.push_back({"matmul of a transpose",
               {{c, n}, {c, m}},
               [](const Tensors& x) { return matmul(transpose(x[0]), x[1]); },
               [=](In x) {
                 Values a(x[0].size());
                 for (int i = 0; i < n; ++i)
                   for (int j = 0; j < c; ++j) a[i * c + j] = x[0][j * n + i];
                 return product(a, x[1], n, c, m, false);
               }});
  for (const auto& [in, out] : {std::pair{c, n * c}, std::pair{n * c, c}}) {
    const Fastfood p = draw_fastfood(in, out, 1, {4, 0}, 6);
    t.push_back({fmt::format("fastfood to {}", in < out ? "more" : "fewer"),
                 {{in}},
                 [p](const Tensors& x) { return fastfood(x[0], p); },
                 [p](In x) { return testing::plain_fastfood(x[0], p); }});
  }
  t.push_back({"layer_norm",
               {{n, c}, {c}, {c}},
               [](const Tensors& x) { return layer_norm(x[0], x[1], x[2], kEps); },
               [](In x) { return normed(x[0], x[1], x[2], true); }});
  t.push_back({"layer_norm without a bias",
               {{n, c}, {c}},
               [](const Tensors& x) { return layer_norm(x[0], x[1], {}, kEps); },
               [](In x) { return normed(x[0], x[1], {}, true); }});
  t.push_back({"layer_norm alone",
               {{n, c}},
               [](const Tensors& x) { return layer_norm(x[0], {}, {}, kEps); },
               [c](In x) { return normed(x[0], Values(c, 1), {}, true); }});
  t.push_back({"rms_norm",
               {{n, c}, {c}},
               [](const Tensors& x) { return rms_norm(x[0], x[1], kEps); },
               [](In x) { return normed(x[0], x[1], {}, false); }});
  t.push_back({"softmax",
               {{n, c}},
               [](const Tensors& x) { return softmax(x[0]); },
               [c](In x) { return softmaxed(x[0], c); }});
  // What follows a norm or an activation keeps the recipe of its input, not its numbers.
  t.push_back({"linear of layer_norm",
               {{n, c}, {c}, {c}, {m, c}},
               [](const Tensors& x) { return linear(layer_norm(x[0], x[1], x[2], kEps), x[3]); },
               [=](In x) { return product(normed(x[0], x[1], x[2], true), x[3], n, c, m, true); }});
  t.push_back({"two linears of rms_norm",
               {{n, c}, {c}, {m, c}, {m, c}},
               [](const Tensors& x) {
                 const Tensor h = rms_norm(x[0], x[1], kEps);
                 return linear(h, x[2]) - linear(h, x[3]);
               },
               [=](In x) {
                 Values w = x[2];
                 for (std::size_t i = 0; i < w.size(); ++i) w[i] -= x[3][i];
                 return product(normed(x[0], x[1], {}, false), w, n, c, m, true);
               }});
  t.push_back({"linear of dropout of layer_norm",
               {{n, c}, {c}, {m, c}},
               [n](const Tensors& x) {
                 return linear(
                     dropout(layer_norm(x[0], x[1], {}, kEps), 0.2, {{1, 2}, 3}, address(n)), x[2]);
               },
               [=](In x) {  // the dropout row of the table says what dropout is
                 const Array h = Array::of(normed(x[0], x[1], {}, true), {n, c});
                 const Tensor y = dropout(Tensor(h), 0.2, {{1, 2}, 3}, address(n));
                 return product(y.value().to_vector(), x[2], n, c, m, true);
               }});
}

inline void add_rows(std::vector<Op>& t, Size s) {
  const int n = s.n, c = s.c, dh = s.c;
  using In = const std::vector<Values>&;
  for (const bool causal : {false, true})
    for (const int more : {0, 2}) {  // keys of each sequence before its own
      AttentionShape shape{causal, 0.6, s.length(), {}};
      for (int l : s.length())
        if (more) shape.k_length.push_back(l + more);
      const Shape key{n + 2 * more, kKeyHeads * dh};
      t.push_back(
          {fmt::format("sdpa, {}causal, {} more keys", causal ? "" : "not ", more),
           {{n, kHeads * dh}, key, key},
           [=](const Tensors& x) { return sdpa(x[0], x[1], x[2], kHeads, kKeyHeads, shape); },
           [=](In x) { return attention(x[0], x[1], x[2], dh, shape); }});
      const std::vector<int> lengths = s.length();
      const int longest = *std::max_element(lengths.begin(), lengths.end()) + more;
      const int places = 2 * longest + 1;
      shape.bias_zero = longest, shape.unbiased = more / 2;
      shape.dropout = 0.3, shape.stream = {{17, 4}, 99};
      shape.example = address(n).example, shape.position = address(n).position;
      for (const int copies : {1, static_cast<int>(lengths.size())})
        t.push_back({fmt::format("sdpa with {} biases and dropout, {}causal, {} more keys", copies,
                                 causal ? "" : "not ", more),
                     {{n, kHeads * dh}, key, key, {copies * kHeads, places}},
                     [=](const Tensors& x) {
                       return sdpa(x[0], x[1], x[2], kHeads, kKeyHeads, shape, x[3]);
                     },
                     [=](In x) { return attention(x[0], x[1], x[2], dh, shape, x[3], places); }});
    }
  const int half = s.half(), wide = kHeads * 2 * half;
  std::vector<double> frequency;
  for (int i = 0; i < half; ++i) frequency.push_back(std::pow(100.0, -i / double(half)));
  t.push_back({"rotate",
               {{n, wide}},
               [=](const Tensors& x) {
                 const Array turns = Array::of(frequency).to(widened(x[0].dtype()));
                 return rotate(x[0], ints(n, 0, 50), turns, kHeads);
               },
               [=](In x) {
                 Values y(x[0].size());
                 for (int i = 0; i < n * kHeads; ++i)
                   for (int j = 0; j < half; ++j) {
                     const double angle = ints(n, 0, 50).at(i / kHeads) * frequency[j];
                     const double a = x[0][i * 2 * half + j], b = x[0][i * 2 * half + half + j];
                     y[i * 2 * half + j] = a * std::cos(angle) - b * std::sin(angle);
                     y[i * 2 * half + half + j] = b * std::cos(angle) + a * std::sin(angle);
                   }
                 return y;
               }});
  t.push_back({"gather",
               {{n, c}},
               [=](const Tensors& x) { return gather(x[0], ints(2 * n, 0, n)); },
               [=](In x) {
                 Values y;
                 for (int i = 0; i < 2 * n * c; ++i)
                   y.push_back(x[0][int(ints(2 * n, 0, n).at(i / c)) * c + i % c]);
                 return y;
               }});
  t.push_back({"prepend",
               {{kBank, c}, {n, c}},
               [=](const Tensors& x) { return prepend(x[0], x[1], s.length()); },
               [=](In x) {
                 Values y;
                 auto at = x[1].begin();
                 for (int l : s.length()) {
                   y.insert(y.end(), x[0].begin(), x[0].end());
                   y.insert(y.end(), at, at + l * c);
                   at += l * c;
                 }
                 return y;
               }});
  t.push_back({"segment_mean",
               {{n, c}},
               [=](const Tensors& x) { return segment_mean(x[0], s.length()); },
               [=](In x) {
                 Values y(2 * c);
                 for (int i = 0; i < n * c; ++i) {
                   const int which = i / c < s.length()[0] ? 0 : 1;
                   y[which * c + i % c] += x[0][i] / s.length()[which];
                 }
                 return y;
               }});
  t.push_back({"slice of columns",
               {{n, c + 2}},
               [=](const Tensors& x) { return slice(x[0], 1, 1, c + 1); },
               [=](In x) {
                 Values y;
                 for (int i = 0; i < n * c; ++i) y.push_back(x[0][i / c * (c + 2) + 1 + i % c]);
                 return y;
               }});
  t.push_back({"concat of columns",
               {{n, c}, {n, 2}, {n, c}},
               [](const Tensors& x) {
                 return concat({x[0], x[1], x[2]}, -1);
               },
               [=](In x) {
                 Values y;
                 for (int i = 0; i < n; ++i)
                   for (int j = 0; j < 2 * c + 2; ++j)
                     y.push_back(j < c       ? x[0][i * c + j]
                                 : j < c + 2 ? x[1][i * 2 + j - c]
                                             : x[2][i * c + j - c - 2]);
                 return y;
               }});
  t.push_back({"reshape",
               {{n, 2 * c}},
               [=](const Tensors& x) {
                 return reshape(x[0], {2 * n, c});
               },
               [](In x) { return x[0]; }});
}

inline void add_losses(std::vector<Op>& t, Size s) {
  const int n = s.n, c = s.c, v = s.vocab();
  const Array label = ints(n, -1, v);
  using In = const std::vector<Values>&;
  const auto total = [](In x) {
    double sum = 0;
    for (double value : x[0]) sum += value;
    return sum;
  };
  t.push_back({"sum",
               {{n, c}},
               [](const Tensors& x) { return sum(x[0]); },
               [=](In x) { return Values{total(x)}; }});
  t.push_back({"mean",
               {{n, c}},
               [](const Tensors& x) { return mean(x[0]); },
               [=](In x) { return Values{total(x) / double(x[0].size())}; }});
  t.push_back({"cross_entropy",
               {{n, v}},
               [=](const Tensors& x) { return cross_entropy(x[0], label, 7); },
               [=](In x) { return Values{entropy(x[0], v, label, 7)}; }});
  t.push_back({"linear_cross_entropy",
               {{n, c}, {v, c}, {v}},
               [=](const Tensors& x) { return linear_cross_entropy(x[0], x[1], x[2], label, 7); },
               [=](In x) {
                 return Values{
                     entropy(plus_rows(product(x[0], x[1], n, c, v, true), x[2]), v, label, 7)};
               }});
  t.push_back({"linear_cross_entropy of layer_norm",
               {{n, c}, {c}, {v, c}},
               [=](const Tensors& x) {
                 return linear_cross_entropy(layer_norm(x[0], x[1], {}, kEps), x[2], {}, label, 7);
               },
               [=](In x) {
                 const Values h = normed(x[0], x[1], {}, true);
                 return Values{entropy(product(h, x[2], n, c, v, true), v, label, 7)};
               }});
  t.push_back(
      {"squared_error",
       {{n, 1}},
       [=](const Tensors& x) { return squared_error(x[0], ints(n, 0, 9).to(x[0].kind()), 3); },
       [=](In x) {
         double sum = 0;
         for (int i = 0; i < n; ++i) sum += std::pow(x[0][i] - ints(n, 0, 9).at(i), 2) / 3;
         return Values{sum};
       }});
}

inline std::vector<Op> table(Size s) {
  std::vector<Op> all;
  add_arithmetic(all, s);
  add_products(all, s);
  add_rows(all, s);
  add_losses(all, s);
  return all;
}

}  // namespace graft::op_table
