// Element-wise kernels on the device.
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

template <class T, class F>
void run_binary(Array& y, const Array& a, const Array& b, F f) {
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
      launch("map", map_kernel<T, F>, grid_of(y.numel()), y.device_data<T>(), x.device_data<T>(),
             y.numel(), f);
    });
  });
}

void map_grad(Map which, Array& dx, const Array& x, const Array& dy) {
  dispatch_all(dx, [&]<class T>(T) {
    maps::with_map(which, [&]<class F>(F f) {
      launch("map_grad", map_grad_kernel<T, F>, grid_of(dx.numel()), dx.device_data<T>(),
             x.device_data<T>(), dy.device_data<T>(), dx.numel(), f);
    });
  });
}

void axpy(Array& y, const Array& x, double alpha) {
  dispatch_all(y, [&]<class T>(T) {
    using C = Compute<T>;
    launch("axpy", axpy_kernel<T, C>, grid_of(y.numel()), y.device_data<T>(), x.device_data<T>(),
           static_cast<C>(alpha), y.numel());
  });
}

void scale(Array& y, const Array& x, double alpha) {
  dispatch_all(y, [&]<class T>(T) {
    using C = Compute<T>;
    launch("scale", scale_kernel<T, C>, grid_of(y.numel()), y.device_data<T>(), x.device_data<T>(),
           static_cast<C>(alpha), y.numel());
  });
}

void swiglu(Array& y, const Array& gate, const Array& up) {
  dispatch_all(y, [&]<class T>(T) {
    launch("swiglu", swiglu_kernel<T>, grid_of(y.numel()), y.device_data<T>(),
           gate.device_data<T>(), up.device_data<T>(), y.numel());
  });
}

void swiglu_grad(Array& dgate, Array& dup, const Array& gate, const Array& up, const Array& dy) {
  dispatch_all(dgate, [&]<class T>(T) {
    launch("swiglu_grad", swiglu_grad_kernel<T>, grid_of(dgate.numel()), dgate.device_data<T>(),
           dup.device_data<T>(), gate.device_data<T>(), up.device_data<T>(), dy.device_data<T>(),
           dgate.numel());
  });
}

}  // namespace graft::cuda
