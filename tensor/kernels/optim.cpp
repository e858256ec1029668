// One optimizer step over one tensor. Decay is decoupled in adamw (Loshchilov and Hutter 2019),
// part of the gradient in sgd.
#include <cmath>

#include "tensor/kernels.h"
#include "tensor/kernels/lanes.h"
#include "tensor/parallel.h"
#include "tensor/vmath.h"

namespace graft::cpu {

// The order of operations of PyTorch's single-tensor AdamW (lerp, then addcmul, then addcdiv):
//   g *= shrink
//   w *= 1 - lr decay
//   m += (1 - beta1) (g - m)
//   v  = beta2 v + (1 - beta2) g g
//   w -= lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
// Scalars are worked out in f64 and rounded once, as there.
void adamw(Array& w, Array& m, Array& v, const Array& grad, const AdamW& o) {
  dispatch(w, [&]<class T>(T) {
    const T keep = static_cast<T>(1 - o.lr * o.decay);
    const T rate1 = static_cast<T>(1 - o.beta1), rate2 = static_cast<T>(1 - o.beta2);
    const T shrink = static_cast<T>(o.shrink);
    const T beta2 = static_cast<T>(o.beta2), eps = static_cast<T>(o.eps);
    const T size = static_cast<T>(o.lr / (1 - std::pow(o.beta1, o.step)));
    const T root = static_cast<T>(std::sqrt(1 - std::pow(o.beta2, o.step)));
    T *ww = w.data<T>(), *mm = m.data<T>(), *vv = v.data<T>();
    const T* gg = grad.data<T>();
    parallel_ranges(w.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const T g = vmath::fma(shrink, gg[i], T{-0.0});  // a product that nothing is fused with
        const T mean = vmath::fma(rate1, g - mm[i], mm[i]);
        const T square = vmath::fma(rate2 * g, g, beta2 * vv[i]);
        mm[i] = mean;
        vv[i] = square;
        ww[i] = vmath::fma(-size, mean / (std::sqrt(square) / root + eps), ww[i] * keep);
      }
    });
  });
}

void sgd(Array& w, Array& v, const Array& grad, double lr, double momentum, double decay) {
  dispatch(w, [&]<class T>(T) {
    const T rate = static_cast<T>(lr), mu = static_cast<T>(momentum);
    const T lambda = static_cast<T>(decay);
    T *ww = w.data<T>(), *vv = v.data<T>();
    const T* gg = grad.data<T>();
    parallel_ranges(w.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const T velocity = vmath::fma(mu, vv[i], vmath::fma(lambda, ww[i], gg[i]));
        vv[i] = velocity;
        ww[i] = vmath::fma(-rate, velocity, ww[i]);
      }
    });
  });
}

}  // namespace graft::cpu
