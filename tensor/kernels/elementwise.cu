// Element-wise kernels on the device; of halves eight at a time, where they lie so.
#include <numbers>

#include "tensor/cuda/eight.h"
#include "tensor/cuda/walk.h"
#include "tensor/kernels.h"
#include "tensor/kernels/maps.h"

namespace graft::cuda {
namespace {

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Sub {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a - b;
  }
};
struct Mul {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a * b;
  }
};
struct Div {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a / b;
  }
};

template <class T, class F>
__global__ void binary_kernel(T* y, const T* a, const T* b, Walk walk, std::int64_t n, F f) {
  using C = Compute<T>;
  for (std::int64_t i = thread_index(); i < n; i += grid_step()) {
    const Offsets at = walk.at(i);
    y[at.y] = static_cast<T>(f(static_cast<C>(a[at.a]), static_cast<C>(b[at.b])));
  }
}

template <class T, class F>
__global__ void map_kernel(T* y, const T* x, std::int64_t n, F f) {
  for (std::int64_t i = thread_index(); i < n; i += grid_step())
    y[i] = static_cast<T>(f(static_cast<Compute<T>>(x[i])).value);
}

template <class T, class F>
__global__ void map_grad_kernel(T* dx, const T* x, const T* dy, std::int64_t n, F f) {
  using C = Compute<T>;
  for (std::int64_t i = thread_index(); i < n; i += grid_step())
    dx[i] = static_cast<T>(f(static_cast<C>(x[i])).slope * static_cast<C>(dy[i]));
}

template <class T, class C>
__global__ void axpy_kernel(T* y, const T* x, C alpha, std::int64_t n) {
  for (std::int64_t i = thread_index(); i < n; i += grid_step())
    y[i] = static_cast<T>(vmath::fma(alpha, static_cast<C>(x[i]), static_cast<C>(y[i])));
}

template <class T, class C>
__global__ void scale_kernel(T* y, const T* x, C alpha, std::int64_t n) {
  for (std::int64_t i = thread_index(); i < n; i += grid_step())
    y[i] = static_cast<T>(alpha * static_cast<C>(x[i]));
}

template <class T>
__global__ void swiglu_kernel(T* y, const T* gate, const T* up, std::int64_t n) {
  using C = Compute<T>;
  for (std::int64_t i = thread_index(); i < n; i += grid_step())
    y[i] = static_cast<T>(maps::Silu{}(static_cast<C>(gate[i])).value * static_cast<C>(up[i]));
}

template <class T>
__global__ void swiglu_grad_kernel(T* dgate, T* dup, const T* gate, const T* up, const T* dy,
                                   std::int64_t n) {
  using C = Compute<T>;
  for (std::int64_t i = thread_index(); i < n; i += grid_step()) {
    const maps::Point<C> silu = maps::Silu{}(static_cast<C>(gate[i]));
    const C d = static_cast<C>(dy[i]), right = static_cast<C>(up[i]);
    dgate[i] = static_cast<T>(d * right * silu.slope);
    dup[i] = static_cast<T>(d * silu.value);
  }
}

template <class F, class... E>
__device__ Eight each_of(F f, const E&... in) {
  Eight y;
  GRAFT_UNROLL
  for (int e = 0; e < 8; ++e) y.x[e] = f(in.x[e]...);
  return y;
}

// y = f(in...), n eights.
template <class T, class F, class... In>
__global__ void eights_kernel(T* y, std::int64_t n, F f, const In*... in) {
  for (std::int64_t i = thread_index(); i < n; i += grid_step())
    store_eight(y + 8 * i, each_of(f, load_eight(in + 8 * i)...));
}

// Whether it was done so: they are halves, n a multiple of 8, and all begin at 16 bytes.
template <class T, class F, class... In>
bool done_in_eights(const char* name, std::int64_t n, F f, T* y, const In*... in) {
  if constexpr (half_type<T>) {
    if (n % 8 != 0 || !at_sixteen(y, in...)) return false;
    launch(name, eights_kernel<T, F, In...>, n > 0 ? grid_of(n / 8) : Grid{0}, y, n / 8, f, in...);
    return true;
  }
  return false;
}

// The functions on halves: those whose divisions and powers would take most of a kernel's time have
// quick ones.
struct QuickSilu {
  __device__ maps::Point<float> operator()(float x) const {
    const float s = quick_logistic(x);
    return {x * s, s * vmath::fma(x, 1 - s, 1.0f)};
  }
};
// (1 + tanh(u)) / 2 is logistic(2u), which loses nothing where tanh(u) is near -1.
struct QuickGeluTanh {
  __device__ maps::Point<float> operator()(float x) const {
    constexpr auto kTwice = float(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
    constexpr float kCubic = 0.044715f;
    const float square = x * x;
    const float s = quick_logistic(kTwice * (x * vmath::fma(kCubic, square, 1.0f)));
    const float inner = kTwice * vmath::fma(3 * kCubic, square, 1.0f);
    return {x * s, vmath::fma(x * s * (1 - s), inner, s)};
  }
};
template <class F>
struct QuickForm {
  using type = F;
};
template <>
struct QuickForm<maps::Silu> {
  using type = QuickSilu;
};
template <>
struct QuickForm<maps::GeluTanh> {
  using type = QuickGeluTanh;
};
template <class F>
using Quick = typename QuickForm<F>::type;

template <class F>
struct ValueOf {
  __device__ float operator()(float x) const { return F{}(x).value; }
};
template <class F>
struct SlopeTimes {
  __device__ float operator()(float x, float dy) const { return F{}(x).slope * dy; }
};
struct Swiglu {
  __device__ float operator()(float gate, float up) const { return QuickSilu{}(gate).value * up; }
};
struct Axpy {
  float alpha;
  static constexpr bool kWhole = true;  // see commands.h
  __device__ float operator()(float x, float y) const { return vmath::fma(alpha, x, y); }
};
struct Times {
  float alpha;
  static constexpr bool kWhole = true;
  __device__ float operator()(float x) const { return alpha * x; }
};

template <class T>
__global__ void swiglu_grad_eights(T* dgate, T* dup, const T* gate, const T* up, const T* dy,
                                   std::int64_t n) {
  for (std::int64_t i = thread_index(); i < n; i += grid_step()) {
    const Eight g = load_eight(gate + 8 * i), u = load_eight(up + 8 * i),
                d = load_eight(dy + 8 * i);
    Eight to_gate, to_up;
    GRAFT_UNROLL
    for (int e = 0; e < 8; ++e) {
      const maps::Point<float> silu = QuickSilu{}(g.x[e]);
      to_gate.x[e] = d.x[e] * u.x[e] * silu.slope;
      to_up.x[e] = d.x[e] * silu.value;
    }
    store_eight(dgate + 8 * i, to_gate);
    store_eight(dup + 8 * i, to_up);
  }
}

template <class T, class F>
void run_binary(Array& y, const Array& a, const Array& b, F f) {
  if (a.shape() == y.shape() && b.shape() == y.shape() && y.contiguous() && a.contiguous() &&
      b.contiguous() &&
      done_in_eights("binary", y.numel(), f, y.device_data<T>(), a.device_data<T>(),
                     b.device_data<T>()))
    return;
  launch("binary", binary_kernel<T, F>, grid_of(y.numel()), y.device_data<T>(), a.device_data<T>(),
         b.device_data<T>(), walk_of("binary", y, a, b), y.numel(), f);
}

}  // namespace

void binary(Binary op, Array& y, const Array& a, const Array& b) {
  dispatch_all(y, [&]<class T>(T) {
    switch (op) {
      case Binary::add:
        return run_binary<T>(y, a, b, Add{});
      case Binary::sub:
        return run_binary<T>(y, a, b, Sub{});
      case Binary::mul:
        return run_binary<T>(y, a, b, Mul{});
      case Binary::div:
        return run_binary<T>(y, a, b, Div{});
    }
  });
}

void map(Map which, Array& y, const Array& x) {
  dispatch_all(y, [&]<class T>(T) {
    maps::with_map(which, [&]<class F>(F f) {
      if (done_in_eights("map", y.numel(), ValueOf<Quick<F>>{}, y.device_data<T>(),
                         x.device_data<T>()))
        return;
      launch("map", map_kernel<T, F>, grid_of(y.numel()), y.device_data<T>(), x.device_data<T>(),
             y.numel(), f);
    });
  });
}

void map_grad(Map which, Array& dx, const Array& x, const Array& dy) {
  dispatch_all(dx, [&]<class T>(T) {
    maps::with_map(which, [&]<class F>(F f) {
      if (done_in_eights("map_grad", dx.numel(), SlopeTimes<Quick<F>>{}, dx.device_data<T>(),
                         x.device_data<T>(), dy.device_data<T>()))
        return;
      launch("map_grad", map_grad_kernel<T, F>, grid_of(dx.numel()), dx.device_data<T>(),
             x.device_data<T>(), dy.device_data<T>(), dx.numel(), f);
    });
  });
}

void axpy(Array& y, const Array& x, double alpha) {
  dispatch_all(y, [&]<class T>(T) {
    using C = Compute<T>;
    if (done_in_eights("axpy", y.numel(), Axpy{static_cast<float>(alpha)}, y.device_data<T>(),
                       x.device_data<T>(), static_cast<const T*>(y.device_data<T>())))
      return;
    launch("axpy", axpy_kernel<T, C>, grid_of(y.numel()), y.device_data<T>(), x.device_data<T>(),
           static_cast<C>(alpha), y.numel());
  });
}

void scale(Array& y, const Array& x, double alpha) {
  dispatch_all(y, [&]<class T>(T) {
    using C = Compute<T>;
    if (done_in_eights("scale", y.numel(), Times{static_cast<float>(alpha)}, y.device_data<T>(),
                       x.device_data<T>()))
      return;
    launch("scale", scale_kernel<T, C>, grid_of(y.numel()), y.device_data<T>(), x.device_data<T>(),
           static_cast<C>(alpha), y.numel());
  });
}

void swiglu(Array& y, const Array& gate, const Array& up) {
  dispatch_all(y, [&]<class T>(T) {
    if (done_in_eights("swiglu", y.numel(), Swiglu{}, y.device_data<T>(), gate.device_data<T>(),
                       up.device_data<T>()))
      return;
    launch("swiglu", swiglu_kernel<T>, grid_of(y.numel()), y.device_data<T>(),
           gate.device_data<T>(), up.device_data<T>(), y.numel());
  });
}

void swiglu_grad(Array& dgate, Array& dup, const Array& gate, const Array& up, const Array& dy) {
  const std::int64_t n = dgate.numel();
  dispatch_all(dgate, [&]<class T>(T) {
    T *const to_gate = dgate.device_data<T>(), *const to_up = dup.device_data<T>();
    const T *const g = gate.device_data<T>(), *const u = up.device_data<T>(),
                   *const d = dy.device_data<T>();
    if constexpr (half_type<T>) {
      if (n % 8 == 0 && n > 0 && at_sixteen(to_gate, to_up, g, u, d)) {
        launch("swiglu_grad", swiglu_grad_eights<T>, grid_of(n / 8), to_gate, to_up, g, u, d,
               n / 8);
        return;
      }
    }
    launch("swiglu_grad", swiglu_grad_kernel<T>, grid_of(n), to_gate, to_up, g, u, d, n);
  });
}

}  // namespace graft::cuda
