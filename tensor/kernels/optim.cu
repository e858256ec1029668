// Optimizer steps on the device; the formulas are the host's (optim.cpp).
#include <cmath>

#include "tensor/cuda/launch.h"
#include "tensor/kernels.h"
#include "tensor/vmath.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

template <class T>
struct AdamWNumbers {
  T shrink, keep, rate1, rate2, beta2, eps, size, root;
};

template <class T>
__global__ void adamw_kernel(T* w, T* m, T* v, const T* grad, AdamWNumbers<T> o, Index n) {
  for (Index i = thread_index(); i < n; i += grid_step()) {
    const T g = vmath::fma(o.shrink, grad[i], T{-0.0});
    const T mean = vmath::fma(o.rate1, g - m[i], m[i]);
    const T square = vmath::fma(o.rate2 * g, g, o.beta2 * v[i]);
    m[i] = mean;
    v[i] = square;
    w[i] = vmath::fma(-o.size, mean / (std::sqrt(square) / o.root + o.eps), w[i] * o.keep);
  }
}

template <class T>
__global__ void sgd_kernel(T* w, T* v, const T* grad, T rate, T mu, T lambda, Index n) {
  for (Index i = thread_index(); i < n; i += grid_step()) {
    const T velocity = vmath::fma(mu, v[i], vmath::fma(lambda, w[i], grad[i]));
    v[i] = velocity;
    w[i] = vmath::fma(-rate, velocity, w[i]);
  }
}

}  // namespace

void adamw(Array& w, Array& m, Array& v, const Array& grad, const AdamW& o) {
  dispatch(w, [&]<class T>(T) {
    const AdamWNumbers<T> numbers{static_cast<T>(o.shrink),
                                  static_cast<T>(1 - o.lr * o.decay),
                                  static_cast<T>(1 - o.beta1),
                                  static_cast<T>(1 - o.beta2),
                                  static_cast<T>(o.beta2),
                                  static_cast<T>(o.eps),
                                  static_cast<T>(o.lr / (1 - std::pow(o.beta1, o.step))),
                                  static_cast<T>(std::sqrt(1 - std::pow(o.beta2, o.step)))};
    launch("adamw", adamw_kernel<T>, grid_of(w.numel()), w.device_data<T>(), m.device_data<T>(),
           v.device_data<T>(), grad.device_data<T>(), numbers, w.numel());
  });
}

void sgd(Array& w, Array& v, const Array& grad, double lr, double momentum, double decay) {
  dispatch(w, [&]<class T>(T) {
    launch("sgd", sgd_kernel<T>, grid_of(w.numel()), w.device_data<T>(), v.device_data<T>(),
           grad.device_data<T>(), static_cast<T>(lr), static_cast<T>(momentum),
           static_cast<T>(decay), w.numel());
  });
}

}  // namespace graft::cuda
