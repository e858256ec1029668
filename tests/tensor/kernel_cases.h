// A table of every kernel but gemm, attention and rotation: a run beside its naive loop in f64.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <random>

#include "tensor/kernels.h"
#include "tests/tensor/fastfood_naive.h"

namespace graft::kernel_cases {

using Values = std::vector<double>;
using Arrays = std::vector<Array>;
constexpr double kEps = 1e-5;

// What the kernels of the table work on. All arrays are [R, C] but gain, bias [C] and the i32 [R].
struct Input {
  std::int64_t rows, columns;
  Dtype dtype;
  Array x, y, z, gain, bias, column, label, example, position;

  Array poisoned(Shape shape) const {
    return Array::full(std::move(shape), std::numeric_limits<double>::quiet_NaN(), x.kind());
  }
  // The same numbers on the device; indices stay where they are.
  Input on(Device device) const {
    Input in = *this;
    for (Array* a : {&in.x, &in.y, &in.z, &in.gain, &in.bias, &in.column}) *a = a->to(device);
    return in;
  }
  Array matrix() const { return poisoned({rows, columns}); }
};

inline Array random(Shape shape, Dtype dtype, std::mt19937& bits) {
  std::normal_distribution<double> normal;
  Array a =
      Array::empty(std::move(shape), Dtype::f32);  // f32 values: f64 runs see the same numbers
  for (std::int64_t i = 0; i < a.numel(); ++i)
    a.data<float>()[i] = static_cast<float>(1.5 * normal(bits));
  return a.to(dtype);
}

inline Array random_index(std::int64_t n, int low, int high, std::mt19937& bits) {
  Array a = Array::empty({n}, Dtype::i32);
  std::uniform_int_distribution<int> draw(low, high - 1);
  for (std::int64_t i = 0; i < n; ++i) a.data<std::int32_t>()[i] = draw(bits);
  return a;
}

inline Input input(std::int64_t rows, std::int64_t columns, Dtype dtype) {
  std::mt19937 bits(static_cast<unsigned>(rows * 1000 + columns));
  const Shape whole{rows, columns};
  const auto draw = [&](Shape shape) { return random(std::move(shape), dtype, bits); };
  Input in{rows,
           columns,
           dtype,
           draw(whole),
           draw(whole),
           draw(whole),
           draw({columns}),
           draw({columns}),
           draw({rows, 1}),
           {},
           {},
           {}};
  in.label = random_index(rows, -1, static_cast<int>(columns), bits);
  in.example = random_index(rows, 0, 100, bits);
  in.position = random_index(rows, 0, 100, bits);
  return in;
}

// One kernel: how to run it, what it should give, and whether row r of the outputs is a function of
// row r of the inputs.
struct Case {
  const char* name;
  bool by_row;
  std::function<Arrays(const Input&)> run;
  std::function<std::vector<Values>(const Input&)> naive;  // empty: its gradient test checks it
};

// naive() of an element-wise kernel.
inline auto each(double (*f)(double x, double y, double row, double column)) {
  return [f](const Input& in) {
    const Values x = in.x.to_vector(), y = in.y.to_vector(), g = in.gain.to_vector();
    const Values c = in.column.to_vector();
    Values out(x.size());
    for (std::size_t i = 0; i < x.size(); ++i)
      out[i] = f(x[i], y[i], g[i % in.columns], c[i / in.columns]);
    return std::vector<Values>{out};
  };
}

inline Case binary_case(const char* name, Binary op, Array Input::*right,
                        double (*f)(double, double, double, double)) {
  return {name, true,
          [=](const Input& in) {
            Array out = in.matrix();
            kernels::binary(op, out, in.x, in.*right);
            return Arrays{out};
          },
          each(f)};
}

inline Case map_case(const char* name, Map map, double (*f)(double, double, double, double)) {
  return {name, true,
          [=](const Input& in) {
            Array x = in.x.clone(), out = in.matrix(), slope = in.matrix();
            if (map == Map::log || map == Map::sqrt)  // of positive numbers
              kernels::binary(Binary::mul, x, in.x, in.x);
            kernels::map(map, out, x);
            kernels::map_grad(map, slope, x, in.y);
            return Arrays{out, slope};
          },
          each(f)};
}

inline double silu(double x) { return x / (1 + std::exp(-x)); }

inline void add_elementwise(std::vector<Case>& all) {
  using D = double;
  all.push_back(binary_case("add", Binary::add, &Input::y, [](D x, D y, D, D) { return x + y; }));
  all.push_back(
      binary_case("sub row", Binary::sub, &Input::gain, [](D x, D, D r, D) { return x - r; }));
  all.push_back(
      binary_case("mul column", Binary::mul, &Input::column, [](D x, D, D, D c) { return x * c; }));
  all.push_back(binary_case("div", Binary::div, &Input::y, [](D x, D y, D, D) { return x / y; }));
  all.push_back(map_case("gelu", Map::gelu, [](D x, D, D, D) {
    return 0.5 * x * (1 + std::erf(x / std::numbers::sqrt2));
  }));
  all.push_back(map_case("gelu_tanh", Map::gelu_tanh, [](D x, D, D, D) {
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
  }));
  all.push_back(map_case("relu", Map::relu, [](D x, D, D, D) { return std::max(x, 0.0); }));
  all.push_back(map_case("silu", Map::silu, [](D x, D, D, D) { return silu(x); }));
  all.push_back(map_case("tanh", Map::tanh, [](D x, D, D, D) { return std::tanh(x); }));
  all.push_back(
      map_case("sigmoid", Map::sigmoid, [](D x, D, D, D) { return 1 / (1 + std::exp(-x)); }));
  all.push_back(map_case("exp", Map::exp, [](D x, D, D, D) { return std::exp(x); }));
  all.push_back(map_case("log", Map::log, [](D x, D, D, D) { return std::log(x * x); }));
  all.push_back(map_case("square", Map::square, [](D x, D, D, D) { return x * x; }));
  all.push_back(map_case("sqrt", Map::sqrt, [](D x, D, D, D) { return std::abs(x); }));
  all.push_back({"axpy", true,
                 [](const Input& in) {
                   Array y = in.y.clone();
                   kernels::axpy(y, in.x, -0.75);
                   return Arrays{y};
                 },
                 each([](D x, D y, D, D) { return y - 0.75 * x; })});
  all.push_back({"scale", true,
                 [](const Input& in) {
                   Array y = in.matrix();
                   kernels::scale(y, in.x, -0.75);
                   return Arrays{y};
                 },
                 each([](D x, D, D, D) { return -0.75 * x; })});
  all.push_back({"swiglu", true,
                 [](const Input& in) {
                   Array y = in.matrix(), dgate = in.matrix(), dup = in.matrix();
                   kernels::swiglu(y, in.x, in.y);
                   kernels::swiglu_grad(dgate, dup, in.x, in.y, in.z);
                   return Arrays{y, dgate, dup};
                 },
                 each([](D x, D y, D, D) { return silu(x) * y; })});
}

// Sums over rows of a b (or of a), from `start`.
inline Values naive_rows(const Input& in, const Values& start, const Values& a, const Values* b) {
  Values sum = start;
  for (std::size_t i = 0; i < a.size(); ++i) sum[i % in.columns] += a[i] * (b ? (*b)[i] : 1);
  return sum;
}

inline void add_reductions(std::vector<Case>& all) {
  all.push_back({"add_rows", false,
                 [](const Input& in) {
                   Array sum = in.gain.clone(), product = in.bias.clone();
                   kernels::add_rows(sum, in.x);
                   kernels::add_rows_of_product(product, in.x, in.y);
                   return Arrays{sum, product};
                 },
                 [](const Input& in) {
                   const Values x = in.x.to_vector(), y = in.y.to_vector();
                   return std::vector<Values>{naive_rows(in, in.gain.to_vector(), x, nullptr),
                                              naive_rows(in, in.bias.to_vector(), x, &y)};
                 }});
  all.push_back({"sum_columns", true,
                 [](const Input& in) {
                   Array sum = in.poisoned({in.rows});
                   kernels::sum_columns(sum, in.x);
                   return Arrays{sum};
                 },
                 [](const Input& in) {
                   const Values x = in.x.to_vector();
                   Values sum(in.rows);
                   for (std::size_t i = 0; i < x.size(); ++i) sum[i / in.columns] += x[i];
                   return std::vector<Values>{sum};
                 }});
  all.push_back(
      {"sum_all and sum_squares", false,
       [](const Input& in) {
         Array sum = in.poisoned({1});
         kernels::sum_all(sum, in.x);
         return Arrays{sum, Array::full({1}, kernels::sum_squares({in.x}).item(), Dtype::f64)};
       },
       [](const Input& in) {
         double sum = 0, squares = 0;
         for (double v : in.x.to_vector()) sum += v, squares += v * v;
         return std::vector<Values>{{sum}, {squares}};
       }});
}

// (x - mean) rstd gain + bias, with mean 0 and no bias when not centred.
inline std::vector<Values> naive_norm(const Input& in, bool centred) {
  const Values x = in.x.to_vector(), g = in.gain.to_vector(), b = in.bias.to_vector();
  Values y(x.size());
  for (std::int64_t r = 0; r < in.rows; ++r) {
    const double* row = x.data() + r * in.columns;
    double mean = 0, var = 0;
    for (int c = 0; centred && c < in.columns; ++c) mean += row[c] / in.columns;
    for (int c = 0; c < in.columns; ++c) var += (row[c] - mean) * (row[c] - mean) / in.columns;
    for (int c = 0; c < in.columns; ++c)
      y[r * in.columns + c] = (row[c] - mean) / std::sqrt(var + kEps) * g[c] + (centred ? b[c] : 0);
  }
  return {y};
}

inline void add_norms(std::vector<Case>& all) {
  all.push_back({"layer_norm", true,
                 [](const Input& in) {
                   Array y = in.matrix(), dx = in.matrix(), none;
                   kernels::layer_norm(y, in.x, in.gain, in.bias, kEps);
                   kernels::layer_norm_grad(dx, none, none, in.x, in.gain, in.y, kEps);
                   return Arrays{y, dx};
                 },
                 [](const Input& in) { return naive_norm(in, true); }});
  all.push_back({"rms_norm", true,
                 [](const Input& in) {
                   Array y = in.matrix(), dx = in.matrix(), none;
                   kernels::rms_norm(y, in.x, in.gain, kEps);
                   kernels::rms_norm_grad(dx, none, in.x, in.gain, in.y, kEps);
                   return Arrays{y, dx};
                 },
                 [](const Input& in) { return naive_norm(in, false); }});
  all.push_back({"parameters of norms",
                 false,
                 [](const Input& in) {
                   Array dx = in.matrix(), dx2 = in.matrix();
                   Array dgain = in.gain.clone(), dbias = in.bias.clone(), rms = in.bias.clone();
                   kernels::layer_norm_grad(dx, dgain, dbias, in.x, in.gain, in.y, kEps);
                   kernels::rms_norm_grad(dx2, rms, in.x, in.gain, in.y, kEps);
                   return Arrays{dgain, dbias, rms, dx, dx2};
                 },
                 {}});
}

inline std::vector<Values> naive_softmax(const Input& in) {
  const Values x = in.x.to_vector();
  Values y(x.size()), loss(in.rows);
  for (std::int64_t r = 0; r < in.rows; ++r) {
    double sum = 0;
    for (int c = 0; c < in.columns; ++c) sum += std::exp(x[r * in.columns + c]);
    for (int c = 0; c < in.columns; ++c)
      y[r * in.columns + c] = std::exp(x[r * in.columns + c]) / sum;
    const auto label = static_cast<std::int64_t>(in.label.at(r));
    if (label >= 0) loss[r] = -std::log(y[r * in.columns + label]);
  }
  return {y, loss};
}

inline Arrays run_dropout(const Input& in) {
  Array y = in.matrix();
  kernels::dropout(y, in.x, 0.3, Stream{{17, 4}, 99}, in.example, in.position);
  return {y};
}

inline std::vector<Values> naive_dropout(const Input& in) {
  Values x = in.x.to_vector();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto r = static_cast<std::int64_t>(i / in.columns);
    const auto c = static_cast<std::uint32_t>(i % in.columns);
    const Counter bits = philox(address(99, static_cast<std::uint32_t>(in.example.at(r)),
                                        static_cast<std::uint32_t>(in.position.at(r)), c / 4),
                                {17, 4});
    x[i] = uniform(bits[c % 4]) >= 0.3f ? x[i] / 0.7 : 0;
  }
  return {x};
}

inline void add_losses(std::vector<Case>& all) {
  all.push_back({"softmax and cross_entropy", true,
                 [](const Input& in) {
                   Array y = in.matrix(), loss = in.poisoned({in.rows});
                   Array dx = in.matrix(), dlogits = in.matrix();
                   kernels::softmax(y, in.x);
                   kernels::cross_entropy(loss, in.x, in.label);
                   kernels::softmax_grad(dx, y, in.y);
                   kernels::cross_entropy_grad(dlogits, in.x, in.label, in.column);
                   return Arrays{y, loss, dx, dlogits};
                 },
                 naive_softmax});
  all.push_back({"dropout", true, run_dropout, naive_dropout});
}

// Row index and its inverse share one table of R rows; the indices of `example` repeat.
inline void add_indexed(std::vector<Case>& all) {
  all.push_back({"gather and scatter_add", false,
                 [](const Input& in) {
                   Array row = in.example.clone();
                   for (std::int64_t r = 0; r < in.rows; ++r) {
                     std::int32_t& i = row.data<std::int32_t>()[r];
                     i = i % 7 == 3 ? -1 : static_cast<std::int32_t>(i % in.rows);
                   }
                   Array y = in.matrix(), table = in.z.clone();
                   kernels::gather(y, in.x, row);
                   kernels::scatter_add(table, in.y, row);
                   return Arrays{y, table};
                 },
                 [](const Input& in) {
                   const Values x = in.x.to_vector(), y = in.y.to_vector();
                   Values picked(x.size()), table = in.z.to_vector();
                   for (std::size_t i = 0; i < x.size(); ++i) {
                     const auto e = static_cast<std::int64_t>(in.example.at(i / in.columns));
                     if (e % 7 == 3) continue;
                     const std::int64_t at = e % in.rows * in.columns + i % in.columns;
                     picked[i] = x[at];
                     table[at] += y[i];
                   }
                   return std::vector<Values>{picked, table};
                 }});
  all.push_back({"segment_mean", false,
                 [](const Input& in) {
                   const int part = static_cast<int>(in.rows / 3);
                   const std::vector<int> length{part, 0, static_cast<int>(in.rows) - part};
                   Array y = in.poisoned({3, in.columns}), dx = in.matrix();
                   kernels::segment_mean(y, in.x, length);
                   kernels::segment_mean_grad(dx, y, length);
                   return Arrays{y, dx};
                 },
                 [](const Input& in) {
                   const Values x = in.x.to_vector();
                   Values y(3 * in.columns);
                   const std::int64_t part = in.rows / 3;
                   for (std::size_t i = 0; i < x.size(); ++i) {
                     const std::int64_t r = i / in.columns, c = i % in.columns;
                     if (r < part) y[c] += x[i] / part;
                     if (r >= part) y[2 * in.columns + c] += x[i] / (in.rows - part);
                   }
                   return std::vector<Values>{y};
                 }});
}

inline void add_projection(std::vector<Case>& all) {
  const auto drawn = [](const Input& in) {
    return draw_fastfood(in.columns, in.rows * in.columns, 1, {2, 0}, 7);
  };
  all.push_back({"fastfood and its transpose", false,
                 [=](const Input& in) {
                   if (in.rows == 0) return Arrays{};  // it refuses to project onto nothing
                   const Fastfood p = drawn(in);
                   Array y = in.poisoned({p.out}), dx = in.bias.clone();
                   kernels::fastfood(y, in.gain, p);
                   kernels::fastfood_adjoint(dx, in.x.reshape({p.out}), p);
                   return Arrays{y, dx};
                 },
                 [=](const Input& in) {  // fastfood_test.cpp has the transpose
                   return std::vector<Values>{
                       testing::plain_fastfood(in.gain.to_vector(), drawn(in))};
                 }});
}

inline const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> table;
    add_elementwise(table);
    add_reductions(table);
    add_norms(table);
    add_losses(table);
    add_indexed(table);
    add_projection(table);
    return table;
  }();
  return all;
}

}  // namespace graft::kernel_cases
