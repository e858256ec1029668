// Optimizer steps. Decay is decoupled in adamw (Loshchilov and Hutter 2019),
// part of the gradient in sgd.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/kernels/lanes.h"
#include "tensor/parallel.h"
#include "tensor/vmath.h"

namespace graft::cpu {

namespace {

template <class T>
struct Numbers {
  T *w, *m, *v;
  const T* grad;
  std::int64_t size;
  T keep, rate;
};

}  // namespace

// The order of operations of PyTorch's single-tensor AdamW (lerp, then addcmul, then addcdiv):
//   g *= shrink, which is 1 or clip / norm, over `scale`
//   w *= 1 - lr decay
//   m += (1 - beta1) (g - m)
//   v  = beta2 v + (1 - beta2) g g
//   w -= lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
// Scalars are worked out in f64 and rounded once, as there. Threads share all tensors' numbers,
// laid one after another: an adapter has many small tensors, none of which is worth waking a
// thread. (So two threads may write into one cache line, where a range ends.)
void adamw(const std::vector<AdamWTensor>& tensors, const AdamW& o, const Array& squares) {
  if (tensors.empty()) return;
  double sum = 0;
  if (squares.defined())
    for (const double one : squares.to_vector()) sum += one;
  if (!std::isfinite(sum)) return;
  const double norm = std::sqrt(sum) / o.scale;
  const double shrinks = (o.clip > 0 && norm > o.clip ? o.clip / norm : 1) / o.scale;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    check(tensors[i].w.dtype() == tensors[0].w.dtype(), "adamw: tensor {} is {}, the first {}", i,
          name(tensors[i].w.dtype()), name(tensors[0].w.dtype()));
  dispatch(tensors[0].w, [&]<class T>(T) {
    std::vector<Numbers<T>> all;
    std::vector<std::int64_t> start{0};
    for (AdamWTensor x : tensors) {  // a copy, since const arrays are for reading
      all.push_back({x.w.data<T>(), x.m.data<T>(), x.v.data<T>(), std::as_const(x.grad).data<T>(),
                     x.w.numel(), static_cast<T>(1 - x.lr * x.decay),
                     static_cast<T>(x.lr / (1 - std::pow(o.beta1, o.step)))});
      start.push_back(start.back() + x.w.numel());
    }
    const T rate1 = static_cast<T>(1 - o.beta1), rate2 = static_cast<T>(1 - o.beta2);
    const T shrink = static_cast<T>(shrinks);
    const T beta2 = static_cast<T>(o.beta2), eps = static_cast<T>(o.eps);
    const T root = static_cast<T>(std::sqrt(1 - std::pow(o.beta2, o.step)));
    const auto step = [=](const Numbers<T>& x, std::int64_t begin, std::int64_t end) {
      T *ww = x.w, *mm = x.m, *vv = x.v;
      const T* gg = x.grad;
      const T keep = x.keep, size = x.rate;
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const T g = vmath::fma(shrink, gg[i], T{-0.0});  // a product that nothing is fused with
        const T mean = vmath::fma(rate1, g - mm[i], mm[i]);
        const T square = vmath::fma(rate2 * g, g, beta2 * vv[i]);
        mm[i] = mean;
        vv[i] = square;
        ww[i] = vmath::fma(-size, mean / (std::sqrt(square) / root + eps), ww[i] * keep);
      }
    };
    parallel_ranges(start.back(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      auto at = static_cast<std::size_t>(std::upper_bound(start.begin(), start.end(), begin) -
                                         start.begin() - 1);
      for (; begin < end; begin = start[++at])
        step(all[at], begin - start[at], std::min(end, start[at + 1]) - start[at]);
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
