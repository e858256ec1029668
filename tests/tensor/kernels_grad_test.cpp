// Gradient kernels against central differences in f64 of the kernels they belong to.
#include <doctest/doctest.h>

#include <limits>

#include "tests/tensor/kernel_cases.h"

using namespace graft;
using namespace graft::kernel_cases;

namespace {

using Forward = std::function<Array(const Array&)>;

// d(sum of weight times f(x)) / dx, element by element.
Values differences(const Forward& f, const Array& x, const Array& weight) {
  const Values w = weight.to_vector();
  const auto loss = [&](const Array& at) {
    const Values y = f(at).to_vector();
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += w[i] * y[i];
    return sum;
  };
  Values d(x.numel());
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    Array up = x.clone(), down = x.clone();
    const double h = 1e-5 * std::max(1.0, std::abs(x.at(i)));
    up.data<double>()[i] += h;
    down.data<double>()[i] -= h;
    d[i] = (loss(up) - loss(down)) / (2 * h);
  }
  return d;
}

void check_gradient(const Array& got, const Values& want) {
  const Values values = got.to_vector();
  REQUIRE(values.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i)
    CHECK(std::abs(values[i] - want[i]) <= 1e-6 * std::max(1.0, std::abs(want[i])));
}

const std::vector<Shape> kSmall{{1, 1}, {3, 5}, {2, 33}, {7, 4}};

}  // namespace

TEST_CASE("the slope of every map is the derivative of its value") {
  for (Map map : {Map::gelu, Map::gelu_tanh, Map::relu, Map::silu, Map::tanh, Map::sigmoid,
                  Map::exp, Map::log, Map::square, Map::sqrt}) {
    CAPTURE(static_cast<int>(map));
    Values points{0.03, 0.4, 0.9, 1, 1.7, 3, 5.5};
    if (map != Map::log && map != Map::sqrt)
      for (double p : Values(points)) points.push_back(-p);
    const Array x = Array::of(points);
    Array dx = Array::full(x.shape(), NAN, Dtype::f64);
    const Array dy = Array::full(x.shape(), -1.5, Dtype::f64);
    kernels::map_grad(map, dx, x, dy);
    const Forward f = [&](const Array& at) {
      Array y = Array::empty(at.shape(), Dtype::f64);
      kernels::map(map, y, at);
      return y;
    };
    check_gradient(dx, differences(f, x, dy));
  }
}

TEST_CASE("swiglu sends the derivative to gate and up") {
  const Input in = input(4, 5, Dtype::f64);
  Array dgate = in.matrix(), dup = in.matrix();
  kernels::swiglu_grad(dgate, dup, in.x, in.y, in.z);
  const auto run = [&](const Array& gate, const Array& up) {
    Array y = in.matrix();
    kernels::swiglu(y, gate, up);
    return y;
  };
  check_gradient(dgate, differences([&](const Array& g) { return run(g, in.y); }, in.x, in.z));
  check_gradient(dup, differences([&](const Array& u) { return run(in.x, u); }, in.y, in.z));
}

TEST_CASE("layer_norm has the derivatives of its input, gain and bias, with and without them") {
  for (const Shape& s : kSmall)
    for (bool affine : {true, false}) {
      const Input in = input(s[0], s[1], Dtype::f64);
      const Array gain = affine ? in.gain : Array(), bias = affine ? in.bias : Array();
      const double eps = 0.1;  // keeps the derivative tame where a row has one element
      const auto run = [&](const Array& x, const Array& g, const Array& b) {
        Array y = in.matrix();
        kernels::layer_norm(y, x, g, b, eps);
        return y;
      };
      Array dx = in.matrix(), dgain, dbias;
      if (affine) dgain = Array::zeros({s[1]}, Dtype::f64), dbias = dgain.clone();
      kernels::layer_norm_grad(dx, dgain, dbias, in.x, gain, in.z, eps);
      check_gradient(dx,
                     differences([&](const Array& x) { return run(x, gain, bias); }, in.x, in.z));
      if (!affine) continue;
      check_gradient(dgain,
                     differences([&](const Array& g) { return run(in.x, g, bias); }, gain, in.z));
      check_gradient(dbias,
                     differences([&](const Array& b) { return run(in.x, gain, b); }, bias, in.z));
    }
}

TEST_CASE("rms_norm has the derivatives of its input and gain, with and without one") {
  for (const Shape& s : kSmall)
    for (bool affine : {true, false}) {
      const Input in = input(s[0], s[1], Dtype::f64);
      const Array gain = affine ? in.gain : Array();
      const auto run = [&](const Array& x, const Array& g) {
        Array y = in.matrix();
        kernels::rms_norm(y, x, g, 0.1);
        return y;
      };
      Array dx = in.matrix(), dgain;
      if (affine) dgain = Array::zeros({s[1]}, Dtype::f64);
      kernels::rms_norm_grad(dx, dgain, in.x, gain, in.z, 0.1);
      check_gradient(dx, differences([&](const Array& x) { return run(x, gain); }, in.x, in.z));
      if (affine)
        check_gradient(dgain,
                       differences([&](const Array& g) { return run(in.x, g); }, gain, in.z));
    }
}

TEST_CASE("the gradient of a norm's parameters does not depend on which others are asked for") {
  const Input in = input(40, 70, Dtype::f32);
  Array dx = in.matrix(), dgain = in.gain.clone(), dbias = in.bias.clone();
  kernels::layer_norm_grad(dx, dgain, dbias, in.x, in.gain, in.y, kEps);
  Array none, only_dx = in.matrix(), only_gain = in.gain.clone(), only_bias = in.bias.clone();
  kernels::layer_norm_grad(only_dx, none, none, in.x, in.gain, in.y, kEps);
  kernels::layer_norm_grad(none, only_gain, none, in.x, in.gain, in.y, kEps);
  kernels::layer_norm_grad(none, none, only_bias, in.x, in.gain, in.y, kEps);
  CHECK(same_bits(dx, only_dx));
  CHECK(same_bits(dgain, only_gain));
  CHECK(same_bits(dbias, only_bias));
}

TEST_CASE("softmax and cross_entropy have their derivatives") {
  for (const Shape& s : kSmall) {
    const Input in = input(s[0], s[1], Dtype::f64);
    const Forward softmax = [&](const Array& x) {
      Array y = in.matrix();
      kernels::softmax(y, x);
      return y;
    };
    Array dx = in.matrix();
    kernels::softmax_grad(dx, softmax(in.x), in.z);
    check_gradient(dx, differences(softmax, in.x, in.z));
    const Forward loss = [&](const Array& x) {
      Array y = in.poisoned({in.rows});
      kernels::cross_entropy(y, x, in.label);
      return y;
    };
    Array dlogits = in.matrix();
    kernels::cross_entropy_grad(dlogits, in.x, in.label, in.column);
    check_gradient(dlogits, differences(loss, in.x, in.column));
  }
}

TEST_CASE("segment_mean has its derivative, a sequence without rows too") {
  const Input in = input(6, 5, Dtype::f64);
  const std::vector<int> length{2, 0, 3, 1};
  const Array dy = input(4, 5, Dtype::f64).y;
  const Forward mean = [&](const Array& x) {
    Array y = in.poisoned({4, 5});
    kernels::segment_mean(y, x, length);
    return y;
  };
  Array dx = in.matrix();
  kernels::segment_mean_grad(dx, dy, length);
  check_gradient(dx, differences(mean, in.x, dy));
}

TEST_CASE("cross_entropy_grad in place gives the bits of a fresh array") {
  const Input in = input(9, 77, Dtype::f32);
  Array fresh = in.matrix(), same = in.x.clone();
  kernels::cross_entropy_grad(fresh, in.x, in.label, in.column);
  kernels::cross_entropy_grad(same, same, in.label, in.column);
  CHECK(same_bits(fresh, same));
}
