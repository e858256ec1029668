// The element-wise functions, once for host and device: each gives value and slope together, and
// the compiler drops the half that a kernel does not use.
#pragma once

#include <cmath>
#include <numbers>

#include "tensor/kernels.h"
#include "tensor/vmath.h"

namespace graft::maps {

template <class T>
struct Point {
  T value, slope;
};

// 1 / (1 + e^-x).
template <class T>
GRAFT_HOST_DEVICE Point<T> logistic(T x) {
  const T e = vmath::exp(-x), s = T{1} / (T{1} + e);
  return {s, s * (T{1} - s)};
}

// x Phi(x), exact (Hendrycks and Gimpel 2016).
struct Gelu {
  template <class T>
  GRAFT_HOST_DEVICE Point<T> operator()(T x) const {
    const T half = T(0.5) * x;
    const T cdf = vmath::fma(T(0.5), vmath::erf(x * T(1 / std::numbers::sqrt2)), T(0.5));
    const T pdf = T(std::numbers::inv_sqrtpi / std::numbers::sqrt2) * vmath::exp(-half * x);
    return {x * cdf, vmath::fma(x, pdf, cdf)};
  }
};

// The same paper's approximation by tanh, which GPT-2 uses.
struct GeluTanh {
  template <class T>
  GRAFT_HOST_DEVICE Point<T> operator()(T x) const {
    constexpr T kRoot = T(std::numbers::sqrt2 * std::numbers::inv_sqrtpi), kCubic = T(0.044715);
    const T square = x * x, half = T(0.5) * x;
    const T t = vmath::tanh(kRoot * (x * vmath::fma(kCubic, square, T{1})));
    const T inner = kRoot * vmath::fma(3 * kCubic, square, T{1});
    return {vmath::fma(half, t, half),
            vmath::fma(half * (T{1} - t * t), inner, vmath::fma(T(0.5), t, T(0.5)))};
  }
};

// The slope at zero is zero.
struct Relu {
  template <class T>
  GRAFT_HOST_DEVICE Point<T> operator()(T x) const {
    return {x > 0 ? x : (x == x ? T{0} : x), x > 0 ? T{1} : T{0}};
  }
};

struct Silu {
  template <class T>
  GRAFT_HOST_DEVICE Point<T> operator()(T x) const {
    const T s = logistic(x).value;
    return {x * s, s * vmath::fma(x, T{1} - s, T{1})};
  }
};

struct Tanh {
  template <class T>
  GRAFT_HOST_DEVICE Point<T> operator()(T x) const {
    const T t = vmath::tanh(x);
    return {t, vmath::fma(-t, t, T{1})};
  }
};

struct Sigmoid {
  template <class T>
  GRAFT_HOST_DEVICE Point<T> operator()(T x) const {
    return logistic(x);
  }
};

struct Exp {
  template <class T>
  GRAFT_HOST_DEVICE Point<T> operator()(T x) const {
    const T e = vmath::exp(x);
    return {e, e};
  }
};

struct Log {
  template <class T>
  GRAFT_HOST_DEVICE Point<T> operator()(T x) const {
    return {std::log(x), T{1} / x};
  }
};

struct Square {
  template <class T>
  GRAFT_HOST_DEVICE Point<T> operator()(T x) const {
    return {x * x, 2 * x};
  }
};

struct Sqrt {
  template <class T>
  GRAFT_HOST_DEVICE Point<T> operator()(T x) const {
    const T root = std::sqrt(x);
    return {root, T(0.5) / root};
  }
};

// Calls f with the functor that `map` names.
template <class F>
void with_map(Map map, F&& f) {
  switch (map) {
    case Map::gelu:
      return f(Gelu{});
    case Map::gelu_tanh:
      return f(GeluTanh{});
    case Map::relu:
      return f(Relu{});
    case Map::silu:
      return f(Silu{});
    case Map::tanh:
      return f(Tanh{});
    case Map::sigmoid:
      return f(Sigmoid{});
    case Map::exp:
      return f(Exp{});
    case Map::log:
      return f(Log{});
    case Map::square:
      return f(Square{});
    case Map::sqrt:
      return f(Sqrt{});
  }
}

}  // namespace graft::maps
